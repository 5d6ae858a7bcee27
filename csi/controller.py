"""CSI Controller: volumes and snapshots are ordered, grown, changed, given back, listed and counted.

It orders from a `Provisioner` and keeps nothing itself. ControllerPublish is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.wrappers_pb2 import Int64Value

from csi import contents, health, parameters
from csi.calls import Calls, not_offered, rpc
from csi.orders import controller as orders
from csi.orders import snapshots
from csi.orders.about import About, nothing
from ullage.capacity import available_bytes, largest_volume_bytes
from ullage.errors import (
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    UllageError,
    VolumeNotReadyError,
)
from ullage.model import CreateVolume, DeviceClass, ExpandVolume, ModifyVolume, Pool, TakeSnapshot, VolumeKind
from ullage.names import check_volume_id, kind_of
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.ports import Provisioned, Provisioner, Snapshot

Listed = TypeVar("Listed", Provisioned, Snapshot)
Kind = pb.ControllerServiceCapability.RPC
OFFERED = (
    Kind.CREATE_DELETE_VOLUME,
    Kind.LIST_VOLUMES,
    Kind.GET_CAPACITY,
    Kind.CREATE_DELETE_SNAPSHOT,
    Kind.LIST_SNAPSHOTS,
    Kind.CLONE_VOLUME,
    Kind.EXPAND_VOLUME,
    Kind.GET_VOLUME,
    Kind.SINGLE_NODE_MULTI_WRITER,
    Kind.MODIFY_VOLUME,
    Kind.GET_SNAPSHOT,
)
HEALTH = (Kind.GET_VOLUME_HEALTH, Kind.LIST_VOLUME_HEALTH)


class Controller(csi_pb2_grpc.ControllerServicer):
    """csi.v1.Controller over a Provisioner. `has_health` offers CSI 1.13's alpha calls."""

    def __init__(self, calls: Calls, provisioner: Provisioner, *, has_health: bool = False) -> None:
        """`calls` is shared with the node service of the same process: a volume has one change at a time."""
        self.calls = calls
        self._volumes = provisioner
        self._has_health = has_health

    ControllerPublishVolume = ControllerUnpublishVolume = staticmethod(not_offered)

    @rpc(orders.create, is_change=True)
    def CreateVolume(self, order: orders.Create, patience: float) -> pb.CreateVolumeResponse:  # noqa: D102, N802 - documented in the proto
        # A class that is named is looked up for a new volume only: one that has gone since then is no reason to give up
        # a volume that is being made.
        request = CreateVolume(
            volume_id=order.volume_id,
            device_class=order.device_class or self._volumes.device_class(None).name,
            size_bytes=self._size_bytes(order),
            limit_bytes=order.limit_bytes,
            owner=order.owner,
            wipe=order.wipe,
            source=order.source,
        )
        made = self._volumes.create(request, order.nodes, patience_seconds=patience)
        if order.wipe not in (None, made.wipe):  # an earlier try made it, before the claim got another attributes class
            change = ModifyVolume(volume_id=made.id, wipe=order.wipe)
            try:
                made = self._volumes.modify(change, patience_seconds=patience)
            except UllageError as refusal:  # to the caller most refusals would mean that there is no volume
                raise VolumeNotReadyError(
                    f"{made.id} is there, and its wipe policy is not {order.wipe} yet: {refusal}", volume_id=made.id
                ) from refusal
        return pb.CreateVolumeResponse(volume=_volume(made))

    @rpc(orders.delete, is_change=True)
    def DeleteVolume(self, order: About, patience: float) -> pb.DeleteVolumeResponse:  # noqa: D102, N802
        try:
            check_volume_id(order.volume_id)
        except InvalidRequestError:
            return pb.DeleteVolumeResponse()  # no volume can have this id: it is as gone as one can be
        self._volumes.delete(order.volume_id, patience_seconds=patience)
        return pb.DeleteVolumeResponse()

    @rpc(orders.expand, is_change=True)
    def ControllerExpandVolume(self, order: orders.Expand, patience: float) -> pb.ControllerExpandVolumeResponse:  # noqa: D102, N802
        request = ExpandVolume(volume_id=order.volume_id, size_bytes=order.size_bytes, limit_bytes=order.limit_bytes)
        try:
            grown = self._volumes.expand(request, patience_seconds=patience)
        except InsufficientCapacityError as short:
            # The volume cannot go to another node. external-resizer takes RESOURCE_EXHAUSTED for "perhaps in progress",
            # and asks for this size for ever, also when the claim has been lowered since; what is out of range it lets
            # people take back, and asks for now and then.
            raise OutOfRangeError(str(short), **short.facts) from short
        return pb.ControllerExpandVolumeResponse(
            capacity_bytes=grown.size_bytes, node_expansion_required=not order.is_block
        )

    @rpc(orders.modify, is_change=True)
    def ControllerModifyVolume(self, order: orders.Modify, patience: float) -> pb.ControllerModifyVolumeResponse:  # noqa: D102, N802
        volume = self._volumes.get(order.volume_id)
        request = ModifyVolume(volume_id=order.volume_id, wipe=order.wipe or volume.wipe)
        self._volumes.modify(request, patience_seconds=patience)
        return pb.ControllerModifyVolumeResponse()

    @rpc(orders.validate)
    def ValidateVolumeCapabilities(  # noqa: D102, N802
        self, order: orders.Validate, _patience: float
    ) -> pb.ValidateVolumeCapabilitiesResponse:
        volume = self._volumes.get(order.volume_id)
        refusal = order.refusal
        if order.device_class not in (None, volume.device_class):
            refusal = f"the device class of {volume.id} is {volume.device_class}, not {order.device_class}"
        if refusal:
            return pb.ValidateVolumeCapabilitiesResponse(message=refusal)
        return pb.ValidateVolumeCapabilitiesResponse(confirmed=order.asked)

    @rpc(orders.page)
    def ListVolumes(self, order: orders.Page, _patience: float) -> pb.ListVolumesResponse:  # noqa: D102, N802
        page, token = _page(self._volumes.volumes(), order)
        entries = [pb.ListVolumesResponse.Entry(volume=_volume(each)) for each in page]
        return pb.ListVolumesResponse(entries=entries, next_token=token)

    @rpc(orders.get)
    def ControllerGetVolume(self, order: About, _patience: float) -> pb.ControllerGetVolumeResponse:  # noqa: D102, N802
        return pb.ControllerGetVolumeResponse(
            volume=_volume(self._volumes.get(order.volume_id)),
            status=pb.ControllerGetVolumeResponse.VolumeStatus(),
        )

    @rpc(snapshots.take, is_change=True)
    def CreateSnapshot(self, order: snapshots.Take, patience: float) -> pb.CreateSnapshotResponse:  # noqa: D102, N802
        request = TakeSnapshot(snapshot_id=order.volume_id, source=order.source)
        taken = self._volumes.snapshot(request, order.nodes, patience_seconds=patience)
        return pb.CreateSnapshotResponse(snapshot=contents.snapshot(taken))

    @rpc(snapshots.delete, is_change=True)
    def DeleteSnapshot(self, order: About, patience: float) -> pb.DeleteSnapshotResponse:  # noqa: D102, N802
        if kind_of(order.volume_id) is VolumeKind.SNAPSHOT:  # nothing else can be one: it is as gone as one can be
            self._volumes.delete_snapshot(order.volume_id, patience_seconds=patience)
        return pb.DeleteSnapshotResponse()

    @rpc(snapshots.listing)
    def ListSnapshots(self, order: snapshots.Listing, _patience: float) -> pb.ListSnapshotsResponse:  # noqa: D102, N802
        found = [each for each in self._snapshots(order) if order.source in (None, each.source)]
        page, token = _page(found, order.page)
        entries = [pb.ListSnapshotsResponse.Entry(snapshot=contents.snapshot(each)) for each in page]
        return pb.ListSnapshotsResponse(entries=entries, next_token=token)

    @rpc(snapshots.get)
    def GetSnapshot(self, order: About, _patience: float) -> pb.GetSnapshotResponse:  # noqa: D102, N802
        return pb.GetSnapshotResponse(snapshot=contents.snapshot(self._volumes.get_snapshot(order.volume_id)))

    @rpc(orders.room)
    def GetCapacity(self, order: orders.Room, _patience: float) -> pb.GetCapacityResponse:  # noqa: D102, N802
        try:
            device_class = self._volumes.device_class(order.device_class)
        except InvalidRequestError:
            return _room(())  # of a class that is not here there is nothing; an error would only be asked again
        pools = self._volumes.pools(order.node) if order.is_possible else ()
        return _room([(pool, device_class) for pool in pools if device_class.name in pool.classes])

    @rpc(orders.get)
    def ControllerGetVolumeHealth(self, order: About, _patience: float) -> pb.ControllerGetVolumeHealthResponse:  # noqa: D102, N802
        self._require_health()
        volume = self._volumes.get(order.volume_id)
        return pb.ControllerGetVolumeHealthResponse(volume_health=health.of_volume(volume.id, volume.problem))

    @rpc(orders.page)
    def ControllerListVolumeHealth(self, order: orders.Page, _patience: float) -> pb.ControllerListVolumeHealthResponse:  # noqa: D102, N802
        self._require_health()
        ill = [volume for volume in self._volumes.volumes() if volume.problem is not None]
        page, token = _page(ill, order)
        return pb.ControllerListVolumeHealthResponse(
            entries=[health.of_volume(each.id, each.problem) for each in page], next_token=token
        )

    @rpc(nothing)
    def ControllerGetCapabilities(self, _order: About, _patience: float) -> pb.ControllerGetCapabilitiesResponse:  # noqa: D102, N802
        offered = (*OFFERED, *(HEALTH if self._has_health else ()))
        return pb.ControllerGetCapabilitiesResponse(
            capabilities=[pb.ControllerServiceCapability(rpc=Kind(type=each)) for each in offered]
        )

    def _size_bytes(self, order: orders.Create) -> int:
        """What is asked for, or else what the source has; raises OutOfRangeError, NotFoundError.

        A copy that is there already may have outlived its source.
        """
        if order.size_bytes or order.source is None:
            return order.size_bytes
        try:
            if kind_of(order.source) is VolumeKind.SNAPSHOT:
                size_bytes = self._volumes.get_snapshot(order.source).size_bytes
            else:
                size_bytes = self._volumes.get(order.source).size_bytes
        except NotFoundError:
            made = {each.id: each.size_bytes for each in self._volumes.volumes()}
            if order.volume_id not in made:
                raise
            size_bytes = made[order.volume_id]
        if order.limit_bytes and size_bytes > order.limit_bytes:
            raise OutOfRangeError(
                f"{order.source} has {size_bytes} bytes, the limit of {order.limit_bytes} is below that",
                size_bytes=size_bytes,
                limit_bytes=order.limit_bytes,
            )
        return size_bytes

    def _snapshots(self, order: snapshots.Listing) -> Sequence[Snapshot]:
        """The one that is asked for, if it is there, or all; one that may be out of sight is not said to be gone."""
        if order.snapshot_id is None:
            return self._volumes.snapshots()
        if kind_of(order.snapshot_id) is not VolumeKind.SNAPSHOT:
            return ()
        try:
            return (self._volumes.get_snapshot(order.snapshot_id),)
        except NotFoundError:
            return ()

    def _require_health(self) -> None:
        health.require(is_offered=self._has_health)


def _volume(volume: Provisioned) -> pb.Volume:
    return pb.Volume(
        volume_id=volume.id,
        capacity_bytes=volume.size_bytes,
        content_source=contents.source(volume.source),
        accessible_topology=[parameters.topology(volume.node)],
    )


def _page(found: Sequence[Listed], order: orders.Page) -> tuple[Sequence[Listed], str]:
    """Those after the token, and the next token. What comes and goes between two pages moves nothing else."""
    left = [each for each in sorted(found, key=lambda each: each.id) if each.id > order.after]
    page = left[: order.most]
    return page, orders.token(page[-1].id) if len(left) > len(page) else ""


def _room(pools: Sequence[tuple[Pool, DeviceClass]]) -> pb.GetCapacityResponse:
    """The sum is what a spreading scheduler compares nodes by; the maximum is what a volume must fit."""
    largest = max((largest_volume_bytes(pool, each.layout) for pool, each in pools), default=0)
    return pb.GetCapacityResponse(
        available_capacity=sum(available_bytes(pool, each.layout) for pool, each in pools),
        maximum_volume_size=Int64Value(value=largest),
    )
