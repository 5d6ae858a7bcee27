"""Where the rooms meet: what the CSI services ask of whoever keeps the volumes, as protocols.

`ullage standalone` and `ullage node` answer them with the node agent in the same process (`node_agent.local`); the
controller of a cluster answers `Provisioner` with LogicalVolume objects. Both are called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ullage.model import (
    ChangedBlocks,
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    ExpandVolume,
    GroupId,
    ModifyVolume,
    NodeName,
    Pool,
    Problem,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeId,
    Wipe,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """A volume as its orderer knows it: `size_bytes` is what may be used, `node` the only place it can be used."""

    id: VolumeId
    node: NodeName
    device_class: DeviceClassName
    size_bytes: int
    wipe: Wipe
    source: VolumeId | None = None
    """The volume or snapshot it began as (`ullage.names.kind_of`); that may be gone by now."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a volume held at one moment: `size_bytes` is what a volume made of it has at least."""

    id: VolumeId
    source: VolumeId
    """The volume it was taken of; that may be gone by now."""
    node: NodeName
    size_bytes: int
    taken_at: int
    """In seconds since 1970 (UTC), the same for ever."""
    is_ready: bool = True
    """False: no volume can be made of it, now or ever again; `problem` says why."""
    group: GroupId | None = None
    """Of one that was taken together with others, and goes with them only."""
    problem: Problem | None = None


class Provisioner(Protocol):
    """Every volume and snapshot of the driver, on whichever node, and the means to order more.

    Each change may be repeated and finds what the first one made. Besides what is named they raise
    PendingOperationError, StillRunningError (past `patience_seconds`; it goes on), UnavailableError.
    """

    def create(self, request: CreateVolume, nodes: Sequence[NodeName], *, patience_seconds: float) -> Provisioned:
        """Make a volume on one of `nodes`, the first that has room (none given: anywhere), or find it made.

        One with a source is made where that is. Raises InvalidRequestError, ConflictError, OutOfRangeError,
        InsufficientCapacityError (also for a source on other nodes only), NotFoundError (there is no such source).
        """

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Provisioned:
        """Make a volume at least as large; raises NotFoundError, OutOfRangeError, InsufficientCapacityError."""

    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Provisioned:
        """Give a volume another wipe policy; raises NotFoundError."""

    def delete(self, volume_id: VolumeId, *, patience_seconds: float) -> None:
        """Make a volume be gone; one that is gone is no error, and a snapshot of this id is left as it is.

        Raises VolumeInUseError, NotOursError.
        """

    def get(self, volume_id: VolumeId) -> Provisioned:
        """One volume, from memory; raises NotFoundError, and UnavailableError where it may be out of sight."""

    def volumes(self) -> Sequence[Provisioned]:
        """Every volume, from memory, by id."""

    def snapshot(self, request: TakeSnapshot, nodes: Sequence[NodeName], *, patience_seconds: float) -> Snapshot:
        """Keep what a volume holds now, or find it kept; it is on the volume's node, which is to be one of `nodes`.

        Raises InvalidRequestError (it cannot be on any of these nodes), NotFoundError (no such volume), ConflictError,
        UnsupportedError, InsufficientCapacityError.
        """

    def delete_snapshot(self, snapshot_id: VolumeId, *, patience_seconds: float) -> None:
        """Make a snapshot be gone; one that is gone is no error, and a volume of this id is left as it is.

        Raises InvalidRequestError (it goes with its group only), VolumeInUseError, NotOursError.
        """

    def get_snapshot(self, snapshot_id: VolumeId) -> Snapshot:
        """One snapshot, from memory; raises NotFoundError, and UnavailableError where it may be out of sight."""

    def snapshots(self) -> Sequence[Snapshot]:
        """Every snapshot that is there whole, from memory, by id."""

    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> Sequence[Snapshot]:
        """Keep what several volumes hold at one moment, or find it kept: all of them by id, or none.

        Raises NotFoundError (no such volume), ConflictError, PreconditionError (they cannot be held still together),
        UnsupportedError, InsufficientCapacityError.
        """

    def delete_group(self, group: GroupId, snapshots: Sequence[VolumeId], *, patience_seconds: float) -> None:
        """Make a group's snapshots be gone; one that is gone is no error.

        Raises InvalidRequestError when `snapshots` are not those of the group that are there, VolumeInUseError,
        NotOursError.
        """

    def group(self, group: GroupId) -> Sequence[Snapshot]:
        """The group's snapshots, by id, from memory; none: there is no such group.

        Raises UnavailableError where it may be out of sight.
        """

    def allocated(self, snapshot_id: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        """Where a snapshot may be anything but zero, from `start_bytes` on; its bytes are not read.

        What can be refused is refused at once: NotFoundError, OutOfRangeError (it begins behind the end),
        PreconditionError (of this kind of storage it cannot be told).
        """

    def changed(self, base: VolumeId, target: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        """Where a snapshot may differ from an earlier one of the same volume; raises as `allocated`.

        And InvalidRequestError, when they are of two volumes, or `base` is the later one.
        """

    def pools(self, node: NodeName | None) -> Sequence[Pool]:
        """The pools of one node, or of all; a node that is not known has none."""

    def device_class(self, name: DeviceClassName | None) -> DeviceClass:
        """The class of this name, or the default; raises UnknownDeviceClassError, InvalidRequestError."""


class NodeVolumes(Protocol):
    """One node's storage as the CSI node service sees it, from memory. It changes nothing there."""

    def get(self, volume_id: VolumeId) -> Volume:
        """One volume; raises NotFoundError, and UnavailableError where it may be out of sight."""

    def pools(self) -> Sequence[Pool]:
        """Every pool here."""

    def mkfs_options(self, device_class: DeviceClassName, fs_type: str) -> tuple[str, ...]:
        """What the class adds to mkfs; nothing when there is no such class any more."""
