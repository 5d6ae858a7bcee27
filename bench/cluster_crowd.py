"""A cluster of a thousand nodes and twenty thousand volumes, of objects alone: as an agent and a controller leave them.

Every node has one volume group; nothing is behind it. PersistentVolumes are there, too, so that no volume is an orphan.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from bench.cluster_scene import STORAGE_CLASSES, Scene
from ullage.capacity import largest_volume_bytes
from ullage.errors import GIB, MIB
from ullage.kube.api import Api
from ullage.kube.connection import connect
from ullage.kube.logical_volume import APPLIED, DEGRADED, READY, LogicalVolume, Phase, Status, order
from ullage.kube.meta import (
    API_VERSION,
    DEVICE_CLASSES,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    NODES,
    PERSISTENT_VOLUMES,
    Condition,
    Meta,
    OwnerReference,
    condition,
    conditions_after,
    timestamp,
)
from ullage.kube.node_storage import CAPACITY_KNOWN, NodeStorage, StorageStatus, pool_status
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    DeviceType,
    Layout,
    NodeName,
    Owner,
    PhysicalVolume,
    Pool,
    PoolName,
    StoreName,
    VolumeId,
    Wipe,
)
from ullage.storage_classes import CLASS_KEY, DRIVER, NODE_KEY

CLASS, GROUP = DeviceClassName("crowd"), "vg0"
LABEL = "bench.ullage.io/crowd"
DISKS, DISK_BYTES = 4, 1024 * GIB
SIZE_BYTES = 8 * GIB
PROCESSES, THREADS = 3, 8
REVISION = 1_700_000_000_000_000
NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process makes."""

    kubeconfig: Path
    nodes: Sequence[int]
    volumes: int
    """On each node."""


def make_class(scene: Scene) -> None:
    """A device class for the crowd alone, with its StorageClasses."""
    spec = {"type": "thick", "volumeGroups": [GROUP], "nodeSelector": {LABEL: "yes"}}
    kind = {"apiVersion": API_VERSION, "kind": DEVICE_CLASSES.kind}
    scene.rig.create(DEVICE_CLASSES.path(), {**kind, "metadata": {"name": CLASS}, "spec": spec})
    parameters = {"provisioner": DRIVER, "parameters": {CLASS_KEY: CLASS}}
    late = {"metadata": {"name": CLASS}, "volumeBindingMode": "WaitForFirstConsumer"}
    scene.rig.create(STORAGE_CLASSES, {**parameters, **late})


def fill(kubeconfig: Path, nodes: int, volumes: int) -> None:
    """Make so many nodes with so many volumes altogether."""
    parts = [
        Part(kubeconfig=kubeconfig, nodes=range(number, nodes, PROCESSES), volumes=volumes // nodes)
        for number in range(PROCESSES)
    ]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(_fill, parts))


def node_of(number: int) -> NodeName:
    """A node's name."""
    return NodeName(f"node-{number:05d}.example.com")


def volume_of(node: int, number: int) -> VolumeId:
    """A volume's id."""
    return VolumeId(f"pvc-{node:08x}-0000-4000-8000-{number:012x}")


def ordered(volume_id: VolumeId, node: NodeName, device_class: DeviceClassName, size_bytes: int) -> LogicalVolume:
    """As the controller orders one."""
    claim = Owner(
        pv_name=volume_id,
        claim_namespace=NAMESPACE,
        claim_name=f"data-{volume_id}",
        claim_uid=volume_id.removeprefix("pvc-"),
    )
    request = CreateVolume(volume_id=volume_id, device_class=device_class, size_bytes=size_bytes, owner=claim)
    return order(request, node)


def carved(made: LogicalVolume, generation: int) -> dict[str, Any]:
    """What its agent says of it, to be patched."""
    told = [condition(each, None, generation=generation) for each in (READY, APPLIED)]
    told.append(Condition(type=DEGRADED, status="False", reason="AsWanted", observed_generation=generation))
    status = Status(
        phase=Phase.READY,
        pool=GROUP,
        size_bytes=made.spec.size_bytes,
        wipe=Wipe.DISCARD,
        revision=REVISION,
        observed_generation=generation,
        conditions=_dated(told),
    )
    return {"status": status}


def _fill(part: Part) -> None:
    api = Api(connect(part.kubeconfig))
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda number: _node(api, number, part.volumes), part.nodes))


def _node(api: Api, number: int, volumes: int) -> None:
    name = node_of(number)
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", NODE_KEY: name, LABEL: "yes"}
    node = {"apiVersion": "v1", "kind": NODES.kind, "metadata": {"name": name, "labels": labels}}
    uid = _uid(api.create(NODES, node))
    owner = OwnerReference(api_version="v1", kind=NODES.kind, name=name, uid=uid)
    meta = Meta(name=name, owner_references=(owner,))
    api.create(NODE_STORAGES, NodeStorage(api_version=API_VERSION, kind=NODE_STORAGES.kind, metadata=meta))
    api.patch(NODE_STORAGES, name, {"status": report(volumes)}, subresource="status")
    for each in range(volumes):
        made = ordered(volume_of(number, each), name, CLASS, SIZE_BYTES)
        api.create(LOGICAL_VOLUMES, made)
        api.patch(LOGICAL_VOLUMES, made.id, carved(made, 1), subresource="status")
        api.create(PERSISTENT_VOLUMES, persistent(made))


def report(volumes: int) -> StorageStatus:
    """What a node's agent says of its storage, with so many volumes in it."""
    disks = [
        PhysicalVolume(name=f"/dev/nvme{number}n1", free_bytes=DISK_BYTES - volumes * SIZE_BYTES // DISKS - 4 * MIB)
        for number in range(DISKS)
    ]
    pool = Pool(
        name=PoolName(GROUP),
        store=StoreName(GROUP),
        type=DeviceType.THICK,
        classes=(CLASS,),
        total_bytes=DISKS * DISK_BYTES,
        free_bytes=sum(disk.free_bytes for disk in disks),
        extent_bytes=4 * MIB,
        physical_volumes=tuple(disks),
    )
    return StorageStatus(
        revision=REVISION,
        observed_at=timestamp(datetime.now(UTC) + timedelta(days=1)),  # nobody renews it
        agent_version="bench",
        pools=(pool_status(pool, largest_volume_bytes(pool, Layout())),),
        conditions=_dated([condition(each, None) for each in (READY, CAPACITY_KNOWN)]),
    )


def persistent(of: LogicalVolume) -> dict[str, Any]:
    """As external-provisioner writes it."""
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": NAMESPACE, "name": f"data-{of.id}"}
    terms = [{"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": [of.node]}]}]
    spec = {
        "capacity": {"storage": str(of.spec.size_bytes)},
        "accessModes": ["ReadWriteOnce"],
        "claimRef": {**claim, "uid": of.id.removeprefix("pvc-")},
        "csi": {"driver": DRIVER, "volumeHandle": of.id, "fsType": "ext4", "volumeAttributes": {}},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": CLASS,
    }
    return {"apiVersion": "v1", "kind": PERSISTENT_VOLUMES.kind, "metadata": {"name": of.id}, "spec": spec}


def _dated(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    return conditions_after((), conditions)


def _uid(answer: bytes) -> str:
    return msgspec.json.decode(answer, type=NodeStorage).metadata.uid
