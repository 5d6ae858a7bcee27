"""What was begun and not ended: told by its mark, and brought to its end.

A creation, a growth and a start after a crash all end here, so that it makes no difference who had begun.
"""

from __future__ import annotations

import logging

from node_agent.filling import fill, is_lost, is_needed
from node_agent.ground import Ground
from node_agent.removal import destroy, unfreeze
from node_agent.wipe import Moment
from ullage.errors import UllageError
from ullage.model import Done, StoreName, Volume, VolumeId, VolumeKind, VolumeState

__all__ = ["finish", "is_half_made", "is_lost", "left_behind", "resume"]

log = logging.getLogger(__name__)


def resume(ground: Ground, volume: Volume) -> Done:
    """Go on where an earlier process ended; what was to go, or is not worth going on with, goes."""
    try:
        if volume.kind is VolumeKind.FROZEN:
            return Done(volume=None, is_new=_is_thawed(ground, volume))
        if volume.state is VolumeState.DELETING or is_half_made(ground, volume) or is_lost(ground, volume):
            destroy(ground, volume)
            return Done(volume=None, is_new=True)
        return Done(volume=finish(ground, volume), is_new=True)
    except UllageError as failure:  # nobody waits for it
        log.warning("not finished", extra={"volume_id": volume.id, "why": str(failure)})
        raise


def finish(ground: Ground, volume: Volume) -> Volume:
    """Wipe what a CREATING or GROWING volume must not show, copy what a FILLING one lacks, and make it READY."""
    if volume.state is VolumeState.READY:
        unfreeze(ground, volume.id)  # whoever filled it may have died before that
        return volume
    if volume.state is VolumeState.FILLING:
        return fill(ground, volume)
    backend = ground.readable(volume)
    volume = ground.awake(backend, volume)
    start = 0 if volume.state is VolumeState.CREATING else volume.size_bytes
    if start < volume.device_size_bytes and backend.needs_wipe(volume.type, volume.wipe):
        ground.wipe_part(volume, Moment.CREATE if start == 0 else Moment.GROW, start)
    with ground.changing(volume.store, f"settling of {volume.id}"):
        settled = backend.settle(volume)
        ground.stock.apply(volume.store, volume, settled)
    ground.reporter.wish(volume.store)
    return settled


def left_behind(ground: Ground, store: StoreName, volume_id: VolumeId) -> Volume | None:
    """What a creation that failed has made after all, if it can be gone on with; its store is held.

    The disk knows better than the report or the failed command.
    """
    ground.reporter.look_at_locked(store)
    found = ground.stock.find(volume_id)
    return None if found is None or is_half_made(ground, found) else found


def is_half_made(ground: Ground, volume: Volume) -> bool:
    """Whether its creation died before it was what its class asks for: it is removed and begun again.

    It has no device yet, or LVM had not come to its integrity (which is added when all the rest is there), or it
    had its source's content and not yet its own size.
    """
    device_class = ground.classes.get(volume.device_class)
    lacks_integrity = device_class is not None and device_class.layout.integrity > volume.layout.integrity
    if volume.state is VolumeState.FILLING:
        return volume.device_size_bytes == 0 or lacks_integrity
    return volume.state is VolumeState.CREATING and (
        volume.device_size_bytes == 0 or lacks_integrity or volume.source is not None
    )


def _is_thawed(ground: Ground, frozen: Volume) -> bool:
    """Remove a FROZEN snapshot unless there is a copy that reads from it; that copy's end is its end."""
    if frozen.state is VolumeState.READY and is_needed(ground, frozen):
        return False
    with ground.sources.going(frozen.id):
        destroy(ground, frozen)
    return True
