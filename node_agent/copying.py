"""Copy what does not change any more, a snapshot, into a block device: pure I/O, nothing of volumes.

Every byte of the range is the source's when it is done, the zeroes too: where the source has zeroes only, or a hole,
nothing is written; the device is told to make zeroes (as in `node_agent.wipe`), unless it is known to be blank.

What is copied is on the device for good only up to the last checkpoint, a flush, and only that is told as durable: a
copy that died goes on from there. The page cache is not flooded with what nobody reads again: each step's pages are
written at once and dropped at the next steps. A copy stops between two steps, after a last checkpoint.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from node_agent import exclusive
from ullage.errors import GIB, KIB, MIB, DeviceError, InvalidRequestError, UnavailableError, human_bytes

STEP_BYTES = 4 * MIB
"""Read at once, and what cannot be stopped."""
PIECE_BYTES = 64 * KIB
"""The shortest run of zeroes that is not written: shorter ones cost more commands than they save."""
HOLE_STEP_BYTES = 256 * MIB
"""One hole's share at once, as in a wipe."""
CHECKPOINT_BYTES = 16 * GIB
CHECKPOINT_SECONDS = 30.0
"""A copy that dies does so much again at most, whichever comes first; a checkpoint costs a flush and an LVM command."""
NAP_SECONDS = 0.5
"""How long a slowed copy sleeps before it asks again whether it is to stop."""

_ZEROES = bytes(STEP_BYTES)


class Course(Protocol):
    """Whom a copy answers to. Every offset is the source's, which is the target's, too."""

    def reached(self, offset_bytes: int) -> None:
        """So far it is, after each step."""

    def durable(self, offset_bytes: int) -> None:
        """Everything before this offset is on the device for good."""

    def pause_seconds(self, moved_bytes: int) -> float:
        """How long to wait after having read or written so much."""

    def is_stopping(self) -> bool:
        """Whether to end; asked before each step."""


def copy(  # noqa: PLR0913 (one job with many facts; all but three are keywords)
    source: int,
    device_path: str,
    course: Course,
    *,
    start_bytes: int,
    end_bytes: int,
    is_blank: bool = False,
    checkpoint_bytes: int = CHECKPOINT_BYTES,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Copy [start_bytes, end_bytes) of the open `source` to the same place of the device; then it is there for good.

    `is_blank`: wherever nobody has written before, and this copy's forerunners on this very range, the device reads as
    zeroes. Raises VolumeInUseError (mounted, or held by another device), InvalidRequestError, DeviceError (no block
    device, source or device too small, or one of them answered with an error); UnavailableError when it was stopped.
    """
    with exclusive.held(device_path, is_exclusive=True) as target:
        _check(source, device_path, target, start_bytes, end_bytes)
        with contextlib.suppress(OSError):
            os.fsync(target)  # what it answers is about writes of earlier users that failed unheard
        _Work(
            source=source,
            path=device_path,
            target=target,
            course=course,
            block=exclusive.block_bytes(device_path, target),
            end=end_bytes,
            is_blank=is_blank,
            checkpoint_bytes=checkpoint_bytes,
            checkpoint_seconds=checkpoint_seconds,
            clock=clock,
            sleep=sleep,
            durable=start_bytes,
            flushed_at=clock(),
        ).run()


@dataclass(slots=True, kw_only=True)
class _Work:
    """A copy under way: everything up to `durable` is on the device for good."""

    source: int
    path: str
    target: int
    course: Course
    block: int
    end: int
    is_blank: bool
    checkpoint_bytes: int
    checkpoint_seconds: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    durable: int
    flushed_at: float
    cached: int = field(init=False)
    """Where the pages begin that may still be in the cache."""

    def run(self) -> None:
        offset = self.cached = self.durable
        while offset < self.end:
            self._go_on(offset)
            size, moved_bytes = self._step(offset)
            offset += size
            self._drop(offset)
            self.course.reached(offset)
            pause_seconds = self.course.pause_seconds(moved_bytes)
            if offset < self.end:
                if self._is_due(offset):
                    self._checkpoint(offset)
                self._rest(offset, pause_seconds)
        self._checkpoint(self.end)

    def _step(self, offset: int) -> tuple[int, int]:
        """Copy from `offset` on: how far that went, and how much of it was read or zeroed."""
        hole = data_after(self.source, offset, self.end) - offset
        if hole > 0:
            size = min(hole, HOLE_STEP_BYTES)
            self._zero(offset, size)
            return size, 0 if self.is_blank else size
        wanted = min(STEP_BYTES, self.end - offset)
        with exclusive.answering("the source", "reading", offset):
            found = os.pread(self.source, wanted, offset)
        if not found:
            raise DeviceError(f"The source of {self.path} ends at byte {offset}", device=self.path, offset_bytes=offset)
        for is_zero, first, size in _runs(found):
            if is_zero:
                self._zero(offset + first, size)
            else:
                self._write(offset + first, memoryview(found)[first : first + size])
        return len(found), len(found)

    def _zero(self, offset: int, size: int) -> None:
        if self.is_blank:
            return
        whole = size // self.block * self.block if offset % self.block == 0 else 0
        if whole:
            exclusive.zero(self.path, self.target, offset, whole)
        if whole < size:
            for first in range(whole, size, STEP_BYTES):
                self._write(offset + first, memoryview(_ZEROES)[: min(STEP_BYTES, size - first)])

    def _write(self, offset: int, content: memoryview) -> None:
        while content:
            with exclusive.answering(self.path, "writing", offset):
                written = os.pwrite(self.target, content, offset)
            offset, content = offset + written, content[written:]

    def _drop(self, offset: int) -> None:
        """Begin to write what is dirty before `offset`, and drop what is written: what POSIX_FADV_DONTNEED does."""
        size = offset - self.cached
        for descriptor in (self.source, self.target):
            with contextlib.suppress(OSError):
                os.posix_fadvise(descriptor, self.cached, size, os.POSIX_FADV_DONTNEED)
        # The last steps' pages are still being written; they are dropped a little later.
        self.cached = max(self.cached, offset - 8 * STEP_BYTES)

    def _is_due(self, offset: int) -> bool:
        return (
            offset - self.durable >= self.checkpoint_bytes or self.clock() - self.flushed_at >= self.checkpoint_seconds
        )

    def _checkpoint(self, offset: int) -> None:
        with exclusive.answering(self.path, "flushing", self.durable):
            os.fsync(self.target)
        self._drop(offset)
        self.durable, self.flushed_at = offset, self.clock()
        self.course.durable(offset)

    def _rest(self, offset: int, seconds: float) -> None:
        while seconds > 0:
            self._go_on(offset)
            nap = min(seconds, NAP_SECONDS)
            self.sleep(nap)
            seconds -= nap

    def _go_on(self, offset: int) -> None:
        if self.course.is_stopping():
            if offset > self.durable:
                self._checkpoint(offset)
            raise UnavailableError(
                f"The copy to {self.path} was stopped at byte {offset}; it goes on from there",
                device=self.path,
                offset_bytes=offset,
            )


def _check(source: int, path: str, target: int, start: int, end: int) -> None:
    if not 0 <= start <= end:
        raise InvalidRequestError(f"Bytes {start} to {end} are no range", start_bytes=start, end_bytes=end)
    with exclusive.answering("the source", "measuring", 0):
        source_bytes = os.lseek(source, 0, os.SEEK_END)
    for what, size_bytes in (("The source", source_bytes), (path, exclusive.size_bytes(path, target))):
        if size_bytes < end:
            raise DeviceError(
                f"{what} has {human_bytes(size_bytes)} ({size_bytes} bytes); the range to copy ends at {end}",
                device=path,
                device_bytes=size_bytes,
                end_bytes=end,
            )


def data_after(source: int, offset: int, end: int) -> int:
    """From where on the source may have anything but zeroes; `offset` itself where it cannot tell (a device)."""
    try:
        found = os.lseek(source, offset, os.SEEK_DATA)
    except OSError as failure:
        return end if failure.errno == errno.ENXIO else offset
    # Down to whole pieces: what lies between is read.
    return end if found >= end else max(offset, found // PIECE_BYTES * PIECE_BYTES)


def _runs(found: bytes) -> Iterator[tuple[bool, int, int]]:
    """Zero or not, first byte and size of each run of pieces."""
    if found == _ZEROES[: len(found)]:
        yield True, 0, len(found)
        return
    pieces = range(0, len(found), PIECE_BYTES)
    for is_zero, run in itertools.groupby(pieces, lambda first: _is_zero(found, first)):
        firsts = list(run)
        yield is_zero, firsts[0], min(firsts[-1] + PIECE_BYTES, len(found)) - firsts[0]


def _is_zero(found: bytes, first: int) -> bool:
    return found.startswith(_ZEROES[: min(PIECE_BYTES, len(found) - first)], first)
