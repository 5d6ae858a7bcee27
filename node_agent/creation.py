"""How a volume comes to be: room is chosen and carved, what it must not show is wiped, and only then it is READY.

A repetition finds what the last attempt left under the same id: a finished volume is the answer, a carved one is gone
on with, a half-made one is removed and begun again.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from node_agent.backends.port import NewVolume
from node_agent.copies import copy
from node_agent.ground import Ground
from node_agent.refusals import check_limit, check_same, no_room
from node_agent.removal import destroy
from node_agent.unfinished import finish, is_half_made, left_behind
from ullage.capacity import allocate
from ullage.errors import UllageError
from ullage.model import CreateVolume, DeviceClass, Done, Pool, Volume
from ullage.placement import Demand, place

log = logging.getLogger(__name__)


def create(ground: Ground, request: CreateVolume) -> Done:
    """Make a volume, or find the one that an equal request made; see `Agent.create`."""
    found = ground.stock.find(request.volume_id)
    if found is not None and is_half_made(ground, found):
        destroy(ground, found)
        found = None
    is_new = found is None
    if found is None:
        found, is_new = copy(ground, request, request.source) if request.source else _carve(ground, request)
    check_same(request, found)
    return Done(volume=finish(ground, found), is_new=is_new)


def _carve(ground: Ground, request: CreateVolume) -> tuple[Volume, bool]:
    device_class = ground.device_class(request.device_class)
    device_class = replace(device_class, wipe=request.wipe or device_class.wipe)
    while True:
        chosen = _choose(ground, request, device_class)
        backend = ground.backend(chosen.store)
        with ground.changing(chosen.store, f"create of {request.volume_id}"):
            pool = ground.stock.pools().get(chosen.name)
            if pool is not None and not pool.exists:
                backend.make_pool(pool, device_class)
                ground.reporter.look_at_locked(pool.store)
                pool = ground.stock.pools().get(chosen.name)
            allocation = allocate(pool, device_class.layout, request.size_bytes) if pool else None
            if pool is None or allocation is None:
                continue  # another took the room between the choice and the lock: choose again
            new = NewVolume(
                id=request.volume_id,
                device_class=device_class,
                pool=pool,
                allocation=allocation,
                owner=request.owner,
                needs_wipe=backend.needs_wipe(pool.type, device_class.wipe),
            )
            try:
                volume = backend.create(new)
            except UllageError:
                found = left_behind(ground, pool.store, request.volume_id)
                if found is None:
                    raise
                return found, False
            ground.stock.apply(pool.store, None, volume)
        ground.reporter.wish(pool.store)
        log.info(
            "volume carved",
            extra={"volume_id": volume.id, "pool": pool.name, "size_bytes": volume.device_size_bytes},
        )
        return volume, True


def _choose(ground: Ground, request: CreateVolume, device_class: DeviceClass) -> Pool:
    """The pool for a new volume; before a refusal everything is looked at afresh."""
    for is_last in (False, True):
        pools = {
            name: pool
            for name, pool in ground.stock.pools().items()
            if device_class.name in pool.classes and request.pool in (None, name)
        }
        demand = Demand(
            key="",
            size_bytes=request.size_bytes,
            layout=device_class.layout,
            pools=tuple(pools),
        )
        placed = place([demand], pools)
        if placed is not None:
            chosen = pools[placed[""].pool]
            check_limit(placed[""].size_bytes, request.limit_bytes, chosen)
            return chosen
        if is_last:
            break
        ground.reporter.look_now()
    raise no_room(request, device_class, tuple(pools.values()), ground.problems())
