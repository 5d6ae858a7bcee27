"""CSI Node: a volume is made ready, shown to Pods, measured, grown, and taken away again.

The device is the agent's affair, mounts and file systems are `csi.fs`'s; here is only who asks for what. Whatever takes
away (unstage, unpublish) works without asking the agent: the mount is there even when the volume group is not. Stats
answer from the kernel alone.
"""

from __future__ import annotations

from csi import health, parameters
from csi.calls import Calls, rpc
from csi.fs.volumes import BlockStats, FileSystems, StageRequest
from csi.orders import node as orders
from csi.orders.about import About, nothing
from ullage.errors import NotStagedError, OutOfRangeError, UnavailableError, VolumeNotReadyError
from ullage.model import NodeName, Problem, Volume, VolumeId, VolumeState
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.ports import NodeVolumes

Kind = pb.NodeServiceCapability.RPC
OFFERED = (Kind.STAGE_UNSTAGE_VOLUME, Kind.GET_VOLUME_STATS, Kind.EXPAND_VOLUME, Kind.SINGLE_NODE_MULTI_WRITER)
HEALTH = (Kind.GET_VOLUME_HEALTH, Kind.GET_STORAGE_HEALTH)
Usage = pb.VolumeUsage


class Node(csi_pb2_grpc.NodeServicer):
    """csi.v1.Node of one node. `has_health` offers CSI 1.13's alpha calls."""

    def __init__(
        self, calls: Calls, volumes: NodeVolumes, file_systems: FileSystems, name: NodeName, *, has_health: bool = False
    ) -> None:
        """`name` is the node's, for ever: it is the value of the topology key."""
        self.calls = calls
        self._volumes = volumes
        self._file_systems = file_systems
        self._name = name
        self._has_health = has_health

    @rpc(orders.stage, is_change=True)
    def NodeStageVolume(self, order: orders.Stage, _patience: float) -> pb.NodeStageVolumeResponse:  # noqa: D102, N802 - documented in the proto
        volume = self._settled(order.volume_id)
        wanted = order.capability
        if wanted.is_block:
            self._file_systems.stage_block(order.staging_path)
        else:
            request = StageRequest(
                device_path=volume.device_path,
                fs_type=wanted.fs_type,
                mount_flags=wanted.mount_flags,
                mkfs_options=self._volumes.mkfs_options(volume.device_class, wanted.fs_type),
                is_read_only=wanted.is_read_only,
                copy_id=volume.id if volume.source else "",
            )
            self._file_systems.stage(request, order.staging_path)
        return pb.NodeStageVolumeResponse()

    @rpc(orders.unstage, is_change=True)
    def NodeUnstageVolume(self, order: orders.At, _patience: float) -> pb.NodeUnstageVolumeResponse:  # noqa: D102, N802
        self._file_systems.unstage(order.path)
        return pb.NodeUnstageVolumeResponse()

    @rpc(orders.publish, is_change=True)
    def NodePublishVolume(self, order: orders.Publish, _patience: float) -> pb.NodePublishVolumeResponse:  # noqa: D102, N802
        if order.staging_path is None:
            raise NotStagedError("staging_target_path is missing; NodeStageVolume comes first")
        wanted = order.capability
        if wanted.is_block:
            volume = self._settled(order.volume_id)
            self._file_systems.publish_block(
                volume.device_path,
                order.target_path,
                is_read_only=order.is_read_only,
                is_shared=wanted.is_shared,
            )
        else:
            volume = self._usable(order.volume_id)
            self._file_systems.publish(
                volume.device_path,
                order.staging_path,
                order.target_path,
                mount_flags=wanted.mount_flags,
                is_read_only=order.is_read_only,
                is_shared=wanted.is_shared,
            )
        return pb.NodePublishVolumeResponse()

    @rpc(orders.unpublish, is_change=True)
    def NodeUnpublishVolume(self, order: orders.At, _patience: float) -> pb.NodeUnpublishVolumeResponse:  # noqa: D102, N802
        self._file_systems.unpublish(order.path)
        return pb.NodeUnpublishVolumeResponse()

    @rpc(orders.at)
    def NodeGetVolumeStats(self, order: orders.At, _patience: float) -> pb.NodeGetVolumeStatsResponse:  # noqa: D102, N802
        volume = self._volumes.get(order.volume_id)
        stats = self._file_systems.stats(volume.device_path, order.path)
        if isinstance(stats, BlockStats):
            return pb.NodeGetVolumeStatsResponse(usage=[Usage(unit=Usage.BYTES, total=stats.total_bytes)])
        return pb.NodeGetVolumeStatsResponse(
            usage=[
                Usage(
                    unit=Usage.BYTES,
                    total=stats.total_bytes,
                    used=stats.used_bytes,
                    available=stats.available_bytes,
                ),
                Usage(
                    unit=Usage.INODES,
                    total=stats.total_inodes,
                    used=stats.used_inodes,
                    available=stats.available_inodes,
                ),
            ]
        )

    @rpc(orders.grow, is_change=True)
    def NodeExpandVolume(self, order: orders.Grow, _patience: float) -> pb.NodeExpandVolumeResponse:  # noqa: D102, N802
        volume = self._settled(order.volume_id)
        if volume.size_bytes < order.size_bytes:
            raise OutOfRangeError(
                f"{volume.id} has {volume.size_bytes} bytes and not {order.size_bytes}: ControllerExpandVolume first",
                volume_id=volume.id,
            )
        return pb.NodeExpandVolumeResponse(capacity_bytes=self._file_systems.expand(order.path, volume.device_path))

    @rpc(nothing)
    def NodeGetInfo(self, _order: About, _patience: float) -> pb.NodeGetInfoResponse:  # noqa: D102, N802
        return pb.NodeGetInfoResponse(node_id=self._name, accessible_topology=parameters.topology(self._name))

    @rpc(orders.health)
    def NodeGetVolumeHealth(self, order: orders.Health, _patience: float) -> pb.NodeGetVolumeHealthResponse:  # noqa: D102, N802
        health.require(is_offered=self._has_health)
        volume = self._volumes.get(order.volume_id)
        return pb.NodeGetVolumeHealthResponse(
            volume_health=health.of_volume(volume.id, volume.problem, self._problem(volume, order))
        )

    @rpc(nothing)
    def NodeGetStorageHealth(self, _order: About, _patience: float) -> pb.NodeGetStorageHealthResponse:  # noqa: D102, N802
        health.require(is_offered=self._has_health)
        return health.of_pools(self._volumes.pools())

    @rpc(nothing)
    def NodeGetCapabilities(self, _order: About, _patience: float) -> pb.NodeGetCapabilitiesResponse:  # noqa: D102, N802
        offered = (*OFFERED, *(HEALTH if self._has_health else ()))
        return pb.NodeGetCapabilitiesResponse(
            capabilities=[pb.NodeServiceCapability(rpc=Kind(type=each)) for each in offered]
        )

    def _problem(self, volume: Volume, order: orders.Health) -> Problem | None:
        return self._file_systems.health(volume.device_path, order.path) if order.path else None

    def _settled(self, volume_id: VolumeId) -> Volume:
        """A usable volume, all of whose device may be used.

        While a volume grows, the agent wipes the new part: a file system made or grown meanwhile would go with it.
        """
        volume = self._usable(volume_id)
        if volume.state is VolumeState.GROWING:
            raise VolumeNotReadyError(f"volume {volume.id} is still growing; ask again", volume_id=volume.id)
        return volume

    def _usable(self, volume_id: VolumeId) -> Volume:
        """The volume with its device there; raises NotFoundError, VolumeNotReadyError, UnavailableError."""
        volume = self._volumes.get(volume_id)
        if volume.state in (VolumeState.CREATING, VolumeState.FILLING, VolumeState.DELETING):
            raise VolumeNotReadyError(f"volume {volume.id} is still {volume.state}", volume_id=volume.id)
        if not volume.is_active:
            raise UnavailableError(f"volume {volume.id} has no device: {volume.device_path} is not active")
        return volume
