"""What begins as another volume is at one moment: snapshots, and volumes that are copies.

Both are made in their source's pool, where no bytes have to be moved and none to be wiped, and under its store's lock:
no change of ours comes between the last look at the source and the copy. Where a backend has no such copies, a volume
is carved as any other, wherever its class has room, and filled (see `node_agent.filling`): from the snapshot, or from
one that is taken of the volume first and for this alone.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

from node_agent.backends.port import Backend, NewVolume
from node_agent.carving import carve, choose, wanted_class
from node_agent.ground import Ground
from node_agent.refusals import (
    check_holds,
    check_limit,
    check_same_snapshot,
    no_room_for_copy,
    no_room_for_snapshot,
)
from node_agent.removal import destroy
from node_agent.unfinished import is_half_made, left_behind
from ullage.capacity import Allocation, allocate, allocate_snapshot, rounded_bytes
from ullage.errors import InvalidRequestError, OutOfRangeError, UllageError, VolumeNotReadyError
from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Done,
    Owner,
    Pool,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.names import frozen_id

REST_SECONDS = 10.0
"""How long a file system may be kept from being written to while one snapshot of it is taken."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What is to be made of a source."""

    id: VolumeId
    kind: VolumeKind
    device_class: DeviceClass
    size_bytes: int
    limit_bytes: int = 0
    owner: Owner


def snapshot(ground: Ground, request: TakeSnapshot) -> Done:
    """Keep what a volume holds at one moment, or find that it is kept; see `Agent.snapshot`."""
    found = ground.stock.find(request.snapshot_id)
    if found is not None and is_half_made(ground, found):
        destroy(ground, found)
        found = None
    if found is not None:
        check_same_snapshot(request, found)
        return Done(volume=found, is_new=False)
    source = _source(ground, request.source)
    if source.kind is not VolumeKind.VOLUME:
        raise InvalidRequestError(f"{source.id} is a snapshot itself; snapshots are taken of volumes")
    volume, is_new = _derive(ground, _snapshot_of(ground, source, request.snapshot_id, VolumeKind.SNAPSHOT), source)
    return Done(volume=volume, is_new=is_new)


def copy(ground: Ground, request: CreateVolume, source: VolumeId) -> tuple[Volume, bool]:
    """Make the volume that is asked for out of its source, and say whether it is new."""
    begun_as = _source(ground, source)
    if begun_as.kind is VolumeKind.FROZEN:
        raise InvalidRequestError(f"{source} is what a copy reads from, and that copy's alone")
    _check_size(request, begun_as)
    if ground.backend(begun_as.store).is_copied_by_bytes(begun_as):
        return _begin_filling(ground, request, begun_as)
    if request.pool not in (None, begun_as.pool):
        raise InvalidRequestError(f"{source} is in {begun_as.pool}, and no copy of it can be in {request.pool}")
    wish = _Wish(
        id=request.volume_id,
        kind=VolumeKind.VOLUME,
        device_class=wanted_class(ground, request),
        size_bytes=request.size_bytes,
        limit_bytes=request.limit_bytes,
        owner=request.owner,
    )
    return _derive(ground, wish, begun_as)


def _snapshot_of(ground: Ground, source: Volume, snapshot_id: VolumeId, kind: VolumeKind) -> _Wish:
    return _Wish(
        id=snapshot_id,
        kind=kind,
        device_class=replace(ground.device_class(source.device_class), wipe=source.wipe),
        size_bytes=source.size_bytes,
        owner=source.owner,
    )


def _begin_filling(ground: Ground, request: CreateVolume, source: Volume) -> tuple[Volume, bool]:
    """Carve what is to be filled, with what it is to be filled from there already, and kept from going."""
    frozen = frozen_id(request.volume_id)
    with ground.sources.kept(source.id, request.volume_id), ground.sources.kept(frozen, request.volume_id):
        source = _source(ground, source.id)  # nobody deletes it any more
        _check_class(request.device_class, source, ground.stock.pools()[source.pool])
        choose(ground, request)  # before anything is frozen for it
        content = source
        if source.kind is VolumeKind.VOLUME:
            stale = ground.stock.find(frozen)  # of an attempt that died: what it holds is of then
            if stale is not None:
                destroy(ground, stale)
            content, _ = _derive(ground, _snapshot_of(ground, source, frozen, VolumeKind.FROZEN), source)
        try:
            _check_size(request, content)  # the volume may have grown until it was frozen
            return carve(ground, request, source)
        except UllageError:
            if ground.stock.find(request.volume_id) is None:
                _drop(ground, frozen)
            raise


def _drop(ground: Ground, frozen: VolumeId) -> None:
    """Remove what nobody will read from; what cannot be removed now the next start removes."""
    taken = ground.stock.find(frozen)
    if taken is not None:
        try:
            destroy(ground, taken)
        except UllageError as failure:
            log.warning("frozen for nothing", extra={"volume_id": frozen, "why": str(failure)})


def _check_size(request: CreateVolume, source: Volume) -> None:
    if request.size_bytes < source.size_bytes:
        raise OutOfRangeError(
            f"{request.source} has {source.size_bytes} bytes; a volume that begins with them cannot have fewer "
            f"({request.size_bytes} are wanted)",
            size_bytes=source.size_bytes,
        )


def _check_class(name: DeviceClassName, source: Volume, pool: Pool) -> None:
    if name not in pool.classes:
        raise InvalidRequestError(f"{source.id} is in {pool.name}, which is none of device class {name}'s pools")


def _derive(ground: Ground, wish: _Wish, source: Volume) -> tuple[Volume, bool]:
    """Make what begins as the source is at one moment, in its pool: no bytes are moved."""
    backend = ground.backend(source.store)
    with ground.changing(source.store, f"copy of {source.id} to {wish.id}"):
        source = _source(ground, source.id)  # nobody else changes it any more
        pool = ground.stock.pools()[source.pool]
        _check_class(wish.device_class.name, source, pool)
        size_bytes = rounded_bytes(wish.device_class.layout, pool.extent_bytes, wish.size_bytes)
        check_limit(size_bytes, wish.limit_bytes, pool)
        allocation = _room(pool, wish)
        if allocation is None:
            ground.reporter.look_at_locked(source.store)
            pool = ground.stock.pools()[source.pool]
            allocation = _room(pool, wish)
        if allocation is None:
            if wish.kind is VolumeKind.VOLUME:
                raise no_room_for_copy(source, pool, wish.device_class, wish.size_bytes)
            raise no_room_for_snapshot(source, pool, wish.device_class)
        new = NewVolume(
            id=wish.id,
            kind=wish.kind,
            source=source,
            taken_at=int(time.time()) if wish.kind is VolumeKind.SNAPSHOT else 0,
            device_class=wish.device_class,
            pool=pool,
            allocation=allocation,
            owner=wish.owner,
            needs_wipe=False,
        )
        try:
            volume = _made(ground, backend, new, source)
            if wish.kind is VolumeKind.VOLUME and volume.device_size_bytes < allocation.size_bytes:
                volume = backend.expand(volume, allocation, needs_wipe=False)
        except UllageError:
            found = left_behind(ground, pool.store, wish.id)
            if found is None:
                raise
            return found, False
        ground.stock.apply(pool.store, None, volume)
    ground.reporter.wish(pool.store)
    log.info("volume derived", extra={"volume_id": volume.id, "kind": volume.kind, "source": source.id})
    return volume, True


def _room(pool: Pool, wish: _Wish) -> Allocation | None:
    if wish.kind is VolumeKind.VOLUME:
        return allocate(pool, wish.device_class.layout, wish.size_bytes)
    return allocate_snapshot(pool, wish.device_class.snapshots, wish.size_bytes)


def _made(ground: Ground, backend: Backend, new: NewVolume, source: Volume) -> Volume:
    """LVM brings a mounted file system to rest by itself; under a file it has to be kept there.

    A snapshot is READY only once it is known that nobody wrote until its end. A volume that is made at once shares its
    blocks with its source, and so is of one moment whoever wrote; half of one could not be settled.
    """
    if source.type is not DeviceType.FILE or source.kind is not VolumeKind.VOLUME:
        return backend.create(new)
    with ground.holds.at_rest(source, REST_SECONDS) as hold:
        if new.kind is VolumeKind.VOLUME:
            return backend.create(new)
        made = backend.create(replace(new, needs_wipe=True))
    hold.check()
    return backend.settle(made) if made.state is VolumeState.CREATING else made


def _source(ground: Ground, volume_id: VolumeId) -> Volume:
    """What is to be copied.

    Raises NotFoundError, VolumeNotReadyError, PoolUnavailableError, SnapshotOverflowedError.
    """
    source = ground.get(volume_id)
    ground.readable(source)
    if source.state is not VolumeState.READY:
        raise VolumeNotReadyError(f"volume {source.id} is still {source.state}", volume_id=source.id)
    check_holds(source)
    return source
