"""NodeStorage: what a node has, as its agent last reported it. One object for each node, of the node's name.

`status.revision` grows with every report. A LogicalVolume says from which revision on its node's report counts it:
whoever reads both knows what is still to be subtracted.
"""

from __future__ import annotations

from fractions import Fraction

import msgspec

from ullage.kube.meta import Condition, Meta
from ullage.model import (
    DeviceClassName,
    DeviceType,
    Disk,
    NodeName,
    OrphanKind,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    StoreName,
    ThinUsage,
    VolumeId,
    VolumeKind,
)

CAPACITY_KNOWN = "CapacityKnown"
"""Condition: every pool could be read, and the numbers are true."""
DEGRADED = "Degraded"
"""Condition: something here works, and a person should look at it."""
READY = "Ready"
"""Condition: the agent serves."""
ACKNOWLEDGED = "acknowledged.ullage.io/"
"""A label's key, with a volume id behind it: this orphan on this node is known, and is not to be told of again."""


class PhysicalVolumeStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """See `ullage.model.PhysicalVolume`."""

    name: str
    free_bytes: int
    scattered_bytes: int = 0
    """Of these, what may lie outside the largest run of free extents."""


class ThinStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """See `ullage.model.ThinUsage`."""

    virtual_bytes: int
    """What is promised: all its volumes' sizes."""
    data_percent: float
    """How full of data it is."""
    metadata_percent: float
    """How full of metadata it is."""
    overprovision_ratio: str
    data_guard_percent: int
    metadata_guard_percent: int


class DiskStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """See `ullage.model.Disk`."""

    name: str
    size_bytes: int


class ProblemStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """See `ullage.model.Problem`."""

    reason: str
    """In one CamelCase word."""
    message: str


class PoolStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """See `ullage.model.Pool`."""

    name: str
    """Unique on the node: `vg0`, `vg0/pool0` (a thin pool), a path (files)."""
    store: str
    """What is locked and reported as one: a volume group, a directory."""
    type: DeviceType
    classes: tuple[str, ...]
    """The device classes that it belongs to: they share it."""
    total_bytes: int
    free_bytes: int
    """What can be given out: after the reserve, never negative."""
    reserve_bytes: int = 0
    largest_volume_bytes: int = 0
    """Of one linear volume; for people and printer columns, the arithmetic works it out."""
    extent_bytes: int
    """Sizes are rounded up to multiples of this."""
    free_bytes_per_pv: tuple[PhysicalVolumeStatus, ...] = msgspec.field(default=(), name="freeBytesPerPV")
    thin: ThinStatus | None = None
    """Of a thin pool."""
    disks: tuple[DiskStatus, ...] = ()
    """Of whole disks: each is one volume or none."""
    is_missing: bool = msgspec.field(default=False, name="onDemand")
    """True of a thin pool that its class makes when the first volume needs it."""
    problem: ProblemStatus | None = None
    """Why nothing is given out of it; the numbers are the last that were true."""


class OrphanStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A volume on this node with our mark and without an object, with all that its mark says; or half of one."""

    name: str
    """The id that its mark says."""
    kind: OrphanKind
    """Which half is missing."""
    message: str
    pool: str = ""
    device_class: str = ""
    size_bytes: int = 0
    volume_kind: VolumeKind = VolumeKind.VOLUME
    source: str = ""
    group: str = ""
    claim_namespace: str = ""
    claim_name: str = ""
    claim_uid: str = ""
    persistent_volume: str = ""
    content: str = ""
    """What a probe of the device finds: a file system's name, `block` for all else; empty when it was not asked."""


class StorageStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The report."""

    revision: int = 0
    """Grows with every report."""
    observed_at: str = ""
    """When this was last known to be true (RFC 3339); renewed now and then when nothing changes."""
    agent_version: str = ""
    pools: tuple[PoolStatus, ...] = ()
    """Where space is taken from: a list, and never one sum."""
    orphans: tuple[OrphanStatus, ...] = ()
    """Volumes with our mark and without an object. Nothing deletes them by itself."""
    conditions: tuple[Condition, ...] = ()


class NodeStorage(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """ullage.io/v1alpha1 NodeStorage."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta
    status: StorageStatus = StorageStatus()

    @property
    def node(self) -> NodeName:
        """Whose storage it is."""
        return NodeName(self.metadata.name)

    @property
    def revision(self) -> int:
        """It grows with every report."""
        return self.status.revision

    @property
    def pools(self) -> tuple[Pool, ...]:
        """As the arithmetic takes them."""
        return tuple(map(pool, self.status.pools))

    @property
    def strays(self) -> frozenset[VolumeId]:
        """Ids of volumes that are here and have no object."""
        return frozenset(VolumeId(each.name) for each in self.status.orphans)


def pool_status(of: Pool, largest_volume_bytes: int) -> PoolStatus:
    """A pool as an object says it."""
    thin = of.thin
    return PoolStatus(
        name=of.name,
        store=of.store,
        type=of.type,
        classes=of.classes,
        total_bytes=of.total_bytes,
        free_bytes=of.free_bytes,
        reserve_bytes=of.reserve_bytes,
        largest_volume_bytes=largest_volume_bytes,
        extent_bytes=of.extent_bytes,
        free_bytes_per_pv=tuple(
            PhysicalVolumeStatus(name=each.name, free_bytes=each.free_bytes, scattered_bytes=each.scattered_bytes)
            for each in of.physical_volumes
        ),
        thin=None
        if thin is None
        else ThinStatus(
            virtual_bytes=thin.virtual_bytes,
            data_percent=thin.data_percent,
            metadata_percent=thin.metadata_percent,
            overprovision_ratio=str(thin.overprovision_ratio),
            data_guard_percent=thin.data_guard_percent,
            metadata_guard_percent=thin.metadata_guard_percent,
        ),
        disks=tuple(DiskStatus(name=each.name, size_bytes=each.size_bytes) for each in of.disks),
        is_missing=not of.exists,
        problem=None if of.problem is None else ProblemStatus(reason=of.problem.reason, message=of.problem.message),
    )


def pool(status: PoolStatus) -> Pool:
    """The other way."""
    thin = status.thin
    return Pool(
        name=PoolName(status.name),
        store=StoreName(status.store),
        type=status.type,
        classes=tuple(DeviceClassName(each) for each in status.classes),
        total_bytes=status.total_bytes,
        free_bytes=status.free_bytes,
        reserve_bytes=status.reserve_bytes,
        extent_bytes=status.extent_bytes,
        physical_volumes=tuple(
            PhysicalVolume(name=each.name, free_bytes=each.free_bytes, scattered_bytes=each.scattered_bytes)
            for each in status.free_bytes_per_pv
        ),
        thin=None
        if thin is None
        else ThinUsage(
            virtual_bytes=thin.virtual_bytes,
            data_percent=thin.data_percent,
            metadata_percent=thin.metadata_percent,
            overprovision_ratio=Fraction(thin.overprovision_ratio),
            data_guard_percent=thin.data_guard_percent,
            metadata_guard_percent=thin.metadata_guard_percent,
        ),
        disks=tuple(Disk(name=each.name, size_bytes=each.size_bytes) for each in status.disks),
        exists=not status.is_missing,
        problem=None
        if status.problem is None
        else Problem(reason=status.problem.reason, message=status.problem.message),
    )
