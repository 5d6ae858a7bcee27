"""Between the agent's nouns and its messages: nothing but copying."""

from __future__ import annotations

from fractions import Fraction

from ullage.capacity import largest_volume_bytes
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClassName,
    ExpandVolume,
    Layout,
    Owner,
    Pool,
    PoolName,
    Problem,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.pb.agent.v1 import agent_pb2 as pb

STATES = {
    VolumeState.CREATING: pb.VOLUME_STATE_CREATING,
    VolumeState.FILLING: pb.VOLUME_STATE_FILLING,
    VolumeState.READY: pb.VOLUME_STATE_READY,
    VolumeState.GROWING: pb.VOLUME_STATE_GROWING,
    VolumeState.DELETING: pb.VOLUME_STATE_DELETING,
}


def create_request(message: pb.CreateVolumeRequest) -> CreateVolume:
    """The request as asked; the agent checks it."""
    return CreateVolume(
        volume_id=VolumeId(message.volume_id),
        device_class=DeviceClassName(message.device_class),
        size_bytes=message.size_bytes,
        limit_bytes=message.limit_bytes,
        pool=PoolName(message.pool) if message.pool else None,
        owner=Owner(
            pv_name=message.owner.pv_name,
            claim_namespace=message.owner.claim_namespace,
            claim_name=message.owner.claim_name,
            claim_uid=message.owner.claim_uid,
        ),
        source=VolumeId(message.source_volume_id) if message.source_volume_id else None,
    )


def snapshot_request(message: pb.CreateSnapshotRequest) -> TakeSnapshot:
    """The request as asked; the agent checks it."""
    return TakeSnapshot(snapshot_id=VolumeId(message.snapshot_id), source=VolumeId(message.source_volume_id))


def expand_request(message: pb.ExpandVolumeRequest) -> ExpandVolume:
    """The request as asked; the agent checks it."""
    return ExpandVolume(
        volume_id=VolumeId(message.volume_id), size_bytes=message.size_bytes, limit_bytes=message.limit_bytes
    )


def delete_request(message: pb.DeleteVolumeRequest) -> DeleteVolume:
    """The request as asked; the agent checks it."""
    return DeleteVolume(volume_id=VolumeId(message.volume_id), pool=PoolName(message.pool) if message.pool else None)


def volume_message(volume: Volume) -> pb.Volume:
    """A volume for the wire."""
    return pb.Volume(
        volume_id=volume.id,
        device_class=volume.device_class,
        pool=volume.pool,
        size_bytes=volume.size_bytes,
        state=STATES[volume.state],
        device_path=volume.device_path,
        device_major=volume.device_major,
        device_minor=volume.device_minor,
        owner=pb.Owner(
            pv_name=volume.owner.pv_name,
            claim_namespace=volume.owner.claim_namespace,
            claim_name=volume.owner.claim_name,
            claim_uid=volume.owner.claim_uid,
        ),
        problem=_problem(volume.problem),
        is_open=volume.is_open,
        is_snapshot=volume.kind is not VolumeKind.VOLUME,
        source_volume_id=volume.source or "",
        taken_at=volume.taken_at,
        group_id=volume.group or "",
        filled_bytes=volume.filled_bytes,
    )


def pool_message(pool: Pool) -> pb.Pool:
    """A pool for the wire."""
    thin = pool.thin
    return pb.Pool(
        name=pool.name,
        type=pool.type.value,
        device_classes=pool.classes,
        total_bytes=pool.total_bytes,
        free_bytes=pool.free_bytes,
        reserve_bytes=pool.reserve_bytes,
        largest_volume_bytes=largest_volume_bytes(pool, Layout()),
        extent_bytes=pool.extent_bytes,
        physical_volumes=[
            pb.PhysicalVolume(name=each.name, free_bytes=each.free_bytes, scattered_bytes=each.scattered_bytes)
            for each in pool.physical_volumes
        ],
        thin=pb.ThinUsage(
            virtual_bytes=thin.virtual_bytes,
            data_percent=thin.data_percent,
            metadata_percent=thin.metadata_percent,
            overprovision_ratio=_decimal(thin.overprovision_ratio),
        )
        if thin is not None
        else None,
        disks=[pb.Disk(name=each.name, size_bytes=each.size_bytes) for each in pool.disks],
        problem=_problem(pool.problem),
        exists=pool.exists,
    )


def _problem(problem: Problem | None) -> pb.Problem | None:
    return pb.Problem(reason=problem.reason, message=problem.message) if problem is not None else None


def _decimal(ratio: Fraction) -> str:
    """Exact: the configuration only takes decimal ratios."""
    digits = 0
    while (ratio * 10**digits).denominator != 1:
        digits += 1
    whole = str(int(ratio * 10**digits)).rjust(digits + 1, "0")
    return f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole
