"""Where the rooms meet: what the CSI services ask of whoever keeps the volumes, as protocols.

`ullage standalone` and `ullage node` answer them with the node agent in the same process (`node_agent.local`); the
controller of a cluster answers `Provisioner` with LogicalVolume objects. Both are called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    ExpandVolume,
    ModifyVolume,
    NodeName,
    Pool,
    Problem,
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
    problem: Problem | None = None


class Provisioner(Protocol):
    """Every volume of the driver, on whichever node, and the means to order more.

    Each change may be repeated and finds what the first one made. Besides what is named they raise
    PendingOperationError, StillRunningError (past `patience_seconds`; it goes on), UnavailableError.
    """

    def create(self, request: CreateVolume, nodes: Sequence[NodeName], *, patience_seconds: float) -> Provisioned:
        """Make a volume on one of `nodes`, the first that has room (none given: anywhere), or find it made.

        Raises InvalidRequestError, ConflictError, OutOfRangeError, InsufficientCapacityError.
        """

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Provisioned:
        """Make a volume at least as large; raises NotFoundError, OutOfRangeError, InsufficientCapacityError."""

    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Provisioned:
        """Give a volume another wipe policy; raises NotFoundError."""

    def delete(self, volume_id: VolumeId, *, patience_seconds: float) -> None:
        """Make a volume be gone; one that is gone is no error. Raises VolumeInUseError, NotOursError."""

    def get(self, volume_id: VolumeId) -> Provisioned:
        """One volume, from memory; raises NotFoundError, and UnavailableError where it may be out of sight."""

    def volumes(self) -> Sequence[Provisioned]:
        """Every volume, from memory, by id."""

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
