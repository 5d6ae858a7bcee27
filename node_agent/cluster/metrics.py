"""What an agent measures of its part in a cluster: how its objects are, and how it comes on with them."""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ullage.kube.logical_volume import DEGRADED, READY, LogicalVolume, Phase
from ullage.metrics import bounded


class ReconcileMetrics:
    """The looks at objects."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._looks = Counter(
            "ullage_reconciles", "Looks at LogicalVolume objects, by how they ended.", ["outcome"], registry=registry
        )

    def observe(self, outcome: str) -> None:
        """Count one; `outcome` is `ok` or the error's reason."""
        self._looks.labels(bounded(outcome)).inc()


def describe_link(
    registry: CollectorRegistry, *, waiting: Callable[[], int], silence_seconds: Callable[[], float]
) -> None:
    """Register what is asked for at each scrape."""
    Gauge("ullage_reconciles_waiting", "Objects that are to be looked at.", registry=registry).set_function(waiting)
    Gauge(
        "ullage_api_silence_seconds", "Time since the API server was last heard, bookmarks included.", registry=registry
    ).set_function(silence_seconds)


class ObjectCollector(Collector):
    """LogicalVolume objects of this node, from memory."""

    def __init__(self, orders: Callable[[], Iterable[LogicalVolume]], strays: Callable[[], int]) -> None:
        """Nothing is read yet; `strays` are volumes without an object."""
        self._orders = orders
        self._strays = strays

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The names, for the registry to find clashes."""
        return tuple(ObjectCollector(lambda: (), lambda: 0).collect())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every metric family, from one look."""
        orders = tuple(self._orders())
        phases = Count(order.status.phase for order in orders)
        objects = GaugeMetricFamily("ullage_objects", "LogicalVolume objects of this node.", labels=["phase"])
        for phase in Phase:
            objects.add_metric([phase], phases[phase])
        reasons = Count(
            bounded(problem.reason)
            for order in orders
            for problem in (order.problem(READY), order.problem(DEGRADED))
            if problem is not None
        )
        problems = GaugeMetricFamily(
            "ullage_object_problems", "Objects that are not as they should be, by why.", labels=["reason"]
        )
        for reason, number in sorted(reasons.items()):
            problems.add_metric([reason], number)
        stray = GaugeMetricFamily("ullage_volumes_without_object", "Volumes on this node that no object describes.")
        stray.add_metric([], self._strays())
        yield from (objects, problems, stray)
