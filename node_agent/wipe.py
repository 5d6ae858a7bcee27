"""Make a range of a block device unfit to show what was on it before, as a class's `Wipe` policy says.

               at create, and the new part at grow     at delete
    NONE       nothing                                 nothing
    SIGNATURES zero where a probe looks                zero where a probe looks
    DISCARD    zero the range                          discard the range, then zero where a probe still finds something
    ZERO       zero the range                          zero the range

Zeroing is BLKZEROOUT: the device's own write-zeroes command, or, where it has none, zeroes written by the kernel, so
that the range reads as zeroes on every device (block/blk-lib.c, blkdev_issue_zeroout); it also drops the range from the
page cache, dirty pages too (block/ioctl.c, blk_ioctl_zeroout), so that nobody reads the old bytes from memory. What a
discarded block reads as is the device's affair: discarding gives room back (to a thin pool, to an SSD) and is no proof
of zeroes. A device that cannot discard gets SIGNATURES' treatment instead.

Zeroing never gives blocks back (BLKDEV_ZERO_NOUNMAP). On a thin volume it takes them from the pool, all of them for
ZERO, and fails where the pool is full: a thin volume is deleted with DISCARD, whatever else its class asks for.

At create and delete the device is held with O_EXCL throughout: nobody can have it mounted, in a RAID or below
device-mapper meanwhile. A process that merely has it open does not show in that way, nor does a loop device on top of
it (kubelet attaches one to every block volume): the caller has looked for those. A volume grows while it is mounted, so
at grow it is not held: there the caller vouches that [start, end) is new, and that nobody has been told of it yet.

Everything can be repeated: a wipe that was stopped, or died, is done again from its start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from node_agent import exclusive
from ullage.errors import KIB, MIB, DeviceError, InvalidRequestError, UnavailableError, human_bytes
from ullage.model import Wipe
from ullage.places import PLACES, Place

STEP_BYTES = 256 * MIB
"""One ioctl's share: what cannot be stopped. About two seconds of a disk that must really write."""
LOOK_BYTES = 64 * KIB
"""What is looked at, and zeroed, as one after a discard: a thin pool's smallest chunk."""


class Moment(StrEnum):
    """When in a volume's life: whether the room is about to be shown (CREATE, GROW) or given back (DELETE)."""

    CREATE = "create"
    GROW = "grow"
    DELETE = "delete"


def wipe(  # noqa: PLR0913 (one job with many facts; all but two are keywords)
    device_path: str,
    policy: Wipe,
    *,
    start_bytes: int = 0,
    end_bytes: int,
    moment: Moment,
    progress: Callable[[int], None] = lambda _: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Wipe [start_bytes, end_bytes) of a device; returns when it is done, and what was written is on the device.

    `progress` hears after each step how many bytes of the range are behind it. `is_stopping` is asked before each.

    Raises VolumeInUseError (mounted, or held by another device), InvalidRequestError (not whole blocks), DeviceError
    (no block device, too small, or it answered with an error), all before anything is written but for I/O errors; and
    UnavailableError when it was stopped half-way.
    """
    if policy is Wipe.NONE:
        return
    with exclusive.held(device_path, is_exclusive=moment is not Moment.GROW) as descriptor:
        device_bytes = _checked(device_path, descriptor, start_bytes, end_bytes)
        work = _Work(
            path=device_path,
            descriptor=descriptor,
            start=start_bytes,
            end=end_bytes,
            places=_pieces(device_bytes, start_bytes, end_bytes, exclusive.block_bytes(device_path, descriptor)),
            progress=progress,
            is_stopping=is_stopping,
        )
        if policy is Wipe.SIGNATURES:
            work.zero_places()
        elif policy is Wipe.DISCARD and moment is Moment.DELETE:
            work.discard()
        else:
            work.zero()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A wipe of a range of a device that is held open; its three ways."""

    path: str
    descriptor: int
    start: int
    end: int
    places: tuple[tuple[int, int], ...]
    progress: Callable[[int], None]
    is_stopping: Callable[[], bool]

    def zero(self) -> None:
        """The whole range."""
        for offset, size in _steps(self.start, self.end):
            self._go_on(offset)
            self._zero(offset, size)
            self._reached(offset + size)
        self._flush()

    def zero_places(self) -> None:
        """Where a probe looks, and nothing else."""
        for offset, size in self.places:
            self._go_on(offset)
            self._zero(offset, size)
            self._reached(offset + size)
        self._flush()
        self._reached(self.end)

    def discard(self) -> None:
        """The whole range; then, where a probe looks, whatever the discard has left readable."""
        for offset, size in _steps(self.start, self.end):
            self._go_on(offset)
            if not exclusive.discard(self.path, self.descriptor, offset, size):
                self.zero_places()
                return
            self._reached(offset + size)
        is_zeroed = False
        for first, length in self.places:
            for offset, size in _steps(first, first + length, LOOK_BYTES):
                # Not unasked: on a thin volume a write would take back from the pool what it has just been given.
                if not _reads_as_zeroes(self.descriptor, offset, size):
                    self._go_on(offset)
                    self._zero(offset, size)
                    is_zeroed = True
        # Discards alone are not flushed: in a full thin pool a flush of a volume without blocks waits for room, or
        # fails; and the removal that follows commits the pool.
        if is_zeroed:
            self._flush()

    def _zero(self, offset: int, size: int) -> None:
        exclusive.zero(self.path, self.descriptor, offset, size)

    def _flush(self) -> None:
        # The first answer may be about a write of an earlier user that failed unheard; the second is about ours.
        with contextlib.suppress(OSError):
            os.fsync(self.descriptor)
            return
        with exclusive.answering(self.path, "flushing", self.start):
            os.fsync(self.descriptor)

    def _go_on(self, offset: int) -> None:
        if self.is_stopping():
            raise UnavailableError(
                f"The wipe of {self.path} was stopped at byte {offset}; it starts again from its beginning",
                device=self.path,
                offset_bytes=offset,
            )

    def _reached(self, offset: int) -> None:
        self.progress(offset - self.start)


def _checked(path: str, descriptor: int, start: int, end: int) -> int:
    """The device's size, once the range is known to be whole blocks of it."""
    device_bytes = exclusive.size_bytes(path, descriptor)
    block = exclusive.block_bytes(path, descriptor)
    if not 0 <= start <= end or start % block or end % block:
        raise InvalidRequestError(
            f"Bytes {start} to {end} of {path} are no range of whole blocks of {block} bytes",
            device=path,
            start_bytes=start,
            end_bytes=end,
            block_bytes=block,
        )
    if end > device_bytes:
        raise DeviceError(
            f"{path} has {human_bytes(device_bytes)} ({device_bytes} bytes); the range to wipe ends at {end}",
            device=path,
            device_bytes=device_bytes,
            end_bytes=end,
        )
    return device_bytes


def _pieces(device_bytes: int, start: int, end: int, block: int) -> tuple[tuple[int, int], ...]:
    """Offset and size of what is inside the range of every place where a probe looks, in order, apart.

    A place counted from the end is counted from the range's end too: a volume may be used shorter than its device is.
    """
    pieces: list[tuple[int, int]] = []
    for first, last in sorted(_bounds(place, size) for place in PLACES for size in {device_bytes, end}):
        # Outward to whole blocks: a loop device's size need not be a multiple of its own block size.
        low = max(first // block * block, start, pieces[-1][0] + pieces[-1][1] if pieces else 0)
        high = min(-(-last // block) * block, end)
        if low < high:
            pieces.append((low, high - low))
    return tuple(pieces)


def _bounds(place: Place, device_bytes: int) -> tuple[int, int]:
    first = place.offset_bytes if place.offset_bytes >= 0 else max(0, device_bytes + place.offset_bytes)
    return first, first + place.size_bytes


def _steps(start: int, end: int, step: int = STEP_BYTES) -> Iterator[tuple[int, int]]:
    for offset in range(start, end, step):
        yield offset, min(step, end - offset)


def _reads_as_zeroes(descriptor: int, offset: int, size: int) -> bool:
    """Whether it is known to; what cannot be read is not known."""
    try:
        found = os.pread(descriptor, size, offset)
    except OSError:
        return False
    return len(found) == size and found.count(0) == size
