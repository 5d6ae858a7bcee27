"""The objects of a large cluster as an API server tells them, and what kube-scheduler asks about it.

Volumes lie evenly on the nodes. Every tenth node is full: what is refused has to be said, too. Objects carry what real
ones carry and nobody reads (a Node's images, who set which field): skipping it is part of the work.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from bench import cluster_crowd as crowd
from scheduler_extender.objects import PODS
from ullage.errors import GIB
from ullage.kube.meta import (
    API_VERSION,
    CLAIMS,
    DEVICE_CLASSES,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    NODES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    Meta,
    Resource,
)
from ullage.kube.node_storage import NodeStorage
from ullage.storage_classes import CLASS_KEY, DRIVER, NODE_KEY

Fields: TypeAlias = dict[str, Any]
NAMESPACE = "default"
FULL_EVERY = 10
CLAIM_BYTES = 10 * GIB
IMAGES = 50
"""In each Node's status: kubelet tells of so many."""
NEW_PODS = 8
"""So many Pods of each kind ask in turn, so that what all but one of them were offered is undecided at any time: at a
hundred Pods in a second, each choice is seen after 80 ms."""
RACKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of the cluster."""

    nodes: int
    volumes: int


def everything(size: Size) -> Iterator[tuple[Resource, Fields]]:
    """Every object of it, the new Pods and their claims among them."""
    yield DEVICE_CLASSES, _device_class()
    yield STORAGE_CLASSES, _storage_class()
    least, more = divmod(size.volumes, size.nodes)
    for number in range(size.nodes):
        each = least + (number < more)
        yield NODES, node(number)
        yield NODE_STORAGES, _storage(number, each)
        for volume in range(each):
            yield from _volume(number, volume)
    for claims in (1, 3):
        for number in range(NEW_PODS):
            yield PODS, pod(number, claims)
            yield from ((CLAIMS, _claim(name, "")) for name in _claims(number, claims))


def asks(size: Size, claims: int, candidates: int, number: int) -> tuple[bytes, bytes]:
    """The bodies of filter and prioritize for one Pod, as kube-scheduler sends them.

    The nodes are a window that moves on from Pod to Pod, as it does in kube-scheduler.
    """
    first = number * candidates
    window = [(first + each) % size.nodes for each in range(candidates)]
    about = pod(number % NEW_PODS, claims)
    return _asked(about, map(crowd.node_of, window)), _asked(about, map(crowd.node_of, filter(has_room, window)))


def asks_with_nodes(claims: int, candidates: int, number: int) -> bytes:
    """The body of filter of a kube-scheduler that was not told to send names only."""
    first = number * candidates
    items = [node(first + each) for each in range(candidates)]
    return msgspec.json.encode(
        {"Pod": pod(number, claims), "Nodes": {"metadata": {}, "items": items}, "NodeNames": None}
    )


def has_room(number: int) -> bool:
    """Whether the node of this number has any left."""
    return number % FULL_EVERY != FULL_EVERY - 1


def node(number: int) -> Fields:
    """A Node of some 10 kB."""
    name = crowd.node_of(number)
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": f"zone-{number % 3}",
        "topology.kubernetes.io/rack": f"rack-{number % RACKS}",
        NODE_KEY: name,
        crowd.LABEL: "yes",
    }
    image = {"names": [f"registry.example.com/team/program@sha256:{'0' * 64}"], "sizeBytes": 123456789}
    status = {"capacity": {"cpu": "64", "memory": "256Gi"}, "images": [image] * IMAGES}
    return _object(NODES, name, labels=labels, status=status)


def pod(number: int, claims: int) -> Fields:
    """A Pod that nobody has scheduled, of some 3 kB."""
    container = {
        "name": "main",
        "image": f"registry.example.com/team/program@sha256:{'0' * 64}",
        "env": [{"name": f"VARIABLE_{each}", "value": "a value of some length"} for each in range(20)],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [{"name": f"data-{each}", "mountPath": f"/data/{each}"} for each in range(claims)],
    }
    volumes = [
        {"name": f"data-{each}", "persistentVolumeClaim": {"claimName": name}}
        for each, name in enumerate(_claims(number, claims))
    ]
    spec = {"containers": [container], "volumes": volumes, "schedulerName": "default-scheduler"}
    return _object(PODS, f"new-{claims}-{number}", NAMESPACE, labels={"app": "new"}, spec=spec)


def changed(resource: Resource, fields: Fields, version: int) -> Fields:
    """The object as it is a little later."""
    meta = fields["metadata"] | {"resourceVersion": str(version)}
    if resource is NODE_STORAGES:
        status = fields["status"] | {"revision": fields["status"]["revision"] + 1}
        pools = [dict(each) for each in status["pools"]]
        pools[0]["freeBytes"] += pools[0]["extentBytes"] if version % 2 else -pools[0]["extentBytes"]
        return fields | {"metadata": meta, "status": status | {"pools": pools}}
    return fields | {"metadata": meta | {"annotations": {"bench.ullage.io/changed": str(version)}}}


def _asked(about: Mapping[str, Any], names: Iterable[str]) -> bytes:
    return msgspec.json.encode({"Pod": about, "Nodes": None, "NodeNames": list(names)})


def _claims(number: int, claims: int) -> Sequence[str]:
    return [f"new-{claims}-{number}-{each}" for each in range(claims)]


def _volume(number: int, volume: int) -> Iterator[tuple[Resource, Fields]]:
    """A volume, its PersistentVolume and its claim."""
    made = crowd.ordered(crowd.volume_of(number, volume), crowd.node_of(number), crowd.CLASS, crowd.SIZE_BYTES)
    of_cluster = _object(LOGICAL_VOLUMES, made.id, finalizers=made.metadata.finalizers)
    yield LOGICAL_VOLUMES, of_cluster | {"spec": msgspec.to_builtins(made.spec)} | _plain(crowd.carved(made, 1))
    persistent = crowd.persistent(made)
    yield PERSISTENT_VOLUMES, _object(PERSISTENT_VOLUMES, made.id, spec=persistent["spec"], status={"phase": "Bound"})
    yield CLAIMS, _claim(f"data-{made.id}", made.id, crowd.node_of(number))


def _claim(name: str, volume: str, node: str = "") -> Fields:
    spec: Fields = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(crowd.SIZE_BYTES if volume else CLAIM_BYTES)}},
        "storageClassName": crowd.CLASS,
        "volumeMode": "Filesystem",
    }
    if volume:
        spec["volumeName"] = volume
    uid = volume.removeprefix("pvc-") or _uid(name)
    annotations = {"volume.kubernetes.io/storage-provisioner": DRIVER}
    if node:
        annotations |= {"volume.kubernetes.io/selected-node": node, "pv.kubernetes.io/bind-completed": "yes"}
    status = {"phase": "Bound" if volume else "Pending"}
    return _object(CLAIMS, name, NAMESPACE, uid=uid, annotations=annotations, spec=spec, status=status)


def _storage(number: int, volumes: int) -> Fields:
    meta = Meta(name=crowd.node_of(number))
    told = msgspec.to_builtins(NodeStorage(metadata=meta, status=crowd.report(volumes)))["status"]
    if not has_room(number):
        for pool in told["pools"]:
            pool |= {"freeBytes": GIB, "largestVolumeBytes": GIB}
            pool["freeBytesPerPV"] = [{"name": each["name"], "freeBytes": GIB // 4} for each in pool["freeBytesPerPV"]]
    return _object(NODE_STORAGES, meta.name, status=told)


def _device_class() -> Fields:
    spec = {"type": "thick", "volumeGroups": [crowd.GROUP], "nodeSelector": {crowd.LABEL: "yes"}}
    return _object(DEVICE_CLASSES, crowd.CLASS, spec=spec)


def _storage_class() -> Fields:
    more = {"parameters": {CLASS_KEY: crowd.CLASS}, "volumeBindingMode": "WaitForFirstConsumer"}
    return _object(STORAGE_CLASSES, crowd.CLASS) | {"provisioner": DRIVER, "reclaimPolicy": "Delete"} | more


def _object(  # noqa: PLR0913 - metadata has parts
    of: Resource,
    name: str,
    namespace: str = "",
    *,
    uid: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    finalizers: Sequence[str] = (),
    **parts: object,
) -> Fields:
    meta: Fields = {
        "name": name,
        "uid": uid or _uid(f"{of.plural}/{namespace}/{name}"),
        "resourceVersion": "1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [
            {
                "manager": "ullage",
                "operation": "Update",
                "apiVersion": API_VERSION,
                "time": "2026-01-01T00:00:00Z",
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:a": {}, "f:b": {}}},
            }
        ],
    }
    if namespace:
        meta["namespace"] = namespace
    more = {"labels": labels, "annotations": annotations, "finalizers": finalizers}
    meta |= {key: value for key, value in more.items() if value}
    return {"apiVersion": of.api_version, "kind": of.kind, "metadata": meta, **parts}


def _uid(of: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, of))


def _plain(fields: Mapping[str, object]) -> Fields:
    plain: Fields = msgspec.to_builtins(fields)
    return plain
