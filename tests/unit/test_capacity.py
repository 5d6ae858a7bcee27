"""What a volume costs and what fits where: the promises that hold for every layout, extent and history."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ullage.capacity import (
    allocate,
    allocate_growth,
    allocate_snapshot,
    cost_bytes,
    cow_step_bytes,
    image_extents,
    largest_growth_bytes,
    largest_volume_bytes,
    rounded_bytes,
    shortage,
    thin_free_bytes,
    whole_cow_bytes,
    without,
)
from ullage.errors import GIB, KIB, MIB, TIB
from ullage.model import (
    DeviceType,
    Disk,
    Layout,
    LayoutKind,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    SnapshotPolicy,
    StoreName,
    ThinUsage,
)

LINEAR = Layout()
INTEGRITY = Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True)
LAYOUTS = [
    LINEAR,
    Layout(kind=LayoutKind.STRIPED, stripes=2),
    Layout(kind=LayoutKind.STRIPED, stripes=3),
    Layout(kind=LayoutKind.RAID1, mirrors=1),
    Layout(kind=LayoutKind.RAID1, mirrors=2),
    Layout(kind=LayoutKind.RAID5, stripes=2),
    Layout(kind=LayoutKind.RAID6, stripes=3),
    Layout(kind=LayoutKind.RAID10, stripes=2, mirrors=1),
    INTEGRITY,
    Layout(kind=LayoutKind.RAID5, stripes=2, integrity=True),
    Layout(kind=LayoutKind.RAID6, stripes=3, integrity=True),
    Layout(kind=LayoutKind.RAID10, stripes=2, mirrors=1, integrity=True),
]
SPREAD = [layout for layout in LAYOUTS if layout.is_spread]

layouts = st.sampled_from(LAYOUTS)
extents = st.sampled_from([MIB, 4 * MIB, 8 * MIB, 32 * MIB, 256 * MIB])
counts = st.integers(0, 600) | st.integers(0, 1 << 20)


@st.composite
def groups(draw: st.DrawFn) -> Pool:
    """A volume group with uneven, broken-up free space and a reserve that need not be whole extents."""
    extent = draw(extents)
    volumes = []
    for number in range(draw(st.integers(1, 7))):
        free = draw(counts)
        scattered = draw(st.integers(0, free))
        volumes.append(
            PhysicalVolume(name=f"/dev/{number}", free_bytes=free * extent, scattered_bytes=scattered * extent)
        )
    free_bytes = sum(volume.free_bytes for volume in volumes)
    reserve = draw(st.just(0) | st.integers(0, 40 * extent))
    return thick(extent, volumes, reserve, total_bytes=free_bytes)


def thick(extent: int, volumes: list[PhysicalVolume], reserve: int = 0, total_bytes: int = 0) -> Pool:
    return Pool(
        name=PoolName("vg0"),
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        classes=(),
        total_bytes=total_bytes,
        free_bytes=max(0, sum(volume.free_bytes for volume in volumes) - reserve),
        reserve_bytes=reserve,
        extent_bytes=extent,
        physical_volumes=tuple(volumes),
    )


def thin(**usage: float | Fraction) -> Pool:
    """A thin pool of 100 extents of 4 MiB, nothing promised, ratio 1, guards at 90 and 80."""
    defaults = ThinUsage(
        virtual_bytes=0,
        data_percent=0.0,
        metadata_percent=0.0,
        overprovision_ratio=Fraction(1),
        data_guard_percent=90,
        metadata_guard_percent=80,
    )
    pool = Pool(
        name=PoolName("vg0/pool0"),
        store=StoreName("vg0"),
        type=DeviceType.THIN,
        classes=(),
        total_bytes=400 * MIB,
        free_bytes=0,
        extent_bytes=4 * MIB,
        thin=replace(defaults, **usage),  # type: ignore[arg-type] # fields by name, checked at run time
    )
    return replace(pool, free_bytes=thin_free_bytes(pool))


def disks(*sizes: int) -> Pool:
    return Pool(
        name=PoolName("disks"),
        store=StoreName("disks"),
        type=DeviceType.DISK,
        classes=(),
        total_bytes=sum(sizes),
        free_bytes=sum(sizes),
        extent_bytes=1,
        disks=tuple(Disk(name=f"/dev/{number}", size_bytes=size) for number, size in enumerate(sizes)),
    )


def step(pool: Pool, layout: Layout) -> int:
    return pool.extent_bytes * layout.stripes


def promised(pool: Pool) -> int:
    """What is free and not reserved, from the physical volumes alone."""
    return max(0, sum(volume.free_bytes for volume in pool.physical_volumes) - pool.reserve_bytes)


@given(layouts, extents, st.integers(0, 1 << 45), st.integers(0, 1 << 32))
def test_a_size_is_rounded_up_once_and_to_whole_extents_in_each_stripe(
    layout: Layout, extent: int, size: int, minimum: int
) -> None:
    rounded = rounded_bytes(layout, extent, size, minimum)
    assert rounded >= max(size, minimum, 1)
    assert rounded % (extent * layout.stripes) == 0
    assert rounded_bytes(layout, extent, rounded) == rounded
    if not layout.integrity:
        assert rounded - max(size, minimum, 1) < extent * layout.stripes


@given(layouts, extents, st.integers(1, 1 << 45))
def test_a_volume_costs_whole_extents_on_each_of_its_physical_volumes_and_never_less_than_its_size(
    layout: Layout, extent: int, size: int
) -> None:
    cost = cost_bytes(layout, extent, size)
    assert cost % (extent * layout.images) == 0
    copies = Fraction(layout.images, layout.stripes)
    assert cost >= copies * rounded_bytes(layout, extent, size)
    if not layout.is_raid:
        assert cost == rounded_bytes(layout, extent, size)
    assert cost_bytes(layout, extent, size + 1) >= cost


@pytest.mark.parametrize(
    ("layout", "extent", "size", "per_image"),
    [
        (LAYOUTS[3], 4 * MIB, 200 * MIB, 204 * MIB),
        (INTEGRITY, 4 * MIB, 200 * MIB, 212 * MIB),
        (INTEGRITY, 4 * MIB, 496 * MIB, (496 + 4 + 8) * MIB),
        (INTEGRITY, 4 * MIB, 500 * MIB, (500 + 4 + 12) * MIB),
        (INTEGRITY, 4 * MIB, 512 * MIB, (512 + 4 + 12) * MIB),
        (INTEGRITY, 4 * MIB, 516 * MIB, (516 + 4 + 16) * MIB),
        (INTEGRITY, 4 * MIB, 1024 * MIB, (1024 + 4 + 20) * MIB),
        (INTEGRITY, 4 * MIB, 1028 * MIB, (1028 + 4 + 44) * MIB),
        (INTEGRITY, 4 * MIB, 4096 * MIB, (4096 + 4 + 68) * MIB),
        (INTEGRITY, 4 * MIB, 4100 * MIB, (4100 + 4 + 100) * MIB),
        (INTEGRITY, 8 * MIB, 504 * MIB, (504 + 8 + 8) * MIB),  # 12 MiB are one extent of 8 MiB: rounded down
        (INTEGRITY, 32 * MIB, 1 * MIB, (1056 + 32 + 32) * MIB),  # the least that LVM makes
        (LAYOUTS[3], 128 * KIB, 1920 * GIB, 1920 * GIB + 128 * KIB),
        (LAYOUTS[3], 128 * KIB, 1920 * GIB + 2 * MIB, 1920 * GIB + 2 * MIB + 256 * KIB),
        (LAYOUTS[3], 4 * MIB, 100 * TIB, 100 * TIB + 4 * MIB),
    ],
)
def test_metadata_costs_what_lvm_was_seen_to_take(layout: Layout, extent: int, size: int, per_image: int) -> None:
    assert cost_bytes(layout, extent, size) == 2 * per_image


@given(groups(), layouts)
def test_what_is_largest_fits_and_one_byte_more_does_not(pool: Pool, layout: Layout) -> None:
    largest = largest_volume_bytes(pool, layout)
    assert largest % step(pool, layout) == 0
    assert allocate(pool, layout, largest + 1) is None
    if not largest:
        return
    allocation = allocate(pool, layout, largest)
    assert allocation is not None
    assert allocation.size_bytes == largest
    taken = {share.physical_volume: share.size_bytes for share in allocation.taken}
    assert sum(taken.values()) == cost_bytes(layout, pool.extent_bytes, largest) <= promised(pool)
    assert all(taken.get(volume.name, 0) <= volume.free_bytes for volume in pool.physical_volumes)


@given(groups(), layouts)
def test_one_step_more_than_the_largest_would_break_a_limit(pool: Pool, layout: Layout) -> None:
    """Not too little is promised either: found by counting, without our own search."""
    more = rounded_bytes(layout, pool.extent_bytes, largest_volume_bytes(pool, layout) + 1)
    if not layout.is_spread:
        assert more > promised(pool)
        return
    image = image_extents(layout, pool.extent_bytes, more // step(pool, layout)) * pool.extent_bytes
    wants_one_run = layout.integrity or layout.parity
    rooms = [volume.run_bytes if wants_one_run else volume.free_bytes for volume in pool.physical_volumes]
    assert image * layout.images > promised(pool) or sum(room >= image for room in rooms) < layout.images


@given(groups(), layouts, st.floats(0.01, 1))
def test_a_spread_volume_takes_the_same_from_as_many_physical_volumes_as_it_has_images(
    pool: Pool, layout: Layout, part: float
) -> None:
    allocation = allocate(pool, layout, max(1, int(largest_volume_bytes(pool, layout) * part)))
    assume(allocation is not None)
    assert allocation is not None
    assert len(set(allocation.physical_volumes)) == len(allocation.taken)
    if layout.is_spread:
        assert len(allocation.taken) == layout.images
        assert len({share.size_bytes for share in allocation.taken}) == 1
    else:
        free = {volume.name: volume.free_bytes for volume in pool.physical_volumes}
        # What the agent relies on: all but the last are taken whole, and none is touched that is not needed.
        assert all(share.size_bytes == free[share.physical_volume] for share in allocation.taken[:-1])
        assert all(share.size_bytes > 0 for share in allocation.taken)


@given(groups(), st.lists(st.tuples(layouts, st.floats(0.0, 1.2)), max_size=12))
def test_whatever_is_taken_in_whatever_order_every_number_stays_true_and_the_reserve_stays_free(
    pool: Pool, wishes: list[tuple[Layout, float]]
) -> None:
    before = sum(volume.free_bytes for volume in pool.physical_volumes)
    given_out = 0
    for layout, part in wishes:
        allocation = allocate(pool, layout, max(1, int(largest_volume_bytes(pool, layout) * part)))
        if allocation is None:
            continue
        given_out += sum(share.size_bytes for share in allocation.taken)
        pool = without(pool, allocation)
        assert all(volume.free_bytes >= 0 for volume in pool.physical_volumes)
        assert all(0 <= volume.run_bytes <= volume.free_bytes for volume in pool.physical_volumes)
        assert pool.free_bytes == promised(pool)
        assert sum(volume.free_bytes for volume in pool.physical_volumes) == before - given_out
        assert before - given_out >= min(before, pool.reserve_bytes)


@given(groups(), st.sampled_from(SPREAD), st.floats(0.01, 0.9), st.floats(0.0, 1.0))
def test_a_spread_volume_grows_on_its_own_physical_volumes_only_and_to_the_last_extent(
    pool: Pool, layout: Layout, first: float, second: float
) -> None:
    made = allocate(pool, layout, max(1, int(largest_volume_bytes(pool, layout) * first)))
    assume(made is not None)
    assert made is not None
    left = without(pool, made)
    own = made.physical_volumes
    most = largest_growth_bytes(left, layout, own, made.size_bytes)
    assert most >= made.size_bytes
    assert allocate_growth(left, layout, own, made.size_bytes, most + 1) is None
    wanted = made.size_bytes + int((most - made.size_bytes) * second)
    growth = allocate_growth(left, layout, own, made.size_bytes, wanted)
    assert growth is not None
    assert wanted <= growth.size_bytes <= most
    assert set(growth.physical_volumes) <= set(own)
    together = sum(share.size_bytes for each in (made, growth) for share in each.taken)
    assert together == cost_bytes(layout, pool.extent_bytes, growth.size_bytes) <= promised(pool)
    room = {volume.name: volume.free_bytes for volume in left.physical_volumes}
    assert all(0 < share.size_bytes <= room[share.physical_volume] for share in growth.taken)


@given(groups(), st.floats(0.01, 1.0))
def test_a_linear_volume_grows_as_far_as_there_is_room_anywhere(pool: Pool, part: float) -> None:
    made = allocate(pool, LINEAR, max(1, int(largest_volume_bytes(pool, LINEAR) * part)))
    assume(made is not None)
    assert made is not None
    left = without(pool, made)
    most = largest_growth_bytes(left, LINEAR, made.physical_volumes, made.size_bytes)
    assert most == largest_volume_bytes(pool, LINEAR)
    assert allocate_growth(left, LINEAR, made.physical_volumes, made.size_bytes, most + 1) is None
    growth = allocate_growth(left, LINEAR, made.physical_volumes, made.size_bytes, most)
    assert growth is not None
    assert growth.size_bytes == most
    assert sum(share.size_bytes for share in growth.taken) == most - made.size_bytes


def test_growth_leaves_the_reserve_free() -> None:
    pool = thick(4 * MIB, [PhysicalVolume(name=f"/dev/{name}", free_bytes=40 * MIB) for name in "ab"], 60 * MIB)
    assert largest_growth_bytes(pool, LAYOUTS[3], ["/dev/a", "/dev/b"], 4 * MIB) == 12 * MIB
    assert largest_growth_bytes(pool, LINEAR, ["/dev/a"], 4 * MIB) == 24 * MIB


def test_growing_to_less_takes_nothing() -> None:
    pool = thick(4 * MIB, [PhysicalVolume(name="/dev/a", free_bytes=40 * MIB)])
    growth = allocate_growth(pool, LINEAR, ["/dev/a"], 16 * MIB, 8 * MIB)
    assert growth is not None
    assert (growth.size_bytes, growth.taken) == (16 * MIB, ())


def test_a_volume_whose_physical_volume_is_no_longer_offered_does_not_grow_elsewhere() -> None:
    pool = thick(4 * MIB, [PhysicalVolume(name=f"/dev/{name}", free_bytes=GIB) for name in "abc"])
    mirror = LAYOUTS[3]
    assert allocate_growth(pool, mirror, ["/dev/a", "/dev/gone"], 4 * MIB, 8 * MIB) is None
    assert largest_growth_bytes(pool, mirror, ["/dev/a", "/dev/gone"], 4 * MIB) == 4 * MIB


def test_integrity_and_parity_want_one_run_and_other_layouts_take_fragments() -> None:
    pieces = [PhysicalVolume(name=f"/dev/{name}", free_bytes=400 * MIB, scattered_bytes=360 * MIB) for name in "abc"]
    pool = thick(4 * MIB, pieces)
    assert largest_volume_bytes(pool, LAYOUTS[2]) == 3 * 400 * MIB
    assert largest_volume_bytes(pool, LAYOUTS[5]) == 2 * 36 * MIB
    assert largest_growth_bytes(pool, LAYOUTS[5], [volume.name for volume in pieces], 8 * MIB) == 88 * MIB
    assert largest_volume_bytes(pool, LAYOUTS[3]) == 396 * MIB
    assert largest_volume_bytes(pool, INTEGRITY) == 28 * MIB  # of 40: 4 for RAID, 8 for integrity


def test_past_four_tebibytes_small_extents_leave_room_for_a_bitmap_that_may_still_grow() -> None:
    extent = 128 * KIB
    pool = thick(extent, [PhysicalVolume(name=f"/dev/{name}", free_bytes=10 * extent) for name in "ab"])
    mirror = LAYOUTS[3]
    assert largest_growth_bytes(pool, mirror, ["/dev/0", "/dev/b"], TIB) == TIB
    assert largest_growth_bytes(pool, mirror, ["/dev/a", "/dev/b"], 5 * TIB) == 5 * TIB + 8 * extent
    assert largest_growth_bytes(replace(pool, extent_bytes=MIB), mirror, ["/dev/a", "/dev/b"], 5 * TIB) == 5 * TIB + MIB


@given(
    st.integers(0, 2000).map(lambda extents: extents * 4 * MIB),
    st.fractions(1, 20, max_denominator=100),
    st.integers(0, 500 * MIB),
)
def test_a_thin_pool_promises_its_ratio_and_not_a_byte_more(virtual: int, ratio: Fraction, reserve: int) -> None:
    pool = replace(thin(virtual_bytes=virtual, overprovision_ratio=ratio), reserve_bytes=reserve)
    pool = replace(pool, free_bytes=thin_free_bytes(pool))
    limit = max(0, pool.total_bytes - reserve) * ratio
    largest = largest_volume_bytes(pool, LINEAR)
    assert allocate(pool, LINEAR, largest + 1) is None
    assert largest == 0 or virtual + largest <= limit
    assert virtual + largest + pool.extent_bytes > limit
    if largest:
        allocation = allocate(pool, LINEAR, largest)
        assert allocation is not None
        after = without(pool, allocation)
        assert after.free_bytes == thin_free_bytes(after) == 0


@pytest.mark.parametrize(
    ("usage", "is_open"),
    [
        ({"data_percent": 89.99}, True),
        ({"data_percent": 90.0}, False),
        ({"metadata_percent": 79.99}, True),
        ({"metadata_percent": 80.0}, False),
        ({"overprovision_ratio": Fraction(1, 2), "virtual_bytes": 400 * MIB}, False),
    ],
)
def test_a_thin_pool_at_a_guard_or_past_its_ratio_takes_nothing(usage: dict[str, float], *, is_open: bool) -> None:
    pool = thin(**usage)
    assert thin_free_bytes(pool) == pool.free_bytes >= 0
    assert (allocate(pool, LINEAR, 1) is not None) is is_open


def test_a_spread_layout_of_a_class_means_nothing_to_a_thin_volume() -> None:
    assert largest_volume_bytes(thin(), LAYOUTS[5]) == 400 * MIB


@pytest.mark.parametrize(
    ("extent", "size", "whole"),
    [
        (4 * MIB, 4 * MIB, 8 * MIB),
        (4 * MIB, 64 * MIB, 68 * MIB),
        (4 * MIB, 252 * MIB, 256 * MIB),
        (4 * MIB, 500 * MIB, 504 * MIB),
        (128 * KIB, 1024 * KIB, 1152 * KIB),
        (128 * KIB, 1920 * KIB, 2048 * KIB),
        (128 * KIB, 256 * MIB, 256 * MIB + 256 * KIB),
    ],
)
def test_all_the_room_of_a_thick_snapshot_is_the_most_that_lvm_was_seen_to_give(
    extent: int, size: int, whole: int
) -> None:
    assert whole_cow_bytes(extent, size) == whole


@given(extents, st.integers(1, 1 << 45), st.integers(1, 100))
def test_steps_of_a_thick_snapshot_are_whole_extents_and_never_more_than_all(
    extent: int, size: int, percent: int
) -> None:
    whole = whole_cow_bytes(extent, size)
    step_bytes = cow_step_bytes(SnapshotPolicy(size_percent=percent), extent, size)
    assert whole > size
    assert 0 < step_bytes <= whole
    assert step_bytes % extent == whole % extent == 0
    assert step_bytes * 100 >= whole * percent
    assert cow_step_bytes(SnapshotPolicy(), extent, size) == whole


@given(groups(), st.integers(1, 100), st.integers(1, 1 << 40))
def test_a_thick_snapshot_takes_its_room_from_the_pool_or_is_not_taken(pool: Pool, percent: int, size: int) -> None:
    policy = SnapshotPolicy(size_percent=percent)
    wanted = cow_step_bytes(policy, pool.extent_bytes, size)
    found = allocate_snapshot(pool, policy, size)
    assert (found is None) == (wanted > pool.free_bytes // pool.extent_bytes * pool.extent_bytes)
    if found is not None:
        assert found.size_bytes == sum(share.size_bytes for share in found.taken) == wanted


def test_a_snapshot_of_a_thin_volume_is_promised_its_whole_size() -> None:
    found = allocate_snapshot(thin(), SnapshotPolicy(size_percent=10), 8 * MIB)
    assert found is not None
    assert (found.size_bytes, found.taken) == (8 * MIB, ())


def test_disks_are_counted_and_the_smallest_that_is_large_enough_goes_first() -> None:
    pool = disks(100, 50, 70, 70)
    for wanted, given_bytes in ((60, 70), (60, 70), (10, 50), (60, 100)):
        allocation = allocate(pool, LINEAR, wanted)
        assert allocation is not None
        assert allocation.size_bytes == given_bytes
        pool = without(pool, allocation)
    assert pool.disks == ()
    assert pool.free_bytes == 0
    assert allocate(pool, LINEAR, 1) is None
    assert allocate(disks(100, 100), LINEAR, 101) is None
    assert largest_volume_bytes(disks(100, 100), LINEAR) == 100


@given(st.sampled_from(LAYOUTS))
def test_a_pool_with_a_problem_takes_nothing(layout: Layout) -> None:
    pool = thick(4 * MIB, [PhysicalVolume(name=f"/dev/{number}", free_bytes=8 * GIB) for number in range(6)])
    broken = replace(pool, problem=Problem(reason="Gone", message="it is gone"))
    assert allocate(pool, layout, GIB) is not None
    assert allocate(broken, layout, GIB) is None
    own = [volume.name for volume in pool.physical_volumes][: layout.images]
    assert allocate_growth(broken, layout, own, GIB, 2 * GIB) is None
    assert largest_growth_bytes(broken, layout, own, GIB) == GIB
    assert shortage(broken, layout, GIB) == "vg0 is unavailable: it is gone"


@pytest.mark.parametrize(
    ("pool", "layout", "sentence"),
    [
        (
            thick(4 * MIB, [PhysicalVolume(name="/dev/a", free_bytes=3 * GIB)], reserve=GIB),
            LINEAR,
            "vg0 has 2.0 GiB free after reserve, 10.0 GiB wanted",
        ),
        (
            thick(4 * MIB, [PhysicalVolume(name="/dev/a", free_bytes=30 * GIB)]),
            Layout(kind=LayoutKind.RAID10, stripes=2, mirrors=1),
            "vg0 has 1 physical volumes, raid10 with 2 stripes and 1 mirrors needs 4",
        ),
        (
            thick(4 * MIB, [PhysicalVolume(name=f"/dev/{size}", free_bytes=size * GIB) for size in (3, 30)]),
            LAYOUTS[3],
            "vg0 has 33.0 GiB free after reserve, on 2 physical volumes: 2.9 GiB as raid1, 10.0 GiB wanted",
        ),
        (disks(GIB, 2 * GIB), LINEAR, "disks has 2 free disks, the largest 2.0 GiB, 10.0 GiB wanted"),
        (thin(data_percent=91.5), LINEAR, "vg0/pool0 is 91.5 % full, its guard is 90 %"),
        (thin(metadata_percent=80.0), LINEAR, "vg0/pool0's metadata is 80.0 % full, its guard is 80 %"),
        (thin(), LINEAR, "vg0/pool0 has 400.0 MiB free after reserve, 10.0 GiB wanted"),
    ],
)
def test_a_shortage_is_told_with_its_numbers(pool: Pool, layout: Layout, sentence: str) -> None:
    assert shortage(pool, layout, 10 * GIB) == sentence
