"""A node loses its power and comes back with all that was durable; another one never does, and is given up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest

from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.things import LOGICAL_VOLUMES, NODE_STORAGES
from tests.full.audit import audit, on_disks
from tests.full.classes import KINDS, LOSABLE, SIZE
from tests.full.pods import (
    Writer,
    claimed,
    end_pods,
    eventually,
    node_of,
    of_claim,
    order_of,
    pod,
    sleeping,
    start_writer,
    until_running,
    writing,
)
from tests.full.scene import STATEFUL_SETS, on_stage
from tests.rigs.cluster.api import Json
from tests.rigs.full.cluster import Cluster
from tests.rigs.full.node import Node

NODES = "/api/v1/nodes"
DELAY_SECONDS = 5
SET, MEMBER, CLAIM = "replicated", "replicated-0", "data-replicated-0"


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Cluster]:
    with on_stage(cluster) as prepared:
        yield prepared


def test_after_a_power_cut_the_same_volumes_have_every_durable_record(scene: Cluster) -> None:
    node = scene.nodes[max(scene.nodes)]
    for kind in KINDS:
        scene.api.create(CLAIMS, claimed(kind.name, kind, SIZE))
    writers = [start_writer(scene, kind.name, kind, kind.name, node=node.name, restarts="Always") for kind in KINDS]
    for writer in writers:
        until_running(scene, writer.name)
        writer.goes_on()
    orders = {kind.name: order_of(scene, kind.name) for kind in KINDS}
    disks = ids_and_sizes(node)
    acknowledged = {writer.name: writer.acknowledged for writer in writers}
    node.kill()
    node.boot()
    for writer in writers:
        eventually(scene, f"{writer.name} runs again", partial(is_started_again, scene, writer), writer.name)
        begins = scene.kubectl("logs", writer.name).split("\n")[0]
        assert int(begins.removeprefix("begins after ")) >= acknowledged[writer.name]
    assert {kind.name: order_of(scene, kind.name) for kind in KINDS} == orders
    assert ids_and_sizes(node) == disks
    audit(scene)
    end_pods(scene, *(writer.name for writer in writers))
    for writer in writers:
        name = f"reads-{writer.name}"
        scene.api.create(PODS, pod(name, writer.kind, sleeping(), of_claim(writer.name)))
        until_running(scene, name)
        assert Writer(scene, name, writer.kind).checked() >= acknowledged[writer.name]
    audit(scene)


def test_a_node_that_never_comes_back_is_given_up_and_its_pod_gets_a_new_volume_elsewhere(scene: Cluster) -> None:
    scene.install({"controller": {"nodeLossDelaySeconds": DELAY_SECONDS}})
    scene.api.create(STATEFUL_SETS, stateful_set(max(scene.nodes)))
    eventually(scene, "the member is there", lambda: scene.api.find(f"{PODS}/{MEMBER}"))
    until_running(scene, MEMBER)
    Writer(scene, MEMBER, LOSABLE).goes_on()
    lost, order = scene.nodes[node_of(scene, MEMBER)], order_of(scene, CLAIM)
    claim = scene.api.get(f"{CLAIMS}/{CLAIM}")["metadata"]["uid"]
    labels = scene.api.get(f"{NODES}/{lost.name}")["metadata"]["labels"]
    lost.kill()
    try:
        scene.kubectl("delete", "node", lost.name)
        eventually(scene, "the claim is another", lambda: is_another(scene.api.find(f"{CLAIMS}/{CLAIM}"), claim))
        eventually(scene, "the lost volume is given up", lambda: scene.api.find(f"{LOGICAL_VOLUMES}/{order}") is None)
        eventually(scene, "the member is elsewhere", lambda: is_elsewhere(scene, lost.name))
        until_running(scene, MEMBER)
        Writer(scene, MEMBER, LOSABLE).goes_on()
        assert order_of(scene, CLAIM) != order
        audit(scene)
    finally:
        lost.boot()
        # Those that it does not give itself: it is to be for later tests what it was for earlier ones.
        scene.api.patch(f"{NODES}/{lost.name}", {"metadata": {"labels": labels}})
    # It did come back: nothing was removed from its disks, which says so of itself.
    eventually(scene, "the lost volume is an orphan", lambda: order in orphans(scene, lost.name))
    assert order in {each.id for each in on_disks([lost])}
    forget(lost, order)
    eventually(scene, "there are no orphans", lambda: not orphans(scene, lost.name))
    audit(scene)


def stateful_set(node: str) -> Json:
    """One member, with a claim that may be given up; rather on this node (on the first one is the extender)."""
    labels = {"app": SET}
    made = pod(SET, LOSABLE, writing(LOSABLE), {})
    spec = made["spec"]
    spec["volumes"] = [each for each in spec["volumes"] if each["name"] != "data"]
    spec["restartPolicy"] = "Always"
    rule = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    wish = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": rule}]}
    spec["affinity"] = {"nodeAffinity": wish}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": SET},
        "spec": {
            "replicas": 1,
            "serviceName": SET,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
            "volumeClaimTemplates": [claimed("data", LOSABLE, SIZE)],
        },
    }


def is_started_again(cluster: Cluster, writer: Writer) -> bool:
    """Whether a second container of it runs, and has written."""
    (status,) = cluster.api.get(f"{PODS}/{writer.name}")["status"]["containerStatuses"]
    return status["restartCount"] > 0 and "running" in status["state"] and writer.acknowledged > 0


def is_another(found: Json | None, uid: str) -> bool:
    return found is not None and found["metadata"]["uid"] != uid


def is_elsewhere(cluster: Cluster, node: str) -> bool:
    found = cluster.api.find(f"{PODS}/{MEMBER}")
    return found is not None and found["spec"].get("nodeName", node) != node


def ids_and_sizes(node: Node) -> dict[str, int]:
    return {each.id: each.size_bytes for each in on_disks([node])}


def orphans(cluster: Cluster, node: str) -> set[str]:
    """What a node reports that no object describes."""
    found = cluster.api.find(f"{NODE_STORAGES}/{node}") or {}
    return {each["name"] for each in found.get("status", {}).get("orphans", ())}


def forget(node: Node, name: str) -> None:
    """Remove a logical volume by hand."""
    rows = json.loads(node.run("lvm", "lvs", "--reportformat", "json", "-o", "vg_name,lv_name"))["report"][0]["lv"]
    (group,) = [row["vg_name"] for row in rows if row["lv_name"] == name]
    node.run("lvm", "lvremove", "--yes", f"{group}/{name}")
