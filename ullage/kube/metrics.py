"""What informers measure; read from memory at each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from ullage.kube.informer import Informer
from ullage.kube.reader import Reader


class InformerCollector(Collector):
    """The informers and readers of a process, each of another kind; `resource` is the kind's plural."""

    def __init__(self, informers: Sequence[Informer[Any] | Reader[Any]]) -> None:  # of kinds that do not matter here
        """Nothing is read yet."""
        self._informers = informers

    def describe(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """The names, for the registry to find clashes."""
        return tuple(InformerCollector(()).collect())

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """As they are now."""
        objects = _gauge("ullage_informer_objects", "Objects in memory.")
        unreadable = _gauge("ullage_informer_unreadable", "Objects that could not be understood as they are now.")
        age = _gauge("ullage_informer_silence_seconds", "Time since the API server last said anything.")
        relists = _counter("ullage_informer_relists", "Lists of all objects, the first included.")
        watches = _counter("ullage_informer_reconnects", "Watches that were begun, the first included.")
        events = _counter("ullage_informer_events", "Changes that watches told.")
        for each in self._informers:
            labels = [each.resource.plural]
            objects.add_metric(labels, len(each))
            unreadable.add_metric(labels, each.unreadable)
            age.add_metric(labels, each.seconds_since_heard)
            relists.add_metric(labels, each.relists)
            watches.add_metric(labels, each.watches)
            events.add_metric(labels, each.events)
        yield from (objects, unreadable, age, relists, watches, events)


def _gauge(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=["resource"])


def _counter(name: str, meaning: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, meaning, labels=["resource"])
