"""The nouns every process shares: what may be asked for, and what there is.

Frozen values, no I/O, no defaults that hide a size. All sizes are bytes as int.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import NewType

VolumeId = NewType("VolumeId", str)
"""Names one volume everywhere: LogicalVolume object, CSI volume handle, LV name. See `ullage.names` for its rules."""
PoolName = NewType("PoolName", str)
"""Unique on a node: `vg0` (a volume group), `vg0/pool0` (a thin pool in it), a directory's path (files)."""
StoreName = NewType("StoreName", str)
"""What is locked and reported as one: a volume group, or a directory of files. A store has one or more pools."""
DeviceClassName = NewType("DeviceClassName", str)
GroupId = NewType("GroupId", str)
"""Names snapshots of several volumes that were taken at one moment; see `ullage.names.group_id`."""
NodeName = NewType("NodeName", str)
"""A node as its cluster calls it; the one value of the topology key `ullage.io/node`."""


class DeviceType(StrEnum):
    """Where a class's volumes live."""

    THICK = "thick"
    THIN = "thin"
    DISK = "disk"
    FILE = "file"


class LayoutKind(StrEnum):
    """How LVM lays a volume over physical volumes; the names are lvmraid(7)'s."""

    LINEAR = "linear"
    STRIPED = "striped"
    RAID1 = "raid1"
    RAID5 = "raid5"
    RAID6 = "raid6"
    RAID10 = "raid10"


class Wipe(StrEnum):
    """What is done so that a new volume does not show its extents' earlier content.

    NONE: nothing. SIGNATURES: whatever a probe recognises (file systems, RAID, LVM, LUKS, partition tables, BlueStore
    labels) goes at create and at delete; other old bytes stay readable. DISCARD: the device gets its blocks back at
    delete, and the volume reads as zeroes from its first moment. ZERO: written over at create and at delete.
    """

    NONE = "none"
    SIGNATURES = "signatures"
    DISCARD = "discard"
    ZERO = "zero"


class Scoring(StrEnum):
    """Which of the nodes that a volume fits is the best for it.

    SPREAD: the one with most bytes left afterwards. BINPACK: the one with least, so that others stay free for large
    volumes. BALANCED: the one with the largest share of its room left, so that all are filled to the same percentage.
    """

    SPREAD = "spread"
    BINPACK = "binpack"
    BALANCED = "balanced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A volume's shape. `stripes` counts data stripes (parity excluded), `mirrors` the copies beyond the first."""

    kind: LayoutKind = LayoutKind.LINEAR
    stripes: int = 1
    mirrors: int = 0
    stripe_size_bytes: int = 64 << 10
    integrity: bool = False

    @property
    def parity(self) -> int:
        """Images that hold no data of their own."""
        return {LayoutKind.RAID5: 1, LayoutKind.RAID6: 2}.get(self.kind, 0)

    @property
    def images(self) -> int:
        """Physical volumes one volume takes, each a different one (a linear volume may span more)."""
        return self.stripes * (self.mirrors + 1) + self.parity

    @property
    def is_raid(self) -> bool:
        """Whether dm-raid keeps metadata beside every image."""
        return self.kind not in (LayoutKind.LINEAR, LayoutKind.STRIPED)

    @property
    def is_spread(self) -> bool:
        """Whether the images must lie on different physical volumes."""
        return self.kind is not LayoutKind.LINEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinPoolPolicy:
    """A thin class's pool. The guards are percent of the pool really written, past which it takes no new volume."""

    name: str
    overprovision_ratio: Fraction
    create_size_bytes: int = 0
    """Make the pool with this size when the first volume needs it; 0: it must be there."""
    data_guard_percent: int = 90
    metadata_guard_percent: int = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPolicy:
    """How much room a thick class's snapshots get for what is written to their volumes afterwards.

    Percent of the most that one can ever need: with all of it, it cannot overflow. One with less is given as much again
    when `grow_at_percent` of what it has is used, and never more than all.
    """

    size_percent: int = 100
    grow_at_percent: int = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClass:
    """Policy: what a StorageClass asks for by name. The fields are the architecture's; `ullage.config` reads them."""

    name: DeviceClassName
    type: DeviceType
    volume_groups: tuple[str, ...] = ()
    """Names or globs; all that match are one class."""
    thin_pool: ThinPoolPolicy | None = None
    directory: str = ""
    is_sparse: bool = False
    reserve_bytes: int = 0
    """Never given out, in each of the class's pools. Where classes share a pool, the largest reserve holds."""
    layout: Layout = field(default_factory=Layout)
    snapshots: SnapshotPolicy = SnapshotPolicy()
    wipe: Wipe = Wipe.DISCARD
    mkfs_options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    node_selector: tuple[tuple[str, str], ...] = ()
    is_default: bool = False
    copy_rate_bytes: int = 0
    """How much a second the copies by bytes of this class move at most, together; 0: as much as they can."""
    scoring: Scoring = Scoring.SPREAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom a volume is for. Written on the device itself, so that disks alone can rebuild the books."""

    pv_name: str = ""
    claim_namespace: str = ""
    claim_name: str = ""
    claim_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a pool or a volume is not as it should be: a CamelCase reason and a sentence."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhysicalVolume:
    """One physical volume's room, as LVM counts it: whole extents, nothing subtracted."""

    name: str
    free_bytes: int
    scattered_bytes: int = 0
    """Of these, what may lie outside the largest run of free extents; 0 where all free space is one run."""

    @property
    def run_bytes(self) -> int:
        """What is surely free in one piece."""
        return max(0, self.free_bytes - self.scattered_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a volume takes from one physical volume."""

    physical_volume: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinUsage:
    """A thin pool's two limits: what is promised, and what is written."""

    virtual_bytes: int
    data_percent: float
    metadata_percent: float
    overprovision_ratio: Fraction
    data_guard_percent: int
    metadata_guard_percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A whole disk of a disk pool. A volume takes all of it or nothing."""

    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One place that space is taken from. Capacity is a list of these and never their sum.

    `free_bytes` is after `reserve_bytes` and never negative. `physical_volumes` is what spread layouts are computed
    from. A pool with a `problem` takes nothing new; its numbers are the last that were true.
    """

    name: PoolName
    store: StoreName
    type: DeviceType
    classes: tuple[DeviceClassName, ...]
    total_bytes: int
    free_bytes: int
    reserve_bytes: int = 0
    extent_bytes: int
    physical_volumes: tuple[PhysicalVolume, ...] = ()
    thin: ThinUsage | None = None
    disks: tuple[Disk, ...] = ()
    exists: bool = True
    """False for a thin pool that its class makes on demand; the numbers are those it would have."""
    problem: Problem | None = None


class VolumeKind(StrEnum):
    """A volume, or what one was at a moment: a snapshot is never shown to anybody, and nobody can write to it.

    FROZEN: a snapshot that a copy by bytes reads from, because its source is a volume that may be written meanwhile. It
    is the copy's alone (`ullage.names.frozen_id`), is told to nobody, and goes when the copy is done.
    """

    VOLUME = "volume"
    SNAPSHOT = "snapshot"
    FROZEN = "frozen"


class VolumeState(StrEnum):
    """Where a volume is in its life; anything but READY is a mark on the device and survives a crash.

    FILLING: it is all there, and its source's bytes are still being copied into it; nobody can use it before.
    """

    CREATING = "creating"
    FILLING = "filling"
    READY = "ready"
    GROWING = "growing"
    DELETING = "deleting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume or snapshot as its backend sees it.

    `size_bytes` is what may be used: a growing volume still has its old size. A snapshot has its source's at that time.
    """

    id: VolumeId
    kind: VolumeKind = VolumeKind.VOLUME
    source: VolumeId | None = None
    """What it began as; that may be gone by now."""
    taken_at: int = 0
    """When a snapshot was taken, in seconds since 1970 (UTC); kept on the device, so the same for every retry."""
    group: GroupId | None = None
    """Of a snapshot that was taken together with others."""
    filled_bytes: int = 0
    """While FILLING: so much of its source is surely on its device, as was last noted there."""
    pool: PoolName
    store: StoreName
    type: DeviceType
    device_class: DeviceClassName
    size_bytes: int
    device_size_bytes: int
    state: VolumeState
    wipe: Wipe
    """The policy it was made with (or was changed to); kept on the device, so it outlives its class."""
    owner: Owner = Owner()
    device_path: str
    device_major: int = -1
    device_minor: int = -1
    dm_uuid: str = ""
    """Device-mapper's lasting name of the device: another volume that took its place would have another."""
    is_active: bool = True
    is_open: bool = False
    layout: Layout = field(default_factory=Layout)
    taken: tuple[Share, ...] = ()
    """What it takes from which physical volume, metadata included; empty for thin volumes and files."""
    used_percent: float | None = None
    """Of a thick snapshot while it is active: how much of its room (`taken`) is used. Full is not yet overflowed."""
    problem: Problem | None = None


class OrphanKind(StrEnum):
    """Which half is missing."""

    VOLUME_WITHOUT_RECORD = "volume_without_record"
    RECORD_WITHOUT_VOLUME = "record_without_volume"
    UNREADABLE_RECORD = "unreadable_record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """Something with our mark and half of its record. Reported, never deleted."""

    name: str
    kind: OrphanKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVolume:
    """Ask for a volume of at least `size_bytes` and, unless 0, at most `limit_bytes`; `pool` pins it to one pool."""

    volume_id: VolumeId
    device_class: DeviceClassName
    size_bytes: int
    limit_bytes: int = 0
    pool: PoolName | None = None
    owner: Owner = Owner()
    wipe: Wipe | None = None
    """Instead of the class's. One that is there already keeps what it has: its policy may have been changed since."""
    source: VolumeId | None = None
    """The volume or snapshot of this node whose content it begins with; None: it begins empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot:
    """Ask for a snapshot of a volume, under an id that is never a volume's (`ullage.names.snapshot_id`)."""

    snapshot_id: VolumeId
    source: VolumeId


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeGroup:
    """Ask for snapshots of several volumes at one moment; each has the id that `ullage.names.member_id` gives it."""

    group_id: GroupId
    sources: tuple[VolumeId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """A run of a volume's bytes."""

    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedBlocks:
    """Where a snapshot may be anything but zero, or may differ from an earlier one; of what is left out nothing does.

    `ranges` come in ascending order and apart from each other, and can be gone through once.
    """

    volume_size_bytes: int
    ranges: Iterator[ByteRange]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpandVolume:
    """Ask that a volume be at least `size_bytes`. Never shrinks."""

    volume_id: VolumeId
    size_bytes: int
    limit_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModifyVolume:
    """Ask that a volume be wiped by another policy from now on. What is on it stays as it is."""

    volume_id: VolumeId
    wipe: Wipe


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteVolume:
    """Ask that a volume be gone. `pool`, when given, must be where it is."""

    volume_id: VolumeId
    pool: PoolName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examine:
    """Ask whether a volume holds anything. `asked` tells one question from another."""

    volume_id: VolumeId
    asked: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """`is_unwritten`: nobody had it, and every byte of it read as zero. Else it may hold something; `reason` is why."""

    is_unwritten: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a create, expand, modify or delete came to. `is_new` is False when there was nothing left to do."""

    volume: Volume | None
    is_new: bool
