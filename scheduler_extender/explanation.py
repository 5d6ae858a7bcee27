"""A verdict with all its numbers, for people: each node's pools, what is promised in them, and why or how well it fits.

Plain values that can be written as JSON as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler_extender.demand import Needs, Pin, Want
from scheduler_extender.fit import Room
from scheduler_extender.wire import Pod
from ullage.model import DeviceClassName, DeviceType, Pool, PoolName


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolExplained:
    """One pool, as far as it is of a class that the Pod wants. `free_bytes` is without what is promised."""

    name: PoolName
    classes: tuple[DeviceClassName, ...]
    type: DeviceType
    total_bytes: int
    free_bytes: int
    promised_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeExplained:
    """One node. An empty `refusal` means that it fits; `score` is then its score among those that do."""

    node: str
    pools: tuple[PoolExplained, ...]
    refusal: str
    score: int | None

    @property
    def fits(self) -> bool:
        """Whether the Pod's volumes do."""
        return not self.refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a Pod asks for, and what each node has to say to it."""

    namespace: str
    name: str
    wants: tuple[Want, ...]
    pins: tuple[Pin, ...]
    problem: str
    """Why no node is right, whatever it has."""
    unseen: tuple[str, ...]
    nodes: tuple[NodeExplained, ...]


def explained(
    pod: Pod, needs: Needs, refused: Mapping[str, str], rooms: Mapping[str, Room], scores: Mapping[str, int]
) -> Explanation:
    """Put together; `scores` are those of the nodes that are not refused."""
    classes = {want.device_class for want in needs.wants}
    return Explanation(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        wants=needs.wants,
        pins=needs.pins,
        problem=needs.problem,
        unseen=needs.unseen,
        nodes=tuple(
            NodeExplained(
                node=node,
                pools=tuple(
                    _pool(pool, room.before[name])
                    for name, pool in room.pools.items()
                    if not classes or classes.intersection(pool.classes)
                ),
                refusal=refused.get(node, ""),
                score=scores.get(node),
            )
            for node, room in rooms.items()
        ),
    )


def _pool(pool: Pool, before: Pool) -> PoolExplained:
    return PoolExplained(
        name=pool.name,
        classes=pool.classes,
        type=pool.type,
        total_bytes=pool.total_bytes,
        free_bytes=pool.free_bytes,
        promised_bytes=before.free_bytes - pool.free_bytes,
        problem="" if pool.problem is None else pool.problem.message,
    )
