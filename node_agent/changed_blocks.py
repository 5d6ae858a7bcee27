"""Which blocks of a snapshot are in use, and which are not as in an earlier one: what is asked, checked.

Nothing is changed and no byte of a volume is read. All that can be refused is refused before there is an answer, so
that an answer once begun is a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator

from node_agent.ground import Ground
from ullage.errors import InvalidRequestError, OutOfRangeError, VolumeNotReadyError
from ullage.model import ByteRange, ChangedBlocks, Volume, VolumeId, VolumeKind, VolumeState


def allocated(ground: Ground, snapshot_id: VolumeId, start_bytes: int) -> ChangedBlocks:
    """See `Agent.allocated`."""
    snapshot = _snapshot(ground, snapshot_id)
    _check_start(start_bytes, snapshot)
    ranges = ground.readable(snapshot).allocated(snapshot)
    return ChangedBlocks(volume_size_bytes=snapshot.size_bytes, ranges=_from(start_bytes, ranges))


def changed(ground: Ground, base_id: VolumeId, target_id: VolumeId, start_bytes: int) -> ChangedBlocks:
    """See `Agent.changed`.

    What differs is the same both ways, but what a later base has beyond an earlier target's end would be left out: the
    order is asked for, and two of one second are taken in either.
    """
    base, target = _snapshot(ground, base_id), _snapshot(ground, target_id)
    if base.source is None or base.source != target.source:
        raise InvalidRequestError(
            f"{base.id} is a snapshot of {base.source}, {target.id} of {target.source}: they have to be of one volume"
        )
    if base.pool != target.pool:
        raise InvalidRequestError(f"{base.id} is in {base.pool} and {target.id} in {target.pool}")
    if base.taken_at > target.taken_at:
        raise InvalidRequestError(
            f"{base.id} was taken {base.taken_at - target.taken_at} s after {target.id}: the earlier one is the base"
        )
    _check_start(start_bytes, target)
    ranges = ground.readable(target).changed(base, target)
    return ChangedBlocks(volume_size_bytes=target.size_bytes, ranges=_from(start_bytes, ranges))


def _snapshot(ground: Ground, snapshot_id: VolumeId) -> Volume:
    """The snapshot; raises NotFoundError, InvalidRequestError, PoolUnavailableError, VolumeNotReadyError."""
    found = ground.get(snapshot_id)
    if found.kind is not VolumeKind.SNAPSHOT:
        raise InvalidRequestError(f"{found.id} is no snapshot; changed blocks are told of snapshots")
    ground.readable(found)
    if found.state is not VolumeState.READY:
        raise VolumeNotReadyError(f"snapshot {found.id} is still {found.state}", volume_id=found.id)
    return found


def _check_start(start_bytes: int, snapshot: Volume) -> None:
    if not 0 <= start_bytes <= snapshot.size_bytes:
        raise OutOfRangeError(
            f"{start_bytes} is no place in {snapshot.id}, which has {snapshot.size_bytes} bytes",
            size_bytes=snapshot.size_bytes,
        )


def _from(start_bytes: int, ranges: Iterator[ByteRange]) -> Iterator[ByteRange]:
    """What is at `start_bytes` or after it."""
    for each in ranges:
        before = max(0, start_bytes - each.offset_bytes)
        if before == 0:
            yield each
        elif before < each.size_bytes:
            yield ByteRange(offset_bytes=start_bytes, size_bytes=each.size_bytes - before)
