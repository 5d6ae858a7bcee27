"""What the extender measures: how fast it answers, what it is asked, what it refuses, and what it has promised."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from scheduler_extender.decisions import BEING_PLACED
from scheduler_extender.reasons import PROMISED
from scheduler_extender.reservations import Promise

VERBS = ("filter", "prioritize", "preempt", "explain", "mutate")
REQUEST_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds. A filter takes 0.0003 for 500 nodes and 0.002 for 5,000; one that waits for the choice of the Pod before it
takes up to a second; kube-scheduler gives up after five."""
CANDIDATE_BUCKETS = (1, 10, 50, 100, 250, 500, 1000, 2500, 5000, 10000)
"""Nodes. One when kube-scheduler has a node in mind; 500 is what it asks of a cluster of 5,000."""
REASONS = (
    ("no_agent", "no storage agent"),
    ("agent_not_ready", "its agent "),
    ("being_placed", BEING_PLACED),
    ("no_pool", ": no pool "),
    ("spread", " at most "),
    ("spread", " is spread "),
    ("promised", PROMISED),
    ("no_room", " free"),
    ("no_room", "too little room"),
    ("not_there_yet", " not there"),
    ("elsewhere", " is on "),
    ("elsewhere", " is to be made on "),
)
"""A word for each kind of sentence that a node is refused with, by what is in it; the first that fits."""
OTHER = "other"


class RequestMetrics:
    """Observed by the web application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics."""
        self._seconds = Histogram(
            "ullage_extender_request_seconds",
            "How long requests took, from their head to the whole answer.",
            ["verb", "code"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._candidates = Histogram(
            "ullage_extender_candidates",
            "How many nodes were asked about.",
            ["verb"],
            buckets=CANDIDATE_BUCKETS,
            registry=registry,
        )
        self._refusals = Counter(
            "ullage_extender_refusals",
            "Nodes that were refused to Pods.",
            ["reason"],
            registry=registry,
        )
        self._unplaced = Counter(
            "ullage_extender_unplaced",
            "Filters that left no node.",
            registry=registry,
        )

    def answered(self, verb: str, code: int, seconds: float) -> None:
        """A request came to its end."""
        self._seconds.labels(verb, code).observe(seconds)

    def asked(self, verb: str, nodes: int) -> None:
        """A request named so many nodes."""
        self._candidates.labels(verb).observe(nodes)

    def decided(self, refused: Mapping[str, str], *, is_unplaced: bool) -> None:
        """One filter refused nodes, each with a sentence."""
        for sentence, count in Tally(refused.values()).items():
            self._refusals.labels(reason_of(sentence)).inc(count)
        if is_unplaced:
            self._unplaced.inc()


@lru_cache(maxsize=1024)
def reason_of(sentence: str) -> str:
    """A sentence has numbers and names in it, and a label may not."""
    return next((word for word, part in REASONS if part in sentence), OTHER)


class StandingCollector(Collector):
    """What stands now, read at each scrape from memory: promises by kind, and the nodes that have storage."""

    def __init__(self, promises: Callable[[], Iterable[Promise]], nodes: Callable[[], int]) -> None:
        """Nothing is read yet."""
        self._promises = promises
        self._nodes = nodes

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The names, for the registry to find clashes."""
        return _families((), 0)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See Collector."""
        yield from _families(self._promises(), self._nodes())


def _families(promises: Iterable[Promise], nodes: int) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    standing = GaugeMetricFamily(
        "ullage_extender_promises", "Volumes that are promised room, and that no object describes yet.", labels=["kind"]
    )
    kinds = Tally("definite" if len(promise.nodes) == 1 else "tentative" for promise in promises)
    for kind in ("definite", "tentative"):
        standing.add_metric([kind], kinds[kind])
    known = GaugeMetricFamily("ullage_extender_nodes", "Nodes that have reported storage.")
    known.add_metric([], nodes)
    return standing, known
