"""Snapshots of several volumes at one moment, and the end of such a group.

    create each (CREATING) ── hold all sources still ── renew each ── let go; were all held? ── settle each (READY)

(where a snapshot can be made of what is held still, it is made there instead, and not renewed). Their stores are locked
from the first step to the last: no change of ours comes in between.

What is there after a failure or a death tells by its marks how it is to end. A member is READY only after it was known
that all of them are of one moment, so with one READY member the others are settled, too. With none they may be of
several moments: all of them go.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from node_agent.backends.port import HeldStep, NewVolume
from node_agent.ground import Ground
from node_agent.refusals import check_same_group, no_room_for_snapshot
from node_agent.removal import delete as delete_volume
from node_agent.removal import destroy
from ullage.capacity import allocate_snapshot, without
from ullage.errors import InvalidRequestError, UllageError, VolumeNotReadyError
from ullage.model import (
    DeleteVolume,
    GroupId,
    TakeGroup,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.names import member_id

HOLD_SECONDS = 30.0
"""How long volumes may be kept from being written to for a group; what takes longer is no group."""
OPEN_LOOKS, OPEN_LOOK_SECONDS = 5, 0.3
"""udevd opens a device for a moment after each change: one that is open is looked at a few times."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteGroup:
    """Ask that a group be gone; `snapshots` must be members, and may be gone already."""

    group_id: GroupId
    snapshots: tuple[VolumeId, ...]


def take(ground: Ground, request: TakeGroup) -> tuple[Volume, ...]:
    """Keep what volumes hold at one moment, or find that it is kept; see `Agent.snapshot_group`."""
    found = members(ground, request.group_id)
    if _is_of_one_moment(found):
        check_same_group(request, found)
        return _finished(ground, found)
    _give_up(ground, request.group_id, found)
    try:
        return _taken(ground, request)
    except UllageError:
        made = members(ground, request.group_id)
        try:
            if not _is_of_one_moment(made):
                _give_up(ground, request.group_id, made)
        except UllageError as failure:  # the next request or start does it
            log.warning("half a group is left", extra={"group_id": request.group_id, "why": str(failure)})
        raise


def resume(ground: Ground, group_id: GroupId) -> None:
    """Bring what a process that died left of a group to its end."""
    found = members(ground, group_id)
    try:
        if _is_of_one_moment(found):
            _finished(ground, found)
        else:
            _give_up(ground, group_id, found)
    except UllageError as failure:  # nobody waits for it
        log.warning("not finished", extra={"group_id": group_id, "why": str(failure)})
        raise


def delete(ground: Ground, request: DeleteGroup) -> None:
    """Make a group be gone, or find that it is; see `Agent.delete_group`."""
    if any(ground.stock.find(each) is None for each in request.snapshots) or not members(ground, request.group_id):
        ground.reporter.look_now()
    for volume_id in request.snapshots:
        found = ground.stock.find(volume_id)
        if found is None:
            ground.refuse_if_blind(f"snapshot {volume_id} cannot be told to be gone")
        elif found.group != request.group_id:
            raise InvalidRequestError(f"{volume_id} is no snapshot of group {request.group_id}")
    for volume in members(ground, request.group_id):
        delete_volume(ground, DeleteVolume(volume_id=volume.id))
    if not request.snapshots:
        ground.refuse_if_blind(f"group {request.group_id} may have members elsewhere")


def ready(ground: Ground, group_id: GroupId) -> tuple[Volume, ...]:
    """The members, by id; none of a group that is still being made. Raises UnavailableError (it may be hidden)."""
    found = members(ground, group_id)
    if not found:
        ground.refuse_if_blind(f"group {group_id} is on none of the readable stores")
    if any(each.state is VolumeState.CREATING for each in found):
        return ()
    return tuple(each for each in found if each.state is VolumeState.READY)


def members(ground: Ground, group_id: GroupId) -> tuple[Volume, ...]:
    """All there is of a group, in whichever state, by id."""
    return tuple(each for _, each in sorted(ground.stock.volumes().items()) if each.group == group_id)


def _is_of_one_moment(found: Sequence[Volume]) -> bool:
    return any(each.state is VolumeState.READY for each in found)


def _finished(ground: Ground, found: Sequence[Volume]) -> tuple[Volume, ...]:
    """What is of one moment, settled."""
    going = next((each for each in found if each.state is VolumeState.DELETING), None)
    if going is not None:
        raise VolumeNotReadyError(f"group {going.group} is being deleted", volume_id=going.id)
    settled = []
    for volume in found:
        if volume.state is VolumeState.READY:
            settled.append(volume)
        else:
            with ground.changing(volume.store, f"settling of {volume.id}"):
                settled.append(_settled(ground, volume))
    return tuple(settled)


def _settled(ground: Ground, volume: Volume) -> Volume:
    settled = ground.readable(volume).settle(volume)
    ground.stock.apply(volume.store, volume, settled)
    ground.reporter.wish(volume.store)
    return settled


def _give_up(ground: Ground, group_id: GroupId, found: Sequence[Volume]) -> None:
    """Remove members that may be of several moments; where a READY one may be out of sight that is not known."""
    if found:
        ground.refuse_if_blind(f"group {group_id} is half made on the readable stores")
    for volume in found:
        destroy(ground, volume)


def _taken(ground: Ground, request: TakeGroup) -> tuple[Volume, ...]:
    """Take every snapshot; a failure may leave members, none of them READY unless all are of one moment."""
    stores = sorted({ground.get(source).store for source in request.sources})
    with ExitStack() as locks:
        for store in stores:
            locks.enter_context(ground.changing(store, f"group snapshot {request.group_id}"))
        sources = _sources(ground, request)
        ground.holds.check_holdable(sources)
        steps = {
            source.id: ground.backend(source.store).held_step(source, is_mounted=ground.holds.is_mounted(source))
            for source in sources
        }
        wanted = _planned(ground, request.group_id, sources)
        early = [new for source, new in zip(sources, wanted, strict=True) if steps[source.id] is HeldStep.RENEW]
        late = [new for new in wanted if new not in early]
        made = [_created(ground, new) for new in early]
        with ground.holds.still(sources, HOLD_SECONDS) as hold:
            for store in stores:
                renewed = [volume for volume in made if volume.store == store]
                if renewed:
                    ground.backend(store).renew(renewed)
            made += [_created(ground, new) for new in late]
        hold.check()
        log.info("group taken", extra={"group_id": request.group_id, "sources": [source.id for source in sources]})
        return tuple(_settled(ground, volume) for volume in sorted(made, key=lambda each: each.id))


def _sources(ground: Ground, request: TakeGroup) -> tuple[Volume, ...]:
    """What is to be kept, as it is now that nobody else changes it, by id.

    Raises NotFoundError, InvalidRequestError, VolumeNotReadyError, PoolUnavailableError.
    """
    for looks_left in reversed(range(OPEN_LOOKS)):
        for store in {ground.get(source).store for source in request.sources}:
            ground.reporter.look_at_locked(store)
        sources = tuple(ground.get(source) for source in sorted(request.sources))
        if not any(each.is_open and not ground.holds.is_mounted(each) for each in sources) or not looks_left:
            break
        time.sleep(OPEN_LOOK_SECONDS)
    for source in sources:
        ground.readable(source)
        if source.kind is not VolumeKind.VOLUME:
            raise InvalidRequestError(f"{source.id} is a snapshot itself; snapshots are taken of volumes")
        if source.state is not VolumeState.READY:
            raise VolumeNotReadyError(f"volume {source.id} is still {source.state}", volume_id=source.id)
    return sources


def _planned(ground: Ground, group_id: GroupId, sources: Sequence[Volume]) -> list[NewVolume]:
    """A snapshot of each source; raises InsufficientCapacityError unless there is room for all of them together."""
    pools = ground.stock.pools()
    taken_at = int(time.time())
    planned = []
    for source in sources:
        pool = pools[source.pool]
        device_class = replace(ground.device_class(source.device_class), wipe=source.wipe)
        allocation = allocate_snapshot(pool, device_class.snapshots, source.size_bytes)
        if allocation is None:
            raise no_room_for_snapshot(source, pool, device_class)
        pools[source.pool] = without(pool, allocation)
        planned.append(
            NewVolume(
                id=member_id(group_id, source.id),
                kind=VolumeKind.SNAPSHOT,
                source=source,
                taken_at=taken_at,
                group=group_id,
                device_class=device_class,
                pool=ground.stock.pools()[source.pool],
                allocation=allocation,
                owner=source.owner,
                needs_wipe=True,
            )
        )
    return planned


def _created(ground: Ground, new: NewVolume) -> Volume:
    volume = ground.backend(new.pool.store).create(new)
    ground.stock.apply(new.pool.store, None, volume)
    return volume
