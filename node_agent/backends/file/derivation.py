"""How an image comes to be what another one is at one moment.

Where the file system can, both share their blocks (FICLONE): that takes no time and no room, and it is one moment
whoever writes meanwhile; only what has not reached the file yet must be flushed into it. Elsewhere the bytes are
copied, and the source has to keep still for so long: unmounted and unused, or mounted and held at rest by the caller,
who can do that for HELD_SECONDS only. It is looked whether it really kept still.

The image comes under its name whole or not at all, between the record's CREATING and what the record is to say:

    record CREATING → image → (a volume's device) → record READY, FILLING, or CREATING still, as it was asked for

A volume that is filled later on (`node_agent.backends.port`) begins as an image of zeroes. What died before its end has
only a part of this and is not gone on with: its moment is over. It is removed and begun again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from node_agent.backends.file.directory import Entry
from node_agent.backends.file.moves import Moves, image_of, ready, record_of, refuse_unfinished
from node_agent.backends.file.records import Record, first
from node_agent.backends.file.stillness import ADVICE, flush, still
from node_agent.backends.port import NewVolume
from ullage.errors import (
    ConflictError,
    DeviceError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    UllageError,
    VolumeNotReadyError,
    human_bytes,
)
from ullage.model import VolumeId, VolumeKind, VolumeState

HELD_SECONDS = 10.0
"""How long a mounted file system may be kept from writing while its volume is copied byte by byte: programs wait for it
meanwhile, and their own timeouts come into play."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """One copy to make in an open directory. `room_for` raises InsufficientCapacityError."""

    moves: Moves
    new: NewVolume
    source: VolumeId
    is_cloning: bool
    """Whether it can share blocks with its source: both are in this directory, on a file system that can."""
    room_for: Callable[[int], int]
    now: datetime
    held_seconds: float

    def make(self) -> None:
        """Make it, or find it made.

        Raises ConflictError when its id is another's, OutOfRangeError, InsufficientCapacityError, PreconditionError
        (it cannot be copied while it is in use like this), VolumeNotReadyError, DeviceError.
        """
        if self._is_made():
            return
        if self.new.kind is VolumeKind.VOLUME and not self.is_cloning:
            self._make_to_be_filled()
            return
        source = self._source()
        is_volume = self.new.kind is VolumeKind.VOLUME
        size_bytes = self.new.allocation.size_bytes if is_volume else image_of(source).size_bytes
        self._check_size(size_bytes, image_of(source).size_bytes)
        # What was the source's alone is then shared: the source may need as much once more.
        own_bytes = image_of(source).own_bytes if record_of(source).kind is VolumeKind.VOLUME else 0
        free_bytes = self.room_for(own_bytes + size_bytes * is_volume)
        record = self._begun(source, size_bytes)
        with self._given_up(record):
            if self.is_cloning:
                self._clone(source, record, free_bytes)
            else:
                self._copy(source, record, free_bytes)
            if is_volume:
                self.moves.image(self.moves.entry(record.id), record, free_bytes)
                self.moves.attach(record)
        if not record.needs_wipe:
            self.moves.record(ready(record))

    def _make_to_be_filled(self) -> None:
        """Its source may be in any directory: nothing of it is needed yet."""
        size_bytes = self.new.allocation.size_bytes
        self._check_size(size_bytes, self.new.source.size_bytes if self.new.source else 0)
        free_bytes = self.room_for(size_bytes)
        record = self.moves.first_record(first(self.new, size_bytes, self.now))
        with self._given_up(record):
            self.moves.image(self.moves.entry(record.id), record, free_bytes)
            self.moves.attach(record)
        self.moves.record(replace(record, state=VolumeState.FILLING))

    def _check_size(self, size_bytes: int, source_bytes: int) -> None:
        if size_bytes < source_bytes:
            raise OutOfRangeError(f"{self.source} has {source_bytes} bytes, more than {size_bytes}")

    @contextmanager
    def _given_up(self, record: Record) -> Iterator[None]:
        """Leave nothing behind when the body fails."""
        try:
            yield
        except UllageError:
            self.moves.give_up(record.id)
            raise

    def _is_made(self) -> bool:
        """Whether it is there. What is there half is gone afterwards."""
        entry = self.moves.entry(self.new.id)
        try:
            record = record_of(entry)
        except NotFoundError:
            return False
        refuse_unfinished(record, "it cannot be made again", VolumeState.GROWING, VolumeState.DELETING)
        found = (record.kind, record.source, record.device_class)
        if found != (self.new.kind, self.source, self.new.device_class.name):
            raise ConflictError(f"{record.id} exists: a {record.kind} of {record.source}, class {record.device_class}")
        if record.kind is VolumeKind.VOLUME and record.size_bytes != self.new.allocation.size_bytes:
            sizes = f"{human_bytes(record.size_bytes)}, not {human_bytes(self.new.allocation.size_bytes)}"
            raise ConflictError(f"{record.id} exists with {sizes}")
        if record.state is VolumeState.CREATING:
            self.moves.give_up(record.id)
            return False
        if record.kind is VolumeKind.VOLUME:
            self.moves.attach(record)
        return True

    def _source(self) -> Entry:
        """The source as it is now, and fit to be copied."""
        entry = self.moves.entry(self.source)
        record = record_of(entry)
        if record.state is not VolumeState.READY:
            raise VolumeNotReadyError(f"{record.id} is {record.state}: it cannot be copied")
        if image_of(entry).size_bytes < record.size_bytes:
            sizes = f"{image_of(entry).size_bytes} of its {record.size_bytes} bytes"
            raise DeviceError(f"the image of {record.id} has {sizes}: it cannot be copied")
        return entry

    def _begun(self, source: Entry, size_bytes: int) -> Record:
        """The first record. Whoever is to share blocks is known to do so before there are any."""
        shared = record_of(source)
        if self.is_cloning and not shared.shares_blocks:
            self.moves.record(replace(shared, shares_blocks=True))
        return self.moves.first_record(replace(first(self.new, size_bytes, self.now), shares_blocks=self.is_cloning))

    def _clone(self, source: Entry, record: Record, free_bytes: int) -> None:
        flush(source, self.moves.devices(source))
        self.moves.clone(source, record, free_bytes)

    def _copy(self, source: Entry, record: Record, free_bytes: int) -> None:
        with still(self.moves, source) as is_held:
            end = time.monotonic() + self.held_seconds if is_held else math.inf
            self.moves.copy(source, record, free_bytes, lambda copied_bytes: self._go_on(source, copied_bytes, end))

    def _go_on(self, source: Entry, copied_bytes: int, end: float) -> None:
        if time.monotonic() > end:
            raise PreconditionError(
                f"{source.id} is mounted, and is kept from writing for {self.held_seconds:g} s at most: "
                f"{human_bytes(copied_bytes)} of {human_bytes(image_of(source).own_bytes)} were copied by then; "
                f"unmount it first; {ADVICE}",
                copied_bytes=copied_bytes,
            )
