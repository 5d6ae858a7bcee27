"""What device classes make of volume groups: recorded groups, made-up classes."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.backends.lvm.pools import (
    LEAST_METADATA_BYTES,
    METADATA_SHARE,
    MOST_METADATA_BYTES,
    data_bytes,
    metadata_bytes,
    names,
    store_report,
)
from node_agent.backends.lvm.report import ThinPool, VolumeGroup, volume_groups
from ullage.errors import GIB, MIB, TIB, human_bytes
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    PhysicalVolume,
    Pool,
    PoolName,
    StoreName,
    ThinPoolPolicy,
    Wipe,
)

REPORTS = Path(__file__).parent / "reports"
EXTENT = 4 * MIB


def group(report: str, name: str) -> VolumeGroup:
    return volume_groups((REPORTS / f"{report}.json").read_text(encoding="utf-8"))[StoreName(name)]


VG0 = group("layouts", "vg0")
FREE = sum(each.free_bytes for each in VG0.physical_volumes)


def thick(name: str = "fast", *, groups: tuple[str, ...] = ("vg0",), reserve: int = 0) -> DeviceClass:
    return DeviceClass(name=DeviceClassName(name), type=DeviceType.THICK, volume_groups=groups, reserve_bytes=reserve)


def thin(  # noqa: PLR0913 - keyword arguments of a class in one place
    name: str = "cheap",
    *,
    groups: tuple[str, ...] = ("vg0",),
    pool: str = "pool0",
    ratio: str = "2",
    create: int = 0,
    guards: tuple[int, int] = (90, 80),
    reserve: int = 0,
    wipe: Wipe = Wipe.DISCARD,
) -> DeviceClass:
    policy = ThinPoolPolicy(
        name=pool,
        overprovision_ratio=Fraction(ratio),
        create_size_bytes=create,
        data_guard_percent=guards[0],
        metadata_guard_percent=guards[1],
    )
    return DeviceClass(
        name=DeviceClassName(name),
        type=DeviceType.THIN,
        volume_groups=groups,
        thin_pool=policy,
        reserve_bytes=reserve,
        wipe=wipe,
    )


def pools(of: VolumeGroup, *classes: DeviceClass) -> dict[PoolName, Pool]:
    return {pool.name: pool for pool in store_report(of, classes).pools}


def pool(of: VolumeGroup, *classes: DeviceClass) -> Pool:
    (only,) = pools(of, *classes).values()
    return only


def reason(of: Pool) -> str:
    return of.problem.reason if of.problem else ""


def test_a_thick_class_has_the_group_as_its_pool() -> None:
    assert pool(VG0, thick()) == Pool(
        name=PoolName("vg0"),
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        classes=(DeviceClassName("fast"),),
        total_bytes=VG0.total_bytes,
        free_bytes=FREE,
        extent_bytes=EXTENT,
        physical_volumes=VG0.physical_volumes,
    )


def test_the_largest_reserve_of_all_classes_on_a_group_is_kept_back() -> None:
    shared = pool(VG0, thick("a", reserve=40 * MIB), thick("b", reserve=100 * MIB), thick("c"))
    assert shared.classes == ("a", "b", "c")
    assert (shared.reserve_bytes, shared.free_bytes) == (100 * MIB, FREE - 100 * MIB)
    assert shared.physical_volumes == VG0.physical_volumes, "what lies where is told as it is"


def test_a_reserve_larger_than_what_is_free_leaves_nothing() -> None:
    assert pool(VG0, thick(reserve=1 * TIB)).free_bytes == 0


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [(("vg0",), True), (("vg*",), True), (("hdd", "vg?"), True), (("vg[1-9]",), False), (("VG0",), False), ((), False)],
)
def test_a_class_names_groups_by_glob(patterns: tuple[str, ...], matches: bool) -> None:  # noqa: FBT001
    assert names(thick(groups=patterns), StoreName("vg0")) is matches
    assert bool(pools(VG0, thick(groups=patterns))) is matches


def test_a_group_that_no_class_names_still_tells_its_volumes() -> None:
    report = store_report(VG0, [])
    assert (report.pools, report.problem) == ((), None)
    assert (report.volumes, report.orphans) == (VG0.volumes, VG0.orphans)


def test_a_thin_class_has_its_pool_by_group_and_name() -> None:
    found = pool(VG0, thin(ratio="1.5"))
    assert (found.name, found.store, found.type, found.exists) == ("vg0/pool0", "vg0", DeviceType.THIN, True)
    assert found.thin is not None
    assert (found.total_bytes, found.thin.virtual_bytes) == (128 * MIB, 176 * MIB)
    assert found.free_bytes == (192 - 176) * MIB
    assert (found.thin.data_percent, found.thin.metadata_percent) == (7.81, 11.13)
    assert (found.physical_volumes, found.problem) == ((), None)


def test_of_several_classes_on_a_thin_pool_the_most_careful_counts() -> None:
    shared = pool(
        VG0,
        thin("a", ratio="3", guards=(95, 50), reserve=0),
        thin("b", ratio="1.5", guards=(60, 80), reserve=8 * MIB),
    )
    assert shared.thin is not None
    assert (shared.thin.overprovision_ratio, shared.reserve_bytes) == (Fraction(3, 2), 8 * MIB)
    assert (shared.thin.data_guard_percent, shared.thin.metadata_guard_percent) == (60, 50)
    assert shared.free_bytes == int((128 - 8) * 1.5 - 176) // 4 * 4 * MIB


def test_a_pool_past_a_guard_takes_nothing_and_is_no_problem() -> None:
    for guards in ((7, 80), (90, 11)):
        guarded = pool(VG0, thin(ratio="100", guards=guards))
        assert (guarded.free_bytes, guarded.problem) == (0, None)


def test_thick_and_thin_classes_on_one_group_are_pools_beside_each_other() -> None:
    found = pools(VG0, thin("t2", pool="pool1", create=100 * MIB), thick("a"), thin("t1"))
    assert list(found) == ["vg0", "vg0/pool0", "vg0/pool1"]


def test_a_thin_pool_that_is_missing_is_a_problem_unless_it_is_made_on_demand() -> None:
    assert reason(pool(VG0, thin(pool="nowhere"))) == "ThinPoolMissing"
    wanted = pool(VG0, thin(pool="nowhere", create=130 * MIB, ratio="1.5"))
    assert (wanted.problem, wanted.exists) == (None, False)
    assert (wanted.total_bytes, wanted.free_bytes) == (132 * MIB, 196 * MIB), "as it would be"


def test_a_pool_on_demand_needs_room_for_its_metadata_and_their_spare() -> None:
    """LVM keeps a spare of the metadata once in a group."""
    data = FREE - 2 * 8 * MIB
    of = replace(VG0, thin_pools=())
    assert reason(pool(of, thin(create=data))) == ""
    too_much = pool(of, thin(create=data + 1))
    assert reason(too_much) == "NoRoomForThinPool"
    assert too_much.problem is not None
    assert f"vg0 has {human_bytes(FREE)} free after reserve, the pool pool0 needs" in too_much.problem.message


def test_a_pool_on_demand_is_not_made_from_what_the_groups_thick_classes_keep_in_reserve() -> None:
    of = replace(VG0, thin_pools=())
    found = pools(of, thick("a", reserve=8 * MIB), thin(create=FREE - 2 * 8 * MIB))
    assert reason(found[PoolName("vg0/pool0")]) == "NoRoomForThinPool"


@pytest.mark.parametrize(
    ("name", "wipe", "expected"),
    [
        ("full", Wipe.DISCARD, "ThinPoolUnhealthy"),
        ("showing", Wipe.DISCARD, "ThinPoolDoesNotZero"),
        ("showing", Wipe.SIGNATURES, "ThinPoolDoesNotZero"),
        ("showing", Wipe.NONE, ""),
        ("ahead", Wipe.DISCARD, ""),
    ],
)
def test_a_thin_pool_that_could_show_old_bytes_or_is_unwell_takes_nothing(name: str, wipe: Wipe, expected: str) -> None:
    found = pool(group("thin-pools", "thin"), thin(groups=("thin",), pool=name, wipe=wipe))
    assert reason(found) == expected


def test_one_class_that_wants_a_wipe_is_enough_to_want_zeroing() -> None:
    classes = [thin(str(wipe), groups=("thin",), pool="showing", wipe=wipe) for wipe in (Wipe.NONE, Wipe.DISCARD)]
    assert reason(pool(group("thin-pools", "thin"), *classes)) == "ThinPoolDoesNotZero"


@pytest.mark.parametrize(
    ("report", "name", "expected"),
    [("missing", "gone", "PhysicalVolumeMissing"), ("exported", "sold", "VolumeGroupExported")],
)
def test_a_group_that_lvm_would_not_change_keeps_its_numbers_and_says_why(
    report: str, name: str, expected: str
) -> None:
    of = group(report, name)
    classes = [thick(groups=(name,)), thin(groups=(name,), create=64 * MIB)]
    found = store_report(of, classes)
    assert [reason(each) for each in found.pools] == [expected, expected]
    assert found.problem is None, "its volumes are known"
    assert len(found.volumes) == len(of.volumes) > 0
    assert found.pools[0].total_bytes == of.total_bytes
    assert found.pools[0].free_bytes > 0


@given(
    st.integers(min_value=1, max_value=64 * TIB),
    st.sampled_from([1 * MIB, 4 * MIB, 32 * MIB, 1 * GIB]),
)
def test_what_a_pool_on_demand_takes_is_whole_extents_and_enough(size: int, extent: int) -> None:
    policy = ThinPoolPolicy(name="pool0", overprovision_ratio=Fraction(1), create_size_bytes=size)
    data, metadata = data_bytes(policy, extent), metadata_bytes(policy, extent)
    assert data % extent == metadata % extent == 0
    assert size <= data < size + extent
    assert metadata >= min(MOST_METADATA_BYTES, max(LEAST_METADATA_BYTES, size // METADATA_SHARE))
    assert metadata < max(LEAST_METADATA_BYTES, size // METADATA_SHARE) + extent


sizes = st.integers(min_value=0, max_value=1000).map(lambda extents: extents * EXTENT)


@given(
    st.lists(sizes, max_size=4),
    st.lists(st.integers(min_value=0, max_value=8 * GIB), min_size=1, max_size=3),
    sizes,
    sizes,
    st.floats(min_value=0, max_value=100),
)
def test_free_is_never_negative_and_never_more_than_there_is(
    frees: list[int], reserves: list[int], pool_size: int, promised: int, percent: float
) -> None:
    of = replace(
        VG0,
        physical_volumes=tuple(PhysicalVolume(name=f"/dev/vd{n}", free_bytes=free) for n, free in enumerate(frees)),
        thin_pools=(
            ThinPool(
                name="pool0",
                size_bytes=pool_size,
                virtual_bytes=promised,
                data_percent=percent,
                metadata_percent=percent,
                zeroes_new_blocks=True,
                health="",
            ),
        ),
    )
    thicks = [thick(f"a{n}", reserve=reserve) for n, reserve in enumerate(reserves)]
    thins = [thin(f"b{n}", reserve=reserve) for n, reserve in enumerate(reserves)]
    found = pools(of, *thicks, *thins)
    assert 0 <= found[PoolName("vg0")].free_bytes == max(0, sum(frees) - max(reserves))
    assert 0 <= found[PoolName("vg0/pool0")].free_bytes <= max(0, 2 * pool_size - promised)
