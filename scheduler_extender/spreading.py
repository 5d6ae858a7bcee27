"""How the groups that a Pod's volumes belong to lie in the cluster, and what follows for the nodes it may go to.

A member is where its LogicalVolume is, else where it is promised. One that was offered several nodes, and has not shown
yet which it takes, may be in any of their domains: who is careful counts it in each.

Not thread-safe: whoever asks holds the view's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import add

from scheduler_extender.groups import Members, Wish, wish_of
from scheduler_extender.objects import Claim
from scheduler_extender.view import View
from scheduler_extender.wire import ClaimSpec, Pod
from ullage.kube.foreign import Node
from ullage.kube.meta import Key
from ullage.spread import Level, Tally

MOST_LEVELS = 16
"""Kinds of domain whose nodes are remembered: a claim may name any label."""
MOST_NODES = 50_000
NOBODY: Mapping[Key, str] = {}


class Spread:
    """One group of the Pod's, and where it may have more."""

    def __init__(self, wish: Wish, tally: Tally, domains: Domains, undecided: Collection[Key]) -> None:
        """`undecided` are the members that may be in several domains."""
        self.wish = wish
        self._tally = tally
        self._domains = domains
        self.undecided = undecided

    def refusals(self, nodes: Sequence[str], *, careful: bool = False) -> dict[str, str]:
        """Those that a hard cap does not allow, each with the reason; `careful` counts the undecided everywhere."""
        if not self.wish.is_hard:
            return {}
        column = self._domains.column(self.wish.capped, nodes)
        reasons = {domain: self._tally.refusal(domain, careful=careful) for domain in set(column)}
        return {node: reasons[domain] for node, domain in zip(nodes, column, strict=True) if reasons[domain]}

    def fills(self, nodes: Sequence[str]) -> list[int]:
        """How full each node's domains are (`ullage.spread.Tally.fills`)."""
        return self._tally.fills([self._domains.column(level, nodes) for level in self.wish.levels])


class Spreads:
    """The groups of a view; `heard` is to be told of each change before the view has it."""

    def __init__(self, view: View, *, storage_class_of: Callable[[ClaimSpec], str] | None = None) -> None:
        """`storage_class_of` knows the default one, too."""
        self._view = view
        self._storage_class_of = storage_class_of or (lambda spec: spec.storage_class_name or "")
        self._members = Members()
        self._domains = Domains(view.labels)
        for claim in view.claims.values():
            self._members.put(claim)

    def heard(self, kind: type, key: Key, found: object | None) -> None:
        """An object is new, changed, or gone (None)."""
        if kind is Claim:
            if isinstance(found, Claim):
                self._members.put(found)
            else:
                self._members.drop(key)
        elif kind is Node:
            self._domains.forget(key[1])

    def of(
        self, pod: Pod, *, promised: Mapping[Key, str] = NOBODY, offered: Mapping[Key, Collection[str]] | None = None
    ) -> list[Spread]:
        """One for each group of which the Pod's claims are to have a volume made; raises InvalidRequestError.

        `promised` are claims that surely go to a node, beside those whose annotation says so, and `offered` those that
        go to one of several. Of the Pod's own neither counts.
        """
        wishes: dict[Key, Wish] = {}
        for name, template in pod.claims:
            key = pod.metadata.namespace, name
            claim = self._view.claims.get(key)
            meta = claim.metadata if claim is not None else template.metadata if template is not None else None
            spec = claim.spec if claim is not None else template.spec if template is not None else None
            if meta is None or spec is None or (claim is not None and self._is_placed(claim)):
                continue
            storage_class = self._view.storage_classes.get(self._storage_class_of(spec))
            if storage_class is None or not self._view.is_ours(storage_class.metadata.name):
                continue
            wish = wish_of(key, labels=meta.labels, annotations=meta.annotations, storage_class=storage_class, pod=pod)
            if wish is not None:
                wishes[key] = wish
        return [
            self._spread(
                wish, [key for key, other in wishes.items() if other.group == wish.group], promised, offered or {}
            )
            for wish in {each.group: each for each in wishes.values()}.values()
        ]

    def _is_placed(self, claim: Claim) -> bool:
        """Whether where its volume is has been decided."""
        return bool(claim.spec.volume_name or claim.selected_node) or self._view.order_of(claim) is not None

    def _spread(
        self, wish: Wish, own: Sequence[Key], promised: Mapping[Key, str], offered: Mapping[Key, Collection[str]]
    ) -> Spread:
        group = wish.group
        stateful_set = self._view.stateful_sets.get((group.namespace, group.name), 0) if group.is_stateful_set else 0
        claims = self._members.of(wish, self._view.claims, stateful_set=stateful_set)
        others = {(each.metadata.namespace, each.metadata.name): each for each in claims}
        for key in own:
            others.pop(key, None)
        rule = wish.rule(members=len(others) + len(own), stateful_set=stateful_set, adding=len(own))
        nodes = {key: self._node(claim, promised.get(key, "")) for key, claim in others.items()}
        undecided = {key: offered[key] for key, node in nodes.items() if not node and key in offered}
        tally = Tally(
            rule,
            self._domains.rows(wish.levels, [node for node in nodes.values() if node]),
            undecided=[self._domains.column(wish.capped, list(among)) for among in undecided.values()],
        )
        return Spread(wish, tally, self._domains, undecided.keys())

    def _node(self, claim: Claim, promised: str) -> str:
        order = self._view.order_of(claim)
        return order.spec.node_name if order is not None else claim.selected_node or promised


class Domains:
    """Which domain each node is in, kept until its labels change: a request costs a look-up for each candidate."""

    def __init__(self, labels: Callable[[str], Mapping[str, str]]) -> None:
        """`labels` are a node's."""
        self._labels = labels
        self._known: OrderedDict[Level, _Known] = OrderedDict()

    def column(self, level: Level, nodes: Sequence[str]) -> Sequence[str]:
        """The domain of each node."""
        if not level.labels:
            return nodes
        known = self._known.get(level)
        if known is None or len(known) > MOST_NODES:
            known = self._known[level] = _Known(level, self._labels)
            if len(self._known) > MOST_LEVELS:
                self._known.popitem(last=False)
        self._known.move_to_end(level)
        return list(map(known.__getitem__, nodes))

    def rows(self, levels: Sequence[Level], nodes: Sequence[str]) -> list[tuple[str, ...]]:
        """The domains of each node, one for each level."""
        return list(zip(*(self.column(level, nodes) for level in levels), strict=True))

    def forget(self, node: str) -> None:
        """Its labels have changed, or may have."""
        for known in self._known.values():
            known.pop(node, None)


class _Known(dict[str, str]):
    """One level's domains, by node; one that is missing is looked up."""

    def __init__(self, level: Level, labels: Callable[[str], Mapping[str, str]]) -> None:
        super().__init__()
        self._level = level
        self._labels = labels

    def __missing__(self, node: str) -> str:
        found = self[node] = self._level.domain(node, self._labels(node))
        return found


def fills_of(spreads: Sequence[Spread], nodes: Sequence[str]) -> list[int]:
    """Of all the groups together; there is at least one."""
    return reduce(lambda one, other: list(map(add, one, other)), (each.fills(nodes) for each in spreads))
