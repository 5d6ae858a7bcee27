"""What each message asks for, checked in CSI's order: what is missing, what is impossible, what is unknown.

An id that no volume can have is not an error of the caller's: it is a volume that is not there (NOT_FOUND), and a
DeleteVolume of it is done already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from csi import parameters
from csi.capabilities import Capability, capability, together
from csi.fs import kinds
from ullage.errors import GIB, InvalidRequestError, InvalidTokenError, NotFoundError, OutOfRangeError, UnsupportedError
from ullage.model import DeviceClassName, NodeName, Owner, VolumeId, Wipe
from ullage.names import check_volume_id, volume_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quoting import quoted

DEFAULT_SIZE_BYTES = GIB
"""For a caller who does not say how large (none of the sidecars does that)."""
MOST_SIZE_BYTES = 1 << 60
"""An exbibyte: more than any node has."""
MOST_STRING_BYTES = 128
"""Of a name or id (CSI spec, "Size Limits")."""
MOST_PATH_BYTES = 4096
MOST_ENTRIES = 10_000
"""Of one page: together far below the 4 MiB that a Go client receives at once."""
AFTER = "after:"
NONE = VolumeId("")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A volume, and nothing else; or, empty, none."""

    volume_id: VolumeId = NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """A volume that is to be."""

    volume_id: VolumeId
    device_class: DeviceClassName | None
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
    """A piece of the list of volumes, by id."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A volume to be made ready on this node."""

    volume_id: VolumeId
    staging_path: Path
    capability: Capability


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish:
    """A volume to be shown to one Pod."""

    volume_id: VolumeId
    staging_path: Path | None
    target_path: Path
    capability: Capability
    is_read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """A volume at one path."""

    volume_id: VolumeId
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Grow:
    """A volume whose file system is to fill its device, which is to have `size_bytes` at least."""

    volume_id: VolumeId
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A volume, and where it is mounted, if it is."""

    volume_id: VolumeId
    path: Path | None


def nothing(_: object) -> About:
    """What asks for nothing in particular."""
    return About()


def create(request: pb.CreateVolumeRequest) -> Create:
    """Raises InvalidRequestError, UnsupportedError, OutOfRangeError."""
    name = _named(request.name, "name")
    if not request.volume_capabilities:
        raise InvalidRequestError("volume_capabilities is missing: how is the volume to be used?")
    wanted = together(request.volume_capabilities)
    parameters.check_parameters(request.parameters)
    if request.HasField("volume_content_source"):
        raise UnsupportedError("volumes from snapshots and clones are not supported by this version")
    device_class, owner = parameters.device_class_name(request.parameters), parameters.owner(request.parameters)
    wipe = parameters.wipe(request.mutable_parameters)
    nodes = parameters.nodes(request.accessibility_requirements)
    # Last, since what is impossible as it stands comes before what is too large or too small.
    least_bytes = max((kinds.minimum_bytes(each.fs_type) for each in wanted if not each.is_block), default=1)
    size_bytes, limit_bytes = _range(request.capacity_range)
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
        size_bytes=size_bytes,
        limit_bytes=limit_bytes,
        wipe=wipe,
        owner=owner,
        nodes=nodes,
    )


def delete(request: pb.DeleteVolumeRequest) -> About:
    """Raises InvalidRequestError when there is no id; an impossible one is for the method to see."""
    return About(volume_id=VolumeId(_named(request.volume_id, "volume_id")))


def get(request: pb.ControllerGetVolumeRequest | pb.ControllerGetVolumeHealthRequest) -> About:
    """Raises InvalidRequestError, NotFoundError."""
    return About(volume_id=_known(request.volume_id))


def expand(request: pb.ControllerExpandVolumeRequest) -> Expand:
    """Raises InvalidRequestError, NotFoundError."""
    _named(request.volume_id, "volume_id")
    if not request.HasField("capacity_range"):
        raise InvalidRequestError("capacity_range is missing: how large is the volume to be?")
    size_bytes, limit_bytes = _range(request.capacity_range)
    return Expand(
        volume_id=_known(request.volume_id),
        size_bytes=max(1, size_bytes),
        limit_bytes=limit_bytes,
        is_block=request.volume_capability.HasField("block"),
    )


def modify(request: pb.ControllerModifyVolumeRequest) -> Modify:
    """Raises InvalidRequestError, NotFoundError."""
    _named(request.volume_id, "volume_id")
    wipe = parameters.wipe(request.mutable_parameters)
    return Modify(volume_id=_known(request.volume_id), wipe=wipe)


def validate(request: pb.ValidateVolumeCapabilitiesRequest) -> Validate:
    """Raises InvalidRequestError, NotFoundError; what cannot be had is a refusal and no error."""
    _named(request.volume_id, "volume_id")
    if not request.volume_capabilities:
        raise InvalidRequestError("volume_capabilities is missing: what is to be confirmed?")
    device_class, refusal = None, ""
    try:
        together(request.volume_capabilities)
        parameters.check_parameters(request.parameters)
        parameters.wipe(request.mutable_parameters)
        device_class = parameters.device_class_name(request.parameters)
    except (InvalidRequestError, UnsupportedError) as impossible:
        refusal = str(impossible)
    return Validate(
        volume_id=_known(request.volume_id),
        refusal=refusal,
        device_class=device_class,
        asked=pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
            mutable_parameters=request.mutable_parameters,
        ),
    )


def page(request: pb.ListVolumesRequest | pb.ControllerListVolumeHealthRequest) -> Page:
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
    node = NodeName(request.accessible_topology.segments.get(parameters.NODE_KEY, ""))
    device_class, is_possible = None, True
    try:
        together(request.volume_capabilities)
        device_class = parameters.device_class_name(request.parameters)
    except (InvalidRequestError, UnsupportedError):
        is_possible = False
    return Room(
        device_class=device_class,
        node=node if request.HasField("accessible_topology") else None,
        is_possible=is_possible,
    )


def stage(request: pb.NodeStageVolumeRequest) -> Stage:
    """Raises InvalidRequestError, UnsupportedError, NotFoundError."""
    _named(request.volume_id, "volume_id")
    staging_path = _path(request.staging_target_path, "staging_target_path")
    if not request.HasField("volume_capability"):
        raise InvalidRequestError("volume_capability is missing: how is the volume to be used?")
    wanted = capability(request.volume_capability)
    return Stage(volume_id=_known(request.volume_id), staging_path=staging_path, capability=wanted)


def unstage(request: pb.NodeUnstageVolumeRequest) -> At:
    """Raises InvalidRequestError. The volume may be gone: its mount is not."""
    name = _named(request.volume_id, "volume_id")
    return At(volume_id=VolumeId(name), path=_path(request.staging_target_path, "staging_target_path"))


def publish(request: pb.NodePublishVolumeRequest) -> Publish:
    """Raises InvalidRequestError, UnsupportedError, NotFoundError."""
    _named(request.volume_id, "volume_id")
    target_path = _path(request.target_path, "target_path")
    if not request.HasField("volume_capability"):
        raise InvalidRequestError("volume_capability is missing: how is the volume to be used?")
    wanted = capability(request.volume_capability)
    staging_path = _path(request.staging_target_path, "staging_target_path") if request.staging_target_path else None
    return Publish(
        volume_id=_known(request.volume_id),
        staging_path=staging_path,
        target_path=target_path,
        capability=wanted,
        is_read_only=request.readonly or wanted.is_read_only,
    )


def unpublish(request: pb.NodeUnpublishVolumeRequest) -> At:
    """Raises InvalidRequestError. The volume may be gone: its mount is not."""
    name = _named(request.volume_id, "volume_id")
    return At(volume_id=VolumeId(name), path=_path(request.target_path, "target_path"))


def at(request: pb.NodeGetVolumeStatsRequest) -> At:
    """Raises InvalidRequestError, NotFoundError: at a path that cannot be a mount's, there is no volume."""
    return _at(request.volume_id, request.volume_path)


def grow(request: pb.NodeExpandVolumeRequest) -> Grow:
    """Raises InvalidRequestError, OutOfRangeError, NotFoundError. Without a capacity any size will do."""
    _named(request.volume_id, "volume_id")
    size_bytes, _ = _range(request.capacity_range)
    there = _at(request.volume_id, request.volume_path)
    return Grow(volume_id=there.volume_id, path=there.path, size_bytes=size_bytes)


def health(request: pb.NodeGetVolumeHealthRequest) -> Health:
    """Raises InvalidRequestError, NotFoundError."""
    _named(request.volume_id, "volume_id")
    for field in ("volume_publish_path", "staging_target_path"):
        if text := getattr(request, field):
            return Health(volume_id=_known(request.volume_id), path=_path(text, field))
    return Health(volume_id=_known(request.volume_id), path=None)


def token(last: VolumeId) -> str:
    """Where the next page begins."""
    return f"{AFTER}{last}"


def _named(text: str, field: str) -> str:
    if not text:
        raise InvalidRequestError(f"{field} is missing")
    if len(text.encode()) > MOST_STRING_BYTES:
        raise InvalidRequestError(f"{field} has {len(text.encode())} bytes, {MOST_STRING_BYTES} are the most")
    return text


def _known(text: str) -> VolumeId:
    try:
        return check_volume_id(_named(text, "volume_id"))
    except InvalidRequestError as impossible:
        if not text or len(text.encode()) > MOST_STRING_BYTES:
            raise
        raise NotFoundError(f"No volume has the id {quoted(text)}") from impossible


def _at(volume_id: str, volume_path: str) -> At:
    _named(volume_id, "volume_id")
    if not volume_path:
        raise InvalidRequestError("volume_path is missing")
    wanted = _known(volume_id)
    try:
        return At(volume_id=wanted, path=_path(volume_path, "volume_path"))
    except InvalidRequestError as impossible:
        raise NotFoundError(f"{impossible}; {wanted} is not there", volume_id=wanted) from impossible


def _path(text: str, field: str) -> Path:
    if not text:
        raise InvalidRequestError(f"{field} is missing")
    parts: Iterable[str] = text.split("/")
    if not text.startswith("/") or "\0" in text or ".." in parts or len(text.encode()) >= MOST_PATH_BYTES:
        raise InvalidRequestError(f"{field} {quoted(text)} is no absolute path without '..'")
    path = Path(text)
    if not path.name:  # "//" is a root of its own to pathlib
        raise InvalidRequestError(f"{field} is the root")
    return path


def _range(wanted: pb.CapacityRange) -> tuple[int, int]:
    if wanted.required_bytes < 0 or wanted.limit_bytes < 0:
        raise InvalidRequestError(f"A capacity of {wanted.required_bytes} to {wanted.limit_bytes} bytes is impossible")
    if wanted.limit_bytes and wanted.limit_bytes < wanted.required_bytes:
        raise InvalidRequestError(
            f"The limit of {wanted.limit_bytes} bytes is below the {wanted.required_bytes} bytes required"
        )
    if wanted.required_bytes > MOST_SIZE_BYTES:
        raise OutOfRangeError(f"{wanted.required_bytes} bytes are wanted; {MOST_SIZE_BYTES} are the most")
    return wanted.required_bytes, wanted.limit_bytes
