"""Nodes without anything on them, as kube-scheduler and the extender see thousands of them; and Pods that want one.

Each has its CSINode, its NodeStorage and its CSIStorageCapacity, as kubelet, agent and controller would write them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench import cluster_crowd as crowd
from csi.cluster.rooms import objects
from tests.rigs.cluster import ours
from tests.rigs.cluster.nodes import HEARTBEAT, ROOM
from ullage.kube.api import Api
from ullage.kube.connection import connect
from ullage.kube.meta import (
    API_VERSION,
    CLAIMS,
    NODE_STORAGES,
    NODES,
    STORAGE_CAPACITIES,
    Meta,
    OwnerReference,
    Resource,
)
from ullage.kube.node_storage import NodeStorage
from ullage.storage_classes import DRIVER, NODE_KEY

CSI_NODES = Resource(group="storage.k8s.io", version="v1", plural="csinodes", kind="CSINode")
PODS = Resource(group="", version="v1", plural="pods", kind="Pod", is_namespaced=True)
NAMESPACE = "default"
MANAGED = "ullage.io/capacity"
"""The resource that the webhook adds to Pods with volumes of ours."""
PROCESSES, THREADS = 3, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one process writes: nodes, or Pods, by number."""

    kubeconfig: Path
    numbers: Sequence[int]


def add(kubeconfig: Path, numbers: Sequence[int]) -> None:
    """Make these nodes."""
    _spread(_add_part, kubeconfig, numbers)


def add_pods(kubeconfig: Path, numbers: Sequence[int], *, with_claims: bool) -> None:
    """Make Pods that nobody has scheduled; with a claim each, they have the webhook's resource, too."""
    _spread(_claiming_part if with_claims else _unrelated_part, kubeconfig, numbers)


def _spread(make: Callable[[Part], None], kubeconfig: Path, numbers: Sequence[int]) -> None:
    parts = [Part(kubeconfig=kubeconfig, numbers=numbers[first::PROCESSES]) for first in range(PROCESSES)]
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(make, parts))


def _add_part(part: Part) -> None:
    _each(_node, part)


def _unrelated_part(part: Part) -> None:
    _each(_unrelated, part)


def _claiming_part(part: Part) -> None:
    _each(_claiming, part)


def _each(make: Callable[[Api, int], None], part: Part) -> None:
    api = Api(connect(part.kubeconfig))
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(partial(make, api), part.numbers))


def _node(api: Api, number: int) -> None:
    name = crowd.node_of(number)
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", NODE_KEY: name, crowd.LABEL: "yes"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}
    times = {"lastHeartbeatTime": HEARTBEAT, "lastTransitionTime": HEARTBEAT}
    status = {"capacity": ROOM, "allocatable": ROOM, "conditions": [ready | times]}
    node = {"apiVersion": "v1", "kind": NODES.kind, "metadata": {"name": name, "labels": labels}, "status": status}
    uid = _made(api.create(NODES, node)).metadata.uid
    owner = OwnerReference(api_version="v1", kind=NODES.kind, name=name, uid=uid)
    meta = Meta(name=name, owner_references=(owner,))
    driver = {"name": DRIVER, "nodeID": name, "topologyKeys": [NODE_KEY]}
    kind = {"apiVersion": CSI_NODES.api_version, "kind": CSI_NODES.kind}
    api.create(CSI_NODES, {**kind, "metadata": meta, "spec": {"drivers": [driver]}})
    api.create(NODE_STORAGES, NodeStorage(api_version=API_VERSION, kind=NODE_STORAGES.kind, metadata=meta))
    told = _made(api.patch(NODE_STORAGES, name, {"status": crowd.report(0)}, subresource="status"))
    for each in objects(told, {crowd.CLASS: _room(told)}, ours.NAMESPACE):
        api.create(STORAGE_CAPACITIES, each, namespace=ours.NAMESPACE)


def _room(of: NodeStorage) -> tuple[int, int]:
    return sum(pool.free_bytes for pool in of.pools), max(pool.largest_volume_bytes for pool in of.status.pools)


def _made(answer: bytes) -> NodeStorage:
    return msgspec.json.decode(answer, type=NodeStorage)


def _unrelated(api: Api, number: int) -> None:
    api.create(PODS, _pod(number, volumes=(), limits={}), namespace=NAMESPACE)


def _claiming(api: Api, number: int) -> None:
    name = _name(number)
    spec = {
        "storageClassName": crowd.CLASS,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(crowd.SIZE_BYTES)}},
    }
    api.create(CLAIMS, _object(CLAIMS, name, spec), namespace=NAMESPACE)
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    api.create(PODS, _pod(number, volumes=(volume,), limits={MANAGED: "1"}), namespace=NAMESPACE)


def _pod(number: int, *, volumes: Iterable[dict[str, Any]], limits: dict[str, str]) -> dict[str, Any]:
    container = {"name": "main", "image": "none", "resources": {"limits": limits}}
    spec = {"containers": [container], "volumes": list(volumes), "terminationGracePeriodSeconds": 0}
    return _object(PODS, _name(number), spec)


def _object(of: Resource, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": of.api_version, "kind": of.kind, "metadata": {"name": name}, "spec": spec}


def _name(number: int) -> str:
    return f"load-{number:06d}"
