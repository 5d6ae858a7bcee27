"""One directory of volumes and the steps in their lives.

Every step reads the directory again, refuses what it does not recognise, changes one thing after the other so that a
death in between is brought to its end by the same step (or by `remove`), and answers with a new look:

    create   record CREATING → image → device → record READY      (of a copy: `derivation`)
    expand   record GROWING → image → device → record READY
    remove   record DELETING → device gone → image gone → record gone

The record is the first to come and the last to go: an image without one is never ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from node_agent.backends.file import loops as loop_devices
from node_agent.backends.file import uses
from node_agent.backends.file.derivation import Derivation
from node_agent.backends.file.directory import IMAGE_SUFFIX, MARKER, Directory, Entry, Image, Marker, Room, opened
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.files import Files, can_clone
from node_agent.backends.file.loops import Loops
from node_agent.backends.file.moves import (
    Moves,
    image_of,
    is_half_a_copy,
    needs_device,
    ready,
    record_of,
    refuse_snapshot,
    refuse_unfinished,
)
from node_agent.backends.file.records import Record, first
from node_agent.backends.file.report import Scene
from node_agent.backends.port import NewVolume, StoreReport
from ullage.errors import (
    ConflictError,
    DeviceError,
    InsufficientCapacityError,
    NotFoundError,
    PoolUnavailableError,
    UllageError,
    UnavailableError,
    VolumeNotReadyError,
    human_bytes,
)
from ullage.model import DeviceClass, Problem, StoreName, Volume, VolumeId, VolumeKind, VolumeState, Wipe

LOOKS = 4
"""To find a moment in which nothing changes: a directory where something always does is told of as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a store changes the world with, and its clock (aware UTC)."""

    files: Files
    loops: Loops
    now: Callable[[], datetime]
    held_seconds: float


class Store:
    """A directory, the classes that use it, and the marker it had when we first saw it."""

    def __init__(
        self, name: StoreName, classes: tuple[DeviceClass, ...], tools: Tools, *, known_uuid: str = ""
    ) -> None:
        """`known_uuid` is the marker that an earlier configuration saw here."""
        self.name = name
        self.known_uuid = known_uuid
        self._classes = classes
        self._tools = tools
        self._clones: dict[int, bool] = {}

    @contextmanager
    def found(self) -> Iterator[Directory]:
        """The directory, open, and surely the right one; raises PoolUnavailableError."""
        with opened(self.name) as directory:
            self._marker(directory)
            yield directory

    def look(self, taken: dict[tuple[int, int], StoreName]) -> StoreReport:
        """The store, or why nothing can be said of it; `taken` are the directories of stores before this one."""
        try:
            with opened(self.name) as directory, faults_told(self.name):
                other = taken.get(directory.identity())
                if other is not None:
                    raise PoolUnavailableError(f"{self.name} and {other} are one directory: give both classes one path")
                return self._whole(directory).report()
        except (UnavailableError, DeviceError) as failure:
            return StoreReport(name=self.name, problem=Problem(reason=failure.reason, message=str(failure)))

    def make_pool(self) -> None:
        """Give the directory its marker."""
        with self._changing():
            pass

    def create(self, new: NewVolume) -> Volume:
        """See the port. What is half there is brought to its end; a half copy is begun again."""
        with self._changing() as moves:
            if new.source is None:
                self._made(moves, self._begun(moves, moves.entry(new.id), new))
            else:
                self._derivation(moves, new, new.source).make()
            return self._volume(moves, new.id)

    def can_clone(self) -> bool:
        """Whether files can share their blocks here."""
        with self.found() as directory, faults_told(self.name):
            return self._can_clone(directory)

    def note_filled(self, volume_id: VolumeId, filled_bytes: int) -> Volume:
        """See the port."""
        with self._changing() as moves:
            record = record_of(moves.entry(volume_id))
            if record.state is not VolumeState.FILLING:
                raise VolumeNotReadyError(f"{volume_id} is {record.state}: nothing is copied into it")
            moves.record(replace(record, filled_bytes=filled_bytes))
            return self._volume(moves, volume_id)

    def expand(self, volume_id: VolumeId, size_bytes: int, *, needs_wipe: bool) -> Volume:
        """See the port. The old size stays the usable one until the end, and nothing ever gets shorter."""
        with self._changing() as moves:
            entry = moves.entry(volume_id)
            record, image = record_of(entry), image_of(entry)
            refuse_snapshot(record, "it cannot grow")
            refuse_unfinished(record, "it cannot grow", *(set(VolumeState) - {VolumeState.READY, VolumeState.GROWING}))
            loop = moves.attach(record)
            is_growing = record.state is VolumeState.GROWING
            known_bytes = record.old_size_bytes if is_growing else record.size_bytes
            if image.size_bytes < known_bytes:
                raise DeviceError(f"the image of {volume_id} has {image.size_bytes} of its {known_bytes} bytes")
            target_bytes = max(size_bytes, image.size_bytes)  # a growth that was only wished for binds nobody
            if not is_growing and target_bytes == record.size_bytes == image.size_bytes == loop.size_bytes:
                return self._volume(moves, volume_id)
            free_bytes = self._room_for(moves, target_bytes - max(record.size_bytes, image.size_bytes))
            old_bytes = record.old_size_bytes if is_growing else min(loop.size_bytes, image.size_bytes)
            growing = replace(record, state=VolumeState.GROWING, size_bytes=target_bytes, old_size_bytes=old_bytes)
            moves.record(growing)
            moves.longer_image(growing, image.size_bytes, free_bytes)
            if loop.size_bytes < target_bytes:
                self._tools.loops.grow(loop, target_bytes)
            if not needs_wipe:
                moves.record(ready(growing))
            return self._volume(moves, volume_id)

    def settle(self, volume_id: VolumeId) -> Volume:
        """See the port. A growth that did not reach its end stops at what the device has; a half copy never ends.

        Raises VolumeNotReadyError when there is less than the volume must have.
        """
        with self._changing() as moves:
            entry = moves.entry(volume_id)
            record = record_of(entry)
            refuse_unfinished(record, "it is not coming back", VolumeState.DELETING)
            if record.state is not VolumeState.READY:
                if is_half_a_copy(record):
                    raise VolumeNotReadyError(f"{volume_id} is half a copy of {record.source}: it is begun again")
                is_volume = record.kind is VolumeKind.VOLUME
                device_bytes = moves.device_bytes(entry) if is_volume else image_of(entry).size_bytes
                least_bytes = record.old_size_bytes if record.state is VolumeState.GROWING else record.size_bytes
                if device_bytes < least_bytes:
                    refuse_unfinished(record, f"its device has {device_bytes} of {least_bytes} bytes", record.state)
                moves.shorten(entry, device_bytes)
                moves.record(replace(ready(record), size_bytes=device_bytes))
            return self._volume(moves, volume_id)

    def set_wipe(self, volume_id: VolumeId, wipe: Wipe) -> Volume:
        """See the port."""
        with self._changing() as moves:
            record = record_of(moves.entry(volume_id))
            refuse_unfinished(record, "its policy cannot change", VolumeState.CREATING, VolumeState.DELETING)
            moves.record(replace(record, wipe=wipe))
            return self._volume(moves, volume_id)

    def condemn(self, volume_id: VolumeId) -> Volume:
        """See the port. The device comes back afterwards, so that its content can be wiped."""
        with self._changing() as moves:
            entry = moves.entry(volume_id)
            record = record_of(entry)
            moves.release(entry)
            condemned = moves.deleting(record)
            if isinstance(entry.image, Image) and entry.image.size_bytes:
                moves.attach(condemned)
            return self._volume(moves, volume_id)

    def remove(self, volume_id: VolumeId) -> None:
        """See the port."""
        with self._changing() as moves:
            entry = moves.entry(volume_id)
            record = record_of(entry)
            moves.release(entry)
            moves.deleting(record)
            moves.unlink(volume_id)

    def activate(self, volume_ids: Sequence[VolumeId]) -> None:
        """See the port. A volume half made by a process that died is brought to its end; one half removed stays so.

        What is no volume has no device, and half a copy is not to have one: it is removed and begun again.
        One that fails does not keep the others from their devices; the first failure is raised.
        """
        failures: list[UllageError] = []
        with self._changing() as moves:
            for volume_id in volume_ids:
                entry = moves.entry(volume_id)
                try:
                    record = record_of(entry)
                    if needs_device(record) and (record.state is not VolumeState.DELETING or entry.image is not None):
                        self._made(moves, record)
                except UllageError as failure:
                    failures.append(failure)
        if failures:
            raise failures[0]

    @contextmanager
    def _changing(self) -> Iterator[Moves]:
        """Moves in the right directory, marked, and swept of what dead writers left."""
        with opened(self.name) as directory, faults_told(self.name):
            files = self._tools.files
            if self._marker(directory) is None:
                marker = Marker(uuid=str(uuid4()))
                files.write_new(directory.descriptor, MARKER, msgspec.json.encode(marker))
                self.known_uuid = marker.uuid
            for name in directory.leftovers():
                files.unlink(directory.descriptor, name)
            yield Moves(directory, files, self._tools.loops)

    def _made(self, moves: Moves, record: Record) -> None:
        """Image, device and mark as the record wants them."""
        if record.state is VolumeState.CREATING:
            free_bytes = self._whole(moves.directory).free_bytes
            moves.image(moves.entry(record.id), record, free_bytes)
        moves.attach(record)
        if record.state is VolumeState.CREATING and not record.needs_wipe:
            moves.record(ready(record))

    def _derivation(self, moves: Moves, new: NewVolume, source: Volume) -> Derivation:
        return Derivation(
            moves=moves,
            new=new,
            source=source.id,
            is_cloning=source.store == self.name and self._can_clone(moves.directory),
            room_for=lambda size_bytes: self._room_for(moves, size_bytes),
            now=self._tools.now(),
            held_seconds=self._tools.held_seconds,
        )

    def _can_clone(self, directory: Directory) -> bool:
        """Tried once on every file system that is found here."""
        device, _ = directory.identity()
        if device not in self._clones:
            self._clones[device] = can_clone(directory.descriptor)
        return self._clones[device]

    def _volume(self, moves: Moves, volume_id: VolumeId) -> Volume:
        """The volume as it is now."""
        (volume,) = self._scene(moves.directory, (moves.entry(volume_id),), moves.directory.room()).report().volumes
        return volume

    def _whole(self, directory: Directory) -> Scene:
        """All that is there, and the room beside it, of one moment as far as a few looks find one.

        What an image takes between the two would count twice, as promised to it and as taken: too little would be
        free. Where something always changes it is that, and never too much.
        """
        room = directory.room()
        for _ in range(LOOKS):
            before, entries, room = room, directory.entries(), directory.room()
            if room == before:
                break
        return self._scene(directory, entries, room)

    def _scene(self, directory: Directory, entries: tuple[Entry, ...], room: Room) -> Scene:
        marker = self._marker(directory)
        mounts = uses.mounts()
        return Scene(
            name=self.name,
            classes=self._classes,
            is_marked=marker is not None,
            room=room,
            entries=entries,
            loops=loop_devices.attached({f"{entry.id}{IMAGE_SUFFIX}" for entry in entries}),
            users=lambda loop: uses.visible(loop, mounts),
        )

    def _marker(self, directory: Directory) -> Marker | None:
        """The marker; None in a directory that was never used; raises PoolUnavailableError in a wrong one."""
        marker = directory.marker()
        if marker is None:
            told = self.known_uuid or "any UUID"
            advice = f'if it is the right one, give it a {MARKER} with {{"version": 1, "uuid": "{told}"}}'
            if self.known_uuid:
                raise PoolUnavailableError(f"{self.name} lost its marker (is its file system mounted?); {advice}")
            if any(_is_volume(entry) for entry in directory.entries()):
                raise PoolUnavailableError(f"{self.name} has records of volumes and no marker; {advice}")
            return None
        if self.known_uuid not in ("", marker.uuid):
            raise PoolUnavailableError(
                f"{self.name} is another directory than before: its marker is {marker.uuid}, it was {self.known_uuid}"
            )
        self.known_uuid = marker.uuid
        return marker

    def _begun(self, moves: Moves, entry: Entry, new: NewVolume) -> Record:
        """The record of the volume to make: the one that is there, if it is for the same wish, or a first one."""
        size_bytes = new.allocation.size_bytes
        try:
            record = record_of(entry)
        except NotFoundError:
            self._room_for(moves, size_bytes)
            return moves.first_record(first(new, size_bytes, self._tools.now()))
        refuse_unfinished(record, "it cannot be made again", VolumeState.GROWING, VolumeState.DELETING)
        if (record.kind, record.source) != (new.kind, None):
            raise ConflictError(f"{new.id} exists as a {record.kind} that began as {record.source}")
        if (record.device_class, record.size_bytes) != (new.device_class.name, size_bytes):
            raise ConflictError(
                f"{new.id} exists with {human_bytes(record.size_bytes)} of class {record.device_class}, "
                f"not {human_bytes(size_bytes)} of {new.device_class.name}"
            )
        if record.state is VolumeState.CREATING:
            self._room_for_the_rest(moves, entry, record)
        return record

    def _room_for_the_rest(self, moves: Moves, entry: Entry, record: Record) -> None:
        """Of an image that is half there: what it lacks was kept for nobody. Without room for it nothing is left."""
        present_bytes = entry.image.size_bytes if isinstance(entry.image, Image) else 0
        if present_bytes >= record.size_bytes:
            return
        try:
            self._room_for(moves, record.size_bytes - present_bytes)
        except InsufficientCapacityError:
            moves.give_up(record.id)
            raise

    def _room_for(self, moves: Moves, wanted_bytes: int) -> int:
        """The free bytes; raises InsufficientCapacityError when they are fewer."""
        free_bytes = self._whole(moves.directory).free_bytes
        if wanted_bytes > free_bytes:
            raise InsufficientCapacityError(
                f"{self.name} has {human_bytes(free_bytes)} free, {human_bytes(wanted_bytes)} are wanted",
                wanted_bytes=wanted_bytes,
                free_bytes=free_bytes,
            )
        return free_bytes


def _is_volume(entry: Entry) -> bool:
    return isinstance(entry.record, Record) or (entry.record is not None and entry.image is not None)
