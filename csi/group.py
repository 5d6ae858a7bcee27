"""CSI GroupController: snapshots of several volumes of a node, of one moment, that come and go together."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from csi import contents
from csi.calls import Calls, rpc
from csi.orders import group as orders
from csi.orders.about import About, nothing
from ullage.errors import InvalidRequestError, NotFoundError
from ullage.model import GroupId, TakeGroup, VolumeId
from ullage.names import is_group_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.ports import Provisioner, Snapshot
from ullage.quoting import quoted

Kind = pb.GroupControllerServiceCapability.RPC
OFFERED = (Kind.CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT,)


class GroupController(csi_pb2_grpc.GroupControllerServicer):
    """csi.v1.GroupController over a Provisioner."""

    def __init__(self, calls: Calls, provisioner: Provisioner) -> None:
        """`calls` is shared with the controller of the same process."""
        self.calls = calls
        self._volumes = provisioner

    @rpc(nothing)
    def GroupControllerGetCapabilities(  # noqa: D102, N802 - documented in the proto
        self, _order: About, _patience: float
    ) -> pb.GroupControllerGetCapabilitiesResponse:
        return pb.GroupControllerGetCapabilitiesResponse(
            capabilities=[pb.GroupControllerServiceCapability(rpc=Kind(type=each)) for each in OFFERED]
        )

    @rpc(orders.take, is_change=True)
    def CreateVolumeGroupSnapshot(self, order: orders.Take, patience: float) -> pb.CreateVolumeGroupSnapshotResponse:  # noqa: D102, N802
        request = TakeGroup(group_id=order.group, sources=order.sources)
        members = self._volumes.snapshot_group(request, patience_seconds=patience)
        return pb.CreateVolumeGroupSnapshotResponse(group_snapshot=_group(order.group, members))

    @rpc(orders.about, is_change=True)
    def DeleteVolumeGroupSnapshot(self, order: orders.About, patience: float) -> pb.DeleteVolumeGroupSnapshotResponse:  # noqa: D102, N802
        if is_group_id(order.group):  # nothing else can be one: it is as gone as one can be
            members = tuple(VolumeId(each) for each in order.members)
            self._volumes.delete_group(GroupId(order.group), members, patience_seconds=patience)
        return pb.DeleteVolumeGroupSnapshotResponse()

    @rpc(orders.about)
    def GetVolumeGroupSnapshot(self, order: orders.About, _patience: float) -> pb.GetVolumeGroupSnapshotResponse:  # noqa: D102, N802
        members = self._volumes.group(GroupId(order.group)) if is_group_id(order.group) else ()
        if not members:
            raise NotFoundError(f"No group of snapshots has the id {quoted(order.group)}")
        there = {each.id for each in members}
        if set(order.members) != there:
            raise InvalidRequestError(
                f"snapshot_ids are not the members of {order.group}, which are {', '.join(sorted(there))}"
            )
        return pb.GetVolumeGroupSnapshotResponse(group_snapshot=_group(GroupId(order.group), members))


def _group(group: GroupId, members: Sequence[Snapshot]) -> pb.VolumeGroupSnapshot:
    """As ready as the least ready of its members."""
    return pb.VolumeGroupSnapshot(
        group_snapshot_id=group,
        snapshots=[contents.snapshot(each) for each in members],
        creation_time=Timestamp(seconds=min(each.taken_at for each in members)),
        ready_to_use=all(each.is_ready for each in members),
    )
