"""What one controller of several does while it leads.

Capacity is written, lost nodes are given up, orphans told of, and volumes that nobody wants removed if they are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from csi.cluster.abandoned import AbandonedVolumes
from csi.cluster.node_loss import NodeLoss
from csi.cluster.orphans import OrphanScanner
from csi.cluster.repeat import Repeated
from csi.cluster.storage_capacity import StorageCapacityWriter
from csi.cluster.telling import Telling
from csi.cluster.view import ClusterView
from ullage.kube.api import Api
from ullage.kube.foreign import Node
from ullage.kube.informer import Informer
from ullage.kube.meta import NODES

MOST_CHECK_SECONDS = 10.0


class NodeLossLoop:
    """Begins anew with every `start`: what an earlier leader has seen counts for nothing."""

    def __init__(
        self, api: Api, view: ClusterView, events: Telling, *, delay_seconds: float, is_leader: Callable[[], bool]
    ) -> None:
        """Nodes are read only while it runs: nobody else here needs them."""
        self._api = api
        self._view = view
        self._events = events
        self._delay_seconds = delay_seconds
        self._is_leader = is_leader
        self._nodes: Informer[Node] | None = None
        self._loss: NodeLoss | None = None
        self._loop = Repeated("node-loss", min(MOST_CHECK_SECONDS, delay_seconds / 4), self._check)

    @property
    def gone(self) -> int | None:
        """How many nodes with volumes are gone; None where nobody looks."""
        loss = self._loss
        return None if loss is None else loss.gone

    def start(self) -> None:
        """Begin to count."""
        self._nodes = Informer(self._api, NODES, Node)
        self._loss = NodeLoss(
            self._api,
            self._view,
            self._nodes,
            self._events,
            delay_seconds=self._delay_seconds,
            may_act=lambda: not self._loop.is_stopping and self._is_leader(),
        )
        self._nodes.start()
        self._loop.start()

    def stop(self) -> None:
        """End after the step under way."""
        self._loop.stop()
        if self._nodes is not None:
            self._nodes.stop()
        self._nodes = self._loss = None

    def _check(self) -> None:
        if self._loss is not None:
            self._loss.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loops:
    """All of them; `node_loss` and `abandoned` are None unless they are wanted."""

    capacity: StorageCapacityWriter
    orphans: OrphanScanner
    node_loss: NodeLossLoop | None
    abandoned: AbandonedVolumes | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        self.capacity.start()
        self.orphans.start()
        if self.node_loss is not None:
            self.node_loss.start()
        if self.abandoned is not None:
            self.abandoned.start()

    def stop(self) -> None:
        """End, each after the step under way; what gives up volumes first."""
        if self.abandoned is not None:
            self.abandoned.stop()
        if self.node_loss is not None:
            self.node_loss.stop()
        self.orphans.stop()
        self.capacity.stop()
