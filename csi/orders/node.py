"""What each message to the node asks for, checked in CSI's order: missing, impossible, unknown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from csi.capabilities import Capability, capability
from csi.orders import fields
from ullage.errors import InvalidRequestError, NotFoundError
from ullage.model import VolumeId
from ullage.pb.csi.v1 import csi_pb2 as pb


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


def stage(request: pb.NodeStageVolumeRequest) -> Stage:
    """Raises InvalidRequestError, UnsupportedError, NotFoundError."""
    fields.named(request.volume_id, "volume_id")
    staging_path = fields.path(request.staging_target_path, "staging_target_path")
    if not request.HasField("volume_capability"):
        raise InvalidRequestError("volume_capability is missing: how is the volume to be used?")
    wanted = capability(request.volume_capability)
    return Stage(volume_id=fields.known(request.volume_id), staging_path=staging_path, capability=wanted)


def unstage(request: pb.NodeUnstageVolumeRequest) -> At:
    """Raises InvalidRequestError. The volume may be gone: its mount is not."""
    name = fields.named(request.volume_id, "volume_id")
    return At(volume_id=VolumeId(name), path=fields.path(request.staging_target_path, "staging_target_path"))


def publish(request: pb.NodePublishVolumeRequest) -> Publish:
    """Raises InvalidRequestError, UnsupportedError, NotFoundError."""
    fields.named(request.volume_id, "volume_id")
    target_path = fields.path(request.target_path, "target_path")
    if not request.HasField("volume_capability"):
        raise InvalidRequestError("volume_capability is missing: how is the volume to be used?")
    wanted = capability(request.volume_capability)
    staging_path = (
        fields.path(request.staging_target_path, "staging_target_path") if request.staging_target_path else None
    )
    return Publish(
        volume_id=fields.known(request.volume_id),
        staging_path=staging_path,
        target_path=target_path,
        capability=wanted,
        is_read_only=request.readonly or wanted.is_read_only,
    )


def unpublish(request: pb.NodeUnpublishVolumeRequest) -> At:
    """Raises InvalidRequestError. The volume may be gone: its mount is not."""
    name = fields.named(request.volume_id, "volume_id")
    return At(volume_id=VolumeId(name), path=fields.path(request.target_path, "target_path"))


def at(request: pb.NodeGetVolumeStatsRequest) -> At:
    """Raises InvalidRequestError, NotFoundError: at a path that cannot be a mount's, there is no volume."""
    return _at(request.volume_id, request.volume_path)


def grow(request: pb.NodeExpandVolumeRequest) -> Grow:
    """Raises InvalidRequestError, OutOfRangeError, NotFoundError. Without a capacity any size will do."""
    fields.named(request.volume_id, "volume_id")
    size_bytes, _ = fields.size_range(request.capacity_range)
    there = _at(request.volume_id, request.volume_path)
    return Grow(volume_id=there.volume_id, path=there.path, size_bytes=size_bytes)


def health(request: pb.NodeGetVolumeHealthRequest) -> Health:
    """Raises InvalidRequestError, NotFoundError."""
    fields.named(request.volume_id, "volume_id")
    for field in ("volume_publish_path", "staging_target_path"):
        if text := getattr(request, field):
            return Health(volume_id=fields.known(request.volume_id), path=fields.path(text, field))
    return Health(volume_id=fields.known(request.volume_id), path=None)


def _at(volume_id: str, volume_path: str) -> At:
    fields.named(volume_id, "volume_id")
    if not volume_path:
        raise InvalidRequestError("volume_path is missing")
    wanted = fields.known(volume_id)
    try:
        return At(volume_id=wanted, path=fields.path(volume_path, "volume_path"))
    except InvalidRequestError as impossible:
        raise NotFoundError(f"{impossible}; {wanted} is not there", volume_id=wanted) from impossible
