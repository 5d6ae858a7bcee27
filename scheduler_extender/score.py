"""How well a Pod's volumes go to each of the nodes that they fit: 0 to 10, the best at hand always 10.

A strategy gives each node a value, the more the better; `ranked` lays the values of the candidates out over the whole
range, whatever they are in bytes, so that the last gigabytes of a full cluster are told apart as well as terabytes are.
kube-scheduler adds ten times the score, times the extender's weight, to what its own plugins give (0 to 100 each).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add

from scheduler_extender.wire import MOST_SCORE
from ullage.model import Scoring

LEAST_OF_EMPTIEST = 7
"""Nodes of the least filled domain have at least this."""
MOST_OF_FULLER = 4
"""Nodes of fuller domains have at most this: between the two are 30 points of kube-scheduler's and more."""

EXACT = 1 << 40
"""Below this a float tells thousandths apart."""


def value(scoring: Scoring, *, size_bytes: int, after_bytes: int, total_bytes: int) -> float:
    """What a node is worth for volumes of one class that take `size_bytes` and leave `after_bytes` of `total_bytes`.

    SPREAD: the bytes that are left. BINPACK: the share of what was free that is taken, so that of tight fits the
    tightest is best. BALANCED: the share that is left of all there is, so that small nodes fill as fast as large ones.
    """
    match scoring:
        case Scoring.SPREAD:
            return after_bytes
        case Scoring.BINPACK:
            free_bytes = size_bytes + after_bytes
            return size_bytes / free_bytes if free_bytes else 1.0
        case Scoring.BALANCED:
            return after_bytes / total_bytes if total_bytes else 0.0


def ranked(values: Sequence[float], *, least: int = 0, most: int = MOST_SCORE) -> list[int]:
    """The values in proportion between `least` and `most`, one of which is `most`, and all of them if they are alike.

    Each is as good as the best at hand then; any one number would do, for kube-scheduler compares sums.
    """
    if not values:
        return []
    low, high = min(values), max(values)
    if low == high:
        return [most] * len(values)
    span, range_ = high - low, most - least
    middle = least + 0.5
    factor = range_ / span
    if abs(low * factor) < EXACT:
        offset = middle - low * factor
        return [int(each * factor + offset) for each in values]  # half the time: there may be many thousand
    return [int((each - low) / span * range_ + middle) for each in values]


def together(columns: Sequence[Sequence[float]]) -> list[float]:
    """One value per node from those of several classes, each of which has the same say. Needs at least one class."""
    if len(columns) == 1:
        return list(columns[0])
    total: list[float] = [0.0] * len(columns[0])
    for column in columns:
        low, high = min(column, default=0), max(column, default=0)
        if low < high:
            span = high - low
            total = list(map(add, total, ((each - low) / span for each in column)))
    return total


def emptiest_first(fills: Sequence[int], values: Sequence[float]) -> list[int]:
    """Scores where how full a node's domains are (`ullage.spread.Tally.fills`) outweighs its value.

    Every node of the least filled ones is above every other, and well apart from it; of two others the one in the
    fuller domain is never above. Nodes whose domains are as full as each other's are ranked by value.
    """
    steps = sorted(set(fills))
    if len(steps) <= 1:
        return ranked(values)
    places: dict[int, list[int]] = {step: [] for step in steps}
    for place, fill in enumerate(fills):
        places[fill].append(place)
    scores = [0] * len(fills)
    others = len(steps) - 1
    for number, step in enumerate(steps):
        # The fuller ones share what is below, from the top down; where there are too many for it, some share a number.
        most = MOST_SCORE if number == 0 else MOST_OF_FULLER - (number - 1) * (MOST_OF_FULLER + 1) // others
        least = (
            LEAST_OF_EMPTIEST
            if number == 0
            else min(most, MOST_OF_FULLER + 1 - number * (MOST_OF_FULLER + 1) // others)
        )
        here = places[step]
        for place, score in zip(here, ranked([values[each] for each in here], least=least, most=most), strict=True):
            scores[place] = score
    return scores
