"""What kube-scheduler is to be told of a node's room, as CSIStorageCapacity objects; pure.

One for each StorageClass of ours whose device class has a pool there. Classes that bind at once have none: the
scheduler is never asked about those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from enum import IntEnum
from fractions import Fraction

from ullage.capacity import available_bytes, largest_volume_bytes
from ullage.kube.foreign import LabelSelector, StorageCapacity, StorageClass
from ullage.kube.meta import API_VERSION, NODE_STORAGES, STORAGE_CAPACITIES, Meta, OwnerReference
from ullage.kube.node_storage import NodeStorage
from ullage.model import DeviceClass, DeviceClassName, Pool
from ullage.quantity import parse_bytes
from ullage.storage_classes import BINDS_LATE, DRIVER, NODE_KEY, device_class_of

LABELS: Mapping[str, str] = {
    "csi.storage.k8s.io/drivername": DRIVER,
    "csi.storage.k8s.io/managed-by": "ullage-controller",
}
SELECTOR = ",".join(f"{key}={value}" for key, value in LABELS.items())

AT_ONCE = Fraction(1, 16)
"""Of what was said last: more than this is news."""


class Change(IntEnum):
    """How much an object differs from what it should be."""

    NONE = 0
    SMALL = 1
    LARGE = 2


def rooms_of(
    pools: Iterable[Pool], storage_classes: Iterable[StorageClass], classes: Mapping[DeviceClassName, DeviceClass]
) -> dict[str, tuple[int, int]]:
    """Of each StorageClass that has a pool here: all that its volumes could take together, and the largest of them."""
    pools = tuple(pools)
    rooms = {}
    for storage_class in storage_classes:
        device_class = device_class_of(storage_class, classes)
        if device_class is None or storage_class.volume_binding_mode != BINDS_LATE:
            continue
        own = [pool for pool in pools if device_class.name in pool.classes]
        if own:
            rooms[storage_class.metadata.name] = (
                sum(available_bytes(pool, device_class.layout) for pool in own),
                max(largest_volume_bytes(pool, device_class.layout) for pool in own),
            )
    return rooms


def objects(storage: NodeStorage, rooms: Mapping[str, tuple[int, int]], namespace: str) -> list[StorageCapacity]:
    """What is to be written of one node. The objects go with its NodeStorage, also where no controller is left."""
    meta = storage.metadata
    owner = OwnerReference(api_version=API_VERSION, kind=NODE_STORAGES.kind, name=meta.name, uid=meta.uid)
    return [
        StorageCapacity(
            api_version=STORAGE_CAPACITIES.api_version,
            kind=STORAGE_CAPACITIES.kind,
            metadata=Meta(
                name=object_name(meta.name, storage_class),
                namespace=namespace,
                labels=dict(LABELS),
                owner_references=(owner,),
            ),
            storage_class_name=storage_class,
            node_topology=LabelSelector(match_labels={NODE_KEY: meta.name}),
            capacity=str(total_bytes),
            maximum_volume_size=str(largest_bytes),
        )
        for storage_class, (total_bytes, largest_bytes) in sorted(rooms.items())
    ]


def object_name(node: str, storage_class: str) -> str:
    """The same for ever: two controllers that write at once write one object."""
    return f"ullage-{hashlib.sha256(f'{node}/{storage_class}'.encode()).hexdigest()[:32]}"


def change(written: StorageCapacity | None, wanted: StorageCapacity) -> Change:
    """How much of what the scheduler is told would be new to it."""
    if written is None or written.metadata.owner_references != wanted.metadata.owner_references:
        return Change.LARGE  # with another owner's uid it is about to be collected
    said, true = (_sizes(each) for each in (written, wanted))
    if said == true:
        return Change.NONE
    if any(abs(new - old) > AT_ONCE * old for old, new in zip(said, true, strict=True)):
        return Change.LARGE
    return Change.SMALL


def node_of(written: StorageCapacity) -> tuple[str, ...]:
    """The node it is about; for the index."""
    topology = written.node_topology
    return (topology.match_labels.get(NODE_KEY, ""),) if topology else ()


def _sizes(of: StorageCapacity) -> tuple[int, int]:
    return parse_bytes(of.capacity or "0"), parse_bytes(of.maximum_volume_size or "0")
