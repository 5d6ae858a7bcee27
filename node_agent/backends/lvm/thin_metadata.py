"""Which chunks of thin snapshots are mapped, and which differ: read from a pool's metadata, and from nothing else.

The metadata is held still only while thin_dump or thin_delta reads it. What they say goes into a file, and from there
to whoever asked, at his own pace.

The metadata knows volumes by a number that is given out again after a removal. So LVM is asked before and after: a
logical volume (its uuid is never given out again) that has the same number both times had it all the while.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import msgspec

from node_agent.backends.lvm import tags, thin_xml
from node_agent.backends.lvm.command import Lvm
from node_agent.backends.lvm.metadata_snapshots import MetadataSnapshots
from node_agent.backends.lvm.stores import Stores
from ullage.errors import NotFoundError, UnavailableError, UnreadableReportError
from ullage.model import ByteRange, PoolName, StoreName, Volume, VolumeId

READ_SECONDS = 600.0
"""For thin_dump and thin_delta: on iron a terabyte in pieces of 64 KiB takes them a minute."""
IDS = ("--reportformat", "json", "-o", "lv_name,lv_uuid,lv_tags,pool_lv,thin_id")
RANGE = struct.Struct("<QQ")
IN_MEMORY_BYTES = 1 << 20
"""So much of an answer (65,536 ranges); what is longer is in a file until it is asked for."""


class IdRow(msgspec.Struct):
    """One row of what IDS asks for."""

    lv_name: str
    lv_uuid: str
    lv_tags: str
    pool_lv: str
    thin_id: str


class IdSection(msgspec.Struct):
    """The rows of one volume group."""

    lv: list[IdRow]


class IdReport(msgspec.Struct):
    """All of it."""

    report: list[IdSection]


_IDS_SAID = msgspec.json.Decoder(IdReport)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinId:
    """Which device of its pool's metadata a logical volume is; another of the same name has another uuid."""

    uuid: str
    pool: PoolName
    number: int


class ThinMetadata:
    """Thread-safe."""

    def __init__(self, lvm: Lvm, stores: Stores, snapshots: MetadataSnapshots) -> None:
        """Nothing is looked at before the first question."""
        self._lvm, self._stores, self._snapshots = lvm, stores, snapshots
        self._ids: dict[StoreName, Mapping[VolumeId, ThinId]] = {}
        """As the last answer found them. It is checked after the next, so it may be of any time."""

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:
        """See Backend; raises NotFoundError, UnavailableError, CommandError, too."""
        with self._ids_of(snapshot) as (this,), _file() as report:
            self._read("thin_dump", "-m", "--dev-id", str(this.number), snapshot=snapshot, into=report)
            return _kept(thin_xml.mapped(report, this.number), snapshot.size_bytes)

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:
        """See Backend; raises as `allocated`. What the target has beyond the base's end counts if it is mapped."""
        with self._ids_of(base, target) as (left, right), _file() as report:
            numbers = ("--thin1", str(left.number), "--thin2", str(right.number))
            # 0.9 takes the word after -m for its argument unless that is an option; later versions do not mind.
            self._read("thin_delta", "-m", *numbers, snapshot=target, into=report)
            cut = base.size_bytes if base.size_bytes < target.size_bytes else 0
            return _kept(
                thin_xml.differing(report, left.number, right.number, left_bytes=cut),
                target.size_bytes,
            )

    def _read(self, *argv: str, snapshot: Volume, into: BinaryIO) -> None:
        """Run a program on the metadata that `snapshot` is in, and come back to the beginning of what it said."""
        purpose = f"reading what is mapped of {snapshot.id}"
        devices = self._stores.devices(snapshot.store)
        with self._snapshots.taken(snapshot.pool, purpose, devices=devices) as device:
            argv = (*self._lvm.prefix, *argv, device)
            self._lvm.runner.look(argv, timeout_seconds=READ_SECONDS, into=into)
        into.seek(0)

    @contextmanager
    def _ids_of(self, *snapshots: Volume) -> Iterator[tuple[ThinId, ...]]:
        """The ids of these snapshots, all of one store; raises NotFoundError if they were not so all the while."""
        store = snapshots[0].store
        before = self._ids.pop(store, {})
        if any(each.id not in before for each in snapshots):
            before = self._look(store)
        ids = tuple(_id(before, each) for each in snapshots)
        yield ids
        after = self._look(store)
        if tuple(_id(after, each) for each in snapshots) != ids:
            raise UnavailableError("another snapshot of the same name was taken meanwhile; ask again")
        self._ids[store] = after

    def _look(self, store: StoreName) -> dict[VolumeId, ThinId]:
        """The thin volumes of ours in this volume group."""
        said = self._lvm.look("lvs", *IDS, store, devices=self._stores.devices(store))
        try:
            (section,) = _IDS_SAID.decode(said).report
            return {
                VolumeId(row.lv_name): ThinId(
                    uuid=row.lv_uuid, pool=PoolName(f"{store}/{row.pool_lv}"), number=int(row.thin_id)
                )
                for row in section.lv
                if row.thin_id and tags.volume_tag(VolumeId(row.lv_name)) in row.lv_tags.split(",")
            }
        except (msgspec.MsgspecError, ValueError) as failure:
            raise UnreadableReportError(f"lvm's report makes no sense: {failure}", argv=("lvm", "lvs")) from failure


def _id(ids: Mapping[VolumeId, ThinId], snapshot: Volume) -> ThinId:
    found = ids.get(snapshot.id)
    if found is None or found.pool != snapshot.pool:
        raise NotFoundError(f"snapshot {snapshot.id} is no longer in {snapshot.pool}", volume_id=snapshot.id)
    return found


@contextmanager
def _file() -> Iterator[BinaryIO]:
    """A file that nobody else sees, and that is gone at the end; raises UnavailableError where there is no room."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as failure:
        raise UnavailableError(f"what is mapped has no room in {tempfile.gettempdir()}: {failure}") from failure


def _kept(ranges: Iterator[ByteRange], size_bytes: int) -> Iterator[ByteRange]:
    """All of the ranges, read to their end now and told later; of the last one what is within the size."""
    told = _keeping(ranges, size_bytes)
    next(told)
    return told


def _keeping(ranges: Iterator[ByteRange], size_bytes: int) -> Iterator[ByteRange]:
    """First nothing, when all is kept; begun like that it closes its file whatever becomes of the rest."""
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES) as kept:
        for each in ranges:
            within = min(each.size_bytes, size_bytes - each.offset_bytes)
            if within > 0:
                kept.write(RANGE.pack(each.offset_bytes, within))
        kept.seek(0)
        yield ByteRange(offset_bytes=0, size_bytes=0)
        while piece := kept.read(RANGE.size << 10):
            for offset_bytes, within in RANGE.iter_unpack(piece):
                yield ByteRange(offset_bytes=offset_bytes, size_bytes=within)
