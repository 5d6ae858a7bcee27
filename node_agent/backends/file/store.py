"""One directory of volumes and the steps in their lives.

Every step reads the directory again, refuses what it does not recognise, changes one thing after the other so that a
death in between is brought to its end by the same step (or by `remove`), and answers with a new look:

    create   record CREATING → image → device → record READY
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
from node_agent.backends.file.directory import MARKER, Directory, Entry, Image, Marker, opened
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.files import Files
from node_agent.backends.file.loops import Loops
from node_agent.backends.file.moves import Moves, image_of, record_of, refuse_unfinished
from node_agent.backends.file.records import Record
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
    human_bytes,
)
from ullage.model import DeviceClass, Problem, StoreName, Volume, VolumeId, VolumeState, Wipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a store changes the world with, and its clock (aware UTC)."""

    files: Files
    loops: Loops
    now: Callable[[], datetime]


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

    def look(self, taken: dict[tuple[int, int], StoreName]) -> StoreReport:
        """The store, or why nothing can be said of it; `taken` are the directories of stores before this one."""
        try:
            with opened(self.name) as directory, faults_told(self.name):
                other = taken.get(directory.identity())
                if other is not None:
                    raise PoolUnavailableError(f"{self.name} and {other} are one directory: give both classes one path")
                return self._scene(directory, directory.entries()).report()
        except (UnavailableError, DeviceError) as failure:
            return StoreReport(name=self.name, problem=Problem(reason=failure.reason, message=str(failure)))

    def make_pool(self) -> None:
        """Give the directory its marker."""
        with self._changing():
            pass

    def create(self, new: NewVolume) -> Volume:
        """See the port. What is half there is brought to its end."""
        with self._changing() as moves:
            record = self._begun(moves, moves.entry(new.id), new)
            self._made(moves, record)
            return self._volume(moves, new.id)

    def expand(self, volume_id: VolumeId, size_bytes: int, *, needs_wipe: bool) -> Volume:
        """See the port. The old size stays the usable one until the end, and nothing ever gets shorter."""
        with self._changing() as moves:
            entry = moves.entry(volume_id)
            record, image = record_of(entry), image_of(entry)
            refuse_unfinished(record, "it cannot grow", VolumeState.CREATING, VolumeState.DELETING)
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
                moves.record(_ready(growing))
            return self._volume(moves, volume_id)

    def settle(self, volume_id: VolumeId) -> Volume:
        """See the port. A growth that did not reach its end stops at what the device has.

        Raises VolumeNotReadyError when there is less than the volume must have.
        """
        with self._changing() as moves:
            entry = moves.entry(volume_id)
            record = record_of(entry)
            refuse_unfinished(record, "it is not coming back", VolumeState.DELETING)
            if record.state is not VolumeState.READY:
                device_bytes = moves.device_bytes(entry)
                least_bytes = record.old_size_bytes if record.state is VolumeState.GROWING else record.size_bytes
                if device_bytes < least_bytes:
                    refuse_unfinished(record, f"its device has {device_bytes} of {least_bytes} bytes", record.state)
                moves.shorten(entry, device_bytes)
                moves.record(replace(_ready(record), size_bytes=device_bytes))
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

        One that fails does not keep the others from their devices; the first failure is raised.
        """
        failures: list[UllageError] = []
        with self._changing() as moves:
            for volume_id in volume_ids:
                entry = moves.entry(volume_id)
                try:
                    record = record_of(entry)
                    if record.state is not VolumeState.DELETING or entry.image is not None:
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
            free_bytes = self._scene(moves.directory, moves.directory.entries()).free_bytes
            moves.image(moves.entry(record.id), record, free_bytes)
        moves.attach(record)
        if record.state is VolumeState.CREATING and not record.needs_wipe:
            moves.record(_ready(record))

    def _volume(self, moves: Moves, volume_id: VolumeId) -> Volume:
        """The volume as it is now."""
        (volume,) = self._scene(moves.directory, (moves.entry(volume_id),)).report().volumes
        return volume

    def _scene(self, directory: Directory, entries: tuple[Entry, ...]) -> Scene:
        marker = self._marker(directory)
        mounts = uses.mounts()
        return Scene(
            name=self.name,
            classes=self._classes,
            is_marked=marker is not None,
            room=directory.room(),
            entries=entries,
            loops=loop_devices.attached(),
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
            return moves.first_record(
                Record(
                    id=new.id,
                    device_class=new.device_class.name,
                    size_bytes=size_bytes,
                    state=VolumeState.CREATING,
                    needs_wipe=new.needs_wipe,
                    wipe=new.device_class.wipe,
                    is_sparse=new.device_class.is_sparse,
                    owner=new.owner,
                    created_at=self._tools.now(),
                )
            )
        refuse_unfinished(record, "it cannot be made again", VolumeState.GROWING, VolumeState.DELETING)
        if (record.device_class, record.size_bytes) != (new.device_class.name, size_bytes):
            raise ConflictError(
                f"{new.id} exists with {human_bytes(record.size_bytes)} of class {record.device_class}, "
                f"not {human_bytes(size_bytes)} of {new.device_class.name}"
            )
        return record

    def _room_for(self, moves: Moves, wanted_bytes: int) -> int:
        """The free bytes; raises InsufficientCapacityError when they are fewer."""
        free_bytes = self._scene(moves.directory, moves.directory.entries()).free_bytes
        if wanted_bytes > free_bytes:
            raise InsufficientCapacityError(
                f"{self.name} has {human_bytes(free_bytes)} free, {human_bytes(wanted_bytes)} are wanted",
                wanted_bytes=wanted_bytes,
                free_bytes=free_bytes,
            )
        return free_bytes


def _ready(record: Record) -> Record:
    return replace(record, state=VolumeState.READY, old_size_bytes=0, needs_wipe=False)


def _is_volume(entry: Entry) -> bool:
    return isinstance(entry.record, Record) or (entry.record is not None and entry.image is not None)
