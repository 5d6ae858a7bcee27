"""The stock: what is known of every store, and how our own changes are counted before the next report."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node_agent.backends.lvm.pools import store_report
from node_agent.backends.lvm.report import ThinPool, VolumeGroup
from node_agent.backends.port import StoreReport
from node_agent.stock import Stock
from ullage.capacity import allocate, allocate_growth
from ullage.errors import GIB, MIB
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Layout,
    LayoutKind,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    Share,
    StoreName,
    ThinPoolPolicy,
    Volume,
    VolumeId,
    VolumeState,
    Wipe,
)

LONG_SECONDS = 60.0
"""Reaching it would be a hang."""
EXTENT = 4 * MIB
VG0, VG1, FILES = StoreName("vg0"), StoreName("vg1"), StoreName("/data")
PROBLEM = Problem(reason="VolumeGroupMissing", message="vg0 is on none of this node's devices")


def volume(name: str, *, store: StoreName = VG0, size: int = 8 * MIB) -> Volume:
    return Volume(
        id=VolumeId(name),
        pool=PoolName(store),
        store=store,
        type=DeviceType.THICK,
        device_class=DeviceClassName("fast"),
        size_bytes=size,
        device_size_bytes=size,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        device_path=f"/dev/{store}/{name}",
        taken=(Share(physical_volume="/dev/vda", size_bytes=size),),
    )


def report(store: StoreName = VG0, *volumes: Volume, free: int = GIB) -> StoreReport:
    pool = Pool(
        name=PoolName(store),
        store=store,
        type=DeviceType.THICK,
        classes=(DeviceClassName("fast"),),
        total_bytes=4 * GIB,
        free_bytes=free,
        extent_bytes=EXTENT,
        physical_volumes=(PhysicalVolume(name="/dev/vda", free_bytes=free),),
    )
    return StoreReport(name=store, pools=(pool,), volumes=volumes)


def unreadable(store: StoreName = VG0) -> StoreReport:
    return StoreReport(name=store, problem=PROBLEM)


def in_thread(work: Callable[[], object]) -> queue.SimpleQueue[object]:
    ended: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=lambda: ended.put(work()), daemon=True).start()
    return ended


@pytest.fixture
def stock() -> Stock:
    return Stock()


def test_at_first_nothing_is_known(stock: Stock) -> None:
    assert (stock.reports(), stock.pools(), stock.volumes(), stock.ages_seconds()) == ((), {}, {}, {})
    assert stock.find(VolumeId("a")) is None
    assert stock.report(VG0) is None


def test_what_is_put_is_found(stock: Stock) -> None:
    one, other = report(VG0, volume("a")), report(VG1, volume("b", store=VG1))
    assert stock.put(other)
    assert stock.put(one)
    assert stock.reports() == (one, other)
    assert stock.report(VG1) == other
    assert set(stock.volumes()) == {"a", "b"}
    assert set(stock.pools()) == {"vg0", "vg1"}
    assert stock.find(VolumeId("b")) == volume("b", store=VG1)
    assert set(stock.ages_seconds()) == {VG0, VG1}


def test_a_report_replaces_the_last_one_whole(stock: Stock) -> None:
    stock.put(report(VG0, volume("a"), volume("b")))
    stock.put(report(VG0, volume("b")))
    assert set(stock.volumes()) == {"b"}


def test_an_unreadable_store_keeps_its_volumes_and_its_pools_take_nothing(stock: Stock) -> None:
    stock.put(report(VG0, volume("a")))
    ages = stock.ages_seconds()
    stock.put(unreadable())
    kept = stock.report(VG0)
    assert kept is not None
    assert (kept.problem, kept.volumes) == (PROBLEM, (volume("a"),))
    assert stock.pools()[PoolName("vg0")] == replace(report().pools[0], problem=PROBLEM)
    assert stock.ages_seconds()[VG0] >= ages[VG0], "it was not read"


def test_a_store_that_can_be_read_again_has_no_problem(stock: Stock) -> None:
    stock.put(report(VG0, volume("a")))
    stock.put(unreadable())
    stock.put(report(VG0, volume("a")))
    assert stock.reports() == (report(VG0, volume("a")),)


def test_a_store_that_was_never_read_is_known_by_its_problem(stock: Stock) -> None:
    stock.put(unreadable())
    assert stock.reports() == (unreadable(),)
    assert stock.ages_seconds() == {}


def test_a_change_of_ours_is_seen_at_once(stock: Stock) -> None:
    stock.put(report(VG0, volume("a")))
    stock.apply(VG0, None, volume("b"))
    assert set(stock.volumes()) == {"a", "b"}
    assert stock.pools()[PoolName("vg0")].free_bytes == GIB - 8 * MIB
    stock.apply(VG0, volume("b"), volume("b", size=12 * MIB))
    assert stock.find(VolumeId("b")) == volume("b", size=12 * MIB)
    assert stock.pools()[PoolName("vg0")].free_bytes == GIB - 12 * MIB
    stock.apply(VG0, volume("b", size=12 * MIB), None)
    stock.apply(VG0, volume("a"), None)
    assert stock.volumes() == {}
    assert stock.pools()[PoolName("vg0")].free_bytes == GIB + 8 * MIB


def test_a_look_that_a_change_of_ours_has_overtaken_is_refused(stock: Stock) -> None:
    stock.put(report())
    since = stock.changes()
    stock.apply(VG0, None, volume("a"))
    assert not stock.put(report(), since)
    assert set(stock.volumes()) == {"a"}
    assert stock.put(report(VG0, volume("a")), stock.changes())


def test_a_failed_look_that_was_overtaken_is_refused_too(stock: Stock) -> None:
    stock.put(report())
    since = stock.changes()
    stock.apply(VG0, None, volume("a"))
    assert not stock.put(unreadable(), since)


def test_a_change_of_another_store_overtakes_nothing(stock: Stock) -> None:
    since = stock.changes()
    stock.apply(VG1, None, volume("b", store=VG1))
    assert stock.put(report(VG0, volume("a")), since)


def test_a_change_of_a_store_that_was_not_read_yet_overtakes_its_look(stock: Stock) -> None:
    since = stock.changes()
    stock.apply(VG0, None, volume("a"))
    assert stock.reports() == ()
    assert not stock.put(report(), since)


def test_a_mark_does_not_change_afterwards(stock: Stock) -> None:
    since = stock.changes()
    stock.apply(VG0, None, volume("a"))
    assert dict(since) == {}


def test_stores_without_a_class_are_forgotten_unless_they_hold_volumes(stock: Stock) -> None:
    stock.put(report(VG0))
    stock.put(report(VG1, volume("b", store=VG1)))
    stock.put(report(FILES))
    version = stock.wait_for_change(-1, 0)
    stock.keep_only([FILES])
    assert [each.name for each in stock.reports()] == [FILES, VG1]
    assert stock.wait_for_change(version, 0) != version
    stock.apply(VG1, volume("b", store=VG1), None)
    stock.keep_only([FILES])
    assert [each.name for each in stock.reports()] == [FILES]


def test_who_waits_hears_of_every_kind_of_change(stock: Stock) -> None:
    changes: list[Callable[[], object]] = [
        lambda: stock.put(report()),
        lambda: stock.apply(VG0, None, volume("a")),
        lambda: stock.put(unreadable()),
        lambda: stock.put(report(VG1)),
        lambda: stock.keep_only([VG0]),
    ]
    for change in changes:
        version = stock.wait_for_change(-1, 0)
        heard = in_thread(functools.partial(stock.wait_for_change, version, LONG_SECONDS))
        change()
        assert heard.get(timeout=LONG_SECONDS) != version


def test_nothing_new_is_no_change(stock: Stock) -> None:
    stock.put(report(VG0, volume("a")))
    version = stock.wait_for_change(-1, 0)
    stock.put(report(VG0, volume("a")))
    stock.keep_only([VG0])
    assert stock.wait_for_change(version, 0) == version


def test_a_problem_that_stays_is_no_change(stock: Stock) -> None:
    stock.put(report(VG0, volume("a")))
    stock.put(unreadable())
    version = stock.wait_for_change(-1, 0)
    stock.put(unreadable())
    assert stock.wait_for_change(version, 0) == version


def test_many_threads_lose_no_change(stock: Stock) -> None:
    stock.put(report(free=3 * GIB))

    def carve(thread: int) -> None:
        for number in range(20):
            stock.apply(VG0, None, volume(f"{thread}-{number}"))

    ended = [in_thread(functools.partial(carve, thread)) for thread in range(8)]
    for each in ended:
        each.get(timeout=LONG_SECONDS)
    assert len(stock.volumes()) == 160
    assert stock.pools()[PoolName("vg0")].free_bytes == 3 * GIB - 160 * 8 * MIB
    assert stock.changes()[VG0] == 160


LAYOUTS = (
    Layout(),
    Layout(kind=LayoutKind.STRIPED, stripes=2),
    Layout(kind=LayoutKind.RAID1, mirrors=1),
    Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True),
    Layout(kind=LayoutKind.RAID5, stripes=2),
)
CLASSES = (
    DeviceClass(
        name=DeviceClassName("fast"), type=DeviceType.THICK, volume_groups=("vg0",), reserve_bytes=100 * MIB + 1
    ),
    DeviceClass(
        name=DeviceClassName("cheap"),
        type=DeviceType.THIN,
        volume_groups=("vg0",),
        thin_pool=ThinPoolPolicy(name="pool0", overprovision_ratio=Fraction(3, 2)),
        reserve_bytes=10 * MIB,
    ),
)
ROOM = {"/dev/vda": 200, "/dev/vdb": 120, "/dev/vdc": 80}
POOL_EXTENTS, FILES_BYTES = 100, 400 * MIB


@dataclass
class Machine:
    """Keeps only volumes, and reports by adding up from nothing, as the disks would."""

    volumes: dict[VolumeId, Volume]
    files_reserve_bytes: int = 0

    def report(self, store: StoreName) -> StoreReport:
        here = tuple(each for each in self.volumes.values() if each.store == store)
        return self._files(here) if store == FILES else self._group(here)

    def _group(self, here: tuple[Volume, ...]) -> StoreReport:
        used = dict.fromkeys(ROOM, 0)
        for share in (share for each in here for share in each.taken):
            used[share.physical_volume] += share.size_bytes
        thin = ThinPool(
            name="pool0",
            size_bytes=POOL_EXTENTS * EXTENT,
            virtual_bytes=sum(each.device_size_bytes for each in here if each.type is DeviceType.THIN),
            data_percent=1.0,
            metadata_percent=1.0,
            zeroes_new_blocks=True,
            health="",
        )
        group = VolumeGroup(
            name=VG0,
            extent_bytes=EXTENT,
            total_bytes=sum(ROOM.values()) * EXTENT,
            physical_volumes=tuple(
                PhysicalVolume(name=name, free_bytes=room * EXTENT - used[name]) for name, room in ROOM.items()
            ),
            devices=tuple(ROOM),
            missing_physical_volumes=0,
            is_exported=False,
            thin_pools=(thin,),
            volumes=here,
            orphans=(),
        )
        return store_report(group, CLASSES)

    def _files(self, here: tuple[Volume, ...]) -> StoreReport:
        used = sum(each.device_size_bytes for each in here)
        pool = Pool(
            name=PoolName(FILES),
            store=FILES,
            type=DeviceType.FILE,
            classes=(DeviceClassName("files"),),
            total_bytes=FILES_BYTES,
            free_bytes=max(0, FILES_BYTES - used - self.files_reserve_bytes),
            reserve_bytes=self.files_reserve_bytes,
            extent_bytes=EXTENT,
        )
        return StoreReport(name=FILES, pools=(pool,), volumes=here)


def made(name: str, pool: Pool, layout: Layout, size: int) -> Volume | None:
    allocation = allocate(pool, layout if pool.type is DeviceType.THICK else Layout(), size)
    if allocation is None:
        return None
    return Volume(
        id=VolumeId(name),
        pool=pool.name,
        store=pool.store,
        type=pool.type,
        device_class=pool.classes[0],
        size_bytes=allocation.size_bytes,
        device_size_bytes=allocation.size_bytes,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        device_path=f"/dev/{name}",
        layout=layout if pool.type is DeviceType.THICK else Layout(),
        taken=allocation.taken,
    )


def grown(volume: Volume, pool: Pool, by: int) -> Volume | None:
    names = [share.physical_volume for share in volume.taken]
    growth = allocate_growth(pool, volume.layout, names, volume.device_size_bytes, volume.device_size_bytes + by)
    if growth is None:
        return None
    shares = {share.physical_volume: share.size_bytes for share in volume.taken}
    for share in growth.taken:
        shares[share.physical_volume] = shares.get(share.physical_volume, 0) + share.size_bytes
    return replace(
        volume,
        size_bytes=growth.size_bytes,
        device_size_bytes=growth.size_bytes,
        taken=tuple(Share(physical_volume=name, size_bytes=shares[name]) for name in sorted(shares)),
    )


def unscattered(report: StoreReport | None) -> StoreReport | None:
    """A report but for how scattered the free room is: there the stock only guesses, carefully, until it is told."""
    if report is None:
        return None
    pools = (
        replace(pool, physical_volumes=tuple(replace(each, scattered_bytes=0) for each in pool.physical_volumes))
        for pool in report.pools
    )
    return replace(report, pools=tuple(pools))


def compare(stock: Stock, machine: Machine, changed: Pool) -> None:
    if changed.store == FILES:
        ours, (real,) = stock.pools()[changed.name], machine.report(FILES).pools
        assert ours.free_bytes <= real.free_bytes  # what a deleted file gives back only a report can say
        stock.put(machine.report(FILES))
    for store in (VG0, FILES):
        assert unscattered(stock.report(store)) == machine.report(store)


steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "create", "create", "expand", "mark", "delete"]),
        st.sampled_from(["vg0", "vg0/pool0", "/data"]),
        st.sampled_from(LAYOUTS),
        st.integers(min_value=1, max_value=150 * MIB),
    ),
    max_size=25,
)


@given(steps)
@settings(deadline=None)
def test_after_any_changes_the_stock_says_what_a_fresh_report_would(
    changes: list[tuple[str, str, Layout, int]],
) -> None:
    machine, stock = Machine({}), Stock()
    for store in (VG0, FILES):
        stock.put(machine.report(store))
    for number, (step, pool_name, layout, size) in enumerate(changes):
        pool = stock.pools()[PoolName(pool_name)]
        here = [each for each in machine.volumes.values() if each.pool == pool.name]
        before = here[size % len(here)] if here and step != "create" else None
        if step == "create":
            after = made(f"v{number}", pool, layout, size)
        elif before is None or step == "delete":
            after = None
        elif step == "expand":
            after = grown(before, pool, size)
        else:
            after = replace(before, state=VolumeState.DELETING)
        if after is None and (before is None or step != "delete"):
            continue  # it does not fit, or there is nothing to do it to
        stock.apply(pool.store, before, after)
        if before is not None:
            del machine.volumes[before.id]
        if after is not None:
            machine.volumes[after.id] = after
        compare(stock, machine, pool)
