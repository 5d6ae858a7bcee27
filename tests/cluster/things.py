"""The objects that an administrator and the users of a cluster make, as far as they are about volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.rigs.cluster.api import Api, Json
from ullage.kube.meta import API_VERSION
from ullage.storage_classes import CLASS_KEY, DRIVER, NODE_KEY

Thing: TypeAlias = dict[str, Any]

OURS = f"/apis/{API_VERSION}"
LOGICAL_VOLUMES = f"{OURS}/logicalvolumes"
NODE_STORAGES = f"{OURS}/nodestorages"
DEVICE_CLASSES = f"{OURS}/deviceclasses"
STORAGE = "/apis/storage.k8s.io/v1"
CAPACITIES = f"{STORAGE}/csistoragecapacities"
SNAPSHOT, GROUP_SNAPSHOT = "snapshot.storage.k8s.io/v1", "groupsnapshot.storage.k8s.io/v1"
SNAPSHOTS = f"/apis/{SNAPSHOT}/namespaces/default/volumesnapshots"
CONTENTS = f"/apis/{SNAPSHOT}/volumesnapshotcontents"
GROUPS = f"/apis/{GROUP_SNAPSHOT}/namespaces/default/volumegroupsnapshots"
GROUP_CONTENTS = f"/apis/{GROUP_SNAPSHOT}/volumegroupsnapshotcontents"
EVENTS = "/api/v1/namespaces/default/events"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
SNAPSHOT_CLASS = "ullage"
LATE = "WaitForFirstConsumer"
USERS = (PODS, GROUPS, SNAPSHOTS, CLAIMS)
"""What users make, in the order in which it can be deleted."""
ALL = (*USERS, GROUP_CONTENTS, CONTENTS, VOLUMES, LOGICAL_VOLUMES)


def make_classes(api: Api, directories: Mapping[str, str]) -> None:
    """A DeviceClass for each directory; a StorageClass that waits for a Pod, `NAME-now`, that does not, and `NAME-xfs`.

    Volumes have ext4 but for the last. ext4 is grown online with CAP_SYS_RESOURCE only, which not everybody has who is
    called root.
    """
    for name, directory in directories.items():
        spec = {"type": "file", "directory": directory}
        kind = {"apiVersion": API_VERSION, "kind": "DeviceClass"}
        api.create(DEVICE_CLASSES, {**kind, "metadata": {"name": name}, "spec": spec})
        for suffix, mode, fs_type in (("", LATE, "ext4"), ("-xfs", LATE, "xfs"), ("-now", "Immediate", "ext4")):
            content = {
                "metadata": {"name": f"{name}{suffix}"},
                "provisioner": DRIVER,
                "parameters": {CLASS_KEY: name, "csi.storage.k8s.io/fstype": fs_type},
                "volumeBindingMode": mode,
                "allowVolumeExpansion": True,
            }
            api.create(f"{STORAGE}/storageclasses", content)
    for wipe in ("discard", "zero"):
        content = {"metadata": {"name": wipe}, "driverName": DRIVER, "parameters": {"wipe": wipe}}
        api.create(f"{STORAGE}/volumeattributesclasses", content)


def make_snapshot_classes(api: Api) -> None:
    """Of single snapshots and of groups, once their kinds are known."""
    for version, kind in ((SNAPSHOT, "VolumeSnapshotClass"), (GROUP_SNAPSHOT, "VolumeGroupSnapshotClass")):
        content = {"metadata": {"name": SNAPSHOT_CLASS}, "driver": DRIVER, "deletionPolicy": "Delete"}
        api.create(f"/apis/{version}/{kind.lower()}es", {"apiVersion": version, "kind": kind, **content})


def claim(  # noqa: PLR0913 - what a claim can say
    name: str,
    size: str,
    storage_class: str,
    *,
    is_block: bool = False,
    source: Mapping[str, str] | None = None,
    attributes: str = "",
    labels: Mapping[str, str] | None = None,
    selected_node: str = "",
) -> Thing:
    """A claim. `selected_node`: as if the scheduler had chosen it a moment ago."""
    spec: Thing = {
        "storageClassName": storage_class,
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Block" if is_block else "Filesystem",
        "resources": {"requests": {"storage": size}},
    }
    if source is not None:
        spec["dataSource"] = dict(source)
    if attributes:
        spec["volumeAttributesClassName"] = attributes
    annotations = {SELECTED_NODE: selected_node} if selected_node else {}
    return {"metadata": {"name": name, "labels": dict(labels or {}), "annotations": annotations}, "spec": spec}


def pod(name: str, claims: Sequence[str], *, node: str = "", is_block: bool = False) -> Thing:
    """A Pod that uses claims; the scheduler may put it on this node only, if one is named."""
    volumes = [{"name": f"v{n}", "persistentVolumeClaim": {"claimName": each}} for n, each in enumerate(claims)]
    key, path = ("volumeDevices", "devicePath") if is_block else ("volumeMounts", "mountPath")
    uses = [{"name": volume["name"], path: f"/{volume['name']}"} for volume in volumes]
    spec: Thing = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "none", key: uses}],
        "volumes": volumes,
    }
    if node:
        spec["nodeSelector"] = {NODE_KEY: node}
    return {"metadata": {"name": name}, "spec": spec}


def of_snapshot(name: str) -> dict[str, str]:
    return {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": name}


def of_claim(name: str) -> dict[str, str]:
    return {"kind": "PersistentVolumeClaim", "name": name}


def snapshot(name: str, of: str) -> Thing:
    spec = {"volumeSnapshotClassName": SNAPSHOT_CLASS, "source": {"persistentVolumeClaimName": of}}
    return {"apiVersion": SNAPSHOT, "kind": "VolumeSnapshot", "metadata": {"name": name}, "spec": spec}


def group_snapshot(name: str, labels: Mapping[str, str]) -> Thing:
    """Of all claims with these labels."""
    source = {"selector": {"matchLabels": dict(labels)}}
    spec = {"volumeGroupSnapshotClassName": SNAPSHOT_CLASS, "source": source}
    return {"apiVersion": GROUP_SNAPSHOT, "kind": "VolumeGroupSnapshot", "metadata": {"name": name}, "spec": spec}


def is_ours(volume: Json) -> bool:
    """Whether a PersistentVolume is of our driver."""
    return bool(volume["spec"].get("csi", {}).get("driver") == DRIVER)


def is_bound(found: Json) -> bool:
    return bool(found.get("status", {}).get("phase") == "Bound")
