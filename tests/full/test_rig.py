"""The rig itself: nodes with real kubelets, Pods on them, and what is left of both when the power is cut."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.rigs.cluster.api import Json
from tests.rigs.full import images
from tests.rigs.full.cluster import Cluster
from tests.rigs.full.node import NODES, CommandFailed
from tests.rigs.host import RigError

PODS = "/api/v1/namespaces/default/pods"
WRITES = "date > /kept/first; echo began; while :; do sleep 1000; done"
SECONDS = 300.0
"""For what an emulated machine does beside five others."""


def is_ready(pod: Json) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


@pytest.fixture
def pod(cluster: Cluster) -> Iterator[str]:
    """The path of a Pod on n1 that runs a shell."""
    container = {
        "name": "shell",
        "image": images.WORKLOAD,
        "command": ["sh", "-c", WRITES],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }
    spec = {
        "nodeName": "n1",
        "containers": [container],
        "volumes": [{"name": "kept", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0,
    }
    cluster.api.until("/api/v1/namespaces/default/serviceaccounts/default", bool)
    made = cluster.api.create(PODS, {"metadata": {"generateName": "rig-"}, "spec": spec})
    path = f"{PODS}/{made['metadata']['name']}"
    cluster.api.until(path, is_ready, SECONDS)
    yield path
    cluster.api.delete(path)
    cluster.api.until_gone(path, SECONDS)


def test_every_node_is_ready_and_has_its_labels_and_groups(cluster: Cluster) -> None:
    for number, (name, node) in enumerate(cluster.nodes.items(), start=1):
        found = cluster.api.get(f"{NODES}/{name}")
        assert is_ready(found)
        assert found["metadata"]["labels"]["kubernetes.io/hostname"] == name
        assert found["metadata"]["labels"]["topology.rook.io/rack"] == f"rack-{number}"
        groups = json.loads(node.run("vgs", "--reportformat", "json"))["report"][0]["vg"]
        assert {each["vg_name"] for each in groups} >= {"nvme", "pooled"}
        assert "thin" in node.run("lvs", "--noheadings", "-o", "lv_name", "pooled")


def test_a_pod_runs_and_answers_exec_and_logs(cluster: Cluster, pod: str) -> None:
    name = pod.rpartition("/")[2]
    assert cluster.kubectl("logs", name) == "began\n"
    assert cluster.kubectl("exec", name, "--", "cat", "/kept/first")


def test_a_pod_reaches_the_api_server_at_its_service(cluster: Cluster, pod: str) -> None:
    name = pod.rpartition("/")[2]
    address = cluster.kubectl("exec", name, "--", "sh", "-c", "echo $KUBERNETES_SERVICE_HOST").strip()
    connects = f"exec 3<> /dev/tcp/{address}/443 && echo connected"
    assert cluster.kubectl("exec", name, "--", "bash", "-c", connects) == "connected\n"


def test_a_command_says_what_it_prints_and_how_it_failed(cluster: Cluster) -> None:
    node = cluster.nodes["n1"]
    assert node.run("cat", text="given\n") == "given\n"
    with pytest.raises(CommandFailed, match="no-such-file") as failure:
        node.run("ls", "/no-such-file")
    assert failure.value.exit_code == 2


def test_a_command_whose_time_is_over_is_killed(cluster: Cluster) -> None:
    node = cluster.nodes["n1"]
    with pytest.raises(RigError, match="took more than"):
        node.run("sleep", "54321", timeout_seconds=1)
    node.run("sh", "-c", "while pgrep -f 'sleep 5432[1]'; do sleep 0.1; done")


def test_a_node_that_is_killed_comes_back_with_its_disks_and_its_pods(cluster: Cluster, pod: str) -> None:
    node = cluster.nodes["n1"]
    name = pod.rpartition("/")[2]
    uid = cluster.api.get(f"{NODES}/n1")["metadata"]["uid"]
    first = cluster.kubectl("exec", name, "--", "cat", "/kept/first")
    node.run("lvcreate", "--yes", "--size", "8m", "--name", "kept", "nvme")
    node.run("dd", "of=/dev/nvme/kept", "conv=fsync", text="before the cut")
    node.run("sync")
    node.kill()
    with pytest.raises(RigError, match="is off"):
        node.run("true")
    node.boot()
    assert cluster.api.get(f"{NODES}/n1")["metadata"]["uid"] == uid
    assert node.run("head", "-c", "14", "/dev/nvme/kept") == "before the cut"
    node.run("lvremove", "--yes", "nvme/kept")
    cluster.api.until(pod, lambda found: is_ready(found) and _restarts(found) == 1, SECONDS)
    assert cluster.kubectl("exec", name, "--", "sh", "-c", "ls /kept") == "first\n"
    assert first


def _restarts(pod: Json) -> int:
    restarts: int = pod["status"]["containerStatuses"][0]["restartCount"]
    return restarts
