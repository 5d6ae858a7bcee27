"""What each message about blocks of snapshots asks for, checked in CSI's order: missing, impossible, unknown."""

from __future__ import annotations

from dataclasses import dataclass

from csi.orders import fields
from ullage.errors import InvalidRequestError, OutOfRangeError
from ullage.model import VolumeId
from ullage.pb.csi.v1 import csi_pb2 as pb

DEFAULT_RESULTS = 512
"""Ranges in one message, when the caller does not say how many."""
MOST_RESULTS = 8192
"""Together with their numbers some 200 KiB: far below the 4 MiB that a Go client receives at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocated:
    """Where a snapshot may be anything but zero, from `start_bytes` on."""

    volume_id: VolumeId
    start_bytes: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """Where a snapshot may differ from an earlier one, from `start_bytes` on."""

    base: VolumeId
    volume_id: VolumeId
    start_bytes: int
    most: int


def allocated(request: pb.GetMetadataAllocatedRequest) -> Allocated:
    """Raises InvalidRequestError, OutOfRangeError, NotFoundError."""
    fields.named(request.snapshot_id, "snapshot_id")
    most, start_bytes = _most(request.max_results), _start_bytes(request.starting_offset)
    return Allocated(volume_id=fields.snapshot(request.snapshot_id, "snapshot_id"), start_bytes=start_bytes, most=most)


def delta(request: pb.GetMetadataDeltaRequest) -> Delta:
    """Raises InvalidRequestError, OutOfRangeError, NotFoundError."""
    fields.named(request.base_snapshot_id, "base_snapshot_id")
    fields.named(request.target_snapshot_id, "target_snapshot_id")
    most, start_bytes = _most(request.max_results), _start_bytes(request.starting_offset)
    return Delta(
        base=fields.snapshot(request.base_snapshot_id, "base_snapshot_id"),
        volume_id=fields.snapshot(request.target_snapshot_id, "target_snapshot_id"),
        start_bytes=start_bytes,
        most=most,
    )


def _most(max_results: int) -> int:
    if max_results < 0:
        raise InvalidRequestError(f"max_results is {max_results}; it is 0 for as many as we like, or positive")
    return min(max_results or DEFAULT_RESULTS, MOST_RESULTS)


def _start_bytes(starting_offset: int) -> int:
    """What lies behind the end only the volume's size can tell."""
    if starting_offset < 0:
        raise OutOfRangeError(f"starting_offset is {starting_offset}; a volume begins at 0")
    return starting_offset
