"""Thin pools: what one promises before it is made and after, at its ratio, past its guards, beside thick volumes."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction

import pytest

from node_agent.assembly import Assembly, assemble, backends
from tests.contract.sites import CLASS, run, wanted
from tests.lvm.conftest import GROUP
from ullage.capacity import largest_volume_bytes
from ullage.errors import KIB, MIB, InsufficientCapacityError, PoolUnavailableError
from ullage.model import (
    DeleteVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    ExpandVolume,
    Layout,
    Pool,
    PoolName,
    ThinPoolPolicy,
    VolumeId,
    Wipe,
)
from ullage.run import Subprocesses

EXTENT = 4 * MIB
THICK = DeviceClass(name=DeviceClassName("thick"), type=DeviceType.THICK, volume_groups=(GROUP,), wipe=Wipe.NONE)


def thin_class(ratio: Fraction | int = 1, *, wipe: Wipe = Wipe.DISCARD, **policy: int) -> DeviceClass:
    """A class of the thin pool pool0; without `create_size_bytes` the pool must be there."""
    return DeviceClass(
        name=CLASS,
        type=DeviceType.THIN,
        volume_groups=(GROUP,),
        thin_pool=ThinPoolPolicy(name="pool0", overprovision_ratio=Fraction(ratio), **policy),
        wipe=wipe,
    )


def serving(*classes: DeviceClass) -> Assembly:
    assembly = assemble(backends(Subprocesses()), store_patience_seconds=20.0)
    assembly.agent.configure(classes)
    return assembly


def seen(assembly: Assembly, name: str = f"{GROUP}/pool0") -> Pool:
    """The pool as a fresh look finds it."""
    assembly.reporter.look_now()
    return next(pool for pool in assembly.agent.pools() if pool.name == name)


def lvm_says(field: str, *names: str) -> str:
    return run("lvs", "--all", "--noheadings", "--units", "b", "--nosuffix", "-o", field, *names).strip()


def made_by_hand(size_bytes: int, *arguments: str) -> None:
    shape = ("--type", "thin-pool", "--size", f"{size_bytes}b", "--poolmetadatasize", f"{4 * MIB}b", *arguments)
    run("lvcreate", "--quiet", "--yes", *shape, "--name", "pool0", GROUP)


def written(path: str, start_bytes: int, end_bytes: int, every_bytes: int) -> None:
    """A little into every so many bytes: each first touch of a chunk takes all of it from the pool."""
    with open(path, "r+b", buffering=0) as device:  # noqa: PTH123 - a device
        for offset in range(start_bytes, end_bytes, every_bytes):
            os.pwrite(device.fileno(), b"x" * 4 * KIB, offset)
        os.fsync(device.fileno())


@pytest.fixture
def volume_group(clean: tuple[str, ...]) -> None:
    run("vgcreate", "--quiet", "--yes", "--physicalextentsize", f"{EXTENT}b", GROUP, *clean[:2])


@pytest.mark.usefixtures("volume_group")
def test_a_pool_made_on_demand_has_what_was_promised_before_it_was_there() -> None:
    under_test = serving(thin_class(Fraction(3, 2), create_size_bytes=203 * MIB))
    before = seen(under_test)
    assert not before.exists
    assert before.problem is None
    assert before.total_bytes == 204 * MIB  # whole extents
    assert before.free_bytes == 304 * MIB  # 306, in whole extents
    under_test.agent.create(wanted("pvc-a", 100 * MIB))
    after = seen(under_test)
    assert after.exists
    assert after.total_bytes == before.total_bytes == int(lvm_says("lv_size", f"{GROUP}/pool0"))
    assert after.free_bytes == before.free_bytes - 100 * MIB
    assert lvm_says("lv_tags", f"{GROUP}/pool0") == "ullage.io/pool"
    assert int(lvm_says("lv_metadata_size", f"{GROUP}/pool0")) == 4 * MIB
    assert lvm_says("zero", f"{GROUP}/pool0") == "zero"


@pytest.mark.usefixtures("volume_group")
def test_the_ratio_is_kept_to_the_extent_by_creating_and_by_growing() -> None:
    under_test = serving(thin_class(Fraction(17, 10), create_size_bytes=100 * MIB))
    agent = under_test.agent
    agent.create(wanted("pvc-a", 40 * MIB))
    largest = largest_volume_bytes(seen(under_test), Layout())
    assert largest == 128 * MIB  # 170, in whole extents, less 40
    with pytest.raises(InsufficientCapacityError, match=r"128\.0 MiB free after reserve, 128\.0 MiB wanted"):
        agent.create(wanted("pvc-b", largest + 1))
    agent.create(wanted("pvc-b", largest - EXTENT))
    with pytest.raises(InsufficientCapacityError):
        agent.expand(ExpandVolume(volume_id=VolumeId("pvc-a"), size_bytes=40 * MIB + EXTENT + 1))
    agent.expand(ExpandVolume(volume_id=VolumeId("pvc-a"), size_bytes=40 * MIB + EXTENT))
    assert seen(under_test).free_bytes == 0
    with pytest.raises(InsufficientCapacityError):
        agent.create(wanted("pvc-c", 1))


@pytest.mark.usefixtures("volume_group")
def test_a_pool_past_its_data_guard_takes_nothing_new_and_says_why() -> None:
    under_test = serving(thin_class(10, create_size_bytes=80 * MIB, data_guard_percent=50))
    agent = under_test.agent
    volume = agent.create(wanted("pvc-a", 80 * MIB)).volume
    assert volume is not None
    written(volume.device_path, 0, 36 * MIB, 64 * KIB)
    agent.create(wanted("pvc-b", EXTENT))
    written(volume.device_path, 36 * MIB, 44 * MIB, 64 * KIB)
    assert seen(under_test).free_bytes == 0
    with pytest.raises(InsufficientCapacityError, match=r"pool0 is 55\.0 % full, its guard is 50 %"):
        agent.create(wanted("pvc-c", 1))
    with pytest.raises(InsufficientCapacityError, match="its guard is 50 %"):
        agent.expand(ExpandVolume(volume_id=VolumeId("pvc-b"), size_bytes=2 * EXTENT))
    agent.delete(DeleteVolume(volume_id=volume.id))
    assert seen(under_test).free_bytes == 800 * MIB - EXTENT
    agent.create(wanted("pvc-c", 1))


@pytest.mark.usefixtures("volume_group")
def test_a_pool_past_its_metadata_guard_takes_nothing_new_and_says_why() -> None:
    made_by_hand(200 * MIB, "--zero", "y")
    empty = float(lvm_says("metadata_percent", f"{GROUP}/pool0"))
    guard = int(empty) + 1
    under_test = serving(thin_class(10, data_guard_percent=100, metadata_guard_percent=guard))
    volume = under_test.agent.create(wanted("pvc-a", 200 * MIB)).volume
    assert volume is not None
    written(volume.device_path, 0, 180 * MIB, 64 * KIB)
    assert seen(under_test).free_bytes == 0
    with pytest.raises(InsufficientCapacityError, match=rf"metadata is [\d.]+ % full, its guard is {guard} %"):
        under_test.agent.create(wanted("pvc-b", 1))


@pytest.mark.usefixtures("volume_group")
def test_a_pool_that_does_not_zero_is_refused_unless_nobody_minds() -> None:
    made_by_hand(80 * MIB, "--zero", "n")
    under_test = serving(thin_class())
    with pytest.raises(PoolUnavailableError, match="new blocks could show old bytes"):
        under_test.agent.create(wanted("pvc-a", EXTENT))
    careless = serving(thin_class(wipe=Wipe.NONE))
    assert careless.agent.create(wanted("pvc-a", EXTENT)).is_new


@pytest.mark.usefixtures("volume_group")
def test_somebody_elses_pool_is_used_as_it_is_and_his_volumes_count() -> None:
    made_by_hand(80 * MIB, "--zero", "y")
    run("lvcreate", "--quiet", "--yes", "--thin", "--virtualsize", f"{60 * MIB}b", "--name", "his", f"{GROUP}/pool0")
    under_test = serving(thin_class())
    assert seen(under_test).free_bytes == 20 * MIB
    with pytest.raises(InsufficientCapacityError):
        under_test.agent.create(wanted("pvc-a", 24 * MIB))
    under_test.agent.create(wanted("pvc-a", 20 * MIB))
    assert [volume.id for volume in under_test.agent.volumes()] == ["pvc-a"]
    under_test.agent.delete(DeleteVolume(volume_id=VolumeId("pvc-a")))
    assert lvm_says("lv_tags", f"{GROUP}/pool0") == ""
    assert lvm_says("lv_name", f"{GROUP}/his") == "his"


@pytest.mark.usefixtures("volume_group")
def test_thin_and_thick_share_a_volume_group_to_the_extent() -> None:
    """The pool takes its data, its metadata and LVM's spare; with one extent less it is refused before it is tried."""
    both = (thin_class(create_size_bytes=800 * MIB), THICK)
    under_test = serving(*both)
    pool_cost = 800 * MIB + 2 * 4 * MIB
    room = seen(under_test, GROUP).free_bytes
    thick = under_test.agent.create(replace(wanted("pvc-t", room - pool_cost + 1), device_class=THICK.name)).volume
    assert thick is not None
    assert thick.size_bytes == room - pool_cost + EXTENT
    problem = seen(under_test).problem
    assert problem is not None
    assert problem.reason == "NoRoomForThinPool"
    with pytest.raises(PoolUnavailableError, match=r"the pool pool0 needs 808\.0 MiB"):
        under_test.agent.create(wanted("pvc-a", EXTENT))
    under_test.agent.delete(DeleteVolume(volume_id=thick.id))
    under_test.agent.create(replace(wanted("pvc-t", room - pool_cost), device_class=THICK.name))
    assert seen(under_test).problem is None
    under_test.agent.create(wanted("pvc-a", EXTENT))
    assert seen(under_test, GROUP).free_bytes == 0
    assert seen(under_test).free_bytes == 800 * MIB - EXTENT
    with pytest.raises(InsufficientCapacityError):
        under_test.agent.create(replace(wanted("pvc-u", 1), device_class=THICK.name))
    fresh = serving(*both)
    assert {volume.id: volume.pool for volume in fresh.agent.volumes()} == {
        "pvc-a": PoolName(f"{GROUP}/pool0"),
        "pvc-t": PoolName(GROUP),
    }


@pytest.mark.usefixtures("volume_group")
def test_a_pool_that_has_promised_more_than_a_lowered_ratio_allows_offers_nothing_and_never_less() -> None:
    under_test = serving(thin_class(3, create_size_bytes=40 * MIB))
    for name in ("pvc-a", "pvc-b"):
        under_test.agent.create(wanted(name, 52 * MIB))
    under_test.agent.configure([thin_class(2, create_size_bytes=40 * MIB)])
    pool = seen(under_test)
    assert pool.free_bytes == 0
    assert largest_volume_bytes(pool, Layout()) == 0
    with pytest.raises(InsufficientCapacityError):
        under_test.agent.create(wanted("pvc-c", 1))
    under_test.agent.delete(DeleteVolume(volume_id=VolumeId("pvc-a")))
    assert seen(under_test).free_bytes == 28 * MIB
