"""The agent's part in its cluster, and the order in which it begins: without the API server, not at all, and later.

What a Pod needs of this node does not wait for it. When the API server is there: the classes first, since without them
no volume can be found and none be told to be missing; then the objects, and the revisions that were told before; then
the stock is published and the orders are carried out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from node_agent.agent import Agent
from node_agent.assembly import Assembly
from node_agent.cluster.classes import Classes
from node_agent.cluster.deeds import Deeds
from node_agent.cluster.publisher import Publisher
from node_agent.cluster.questions import Alone
from node_agent.cluster.reconciler import Reconciler
from node_agent.cluster.revisions import Revisions
from node_agent.cluster.strays import Strays
from node_agent.cluster.telling import BY_GROUP, Events, Told, groups_of
from ullage.errors import UllageError
from ullage.kube.api import Api
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, NODES
from ullage.kube.node_storage import NodeStorage
from ullage.model import DeviceClass, NodeName, OrphanKind, Volume

LOOK_SECONDS = 0.5
"""How often the end is looked for while the API server is waited for."""
PAUSE_SECONDS = 5.0
JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class EventLog(Events, Protocol):
    """Tells people, from a thread of its own."""

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


class Link:
    """Everything that talks to the API server for this node; `start` returns at once."""

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        *,
        node: NodeName,
        version: str,
        assembly: Assembly,
        api: Api,
        events: EventLog,
        alone: Alone,
        probe: Callable[[Volume], str],
        kept: Path,
        observe: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`kept` is the file for the classes, `probe` says what is on a volume's device."""
        self._node = node
        self._agent: Agent = assembly.agent
        self._events = events
        self.orders: Informer[LogicalVolume] = Informer(
            api,
            LOGICAL_VOLUMES,
            LogicalVolume,
            field_selector=f"spec.nodeName={node}",
            indexes={BY_GROUP: groups_of},
        )
        self.storages: Informer[NodeStorage] = Informer(
            api, NODE_STORAGES, NodeStorage, field_selector=f"metadata.name={node}"
        )
        self._nodes: Informer[Node] = Informer(api, NODES, Node, field_selector=f"metadata.name={node}")
        self._objects: Informer[DeviceClassObject] = Informer(api, DEVICE_CLASSES, DeviceClassObject)
        self._revisions = Revisions(lambda: assembly.stock.wait_for_change(-1, 0))
        self._classes = Classes(
            node=node,
            objects=self._objects,
            nodes=self._nodes,
            configure=self._configured,
            kept=kept,
            events=events,
        )
        self._strays = Strays(lambda volume_id: self.orders.get(volume_id) is not None, probe)
        self._publisher = Publisher(
            node=node,
            version=version,
            stock=assembly.stock,
            strays=self._strays,
            revisions=self._revisions,
            api=api,
            storages=self.storages,
            nodes=self._nodes,
            classes=lambda: {each.name for each in assembly.agent.classes()},
            events=events,
        )
        deeds = Deeds(
            node=node,
            storage=assembly.agent,
            orders=self.orders,
            told=Told(api, self.orders, events, node, self._revisions),
            alone=alone,
        )
        self._reconciler = Reconciler(deeds, self.orders, assembly.agent, observe=observe)
        self._is_stopping = threading.Event()
        self._is_joined = False
        self._thread = threading.Thread(target=self._join, name="cluster-link", daemon=True)
        self._hear()

    @property
    def informers(self) -> tuple[Informer[Any], ...]:
        """What it hears of the cluster: of this node alone, and of the classes."""
        return (self._nodes, self._objects, self.orders, self.storages)

    def last_known_classes(self) -> Sequence[DeviceClass]:
        """To be served until the API server says which there are."""
        return self._classes.last_known()

    def ended(self, request: Hashable, failure: BaseException | None, seconds: float) -> None:
        """An operation of the agent's has ended."""
        self._reconciler.ended(request, failure, seconds)

    def waiting(self) -> int:
        """How many objects are to be looked at."""
        return self._reconciler.waiting()

    def strays(self) -> int:
        """How many volumes are told of as without an object."""
        told = self.storages.get(self._node)
        halves = {OrphanKind.RECORD_WITHOUT_VOLUME, OrphanKind.UNREADABLE_RECORD}
        return 0 if told is None else sum(each.kind not in halves for each in told.status.orphans)

    @property
    def is_joined(self) -> bool:
        """Whether the API server has been heard, and orders are carried out."""
        return self._is_joined

    def start(self) -> None:
        """Begin to listen; what is to be done is done as soon as enough is known."""
        self._events.start()
        for informer in self.informers:
            informer.start()
        self._thread.start()

    def stop(self) -> None:
        """End. What is under way in the agent goes on."""
        self._is_stopping.set()
        self._thread.join(JOIN_SECONDS)
        if self._is_joined:
            self._reconciler.stop()
            self._classes.stop()
            self._publisher.stop()
        ends = [self.orders.stop, self.storages.stop, self._nodes.stop, self._objects.stop, self._events.stop]
        with ThreadPoolExecutor(len(ends), thread_name_prefix="cluster-link-end") as together:
            for end in ends:  # each waits some seconds for an API server that does not answer
                together.submit(end)

    def _hear(self) -> None:
        """Who is told of which change."""
        self._strays.on_change(self._publisher.wish)
        self._objects.on_change(lambda _before, _after: self._classes.heard())
        self._nodes.on_change(self._node_changed)
        self.storages.on_change(lambda _before, _after: self._publisher.wish())
        self.orders.on_change(self._reconciler.changed)
        self.orders.on_change(self._order_changed)

    def _node_changed(self, before: Node | None, after: Node | None) -> None:
        """A kubelet writes its Node's status often; of that nothing is ours."""
        who = [(each.metadata.uid, each.metadata.labels) if each is not None else None for each in (before, after)]
        if who[0] != who[1]:
            self._classes.heard()
            self._publisher.wish()

    def _order_changed(self, before: LogicalVolume | None, after: LogicalVolume | None) -> None:
        if before is None or after is None:
            self._publisher.wish()

    def _configured(self, classes: Sequence[DeviceClass]) -> None:
        """The agent serves these; what it has only now come to see is brought up, and finished."""
        self._agent.configure(classes)
        self._agent.bring_up()
        self._publisher.wish()

    def _join(self) -> None:
        for informer in self.informers:
            while not informer.wait_until_synced(LOOK_SECONDS):
                if self._is_stopping.is_set():
                    return
        while not self._is_stopping.is_set():
            try:
                self._classes.apply()
                break
            except UllageError as error:
                log.warning("device classes not taken", extra={"reason": error.reason, "why": str(error)})
            except Exception:  # the thread's top
                log.exception("device classes not taken")
            self._is_stopping.wait(PAUSE_SECONDS)
        if self._is_stopping.is_set():
            return
        told = [each.status.revision for each in self.storages.all()]
        told += [each.status.revision for each in self.orders.all()]
        self._revisions.settle(max(told, default=0))
        self._classes.start()
        self._publisher.start()
        self._reconciler.start()
        self._is_joined = True
        log.info("joined the cluster", extra={"objects": len(self.orders)})
