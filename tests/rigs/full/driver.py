"""Our driver in the cluster, installed by the chart with what is different in a rig: small requests, images of here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.rigs import images
from tests.rigs.chart import CHART, NAMESPACE, RELEASE, run_helm
from tests.rigs.cluster.api import Api
from tests.rigs.cluster.crds import install_snapshot_crds
from tests.rigs.host import RigError

EXTENDER_PORT = 9254
FILES = "/var/lib/ullage"
"""Where a node's XFS for a file class is."""
SMALL = {"requests": {"cpu": "5m", "memory": "32Mi"}}
WAIT_SECONDS = 1800
"""For helm, that waits until all Pods are ready: the first start of Python takes an emulated machine half a minute."""


def install(api: Api, kubeconfig: Path, values: Mapping[str, Any]) -> None:
    """Install it, or upgrade it to what the tree has now, and wait until all of it is ready; raises RigError."""
    install_snapshot_crds(api)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(merged(VALUES, values), file)
        file.flush()
        how = ("--install", "--namespace", NAMESPACE, "--create-namespace", "--wait", "--timeout", f"{WAIT_SECONDS}s")
        words = ("upgrade", RELEASE, CHART, *how, "--values", file.name)
        done = run_helm(*words, kubeconfig=kubeconfig, timeout_seconds=2 * WAIT_SECONDS)
    if done.returncode:
        raise RigError(f"helm upgrade ended with {done.returncode}: {done.stderr}{done.stdout}")


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """As helm merges values: fields of both, and where both have one, the other's."""
    found = {**one, **other}
    for name in one.keys() & other.keys():
        if isinstance(one[name], Mapping) and isinstance(other[name], Mapping):
            found[name] = merged(one[name], other[name])
    return found


def _image(name: str) -> dict[str, str]:
    repository, _, tag = images.reference(name).rpartition(":")
    return {"repository": repository, "tag": tag}


VALUES: Mapping[str, Any] = {
    "image": {**_image("ullage"), "pullPolicy": "Never"},
    "controller": {"replicas": 1, "resources": SMALL},
    "node": {"resources": SMALL},
    # kube-scheduler is not on this node, but on the machine that the nodes run on.
    "extender": {"resources": SMALL, "extraArgs": [f"--http=0.0.0.0:{EXTENDER_PORT}"]},
    "sidecars": {
        name: {**_image(f"csi-{name}"), "resources": SMALL} for name in ("provisioner", "resizer", "snapshotter")
    },
    "snapshotController": {**_image("snapshot-controller"), "enabled": True, "replicas": 1, "resources": SMALL},
    "snapshots": {"enabled": True, "classes": [{"name": "ullage"}], "groupClasses": [{"name": "ullage"}]},
    "deviceClasses": [
        {"name": "nvme", "type": "thick", "volumeGroups": ["nvme"], "default": True},
        {
            "name": "thin",
            "type": "thin",
            "volumeGroups": ["pooled"],
            "thinPool": {"name": "thin", "overprovisionRatio": 2},
        },
        {"name": "files", "type": "file", "directory": f"{FILES}/files"},
    ],
    "storageClasses": [
        {"name": "nvme", "deviceClass": "nvme", "isDefault": True},
        {"name": "nvme-xfs", "deviceClass": "nvme", "fsType": "xfs"},
        {"name": "thin", "deviceClass": "thin"},
        {"name": "files", "deviceClass": "files"},
    ],
}
"""What the rig's nodes have, as classes; a StorageClass of each name, and nvme-xfs."""
