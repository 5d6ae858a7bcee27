"""Nodes without a kubelet: the objects that one would have made, of a node that is there and has the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.rigs.cluster.api import Api, Json
from ullage.storage_classes import DRIVER, NODE_KEY

NODES = "/api/v1/nodes"
CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
ROOM = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"}
"""As much as no test's Pods ask for: they are about volumes."""
HEARTBEAT = "2026-01-01T00:00:00Z"


def add(
    api: Api, name: str, zone: str = "a", *, labels: Mapping[str, str] = {}, room: Mapping[str, str] = ROOM
) -> None:
    """Add a node that is Ready, on which the driver is registered; raises Refusal. `labels` are further ones."""
    node = api.create(NODES, _node(name, zone, labels, room))
    api.create(CSI_NODES, _csi_node(name, node["metadata"]["uid"]))


def remove(api: Api, name: str) -> None:
    """As when a node is taken out of the cluster for good."""
    api.delete(f"{CSI_NODES}/{name}")
    api.delete(f"{NODES}/{name}")


def set_ready(api: Api, name: str, *, is_ready: bool) -> None:
    """What the node lifecycle controller would say of a node whose kubelet is heard, or not."""
    condition = _condition("True") if is_ready else _condition("Unknown")
    api.patch(f"{NODES}/{name}/status", {"status": {"conditions": [condition]}})


def _node(name: str, zone: str, more: Mapping[str, str], room: Mapping[str, str]) -> dict[str, Any]:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": zone,
        NODE_KEY: name,  # kubelet copies it from NodeGetInfo
        **more,
    }
    status = {"capacity": dict(room), "allocatable": dict(room), "conditions": [_condition("True")]}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def _condition(status: str) -> Json:
    reason = "KubeletReady" if status == "True" else "NodeStatusUnknown"
    times = {"lastHeartbeatTime": HEARTBEAT, "lastTransitionTime": HEARTBEAT}
    return {"type": "Ready", "status": status, "reason": reason, "message": "the rig says so", **times}


def _csi_node(name: str, uid: str) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    driver = {"name": DRIVER, "nodeID": name, "topologyKeys": [NODE_KEY]}
    return {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": {"drivers": [driver]}}
