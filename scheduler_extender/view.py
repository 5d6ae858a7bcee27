"""What the extender knows of its cluster, kept up to date change by change; every question is answered from memory.

Thread-safe under one lock, `changed`: whoever reads more than one thing holds it, and may wait on it for the next
change. A request costs the nodes it names: what a node has left is worked out again only after something of that node
has changed. Of a hundred thousand volumes nearly all are where they are to stay: of those only that is kept.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from scheduler_extender.claims import PREFIX, Claims, text_of
from scheduler_extender.objects import Claim, Content, Seen, StatefulSet
from scheduler_extender.orders import LATEST, Orders
from scheduler_extender.reports import Reports
from scheduler_extender.wire import Pod
from ullage.errors import ConfigError
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node, PersistentVolume, StorageClass
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import Key
from ullage.kube.node_storage import NodeStorage
from ullage.model import DeviceClass, DeviceClassName, NodeName
from ullage.stock import Candidate, pools_left
from ullage.storage_classes import DRIVER, device_class_of

log = logging.getLogger(__name__)
NO_LABELS: Mapping[str, str] = {}


class View:
    """Filled by `put` and `drop`; nothing of it is lost by a restart but what can be listed again."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Nothing is known."""
        self.changed = threading.Condition(threading.RLock())
        self.claims = Claims()
        self.pods: dict[Key, Pod] = {}
        """Those with claims that are not bound yet; one that is bound is told as one that is gone."""
        self.storage_classes: dict[str, StorageClass] = {}
        self.device_classes: dict[DeviceClassName, DeviceClass] = {}
        self.stateful_sets: dict[Key, int] = {}
        """Replicas, by key."""
        self._clock = clock
        self._labels: dict[str, Mapping[str, str]] = {}
        self._reports = Reports()
        self._orders = Orders()
        self._handles: dict[str, str] = {}
        """Volume ids by PersistentVolume, where the names differ."""
        self._snapshots: dict[Key, str] = {}
        """Ids of snapshots by VolumeSnapshot."""
        self._contents: dict[str, Key] = {}
        self._candidates: dict[str, Candidate] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._watchers: list[Callable[[type[Seen], Key, Seen | None], None]] = []
        self._put: Mapping[type, Callable[[Any], None]] = {  # Any: each takes its own of `Seen`
            Pod: self._put_pod,
            Claim: self.claims.put,
            PersistentVolume: self._put_volume,
            StorageClass: self._put_storage_class,
            Node: self._put_node,
            LogicalVolume: self._put_order,
            NodeStorage: self._put_report,
            DeviceClassObject: self._put_device_class,
            StatefulSet: self._put_stateful_set,
            Content: self._put_content,
        }
        self._drop: Mapping[type, Callable[[Key], object]] = {
            Pod: lambda key: self.pods.pop(key, None),
            Claim: self.claims.drop,
            PersistentVolume: lambda key: self._handles.pop(key[1], None),
            StorageClass: lambda key: self.storage_classes.pop(key[1], None),
            Node: lambda key: self._labels.pop(key[1], None),
            LogicalVolume: self._drop_order,
            NodeStorage: self._drop_report,
            DeviceClassObject: self._drop_device_class,
            StatefulSet: lambda key: self.stateful_sets.pop(key, None),
            Content: self._drop_content,
        }

    # Feeding.

    def put(self, found: Seen) -> None:
        """An object that is there, new or changed."""
        with self.changed:
            self._tell(type(found), (found.metadata.namespace, found.metadata.name), found)
            self._put[type(found)](found)
            self.changed.notify_all()

    def drop(self, kind: type[Seen], key: Key) -> None:
        """An object that is gone."""
        with self.changed:
            self._tell(kind, key, None)
            self._drop[kind](key)
            self.changed.notify_all()

    def known(self, kind: type[Seen]) -> Collection[str]:
        """Those of a kind that something is kept of, as `scheduler_extender.claims.text_of` has their keys."""
        by_key: Mapping[type, Iterable[Key]] = {Pod: self.pods, StatefulSet: self.stateful_sets}
        if kind in by_key:
            return list(map(text_of, by_key[kind]))
        by_name: Mapping[type, Callable[[], Collection[str]]] = {
            Claim: self.claims.texts,
            PersistentVolume: self._handles.keys,
            StorageClass: self.storage_classes.keys,
            Node: self._labels.keys,
            LogicalVolume: lambda: self._orders.ids,
            NodeStorage: lambda: self._reports.nodes,
            DeviceClassObject: self.device_classes.keys,
            Content: self._contents.keys,
        }
        return by_name[kind]()

    def age(self) -> None:
        """Take in that time passes: a report that nobody renews is worth nothing in the end, and listeners are told.

        To be called before a question is gone into, and not in the middle of it.
        """
        with self.changed:
            for node in self._reports.outdated(self._clock()):
                self._changed_on(node)

    def stop_clock(self) -> None:
        """From now on time stands still at the newest report: nothing of a saved cluster grows old."""
        with self.changed:
            newest = self._reports.newest
            if newest is not None:
                self._clock = lambda: newest
                self._changed_on("")

    def on_node_change(self, listener: Callable[[str], None]) -> None:
        """Have the name of each node told, under the lock, whose `candidate` may be another from now on; "" for all."""
        self._listeners.append(listener)

    def on_change(self, listener: Callable[[type[Seen], Key, Seen | None], None]) -> None:
        """Have each change told, under the lock and before it is taken in; None: the object is gone."""
        self._watchers.append(listener)

    # Asking.

    def candidate(self, node: str) -> Candidate:
        """What a node has left: its report less the orders that are not in it yet; promises are not taken off.

        To ask changes nothing for anybody: whose report has grown old since `age` is taken for what it was.
        """
        found = self._candidates.get(node)
        if found is None:
            found = self._worked_out(node)
            if self._reports.get(node) is not None:  # of other names any number may be asked for
                self._candidates[node] = found
        return found

    def labels(self, node: str) -> Mapping[str, str]:
        """The node's labels; none of one that is not known."""
        return self._labels.get(node, NO_LABELS)

    @property
    def nodes(self) -> Iterable[str]:
        """Every node that has reported storage."""
        return self._reports.nodes

    def device_class(self, storage_class: str) -> DeviceClass | None:
        """What volumes of a StorageClass are carved as; None when it is not ours, or names nothing that there is."""
        found = self.storage_classes.get(storage_class)
        return None if found is None else device_class_of(found, self.device_classes)

    def is_ours(self, storage_class: str) -> bool:
        """Whether its volumes are made by us."""
        found = self.storage_classes.get(storage_class)
        return found is not None and found.provisioner == DRIVER

    def order(self, volume_id: str) -> LogicalVolume | None:
        """A volume or snapshot. Of one that is in its node's report little is known, and not its claim once bound."""
        return self._orders.get(volume_id, self.claims.unbound_with(volume_id.removeprefix(PREFIX)))

    def order_of(self, claim: Claim) -> LogicalVolume | None:
        """A claim's volume, once it is ordered."""
        bound = claim.spec.volume_name
        found = self._orders.get(self._handles.get(bound, bound)) if bound else None
        return found or self.order_for(claim.metadata.uid)

    def order_for(self, claim_uid: str) -> LogicalVolume | None:
        """What was ordered for a claim that is not bound, whether it is there any more or not."""
        return self._orders.get(self._orders.of_claim(claim_uid))

    def snapshot(self, key: Key) -> LogicalVolume | None:
        """The snapshot behind a VolumeSnapshot."""
        return self._orders.get(self._snapshots.get(key, ""))

    # How each kind is kept.

    def _tell(self, kind: type[Seen], key: Key, found: Seen | None) -> None:
        for watcher in self._watchers:
            watcher(kind, key, found)

    def _put_pod(self, found: Pod) -> None:
        is_finished = found.status.phase in {"Succeeded", "Failed"}
        if found.claims and not found.spec.node_name and not is_finished:
            self.pods[found.key] = found
        else:
            self.pods.pop(found.key, None)

    def _put_volume(self, found: PersistentVolume) -> None:
        csi = found.spec.csi
        if csi is not None and csi.driver == DRIVER and csi.volume_handle != found.metadata.name:
            self._handles[found.metadata.name] = csi.volume_handle
        else:
            self._handles.pop(found.metadata.name, None)

    def _put_storage_class(self, found: StorageClass) -> None:
        self.storage_classes[found.metadata.name] = found

    def _put_node(self, found: Node) -> None:
        labels = {sys.intern(key): sys.intern(word) for key, word in found.metadata.labels.items()}
        self._labels[sys.intern(found.metadata.name)] = labels

    def _put_order(self, found: LogicalVolume) -> None:
        report = self._reports.get(found.spec.node_name)
        revision = LATEST if report is None or report.unknown else report.revision
        for node in self._orders.put(found, revision):
            self._changed_on(node)

    def _drop_order(self, key: Key) -> None:
        node = self._orders.drop(key[1])
        if node:
            self._changed_on(node)

    def _put_report(self, found: NodeStorage) -> None:
        node = found.metadata.name
        is_news = self._reports.put(found)
        report = self._reports.get(node)
        if report is not None and not report.unknown:
            has_moved = self._orders.reported(node, report.revision)
            is_news = is_news or has_moved or bool(self._orders.news(node))
        if is_news:
            self._changed_on(node)

    def _drop_report(self, key: Key) -> None:
        self._reports.drop(key[1])
        self._changed_on(key[1])

    def _put_device_class(self, found: DeviceClassObject) -> None:
        name = DeviceClassName(found.metadata.name)
        before = self.device_classes.pop(name, None)
        try:
            self.device_classes[name] = found.device_class
        except ConfigError as error:
            log.error("device class not taken", extra={"why": str(error)})  # noqa: TRY400 - the sentence says all
        if self.device_classes.get(name) != before:
            self._changed_on("")

    def _drop_device_class(self, key: Key) -> None:
        if self.device_classes.pop(DeviceClassName(key[1]), None) is not None:
            self._changed_on("")

    def _put_stateful_set(self, found: StatefulSet) -> None:
        self.stateful_sets[found.metadata.namespace, found.metadata.name] = found.spec.replicas

    def _put_content(self, found: Content) -> None:
        name, about = found.metadata.name, found.spec.volume_snapshot_ref
        self._drop_content(("", name))
        if found.spec.driver == DRIVER and found.status.snapshot_handle:
            self._contents[name] = (about.namespace, about.name)
            self._snapshots[about.namespace, about.name] = found.status.snapshot_handle

    def _drop_content(self, key: Key) -> None:
        self._snapshots.pop(self._contents.pop(key[1], ("", "")), None)

    def _changed_on(self, node: str) -> None:
        """Of one node, or with an empty name of all."""
        if node:
            self._candidates.pop(node, None)
        else:
            self._candidates.clear()
        for listener in self._listeners:
            listener(node)

    def _worked_out(self, node: str) -> Candidate:
        unknown = self._reports.why_unknown(node, self._clock())
        report = self._reports.get(node)
        if report is None or unknown:
            return Candidate(node=NodeName(node), pools={}, unknown=unknown)
        orders = self._orders.for_stock(node)
        pools = pools_left(report, orders, self.device_classes) if orders else report.by_name
        return Candidate(node=report.node, pools=pools)
