"""When the agent says no, and in which words: pure, with the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ullage.capacity import cow_step_bytes, largest_growth_bytes, shortage
from ullage.errors import (
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    OutOfRangeError,
    PoolUnavailableError,
    SnapshotOverflowedError,
    UllageError,
    VolumeNotReadyError,
    human_bytes,
)
from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceType,
    ExpandVolume,
    Layout,
    Pool,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeKind,
    VolumeState,
)

MOST_SIZE_BYTES = 1 << 60
"""An exbibyte: more than any node has, and far from where 64-bit arithmetic of others ends."""


def check_sizes(size_bytes: int, limit_bytes: int) -> None:
    """Raise InvalidRequestError unless this is a size, and a limit that it keeps to."""
    if not 0 < size_bytes <= MOST_SIZE_BYTES:
        raise InvalidRequestError(f"a size of {size_bytes} bytes is not possible; 1 to {MOST_SIZE_BYTES}")
    if limit_bytes < 0 or (limit_bytes and limit_bytes < size_bytes):
        raise InvalidRequestError(f"a limit of {limit_bytes} bytes is below the size of {size_bytes} bytes")


def check_limit(size_bytes: int, limit_bytes: int, where: Pool | Volume) -> None:
    """Raise OutOfRangeError when the size, in whole extents, is above the limit."""
    if limit_bytes and size_bytes > limit_bytes:
        name = where.name if isinstance(where, Pool) else where.id
        raise OutOfRangeError(
            f"{name}: the smallest possible size is {size_bytes} bytes, the limit is {limit_bytes}",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


def check_same(request: CreateVolume, found: Volume) -> None:
    """An id that exists must be what is asked for; raises ConflictError, VolumeNotReadyError."""
    if found.state is VolumeState.DELETING:
        raise VolumeNotReadyError(f"volume {found.id} is being deleted", volume_id=found.id)
    differences = []
    if found.device_class != request.device_class:
        differences.append(f"its device class is {found.device_class}, not {request.device_class}")
    if request.pool not in (None, found.pool):
        differences.append(f"it is in {found.pool}, not {request.pool}")
    if found.kind is not VolumeKind.VOLUME:
        differences.append("it is a snapshot")
    if found.source != request.source:
        differences.append(f"it began as {found.source or 'an empty volume'}, not as {request.source or 'one'}")
    if found.size_bytes < request.size_bytes:
        differences.append(f"it has {found.size_bytes} bytes, fewer than {request.size_bytes}")
    if request.limit_bytes and found.size_bytes > request.limit_bytes:
        differences.append(f"it has {found.size_bytes} bytes, more than the limit {request.limit_bytes}")
    if differences:
        raise ConflictError(f"volume {found.id} exists: {', '.join(differences)}", volume_id=found.id)


def check_same_snapshot(request: TakeSnapshot, found: Volume) -> None:
    """An id that exists must be what is asked for; raises ConflictError, VolumeNotReadyError."""
    if found.kind is not VolumeKind.SNAPSHOT or found.source != request.source:
        what = f"a snapshot of {found.source}" if found.kind is VolumeKind.SNAPSHOT else "a volume"
        raise ConflictError(f"{found.id} exists, and is {what}, not a snapshot of {request.source}")
    if found.state is not VolumeState.READY:
        raise VolumeNotReadyError(f"snapshot {found.id} is {found.state}", volume_id=found.id)


def check_same_group(request: TakeGroup, found: Sequence[Volume]) -> None:
    """A group that exists must be of the volumes that are asked for; raises ConflictError."""
    sources = sorted({str(each.source) for each in found})
    if sources != sorted(request.sources):
        raise ConflictError(
            f"group {request.group_id} exists, with snapshots of {', '.join(sources)}, "
            f"not of {', '.join(sorted(request.sources))}"
        )


def check_holds(volume: Volume) -> None:
    """Raise SnapshotOverflowedError for a snapshot that holds nothing any more."""
    if volume.problem is not None and volume.problem.reason == SnapshotOverflowedError.reason:
        raise SnapshotOverflowedError(f"{volume.id}: {volume.problem.message}", volume_id=volume.id)


def no_room_for_snapshot(source: Volume, pool: Pool, device_class: DeviceClass) -> UllageError:
    """Why no snapshot is taken: it has to be in its volume's pool, a thick one with room for what is written later."""
    wanted_bytes = source.size_bytes
    if pool.type is DeviceType.THICK:
        wanted_bytes = cow_step_bytes(device_class.snapshots, pool.extent_bytes, source.size_bytes)
    sentence = f"a snapshot of {source.id} can be within {pool.name} only: {shortage(pool, Layout(), wanted_bytes)}"
    return _unavailable_or_full(sentence, pool, wanted_bytes)


def no_room_for_copy(source: Volume, pool: Pool, device_class: DeviceClass, wanted_bytes: int) -> UllageError:
    """Why nothing more can be made of this source: it has to be in the same pool."""
    sentence = f"{source.id} can be copied within {pool.name} only: {shortage(pool, device_class.layout, wanted_bytes)}"
    return _unavailable_or_full(sentence, pool, wanted_bytes)


def _unavailable_or_full(sentence: str, pool: Pool, wanted_bytes: int) -> UllageError:
    if pool.problem is not None:
        return PoolUnavailableError(sentence, pool=pool.name)
    return InsufficientCapacityError(sentence, pool=pool.name, wanted_bytes=wanted_bytes, free_bytes=pool.free_bytes)


def no_room(
    request: CreateVolume, device_class: DeviceClass, pools: Sequence[Pool], problems: Sequence[str]
) -> UllageError:
    """Why none of the class's pools takes a new volume; `problems` of stores tell why there may be no pool."""
    if not pools:
        wanted = f"pool {request.pool}" if request.pool else "any pool"
        because = f": {'; '.join(problems)}" if problems else ""
        return PoolUnavailableError(
            f"device class {device_class.name} has not {wanted} on this node{because}", device_class=device_class.name
        )
    sentence = "; ".join(
        f"{device_class.name}/{shortage(pool, device_class.layout, request.size_bytes)}" for pool in pools
    )
    if all(pool.problem is not None for pool in pools):
        return PoolUnavailableError(sentence, device_class=device_class.name)
    return InsufficientCapacityError(
        sentence,
        device_class=device_class.name,
        wanted_bytes=request.size_bytes,
        free_bytes=max(pool.free_bytes for pool in pools if pool.problem is None),
    )


def no_room_to_grow(request: ExpandVolume, volume: Volume, pool: Pool) -> UllageError:
    """Why a volume does not grow to what is asked for, and what it could grow to."""
    missing = request.size_bytes - volume.size_bytes
    if pool.problem is not None:
        return PoolUnavailableError(shortage(pool, volume.layout, missing), pool=pool.name)
    names = tuple(share.physical_volume for share in volume.taken)
    most = largest_growth_bytes(pool, volume.layout, names, volume.device_size_bytes)
    return InsufficientCapacityError(
        f"{volume.id} has {human_bytes(volume.size_bytes)} and can grow to {human_bytes(most)}, "
        f"{human_bytes(request.size_bytes)} wanted: {shortage(pool, Layout(), missing)}",
        pool=pool.name,
        wanted_bytes=request.size_bytes,
        free_bytes=pool.free_bytes,
    )
