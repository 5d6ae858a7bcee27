"""What each test of Pods begins with and leaves: nothing of its own, and books that agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.things import LOGICAL_VOLUMES, SNAPSHOTS, is_ours
from tests.full.audit import audit
from tests.full.classes import prepare
from tests.full.pods import eventually
from tests.rigs.cluster.ours import NAMESPACE
from tests.rigs.full.cluster import Cluster

APPS = "/apis/apps/v1/namespaces/default"
STATEFUL_SETS = f"{APPS}/statefulsets"
DRIVER_SET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/ullage-node"
USERS = (f"{APPS}/deployments", STATEFUL_SETS, PODS, SNAPSHOTS, CLAIMS)
"""In the order in which they can be deleted."""


@contextmanager
def on_stage(cluster: Cluster) -> Iterator[Cluster]:
    """The driver, and classes to make volumes of; at the end nothing is left, anywhere."""
    if cluster.api.find(DRIVER_SET) is None:
        cluster.install()
    prepare(cluster)
    yield cluster
    clear(cluster)
    audit(cluster, is_empty=True)


def clear(cluster: Cluster) -> None:
    """Delete what tests have made, and wait until its volumes are gone."""
    for path in USERS:
        for each in cluster.api.items(path):
            cluster.api.delete(f"{path}/{each['metadata']['name']}")
        until_empty(cluster, path)
    eventually(cluster, "no volume is left", lambda: not any(is_ours(each) for each in cluster.api.items(VOLUMES)))
    until_empty(cluster, LOGICAL_VOLUMES)


def until_empty(cluster: Cluster, path: str) -> None:
    """Wait until there is nothing of a kind; raises RigError."""
    eventually(cluster, f"{path} is empty", lambda: not cluster.api.items(path))
