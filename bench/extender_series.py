"""What is asked of the extender, in which state of things, and how long it takes; in the process and on the wire."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from bench.extender_client import Order, Took
from bench.extender_objects import NEW_PODS, Size, asks, asks_with_nodes
from bench.extender_program import Cluster

PATHS = ("/filter", "/prioritize")
FULL_NODES = 500
IDLE_SECONDS = 0.1
BUSY_SECONDS = 20.0
"""As long as a full relist takes, and a little more."""
CALLS = 250_000
"""Candidates in all that a series asks about when it is back to back, by default: 500 calls of 500."""
IDLE_ROUNDS = 50
LATE_SECONDS = 0.040
"""No reply is to take so long: it would be a delayed ACK, or a stop of the whole interpreter."""


class State(StrEnum):
    """What goes on meanwhile."""

    CALM = "back to back"
    IDLE = "after 100 ms idle"
    BUSY = "changes, relist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Of one kind of Pod, at so many candidates."""

    state: State
    claims: int
    candidates: int
    is_full: bool = False
    """Whole Node objects instead of names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """Of one verb; seconds."""

    calls: int
    p50: float
    p99: float
    slowest: float
    late: int
    """How many took LATE_SECONDS or longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Of one series."""

    where: str
    series: Series
    filter: Verb
    prioritize: Verb | None
    relisted: int
    """Objects that were listed anew meanwhile."""


def all_series(candidates: Sequence[int]) -> Iterator[Series]:
    """Everything, from the quiet to the noisy."""
    for state in State:
        for claims in (1, 3):
            for each in candidates:
                yield Series(state=state, claims=claims, candidates=each)
    yield Series(state=State.CALM, claims=1, candidates=FULL_NODES, is_full=True)


def found(  # noqa: PLR0913 - what there is to measure
    where: str, series: Series, cluster: Cluster, *, rounds: int, address: str, ask: Callable[[Order], Took]
) -> Found:
    """One series; `rounds` is for 500 candidates, and less for more."""
    order = _order(series, cluster.size, rounds, address)
    before = cluster.rest()
    if series.state is State.BUSY:
        cluster.tell("busy")
        cluster.tell("relist")
    try:
        took = ask(order)
    finally:
        listed = cluster.tell("calm")
    verbs = [_verb(each) for each in took.seconds]
    return Found(
        where=where,
        series=series,
        filter=verbs[0],
        prioritize=verbs[1] if len(verbs) > 1 else None,
        relisted=listed - before,
    )


def _order(series: Series, size: Size, rounds: int, address: str) -> Order:
    if series.is_full:
        bodies = [[asks_with_nodes(series.claims, series.candidates, number)] for number in range(4)]
        return Order(address=address, paths=PATHS[:1], bodies=bodies, rounds=max(2, rounds // 10), most_seconds=60.0)
    asked = [asks(size, series.claims, series.candidates, number) for number in range(NEW_PODS)]
    is_busy = series.state is State.BUSY
    fewer = max(1, series.candidates // 2500)
    of_state = {State.CALM: rounds // fewer, State.IDLE: min(IDLE_ROUNDS, rounds), State.BUSY: 1_000_000}
    return Order(
        address=address,
        paths=PATHS,
        bodies=asked,
        rounds=of_state[series.state],
        most_seconds=BUSY_SECONDS if is_busy else 60.0,
        idle_seconds=IDLE_SECONDS if series.state is State.IDLE else 0.0,
    )


def _verb(seconds: Sequence[float]) -> Verb:
    ordered = sorted(seconds)
    return Verb(
        calls=len(ordered),
        p50=statistics.median(ordered),
        p99=ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        slowest=ordered[-1],
        late=sum(each >= LATE_SECONDS for each in ordered),
    )
