"""Whether the volumes of one Pod fit one node, all together, and what they would leave there. Pure.

`ullage.placement.place` decides. Where each class has one pool and every volume is linear, which is nearly always, the
same comes out of adding up, and that is done instead: a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scheduler_extender.demand import Want
from ullage.capacity import Allocation, available_bytes, largest_volume_bytes, without
from ullage.model import DeviceClassName, DeviceType, Layout, Pool, PoolName
from ullage.placement import Demand, place

LINEAR = Layout()


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a node has left. `pools` are without what is promised, `before` with it; or why nothing is known of it."""

    pools: Mapping[PoolName, Pool]
    before: Mapping[PoolName, Pool]
    plain: Mapping[DeviceClassName, Plain]
    unknown: str = ""
    promised_to: str = ""
    """Who has what is promised, for a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """The only pool that a class has here, where a linear volume can be of any size up to `free_bytes`."""

    pool: PoolName
    free_bytes: int
    extent_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """Of one class, once the volumes are there: what they took, what could still be had, and all there is."""

    size_bytes: int
    after_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """They fit. Linear volumes that come to `slack_bytes` would fit beside them, whichever pools they want."""

    slack_bytes: int
    left: tuple[Left, ...]
    """By class, in the order of names."""


def classes_of(wants: Iterable[Want]) -> list[DeviceClassName]:
    """By name."""
    return sorted({want.device_class for want in wants})


def plain(pools: Mapping[PoolName, Pool]) -> dict[DeviceClassName, Plain]:
    """The classes for which adding up is enough."""
    found: dict[DeviceClassName, Plain | None] = {}
    for pool in pools.values():
        is_plain = pool.type is not DeviceType.DISK and pool.problem is None
        one = Plain(
            pool=pool.name,
            free_bytes=largest_volume_bytes(pool, LINEAR) if is_plain else 0,
            extent_bytes=pool.extent_bytes,
            total_bytes=pool.total_bytes,
        )
        for name in pool.classes:
            found[name] = one if is_plain and name not in found else None
    return {name: each for name, each in found.items() if each is not None}


def plain_after(
    wants: Sequence[Want], plain_of: Mapping[DeviceClassName, Plain]
) -> dict[DeviceClassName, Plain] | None:
    """What is `plain` once the volumes are there as `taken` puts them; None where adding up will not do."""
    took: dict[PoolName, int] = {}
    for want in wants:
        one = plain_of.get(want.device_class)
        if one is None or want.layout.is_spread or want.pool not in (None, one.pool):
            return None
        size_bytes = -(-want.size_bytes // one.extent_bytes) * one.extent_bytes
        took[one.pool] = took.get(one.pool, 0) + size_bytes
        if took[one.pool] > one.free_bytes:
            return None
    return {
        name: replace(one, free_bytes=one.free_bytes - took[one.pool]) if one.pool in took else one
        for name, one in plain_of.items()
    }


def fit(wants: Sequence[Want], room: Room) -> Fit | None:
    """Where all of it fits; None: it does not, or nothing is known of the node."""
    if room.unknown:
        return None
    added = added_up(wants, room.plain)
    if added is None:
        return _placed(wants, room.pools)
    return added or None


def taken(wants: Sequence[Want], pools: Mapping[PoolName, Pool]) -> dict[PoolName, Pool]:
    """The pools once the volumes are there. One that does not fit leaves nothing where it may go."""
    left = dict(pools)
    for want in wants:
        demand = _demand(0, want, left)
        placed = place([demand], left)
        if placed is None:
            left |= {name: _emptied(left[name]) for name in demand.pools}
        else:
            left |= _without(left, placed)
    return left


def added_up(wants: Sequence[Want], plain_of: Mapping[DeviceClassName, Plain]) -> Fit | Literal[False] | None:
    """Whether and how it fits, by adding up; None where that will not do, False: it does not fit."""
    took: dict[PoolName, int] = {}
    of_class: dict[DeviceClassName, int] = {}
    here: dict[DeviceClassName, Plain] = {}
    for want in wants:
        one = plain_of.get(want.device_class)
        if one is None or want.layout.is_spread or want.pool not in (None, one.pool):
            return None
        size_bytes = -(-want.size_bytes // one.extent_bytes) * one.extent_bytes
        took[one.pool] = took.get(one.pool, 0) + size_bytes
        of_class[want.device_class] = of_class.get(want.device_class, 0) + size_bytes
        here[want.device_class] = one
    slack = min(each.free_bytes - took[each.pool] for each in here.values())
    if slack < 0:
        return False
    left = tuple(
        Left(
            size_bytes=of_class[name],
            after_bytes=here[name].free_bytes - took[here[name].pool],
            total_bytes=here[name].total_bytes,
        )
        for name in sorted(here)
    )
    return Fit(slack_bytes=slack, left=left)


def _placed(wants: Sequence[Want], pools: Mapping[PoolName, Pool]) -> Fit | None:
    placed = place([_demand(number, want, pools) for number, want in enumerate(wants)], pools)
    if placed is None:
        return None
    after = {**pools, **_without(pools, placed)}
    left = []
    for name in classes_of(wants):
        layout = next(want.layout for want in wants if want.device_class == name)
        of_class = [pool for pool in after.values() if name in pool.classes]
        left.append(
            Left(
                size_bytes=sum(
                    placed[str(number)].size_bytes for number, want in enumerate(wants) if want.device_class == name
                ),
                after_bytes=sum(available_bytes(pool, layout) for pool in of_class),
                total_bytes=sum(pool.total_bytes for pool in of_class),
            )
        )
    return Fit(slack_bytes=0, left=tuple(left))


def _demand(number: int, want: Want, pools: Mapping[PoolName, Pool]) -> Demand:
    names = tuple(
        name for name, pool in pools.items() if want.device_class in pool.classes and want.pool in (None, name)
    )
    return Demand(key=str(number), size_bytes=want.size_bytes, layout=want.layout, pools=names)


def _without(pools: Mapping[PoolName, Pool], placed: Mapping[str, Allocation]) -> dict[PoolName, Pool]:
    left: dict[PoolName, Pool] = {}
    for each in placed.values():
        left[each.pool] = without(left.get(each.pool, pools[each.pool]), each)
    return left


def _emptied(pool: Pool) -> Pool:
    return replace(
        pool,
        free_bytes=0,
        physical_volumes=tuple(replace(each, free_bytes=0) for each in pool.physical_volumes),
        disks=(),
    )
