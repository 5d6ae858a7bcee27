"""What a node agent measures: its stock, read from the last reports at each scrape, and its operations as they end.

A scrape reads memory only: no LVM command runs for it, so that it is quick while a volume group is locked and answers
when a device hangs. How old what it reads is, is a metric of its own. A store that could not be read is down
(`ullage_store_up` 0) and counts no volumes: it says nothing about what exists. Labels name pools, classes, states and
reasons, never volumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from node_agent.backends.port import StoreReport
from node_agent.fills import Fills
from ullage.capacity import largest_volume_bytes
from ullage.metrics import bounded
from ullage.model import DeviceClassName, Layout, OrphanKind, Pool, StoreName, Volume, VolumeState

OPERATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds. Carving takes a tenth, a discard seconds to minutes, writing zeroes over a large disk hours."""

HOLD_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds. Writers wait for so long; the last is the most that a hold may take."""


class StoreCollector(Collector):
    """The stock: `reports` and `report_ages` (seconds by store) answer from memory, once for each scrape."""

    def __init__(
        self, reports: Callable[[], Iterable[StoreReport]], report_ages: Callable[[], Mapping[StoreName, float]]
    ) -> None:
        """Nothing is read yet."""
        self._reports = reports
        self._report_ages = report_ages

    def describe(self) -> Iterable[GaugeMetricFamily | InfoMetricFamily]:
        """The names, for the registry to find clashes, without reading anything."""
        return (*_stores((), {}), *_pools(()), *_thin_pools(()), _snapshots(()), *_volumes((), ()), _orphans(()))

    def collect(self) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
        """Every metric family, from one look at the reports."""
        reports = tuple(self._reports())
        readable = tuple(report for report in reports if report.problem is None)
        pools = tuple(pool for report in reports for pool in report.pools)
        volumes = tuple(volume for report in readable for volume in report.volumes)
        unreadable = {report.name for report in reports if report.problem is not None}
        yield from _stores(reports, self._report_ages())
        yield from _pools(tuple((pool, pool.problem is None and pool.store not in unreadable) for pool in pools))
        yield from _thin_pools(pools)
        yield _snapshots(volumes)
        yield from _volumes(volumes, {name for report in readable for pool in report.pools for name in pool.classes})
        yield _orphans(readable)


class FillCollector(Collector):
    """The copies by bytes, by device class; a class that has had one is told from then on."""

    def __init__(self, fills: Fills) -> None:
        """Nothing is read yet."""
        self._fills = fills

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """The names, for the registry to find clashes."""
        return tuple(FillCollector(Fills()).collect())

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """How many, and how far they are."""
        under_way, copied = self._fills.under_way().values(), self._fills.copied_bytes()
        number = _gauge("ullage_copies_under_way", "Copies that are moving bytes.", "device_class")
        left = _gauge("ullage_copy_left_bytes", "What they have still to copy.", "device_class")
        total = CounterMetricFamily("ullage_copied_bytes", "What was copied, zeroes included.", labels=["device_class"])
        for name in sorted({*copied, *(fill.device_class for fill in under_way)}):
            mine = [fill.left_bytes for fill in under_way if fill.device_class == name]
            number.add_metric([name], len(mine))
            left.add_metric([name], sum(mine))
            total.add_metric([name], copied.get(name, 0))
        yield from (number, left, total)


class OperationMetrics:
    """The agent's own work: how long each operation took and how it ended, and how many are under way."""

    def __init__(self, registry: CollectorRegistry, in_flight: Callable[[], int]) -> None:
        """Register the metrics; `in_flight` is asked at each scrape."""
        self._seconds = Histogram(
            "ullage_operation_seconds",
            "How long operations on volumes took from their first step to their last.",
            ["operation", "outcome"],
            buckets=OPERATION_BUCKETS,
            registry=registry,
        )
        Gauge("ullage_operations_in_flight", "Operations on volumes under way.", registry=registry).set_function(
            in_flight
        )

    def observe(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one that has ended; `outcome` is `ok` or the `reason` of the error that ended it."""
        self._seconds.labels(bounded(operation), bounded(outcome)).observe(seconds)


class HoldMetrics:
    """For how long volumes were held still for their snapshots."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._seconds = Histogram(
            "ullage_hold_seconds",
            "For how long volumes were kept from being written to while snapshots were taken.",
            buckets=HOLD_BUCKETS,
            registry=registry,
        )

    def observe(self, seconds: float) -> None:
        """Count one hold that has ended, of however many volumes."""
        self._seconds.observe(seconds)


def _stores(reports: Iterable[StoreReport], ages: Mapping[StoreName, float]) -> Iterator[GaugeMetricFamily]:
    up = _gauge("ullage_store_up", "Whether the last look at the store could read it whole.", "store")
    for report in reports:
        up.add_metric([report.name], float(report.problem is None))
    yield up
    age = _gauge("ullage_report_age_seconds", "Time since the store's last report.", "store")
    for store, seconds in ages.items():
        age.add_metric([store], seconds)
    yield age


def _pools(pools: Sequence[tuple[Pool, bool]]) -> Iterator[GaugeMetricFamily | InfoMetricFamily]:
    """Pools with whether each is available."""
    total = _gauge("ullage_pool_total_bytes", "Size of the pool.", "pool", "type")
    free = _gauge("ullage_pool_free_bytes", "What new volumes may still take, after the reserve.", "pool", "type")
    reserved = _gauge("ullage_pool_reserved_bytes", "What is never given out.", "pool", "type")
    largest = _gauge(
        "ullage_pool_largest_volume_bytes", "The largest linear volume that fits now; 0 when none.", "pool", "type"
    )
    available = _gauge("ullage_pool_available", "Whether the pool takes new volumes, room aside.", "pool", "type")
    classes = InfoMetricFamily(
        "ullage_pool_class", "That volumes of the device class may come from the pool.", labels=["pool", "device_class"]
    )
    for pool, is_available in pools:
        labels = [pool.name, pool.type.value]
        total.add_metric(labels, pool.total_bytes)
        free.add_metric(labels, pool.free_bytes)
        reserved.add_metric(labels, pool.reserve_bytes)
        largest.add_metric(labels, largest_volume_bytes(pool, Layout()) if is_available else 0)
        available.add_metric(labels, float(is_available))
        for name in pool.classes:
            classes.add_metric([pool.name, name], {})
    yield from (total, free, reserved, largest, available, classes)


def _thin_pools(pools: Iterable[Pool]) -> Iterator[GaugeMetricFamily]:
    data = _gauge("ullage_thin_pool_data_ratio", "Part of the thin pool that is written, 0 to 1.", "pool", "type")
    metadata = _gauge(
        "ullage_thin_pool_metadata_ratio", "Part of the thin pool's metadata that is used, 0 to 1.", "pool", "type"
    )
    virtual = _gauge("ullage_thin_pool_virtual_bytes", "What its volumes were promised, together.", "pool", "type")
    for pool in pools:
        if pool.thin is not None:
            labels = [pool.name, pool.type.value]
            data.add_metric(labels, pool.thin.data_percent / 100)
            metadata.add_metric(labels, pool.thin.metadata_percent / 100)
            virtual.add_metric(labels, pool.thin.virtual_bytes)
    yield from (data, metadata, virtual)


def _snapshots(volumes: Iterable[Volume]) -> GaugeMetricFamily:
    fullest: dict[str, float] = {}
    for volume in volumes:
        if volume.used_percent is not None:
            fullest[volume.pool] = max(volume.used_percent, fullest.get(volume.pool, 0.0))
    family = _gauge("ullage_snapshot_used_ratio", "Part of its room that the fullest thick snapshot uses.", "pool")
    for pool, percent in sorted(fullest.items()):
        family.add_metric([pool], percent / 100)
    return family


def _volumes(volumes: Sequence[Volume], classes: Iterable[DeviceClassName]) -> Iterator[GaugeMetricFamily]:
    """Zeroes included, for each class that a pool or a volume names."""
    names = sorted({*classes, *(volume.device_class for volume in volumes)})
    counts = Counter((volume.device_class, volume.state) for volume in volumes)
    count = _gauge("ullage_volumes", "Volumes and snapshots.", "device_class", "state")
    size = _gauge("ullage_volumes_bytes", "Their usable sizes together.", "device_class")
    for name in names:
        for state in VolumeState:
            count.add_metric([name, state.value], counts.get((name, state), 0))
        size.add_metric([name], sum(volume.size_bytes for volume in volumes if volume.device_class == name))
    problems = _gauge("ullage_volume_problems", "Volumes that are not as they should be.", "reason")
    reasons = Counter(bounded(volume.problem.reason) for volume in volumes if volume.problem is not None)
    for reason, number in sorted(reasons.items()):
        problems.add_metric([reason], number)
    yield from (count, size, problems)


def _orphans(reports: Iterable[StoreReport]) -> GaugeMetricFamily:
    counts = Counter(orphan.kind for report in reports for orphan in report.orphans)
    family = _gauge("ullage_orphans", "Things with our mark and half of their record.", "kind")
    for kind in OrphanKind:
        family.add_metric([kind], counts[kind])
    return family


def _gauge(name: str, meaning: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=labels)
