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
    NotFoundError,
    SnapshotOverflowedError,
    UnknownDeviceClassError,
    VolumeNotReadyError,
)
from ullage.model import (
    ChangedBlocks,
    CreateVolume,
    DeleteVolume,
    DeviceClass,
    DeviceClassName,
    Done,
    ExpandVolume,
    GroupId,
    ModifyVolume,
    NodeName,
    Pool,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.names import kind_of
from ullage.ports import Provisioned, Snapshot

USABLE = frozenset({VolumeState.READY, VolumeState.GROWING})
LOST = frozenset({SnapshotOverflowedError.reason})
"""Problems of a snapshot that nobody can mend: it does not hold any more what it was taken for."""


class LocalNode:
    """Implements `ullage.ports.NodeVolumes`."""

    def __init__(self, agent: Agent) -> None:
        """The agent does all of it."""
        self._agent = agent

    def get(self, volume_id: VolumeId) -> Volume:
        """See the port."""
        return _of_kind(self._agent, volume_id, VolumeKind.VOLUME)

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
            if self._found(request.volume_id) is not None:
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
        if self._may_go(volume_id, VolumeKind.VOLUME):
            self._agent.delete(DeleteVolume(volume_id=volume_id), patience_seconds=patience_seconds)

    def get(self, volume_id: VolumeId) -> Provisioned:
        """See the port."""
        return self._seen(_of_kind(self._agent, volume_id, VolumeKind.VOLUME))

    def volumes(self) -> Sequence[Provisioned]:
        """See the port. Nothing is said to exist before it does, or after it was condemned."""
        return tuple(
            self._seen(volume)
            for volume in self._agent.volumes()
            if volume.state in USABLE and volume.kind is VolumeKind.VOLUME
        )

    def snapshot(self, request: TakeSnapshot, nodes: Sequence[NodeName], *, patience_seconds: float) -> Snapshot:
        """See the port."""
        if nodes and self._node not in nodes:
            raise InvalidRequestError(
                f"a snapshot of {request.source} is wanted on {', '.join(nodes)}; it can be on {self._node} only"
            )
        done = self._agent.snapshot(request, patience_seconds=patience_seconds)
        if done.volume is None:
            raise VolumeNotReadyError("the snapshot was removed while it was being taken; ask again")
        return self._taken(done.volume)

    def delete_snapshot(self, snapshot_id: VolumeId, *, patience_seconds: float) -> None:
        """See the port."""
        if not self._may_go(snapshot_id, VolumeKind.SNAPSHOT):
            return
        found = self._found(snapshot_id)
        if found is not None and found.group is not None:
            raise InvalidRequestError(f"{snapshot_id} is of the group {found.group}, and goes with all of it only")
        self._agent.delete(DeleteVolume(volume_id=snapshot_id), patience_seconds=patience_seconds)

    def get_snapshot(self, snapshot_id: VolumeId) -> Snapshot:
        """See the port."""
        return self._taken(_of_kind(self._agent, snapshot_id, VolumeKind.SNAPSHOT))

    def snapshots(self) -> Sequence[Snapshot]:
        """See the port."""
        return tuple(
            self._taken(volume)
            for volume in self._agent.volumes()
            if volume.state is VolumeState.READY and volume.kind is VolumeKind.SNAPSHOT
        )

    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> Sequence[Snapshot]:
        """See the port."""
        members = self._agent.snapshot_group(request, patience_seconds=patience_seconds)
        return tuple(self._taken(volume) for volume in members)

    def delete_group(self, group: GroupId, snapshots: Sequence[VolumeId], *, patience_seconds: float) -> None:
        """See the port."""
        members = {volume.id for volume in self._agent.group(group)}
        if not members <= set(snapshots):
            raise InvalidRequestError(
                f"group {group} has members that are not named: {', '.join(sorted(members - set(snapshots)))}"
            )
        # Of a group that is not there the names do not matter; what is left of it half made goes all the same.
        self._agent.delete_group(group, snapshots if members else (), patience_seconds=patience_seconds)

    def group(self, group: GroupId) -> Sequence[Snapshot]:
        """See the port."""
        return tuple(self._taken(volume) for volume in self._agent.group(group))

    def allocated(self, snapshot_id: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        """See the port."""
        return self._agent.allocated(self.get_snapshot(snapshot_id).id, start_bytes=start_bytes)

    def changed(self, base: VolumeId, target: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        """See the port."""
        of = [self.get_snapshot(each).id for each in (base, target)]
        return self._agent.changed(*of, start_bytes=start_bytes)

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

    def _found(self, volume_id: VolumeId) -> Volume | None:
        """What the agent knows to have this id, if anything."""
        return next((volume for volume in self._agent.volumes() if volume.id == volume_id), None)

    def _may_go(self, volume_id: VolumeId, kind: VolumeKind) -> bool:
        """Whether whoever asks for the end of one of this kind can mean this: by its id, and by what is known of it."""
        found = self._found(volume_id)
        return kind_of(volume_id) is kind and (found is None or found.kind is kind)

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
            source=volume.source,
            problem=volume.problem,
        )

    def _taken(self, volume: Volume) -> Snapshot:
        if volume.state is not VolumeState.READY or volume.source is None:
            raise VolumeNotReadyError(f"snapshot {volume.id} is still {volume.state}", volume_id=volume.id)
        return Snapshot(
            id=volume.id,
            source=volume.source,
            node=self._node,
            size_bytes=volume.size_bytes,
            taken_at=volume.taken_at,
            is_ready=volume.problem is None or volume.problem.reason not in LOST,
            group=volume.group,
            problem=volume.problem,
        )


def _of_kind(agent: Agent, volume_id: VolumeId, kind: VolumeKind) -> Volume:
    """What has this id, if it is of this kind; raises NotFoundError, UnavailableError."""
    found = agent.get(volume_id)
    if found.kind is not kind:
        raise NotFoundError(f"no {kind} has the id {volume_id}; it is a {found.kind}'s", volume_id=volume_id)
    return found
