"""What each message to the controller asks for, checked in CSI's order: missing, impossible, unknown.

A DeleteVolume of an id that no volume can have is done already.
"""

from __future__ import annotations

from dataclasses import dataclass

from csi import parameters
from csi.capabilities import together
from csi.fs import kinds
from csi.orders import fields
from csi.orders.about import NONE, About
from ullage import storage_classes
from ullage.errors import (
    GIB,
    InvalidRequestError,
    InvalidTokenError,
    OutOfRangeError,
    UnsupportedError,
)
from ullage.model import DeviceClassName, NodeName, Owner, VolumeId, Wipe
from ullage.names import volume_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quoting import quoted

DEFAULT_SIZE_BYTES = GIB
"""For a caller who says neither how large nor what it begins as (none of the sidecars does that)."""
MOST_ENTRIES = 10_000
"""Of one page: together far below the 4 MiB that a Go client receives at once."""
AFTER = "after:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """A volume that is to be; `size_bytes` is 0 when it is to be as large as its source."""

    volume_id: VolumeId
    device_class: DeviceClassName | None
    source: VolumeId | None
    size_bytes: int
    limit_bytes: int
    wipe: Wipe | None
    owner: Owner
    nodes: tuple[NodeName, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expand:
    """A volume that is to be larger."""

    volume_id: VolumeId
    size_bytes: int
    limit_bytes: int
    is_block: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Modify:
    """A volume that is to have another policy; None: nothing was named."""

    volume_id: VolumeId
    wipe: Wipe | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validate:
    """Whether a volume can be used so. `refusal` is why none can; `asked` is what is confirmed otherwise."""

    volume_id: VolumeId
    refusal: str
    device_class: DeviceClassName | None
    asked: pb.ValidateVolumeCapabilitiesResponse.Confirmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A piece of a list, by id."""

    after: str
    most: int
    volume_id: VolumeId = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much more could be had of a class, on a node (None: on all of them). `is_possible`: such a thing at all."""

    device_class: DeviceClassName | None
    node: NodeName | None
    is_possible: bool
    volume_id: VolumeId = NONE


def create(request: pb.CreateVolumeRequest) -> Create:
    """Raises InvalidRequestError, UnsupportedError, OutOfRangeError, NotFoundError (no source has such an id)."""
    name = fields.named(request.name, "name")
    if not request.volume_capabilities:
        raise InvalidRequestError("volume_capabilities is missing: how is the volume to be used?")
    wanted = together(request.volume_capabilities)
    parameters.check_parameters(request.parameters)
    device_class, owner = storage_classes.device_class_name(request.parameters), parameters.owner(request.parameters)
    wipe = parameters.wipe(request.mutable_parameters)
    nodes = parameters.nodes(request.accessibility_requirements)
    # Last, since what is impossible as it stands comes before what is too large or too small.
    least_bytes = max((kinds.minimum_bytes(each.fs_type) for each in wanted if not each.is_block), default=1)
    size_bytes, limit_bytes = fields.size_range(request.capacity_range)
    source = _source(request)
    if size_bytes or source is None:
        size_bytes = max(size_bytes or min(DEFAULT_SIZE_BYTES, limit_bytes or DEFAULT_SIZE_BYTES), least_bytes)
    if limit_bytes and size_bytes > limit_bytes:
        raise OutOfRangeError(
            f"The file system needs {least_bytes} bytes at least, the limit is {limit_bytes}",
            wanted_bytes=least_bytes,
            limit_bytes=limit_bytes,
        )
    return Create(
        volume_id=volume_id(name),
        device_class=device_class,
        source=source,
        size_bytes=size_bytes,
        limit_bytes=limit_bytes,
        wipe=wipe,
        owner=owner,
        nodes=nodes,
    )


def delete(request: pb.DeleteVolumeRequest) -> About:
    """Raises InvalidRequestError when there is no id; an impossible one is for the method to see."""
    return About(volume_id=VolumeId(fields.named(request.volume_id, "volume_id")))


def get(request: pb.ControllerGetVolumeRequest | pb.ControllerGetVolumeHealthRequest) -> About:
    """Raises InvalidRequestError, NotFoundError."""
    return About(volume_id=fields.known(request.volume_id))


def expand(request: pb.ControllerExpandVolumeRequest) -> Expand:
    """Raises InvalidRequestError, NotFoundError."""
    fields.named(request.volume_id, "volume_id")
    if not request.HasField("capacity_range"):
        raise InvalidRequestError("capacity_range is missing: how large is the volume to be?")
    size_bytes, limit_bytes = fields.size_range(request.capacity_range)
    return Expand(
        volume_id=fields.known(request.volume_id),
        size_bytes=max(1, size_bytes),
        limit_bytes=limit_bytes,
        is_block=request.volume_capability.HasField("block"),
    )


def modify(request: pb.ControllerModifyVolumeRequest) -> Modify:
    """Raises InvalidRequestError, NotFoundError."""
    fields.named(request.volume_id, "volume_id")
    wipe = parameters.wipe(request.mutable_parameters)
    return Modify(volume_id=fields.known(request.volume_id), wipe=wipe)


def validate(request: pb.ValidateVolumeCapabilitiesRequest) -> Validate:
    """Raises InvalidRequestError, NotFoundError; what cannot be had is a refusal and no error."""
    fields.named(request.volume_id, "volume_id")
    if not request.volume_capabilities:
        raise InvalidRequestError("volume_capabilities is missing: what is to be confirmed?")
    device_class, refusal = None, ""
    try:
        together(request.volume_capabilities)
        parameters.check_parameters(request.parameters)
        parameters.wipe(request.mutable_parameters)
        device_class = storage_classes.device_class_name(request.parameters)
    except (InvalidRequestError, UnsupportedError) as impossible:
        refusal = str(impossible)
    return Validate(
        volume_id=fields.known(request.volume_id),
        refusal=refusal,
        device_class=device_class,
        asked=pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            mutable_parameters=request.mutable_parameters,
        ),
    )


def page(request: pb.ListVolumesRequest | pb.ControllerListVolumeHealthRequest | pb.ListSnapshotsRequest) -> Page:
    """Raises InvalidRequestError, InvalidTokenError."""
    if request.max_entries < 0:
        raise InvalidRequestError(f"max_entries is {request.max_entries}; it is 0 for no limit, or positive")
    token = request.starting_token
    if token and not token.startswith(AFTER):
        raise InvalidTokenError(f"{quoted(token)} is no token of ours; begin without one")
    return Page(after=token.removeprefix(AFTER), most=min(request.max_entries or MOST_ENTRIES, MOST_ENTRIES))


def room(request: pb.GetCapacityRequest) -> Room:
    """Of what cannot be there is nothing, and no error: that would only be asked again.

    Called with a StorageClass's parameters as they are, and often without any.
    """
    node = NodeName(request.accessible_topology.segments.get(storage_classes.NODE_KEY, ""))
    device_class, is_possible = None, True
    try:
        together(request.volume_capabilities)
        device_class = storage_classes.device_class_name(request.parameters)
    except (InvalidRequestError, UnsupportedError):
        is_possible = False
    return Room(
        device_class=device_class,
        node=node if request.HasField("accessible_topology") else None,
        is_possible=is_possible,
    )


def _source(request: pb.CreateVolumeRequest) -> VolumeId | None:
    """What the volume is to begin as; an id tells which of the two it is of."""
    if not request.HasField("volume_content_source"):
        return None
    source = request.volume_content_source
    if source.HasField("snapshot"):
        return fields.snapshot(source.snapshot.snapshot_id, "volume_content_source.snapshot.snapshot_id")
    if source.HasField("volume"):
        return fields.known(source.volume.volume_id, "volume_content_source.volume.volume_id")
    raise InvalidRequestError("volume_content_source is neither a snapshot nor a volume")


def token(last: VolumeId) -> str:
    """Where the next page begins."""
    return f"{AFTER}{last}"
