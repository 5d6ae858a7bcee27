"""The driver is deleted, killed, and replaced by a newer one while Pods write: they do not notice, and it serves on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import pytest

from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.things import STORAGE
from tests.full.audit import audit
from tests.full.classes import EXT4, KINDS, SIZE
from tests.full.pods import (
    Writer,
    claimed,
    end_claims,
    end_pods,
    eventually,
    of_claim,
    pod,
    sleeping,
    start_writer,
    until_running,
)
from tests.full.scene import on_stage
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.ours import NAMESPACE
from tests.rigs.full.cluster import Cluster
from tests.rigs.full.node import Node
from ullage.storage_classes import DRIVER

OUR_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
NODE_PODS = "ullage-node-"
ROLL_SECONDS = "900s"


@pytest.fixture(scope="module")
def scene(cluster: Cluster) -> Iterator[Cluster]:
    with on_stage(cluster) as prepared:
        yield prepared


@pytest.fixture(scope="module")
def writers(scene: Cluster) -> Mapping[str, Writer]:
    """On one node, all at work, from the first test to the last."""
    node = min(scene.nodes)
    for kind in KINDS:
        scene.api.create(CLAIMS, claimed(kind.name, kind, SIZE))
    made = {kind.name: start_writer(scene, kind.name, kind, kind.name, node=node) for kind in KINDS}
    for name in made:
        until_running(scene, name)
    return made


def test_kubelet_registers_the_driver_that_its_node_has(scene: Cluster) -> None:
    for node in scene.nodes:
        eventually(scene, f"{node} knows the driver", partial(is_registered, scene, node))
        until_ready(scene, node)


def test_pods_write_on_while_the_drivers_pod_is_deleted(scene: Cluster, writers: Mapping[str, Writer]) -> None:
    node = min(scene.nodes)
    old = driver_pod(scene, node)
    before = acknowledged(writers)
    scene.api.delete(f"{OUR_PODS}/{old['metadata']['name']}")
    eventually(scene, "the driver has a new Pod", lambda: is_another(scene, node, old))
    serves(scene, node, "after-deletion")
    unharmed(writers, before)
    audit(scene)


def test_pods_write_on_while_the_driver_is_killed(scene: Cluster, writers: Mapping[str, Writer]) -> None:
    node = min(scene.nodes)
    old = driver_pod(scene, node)
    count = restarts(old)
    before = acknowledged(writers)
    machine = scene.nodes[node]
    pids = machine.run("pgrep", "--full", f"ullage node .*--node-name[= ]{node}").split()
    assert len(pids) == 1, pids
    machine.run("kill", "-9", *pids)
    eventually(scene, "the driver is started again", lambda: restarts(driver_pod(scene, node)) > count)
    serves(scene, node, "after-kill")
    unharmed(writers, before)
    audit(scene)


def test_pods_write_on_while_kubelet_is_killed_and_it_finds_the_driver_again(
    scene: Cluster, writers: Mapping[str, Writer]
) -> None:
    node = min(scene.nodes)
    before = acknowledged(writers)
    machine = scene.nodes[node]
    old = kubelets(machine)
    machine.run("kill", "-9", *old)
    eventually(scene, "kubelet runs again", lambda: kubelets(machine) not in ([], old))
    serves(scene, node, "after-kubelet")
    unharmed(writers, before)
    audit(scene)


def test_pods_write_on_while_the_chart_is_upgraded(scene: Cluster, writers: Mapping[str, Writer]) -> None:
    old = {node: driver_pod(scene, node) for node in scene.nodes}
    before = acknowledged(writers)
    scene.install({"node": {"podAnnotations": {"tests.ullage.io/upgrade": "1"}}})
    for node, pod_before in old.items():
        eventually(
            scene,
            f"{node} has the new Pod",
            partial(is_another, scene, node, pod_before),
        )
    scene.kubectl(
        "rollout", "status", "daemonset/ullage-node", "--namespace", NAMESPACE, "--timeout", ROLL_SECONDS,
        timeout_seconds=1000.0,
    )  # fmt: skip
    for node in scene.nodes:
        serves(scene, node, f"after-upgrade-{node}")
    unharmed(writers, before)
    audit(scene)


def test_in_the_end_every_record_is_there(scene: Cluster, writers: Mapping[str, Writer]) -> None:
    before = acknowledged(writers)
    end_pods(scene, *writers)
    for name, writer in writers.items():
        scene.api.create(PODS, pod(f"reads-{name}", writer.kind, sleeping(), of_claim(name)))
    for name, writer in writers.items():
        until_running(scene, f"reads-{name}")
        assert Writer(scene, f"reads-{name}", writer.kind).checked() >= before[name]
    audit(scene)


def acknowledged(writers: Mapping[str, Writer]) -> dict[str, int]:
    """What each is at, after it has gone on."""
    return {name: writer.goes_on() for name, writer in writers.items()}


def unharmed(writers: Mapping[str, Writer], before: Mapping[str, int]) -> None:
    """Each has gone on, and goes on, without an error."""
    for name, writer in writers.items():
        writer.goes_on(before[name])
        writer.goes_on()


def serves(cluster: Cluster, node: str, name: str) -> None:
    """A new Pod gets a new volume there, and gives it back."""
    until_ready(cluster, node)
    cluster.api.create(CLAIMS, claimed(name, EXT4, SIZE))
    writer = start_writer(cluster, name, EXT4, name, node=node)
    until_running(cluster, name)
    writer.goes_on()
    end_pods(cluster, name)
    end_claims(cluster, name)


def kubelets(machine: Node) -> list[str]:
    """Their process ids on a node; none while it is to be started again."""
    return machine.run("sh", "-c", "pgrep --exact kubelet || true").split()


def driver_pod(cluster: Cluster, node: str) -> Json:
    """Our Pod of a node; raises StopIteration while there is none."""
    found = [each for each in cluster.api.items(OUR_PODS) if each["spec"].get("nodeName") == node]
    ours = [each for each in found if each["metadata"]["name"].startswith(NODE_PODS)]
    return next(each for each in ours if "deletionTimestamp" not in each["metadata"] or len(ours) == 1)


def is_another(cluster: Cluster, node: str, old: Json) -> bool:
    """Whether the node's Pod is not the old one any more."""
    try:
        return bool(driver_pod(cluster, node)["metadata"]["uid"] != old["metadata"]["uid"])
    except StopIteration:
        return False


def restarts(found: Json) -> int:
    """How often its containers were started again."""
    return sum(each["restartCount"] for each in found["status"].get("containerStatuses", ()))


def until_ready(cluster: Cluster, node: str) -> None:
    """Until the node's driver is ready, which it says once kubelet has registered it."""

    def is_ready() -> bool:
        try:
            conditions = driver_pod(cluster, node)["status"].get("conditions", ())
        except StopIteration:
            return False
        return is_registered(cluster, node) and any(
            each["type"] == "Ready" and each["status"] == "True" for each in conditions
        )

    eventually(cluster, f"the driver of {node} is ready", is_ready)


def is_registered(cluster: Cluster, node: str) -> bool:
    """Whether kubelet says that the node has the driver."""
    found = cluster.api.get(f"{STORAGE}/csinodes/{node}")["spec"].get("drivers") or ()
    return any(each["name"] == DRIVER and each["nodeID"] == node for each in found)
