"""Which pool each volume of a set goes to: jointly, or not at all.

Exact for up to EXACT_VOLUMES volumes (every assignment is tried, most promising first), best-fit decreasing past that.
Volumes that must spread over physical volumes are placed before linear ones, and large before small: the others adapt.

The search is kept small by three things: of pools that serve equally well one is tried, what has failed once is not
tried again in another order, and a set that cannot fit by mere counting is not tried at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ullage.capacity import Allocation, allocate, largest_volume_bytes, without
from ullage.model import DeviceType, Layout, Pool, PoolName

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
    named = {name for demand in demands for name in demand.pools}
    return Search(ordered).place({name: pool for name, pool in pools.items() if name in named})


class Search:
    """One search for places, in the order given. `steps` counts the allocations tried."""

    def __init__(self, demands: Sequence[Demand]) -> None:
        self._demands = tuple(demands)
        self._is_exact = len(demands) <= EXACT_VOLUMES
        self._failed: set[tuple[int, frozenset[tuple[object, int]]]] = set()
        self.steps = 0

    def place(self, pools: Mapping[PoolName, Pool], index: int = 0) -> dict[str, Allocation] | None:
        """Places for the demands from `index` on."""
        if index == len(self._demands):
            return {}
        state = (index, frozenset(Counter(self._likeness(pool, index) for pool in pools.values()).items()))
        if state in self._failed or not self._may_fit(pools.values(), index):
            return None
        demand = self._demands[index]
        for pool in self._candidates(demand, pools, index):
            self.steps += 1
            allocation = allocate(pool, demand.layout, demand.size_bytes)
            if allocation is None:
                continue
            is_last = index + 1 == len(self._demands)
            rest = {} if is_last else self.place({**pools, pool.name: without(pool, allocation)}, index + 1)
            if rest is not None:
                return {demand.key: allocation, **rest}
        self._failed.add(state)
        return None

    def _candidates(self, demand: Demand, pools: Mapping[PoolName, Pool], index: int) -> list[Pool]:
        rooms = {
            name: largest_volume_bytes(pools[name], demand.layout)
            for name in dict.fromkeys(demand.pools)
            if name in pools
        }
        fitting = [name for name, room in rooms.items() if room >= demand.size_bytes]
        # Past the exact bound the tightest pool goes first: it leaves the roomy ones whole for what is still to come.
        fitting.sort(key=lambda name: (rooms[name] * (-1 if self._is_exact else 1), name))
        unlike: dict[object, Pool] = {}
        for name in fitting:
            unlike.setdefault(self._likeness(pools[name], index), pools[name])
        return list(unlike.values()) if self._is_exact else list(unlike.values())[:1]

    def _likeness(self, pool: Pool, index: int) -> object:
        """What two pools share if one serves as well as the other, for the demands from `index` on."""
        return (
            pool.type,
            pool.free_bytes,
            pool.extent_bytes,
            tuple(sorted((volume.free_bytes, volume.scattered_bytes) for volume in pool.physical_volumes)),
            tuple(sorted(disk.size_bytes for disk in pool.disks)),
            pool.problem is None,
            tuple(pool.name in demand.pools for demand in self._demands[index:]),
        )

    def _may_fit(self, pools: Iterable[Pool], index: int) -> bool:
        """Whether there is room by mere counting: for each size, for as many as there are of that size or larger."""
        usable = [pool for pool in pools if pool.problem is None]
        sizes = sorted((max(1, demand.size_bytes) for demand in self._demands[index:]), reverse=True)
        return all(
            sum(_at_most(pool, size) for pool in usable) >= number
            for number, size in enumerate(sizes, start=1)
            if number == len(sizes) or sizes[number] < size
        ) and sum(_all_of(pool) for pool in usable) >= sum(sizes)


def _at_most(pool: Pool, size_bytes: int) -> int:
    """How many volumes of at least this size the pool could hold, whatever their layout."""
    if pool.type is DeviceType.DISK:
        return sum(disk.size_bytes >= size_bytes for disk in pool.disks)
    return pool.free_bytes // size_bytes


def _all_of(pool: Pool) -> int:
    return sum(disk.size_bytes for disk in pool.disks) if pool.type is DeviceType.DISK else pool.free_bytes
