"""What a scrape shows of the node's stock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

import pytest
from prometheus_client import CollectorRegistry

from node_agent.backends.port import StoreReport
from node_agent.metrics import OperationMetrics, StoreCollector
from ullage.errors import GIB, MIB
from ullage.model import (
    DeviceClassName,
    DeviceType,
    Orphan,
    OrphanKind,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    StoreName,
    ThinUsage,
    Volume,
    VolumeId,
    VolumeState,
    Wipe,
)

VG0 = StoreName("vg0")
FAST = DeviceClassName("fast")
BROKEN = Problem(reason="PhysicalVolumeMissing", message="one of two is gone")

THICK = Pool(
    name=PoolName("vg0"),
    store=VG0,
    type=DeviceType.THICK,
    classes=(FAST, DeviceClassName("default")),
    total_bytes=100 * GIB,
    free_bytes=30 * GIB,
    reserve_bytes=10 * GIB,
    extent_bytes=4 * MIB,
    physical_volumes=(
        PhysicalVolume(name="/dev/sda", free_bytes=20 * GIB),
        PhysicalVolume(name="/dev/sdb", free_bytes=20 * GIB),
    ),
)
THIN = Pool(
    name=PoolName("vg0/pool0"),
    store=VG0,
    type=DeviceType.THIN,
    classes=(DeviceClassName("thin"),),
    total_bytes=40 * GIB,
    free_bytes=60 * GIB,
    extent_bytes=4 * MIB,
    thin=ThinUsage(
        virtual_bytes=20 * GIB,
        data_percent=12.5,
        metadata_percent=50.0,
        overprovision_ratio=Fraction(2),
        data_guard_percent=90,
        metadata_guard_percent=80,
    ),
)
VOLUME = Volume(
    id=VolumeId("pvc-1"),
    pool=PoolName("vg0"),
    store=VG0,
    type=DeviceType.THICK,
    device_class=FAST,
    size_bytes=GIB,
    device_size_bytes=2 * GIB,
    state=VolumeState.GROWING,
    wipe=Wipe.DISCARD,
    device_path="/dev/vg0/pvc-1",
)


class Stock:
    """The agent's memory; counts how often it is read."""

    def __init__(self, *reports: StoreReport) -> None:
        self.reports = reports
        self.reads = 0

    def __call__(self) -> Iterable[StoreReport]:
        self.reads += 1
        return iter(self.reports)


def registry_of(*reports: StoreReport) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(StoreCollector(Stock(*reports), lambda: {report.name: 1.5 for report in reports}))
    return registry


def test_a_pool_shows_its_numbers() -> None:
    registry = registry_of(StoreReport(name=VG0, pools=(THICK, THIN)))
    labels = {"pool": "vg0", "type": "thick"}
    assert registry.get_sample_value("ullage_pool_total_bytes", labels) == 100 * GIB
    assert registry.get_sample_value("ullage_pool_free_bytes", labels) == 30 * GIB
    assert registry.get_sample_value("ullage_pool_reserved_bytes", labels) == 10 * GIB
    assert registry.get_sample_value("ullage_pool_largest_volume_bytes", labels) == 30 * GIB
    assert registry.get_sample_value("ullage_pool_available", labels) == 1
    assert registry.get_sample_value("ullage_thin_pool_data_ratio", labels) is None
    assert registry.get_sample_value("ullage_pool_class_info", {"pool": "vg0", "device_class": "default"}) == 1
    assert registry.get_sample_value("ullage_pool_class_info", {"pool": "vg0", "device_class": "thin"}) is None


def test_a_thin_pool_shows_parts_of_one() -> None:
    registry = registry_of(StoreReport(name=VG0, pools=(THICK, THIN)))
    labels = {"pool": "vg0/pool0", "type": "thin"}
    assert registry.get_sample_value("ullage_thin_pool_data_ratio", labels) == 0.125
    assert registry.get_sample_value("ullage_thin_pool_metadata_ratio", labels) == 0.5
    assert registry.get_sample_value("ullage_thin_pool_virtual_bytes", labels) == 20 * GIB


def test_a_pool_with_a_problem_keeps_its_numbers_and_takes_nothing() -> None:
    registry = registry_of(StoreReport(name=VG0, pools=(replace(THICK, problem=BROKEN),)))
    labels = {"pool": "vg0", "type": "thick"}
    assert registry.get_sample_value("ullage_pool_available", labels) == 0
    assert registry.get_sample_value("ullage_pool_free_bytes", labels) == 30 * GIB
    assert registry.get_sample_value("ullage_pool_largest_volume_bytes", labels) == 0
    assert registry.get_sample_value("ullage_store_up", {"store": "vg0"}) == 1


def test_a_store_that_could_not_be_read_counts_no_volumes_and_offers_nothing() -> None:
    orphan = Orphan(name="vg0/x", kind=OrphanKind.VOLUME_WITHOUT_RECORD, message="")
    report = StoreReport(name=VG0, pools=(THICK,), volumes=(VOLUME,), orphans=(orphan,), problem=BROKEN)
    registry = registry_of(report)
    assert registry.get_sample_value("ullage_store_up", {"store": "vg0"}) == 0
    assert registry.get_sample_value("ullage_report_age_seconds", {"store": "vg0"}) == 1.5
    labels = {"pool": "vg0", "type": "thick"}
    assert registry.get_sample_value("ullage_pool_available", labels) == 0
    assert registry.get_sample_value("ullage_pool_largest_volume_bytes", labels) == 0
    assert registry.get_sample_value("ullage_volumes", {"device_class": "fast", "state": "growing"}) is None
    assert registry.get_sample_value("ullage_orphans", {"kind": "volume_without_record"}) == 0


def test_volumes_are_counted_by_class_and_state_zeroes_included() -> None:
    ready = replace(VOLUME, id=VolumeId("pvc-2"), state=VolumeState.READY)
    registry = registry_of(StoreReport(name=VG0, pools=(THICK,), volumes=(VOLUME, ready, ready)))

    def count(device_class: str, state: str) -> float | None:
        return registry.get_sample_value("ullage_volumes", {"device_class": device_class, "state": state})

    assert [count("fast", state) for state in ("creating", "ready", "growing", "deleting")] == [0, 2, 1, 0]
    assert count("default", "ready") == 0
    assert registry.get_sample_value("ullage_volumes_bytes", {"device_class": "fast"}) == 3 * GIB
    assert registry.get_sample_value("ullage_volumes_bytes", {"device_class": "default"}) == 0


def test_a_class_that_is_gone_still_counts_its_volumes() -> None:
    registry = registry_of(StoreReport(name=VG0, volumes=(VOLUME,)))
    assert registry.get_sample_value("ullage_volumes", {"device_class": "fast", "state": "growing"}) == 1


def test_classes_of_a_down_store_have_no_zeroes_for_volumes() -> None:
    """Zero would say that the volumes are gone."""
    registry = registry_of(StoreReport(name=VG0, pools=(THICK,), problem=BROKEN))
    assert registry.get_sample_value("ullage_volumes", {"device_class": "default", "state": "ready"}) is None


def test_problems_of_volumes_are_counted_by_reason_never_by_volume() -> None:
    volumes = (
        replace(VOLUME, problem=Problem(reason="Partial", message="LVM calls it 'partial'")),
        replace(VOLUME, problem=Problem(reason="Partial", message="LVM calls it 'partial'")),
        replace(VOLUME, problem=Problem(reason="pvc-1 is odd", message="")),
        VOLUME,
    )
    registry = registry_of(StoreReport(name=VG0, volumes=volumes))
    assert registry.get_sample_value("ullage_volume_problems", {"reason": "Partial"}) == 2
    assert registry.get_sample_value("ullage_volume_problems", {"reason": "other"}) == 1


def test_every_kind_of_orphan_is_there_from_the_start() -> None:
    registry = registry_of()
    assert [registry.get_sample_value("ullage_orphans", {"kind": kind}) for kind in OrphanKind] == [0, 0, 0]


def test_orphans_are_counted_by_kind() -> None:
    kinds = (OrphanKind.VOLUME_WITHOUT_RECORD, OrphanKind.VOLUME_WITHOUT_RECORD, OrphanKind.UNREADABLE_RECORD)
    orphans = tuple(Orphan(name="x", kind=kind, message="") for kind in kinds)
    registry = registry_of(StoreReport(name=VG0, orphans=orphans))
    assert registry.get_sample_value("ullage_orphans", {"kind": "volume_without_record"}) == 2
    assert registry.get_sample_value("ullage_orphans", {"kind": "record_without_volume"}) == 0
    assert registry.get_sample_value("ullage_orphans", {"kind": "unreadable_record"}) == 1


def test_the_reports_are_read_once_a_scrape_and_not_at_registration() -> None:
    stock = Stock(StoreReport(name=VG0, pools=(THICK,)))
    registry = CollectorRegistry(auto_describe=True)
    registry.register(StoreCollector(stock, dict))
    assert stock.reads == 0
    list(registry.collect())
    assert stock.reads == 1


def test_a_second_collector_of_the_same_names_is_refused() -> None:
    registry = registry_of()
    with pytest.raises(ValueError, match="ullage_store_up"):
        registry.register(StoreCollector(tuple, dict))


def test_operations_are_timed_by_how_they_ended() -> None:
    registry, under_way = CollectorRegistry(), [1, 2]
    metrics = OperationMetrics(registry, lambda: len(under_way))
    metrics.observe("create", "ok", 0.2)
    metrics.observe("create", "InsufficientCapacity", 0.1)
    metrics.observe("delete", "ok", 4000.0)

    def count(operation: str, outcome: str) -> float | None:
        labels = {"operation": operation, "outcome": outcome}
        return registry.get_sample_value("ullage_operation_seconds_count", labels)

    assert (count("create", "ok"), count("create", "InsufficientCapacity"), count("delete", "ok")) == (1, 1, 1)
    assert registry.get_sample_value("ullage_operations_in_flight") == 2
    under_way.clear()
    assert registry.get_sample_value("ullage_operations_in_flight") == 0


def test_a_volumes_name_never_becomes_a_label() -> None:
    registry = CollectorRegistry()
    OperationMetrics(registry, lambda: 0).observe("create pvc-1", "no room for pvc-1", 0.2)
    labels = {"operation": "other", "outcome": "other"}
    assert registry.get_sample_value("ullage_operation_seconds_count", labels) == 1
