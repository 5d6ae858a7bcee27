"""What a directory's entries and the loop devices mean, as the port's report. No I/O here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node_agent.backends.file.directory import Entry, Image, Room
from node_agent.backends.file.loops import Loop, of_image
from node_agent.backends.file.records import Record
from node_agent.backends.port import StoreReport
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Orphan,
    OrphanKind,
    Owner,
    Pool,
    PoolName,
    Problem,
    StoreName,
    Volume,
    VolumeKind,
    VolumeState,
    Wipe,
)

EXTENT_BYTES = 4 << 20
UNFINISHED = (VolumeState.CREATING, VolumeState.DELETING)
"""States in which an image may be missing or short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """All that a report is made from, read in one pass."""

    name: StoreName
    classes: tuple[DeviceClass, ...]
    is_marked: bool
    room: Room
    entries: tuple[Entry, ...]
    loops: tuple[Loop, ...]
    users: Callable[[Loop], tuple[str, ...]]

    @property
    def reserve_bytes(self) -> int:
        """The largest of the classes' reserves."""
        return max((c.reserve_bytes for c in self.classes), default=0)

    @property
    def free_bytes(self) -> int:
        """What may still be promised: whole extents, after what the images may yet take and after the reserve."""
        promised_bytes = sum(entry.promised_bytes for entry in self.entries)
        return _whole_extents(self.room.available_bytes - promised_bytes - self.reserve_bytes)

    def report(self) -> StoreReport:
        """The store, its one pool and everything in it."""
        pool = Pool(
            name=PoolName(self.name),
            store=self.name,
            type=DeviceType.FILE,
            classes=tuple(c.name for c in self.classes),
            total_bytes=_whole_extents(self.room.total_bytes),
            free_bytes=self.free_bytes,
            reserve_bytes=self.reserve_bytes,
            extent_bytes=EXTENT_BYTES,
            exists=self.is_marked,
        )
        return StoreReport(
            name=self.name,
            pools=(pool,),
            volumes=tuple(volume for entry in self.entries if (volume := self._volume(entry)) is not None),
            orphans=tuple(orphan for entry in self.entries if (orphan := _orphan(entry)) is not None),
        )

    def _volume(self, entry: Entry) -> Volume | None:
        """A volume for every record, and for every unreadable one that has an image: its id is taken."""
        if entry.record is None or (isinstance(entry.record, Problem) and entry.image is None):
            return None
        found = of_image(self.loops, entry.image) if isinstance(entry.image, Image) else ()
        loop = next((loop for loop in found if loop.is_whole), None)
        image_bytes = entry.image.size_bytes if isinstance(entry.image, Image) else 0
        device_bytes = min(loop.size_bytes, image_bytes) if loop else image_bytes
        record = entry.record if isinstance(entry.record, Record) else None
        is_growing = record is not None and record.state is VolumeState.GROWING
        return Volume(
            id=entry.id,
            kind=record.kind if record else VolumeKind.VOLUME,
            source=record.source if record else None,
            taken_at=record.taken_at if record else 0,
            group=record.group if record else None,
            filled_bytes=record.filled_bytes if record else 0,
            pool=PoolName(self.name),
            store=self.name,
            type=DeviceType.FILE,
            device_class=record.device_class if record else DeviceClassName(""),
            size_bytes=min(device_bytes, record.old_size_bytes) if record and is_growing else device_bytes,
            device_size_bytes=device_bytes,
            state=record.state if record else VolumeState.READY,
            wipe=record.wipe if record else Wipe.NONE,
            owner=record.owner if record else Owner(),
            device_path=loop.path if loop else "",
            device_major=loop.major if loop else -1,
            device_minor=loop.minor if loop else -1,
            is_active=loop is not None,
            is_open=any(self.users(each) for each in found),
            problem=_problem(entry),
        )


def _problem(entry: Entry) -> Problem | None:
    for part in (entry.record, entry.image):
        if isinstance(part, Problem):
            return part
    record = entry.record
    if not isinstance(record, Record) or record.state in UNFINISHED:
        return None
    if not isinstance(entry.image, Image):
        return Problem(reason="ImageMissing", message=f"{entry.id} has a record and no image: its content is gone")
    least_bytes = record.old_size_bytes if record.state is VolumeState.GROWING else record.size_bytes
    if entry.image.size_bytes < least_bytes:
        sizes = f"{entry.image.size_bytes} bytes, and its record says {least_bytes}"
        return Problem(reason="ImageTooShort", message=f"the image of {entry.id} has {sizes}")
    return None


def _orphan(entry: Entry) -> Orphan | None:
    if entry.record is None:
        return Orphan(
            name=entry.id,
            kind=OrphanKind.VOLUME_WITHOUT_RECORD,
            message=f"{entry.id}.img has no {entry.id}.json: it is not known whose it is, and it is left alone",
        )
    if entry.image is not None:
        return None
    if isinstance(entry.record, Problem):
        return Orphan(name=entry.id, kind=OrphanKind.UNREADABLE_RECORD, message=entry.record.message)
    if entry.record.state not in UNFINISHED:
        return Orphan(
            name=entry.id, kind=OrphanKind.RECORD_WITHOUT_VOLUME, message=f"{entry.id}.json has no {entry.id}.img"
        )
    return None


def _whole_extents(size_bytes: int) -> int:
    return max(0, size_bytes) // EXTENT_BYTES * EXTENT_BYTES
