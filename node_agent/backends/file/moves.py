"""The small moves the steps are made of, inside one open directory. Each can be repeated.

This is the destroying edge: what is detached or unlinked here has been read again, is ours, and is used by nobody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from node_agent.backends.file import loops as loop_devices
from node_agent.backends.file import uses
from node_agent.backends.file.directory import (
    IMAGE_SUFFIX,
    RECORD_SUFFIX,
    Directory,
    Entry,
    Image,
    is_fit_for_a_file,
)
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.files import Files
from node_agent.backends.file.loops import Loop, Loops
from node_agent.backends.file.records import Record, written
from ullage.errors import (
    DeviceError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    NotOursError,
    OutOfRangeError,
    UllageError,
    UnsupportedError,
    VolumeInUseError,
    VolumeNotReadyError,
)
from ullage.model import VolumeId, VolumeKind, VolumeState


@dataclass(frozen=True, slots=True)
class Moves:
    """Changes in `directory`."""

    directory: Directory
    files: Files
    loops: Loops

    def entry(self, volume_id: VolumeId) -> Entry:
        """What is there under this id; raises InvalidRequestError for one that could lead out of the directory."""
        if not is_fit_for_a_file(volume_id):
            raise InvalidRequestError(f"{volume_id!r} cannot name a volume's file")
        return self.directory.entry(volume_id)

    def record(self, record: Record) -> Record:
        """Write this record in the place of the one before."""
        self.files.write(self.directory.descriptor, f"{record.id}{RECORD_SUFFIX}", written(record))
        return record

    def first_record(self, record: Record) -> Record:
        """Write the record of a volume that has none."""
        self.files.write_new(self.directory.descriptor, f"{record.id}{RECORD_SUFFIX}", written(record))
        return record

    def deleting(self, record: Record) -> Record:
        """Mark the volume as being deleted."""
        if record.state is VolumeState.DELETING:
            return record
        return self.record(replace(record, state=VolumeState.DELETING, old_size_bytes=0))

    def image(self, entry: Entry, record: Record, free_bytes: int) -> None:
        """Make the image of a volume that is CREATING. One that cannot be made leaves nothing behind."""
        try:
            with faults_told(self.directory.path, wanted_bytes=record.size_bytes, free_bytes=free_bytes):
                if entry.image is None:
                    self.files.make(self.directory.descriptor, _image_name(record))
                else:
                    image_of(entry)
                self._lengthen(record)
        except UllageError:
            self.give_up(record.id)
            raise

    def clone(self, source: Entry, record: Record, free_bytes: int) -> None:
        """Make the image of a volume that is CREATING, sharing its source's blocks."""
        with faults_told(self.directory.path, wanted_bytes=record.size_bytes, free_bytes=free_bytes):
            here = self.directory.descriptor
            self.files.clone(here, f"{source.id}{IMAGE_SUFFIX}", _image_name(record), mode=_mode(record))

    def copy(self, source: Entry, record: Record, free_bytes: int, go_on: Callable[[int], None]) -> None:
        """The same byte by byte; `go_on` raises to give it up."""
        with faults_told(self.directory.path, wanted_bytes=image_of(source).own_bytes, free_bytes=free_bytes):
            here, name = self.directory.descriptor, f"{source.id}{IMAGE_SUFFIX}"
            self.files.copy(here, name, _image_name(record), mode=_mode(record), go_on=go_on)

    def image_times(self, entry: Entry) -> tuple[int, int]:
        """What every write to the image changes."""
        with faults_told(self.directory.path):
            name, here = f"{entry.id}{IMAGE_SUFFIX}", self.directory.descriptor
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
        return found.st_mtime_ns, found.st_ctime_ns

    def give_up(self, volume_id: VolumeId) -> None:
        """Remove what is CREATING: nobody has had it yet. Raises VolumeInUseError if somebody has it all the same."""
        self.release(self.entry(volume_id))
        self.unlink(volume_id)

    def longer_image(self, record: Record, present_bytes: int, free_bytes: int) -> None:
        """Give the image of a GROWING volume what `record` says; without room for it, all is as before the wish."""
        wanted_bytes = record.size_bytes - present_bytes
        try:
            with faults_told(self.directory.path, wanted_bytes=wanted_bytes, free_bytes=free_bytes):
                self._lengthen(record)
        except (InsufficientCapacityError, OutOfRangeError, UnsupportedError):
            # Beyond present_bytes nothing was ever given to the device, so nothing is lost there.
            self.files.shorten(self.directory.descriptor, _image_name(record), present_bytes)
            self.record(_ungrown(record, present_bytes))
            raise

    def attach(self, record: Record) -> Loop:
        """The volume's device; raises DeviceError when there is no image."""
        image = image_of(self.entry(record.id))
        return self.loops.attach(self.directory.image_path(record.id), image)

    def devices(self, entry: Entry) -> tuple[Loop, ...]:
        """Every loop device on the volume's image, ours first."""
        found = loop_devices.attached({f"{entry.id}{IMAGE_SUFFIX}"})
        if isinstance(entry.image, Image):
            return loop_devices.of_image(found, entry.image)
        return loop_devices.of_lost_image(found, self.directory.image_path(entry.id))

    def release(self, entry: Entry) -> None:
        """Take the volume's devices away; raises VolumeInUseError, all of them still there, if anybody uses one."""
        found = self.devices(entry)
        seen = uses.mounts()
        for loop in found:
            users = uses.visible(loop, seen)
            if not users and not loop.is_whole:
                users = ("attached by somebody else, in part or read-only",)
            if not users and uses.is_claimed(loop):
                users = ("claimed by a mount in another namespace, by swap or by an exclusive opener",)
            if users:
                raise VolumeInUseError(f"{entry.id} is in use: {loop.path} is {', '.join(users)}", device=loop.path)
        for loop in found:
            self.loops.detach(loop, self.directory.image_path(entry.id))

    def unlink(self, volume_id: VolumeId) -> None:
        """Remove image and record, in this order, so that a death in between leaves the record to tell."""
        self.files.unlink(self.directory.descriptor, f"{volume_id}{IMAGE_SUFFIX}")
        self.files.unlink(self.directory.descriptor, f"{volume_id}{RECORD_SUFFIX}")

    def device_bytes(self, entry: Entry) -> int:
        """What the volume's device has; 0 without one."""
        loop = next((loop for loop in self.devices(entry) if loop.is_whole), None)
        return min(loop.size_bytes, image_of(entry).size_bytes) if loop else 0

    def shorten(self, entry: Entry, size_bytes: int) -> None:
        """Cut off what an unfinished growth added and no device ever had."""
        if image_of(entry).size_bytes > size_bytes:
            self.files.shorten(self.directory.descriptor, f"{entry.id}{IMAGE_SUFFIX}", size_bytes)

    def _lengthen(self, record: Record) -> None:
        self.files.lengthen(
            self.directory.descriptor, _image_name(record), record.size_bytes, is_sparse=record.is_sparse
        )


def record_of(entry: Entry) -> Record:
    """The record that makes the entry ours; raises NotFoundError when nothing is there, NotOursError otherwise."""
    if isinstance(entry.record, Record):
        return entry.record
    if entry.record is not None:
        raise NotOursError(f"{entry.record.message}; nothing was changed")
    if entry.image is not None:
        raise NotOursError(f"{entry.id}{IMAGE_SUFFIX} has no record: it is not known whose it is; nothing was changed")
    raise NotFoundError(f"there is no volume {entry.id}")


def image_of(entry: Entry) -> Image:
    """The image; raises DeviceError when there is none."""
    if isinstance(entry.image, Image):
        return entry.image
    raise DeviceError(entry.image.message if entry.image else f"{entry.id} has a record and no image")


def is_half_a_copy(record: Record) -> bool:
    """Whether its source's content may be missing, in part or whole, and will not come any more."""
    return record.state is VolumeState.CREATING and record.kind is VolumeKind.VOLUME and record.source is not None


def needs_device(record: Record) -> bool:
    """Whether there is a use for one: a snapshot is only given one to be wiped."""
    is_to_go = record.state is VolumeState.DELETING
    return is_to_go or (record.kind is VolumeKind.VOLUME and not is_half_a_copy(record))


def refuse_snapshot(record: Record, wish: str) -> None:
    """Raise InvalidRequestError for what is no volume."""
    if record.kind is not VolumeKind.VOLUME:
        raise InvalidRequestError(f"{record.id} is a {record.kind}: {wish}")


def refuse_unfinished(record: Record, wish: str, *states: VolumeState) -> None:
    """Raise VolumeNotReadyError if the volume is in one of these states."""
    if record.state in states:
        raise VolumeNotReadyError(f"{record.id} is {record.state}: {wish}")


def ready(record: Record) -> Record:
    """The record when all is done."""
    return replace(record, state=VolumeState.READY, old_size_bytes=0, filled_bytes=0, needs_wipe=False)


def _ungrown(record: Record, present_bytes: int) -> Record:
    """The record when its growth goes no further: what an earlier one had added still waits to be settled."""
    if present_bytes > record.old_size_bytes:
        return replace(record, size_bytes=present_bytes)
    return replace(record, state=VolumeState.READY, size_bytes=present_bytes, old_size_bytes=0)


def _mode(record: Record) -> int:
    """Nobody is to write to a snapshot, not even by mistake."""
    return 0o600 if record.kind is VolumeKind.VOLUME else 0o400


def _image_name(record: Record) -> str:
    return f"{record.id}{IMAGE_SUFFIX}"
