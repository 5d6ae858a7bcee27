"""Whether anything was ever written to a volume: it was not, if nobody has it and every byte of it reads as zero.

That is a proof, and the only one: whatever else is true of a volume that nobody claims any more, it may hold somebody's
data. Nobody comes to have the volume while it is read: its device is held exclusively, and CSI's calls wait. Where the
holes of a volume are known they are not read; all the rest is, at the pace of the class's copies, one volume at a time.

Nothing is changed here. Whoever asks again soon after a reading that outlived the patience gets what it found; whoever
asks later has it read anew, since what was read a while ago proves nothing of now.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from node_agent import exclusive
from node_agent.copying import HOLE_STEP_BYTES, NAP_SECONDS, STEP_BYTES, data_after
from node_agent.ground import Ground
from ullage.errors import (
    DeviceError,
    InvalidRequestError,
    PendingOperationError,
    UnavailableError,
    VolumeInUseError,
    VolumeNotReadyError,
    human_bytes,
)
from ullage.model import Examine, Examined, Volume, VolumeId, VolumeKind, VolumeState

KEPT_SECONDS = 60.0
"""How long a finding waits for whoever has asked for it."""

_ZEROES = bytes(STEP_BYTES)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    request: Examine
    examined: Examined
    at: float


class Examiner:
    """Thread-safe."""

    def __init__(self, ground: Ground, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing was found yet."""
        self._ground = ground
        self._clock = clock
        self._reading = threading.Lock()
        self._guard = threading.Lock()
        self._found: dict[VolumeId, _Finding] = {}

    def examine(
        self,
        request: Examine,
        *,
        alone: Callable[[], AbstractContextManager[None]],
        is_wanted: Callable[[], bool],
        patience_seconds: float,
    ) -> Examined:
        """See `Agent.examine`."""
        known = self._known(request)
        if known is not None:
            return known
        return self._ground.operations.run(
            request.volume_id,
            request,
            lambda: self._examined(request, alone, is_wanted),
            patience_seconds=patience_seconds,
        )

    def _known(self, request: Examine) -> Examined | None:
        with self._guard:
            oldest = self._clock() - KEPT_SECONDS
            self._found = {key: each for key, each in self._found.items() if each.at >= oldest}
            found = self._found.get(request.volume_id)
            return found.examined if found is not None and found.request == request else None

    def _examined(
        self, request: Examine, alone: Callable[[], AbstractContextManager[None]], is_wanted: Callable[[], bool]
    ) -> Examined:
        if not self._reading.acquire(blocking=False):
            raise PendingOperationError(f"{request.volume_id} is examined after another volume")
        try:
            with alone():
                examined = self._look(request.volume_id, is_wanted)
        finally:
            self._reading.release()
        log.info("examined", extra={"volume_id": request.volume_id, "reason": examined.reason, "why": examined.message})
        with self._guard:
            self._found[request.volume_id] = _Finding(request=request, examined=examined, at=self._clock())
        return examined

    def _look(self, volume_id: VolumeId, is_wanted: Callable[[], bool]) -> Examined:
        ground = self._ground
        volume = self._fresh(volume_id)
        if volume.kind is not VolumeKind.VOLUME:
            raise InvalidRequestError(f"{volume_id} is a {volume.kind}: nobody writes to it")
        if volume.state is not VolumeState.READY or volume.problem is not None:
            why = volume.problem.message if volume.problem is not None else volume.state
            raise VolumeNotReadyError(f"{volume_id} is not whole: {why}", volume_id=volume_id)
        backend = ground.readable(volume)
        volume = ground.awake(backend, volume)
        if volume.is_open:
            return _in_use(volume)
        try:
            with exclusive.held(volume.device_path, is_exclusive=True, is_read_only=True) as device:
                with exclusive.answering(volume.device_path, "flushing", 0):
                    os.fsync(device)  # a volume's image is read behind its device's cache
                with backend.image(volume) as image:
                    course = _Course(ground=ground, volume=volume, is_wanted=is_wanted)
                    offset = _first_written(device if image is None else image, volume, course)
        except VolumeInUseError:
            return _in_use(volume)
        if offset is not None:
            message = f"something is written at byte {offset}"
            return Examined(is_unwritten=False, reason="Written", message=message)
        if self._fresh(volume_id).is_open:
            return _in_use(volume)
        message = f"every one of its {volume.size_bytes} bytes reads as zero"
        return Examined(is_unwritten=True, reason="AllZero", message=message)

    def _fresh(self, volume_id: VolumeId) -> Volume:
        """The volume as it is now, and not as it was at the last look."""
        self._ground.reporter.look_at(self._ground.get(volume_id).store)
        found = self._ground.get(volume_id)
        self._ground.readable(found)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Course:
    """How a reading goes on: slowly, as long as it is wanted."""

    ground: Ground
    volume: Volume
    is_wanted: Callable[[], bool]

    def go_on(self, offset: int, read_bytes: int) -> None:
        """Tell how far it is, and wait as the class's rate asks; raises UnavailableError when it is to end."""
        volume = self.volume
        self.ground.note(volume.id, f"{human_bytes(offset)} of {human_bytes(volume.device_size_bytes)} read")
        device_class = self.ground.classes.get(volume.device_class)
        rate_bytes = device_class.copy_rate_bytes if device_class else 0
        seconds = self.ground.fills.pause_seconds(volume.device_class, read_bytes, rate_bytes)
        while True:
            if self.ground.is_called_off(volume.id) or not self.is_wanted():
                raise UnavailableError(f"the examination of {volume.id} was stopped at byte {offset}")
            if seconds <= 0:
                return
            time.sleep(min(seconds, NAP_SECONDS))
            seconds -= NAP_SECONDS


def _first_written(descriptor: int, volume: Volume, course: _Course) -> int | None:
    """Near which byte something else than zero is; None: nowhere, up to the end of what may be used and beyond."""
    path = volume.device_path
    with exclusive.answering(path, "flushing", 0):
        os.fsync(descriptor)  # an image knows its holes when all of it is written
        end = os.lseek(descriptor, 0, os.SEEK_END)
    if end < volume.size_bytes:
        raise DeviceError(f"{volume.id} has {end} of its {volume.size_bytes} bytes", device=path)
    offset = 0
    while offset < end:
        hole = data_after(descriptor, offset, end) - offset
        if hole > 0:
            size, read_bytes = min(hole, HOLE_STEP_BYTES), 0
        else:
            with exclusive.answering(path, "reading", offset):
                found = os.pread(descriptor, min(STEP_BYTES, end - offset), offset)
            if not found:
                raise DeviceError(f"{path} ends at byte {offset}", device=path, offset_bytes=offset)
            if found != _ZEROES[: len(found)]:
                return offset + len(found) - len(found.lstrip(b"\0"))
            size = read_bytes = len(found)
            with suppress(OSError):
                os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)
        offset += size
        course.go_on(offset, read_bytes)
    return None


def _in_use(volume: Volume) -> Examined:
    return Examined(is_unwritten=False, reason="InUse", message=f"somebody has {volume.id} open")
