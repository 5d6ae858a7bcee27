"""How many nodes a Pod is offered while others are being placed: no more than its share of what is left. Pure.

A Pod that was offered a node may take its room until it is known where it goes, and it takes one. In a burst, Pods that
are each offered all nodes would soon hold all room between them: the next has to wait for one choice after the other,
and one that has waited too long is offered room that somebody else is about to take. So each gets the nodes that are
best for it, and the fewer the more Pods come and the less there is. Alone, a Pod has all nodes to choose from: whatever
else kube-scheduler goes by counts in full then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

PART = 4
"""A Pod's share is a quarter of what is left for each Pod that is being placed: so some is left, however many come."""
SAMPLE = 64
"""So many nodes are looked at to know how much is left: that costs the same with any number of them."""


def share(nodes: Sequence[str], slots: Callable[[str], int], others: int) -> int:
    """How many of `nodes` a Pod is offered while so many others are being placed: all of them, or less, never none.

    `slots` says how many Pods like it a node has room for.
    """
    if not others or len(nodes) < 2:  # noqa: PLR2004 - there is nothing to share
        return len(nodes)
    sample = nodes[:: -(-len(nodes) // SAMPLE)]
    all_slots = sum(map(slots, sample)) * len(nodes) // len(sample)
    return max(1, min(len(nodes), all_slots // (PART * others)))


def best(nodes: Sequence[str], scores: Sequence[int], count: int) -> list[str]:
    """So many of them with the highest scores, in the order in which they were named; of equal ones the first."""
    ranked = sorted(range(len(nodes)), key=lambda place: -scores[place])
    return [nodes[place] for place in sorted(ranked[:count])]
