"""What a node has left is never more than it said, and every order counts once: in the report, or off it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.capacity import (
    allocate,
    allocate_snapshot,
    available_bytes,
    cow_step_bytes,
    largest_volume_bytes,
    thin_free_bytes,
    without,
)
from ullage.errors import MIB, InsufficientCapacityError, OutOfRangeError
from ullage.kube.logical_volume import APPLIED, LogicalVolume, Phase, Status, order, snapshot_order
from ullage.kube.meta import Condition, Meta, timestamp
from ullage.kube.node_storage import READY, NodeStorage, StorageStatus, pool_status
from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Disk,
    Layout,
    LayoutKind,
    NodeName,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    SnapshotPolicy,
    StoreName,
    ThinUsage,
    VolumeId,
)
from ullage.names import snapshot_id
from ullage.stock import STALE_SECONDS, Candidate, choose, pools_left, why_unknown

EXTENT = 4 * MIB
HERE, ELSEWHERE = NodeName("n1"), NodeName("n2")
FAST, SAFE = DeviceClassName("fast"), DeviceClassName("safe")
MIRROR = Layout(kind=LayoutKind.RAID1, mirrors=1)
CLASSES = {
    FAST: DeviceClass(name=FAST, type=DeviceType.THICK),
    SAFE: DeviceClass(name=SAFE, type=DeviceType.THICK, layout=MIRROR),
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def thick(name: str, *extents: int, reserve: int = 0) -> Pool:
    """A volume group with so many free extents on each of its physical volumes."""
    return Pool(
        name=PoolName(name),
        store=StoreName(name),
        type=DeviceType.THICK,
        classes=(FAST, SAFE),
        total_bytes=sum(extents) * EXTENT,
        free_bytes=max(0, sum(extents) - reserve) * EXTENT,
        reserve_bytes=reserve * EXTENT,
        extent_bytes=EXTENT,
        physical_volumes=tuple(
            PhysicalVolume(name=f"/dev/{name}{number}", free_bytes=each * EXTENT) for number, each in enumerate(extents)
        ),
    )


def thin(name: str, extents: int) -> Pool:
    usage = ThinUsage(
        virtual_bytes=0,
        data_percent=0.0,
        metadata_percent=0.0,
        overprovision_ratio=Fraction(2),
        data_guard_percent=90,
        metadata_guard_percent=80,
    )
    pool = replace(thick(name, extents), type=DeviceType.THIN, physical_volumes=(), thin=usage)
    return replace(pool, free_bytes=thin_free_bytes(pool))


def files(name: str, extents: int) -> Pool:
    return replace(thick(name, extents), type=DeviceType.FILE, physical_volumes=())


def disks(name: str, *extents: int) -> Pool:
    found = tuple(Disk(name=f"/dev/{name}{number}", size_bytes=each * EXTENT) for number, each in enumerate(extents))
    return replace(thick(name, *extents), type=DeviceType.DISK, physical_volumes=(), disks=found)


def storage(*pools: Pool, revision: int = 10, node: NodeName = HERE) -> NodeStorage:
    return NodeStorage(
        metadata=Meta(name=node),
        status=StorageStatus(
            revision=revision, observed_at=timestamp(NOW), pools=tuple(pool_status(each, 0) for each in pools)
        ),
    )


def request(name: str, extents: int, device_class: DeviceClassName = FAST, source: str = "") -> CreateVolume:
    return CreateVolume(
        volume_id=VolumeId(name),
        device_class=device_class,
        size_bytes=extents * EXTENT,
        source=VolumeId(source) if source else None,
    )


def ordered(  # noqa: PLR0913 - a double of an object
    name: str,
    extents: int,
    device_class: DeviceClassName = FAST,
    *,
    seen_from: int | None = None,
    pool: str = "p0",
    node: NodeName = HERE,
    source: str = "",
) -> LogicalVolume:
    """An order; with `seen_from` one that is carried out, and in its node's report from that revision on."""
    asked = order(request(name, extents, device_class, source), node)
    if seen_from is None:
        return asked
    status = Status(phase=Phase.READY, pool=pool, size_bytes=extents * EXTENT, revision=seen_from)
    return msgspec.structs.replace(asked, status=status)


def left(report: NodeStorage, *volumes: LogicalVolume) -> dict[PoolName, Pool]:
    return pools_left(report, volumes, CLASSES)


lengths = st.lists(st.integers(0, 30), min_size=1, max_size=3)
some_pools = st.lists(
    st.builds(lambda extents, reserve: thick("", *extents, reserve=reserve), lengths, st.integers(0, 4))
    | lengths.map(lambda extents: disks("", *extents))
    | st.integers(0, 40).map(lambda extents: thin("", extents))
    | st.integers(0, 40).map(lambda extents: files("", extents)),
    min_size=1,
    max_size=3,
).map(lambda pools: [replace(pool, name=PoolName(f"p{number}")) for number, pool in enumerate(pools)])
some_volumes = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.sampled_from([FAST, SAFE]),
        st.sampled_from([None, 9, 10, 11]),
        st.sampled_from(["p0", "p1", "p9"]),
        st.sampled_from([HERE, HERE, ELSEWHERE]),
        st.integers(-3, 3),
    ),
    max_size=12,
).map(
    lambda all_of: [
        grown(ordered(f"v{number:02}", extents, name, seen_from=seen, pool=pool, node=node), by)
        for number, (extents, name, seen, pool, node, by) in enumerate(all_of)
    ]
)


def grown(volume: LogicalVolume, extents: int) -> LogicalVolume:
    """With a spec that many extents larger than what there is."""
    size_bytes = max(1, volume.spec.size_bytes + extents * EXTENT)
    return msgspec.structs.replace(volume, spec=msgspec.structs.replace(volume.spec, size_bytes=size_bytes))


@given(some_pools, some_volumes)
def test_there_is_never_more_left_than_was_reported(pools: list[Pool], volumes: list[LogicalVolume]) -> None:
    after = left(storage(*pools), *volumes)
    assert after.keys() == {pool.name for pool in pools}
    for before in pools:
        now = after[before.name]
        assert 0 <= now.free_bytes <= before.free_bytes
        assert set(now.disks) <= set(before.disks)
        assert all(
            0 <= one.free_bytes <= other.free_bytes
            for one, other in zip(now.physical_volumes, before.physical_volumes, strict=True)
        )
        for layout in (Layout(), MIRROR):
            assert largest_volume_bytes(now, layout) <= largest_volume_bytes(before, layout)
            assert available_bytes(now, layout) <= available_bytes(before, layout)


@given(some_pools, st.lists(st.tuples(st.integers(1, 12), st.sampled_from([FAST, SAFE])), max_size=10))
def test_orders_are_taken_off_as_their_agent_takes_them_one_after_the_other(
    pools: list[Pool], wanted: list[tuple[int, DeviceClassName]]
) -> None:
    """The first pool alone, so that there is no choice: what an agent would really allocate."""
    expected = pools[0]
    for extents, name in wanted:
        allocation = allocate(expected, CLASSES[name].layout, extents * EXTENT)
        if allocation is None:
            return  # out of date: the next test but one
        expected = without(expected, allocation)
    volumes = [ordered(f"v{number:02}", *each) for number, each in enumerate(wanted)]
    assert left(storage(pools[0]), *volumes) == {expected.name: expected}


@given(some_pools, some_volumes)
def test_what_is_in_the_report_is_not_taken_off_again(pools: list[Pool], volumes: list[LogicalVolume]) -> None:
    seen = [
        ordered(each.id, 3, seen_from=10, node=each.node) if each.is_ready and each.status.revision <= 10 else each
        for each in volumes
    ]
    others = [each for each in seen if not each.is_ready or each.status.revision > 10]
    assert left(storage(*pools), *seen) == left(storage(*pools), *others)


def test_an_order_that_does_not_fit_leaves_nothing_where_it_may_go_to() -> None:
    report = storage(thick("p0", 10), replace(thick("p1", 50), classes=(SAFE,)))
    after = left(report, ordered("big", 11))
    assert available_bytes(after[PoolName("p0")], Layout()) == 0
    assert after[PoolName("p1")] == report.pools[1]


@given(st.integers(1, 10), st.integers(1, 10))
def test_an_order_weighs_the_same_before_and_after_it_is_in_the_report(one: int, other: int) -> None:
    pool = thick("p0", 24)
    waiting = left(storage(pool), ordered("a", one), ordered("b", other))
    allocation = allocate(pool, Layout(), one * EXTENT)
    assert allocation is not None
    reported = storage(without(pool, allocation), revision=11)
    assert left(reported, ordered("a", one, seen_from=11), ordered("b", other)) == waiting
    assert left(storage(pool), ordered("a", one, seen_from=11), ordered("b", other)) == waiting


def test_a_condemned_volume_counts_until_it_is_gone_and_a_failed_one_not_at_all() -> None:
    asked = ordered("a", 4)
    condemned = msgspec.structs.replace(asked, metadata=Meta(name="a", deletion_timestamp=timestamp(NOW)))
    failed = msgspec.structs.replace(asked, status=Status(phase=Phase.FAILED))
    report = storage(thick("p0", 10))
    assert left(report, condemned)[PoolName("p0")].free_bytes == 6 * EXTENT
    assert left(report, failed)[PoolName("p0")].free_bytes == 10 * EXTENT


def test_what_a_volume_is_to_grow_by_is_taken_off_until_it_is_refused() -> None:
    there = ordered("a", 4, seen_from=10)
    report = storage(thick("p0", 10))
    growing = msgspec.structs.replace(grown(there, 3), metadata=Meta(name="a", generation=2), status=there.status)
    assert left(report, growing)[PoolName("p0")].free_bytes == 7 * EXTENT
    no = Condition(type=APPLIED, status="False", reason="InsufficientCapacity")
    status = msgspec.structs.replace(there.status, observed_generation=2, conditions=(no,))
    assert left(report, msgspec.structs.replace(growing, status=status))[PoolName("p0")].free_bytes == 10 * EXTENT


def test_a_snapshot_takes_the_room_its_class_gives_it_from_its_volumes_pool() -> None:
    policy = SnapshotPolicy(size_percent=20)
    classes = {FAST: replace(CLASSES[FAST], snapshots=policy)}
    pools = (thick("p1", 200), thick("p0", 100))
    there = ordered("a", 50, seen_from=10)
    taken = snapshot_order(snapshot_id("s"), there)
    after = pools_left(storage(*pools), (there, taken), classes)
    assert after[PoolName("p1")] == pools[0]
    assert after[PoolName("p0")].free_bytes == pools[1].free_bytes - cow_step_bytes(policy, EXTENT, 50 * EXTENT)


def test_a_copy_takes_its_room_where_its_source_is_and_a_thick_one_wherever_there_is_most() -> None:
    there = ordered("a", 5, seen_from=10)
    copy = ordered("b", 5, source="a")
    thin_pools = (thin("p0", 10), thin("p1", 100))
    after = left(storage(*thin_pools), there, copy)
    assert after[PoolName("p0")].free_bytes == thin_pools[0].free_bytes - 5 * EXTENT
    assert after[PoolName("p1")] == thin_pools[1]
    thick_pools = (thick("p0", 10), thick("p1", 100))
    frozen = allocate_snapshot(thick_pools[0], SnapshotPolicy(), 5 * EXTENT)
    assert frozen is not None
    after = left(storage(*thick_pools), there, copy)
    assert after == {
        PoolName("p0"): without(thick_pools[0], frozen),
        PoolName("p1"): replace(
            thick_pools[1],
            free_bytes=95 * EXTENT,
            physical_volumes=(PhysicalVolume(name="/dev/p10", free_bytes=95 * EXTENT),),
        ),
    }


# The choice of a node.


def candidate(node: str, *pools: Pool, unknown: str = "") -> Candidate:
    return Candidate(node=NodeName(node), pools={each.name: each for each in pools}, unknown=unknown)


def chosen(extents: int, *candidates: Candidate, device_class: DeviceClassName = FAST) -> NodeName:
    return choose(request("v", extents, device_class), CLASSES[device_class], candidates)


def test_the_node_with_most_room_afterwards_is_chosen_and_of_equals_the_first() -> None:
    assert chosen(2, candidate("a", thick("p0", 10)), candidate("b", thick("p0", 6), thick("p1", 6))) == "b"
    assert chosen(2, candidate("b", thick("p0", 10)), candidate("a", thick("p0", 10))) == "b"
    assert chosen(8, candidate("a", thick("p0", 6), thick("p1", 6)), candidate("b", thick("p0", 9))) == "b"


def test_room_is_counted_in_the_layout_of_the_class() -> None:
    one_disk, two_disks = candidate("a", thick("p0", 100)), candidate("b", thick("p0", 9, 9))
    assert chosen(2, one_disk, two_disks, device_class=SAFE) == "b"


def test_a_refusal_says_of_each_node_why() -> None:
    broken = replace(thick("p0", 10), problem=Problem(reason="Gone", message="it is gone"))
    with pytest.raises(InsufficientCapacityError) as refusal:
        chosen(
            30,
            candidate("a", thick("p0", 10)),
            candidate("b", broken),
            candidate("c", unknown="its agent is asleep"),
            candidate("d", thick("p0", 29)),
        )
    assert str(refusal.value) == (
        "No room for v: a: p0 has 40.0 MiB free after reserve, 120.0 MiB wanted; "
        "b: p0 is unavailable: it is gone; c: its agent is asleep; and 1 more nodes"
    )
    with pytest.raises(InsufficientCapacityError, match="there is no node to put it on"):
        chosen(1)
    with pytest.raises(InsufficientCapacityError, match="a: it has no pool of device class fast"):
        chosen(1, candidate("a", replace(thick("p0", 10), classes=(SAFE,))))


def test_a_limit_below_the_smallest_possible_size_is_out_of_range() -> None:
    odd = replace(request("v", 1), size_bytes=EXTENT + 1, limit_bytes=EXTENT + 2)
    with pytest.raises(OutOfRangeError, match=f"is {2 * EXTENT} bytes, the limit is {EXTENT + 2}"):
        choose(odd, CLASSES[FAST], [candidate("a", thick("p0", 10))])


def test_one_that_is_pinned_to_a_pool_goes_nowhere_else() -> None:
    pinned = replace(request("v", 5), pool=PoolName("p1"))
    roomy, right = candidate("a", thick("p0", 99)), candidate("b", thick("p1", 6))
    assert choose(pinned, CLASSES[FAST], [roomy, right]) == "b"


@given(st.lists(lengths, min_size=1, max_size=4), st.integers(1, 30))
def test_a_chosen_node_has_room(nodes: list[list[int]], extents: int) -> None:
    candidates = [candidate(f"n{number}", thick("p0", *each)) for number, each in enumerate(nodes)]
    fitting = _fitting(candidates, extents)
    if not fitting:
        with pytest.raises(InsufficientCapacityError):
            chosen(extents, *candidates)
    else:
        assert chosen(extents, *candidates) in fitting


def _fitting(candidates: Sequence[Candidate], extents: int) -> set[NodeName]:
    return {
        each.node
        for each in candidates
        if any(allocate(pool, Layout(), extents * EXTENT) for pool in each.pools.values())
    }


# Whether a report is to be believed.


@pytest.mark.parametrize(
    ("report", "why"),
    [
        (None, "its agent has not reported any storage"),
        (NodeStorage(metadata=Meta(name=HERE)), "its agent has not reported its storage yet"),
        (storage(), ""),
    ],
)
def test_a_node_without_a_report_is_unknown(report: NodeStorage | None, why: str) -> None:
    assert why_unknown(report, NOW) == why


def test_a_report_that_nobody_renews_is_unknown() -> None:
    assert why_unknown(storage(), NOW + timedelta(seconds=STALE_SECONDS)) == ""
    assert "last heard of at 2026-01-01T00:00:00Z" in why_unknown(storage(), NOW + timedelta(seconds=STALE_SECONDS + 1))


def test_an_agent_that_is_not_ready_gets_no_orders() -> None:
    asleep = Condition(type=READY, status="False", reason="Starting", message="it is starting")
    report = storage()
    status = msgspec.structs.replace(report.status, conditions=(asleep,))
    assert why_unknown(msgspec.structs.replace(report, status=status), NOW) == "its agent is not ready: it is starting"
