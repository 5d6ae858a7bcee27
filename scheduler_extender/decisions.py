"""Which nodes a Pod's volumes fit, why not the others, and which is best: what kube-scheduler asks.

Decisions are made one after the other, under the view's lock, and each costs the nodes it is about. A Pod that was
offered nodes counts from then on: until it is seen where it goes, the next one is only offered nodes that have room for
both. Where that leaves none, the request waits a moment for the choice to become visible: kube-scheduler binds a Pod
while it already asks for the next one. What would fit without the undecided ones is offered after that all the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from scheduler_extender.beside import Beside
from scheduler_extender.demand import Needs, needs_of, storage_class_of
from scheduler_extender.explanation import Explanation, explained
from scheduler_extender.fit import fit
from scheduler_extender.reasons import unseen
from scheduler_extender.reservations import Promise, Reservations
from scheduler_extender.score import emptiest_first, ranked, together
from scheduler_extender.share import best, share
from scheduler_extender.spreading import Spread, Spreads, fills_of
from scheduler_extender.tables import REFUSED, Tables, refusal
from scheduler_extender.view import View
from scheduler_extender.wire import MOST_SCORE, Pod
from ullage.errors import InvalidRequestError

BEING_PLACED = "what is left may go to Pods that are being placed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The nodes that fit, in the order in which they were named, and for all others the reason."""

    fitting: list[str]
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A verdict; unless `is_settled` a better one may be had in a moment.

    `careful` are the nodes that are right whatever is chosen for those who have been offered something.
    """

    needs: Needs
    verdict: Verdict
    careful: Sequence[str]
    is_settled: bool = True


class Decisions:
    """Thread-safe. `patience_seconds` is how long a request waits at most for what is undecided."""

    def __init__(
        self, view: View, *, clock: Callable[[], float] = time.monotonic, patience_seconds: float = 1.0
    ) -> None:
        """One for each view."""
        self._view = view
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._promises = Reservations(view, clock=clock)
        self._tables = Tables(view, self._promises)
        self._spreads = Spreads(view, storage_class_of=lambda spec: storage_class_of(spec, view))
        view.on_change(self._spreads.heard)

    def filter(self, pod: Pod, nodes: Sequence[str]) -> Verdict:
        """Where its volumes fit; the room for them is promised until it is known where it goes."""
        with self._view.changed:
            judged = self._settled(pod, nodes)
            verdict = self._shared(pod, judged)
            self._promises.offer(pod, judged.needs, verdict.fitting)
            return verdict

    def preempt(self, pod: Pod, nodes: Iterable[str]) -> set[str]:
        """Those on which eviction can help: its volumes fit there as it is, for no eviction frees a disk."""
        with self._view.changed:
            return set(self._settled(pod, list(nodes)).careful)

    def prioritize(self, pod: Pod, nodes: Sequence[str]) -> list[int]:
        """0 to 10 for each node, in their order."""
        with self._view.changed:
            self._promises.refresh()
            return self._scores(pod, needs_of(pod, self._view), nodes)

    def explain(self, pod: Pod, nodes: Sequence[str] | None = None) -> Explanation:
        """The same for every node (None: all that have reported storage), with its numbers; nothing is promised."""
        with self._view.changed:
            self._promises.refresh()
            names = list(nodes if nodes is not None else sorted(self._view.nodes))
            judged = self._judged(pod, names)
            return explained(
                pod,
                judged.needs,
                judged.verdict.refused,
                {node: self._tables.room(node, but_for=pod) for node in names},
                dict(zip(judged.verdict.fitting, self._scores(pod, judged.needs, judged.verdict.fitting), strict=True)),
            )

    def promises(self) -> Sequence[Promise]:
        """All that is promised now."""
        with self._view.changed:
            self._promises.refresh()
            return self._promises.all()

    def work_ahead(self, most_nodes: int) -> bool:
        """Work out for so many nodes what requests go by; whether there are more. Answers are the same without it."""
        with self._view.changed:
            self._promises.refresh()
            return self._tables.work_ahead(most_nodes)

    def _settled(self, pod: Pod, nodes: Sequence[str]) -> _Judged:
        """What is to be said, after waiting for it if that may help. Whoever waits lets others in, and judges again."""
        ends = self._clock() + self._patience_seconds
        is_over = False
        while True:
            self._promises.refresh()
            judged = self._judged(pod, nodes)
            left_seconds = ends - self._clock()
            if judged.is_settled or is_over or left_seconds <= 0:
                return judged
            is_over = not self._view.changed.wait(left_seconds)

    def _judged(self, pod: Pod, nodes: Sequence[str]) -> _Judged:
        """What is to be said as things are."""
        needs = needs_of(pod, self._view)
        if needs.is_nothing:
            return _Judged(needs=needs, verdict=Verdict(fitting=list(nodes)), careful=nodes)
        if needs.unseen:
            return _nowhere(needs, nodes, unseen(needs.unseen), is_settled=False)
        if needs.problem:
            return _nowhere(needs, nodes, needs.problem)
        if needs.pins:
            return self._at_its_pins(pod, needs, nodes)
        return self._anywhere(pod, needs, nodes)

    def _at_its_pins(self, pod: Pod, needs: Needs, nodes: Sequence[str]) -> _Judged:
        """One node is right for it, or none. No cap is asked for: it has no choice, and where its data is, it is."""
        first = needs.pins[0]
        refused = dict.fromkeys(nodes, first.why)
        other = next((pin for pin in needs.pins if pin.node != first.node), None)
        if first.node in refused:
            refused[first.node] = other.why if other is not None else self._refusal(pod, needs, first.node)
        fitting = [node for node in nodes if not refused[node]]
        verdict = Verdict(fitting=fitting, refused={node: why for node, why in refused.items() if why})
        is_decided = not needs.wants or len(needs.chosen) == len({want.claim for want in needs.wants})
        careful = fitting if is_decided else self._beside(pod, needs).fitting(fitting)
        return _Judged(needs=needs, verdict=verdict, careful=careful, is_settled=bool(careful) or not fitting)

    def _refusal(self, pod: Pod, needs: Needs, node: str) -> str:
        """Why the one node it can go to has no room for what is still to be made there; empty: it has."""
        if not needs.wants:
            return ""
        room = self._tables.room(node, but_for=pod)
        return "" if fit(needs.wants, room) is not None else refusal(needs.wants, room)

    def _anywhere(self, pod: Pod, needs: Needs, nodes: Sequence[str]) -> _Judged:
        """Nothing holds it: the nodes with room for it, and for what may come there, too."""
        try:
            spreads = self._groups(pod)
        except InvalidRequestError as nonsense:
            return _nowhere(needs, nodes, str(nonsense))
        refused: dict[str, str] = {}
        possible, least_bytes = self._with_room(pod, needs, nodes, refused)
        for spread in spreads:
            refused |= spread.refusals(possible, careful=True)
            possible = [node for node in possible if node not in refused]
        careful = self._beside(pod, needs).fitting(possible, least_bytes=least_bytes)
        best = careful or possible
        if len(best) < len(possible):
            refused |= dict.fromkeys(set(possible).difference(best), BEING_PLACED)
        is_undecided = any(spread.undecided for spread in spreads)
        return _Judged(
            needs=needs,
            verdict=Verdict(fitting=best, refused=refused),
            careful=careful,
            is_settled=not is_undecided and (bool(careful) or not possible),
        )

    def _beside(self, pod: Pod, needs: Needs) -> Beside:
        return Beside(self._tables, self._promises, pod, needs.wants)

    def _groups(self, pod: Pod) -> list[Spread]:
        """How the groups of its volumes lie; raises InvalidRequestError."""
        return self._spreads.of(pod, promised=self._promises.offers.place, offered=self._promises.offers.places)

    def _shared(self, pod: Pod, judged: _Judged) -> Verdict:
        """What it is offered of the verdict, while others are being placed."""
        nodes, wants, offers = judged.verdict.fitting, judged.needs.wants, self._promises.offers
        others = offers.being_placed(self._clock(), but_for=pod.key) if wants and judged.careful else 0
        if not others:
            return judged.verdict
        slack = self._tables.table(wants).slack
        coming = [(offer.among, sum(want.size_bytes for want in offer.wants)) for offer in offers.open(but_for=pod.key)]
        all_bytes = sum(size for _, size in coming)
        size_bytes = max(1, sum(want.size_bytes for want in wants))

        def least(node: str) -> int:
            return 1 + max(0, slack[node] - all_bytes) // size_bytes

        def slots(node: str) -> int:
            left_bytes = slack[node]
            for among, coming_bytes in coming:
                if node in among:
                    left_bytes -= coming_bytes
            return 1 + max(0, left_bytes) // size_bytes

        if share(nodes, least, others) == len(nodes):
            return judged.verdict  # there is plenty, wherever the others go
        count = share(nodes, slots, others)
        if count == len(nodes):
            return judged.verdict
        kept = best(nodes, self._scores(pod, judged.needs, nodes), count)
        left = dict.fromkeys(set(nodes).difference(kept), BEING_PLACED)
        return Verdict(fitting=kept, refused={**judged.verdict.refused, **left})

    def _with_room(
        self, pod: Pod, needs: Needs, nodes: Sequence[str], refused: dict[str, str]
    ) -> tuple[list[str], int]:
        """The nodes that the volumes fit on as far as it is certain what is there, and the least that is left then."""
        table = self._tables.table(needs.wants)
        slack = self._tables.slack(table, nodes)
        fitting = [node for node, left in zip(nodes, slack, strict=True) if left > REFUSED]
        if len(fitting) < len(nodes):
            full = [node for node, left in zip(nodes, slack, strict=True) if left == REFUSED]
            own = self._promises.own_nodes(pod)
            again = [node for node in full if node in own and self._fits(pod, needs, node)]
            refused |= self._tables.refusals(table, [node for node in full if node not in again] if again else full)
            if again:
                return fitting + again, REFUSED
        return fitting, min((left for left in slack if left > REFUSED), default=REFUSED)

    def _fits(self, pod: Pod, needs: Needs, node: str) -> bool:
        return fit(needs.wants, self._tables.room(node, but_for=pod)) is not None

    def _scores(self, pod: Pod, needs: Needs, nodes: Sequence[str]) -> list[int]:
        """By room, and before that by how full the nodes' failure domains are of the volumes' groups."""
        if not needs.wants or needs.problem or needs.unseen or not nodes:
            return [MOST_SCORE] * len(nodes)
        values = together(self._tables.values(self._tables.table(needs.wants), nodes))
        try:
            spreads = self._groups(pod)
        except InvalidRequestError:
            return ranked(values)
        return emptiest_first(fills_of(spreads, nodes), values) if spreads else ranked(values)


def _nowhere(needs: Needs, nodes: Sequence[str], why: str, *, is_settled: bool = True) -> _Judged:
    refused = dict.fromkeys(nodes, why)
    return _Judged(needs=needs, verdict=Verdict(fitting=[], refused=refused), careful=(), is_settled=is_settled)
