"""What the controller's loops measure, in the one process that leads; the others say nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ullage.metrics import bounded


class CapacityMetrics:
    """`observe` is for `StorageCapacityWriter`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._writes = Counter(
            "ullage_storage_capacity_writes",
            "Writes of CSIStorageCapacity objects, those that failed included.",
            ["verb", "outcome"],
            registry=registry,
        )

    def observe(self, verb: str, outcome: str) -> None:
        """Count one write."""
        self._writes.labels(verb, bounded(outcome)).inc()


class AbandonedMetrics:
    """`observe` is for `AbandonedVolumes`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._volumes = Counter(
            "ullage_abandoned_volumes",
            "Volumes without a claim and a PersistentVolume of which it was decided what becomes of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("removed", "kept"):
            self._volumes.labels(outcome)

    def observe(self, outcome: str) -> None:
        """Count one volume."""
        self._volumes.labels(outcome).inc()


class LoopCollector(Collector):
    """What there is now: orphans by kind, and nodes that are gone. Both answer from memory; None is not known here."""

    def __init__(self, orphans: Callable[[], Mapping[str, int] | None], gone: Callable[[], int | None]) -> None:
        """Nothing is read yet."""
        self._orphans = orphans
        self._gone = gone

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The names, for the registry to find clashes."""
        return _families(None, None)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See Collector."""
        yield from _families(self._orphans(), self._gone())


def _families(orphans: Mapping[str, int] | None, gone: int | None) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    halves = GaugeMetricFamily(
        "ullage_cluster_orphans", "Volumes, objects and PersistentVolumes without their other half.", labels=["kind"]
    )
    for kind, count in (orphans or {}).items():
        halves.add_metric([kind], count)
    nodes = GaugeMetricFamily("ullage_gone_nodes", "Nodes that volumes are on and that are not in the cluster.")
    if gone is not None:
        nodes.add_metric([], gone)
    return halves, nodes
