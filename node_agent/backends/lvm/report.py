"""LVM's own report, decoded: what `lvm fullreport` says of each volume group, in our nouns.

One process tells all. A report is used whole or not at all: a missing section raises UnreadableReportError.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from node_agent.backends.lvm import tags
from node_agent.backends.lvm.rows import (
    FREE_PHYSICAL_VOLUMES,
    FullReport,
    GroupReport,
    LogicalVolumeRow,
    PhysicalVolumeRow,
    PieceRow,
    SegmentRow,
    VolumeGroupRow,
)
from ullage.errors import SnapshotOverflowedError, UnreadableReportError
from ullage.model import (
    DeviceType,
    Layout,
    LayoutKind,
    Orphan,
    OrphanKind,
    PhysicalVolume,
    PoolName,
    Problem,
    Share,
    StoreName,
    Volume,
    VolumeKind,
    VolumeState,
)

COMPONENT = re.compile(
    r"_(rimage|rmeta|mimage|mlog|tdata|tmeta|iorig|imeta|cdata|cmeta|corig|cvol|vdata|vorigin|pmspare)(_|$)"
)
"""LVM's reserved infixes: whatever is before the first of them is the volume that the component belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinPool:
    """A thin pool as it is, whoever made it."""

    name: str
    size_bytes: int
    virtual_bytes: int
    data_percent: float
    metadata_percent: float
    zeroes_new_blocks: bool
    health: str
    is_marked: bool = False
    """Its metadata snapshot is ours, or was when the power went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeGroup:
    """One volume group at one moment."""

    name: StoreName
    extent_bytes: int
    total_bytes: int
    physical_volumes: tuple[PhysicalVolume, ...]
    """Those that take new volumes."""
    devices: tuple[str, ...]
    """Those that are there: what any command on this group must be allowed to read."""
    missing_physical_volumes: int
    is_exported: bool
    thin_pools: tuple[ThinPool, ...]
    volumes: tuple[Volume, ...]
    orphans: tuple[Orphan, ...]
    loose_parts: tuple[str, ...] = ()
    """Integrity metadata that LVM had made for a volume, and not yet given to it when it died."""


_PARTS = msgspec.json.Decoder(FullReport)
_GROUPS = msgspec.json.Decoder(GroupReport, strict=False)
_SECTIONS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def volume_groups(report: str) -> dict[StoreName, VolumeGroup]:
    """Every volume group in the output of `lvm fullreport`, by name; raises UnreadableReportError."""
    try:
        parts = _PARTS.decode(report).report
        groups = [
            _volume_group(_GROUPS.decode(part))
            for part in parts
            if _SECTIONS.decode(part).keys() != FREE_PHYSICAL_VOLUMES
        ]
    except (msgspec.MsgspecError, ValueError, LookupError, ArithmeticError) as failure:
        raise UnreadableReportError(f"lvm's report makes no sense: {failure}", argv=("lvm", "fullreport")) from failure
    by_name = {group.name: group for group in groups}
    if len(by_name) != len(groups):
        raise UnreadableReportError("two volume groups have the same name; vgrename one", argv=("lvm", "fullreport"))
    return by_name


def _volume_group(group: GroupReport) -> VolumeGroup:
    head = group.vg[0]
    extent = head.vg_extent_size
    store = StoreName(head.vg_name)
    shares = _shares(group.pvseg, extent)
    segments = {row.lv_name: row for row in reversed(group.seg)}  # the first segment of each stays
    visible = [row for row in group.lv if not row.lv_name.startswith("[")]
    with_parts = {COMPONENT.split(row.lv_name)[0] for row in visible if COMPONENT.search(row.lv_name)}
    volumes: list[Volume] = []
    orphans: list[Orphan] = []
    for row in visible:
        try:
            label = tags.read(row.lv_tags.split(","))
        except ValueError as failure:
            orphans.append(_unlabelled(store, row, f"its tags make no sense: {failure}"))
            continue
        if label is None:
            continue
        if COMPONENT.split(row.lv_name)[0] == label.volume_id != row.lv_name:
            continue  # one of its parts
        if label.volume_id != row.lv_name:
            orphans.append(_unlabelled(store, row, f"it is tagged as {label.volume_id}"))
            continue
        volume = _volume(head, row, label, _layout(row, segments[row.lv_name]), shares[row.lv_name])
        if volume.kind is not VolumeKind.VOLUME and volume.type is DeviceType.THICK:
            volume = _snapshot(volume, row)
        if row.lv_name in with_parts and volume.state is VolumeState.CREATING:
            # LVM shows a volume's parts while it makes it. It died over that: this one cannot even be activated.
            volume = replace(volume, device_size_bytes=0)
        volumes.append(volume)
    return VolumeGroup(
        name=store,
        extent_bytes=extent,
        total_bytes=head.vg_extent_count * extent,
        physical_volumes=tuple(
            _physical_volume(row, group.pvseg, extent) for row in group.pv if row.pv_allocatable and not row.pv_missing
        ),
        devices=tuple(row.pv_name for row in group.pv if not row.pv_missing),
        missing_physical_volumes=head.vg_missing_pv_count,
        is_exported=bool(head.vg_exported),
        thin_pools=tuple(_thin_pools(visible, segments)),
        volumes=tuple(volumes),
        orphans=tuple(orphans),
        loose_parts=tuple(row.lv_name for row in visible if row.lv_name.endswith("_imeta")),
    )


def _physical_volume(row: PhysicalVolumeRow, pieces: Iterable[PieceRow], extent_bytes: int) -> PhysicalVolume:
    free = row.pv_pe_count - row.pv_pe_alloc_count
    runs = (piece.pvseg_size for piece in pieces if piece.pv_name == row.pv_name and not piece.lv_name)
    return PhysicalVolume(
        name=row.pv_name,
        free_bytes=free * extent_bytes,
        scattered_bytes=(free - max(runs, default=0)) * extent_bytes,
    )


def _shares(pieces: Iterable[PieceRow], extent_bytes: int) -> defaultdict[str, dict[str, int]]:
    """Bytes by volume and physical volume, the components of a volume counted as the volume's."""
    shares: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for piece in pieces:
        if piece.lv_name:
            owner = COMPONENT.split(piece.lv_name.strip("[]"))[0]
            by_device = shares[owner]
            by_device[piece.pv_name] = by_device.get(piece.pv_name, 0) + piece.pvseg_size * extent_bytes
    return shares


def _volume(
    head: VolumeGroupRow, row: LogicalVolumeRow, label: tags.Label, layout: Layout, shares: dict[str, int]
) -> Volume:
    store = StoreName(head.vg_name)
    is_thin_snapshot = bool(row.pool_lv) and label.kind is VolumeKind.SNAPSHOT
    return Volume(
        id=label.volume_id,
        kind=label.kind,
        source=label.source,
        taken_at=label.taken_at,
        group=label.group,
        filled_bytes=label.filled_bytes,
        pool=PoolName(f"{store}/{row.pool_lv}" if row.pool_lv else store),
        store=store,
        type=DeviceType.THIN if row.pool_lv else DeviceType.THICK,
        device_class=label.device_class,
        size_bytes=label.settled_bytes if label.state is VolumeState.GROWING else row.lv_size,
        device_size_bytes=row.lv_size,
        state=label.state,
        wipe=label.wipe,
        owner=label.owner,
        device_path="" if is_thin_snapshot else f"/dev/{store}/{row.lv_name}",
        device_major=row.lv_kernel_major,
        device_minor=row.lv_kernel_minor,
        dm_uuid="" if is_thin_snapshot else f"LVM-{(head.vg_uuid + row.lv_uuid).replace('-', '')}",
        is_active=row.lv_active == "active",
        is_open=row.lv_device_open == "open",
        layout=layout,
        taken=tuple(Share(physical_volume=name, size_bytes=size) for name, size in sorted(shares.items())),
        problem=_health(row),
    )


def _snapshot(volume: Volume, row: LogicalVolumeRow) -> Volume:
    """A thick snapshot, of which LVM's size is that of the room for what it keeps.

    LVM makes that room as a plain volume first, and may have died before it was a snapshot; and it makes it one again
    before it removes it.
    """
    if "thicksnapshot" not in row.lv_role.split(","):
        if volume.state is VolumeState.DELETING:
            return volume
        return replace(volume, state=VolumeState.CREATING, device_size_bytes=0)
    size_bytes = int(row.origin_size)
    overflowed = Problem(
        reason=SnapshotOverflowedError.reason,
        message=f"more was written to {volume.source} than the snapshot had room to keep: it holds nothing any more",
    )
    return replace(
        volume,
        size_bytes=size_bytes,
        device_size_bytes=size_bytes,
        used_percent=float(row.data_percent) if row.data_percent else None,
        problem=overflowed if row.lv_snapshot_invalid == "snapshot invalid" else volume.problem,
    )


def _health(row: LogicalVolumeRow) -> Problem | None:
    if row.lv_suspended == "suspended":
        return Problem(reason="Suspended", message="the device is suspended: reads and writes wait")
    if not row.lv_health_status:
        return None
    reason = "".join(word.capitalize() for word in re.split(r"[_ ]", row.lv_health_status))
    return Problem(reason=reason, message=f"LVM calls it '{row.lv_health_status}'")


def _layout(row: LogicalVolumeRow, segment: SegmentRow) -> Layout:
    """The shape a volume really has, whatever its class says today."""
    kinds = {kind.value: kind for kind in LayoutKind}
    names = row.lv_layout.split(",")
    kind = next((kinds[name] for name in names if name in kinds and name != "linear"), LayoutKind.LINEAR)
    stripes = int(segment.stripes or 1)
    data_stripes = int(segment.data_stripes or 1)
    if kind is LayoutKind.RAID1:
        return Layout(kind=kind, mirrors=stripes - 1, integrity=bool(row.raidintegritymode))
    if kind is LayoutKind.LINEAR:
        return Layout()
    mirrors = stripes // data_stripes - 1 if kind is LayoutKind.RAID10 else 0
    return Layout(
        kind=kind,
        stripes=data_stripes,
        mirrors=mirrors,
        stripe_size_bytes=int(segment.stripe_size or 0),
        integrity=bool(row.raidintegritymode),
    )


def _thin_pools(rows: Iterable[LogicalVolumeRow], segments: dict[str, SegmentRow]) -> Iterable[ThinPool]:
    rows = list(rows)
    promised: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.pool_lv:
            promised[row.pool_lv] += row.lv_size
    for row in rows:
        if row.lv_layout == "thin,pool":
            yield ThinPool(
                name=row.lv_name,
                size_bytes=row.lv_size,
                virtual_bytes=promised[row.lv_name],
                data_percent=float(row.data_percent or 0),
                metadata_percent=float(row.metadata_percent or 0),
                zeroes_new_blocks=segments[row.lv_name].zero == "zero",
                health=row.lv_health_status,
                is_marked=tags.METADATA_SNAPSHOT in row.lv_tags.split(","),
            )


def _unlabelled(store: StoreName, row: LogicalVolumeRow, what: str) -> Orphan:
    return Orphan(
        name=f"{store}/{row.lv_name}", kind=OrphanKind.UNREADABLE_RECORD, message=f"{store}/{row.lv_name}: {what}"
    )
