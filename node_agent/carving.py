"""Room for a new volume: chosen among its class's pools, and carved. What is in it then is others' to say."""

from __future__ import annotations

import logging
from dataclasses import replace

from node_agent.backends.port import NewVolume
from node_agent.ground import Ground
from node_agent.refusals import check_limit, no_room
from node_agent.unfinished import left_behind
from ullage.capacity import allocate
from ullage.errors import UllageError
from ullage.model import CreateVolume, DeviceClass, Pool, Volume
from ullage.placement import Demand, place

log = logging.getLogger(__name__)


def carve(ground: Ground, request: CreateVolume, source: Volume | None = None) -> tuple[Volume, bool]:
    """Carve what is asked for, and say whether it is new; with a `source` it is FILLING.

    Raises OutOfRangeError, InsufficientCapacityError, UnavailableError, and what the backend raises.
    """
    device_class = wanted_class(ground, request)
    while True:
        chosen = choose(ground, request)
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
                source=source,
                device_class=device_class,
                pool=pool,
                allocation=allocation,
                owner=request.owner,
                needs_wipe=source is None and backend.needs_wipe(pool.type, device_class.wipe),
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


def wanted_class(ground: Ground, request: CreateVolume) -> DeviceClass:
    """The policy for a new volume: its class, with the wipe that is asked for; raises UnknownDeviceClassError."""
    device_class = ground.device_class(request.device_class)
    return replace(device_class, wipe=request.wipe or device_class.wipe)


def choose(ground: Ground, request: CreateVolume) -> Pool:
    """The pool for a new volume; before a refusal everything is looked at afresh."""
    device_class = wanted_class(ground, request)
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
