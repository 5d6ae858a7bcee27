"""NodeStorage: this node's stock, published when it changes, and now and then when it does not.

At most one write a second, the first at once; only when it says something else than the object does, when a volume was
told with a revision that no report has yet, or when the last report is getting old. A store that cannot be read makes a
condition. Without the API server the stock goes on changing, and what it has come to by then is published after.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Callable, Container, Iterable, Sequence

import msgspec
from msgspec.structs import replace

from node_agent.backends.port import StoreReport
from node_agent.cluster.answers import degraded_condition
from node_agent.cluster.revisions import Revisions
from node_agent.cluster.strays import Strays
from node_agent.cluster.telling import Events
from node_agent.stock import Stock
from ullage.capacity import largest_volume_bytes
from ullage.errors import UllageError
from ullage.kube.api import Api
from ullage.kube.foreign import Node, ObjectReference
from ullage.kube.informer import Informer
from ullage.kube.meta import (
    API_VERSION,
    NODE_STORAGES,
    NODES,
    Condition,
    Meta,
    OwnerReference,
    condition,
    conditions_after,
    find,
    timestamp,
)
from ullage.kube.node_storage import CAPACITY_KNOWN, DEGRADED, READY, NodeStorage, StorageStatus, pool_status
from ullage.model import DeviceClassName, Layout, NodeName, Problem

LEAST_SECONDS = 1.0
"""Between two writes."""
HEARTBEAT_SECONDS = 300.0
JITTER = 0.2
LONGEST_PAUSE_SECONDS = 10.0
JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Publisher:
    """One thread; `publish` is what it does."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        *,
        node: NodeName,
        version: str,
        stock: Stock,
        strays: Strays,
        revisions: Revisions,
        api: Api,
        storages: Informer[NodeStorage],
        nodes: Informer[Node],
        classes: Callable[[], Container[DeviceClassName]],
        events: Events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`storages` and `nodes` have this node's only; `classes` are those served now, `version` the program's."""
        self._node = node
        self._program = version
        self._stock = stock
        self._strays = strays
        self._revisions = revisions
        self._api = api
        self._storages = storages
        self._nodes = nodes
        self._classes = classes
        self._events = events
        self._clock = clock
        self._heartbeat_due = clock()
        self._is_wished = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to publish, at once."""
        self._strays.start()
        self._thread.start()

    def stop(self) -> None:
        """End, but do not wait for an API server that does not answer."""
        self._is_stopping.set()
        self._strays.stop()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def wish(self) -> None:
        """Something that the report depends on has changed, besides the stock."""
        self._is_wished.set()

    def publish(self) -> bool:
        """Publish what there is, if it is news; whether anything was written. Raises ApiError, ApiUnavailableError."""
        before = self._storages.get(self._node)
        if before is None:
            before = self._created()
        if before is None:
            return False
        self._revisions.settle(before.status.revision)
        revision = self._revisions.now()  # before the reports are read: they have all that it counts
        report = self._report(self._stock.reports(), before.status)
        is_same = report == replace(before.status, revision=0, observed_at="")
        if is_same and self._revisions.promised <= before.status.revision and self._clock() < self._heartbeat_due:
            return False
        status = replace(report, revision=revision, observed_at=timestamp())
        # A patch keeps what it does not name, and what is empty is left out of a Struct.
        fields = {"pools": (), "orphans": (), **msgspec.to_builtins(status)}
        body = {"metadata": {"uid": before.metadata.uid}, "status": fields}
        self._storages.learn(self._api.patch(NODE_STORAGES, self._node, body, subresource="status"))
        self._heartbeat_due = self._clock() + HEARTBEAT_SECONDS * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads load, hides nothing
        self._tell(before, status)
        return True

    def _created(self) -> NodeStorage | None:
        """The object, which goes when its Node goes; None while there is no Node."""
        node = self._nodes.get(self._node)
        if node is None:
            log.debug("no node, no report", extra={"node": self._node})
            return None
        owner = OwnerReference(api_version=NODES.api_version, kind=NODES.kind, name=self._node, uid=node.metadata.uid)
        wanted = NodeStorage(
            api_version=API_VERSION,
            kind=NODE_STORAGES.kind,
            metadata=Meta(name=self._node, owner_references=(owner,)),
        )
        return self._storages.learn(self._api.create(NODE_STORAGES, wanted))

    def _report(self, reports: Sequence[StoreReport], before: StorageStatus) -> StorageStatus:
        served = self._classes()
        pools = [
            dataclasses.replace(pool, classes=names)  # a store that no class names any more stays known for its volumes
            for report in reports
            for pool in report.pools
            if (names := tuple(name for name in pool.classes if name in served))
        ]
        return StorageStatus(
            agent_version=self._program,
            pools=tuple(
                pool_status(pool, largest_volume_bytes(pool, Layout()))
                for pool in sorted(pools, key=lambda pool: pool.name)
            ),
            orphans=self._strays.among(reports),
            conditions=conditions_after(before.conditions, _conditions(reports)),
        )

    def _tell(self, before: NodeStorage, status: StorageStatus) -> None:
        """People, of what they may have to see to."""
        about = ObjectReference(
            api_version=API_VERSION, kind=NODE_STORAGES.kind, name=self._node, uid=before.metadata.uid
        )
        known = {(each.name, each.kind) for each in before.status.orphans}
        for orphan in status.orphans:
            if (orphan.name, orphan.kind) not in known:
                log.warning("orphan", extra={"volume_id": orphan.name, "kind": orphan.kind, "why": orphan.message})
                self._events.tell(
                    about, reason="OrphanFound", message=f"{self._node}: {orphan.message}", is_warning=True
                )
        was, now = find(before.status.conditions, DEGRADED), find(status.conditions, DEGRADED)
        if now is not None and now.is_true and (was is None or (was.status, was.reason) != (now.status, now.reason)):
            self._events.tell(about, reason=now.reason, message=f"{self._node}: {now.message}", is_warning=True)

    def _run(self) -> None:
        version, pause, is_due = -1, LEAST_SECONDS, True
        while not self._is_stopping.is_set():
            seen = self._stock.wait_for_change(version, LEAST_SECONDS)
            is_due |= seen != version or self._is_wished.is_set() or self._strays.is_undecided
            is_due |= self._revisions.promised > self._told_revision() or self._clock() >= self._heartbeat_due
            version = seen
            if not is_due or self._is_stopping.is_set():
                continue
            self._is_wished.clear()
            try:
                is_written = self.publish()
            except UllageError as error:
                log.warning("stock not published", extra={"reason": error.reason, "why": str(error)})
                self._is_stopping.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - the same
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            except Exception:  # the thread's top
                log.exception("stock not published")
                self._is_stopping.wait(LONGEST_PAUSE_SECONDS)
            else:
                is_due, pause = False, LEAST_SECONDS
                if is_written:
                    self._is_stopping.wait(LEAST_SECONDS)

    def _told_revision(self) -> int:
        told = self._storages.get(self._node)
        return 0 if told is None else told.status.revision


def _conditions(reports: Sequence[StoreReport]) -> tuple[Condition, ...]:
    unreadable = _joined((report.name, report.problem) for report in reports)
    ill = _joined((pool.name, pool.problem) for report in reports for pool in report.pools)
    return (
        condition(READY, None, good="Serving"),
        condition(CAPACITY_KNOWN, unreadable),
        degraded_condition(unreadable or ill, 0),
    )


def _joined(problems: Iterable[tuple[str, Problem | None]]) -> Problem | None:
    """One for all, with the first one's reason."""
    found = [(name, problem) for name, problem in problems if problem is not None]
    if not found:
        return None
    return Problem(reason=found[0][1].reason, message="; ".join(f"{name}: {each.message}" for name, each in found))
