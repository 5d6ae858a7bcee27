"""Volumes that go together: what is placed fits, what does not fit has been tried in every way."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.capacity import Allocation, allocate, without
from ullage.errors import MIB
from ullage.model import DeviceType, Disk, Layout, LayoutKind, PhysicalVolume, Pool, PoolName, Problem, StoreName
from ullage.placement import EXACT_VOLUMES, Demand, Search, place

EXTENT = 4 * MIB
LAYOUTS = [
    Layout(),
    Layout(kind=LayoutKind.STRIPED, stripes=2),
    Layout(kind=LayoutKind.RAID1, mirrors=1),
    Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True),
]
NAMES = ["p0", "p1", "p2"]


def group(name: str, *extents: int, reserve: int = 0, scattered: int = 0) -> Pool:
    """A volume group with so many free extents on each of its physical volumes."""
    return Pool(
        name=PoolName(name),
        store=StoreName(name),
        type=DeviceType.THICK,
        classes=(),
        total_bytes=sum(extents) * EXTENT,
        free_bytes=max(0, sum(extents) - reserve) * EXTENT,
        reserve_bytes=reserve * EXTENT,
        extent_bytes=EXTENT,
        physical_volumes=tuple(
            PhysicalVolume(
                name=f"/dev/{name}{number}", free_bytes=each * EXTENT, scattered_bytes=min(each, scattered) * EXTENT
            )
            for number, each in enumerate(extents)
        ),
    )


def whole_disks(name: str, *extents: int) -> Pool:
    disks = tuple(Disk(name=f"/dev/{name}{number}", size_bytes=each * EXTENT) for number, each in enumerate(extents))
    return replace(group(name, *extents), type=DeviceType.DISK, physical_volumes=(), disks=disks)


def demand(key: str, extents: int, *pools: str, layout: Layout | None = None) -> Demand:
    return Demand(
        key=key,
        size_bytes=extents * EXTENT,
        layout=layout or Layout(),
        pools=tuple(PoolName(pool) for pool in pools),
    )


lengths = st.lists(st.integers(0, 12), min_size=1, max_size=3)
thick_pools = st.builds(
    lambda extents, reserve, scattered: group("", *extents, reserve=reserve, scattered=scattered),
    lengths,
    st.integers(0, 3),
    st.integers(0, 4),
)
some_pools = st.lists(
    thick_pools | lengths.map(lambda extents: whole_disks("", *extents)), min_size=1, max_size=len(NAMES)
).map(
    lambda pools: {PoolName(name): replace(pool, name=PoolName(name)) for name, pool in zip(NAMES, pools, strict=False)}
)


def some_demands(most: int) -> st.SearchStrategy[list[Demand]]:
    wish = st.tuples(
        st.integers(1, 12), st.sampled_from(LAYOUTS), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3)
    )
    return st.lists(wish, max_size=most).map(
        lambda wishes: [
            demand(f"d{number}", extents, *pools, layout=layout)
            for number, (extents, layout, pools) in enumerate(wishes)
        ]
    )


def replayed(
    demands: Mapping[str, Demand], placed: Mapping[str, Allocation], pools: Mapping[PoolName, Pool]
) -> dict[PoolName, Pool]:
    """The pools after each volume has been allocated where it was placed, in that order."""
    left = dict(pools)
    for key, allocation in placed.items():
        assert allocation.pool in demands[key].pools
        assert allocation.size_bytes >= demands[key].size_bytes
        assert allocate(left[allocation.pool], demands[key].layout, demands[key].size_bytes) == allocation
        left[allocation.pool] = without(left[allocation.pool], allocation)
    return left


def fits_somehow(ordered: Sequence[Demand], pools: Mapping[PoolName, Pool]) -> bool:
    """Every assignment of every volume, tried without any cleverness."""
    choices = [[name for name in dict.fromkeys(each.pools) if name in pools] for each in ordered]
    for assignment in itertools.product(*choices):
        left = dict(pools)
        for each, name in zip(ordered, assignment, strict=True):
            allocation = allocate(left[name], each.layout, each.size_bytes)
            if allocation is None:
                break
            left[name] = without(left[name], allocation)
        else:
            return True
    return False


@given(some_demands(5), some_pools)
def test_what_is_placed_fits_and_none_means_that_no_assignment_does(
    demands: list[Demand], pools: dict[PoolName, Pool]
) -> None:
    placed = place(demands, pools)
    if placed is None:
        ordered = sorted(demands, key=lambda each: (not each.layout.is_spread, -each.size_bytes, each.key))
        assert not fits_somehow(ordered, pools)
    else:
        assert placed.keys() == {each.key for each in demands}
        replayed({each.key: each for each in demands}, placed, pools)


@given(some_demands(14), some_pools)
def test_many_volumes_are_never_promised_more_than_there_is(demands: list[Demand], pools: dict[PoolName, Pool]) -> None:
    placed = place(demands, pools)
    if placed is not None:
        left = replayed({each.key: each for each in demands}, placed, pools)
        for pool in left.values():
            assert all(volume.free_bytes >= 0 for volume in pool.physical_volumes)
            if pool.type is DeviceType.THICK:
                free = sum(volume.free_bytes for volume in pool.physical_volumes)
                assert free >= min(pool.reserve_bytes, pools[pool.name].free_bytes + pool.reserve_bytes) or (
                    pool == pools[pool.name]
                )


def test_two_volumes_that_fit_alone_and_not_together_are_refused() -> None:
    pools = {PoolName("p0"): group("p0", 10)}
    assert place([demand("a", 6, "p0")], pools) is not None
    assert place([demand("a", 6, "p0"), demand("b", 6, "p0")], pools) is None
    assert place([demand("a", 6, "p0"), demand("b", 4, "p0")], pools) is not None


def test_the_first_choice_is_taken_back_when_another_needs_it() -> None:
    """The larger goes first, to the pool with more room: which is the only one that the smaller may use."""
    demands = [demand("a", 6, "p0", "p1"), demand("b", 5, "p0")]
    for other in (7, 10):  # 10: the pools are alike, but not for b
        pools = {PoolName("p0"): group("p0", 10), PoolName("p1"): group("p1", other)}
        placed = place(demands, pools)
        assert placed is not None
        assert {key: allocation.pool for key, allocation in placed.items()} == {"a": "p1", "b": "p0"}


def test_pools_with_equal_room_on_other_physical_volumes_are_not_alike() -> None:
    striped, mirror = LAYOUTS[1], LAYOUTS[2]
    pools = {PoolName("p0"): group("p0", 6, 6), PoolName("p1"): group("p1", 4, 4, 4)}
    demands = [demand("a", 8, "p0", "p1", layout=striped), demand("b", 5, "p0", "p1", layout=mirror)]
    placed = place(demands, pools)
    assert placed is not None
    assert {key: allocation.pool for key, allocation in placed.items()} == {"a": "p1", "b": "p0"}


def test_exactly_eight_volumes_are_packed_where_best_fit_would_fail() -> None:
    """Two bins of 20 hold 8,6,6 and 7,7,3,3 - largest into the roomiest would not find it."""
    pools = {PoolName(name): group(name, 20) for name in ("p0", "p1")}
    sizes = (8, 6, 6, 7, 7, 3, 2, 1)
    demands = [demand(f"d{number}", size, "p0", "p1") for number, size in enumerate(sizes)]
    assert len(demands) == EXACT_VOLUMES
    assert place(demands, pools) is not None
    assert place([*demands[:-1], demand("d7", 2, "p0", "p1")], pools) is None


def test_past_eight_volumes_the_tightest_pool_goes_first() -> None:
    pools = {PoolName("p0"): group("p0", 100), PoolName("p1"): group("p1", 9)}
    placed = place([demand(f"d{number}", 1, "p0", "p1") for number in range(EXACT_VOLUMES + 1)], pools)
    assert placed is not None
    assert {allocation.pool for allocation in placed.values()} == {"p1"}


def test_volumes_take_disks_by_count_and_not_by_bytes() -> None:
    pools = {PoolName("p0"): whole_disks("p0", 100, 100)}
    small = [demand(f"d{number}", 1, "p0") for number in range(3)]
    assert place(small[:2], pools) is not None
    assert place(small, pools) is None


def test_a_pool_with_a_problem_and_a_pool_that_is_not_there_take_nothing() -> None:
    broken = replace(group("p0", 10), problem=Problem(reason="Gone", message="gone"))
    assert place([demand("a", 1, "p0", "p9")], {broken.name: broken}) is None
    assert place([], {}) == {}


@pytest.mark.parametrize("number_of_pools", [5, 40])
@pytest.mark.parametrize("is_equal", [True, False])
def test_the_search_stays_small_on_nodes_with_many_pools(number_of_pools: int, *, is_equal: bool) -> None:
    """Eight volumes into many pools: whether they fit or not, the steps are counted in tens, not in 40^8."""
    names = [f"p{number}" for number in range(number_of_pools)]
    pools = {PoolName(name): group(name, 20 if is_equal else 20 + number) for number, name in enumerate(names)}
    fitting = Search([demand(f"d{number}", 12 + number % 3, *names[:8]) for number in range(8)])
    assert (fitting.place(pools) is not None) is (number_of_pools >= EXACT_VOLUMES)
    assert fitting.steps <= 100
    # One volume too many for the pools that all of them may use: found by counting.
    crowded = Search([demand(f"d{number}", 16, *names[:4]) for number in range(5)])
    assert crowded.place({name: pools[name] for name in list(pools)[:4]}) is None
    assert crowded.steps <= 100


@given(st.lists(st.integers(1, 12), min_size=8, max_size=8), st.lists(st.integers(8, 24), min_size=2, max_size=6))
def test_the_search_is_bounded_however_the_sizes_fall(sizes: list[int], rooms: list[int]) -> None:
    """Where counting leaves it open, equal states are met once: far from the 6^8 assignments there are."""
    names = [f"p{number}" for number in range(len(rooms))]
    pools = {PoolName(name): group(name, room) for name, room in zip(names, rooms, strict=True)}
    ordered = sorted(sizes, reverse=True)
    search = Search([demand(f"d{number}", size, *names) for number, size in enumerate(ordered)])
    search.place(pools)
    assert search.steps <= 5000


def test_equal_pools_and_equal_states_are_tried_once() -> None:
    """Three of 5 cannot go where each of five pools has a 6, though by counting they could."""
    names = [f"p{number}" for number in range(6)]
    pools = {PoolName(name): group(name, 10) for name in names}
    sizes = (6, 6, 6, 6, 6, 5, 5, 5)
    search = Search([demand(f"d{number}", size, *names) for number, size in enumerate(sizes)])
    assert search.place(pools) is None
    assert search.steps <= 8
    # The same with every pool unlike every other: what has failed once is not tried in another order.
    unlike = {PoolName(name): group(name, 10, 1, 0, *[0] * number) for number, name in enumerate(names)}
    mirror = Layout(kind=LayoutKind.STRIPED, stripes=1)
    search = Search([demand(f"d{number}", size, *names, layout=mirror) for number, size in enumerate(sizes)])
    assert search.place(unlike) is None
    assert search.steps <= 300


def test_mirrors_that_counting_alone_would_let_in_are_given_up_at_once() -> None:
    names = [f"p{number}" for number in range(12)]
    pools = {PoolName(name): group(name, 11) for name in names}  # one physical volume each: no place for a mirror
    mirror = Layout(kind=LayoutKind.RAID1, mirrors=1)
    hopeless = Search([demand(f"d{number}", 2, *names, layout=mirror) for number in range(8)])
    assert hopeless.place(pools) is None
    assert hopeless.steps == 0
