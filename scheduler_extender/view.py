"""What the extender knows of its cluster, kept up to date change by change; every question is answered from memory.

Thread-safe under one lock, `changed`: whoever reads more than one thing holds it, and may wait on it for the next
change. A request costs the nodes it names: what a node has left is worked out again only after something of that node
has changed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from scheduler_extender.objects import Claim, Content, Key, Seen, StatefulSet
from scheduler_extender.wire import Pod
from ullage.errors import ConfigError
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node, PersistentVolume, StorageClass
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.node_storage import NodeStorage
from ullage.model import DeviceClass, DeviceClassName, NodeName
from ullage.stock import Candidate, pools_left, why_unknown
from ullage.storage_classes import DRIVER, device_class_of

NO_LABELS: Mapping[str, str] = {}


class View:
    """Filled by `put` and `drop`; nothing of it is lost by a restart but what can be listed again."""

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Nothing is known."""
        self.changed = threading.Condition(threading.RLock())
        self.claims: dict[Key, Claim] = {}
        self.pods: dict[Key, Pod] = {}
        self.storage_classes: dict[str, StorageClass] = {}
        self.device_classes: dict[DeviceClassName, DeviceClass] = {}
        self.stateful_sets: dict[Key, int] = {}
        """Replicas, by key."""
        self._clock = clock
        self._labels: dict[str, Mapping[str, str]] = {}
        self._storages: dict[str, NodeStorage] = {}
        self._orders: dict[str, LogicalVolume] = {}
        self._orders_on: defaultdict[str, dict[str, LogicalVolume]] = defaultdict(dict)
        self._order_of_claim: dict[str, str] = {}
        """Volume ids by claim uid."""
        self._handles: dict[str, str] = {}
        """Volume ids by PersistentVolume, where the names differ."""
        self._snapshots: dict[Key, str] = {}
        """Ids of snapshots by VolumeSnapshot."""
        self._contents: dict[str, Key] = {}
        self._candidates: dict[str, Candidate] = {}
        self._listeners: list[Callable[[str], None]] = []
        self._put: Mapping[type, Callable[[Any], None]] = {  # Any: each takes its own of `Seen`
            Pod: self._put_pod,
            Claim: self._put_claim,
            PersistentVolume: self._put_volume,
            StorageClass: self._put_storage_class,
            Node: self._put_node,
            LogicalVolume: self._put_order,
            NodeStorage: self._put_storage,
            DeviceClassObject: self._put_device_class,
            StatefulSet: self._put_stateful_set,
            Content: self._put_content,
        }

    # Feeding.

    def put(self, found: Seen) -> None:
        """An object that is there, new or changed."""
        with self.changed:
            self._put[type(found)](found)
            self.changed.notify_all()

    def drop(self, kind: type[Seen], key: Key) -> None:
        """An object that is gone."""
        with self.changed:
            self._drop(kind, key)
            self.changed.notify_all()

    def on_node_change(self, listener: Callable[[str], None]) -> None:
        """Have the name of each node told, under the lock, whose `candidate` may be another from now on; "" for all."""
        self._listeners.append(listener)

    # Asking.

    def candidate(self, node: str) -> Candidate:
        """What a node has left: its report less the orders that are not in it yet; promises are not taken off."""
        found = self._candidates.get(node)
        if found is None:
            found = self._candidates[node] = self._worked_out(node)
        return found

    def labels(self, node: str) -> Mapping[str, str]:
        """The node's labels; none of one that is not known."""
        return self._labels.get(node, NO_LABELS)

    @property
    def nodes(self) -> Iterable[str]:
        """Every node that has reported storage."""
        return self._storages.keys()

    def device_class(self, storage_class: str) -> DeviceClass | None:
        """What volumes of a StorageClass are carved as; None when it is not ours, or names nothing that there is."""
        found = self.storage_classes.get(storage_class)
        return None if found is None else device_class_of(found, self.device_classes)

    def is_ours(self, storage_class: str) -> bool:
        """Whether its volumes are made by us."""
        found = self.storage_classes.get(storage_class)
        return found is not None and found.provisioner == DRIVER

    def order(self, volume_id: str) -> LogicalVolume | None:
        """A volume or snapshot."""
        return self._orders.get(volume_id)

    def order_of(self, claim: Claim) -> LogicalVolume | None:
        """A claim's volume, once it is ordered."""
        bound = claim.spec.volume_name
        found = self._orders.get(self._handles.get(bound, bound)) if bound else None
        return found or self._orders.get(self._order_of_claim.get(claim.metadata.uid, ""))

    def snapshot(self, key: Key) -> LogicalVolume | None:
        """The snapshot behind a VolumeSnapshot."""
        return self._orders.get(self._snapshots.get(key, ""))

    # How each kind is kept.

    def _put_pod(self, found: Pod) -> None:
        self.pods[found.key] = found

    def _put_claim(self, found: Claim) -> None:
        self.claims[found.metadata.namespace, found.metadata.name] = found

    def _put_volume(self, found: PersistentVolume) -> None:
        csi = found.spec.csi
        if csi is not None and csi.driver == DRIVER and csi.volume_handle != found.metadata.name:
            self._handles[found.metadata.name] = csi.volume_handle

    def _put_storage_class(self, found: StorageClass) -> None:
        self.storage_classes[found.metadata.name] = found

    def _put_node(self, found: Node) -> None:
        self._labels[found.metadata.name] = found.metadata.labels

    def _put_order(self, found: LogicalVolume) -> None:
        name = found.metadata.name
        self._orders[name] = found
        self._orders_on[found.spec.node_name][name] = found
        if found.spec.claim_ref is not None and found.spec.claim_ref.uid:
            self._order_of_claim[found.spec.claim_ref.uid] = name
        self._changed_on(found.spec.node_name)

    def _put_storage(self, found: NodeStorage) -> None:
        self._storages[found.metadata.name] = found
        self._changed_on(found.metadata.name)

    def _put_device_class(self, found: DeviceClassObject) -> None:
        name = DeviceClassName(found.metadata.name)
        try:
            self.device_classes[name] = found.device_class
        except ConfigError:
            self.device_classes.pop(name, None)
        self._changed_on("")

    def _put_stateful_set(self, found: StatefulSet) -> None:
        self.stateful_sets[found.metadata.namespace, found.metadata.name] = found.spec.replicas

    def _put_content(self, found: Content) -> None:
        about = found.spec.volume_snapshot_ref
        if found.spec.driver == DRIVER and found.status.snapshot_handle:
            self._contents[found.metadata.name] = (about.namespace, about.name)
            self._snapshots[about.namespace, about.name] = found.status.snapshot_handle

    def _drop(self, kind: type[Seen], key: Key) -> None:  # noqa: C901 - a table of kinds
        name = key[1]
        if kind is Pod:
            self.pods.pop(key, None)
        elif kind is Claim:
            self.claims.pop(key, None)
        elif kind is PersistentVolume:
            self._handles.pop(name, None)
        elif kind is StorageClass:
            self.storage_classes.pop(name, None)
        elif kind is Node:
            self._labels.pop(name, None)
        elif kind is LogicalVolume:
            self._drop_order(name)
        elif kind is NodeStorage:
            self._storages.pop(name, None)
            self._changed_on(name)
        elif kind is DeviceClassObject:
            self.device_classes.pop(DeviceClassName(name), None)
            self._changed_on("")
        elif kind is StatefulSet:
            self.stateful_sets.pop(key, None)
        elif kind is Content:
            self._snapshots.pop(self._contents.pop(name, ("", "")), None)

    def _drop_order(self, name: str) -> None:
        gone = self._orders.pop(name, None)
        if gone is not None:
            self._orders_on[gone.spec.node_name].pop(name, None)
            if gone.spec.claim_ref is not None:
                self._order_of_claim.pop(gone.spec.claim_ref.uid, None)
            self._changed_on(gone.spec.node_name)

    def _changed_on(self, node: str) -> None:
        if node:
            self._candidates.pop(node, None)
        else:
            self._candidates.clear()
        for listener in self._listeners:
            listener(node)

    def _worked_out(self, node: str) -> Candidate:
        storage = self._storages.get(node)
        if storage is None:
            return Candidate(node=NodeName(node), pools={}, unknown="no storage agent on this node")
        unknown = why_unknown(storage, self._clock())
        if unknown:
            return Candidate(node=NodeName(node), pools={}, unknown=unknown)
        orders = self._orders_on[node].values()
        return Candidate(node=NodeName(node), pools=pools_left(storage, orders, self.device_classes))

