"""Which pool each volume of a set goes to: jointly, or not at all.

Exact for up to EXACT_VOLUMES volumes (every assignment is tried, most promising first), best-fit decreasing past that.
Volumes that must spread over physical volumes are placed before linear ones, and large before small: the others adapt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ullage.capacity import Allocation, allocate, largest_volume_bytes, without
from ullage.model import Layout, PhysicalVolume, Pool, PoolName, StoreName

EXACT_VOLUMES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """One volume that wants a place: its size, its shape, and the pools that its class and pins allow."""

    key: str
    size_bytes: int
    layout: Layout = field(default_factory=Layout)
    pools: tuple[PoolName, ...]


def place(demands: Sequence[Demand], pools: Mapping[PoolName, Pool]) -> dict[str, Allocation] | None:
    """An allocation for every demand, by key; None when they do not all fit together.

    Each volume goes to the allowed pool that has most room for its kind left, as far as the others still fit.
    """
    ordered = sorted(demands, key=lambda demand: (not demand.layout.is_spread, -demand.size_bytes, demand.key))
    is_exact = len(ordered) <= EXACT_VOLUMES
    return _place(ordered, dict(pools), is_exact=is_exact)


def _place(demands: Sequence[Demand], pools: dict[PoolName, Pool], *, is_exact: bool) -> dict[str, Allocation] | None:
    if not demands:
        return {}
    demand, others = demands[0], demands[1:]
    allowed = [pools[name] for name in dict.fromkeys(demand.pools) if name in pools]
    fitting = [pool for pool in allowed if largest_volume_bytes(pool, demand.layout) >= demand.size_bytes]
    # Past the exact bound the tightest pool goes first: it leaves the roomy ones whole for what is still to come.
    fitting.sort(key=lambda pool: (largest_volume_bytes(pool, demand.layout) * (-1 if is_exact else 1), pool.name))
    tried_for: set[tuple[Pool, tuple[bool, ...]]] = set()
    for pool in fitting if is_exact else fitting[:1]:
        likeness = (_nameless(pool), tuple(pool.name in other.pools for other in others))
        if likeness in tried_for:
            continue
        tried_for.add(likeness)
        allocation = allocate(pool, demand.layout, demand.size_bytes)
        if allocation is None:
            continue
        rest = _place(others, {**pools, pool.name: without(pool, allocation)}, is_exact=is_exact)
        if rest is not None:
            return {demand.key: allocation, **rest}
    return None


def _nameless(pool: Pool) -> Pool:
    """What two pools share if one serves as well as the other; keeps the search small on nodes of like groups."""
    frees = sorted(volume.free_bytes for volume in pool.physical_volumes)
    return replace(
        pool,
        name=PoolName(""),
        store=StoreName(""),
        physical_volumes=tuple(PhysicalVolume(name="", free_bytes=free) for free in frees),
    )
