"""How a copy by bytes gets its content: from the offset that is noted on it to its end, and only then it is READY.

What it is read from does not change meanwhile: a snapshot, or, where the source is a volume in use, the FROZEN snapshot
that was taken for this copy alone, before there was a copy. It goes after the copy is READY, or with it. A copy whose
source is gone for good can never be of use to anybody, and is the only one that goes without having been asked for.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from node_agent.backends.port import Backend
from node_agent.fills import Fill
from node_agent.ground import Ground
from node_agent.removal import unfreeze
from node_agent.wipe import Moment
from ullage.errors import (
    DeviceError,
    PreconditionError,
    SnapshotOverflowedError,
    StoreBusyError,
    UnavailableError,
    VolumeNotReadyError,
    human_bytes,
)
from ullage.model import Volume, VolumeKind, VolumeState, Wipe
from ullage.names import frozen_id

log = logging.getLogger(__name__)


def fill(ground: Ground, volume: Volume) -> Volume:
    """Copy what is still missing, wipe what is past the source's end, and make the volume READY.

    Raises UnavailableError (its source cannot be seen now; or nobody wants it any more: it goes on where it stopped),
    VolumeNotReadyError, PreconditionError, DeviceError.
    """
    backend = ground.readable(volume)
    volume = ground.awake(backend, volume)
    source = _readable_source(ground, volume)
    is_wiped = source.size_bytes < volume.device_size_bytes and backend.needs_wipe(volume.type, volume.wipe)
    course = _Course(ground=ground, backend=backend, volume=volume, source=source, notes_the_end=is_wiped)
    left_bytes = source.size_bytes - volume.filled_bytes
    log.info("filling", extra={"volume_id": volume.id, "source": source.id, "left_bytes": left_bytes})
    if left_bytes > 0:
        turn = ground.fills.turn(
            volume.id, Fill(device_class=volume.device_class, left_bytes=left_bytes), course.wait_for
        )
        try:
            with turn, ground.backend(source.store).reading(source) as descriptor:
                ground.copy(
                    descriptor,
                    volume.device_path,
                    course,
                    start_bytes=volume.filled_bytes,
                    end_bytes=source.size_bytes,
                    # Of a kind that never shows old bytes, a new one shows zeroes wherever this copy has not written.
                    is_blank=not backend.needs_wipe(volume.type, Wipe.ZERO),
                )
        except DeviceError:
            ground.reporter.wish(source.store)  # a snapshot that has overflowed answers with errors
            raise
    volume = course.volume
    if is_wiped:
        ground.wipe_part(volume, Moment.CREATE, source.size_bytes)
    with ground.changing(volume.store, f"settling of {volume.id}"):
        settled = backend.settle(volume)
        ground.stock.apply(volume.store, volume, settled)
    ground.reporter.wish(volume.store)
    log.info("filled", extra={"volume_id": volume.id, "source": source.id, "size_bytes": source.size_bytes})
    unfreeze(ground, volume.id)
    return settled


def is_lost(ground: Ground, volume: Volume) -> bool:
    """Whether a volume was to be filled from what is provably gone, or has overflowed: nobody will ever have use of it.

    Raises UnavailableError when what it is filled from may be where we cannot look.
    """
    if volume.state is not VolumeState.FILLING:
        return False
    source = _source(ground, volume)
    if source is not None:
        return source.problem is not None and source.problem.reason == SnapshotOverflowedError.reason
    ground.reporter.look_now()
    ground.refuse_if_blind(f"what {volume.id} is filled from is on none of the readable stores")
    found = ground.stock.find(volume.id)
    return found is not None and found.state is VolumeState.FILLING and _source(ground, found) is None


def is_needed(ground: Ground, frozen: Volume) -> bool:
    """Whether there is a copy that is not done yet and that this FROZEN snapshot is for.

    Raises UnavailableError when the copy may be where we cannot look.
    """
    if _target(ground, frozen) is None:
        ground.reporter.look_now()
        ground.refuse_if_blind(f"the copy that {frozen.id} is for is on none of the readable stores")
    target = _target(ground, frozen)
    return target is not None and target.state not in (VolumeState.READY, VolumeState.GROWING)


def _target(ground: Ground, frozen: Volume) -> Volume | None:
    return next((each for each in ground.stock.volumes().values() if frozen_id(each.id) == frozen.id), None)


def _source(ground: Ground, volume: Volume) -> Volume | None:
    """What a FILLING volume's bytes come from, as far as we know."""
    frozen = ground.stock.find(frozen_id(volume.id))
    if frozen is not None:
        return frozen
    named = ground.stock.find(volume.source) if volume.source is not None else None
    return named if named is not None and named.kind is VolumeKind.SNAPSHOT else None


def _readable_source(ground: Ground, volume: Volume) -> Volume:
    """The source, whole and fit to be read."""
    source = _source(ground, volume)
    if source is None:
        raise UnavailableError(f"what {volume.id} is filled from cannot be seen now", volume_id=volume.id)
    ground.readable(source)
    if source.state is not VolumeState.READY:
        raise VolumeNotReadyError(f"{source.id}, the source of {volume.id}, is {source.state}", volume_id=source.id)
    if source.problem is not None:
        raise PreconditionError(
            f"{source.id}, the source of {volume.id}, is not whole: {source.problem.message}", volume_id=source.id
        )
    if source.size_bytes > volume.device_size_bytes:
        raise PreconditionError(
            f"{source.id} has {source.size_bytes} bytes, and {volume.id}, which is to begin with them, "
            f"{volume.device_size_bytes}",
            volume_id=volume.id,
        )
    return source


@dataclass(slots=True, kw_only=True)
class _Course:
    """What a copy tells, and is told; `volume` is as it was last noted on its device."""

    ground: Ground
    backend: Backend
    volume: Volume
    source: Volume
    notes_the_end: bool
    """Whether there is work after the copy's end, so that the end is worth a note."""

    def wait_for(self, others: int) -> None:
        """Say why nothing moves."""
        self.ground.note(self.volume.id, f"waiting for one of {others} other copies to end")
        if self.is_stopping():
            raise UnavailableError(f"the copy to {self.volume.id} was stopped before its turn")

    def reached(self, offset_bytes: int) -> None:
        whole = self.source.size_bytes
        self.ground.fills.reached(self.volume.id, whole - offset_bytes)
        self.ground.note(self.volume.id, f"{human_bytes(offset_bytes)} of {human_bytes(whole)} copied")

    def durable(self, offset_bytes: int) -> None:
        """Note it; a store that is busy for long costs a repetition of what is not noted, if we die, and no more."""
        if offset_bytes == self.source.size_bytes and not self.notes_the_end:
            return
        volume = self.volume
        try:
            with self.ground.changing(volume.store, f"note on {volume.id}"):
                noted = self.backend.note_filled(volume, offset_bytes)
                self.ground.stock.apply(volume.store, volume, noted)
        except StoreBusyError as busy:
            log.info("progress not noted", extra={"volume_id": volume.id, "because": str(busy)})
            return
        self.volume = noted

    def pause_seconds(self, moved_bytes: int) -> float:
        device_class = self.ground.classes.get(self.volume.device_class)
        rate_bytes = device_class.copy_rate_bytes if device_class else 0
        return self.ground.fills.pause_seconds(self.volume.device_class, moved_bytes, rate_bytes)

    def is_stopping(self) -> bool:
        return self.ground.is_called_off(self.volume.id)
