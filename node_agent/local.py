"""The agent as the CSI services see it when it is in their process: its own truth is the only registry.

No book is kept beside LVM's tags and the files' records: after a `kill -9` the next look finds every volume.
"""

from __future__ import annotations

from collections.abc import Sequence

from node_agent.agent import Agent
from ullage.errors import (
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    UnknownDeviceClassError,
    VolumeNotReadyError,
)
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClass,
    DeviceClassName,
    Done,
    ExpandVolume,
    ModifyVolume,
    NodeName,
    Pool,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.ports import Provisioned

USABLE = frozenset({VolumeState.READY, VolumeState.GROWING})


class LocalNode:
    """Implements `ullage.ports.NodeVolumes`."""

    def __init__(self, agent: Agent) -> None:
        """The agent does all of it."""
        self._agent = agent

    def get(self, volume_id: VolumeId) -> Volume:
        """See the port."""
        return self._agent.get(volume_id)

    def pools(self) -> Sequence[Pool]:
        """See the port."""
        return self._agent.pools()

    def mkfs_options(self, device_class: DeviceClassName, fs_type: str) -> tuple[str, ...]:
        """See the port."""
        found = next((each for each in self._agent.classes() if each.name == device_class), None)
        return dict(found.mkfs_options).get(fs_type, ()) if found else ()


class LocalProvisioner:
    """Implements `ullage.ports.Provisioner` for a driver that has one node."""

    def __init__(self, agent: Agent, node: NodeName) -> None:
        """`node` is what the node service calls itself."""
        self._agent = agent
        self._node = node

    def create(self, request: CreateVolume, nodes: Sequence[NodeName], *, patience_seconds: float) -> Provisioned:
        """See the port."""
        if nodes and self._node not in nodes:
            if any(volume.id == request.volume_id for volume in self._agent.volumes()):
                raise ConflictError(f"volume {request.volume_id} exists on {self._node}", volume_id=request.volume_id)
            raise InsufficientCapacityError(
                f"{request.volume_id} is wanted on {', '.join(nodes)}; this driver has volumes on {self._node} only"
            )
        return self._provisioned(self._agent.create(request, patience_seconds=patience_seconds))

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Provisioned:
        """See the port."""
        return self._provisioned(self._agent.expand(request, patience_seconds=patience_seconds))

    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Provisioned:
        """See the port."""
        return self._provisioned(self._agent.modify(request, patience_seconds=patience_seconds))

    def delete(self, volume_id: VolumeId, *, patience_seconds: float) -> None:
        """See the port."""
        self._agent.delete(DeleteVolume(volume_id=volume_id), patience_seconds=patience_seconds)

    def get(self, volume_id: VolumeId) -> Provisioned:
        """See the port."""
        return self._seen(self._agent.get(volume_id))

    def volumes(self) -> Sequence[Provisioned]:
        """See the port. Nothing is said to exist before it does, or after it was condemned."""
        return tuple(
            self._seen(volume)
            for volume in self._agent.volumes()
            if volume.state in USABLE and volume.kind is VolumeKind.VOLUME
        )

    def pools(self, node: NodeName | None) -> Sequence[Pool]:
        """See the port."""
        return self._agent.pools() if node in (None, self._node) else ()

    def device_class(self, name: DeviceClassName | None) -> DeviceClass:
        """See the port. A driver with one class needs no default."""
        classes = {each.name: each for each in self._agent.classes()}
        known = ", ".join(sorted(classes)) or "none"
        if name is not None:
            if name not in classes:
                raise UnknownDeviceClassError(f"no device class {name!r} on this node; there are: {known}")
            return classes[name]
        default = [each for each in classes.values() if each.is_default or len(classes) == 1]
        if not default:
            raise InvalidRequestError(f"no device class is named, and none is the default; there are: {known}")
        return default[0]

    def _provisioned(self, done: Done) -> Provisioned:
        if done.volume is None:
            raise VolumeNotReadyError("the volume was removed while it was being made; ask again")
        return self._seen(done.volume)

    def _seen(self, volume: Volume) -> Provisioned:
        if volume.state not in USABLE:
            raise VolumeNotReadyError(f"volume {volume.id} is still {volume.state}", volume_id=volume.id)
        return Provisioned(
            id=volume.id,
            node=self._node,
            device_class=volume.device_class,
            size_bytes=volume.size_bytes,
            wipe=volume.wipe,
            problem=volume.problem,
        )
