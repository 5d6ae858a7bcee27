"""How a volume goes, and with it what it holds.

What must hold before anything is destroyed, and who checks it:
- the volume is known, and in the pool that the request names      → `delete`
- no copy by bytes is still being made of it                       → `delete`
- its store is readable: a missing group never means "gone"        → `destroy`; of one that is not found, `delete`
- it carries our tag and this id, and nobody has it open, now      → the backend, under LVM's or the kernel's own lock
- nobody mounts or claims it while it is wiped                     → the wiper, by opening it exclusively
- in a volume in use only what nobody can use yet is wiped         → the mark of its growth, put on before it grows

What died half-way is destroyed without a request for it: its own mark says that it was to go, or that nobody has had it
yet (see `node_agent.unfinished`).
"""

from __future__ import annotations

import logging
from contextlib import suppress

from node_agent.ground import Ground
from node_agent.wipe import Moment
from ullage.errors import InvalidRequestError, NotFoundError, NotOursError, VolumeInUseError
from ullage.model import DeleteVolume, Done, Volume, VolumeId, VolumeKind, VolumeState
from ullage.names import frozen_id

log = logging.getLogger(__name__)


def delete(ground: Ground, request: DeleteVolume) -> Done:
    """Make a volume be gone, or find that it is; see `Agent.delete`."""
    volume = ground.stock.find(request.volume_id)
    if volume is None:
        # "Already gone" is an answer with consequences: it is given on a fresh look at everything only.
        ground.reporter.look_now()
        volume = ground.stock.find(request.volume_id)
    if volume is None:
        ground.refuse_if_blind(f"volume {request.volume_id} cannot be told to be gone", request.pool)
        unfreeze(ground, request.volume_id)
        return Done(volume=None, is_new=False)
    if request.pool not in (None, volume.pool):
        raise NotOursError(f"volume {volume.id} is in {volume.pool}, not in {request.pool}", volume_id=volume.id)
    if volume.kind is VolumeKind.FROZEN:
        raise InvalidRequestError(f"{volume.id} is what a copy of {volume.source} reads from; it goes with the copy")
    with ground.sources.going(volume.id):
        _refuse_if_needed(ground, volume)
        destroy(ground, volume)
    return Done(volume=volume, is_new=True)


def destroy(ground: Ground, volume: Volume) -> None:
    """Wipe a volume as its policy asks, and remove it; its mark is on it before the first byte goes.

    Raises PoolUnavailableError, and what the backend and the wiper raise.
    """
    backend = ground.readable(volume)
    # An earlier removal may have died half-way: then nothing is left of it to wipe.
    if backend.needs_wipe(volume.type, volume.wipe) and volume.device_size_bytes > 0:
        with ground.changing(volume.store, f"delete of {volume.id}"):
            condemned = backend.condemn(volume)
            ground.stock.apply(volume.store, volume, condemned)
        volume = ground.awake(backend, condemned)
        ground.wipe_part(volume, Moment.DELETE, 0)
    with ground.changing(volume.store, f"delete of {volume.id}"):
        with suppress(NotFoundError):  # a fresh look says that it is gone: that is what was asked for
            backend.remove(volume)
        ground.stock.apply(volume.store, volume, None)
    ground.reporter.wish(volume.store)
    log.info("volume removed", extra={"volume_id": volume.id, "pool": volume.pool})
    unfreeze(ground, volume.id)


def unfreeze(ground: Ground, volume_id: VolumeId) -> None:
    """Remove what this volume was filled from, if that was taken for it alone; raises as `destroy`."""
    frozen = ground.stock.find(frozen_id(volume_id))
    if frozen is not None:
        with ground.sources.going(frozen.id):
            destroy(ground, frozen)


def _refuse_if_needed(ground: Ground, volume: Volume) -> None:
    needing = sorted(
        each.id
        for each in ground.stock.volumes().values()
        if each.state is VolumeState.FILLING and each.source == volume.id
    )
    if needing:
        raise VolumeInUseError(f"{volume.id} is still being copied to {', '.join(needing)}", volume_id=volume.id)
