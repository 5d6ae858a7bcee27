"""CSIStorageCapacity objects, by which kube-scheduler knows where a claim fits: written from the stock, as it changes.

One for each node and each StorageClass of ours whose device class has a pool there, and none else: external-provisioner
would ask for, and write, every node times every class, once a minute. Classes that bind at once have none, for the
scheduler is never asked about those.

The scheduler looks through all of these objects for each Pod, and is told of each write, so thousands of nodes cannot
be written at every turn. But near full it has to know exactly. So a change is written at once when it is more than a
part (`AT_ONCE`) of what was said before: half a percent of an empty node can wait, the same bytes on a full one
cannot. The rest is written LAZY_SECONDS later at the latest. Whatever comes between two writes of a node is one
write, and all nodes together are given WRITES_PER_SECOND.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime

from csi.cluster.due import Due
from csi.cluster.rooms import SELECTOR, Change, change, node_of, objects, rooms_of
from csi.cluster.view import ClusterView
from ullage.errors import ApiExistsError, ApiNotFoundError, UllageError, UnavailableError
from ullage.kube.api import Api
from ullage.kube.foreign import StorageCapacity, StorageClass
from ullage.kube.informer import Informer
from ullage.kube.meta import STORAGE_CAPACITIES, STORAGE_CLASSES, KubeObject
from ullage.kube.node_storage import NodeStorage
from ullage.stock import pools_left, why_unknown

QUIET_SECONDS = 0.2
"""After a change, for those that come with it: a volume and its node's report do."""
LAZY_SECONDS = 30.0
LOOK_SECONDS = 120.0
"""After this each node is looked at again although nothing has changed: that its agent is silent is no event."""
WRITES_PER_SECOND = 50.0
"""10,000 objects are there in less than four minutes; external-provisioner's own limit is 1."""
RETRY_SECONDS = (0.2, 60.0)
SYNC_SECONDS = 1.0

log = logging.getLogger(__name__)


class CapacityObjects:
    """The objects of one node after the other, made what they should be. One thread's."""

    def __init__(  # noqa: PLR0913 - clocks are arguments
        self,
        api: Api,
        view: ClusterView,
        namespace: str,
        *,
        on_write: Callable[[str, str], None],
        pause: Callable[[float], object],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`start` begins to read what is not in the view. `pause` is called after each write."""
        self.storage_classes: Informer[StorageClass] = Informer(api, STORAGE_CLASSES, StorageClass)
        self.written: Informer[StorageCapacity] = Informer(
            api,
            STORAGE_CAPACITIES,
            StorageCapacity,
            namespace=namespace,
            label_selector=SELECTOR,
            indexes={"node": node_of},
        )
        self._api = api
        self._view = view
        self._namespace = namespace
        self._on_write = on_write
        self._pause = pause
        self._clock = clock
        self._now = now
        self._lazy: dict[str, float] = {}
        """When a node's small changes are to be written."""

    def start(self) -> None:
        """Begin to read."""
        self.storage_classes.start()
        self.written.start()

    def stop(self) -> None:
        """End."""
        self.storage_classes.stop()
        self.written.stop()

    @property
    def are_known(self) -> bool:
        """Whether all is listed: before, what is not known would look as if it were gone."""
        return self._view.is_synced and self.storage_classes.is_synced and self.written.is_synced

    @property
    def nodes(self) -> set[str]:
        """All that there is, or was, something to say about."""
        return {each.metadata.name for each in self._view.storages.all()} | nodes_among(self.written.all())

    def settle(self, node: str) -> float | None:
        """Make a node's objects what they should be; the answer is after how many seconds it is to be looked at again.

        Raises ApiError, ApiUnavailableError.
        """
        storage = self._view.storages.get(node)
        if storage is not None and not storage.status.revision:
            return LOOK_SECONDS  # its agent has not reported yet: nothing is known, least of all that there is no room
        wanted = {each.metadata.name: each for each in self._wanted(storage)} if storage is not None else {}
        written = {each.metadata.name: each for each in self.written.by_index("node", node)}
        for name, each in written.items():
            if name not in wanted:
                self._delete(each)
        changes = {name: change(written.get(name), each) for name, each in wanted.items()}
        if max(changes.values(), default=Change.NONE) is Change.SMALL:
            now = self._clock()
            due = self._lazy.setdefault(node, now + LAZY_SECONDS)
            if now < due:
                return due - now
        self._lazy.pop(node, None)
        for name, how_much in changes.items():
            if how_much is not Change.NONE:
                self._write(wanted[name], is_new=name not in written)
        return LOOK_SECONDS if storage is not None else None

    def _wanted(self, storage: NodeStorage) -> list[StorageCapacity]:
        classes = self._view.device_classes()
        left = pools_left(storage, self._view.volumes.by_index("node", storage.node), classes)
        rooms = rooms_of(left.values(), self.storage_classes.all(), classes)
        if why_unknown(storage, self._now()):
            rooms = dict.fromkeys(rooms, (0, 0))  # no order would be placed there
        return objects(storage, rooms, self._namespace)

    def _write(self, wanted: StorageCapacity, *, is_new: bool) -> None:
        name = wanted.metadata.name
        if is_new:
            with suppress(ApiExistsError):  # somebody took our labels off: they are put on again
                made = self._call(
                    "create", lambda: self._api.create(STORAGE_CAPACITIES, wanted, namespace=self._namespace)
                )
                self.written.learn(made)
                return
        body = {
            "metadata": {"labels": wanted.metadata.labels, "ownerReferences": wanted.metadata.owner_references},
            "capacity": wanted.capacity,
            "maximumVolumeSize": wanted.maximum_volume_size,
        }
        patched = self._call(
            "patch", lambda: self._api.patch(STORAGE_CAPACITIES, name, body, namespace=self._namespace)
        )
        self.written.learn(patched)

    def _delete(self, written: StorageCapacity) -> None:
        def delete() -> bytes:
            with suppress(ApiNotFoundError):
                meta = written.metadata
                self._api.delete(STORAGE_CAPACITIES, meta.name, namespace=self._namespace, uid=meta.uid)
            return b""

        self._call("delete", delete)

    def _call(self, verb: str, write: Callable[[], bytes]) -> bytes:
        """One write, and the pause that keeps all of them to their rate."""
        outcome = "ok"
        try:
            return write()
        except UllageError as failure:
            outcome = failure.reason
            raise
        finally:
            self._on_write(verb, outcome)
            self._pause(1 / WRITES_PER_SECOND)


class StorageCapacityWriter:
    """One thread from `start` to `stop`, while this controller leads; may be started again."""

    def __init__(
        self,
        api: Api,
        view: ClusterView,
        namespace: str,
        *,
        on_write: Callable[[str, str], None] = lambda _verb, _outcome: None,
    ) -> None:
        """Before the view starts: it listens to that. `on_write` is told each verb and its outcome."""
        self._api = api
        self._view = view
        self._namespace = namespace
        self._on_write = on_write
        self._due = Due()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        view.storages.on_change(lambda *seen: self._due.put(_names(seen), QUIET_SECONDS))
        view.volumes.on_change(lambda *seen: self._due.put({each.node for each in seen if each}, QUIET_SECONDS))
        view.classes.on_change(lambda *_: self._due.put(_names(view.storages.all()), QUIET_SECONDS))

    def start(self) -> None:
        """Begin with a look at every node."""
        self._stopping = threading.Event()
        self._due.open()
        found = CapacityObjects(
            self._api, self._view, self._namespace, on_write=self._on_write, pause=self._stopping.wait
        )
        found.written.on_change(lambda *seen: self._due.put(nodes_among(seen), QUIET_SECONDS))
        found.storage_classes.on_change(lambda *_: self._due.put(found.nodes, QUIET_SECONDS))
        self._thread = threading.Thread(target=self._run, args=(found,), name="storage-capacity", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End after the write under way."""
        self._stopping.set()
        self._due.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, found: CapacityObjects) -> None:
        found.start()
        try:
            while not found.are_known:
                if self._stopping.wait(SYNC_SECONDS / 10):
                    return
            self._due.put(found.nodes)
            failures: Counter[str] = Counter()
            while (node := self._due.take()) is not None:
                try:
                    again_seconds = found.settle(node)
                    failures.pop(node, None)
                except Exception as failure:  # noqa: BLE001 - of one node, and told: the others go on
                    failures[node] += 1
                    again_seconds = self._tell(node, failure, failures[node])
                if again_seconds is not None:
                    self._due.put((node,), again_seconds)
        finally:
            found.stop()

    def _tell(self, node: str, failure: Exception, times: int) -> float:
        """After how many seconds it is tried again."""
        first, most = RETRY_SECONDS
        again_seconds: float = min(most, first * 2 ** min(times - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load
        facts = {"node": node, "why": str(failure), "again_in_seconds": again_seconds}
        if isinstance(failure, UllageError):
            log.warning("capacity not written", extra=facts)
        else:
            log.error("capacity not written", extra=facts, exc_info=failure)
        if isinstance(failure, UnavailableError):
            self._stopping.wait(min(again_seconds, SYNC_SECONDS))  # the next node's would fail the same way
        return again_seconds


def _names(seen: Iterable[KubeObject | None]) -> set[str]:
    return {each.metadata.name for each in seen if each is not None}


def nodes_among(seen: Iterable[StorageCapacity | None]) -> set[str]:
    """The nodes that these are about."""
    return {node for each in seen if each is not None for node in node_of(each)}
