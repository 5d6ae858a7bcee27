"""Thick snapshots that have not all the room they could need are given more before it is used up.

Nothing tells that a snapshot fills, so while there is one that may have to grow it is looked at again and again. A
writer that uses up the rest between two looks is faster than this: a class whose snapshots must not be lost gives each
all of its room at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from node_agent.ground import Ground
from ullage.capacity import allocate_growth, cow_step_bytes, largest_growth_bytes, whole_cow_bytes
from ullage.errors import UllageError
from ullage.model import DeviceType, Layout, Pool, SnapshotPolicy, StoreName, Volume, VolumeId, VolumeKind, VolumeState

POLL_SECONDS = 2.0
QUEUE_SECONDS = 1.0
"""How long a store that is being changed is waited for: the others' snapshots fill meanwhile."""

log = logging.getLogger(__name__)


def wanted_bytes(volume: Volume, policy: SnapshotPolicy, extent_bytes: int) -> int:
    """How much room a thick snapshot should have by now: what it has, or a step more, and never more than all."""
    has_bytes = _has_bytes(volume)
    if volume.used_percent is None or volume.problem is not None or volume.used_percent < policy.grow_at_percent:
        return has_bytes
    step_bytes = cow_step_bytes(policy, extent_bytes, volume.size_bytes)
    return max(has_bytes, min(has_bytes + step_bytes, whole_cow_bytes(extent_bytes, volume.size_bytes)))


def tend(ground: Ground) -> frozenset[VolumeId]:
    """Look at the stores with snapshots that may have to grow, and let those grow; the answer are those that cannot."""
    lacking: set[VolumeId] = set()
    for store in sorted({volume.store for volume, pool in _growable(ground) if pool.problem is None}):
        try:
            with ground.changing(store, "room for snapshots", QUEUE_SECONDS):
                ground.reporter.look_at_locked(store)
                lacking |= {volume.id for volume, pool in _growable(ground, store) if not _grown(ground, volume, pool)}
        except UllageError as failure:  # the next time comes soon
            log.info("snapshots not tended", extra={"store": store, "why": str(failure)})
    return frozenset(lacking)


def _growable(ground: Ground, store: StoreName | None = None) -> list[tuple[Volume, Pool]]:
    """Thick snapshots with less than all of their room, and where it comes from."""
    pools = ground.stock.pools()
    return [
        (volume, pools[volume.pool])
        for _, volume in sorted(ground.stock.volumes().items())
        if volume.type is DeviceType.THICK and volume.kind is not VolumeKind.VOLUME
        if volume.state in (VolumeState.CREATING, VolumeState.READY) and volume.device_size_bytes > 0
        if volume.problem is None and volume.pool in pools and store in (None, volume.store)
        if _has_bytes(volume) < whole_cow_bytes(pools[volume.pool].extent_bytes, volume.size_bytes)
    ]


def _grown(ground: Ground, volume: Volume, pool: Pool) -> bool:
    """Whether it has what it should have, now that it was given that or what there is."""
    device_class = ground.classes.get(volume.device_class)
    policy = device_class.snapshots if device_class else SnapshotPolicy()
    has_bytes, to_bytes = _has_bytes(volume), wanted_bytes(volume, policy, pool.extent_bytes)
    if to_bytes <= has_bytes:
        return True
    given_bytes = min(to_bytes, largest_growth_bytes(pool, Layout(), (), has_bytes))
    growth = allocate_growth(pool, Layout(), (), has_bytes, given_bytes)
    if growth is not None and given_bytes > has_bytes:
        grown = ground.backend(volume.store).expand(volume, growth, needs_wipe=False)
        ground.stock.apply(volume.store, volume, grown)
        log.info("snapshot given room", extra={"volume_id": volume.id, "size_bytes": given_bytes})
    return given_bytes == to_bytes


def _has_bytes(volume: Volume) -> int:
    return sum(share.size_bytes for share in volume.taken)


class Tending:
    """One thread that tends now and then."""

    def __init__(self, tend: Callable[[], frozenset[VolumeId]], poll_seconds: float = POLL_SECONDS) -> None:
        """Nothing is done before `start`."""
        self._tend = tend
        self._poll_seconds = poll_seconds
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tending", daemon=True)

    def start(self) -> None:
        """Begin to tend by itself."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is under way."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        told: frozenset[VolumeId] = frozenset()
        while not self._is_stopping.wait(self._poll_seconds):
            try:
                lacking = self._tend()
            except Exception:  # the thread's top
                log.exception("tending failed")
                continue
            for volume_id in sorted(lacking - told):
                log.warning("no room for a snapshot that fills", extra={"volume_id": volume_id})
            told = lacking
