"""How many of a group's volumes a failure domain may have, and which domain has fewest. Pure: names and numbers only.

A group is what must not be lost together: a Raft group's members, the disks of a Ceph device set. Volumes are counted,
not Pods: data stays where it is when its Pod is gone. A domain is what fails at once: a host, a rack, a zone; which one
a node is in, its labels say. A node without the label is in no domain that is known: a cap refuses it, since it could
be in a domain that is full already, and a preference takes it last. It is never the "least filled".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import add
from typing import Literal, TypeAlias

from ullage.names import check_label_key

NOWHERE = ""
"""The domain of a node that lacks the label."""
DOMAINS_OF_THIRDS = 3
"""Copies of one piece of data, where each group of three is its own quorum."""
_STEP = 1 << 16
"""More than any group has members in a domain; a level's counts outweigh those of the levels below it by this."""
_LAST = _STEP // 2
"""How full a domain that is not known counts as."""

Cap: TypeAlias = Literal["quorum", "third"] | int
"""The most that a domain may have, out of R. `quorum`: one group decides by majority, and without any one domain it
still has one. `third`: many groups of three copies each, over R places. A number: just that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A kind of domain: what it is called, and the labels that say which one a node is in, the first that is there."""

    name: str
    labels: tuple[str, ...] = ()
    """None: each node is its own."""

    def domain(self, node: str, labels: Mapping[str, str]) -> str:
        """Which one a node is in, or NOWHERE."""
        if not self.labels:
            return node
        return next((found for key in self.labels if (found := labels.get(key))), NOWHERE)


ZONE = Level(name="zone", labels=("topology.kubernetes.io/zone",))
RACK = Level(name="rack", labels=("topology.rook.io/rack", "topology.kubernetes.io/rack"))
HOST = Level(name="host")
LEVELS = (ZONE, RACK, HOST)
"""The largest first."""


def levels_from(key: str) -> tuple[Level, ...]:
    """The level of this name (or of this node label), and those that are smaller; raises InvalidRequestError."""
    names = [each.name for each in LEVELS]
    if key in names:
        return LEVELS[names.index(key) :]
    return Level(name=check_label_key(key), labels=(key,)), HOST


def most(cap: Cap, replicas: int, domains_in_use: int = DOMAINS_OF_THIRDS) -> int:
    """The most that one domain may have of a group that will be of so many; never less than one.

    `quorum`: fewer than half, so that a majority is elsewhere (of one or two, that cannot be had). `third`: a third,
    rounded up; and one only until three domains are in use, or the three copies of something had but two to go to.
    """
    match cap:
        case "quorum":
            return max(1, (replicas - 1) // 2)
        case "third":
            return max(1, -(-replicas // DOMAINS_OF_THIRDS)) if domains_in_use >= DOMAINS_OF_THIRDS else 1
        case int():
            return cap


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is wished for a group: `levels` in order of weight, and on one level perhaps a cap."""

    group: str
    """As people call it: `default/pg`."""
    levels: tuple[Level, ...] = LEVELS
    capped: Level = HOST
    """The one of them that the cap is about."""
    cap: Cap | None = None
    replicas: int
    """How many there will be."""
    adding: int = 1
    """How many are to be placed now, all on one node."""


class Tally:
    """How a group's volumes lie, and what follows for the next one.

    They are counted and nothing else: the order in which they are named changes nothing.
    """

    def __init__(
        self, rule: Rule, volumes: Iterable[Sequence[str]], *, undecided: Iterable[Iterable[str]] = ()
    ) -> None:
        """`volumes` are the domains of each one's node, one for each of the rule's levels.

        `undecided` are those for which it is not known yet: the domains of the capped level that each may be in, those
        of each node that it may go to.
        """
        rows = list(volumes)
        self._rule = rule
        self._counts = [Counter(row[place] for row in rows) for place in range(len(rule.levels))]
        for counts in self._counts:
            del counts[NOWHERE]
        self._undecided = Counter(domain for among in undecided for domain in set(among))

    def refusal(self, domain: str, *, careful: bool = False) -> str:
        """Why nothing more may go to a domain of the capped level, with the numbers; empty: it may.

        `careful` takes the undecided for being in each domain that they may be in; what is allowed then is so for good.
        """
        if self._rule.cap is None:
            return ""
        return self._judged(domain, self._rule.cap, self._undecided[domain] if careful else 0)

    def fills(self, columns: Sequence[Sequence[str]]) -> list[int]:
        """How full each node's domains are, as numbers to compare: the less, the sooner it is taken.

        `columns` are the domains of the nodes: for each of the rule's levels, one of every node. A larger level
        outweighs all smaller ones. The numbers of several groups can be added up.
        """
        total: list[int] = []
        for place, (counts, column) in enumerate(zip(self._counts, columns, strict=True)):
            step = _STEP ** (len(LEVELS) - 1 - place)
            weights = {domain: count * step for domain, count in counts.items()}
            weights[NOWHERE] = _LAST * step
            fills = list(map(weights.get, column, repeat(0)))
            total = list(map(add, total, fills)) if total else fills
        return total

    def _judged(self, domain: str, cap: Cap, undecided: int) -> str:
        rule, level = self._rule, self._rule.capped
        if domain == NOWHERE:
            return f"it has no label {' or '.join(level.labels)}, by which {rule.group} is spread ({_called(cap)})"
        counts = self._counts[rule.levels.index(level)]
        in_use = len(counts.keys() | {domain})
        allowed = most(cap, rule.replicas, in_use)
        if counts[domain] + undecided + rule.adding <= allowed:
            return ""
        perhaps = f" and perhaps {undecided} more" if undecided else ""
        more = f" and would get {rule.adding}" if rule.adding > 1 else ""
        is_early = cap == "third" and in_use < DOMAINS_OF_THIRDS
        until = f" until it is in {DOMAINS_OF_THIRDS} domains" if is_early else ""
        return (
            f"{level.name} {domain} has {counts[domain]} of {rule.replicas} of {rule.group}{perhaps}{more}, "
            f"at most {allowed}{until} ({_called(cap)})"
        )


def _called(cap: Cap) -> str:
    return cap if isinstance(cap, str) else f"cap {cap}"
