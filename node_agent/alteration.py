"""What a volume that is there is made into: a larger one, or one with another wipe policy.

Somebody may be using it meanwhile: every byte that they have stays as it is, and the new size is not the volume's until
all of it is fit to be seen.
"""

from __future__ import annotations

import logging

from node_agent.ground import Ground
from node_agent.refusals import check_limit, no_room_to_grow
from node_agent.unfinished import finish
from ullage.capacity import Allocation, allocate_growth, rounded_bytes
from ullage.errors import InvalidRequestError, PoolUnavailableError, VolumeNotReadyError
from ullage.model import Done, ExpandVolume, ModifyVolume, Volume, VolumeKind, VolumeState

log = logging.getLogger(__name__)


def expand(ground: Ground, request: ExpandVolume) -> Done:
    """Make a volume larger, or find that it is large enough; see `Agent.expand`."""
    volume = ground.get(request.volume_id)
    _refuse_unfinished(volume)
    if volume.kind is not VolumeKind.VOLUME:
        raise InvalidRequestError(f"{volume.id} is a snapshot: it has its size for good")
    check_limit(volume.size_bytes, request.limit_bytes, volume)
    if volume.size_bytes >= request.size_bytes and volume.state is VolumeState.READY:
        return Done(volume=volume, is_new=False)
    if volume.device_size_bytes < request.size_bytes:
        volume = _grow(ground, request, volume)
    return Done(volume=finish(ground, volume), is_new=True)


def _grow(ground: Ground, request: ExpandVolume, volume: Volume) -> Volume:
    backend = ground.readable(volume)
    with ground.changing(volume.store, f"expand of {volume.id}"):
        growth = _growth(ground, request, volume)
        if growth is None:
            ground.reporter.look_at_locked(volume.store)
            volume = ground.get(volume.id)
            growth = _growth(ground, request, volume)
        if growth is None:
            raise no_room_to_grow(request, volume, ground.stock.pools()[volume.pool])
        needs_wipe = backend.needs_wipe(volume.type, volume.wipe)
        grown = backend.expand(volume, growth, needs_wipe=needs_wipe)
        ground.stock.apply(volume.store, volume, grown)
    ground.reporter.wish(volume.store)
    log.info("volume grown", extra={"volume_id": volume.id, "size_bytes": grown.device_size_bytes})
    return grown


def _growth(ground: Ground, request: ExpandVolume, volume: Volume) -> Allocation | None:
    pool = ground.stock.pools().get(volume.pool)
    if pool is None:
        raise PoolUnavailableError(f"no device class on this node names {volume.pool}", pool=volume.pool)
    check_limit(rounded_bytes(volume.layout, pool.extent_bytes, request.size_bytes), request.limit_bytes, volume)
    names = tuple(share.physical_volume for share in volume.taken)
    return allocate_growth(pool, volume.layout, names, volume.device_size_bytes, request.size_bytes)


def modify(ground: Ground, request: ModifyVolume) -> Done:
    """Give a volume another wipe policy, or find that it has it; see `Agent.modify`."""
    volume = ground.get(request.volume_id)
    _refuse_unfinished(volume)
    if volume.wipe is request.wipe:
        return Done(volume=volume, is_new=False)
    backend = ground.readable(volume)
    with ground.changing(volume.store, f"modify of {volume.id}"):
        modified = backend.set_wipe(volume, request.wipe)
        ground.stock.apply(volume.store, volume, modified)
    ground.reporter.wish(volume.store)
    log.info("volume modified", extra={"volume_id": volume.id, "wipe": modified.wipe})
    return Done(volume=modified, is_new=True)


def _refuse_unfinished(volume: Volume) -> None:
    if volume.state in (VolumeState.CREATING, VolumeState.FILLING, VolumeState.DELETING):
        raise VolumeNotReadyError(f"volume {volume.id} is still {volume.state}", volume_id=volume.id)
