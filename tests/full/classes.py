"""The kinds of volumes that Pods have in this tier, and what the cluster needs for them."""

from __future__ import annotations

from tests.cluster.things import LATE, STORAGE
from tests.full.pods import Kind, programs
from tests.rigs.cluster.manifests import apply_object
from tests.rigs.full.cluster import Cluster
from ullage.storage_classes import CLASS_KEY, DRIVER

EXT4 = Kind(name="ext4", storage_class="nvme")
XFS = Kind(name="xfs", storage_class="nvme-xfs")
BLOCK = Kind(name="block", storage_class="nvme", is_block=True)
THIN = Kind(name="thin", storage_class="thin")
KINDS = (EXT4, XFS, BLOCK, THIN)
"""Of the classes that the rig's nodes have."""
SIZE = "512Mi"
"""xfs wants 300 MiB."""
LOSABLE = Kind(name="losable", storage_class="losable")
"""Of an application that brings its data back itself."""
ON_NODE_LOSS = {"ullage.io/on-node-loss": "delete-claim"}


def prepare(cluster: Cluster) -> None:
    """Make what the rig does not: the class whose claims go with their node, and the ConfigMap of programs."""
    made = {
        "metadata": {"name": LOSABLE.storage_class, "annotations": ON_NODE_LOSS},
        "provisioner": DRIVER,
        "parameters": {CLASS_KEY: EXT4.storage_class},
        "volumeBindingMode": LATE,
    }
    path = f"{STORAGE}/storageclasses"
    if cluster.api.find(f"{path}/{LOSABLE.storage_class}") is None:
        cluster.api.create(path, made)
    apply_object(cluster.api, programs())
