"""Nodes that were offered to Pods, until it is seen which they take: remembered, bounded, and forgotten after a while.

An offer of one node is as good as a choice, and is told to listeners as one. What offers of several can come to on any
one node is kept added up, so that a request need not go through them where there is room for all.

Not thread-safe: whoever asks holds the view's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from scheduler_extender.demand import Want
from ullage.kube.meta import Key

OFFERED_SECONDS = 30.0
"""A Pod that was offered nodes, and has taken none: it will not, or it will ask again, which it does after ten seconds.

On a busy machine what a Pod takes is seen eight seconds after it was offered."""
MOMENT_SECONDS = 1.0
"""Where a Pod came so short a time ago, more will."""
MOST_MADE = 256
MOST_OFFERED = 100_000
"""So many nodes are remembered as offered, of all Pods together; past that the oldest offer is forgotten.

That is some ten megabytes, and more than a hundred Pods of which each could go to any of those that kube-scheduler asks
about: 500 of a cluster of 5,000, 750 of 15,000. The more Pods there are, the fewer nodes each is offered."""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a Pod wants, and where it may go with it."""

    pod: Key
    uid: str
    wants: tuple[Want, ...]
    nodes: Sequence[str]
    since: float

    @cached_property
    def among(self) -> frozenset[str]:
        """The nodes, to be looked up."""
        return frozenset(self.nodes)


class Offers:
    """At most one for each Pod. `on_change` is told each node of which an offer is the only one, or was."""

    def __init__(self, on_change: Callable[[str], None]) -> None:
        """Nothing is offered."""
        self.place: dict[Key, str] = {}
        """Of each claim that was offered a single node: which."""
        self.places: dict[Key, Sequence[str]] = {}
        """Of each claim that was offered several: these."""
        self._on_change = on_change
        self._by_pod: dict[Key, Offer] = {}
        """The oldest first."""
        self._of_claim: dict[Key, Key] = {}
        self._single: dict[str, dict[Key, Offer]] = {}
        """By node, those of that one only."""
        self._open: dict[Key, Offer] = {}
        """Those of several nodes."""
        self._made: deque[tuple[float, Key]] = deque(maxlen=MOST_MADE)
        """When which Pod was offered something."""
        self._names = self._open_bytes = self._open_volumes = self._open_spread = 0

    # Asking.

    def of(self, pod: Key) -> Offer | None:
        """A Pod's."""
        return self._by_pod.get(pod)

    def for_claim(self, claim: Key) -> Offer | None:
        """That of the Pod which a claim's volume is for."""
        pod = self._of_claim.get(claim)
        return self._by_pod[pod] if pod is not None else None

    def all(self) -> Collection[Offer]:
        """Every one."""
        return self._by_pod.values()

    def single(self, node: str) -> Iterable[Offer]:
        """Those of this node alone."""
        return self._single.get(node, {}).values()

    def open(self, *, but_for: Key) -> list[Offer]:
        """Those of several nodes, to other Pods than this."""
        return [offer for pod, offer in self._open.items() if pod != but_for]

    def being_placed(self, now: float, *, but_for: Key) -> int:
        """How many other Pods have been offered nodes a moment ago, or have not taken any of theirs yet."""
        while self._made and self._made[0][0] < now - MOMENT_SECONDS:
            self._made.popleft()
        return len({pod for _, pod in self._made}.union(self._open).difference((but_for,)))

    def most_bytes(self, extent_bytes: int, *, but_for: Key) -> int | None:
        """The most that those of several nodes can come to on any one; None: that takes a closer look."""
        own = self._open.get(but_for)
        size_bytes, volumes, spread = sums(own) if own is not None else (0, 0, 0)
        if self._open_spread > spread:
            return None
        return self._open_bytes - size_bytes + (self._open_volumes - volumes) * extent_bytes

    # Offering.

    def put(self, offer: Offer) -> None:
        """Instead of what the Pod was offered before. What it shares with another Pod is not promised to both."""
        self.withdraw(offer.pod)
        for want in offer.wants:
            other = self.for_claim(want.claim)
            if other is not None:
                self.narrow(other, tuple(each for each in other.wants if each.claim != want.claim), other.nodes)
        self._by_pod[offer.pod] = offer
        self._made.append((offer.since, offer.pod))
        self._link(offer)

    def withdraw(self, pod: Key) -> None:
        """Forget what a Pod was offered."""
        gone = self._by_pod.pop(pod, None)
        if gone is not None:
            self._unlink(gone)

    def narrow(self, offer: Offer, wants: tuple[Want, ...], nodes: Sequence[str]) -> None:
        """The same, for less, or of fewer nodes; it lasts no longer for that."""
        if not wants:
            self.withdraw(offer.pod)
        elif (wants, nodes) != (offer.wants, offer.nodes):
            self._unlink(offer)
            narrowed = self._by_pod[offer.pod] = replace(offer, wants=wants, nodes=nodes)
            self._link(narrowed)

    def expire(self, now: float) -> None:
        """Forget those that are too old, or too many."""
        while self._by_pod:
            oldest = next(iter(self._by_pod.values()))
            if now < oldest.since + OFFERED_SECONDS and self._names <= MOST_OFFERED:
                break
            self.withdraw(oldest.pod)

    def _link(self, offer: Offer) -> None:
        self._names += len(offer.nodes)
        claims = [want.claim for want in offer.wants]
        self._of_claim |= dict.fromkeys(claims, offer.pod)
        if len(offer.nodes) == 1:
            (node,) = offer.nodes
            self._single.setdefault(node, {})[offer.pod] = offer
            self.place |= dict.fromkeys(claims, node)
            self._on_change(node)
        else:
            self._open[offer.pod] = offer
            self.places |= dict.fromkeys(claims, offer.nodes)
            self._add_up(offer, 1)

    def _unlink(self, offer: Offer) -> None:
        self._names -= len(offer.nodes)
        for want in offer.wants:
            for known in (self._of_claim, self.place, self.places):
                known.pop(want.claim, None)
        if len(offer.nodes) == 1:
            (node,) = offer.nodes
            del self._single[node][offer.pod]
            if not self._single[node]:
                del self._single[node]
            self._on_change(node)
        else:
            del self._open[offer.pod]
            self._add_up(offer, -1)

    def _add_up(self, offer: Offer, sign: int) -> None:
        size_bytes, volumes, spread = sums(offer)
        self._open_bytes += sign * size_bytes
        self._open_volumes += sign * volumes
        self._open_spread += sign * spread


def sums(offer: Offer) -> tuple[int, int, int]:
    """What an offer comes to: bytes, volumes, and how many of these lie on several physical volumes."""
    wants = offer.wants
    return sum(want.size_bytes for want in wants), len(wants), sum(want.layout.is_spread for want in wants)
