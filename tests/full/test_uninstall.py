"""The driver is not taken away from under its volumes; without any it goes, and comes again. The tier's last file."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.cluster.kubelet import CLAIMS
from tests.cluster.things import STORAGE
from tests.full.audit import audit
from tests.full.classes import EXT4, SIZE
from tests.full.pods import claimed, end_claims, end_pods, eventually, start_writer, until_running
from tests.full.scene import on_stage
from tests.rigs.chart import NAMESPACE, RELEASE, run_helm
from tests.rigs.full.cluster import Cluster
from ullage.storage_classes import DRIVER

PATIENCE_SECONDS = 600


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Cluster]:
    with on_stage(cluster) as prepared:
        yield prepared


def test_uninstall_is_refused_while_there_is_a_volume_and_works_without(scene: Cluster) -> None:
    scene.api.create(CLAIMS, claimed("kept", EXT4, SIZE))
    writer = start_writer(scene, "writes", EXT4, "kept")
    until_running(scene, "writes")
    writer.goes_on()
    refused = uninstalled(scene)
    assert refused != ""
    assert workloads(scene) != []
    writer.goes_on()
    audit(scene)
    end_pods(scene, "writes")
    end_claims(scene, "kept")
    assert uninstalled(scene) == ""
    eventually(scene, "nothing of ours runs", lambda: workloads(scene) == [])
    for node in scene.nodes:
        eventually(scene, f"{node} has no driver", partial(is_unregistered, scene, node))
    scene.install()
    for node in scene.nodes:
        eventually(scene, f"{node} has the driver", partial(is_registered, scene, node))


def uninstalled(cluster: Cluster) -> str:
    """What helm says against it; empty: it is done."""
    words = ("uninstall", RELEASE, "--namespace", NAMESPACE, "--timeout", f"{PATIENCE_SECONDS}s")
    done = run_helm(*words, kubeconfig=cluster.kubeconfig, timeout_seconds=2 * PATIENCE_SECONDS)
    return done.stderr if done.returncode else ""


def workloads(cluster: Cluster) -> list[str]:
    """Of ours, by name."""
    root = f"/apis/apps/v1/namespaces/{NAMESPACE}"
    found = [each for kind in ("daemonsets", "deployments") for each in cluster.api.items(f"{root}/{kind}")]
    return [each["metadata"]["name"] for each in found]


def is_unregistered(cluster: Cluster, node: str) -> bool:
    return not is_registered(cluster, node)


def is_registered(cluster: Cluster, node: str) -> bool:
    found = cluster.api.get(f"{STORAGE}/csinodes/{node}")["spec"].get("drivers") or ()
    return any(each["name"] == DRIVER for each in found)
