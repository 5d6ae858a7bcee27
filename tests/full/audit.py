"""Whether the objects, the nodes' LVM and what is mounted say the same, read without our code.

in the API:  LogicalVolumes, PersistentVolumes of our driver, snapshots' contents, NodeStorages, Pods and their claims
in a node:   `lvm lvs`, the mount table, loop devices
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.cluster.kubelet import VOLUMES
from tests.cluster.things import CONTENTS, LOGICAL_VOLUMES, NODE_STORAGES, is_ours
from tests.rigs.cluster.api import Json
from tests.rigs.full.cluster import Cluster
from tests.rigs.full.node import Node
from ullage.quantity import parse_bytes

SETTLE_SECONDS = 300.0
POLL_SECONDS = 2.0
TAG = "ullage.io/volume="
FIELDS = "lv_name,vg_name,lv_size,lv_tags,lv_device_open,lv_suspended,lv_kernel_major,lv_kernel_minor"
REPORT = ("lvm", "lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", FIELDS)
PODS, CLAIMS = "/api/v1/pods", "/api/v1/persistentvolumeclaims"
"""Of all namespaces."""
KUBELETS_DEVICES = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices/"
OVER = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """A logical volume of ours, as LVM and the kernel of its node have it."""

    node: str
    id: str
    size_bytes: int
    is_open: bool
    is_suspended: bool
    mounts: Sequence[str]


def audit(cluster: Cluster, *, is_empty: bool = False, seconds: float = SETTLE_SECONDS) -> None:
    """Wait until all is settled and agrees, and with `is_empty` nothing is left; AssertionError says what does not.

    Of the nodes that are on.
    """
    deadline = time.monotonic() + seconds
    while faults := list(_faults(cluster, is_empty=is_empty)):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s:\n" + "\n".join(faults))
        time.sleep(POLL_SECONDS)


def on_disks(nodes: Sequence[Node]) -> list[OnDisk]:
    """Every volume and snapshot of ours that is really there."""
    return [found for node in nodes for found in _on_node(node)]


def _on_node(node: Node) -> Iterator[OnDisk]:
    mounts = json.loads(node.run("findmnt", "--json", "--list", "--output", "TARGET,MAJ:MIN"))["filesystems"]
    for row in json.loads(node.run(*REPORT))["report"][0]["lv"]:
        if TAG not in row["lv_tags"]:
            continue
        number = f"{row['lv_kernel_major']}:{row['lv_kernel_minor']}"
        yield OnDisk(
            node=node.name,
            id=row["lv_name"],
            size_bytes=int(row["lv_size"]),
            is_open=row["lv_device_open"] == "open",
            is_suspended=row["lv_suspended"] == "suspended",
            mounts=[each["target"] for each in mounts if each["maj:min"] == number],
        )


def _faults(cluster: Cluster, *, is_empty: bool) -> Iterator[str]:
    api = cluster.api
    nodes = [node for node in cluster.nodes.values() if node.pid is not None]
    orders = {each["metadata"]["name"]: each for each in api.items(LOGICAL_VOLUMES)}
    volumes = {each["spec"]["csi"]["volumeHandle"]: each for each in api.items(VOLUMES) if is_ours(each)}
    contents = {each.get("status", {}).get("snapshotHandle"): each for each in api.items(CONTENTS)}
    disks = on_disks(nodes)
    for thing in (*orders.values(), *volumes.values(), *contents.values()):
        meta = thing["metadata"]
        if "deletionTimestamp" in meta:
            yield f"{meta['name']} is to go, and is held by {meta.get('finalizers')}"
    yield from _disks_and_orders(disks, orders, [node.name for node in nodes])
    for kind, others in (("volume", volumes), ("snapshot", contents)):
        named = {name for name, order in orders.items() if order["spec"].get("kind", "volume") == kind}
        yield from (f"LogicalVolume {name} is nobody's {kind}" for name in sorted(named - set(others)))
        yield from (f"there is no LogicalVolume of the {kind} {name}" for name in set(others) - named)
    for name, volume in volumes.items():
        capacity = parse_bytes(volume["spec"]["capacity"]["storage"])
        if name in orders and capacity > orders[name].get("status", {}).get("sizeBytes", 0):
            yield f"PersistentVolume {volume['metadata']['name']} promises {capacity} bytes: {orders[name]['status']}"
    for storage in api.items(NODE_STORAGES):
        for orphan in storage.get("status", {}).get("orphans", ()):
            yield f"{storage['metadata']['name']} reports an orphan: {orphan['name']}: {orphan['message']}"
    yield from _uses(cluster, disks, nodes)
    if is_empty:
        yield from (f"{each} is left" for each in disks)
        yield from (f"LogicalVolume {each} is left" for each in orders)


def _disks_and_orders(disks: Sequence[OnDisk], orders: Mapping[str, Json], nodes: Sequence[str]) -> Iterator[str]:
    for each in disks:
        order = orders.get(each.id)
        if order is None:
            yield f"{each} has no LogicalVolume"
        elif each.node != order["spec"]["nodeName"] or not _has_its_size(each, order):
            yield f"{each} is not what its LogicalVolume says: {order['spec']} {order.get('status')}"
        if each.is_suspended:
            yield f"{each} is suspended"
    there = {each.id for each in disks}
    for name, order in orders.items():
        if order["spec"]["nodeName"] in nodes and name not in there:
            yield f"LogicalVolume {name} is on no disk: {order['spec']} {order.get('status')}"
        if order.get("status", {}).get("phase") != "Ready":
            yield f"LogicalVolume {name} is not Ready: {order.get('status')}"


def _has_its_size(found: OnDisk, order: Json) -> bool:
    """A thick snapshot's own size is what it has room to keep, and not what it shows."""
    is_snapshot = order["spec"].get("kind") == "snapshot"
    return is_snapshot or bool(found.size_bytes == order.get("status", {}).get("sizeBytes"))


def _uses(cluster: Cluster, disks: Sequence[OnDisk], nodes: Sequence[Node]) -> Iterator[str]:
    """What is open or mounted is what Pods have there, and the other way round."""
    pods = [each for each in cluster.api.items(PODS) if each["status"].get("phase") not in OVER]
    handles = _handles(cluster)
    used = {
        (str(pod["spec"].get("nodeName", "")), handles.get(claim, ""))
        for pod in pods
        if pod["status"].get("phase") == "Running"
        for claim in _claims(pod)
    }
    for each in disks:
        is_used = (each.node, each.id) in used
        if each.is_open != is_used:
            yield f"{each} is {'' if is_used else 'not '}used by a Pod there"
        if each.mounts and not is_used:
            yield f"{each} is still mounted"
    uids = {pod["metadata"]["uid"] for pod in pods}
    for node in nodes:
        loops = json.loads(node.run("losetup", "--json", "--list") or '{"loopdevices": []}')["loopdevices"]
        for loop in loops:
            file = str(loop["back-file"]).removesuffix(" (deleted)")
            if file.startswith(KUBELETS_DEVICES) and not any(uid in file for uid in uids):
                yield f"{node.name}: {loop['name']} is over {file}, which no Pod has"


def _handles(cluster: Cluster) -> dict[tuple[str, str], str]:
    """The volumes' ids, by the claim's namespace and name."""
    volumes = {each["metadata"]["name"]: each["spec"] for each in cluster.api.items(VOLUMES) if is_ours(each)}
    found = {}
    for claim in cluster.api.items(CLAIMS):
        spec = volumes.get(claim["spec"].get("volumeName", ""))
        if spec is not None:
            found[_key(claim, claim["metadata"]["name"])] = str(spec["csi"]["volumeHandle"])
    return found


def _claims(pod: Json) -> Iterator[tuple[str, str]]:
    for volume in pod["spec"].get("volumes", ()):
        if "persistentVolumeClaim" in volume:
            yield _key(pod, volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            yield _key(pod, f"{pod['metadata']['name']}-{volume['name']}")


def _key(beside: Json, name: str) -> tuple[str, str]:
    return beside["metadata"]["namespace"], name
