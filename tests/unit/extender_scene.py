"""A small cluster's objects, in the API server's words."""

from __future__ import annotations

from typing import Any, TypeAlias

from ullage.errors import GIB
from ullage.kube.meta import timestamp

Json: TypeAlias = dict[str, Any]

EXTENT_BYTES = 4 << 20


def meta(name: str, namespace: str = "", **more: object) -> Json:
    return {"name": name, **({"namespace": namespace} if namespace else {}), **more}


def device_class(name: str = "fast", **spec: object) -> Json:
    spec = {"type": "thick", "volumeGroups": ["vg0"], **spec}
    return {"apiVersion": "ullage.io/v1alpha1", "kind": "DeviceClass", "metadata": meta(name), "spec": spec}


def storage_class(name: str = "fast", of: str = "fast", **more: object) -> Json:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": meta(name),
        "provisioner": "ullage.io",
        "parameters": {"ullage.io/device-class": of},
        "volumeBindingMode": "WaitForFirstConsumer",
        **more,
    }


def node(name: str, **labels: str) -> Json:
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta(name, labels=labels)}


def pool(name: str = "vg0", *, free_bytes: int, classes: tuple[str, ...] = ("fast",), kind: str = "thick") -> Json:
    return {
        "name": name,
        "store": name,
        "type": kind,
        "classes": list(classes),
        "totalBytes": 100 * GIB,
        "freeBytes": free_bytes,
        "extentBytes": EXTENT_BYTES,
        "freeBytesPerPV": [{"name": "/dev/a", "freeBytes": free_bytes}] if kind == "thick" else [],
    }


def node_storage(name: str, *pools: Json, revision: int = 1, observed_at: str = "", ready: bool = True) -> Json:
    return {
        "apiVersion": "ullage.io/v1alpha1",
        "kind": "NodeStorage",
        "metadata": meta(name),
        "status": {
            "revision": revision,
            "observedAt": observed_at or timestamp(),
            "pools": list(pools),
            "conditions": [] if ready else [{"type": "Ready", "status": "False", "reason": "Ill", "message": "is ill"}],
        },
    }


def logical_volume(  # noqa: PLR0913 - as an order has parts
    name: str,
    on: str,
    size_bytes: int = GIB,
    *,
    phase: str = "Ready",
    revision: int = 1,
    is_of: str = "fast",
    claim: str = "",
    status: Json | None = None,
    **spec: object,
) -> Json:
    about = {"claimRef": {"namespace": "default", "name": claim, "uid": f"uid-{claim}"}} if claim else {}
    done = {"pool": "vg0", "sizeBytes": size_bytes, "revision": revision, "observedGeneration": 1}
    return {
        "apiVersion": "ullage.io/v1alpha1",
        "kind": "LogicalVolume",
        "metadata": meta(name, generation=1, creationTimestamp="2026-01-01T00:00:00Z"),
        "spec": {"nodeName": on, "deviceClass": is_of, "sizeBytes": size_bytes, **about, **spec},
        "status": {"phase": phase, **(done if phase == "Ready" else {}), **(status or {})},
    }


def claim(name: str, *, size: str = "1Gi", volume: str = "", of: str = "fast", **annotations: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta(name, "default", uid=f"uid-{name}", annotations=annotations),
        "spec": {
            "storageClassName": of,
            "resources": {"requests": {"storage": size}},
            **({"volumeName": volume} if volume else {}),
        },
    }


def persistent_volume(name: str, handle: str = "", driver: str = "ullage.io") -> Json:
    csi = {"driver": driver, "volumeHandle": handle or name}
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta(name), "spec": {"csi": csi}}


def pod(name: str, *claims: str, on: str = "") -> Json:
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
    spec = {"volumes": volumes, **({"nodeName": on} if on else {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta(name, "default", uid=f"uid-{name}"), "spec": spec}


def stateful_set(name: str, replicas: int) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": meta(name, "default"),
        "spec": {"replicas": replicas},
    }


def content(name: str, of: str, handle: str) -> Json:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": meta(name),
        "spec": {"driver": "ullage.io", "volumeSnapshotRef": {"namespace": "default", "name": of}},
        "status": {"snapshotHandle": handle},
    }
