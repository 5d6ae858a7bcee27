"""The driver as the chart brings it, on real nodes: a Pod has a volume of each class, and it is really there."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rigs.chart import NAMESPACE
from tests.rigs.cluster.api import Json
from tests.rigs.full import driver, images
from tests.rigs.full.cluster import Cluster
from ullage.storage_classes import DRIVER

PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
LOGICAL_VOLUMES = "/apis/ullage.io/v1alpha1/logicalvolumes"
SECONDS = 900.0
"""For what emulated machines do beside others."""
ASKED = re.compile(r'ullage_extender_request_seconds_count\{.*verb="filter".*\} [1-9].*')
CLASSES = ("nvme", "nvme-xfs", "thin", "files")


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The driver, unless it is there already."""
    if cluster.api.find(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/ullage-node") is None:
        cluster.install()
    return cluster


@pytest.fixture
def writer(installed: Cluster) -> Iterator[str]:
    """The path of a Pod with a volume of each class, which has written to all of them; nothing is left of it."""
    for name in CLASSES:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "400Mi"}}}
        installed.api.create(CLAIMS, {"metadata": {"name": name}, "spec": {**spec, "storageClassName": name}})
    made = installed.api.create(PODS, {"metadata": {"name": "writer"}, "spec": _spec()})
    path = f"{PODS}/{made['metadata']['name']}"
    installed.api.until(path, lambda pod: pod["status"].get("phase") == "Running", SECONDS)
    yield path
    installed.api.delete(path)
    installed.api.until_gone(path, SECONDS)
    for name in CLASSES:
        installed.api.delete(f"{CLAIMS}/{name}")
    for volume in installed.api.items(LOGICAL_VOLUMES):
        installed.api.until_gone(f"{LOGICAL_VOLUMES}/{volume['metadata']['name']}", SECONDS)


def _spec() -> dict[str, Any]:
    container = {
        "name": "writer",
        "image": images.WORKLOAD,
        "command": ["sh", "-c", "for each in /data/*; do echo $each > $each/written; done; sync; exec sleep 1000000"],
        "volumeMounts": [{"name": name, "mountPath": f"/data/{name}"} for name in CLASSES],
    }
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in CLASSES]
    return {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 0}


def test_every_kubelet_knows_the_driver(installed: Cluster) -> None:
    for name in installed.nodes:

        def is_registered(node: Json) -> bool:
            return DRIVER in {each["name"] for each in node["spec"].get("drivers") or []}

        installed.api.until(f"/apis/storage.k8s.io/v1/csinodes/{name}", is_registered, SECONDS)


def test_a_pod_writes_to_a_volume_of_each_class_on_its_node(installed: Cluster, writer: str) -> None:
    node = installed.nodes[installed.api.get(writer)["spec"]["nodeName"]]
    found = installed.kubectl("exec", "writer", "--", "sh", "-c", "cat /data/*/written")
    assert set(found.split()) == {f"/data/{name}" for name in CLASSES}
    kinds = installed.kubectl("exec", "writer", "--", "findmnt", "--json", "--output", "TARGET,FSTYPE", "--list")
    by_target = {each["target"]: each["fstype"] for each in json.loads(kinds)["filesystems"]}
    wanted = {"nvme": "ext4", "nvme-xfs": "xfs", "thin": "ext4", "files": "ext4"}
    assert {name: by_target[f"/data/{name}"] for name in CLASSES} == wanted
    volumes = json.loads(node.run("lvs", "--reportformat", "json", "-o", "vg_name,lv_name"))["report"][0]["lv"]
    groups = sorted(each["vg_name"] for each in volumes if each["lv_name"] != "thin")
    assert groups == ["nvme", "nvme", "pooled"]


def test_the_extender_has_been_asked_where_the_pod_goes(installed: Cluster, writer: str) -> None:
    assert installed.api.get(writer)["spec"]["nodeName"] in installed.nodes
    address = installed.nodes["n1"].address
    with urllib.request.urlopen(f"http://{address}:{driver.EXTENDER_PORT}/metrics", timeout=SECONDS) as answer:
        lines = answer.read().decode().splitlines()
    assert any(ASKED.fullmatch(line) for line in lines)
