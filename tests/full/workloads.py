"""What the databases of the full tier have in common: class, image and scripts, and a command inside a Pod.

The image has programs only; how they are started comes with the Pods, from a ConfigMap of the scripts in data/.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tests.cluster.things import STORAGE
from tests.full.pods import PATIENCE_SECONDS, eventually, inside
from tests.rigs import images
from tests.rigs.cluster.manifests import apply_object
from tests.rigs.full.cluster import Cluster
from tests.rigs.gotools import programs

Thing: TypeAlias = dict[str, Any]

DATA = Path(__file__).with_name("data")
STORAGE_CLASS = GROUP = "nvme"
"""Thick volumes with ext4, in the group of that name of each node of the rig."""
SCRIPTS = "workload-scripts"
AT = "/start"
"""Where a container finds them."""


def prepare(cluster: Cluster) -> None:
    """The driver, if it is not installed, and the scripts; raises RigError."""
    if cluster.api.find(f"{STORAGE}/storageclasses/{STORAGE_CLASS}") is None:
        cluster.install()
    apply_object(cluster.api, _scripts())


def _scripts() -> Thing:
    """The ConfigMap of all scripts and their configuration files."""
    files = sorted(each for each in DATA.iterdir() if each.suffix in (".sh", ".conf"))
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": SCRIPTS, "namespace": "default"},
        "data": {each.name: each.read_text(encoding="utf-8") for each in files},
    }


def container(name: str, *command: str, mounts: Mapping[str, str], **more: object) -> Thing:
    """One container of the image, with the scripts; `mounts` are paths by the names of the Pod's volumes."""
    return {
        "name": name,
        "image": images.reference("workload"),
        "imagePullPolicy": "Never",
        "command": list(command),
        "volumeMounts": [{"name": each, "mountPath": path} for each, path in {"start": AT, **mounts}.items()],
        **more,
    }


def start_volume() -> Thing:
    """The Pod's volume that `container` mounts."""
    return {"name": "start", "configMap": {"name": SCRIPTS}}


def asked(cluster: Cluster, pod: str, question: Sequence[str], seconds: float = PATIENCE_SECONDS) -> str:
    """What a command says that may be repeated, once it ends well: the way to a busy node breaks now and then.

    Raises RigError.
    """
    what = f"{pod} answers {' '.join(question)}"
    (said,) = eventually(cluster, what, lambda: [inside(cluster, pod, *question)], seconds=seconds)
    return said


def conversation(cluster: Cluster, pod: str, *argv: str) -> subprocess.Popen[str]:
    """A command in a Pod that goes on, as long as the Pod does; what it says comes as it is said."""
    kubectl = (str(programs.get("kubectl")), "--kubeconfig", str(cluster.kubeconfig))
    return subprocess.Popen(
        (*kubectl, "exec", pod, "--", *argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
