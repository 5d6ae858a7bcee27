"""Whether the objects and the disks say the same, read without our code: JSON, files, loop devices.

objects: LogicalVolumes, PersistentVolumes of our driver, snapshots' contents, NodeStorages
disks:   `<id>.img` with its `<id>.json` in each class's directory of each node, and the devices on them
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.kubelet import VOLUMES
from tests.cluster.machine import Machine, attached
from tests.cluster.things import (
    ALL,
    CONTENTS,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    is_ours,
)
from tests.rigs.cluster.api import Api, Json
from ullage.errors import MIB
from ullage.quantity import parse_bytes
from ullage.storage_classes import NODE_KEY

SETTLE_SECONDS = 60.0
POLL_SECONDS = 0.2
NEAR_BYTES = 16 * MIB
"""A report counts whole steps of 4 MiB, and a file system keeps a little for itself."""
NO_VOLUMES = {".ullage", "lost+found"}
"""Stems of what is in a directory of volumes without being one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """A file of a volume, or half of one: what stands in its record is None without one."""

    node: str
    device_class: str
    id: str
    size_bytes: int | None
    record: Mapping[str, Any] | None
    devices: int


def audit(api: Api, machines: Sequence[Machine], *, is_empty: bool = False, seconds: float = SETTLE_SECONDS) -> None:
    """Wait until all is settled and agrees, and with `is_empty` nothing is left; AssertionError says what does not."""
    deadline = time.monotonic() + seconds
    while faults := _all_faults(api, machines, is_empty=is_empty):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s:\n" + "\n".join(faults))
        time.sleep(POLL_SECONDS)


def _all_faults(api: Api, machines: Sequence[Machine], *, is_empty: bool) -> list[str]:
    """Volumes may be on their way out beside the look: that is not settled yet, and no mistake."""
    try:
        return [*_faults(api, machines, is_empty=is_empty), *_reports(api, machines)]
    except FileNotFoundError as gone:
        return [f"{gone.filename} went while it was looked at"]


def on_disks(machines: Sequence[Machine]) -> list[OnDisk]:
    """Every volume and snapshot that is really there."""
    return [found for machine in machines for found in _on_machine(machine)]


def _on_machine(machine: Machine) -> Iterator[OnDisk]:
    for device_class, store in machine.stores.items():
        devices = Counter(inode for _, inode in attached(store))
        paths = [path for path in store.iterdir() if path.stem not in NO_VOLUMES]
        for name in sorted({path.stem for path in paths}):
            image, record = store / f"{name}.img", store / f"{name}.json"
            try:
                found = image.stat()
            except FileNotFoundError:
                found = None
            yield OnDisk(
                node=machine.name,
                device_class=device_class,
                id=name,
                size_bytes=found.st_size if found else None,
                record=json.loads(record.read_text()) if record.exists() else None,
                devices=devices.pop(found.st_ino, 0) if found else 0,
            )
        for inode, count in devices.items():
            yield OnDisk(
                node=machine.name,
                device_class=device_class,
                id=f"inode {inode}",
                size_bytes=None,
                record=None,
                devices=count,
            )


def _faults(api: Api, machines: Sequence[Machine], *, is_empty: bool) -> Iterator[str]:
    """What does not agree, a sentence each."""
    found = {path: api.items(path) for path in ALL}
    found[VOLUMES] = [each for each in found[VOLUMES] if is_ours(each)]
    for path, things in found.items():
        for thing in things:
            meta = thing["metadata"]
            if "deletionTimestamp" in meta:
                yield f"{path}/{meta['name']} is to go, and is held by {meta.get('finalizers')}"
            elif is_empty:
                yield f"{path}/{meta['name']} is left"
    disks = on_disks(machines)
    orders = {each["metadata"]["name"]: each for each in found[LOGICAL_VOLUMES]}
    yield from _disks_and_orders(disks, orders)
    yield from _orders_and_others(orders, found)
    if is_empty:
        yield from (f"{each} is left" for each in disks)


def _reports(api: Api, machines: Sequence[Machine]) -> Iterator[str]:
    """What the nodes report, beside what their file systems have where no images share blocks: then that is simple."""
    stores = {machine.name: machine.stores for machine in machines}
    for storage in api.items(NODE_STORAGES):
        name, status = storage["metadata"]["name"], storage.get("status", {})
        for orphan in status.get("orphans", ()):
            yield f"{name} reports an orphan: {orphan['name']}: {orphan['message']}"
        for pool in status.get("pools", ()):
            store = stores[name][pool["classes"][0]]
            if any(_is_copied(path) for path in store.glob("[!.]*.json")):
                continue
            found = os.statvfs(store)
            images = [path.stat() for path in store.glob("*.img")]
            promised_bytes = sum(max(0, each.st_size - each.st_blocks * 512) for each in images)
            free_bytes = found.f_bavail * found.f_frsize - promised_bytes
            if not 0 <= free_bytes - pool["freeBytes"] < NEAR_BYTES:
                yield f"{name} reports {pool['freeBytes']} free bytes in {pool['name']}, and has {free_bytes}"


def _is_copied(record: Path) -> bool:
    content = json.loads(record.read_text())
    return bool(content.get("shares_blocks") or content.get("kind", "volume") != "volume")


def _disks_and_orders(disks: Sequence[OnDisk], orders: Mapping[str, Json]) -> Iterator[str]:
    for name, count in Counter(each.id for each in disks).items():
        if count > 1:
            yield f"{name} is there {count} times: {[each for each in disks if each.id == name]}"
    for each in disks:
        order = orders.get(each.id)
        if order is None:
            yield f"{each} has no LogicalVolume"
            continue
        spec, status = order["spec"], order.get("status", {})
        kind = spec.get("kind", "volume")
        record = each.record or {}
        of_disk = (each.node, each.device_class, each.size_bytes, record.get("id"), record.get("class"), each.devices)
        of_order = (
            spec["nodeName"],
            spec["deviceClass"],
            status.get("sizeBytes"),
            each.id,
            spec["deviceClass"],
            1 if kind == "volume" else 0,
        )
        if of_disk != of_order or record.get("state") != "ready" or record.get("kind", "volume") != kind:
            yield f"{each} is not what its LogicalVolume says: {spec} {status}"
        if record.get("wipe") != status.get("wipe") and kind == "volume":
            yield f"{each.id} has the wipe policy {record.get('wipe')}, its LogicalVolume says {status.get('wipe')}"
    there = {each.id for each in disks}
    for name, order in orders.items():
        if name not in there:
            yield f"LogicalVolume {name} has nothing on any disk: {order['spec']} {order.get('status')}"
        if order.get("status", {}).get("phase") != "Ready":
            yield f"LogicalVolume {name} is not Ready: {order.get('status')}"


def _orders_and_others(orders: Mapping[str, Json], found: Mapping[str, Sequence[Json]]) -> Iterator[str]:
    volumes = {each["spec"]["csi"]["volumeHandle"]: each for each in found[VOLUMES]}
    contents = {each.get("status", {}).get("snapshotHandle"): each for each in found[CONTENTS]}
    for kind, others in (("volume", volumes), ("snapshot", contents)):
        named = {name for name, order in orders.items() if order["spec"].get("kind", "volume") == kind}
        for name in sorted(named - set(others)):
            yield f"LogicalVolume {name} is nobody's {kind}"
        for name in set(others) - named:
            yield f"{others[name]['metadata']['name']} has the {kind} {name}, of which there is no LogicalVolume"
    if len(volumes) != len(found[VOLUMES]):
        yield "two PersistentVolumes have one volume"
    for name, volume in volumes.items():
        terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
        node = orders[name]["spec"]["nodeName"] if name in orders else None
        if terms != [{"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": [node]}]}]:
            yield f"PersistentVolume {volume['metadata']['name']} is to be used on {terms}, its volume is on {node}"
        capacity = parse_bytes(volume["spec"]["capacity"]["storage"])
        if name in orders and capacity > orders[name].get("status", {}).get("sizeBytes", 0):
            yield f"PersistentVolume {volume['metadata']['name']} promises {capacity} bytes: {orders[name]['status']}"
