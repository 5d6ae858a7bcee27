"""Snapshots, and what volumes began as, in CSI's words."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from csi import parameters
from ullage.model import VolumeId, VolumeKind
from ullage.names import kind_of
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.ports import Snapshot


def snapshot(taken: Snapshot) -> pb.Snapshot:
    """All that is known of a snapshot."""
    return pb.Snapshot(
        size_bytes=taken.size_bytes,
        snapshot_id=taken.id,
        source_volume_id=taken.source,
        creation_time=Timestamp(seconds=taken.taken_at),
        ready_to_use=taken.is_ready,
        group_snapshot_id=taken.group or "",
        accessible_topology=[parameters.topology(taken.node)],
    )


def source(source_id: VolumeId | None) -> pb.VolumeContentSource | None:
    """What a volume began as. external-provisioner deletes a volume again that does not say it."""
    if source_id is None:
        return None
    if kind_of(source_id) is VolumeKind.SNAPSHOT:
        return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=source_id))
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=source_id))
