"""What each message about snapshots asks for, checked in CSI's order: missing, impossible, unknown."""

from __future__ import annotations

from dataclasses import dataclass

from csi import parameters
from csi.orders import fields
from csi.orders.about import NONE, About
from csi.orders.controller import Page, page
from ullage.model import NodeName, VolumeId
from ullage.names import snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A snapshot that is to be; what is held while it is taken is its own id."""

    volume_id: VolumeId
    source: VolumeId
    nodes: tuple[NodeName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A piece of the list of snapshots: the one of this id, those of this volume, or, where None, any."""

    page: Page
    snapshot_id: VolumeId | None
    source: VolumeId | None
    volume_id: VolumeId = NONE


def take(request: pb.CreateSnapshotRequest) -> Take:
    """Raises InvalidRequestError, NotFoundError (no volume has such an id)."""
    name = fields.named(request.name, "name")
    fields.named(request.source_volume_id, "source_volume_id")
    parameters.check_snapshot_parameters(request.parameters)
    nodes = parameters.nodes(request.accessibility_requirements)
    return Take(
        volume_id=snapshot_id(name), source=fields.known(request.source_volume_id, "source_volume_id"), nodes=nodes
    )


def delete(request: pb.DeleteSnapshotRequest) -> About:
    """Raises InvalidRequestError when there is no id; an impossible one is for the method to see."""
    return About(volume_id=VolumeId(fields.named(request.snapshot_id, "snapshot_id")))


def get(request: pb.GetSnapshotRequest) -> About:
    """Raises InvalidRequestError, NotFoundError."""
    return About(volume_id=fields.snapshot(request.snapshot_id, "snapshot_id"))


def listing(request: pb.ListSnapshotsRequest) -> Listing:
    """Raises InvalidRequestError, InvalidTokenError. Ids that nothing can have are no error: nothing has them."""
    return Listing(
        page=page(request), snapshot_id=_wanted(request, "snapshot_id"), source=_wanted(request, "source_volume_id")
    )


def _wanted(request: pb.ListSnapshotsRequest, field: str) -> VolumeId | None:
    text = getattr(request, field)
    return VolumeId(fields.named(text, field)) if text else None
