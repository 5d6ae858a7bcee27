"""Volumes of one group over racks, by the real kube-scheduler: the data is spread, whoever its Pods are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.cluster import things
from tests.cluster.extender.crowd import RACK, VOLUME_BYTES, Crowd, why_pending
from tests.cluster.kubelet import PODS
from tests.cluster.scene import until
from tests.cluster.things import Thing

STATEFUL_SETS = "/apis/apps/v1/namespaces/default/statefulsets"
OSDS, MEMBERS = 6, 5


def racks(crowd: Crowd, claims: list[str]) -> Counter[str]:
    """How many of the bound claims' volumes are in each rack."""
    rack_of = {
        node["metadata"]["name"]: node["metadata"]["labels"][RACK]
        for node in crowd.scene.objects.items("/api/v1/nodes")
    }
    return Counter(rack_of[crowd.scene.order(claim)["spec"]["nodeName"]] for claim in claims)


def test_six_disks_of_one_device_set_are_two_in_each_of_three_racks(crowd: Crowd) -> None:
    """Of the racks two have more room than the third: by room alone they would be elsewhere."""
    names = [f"set1-data-{number}" for number in range(OSDS)]
    for name in names:
        crowd.scene.claim(name, "32Mi", is_block=True, labels={"ceph.rook.io/DeviceSet": "set1"}, pod=True)
    crowd.scene.wait_bound(*names)
    assert racks(crowd, names) == {"r0": 2, "r1": 2, "r2": 2}


def test_the_third_of_five_raft_members_in_one_rack_waits_when_there_are_two_racks(crowd: Crowd) -> None:
    crowd.scene.objects.create(
        STATEFUL_SETS, stateful_set("pg", MEMBERS, {"spread.ullage.io/key": "rack", "spread.ullage.io/cap": "quorum"})
    )
    try:
        pods = [f"pg-{number}" for number in range(MEMBERS)]
        until(lambda: len(placed(crowd, pods)) == MEMBERS - 1, crowd.why_not)
        (waiting,) = set(pods) - placed(crowd, pods)
        crowd.scene.wait_bound(*(f"data-{name}" for name in pods if name != waiting))
        assert racks(crowd, [f"data-{name}" for name in pods if name != waiting]) == {"r0": 2, "r1": 2}
        why = until(
            lambda: next(iter(quorum_reasons(crowd, waiting)), ""), lambda: crowd.scene.objects.get(f"{PODS}/{waiting}")
        )
        print(f"\n{why}")
        assert "2 of 5" in why
    finally:
        crowd.scene.delete(f"{STATEFUL_SETS}/pg")
        crowd.scene.objects.until_gone(f"{STATEFUL_SETS}/pg")


def placed(crowd: Crowd, names: list[str]) -> set[str]:
    """Those that have a node."""
    found = (crowd.scene.objects.find(f"{PODS}/{name}") for name in names)
    return {pod["metadata"]["name"] for pod in found if pod and pod["spec"].get("nodeName")}


def quorum_reasons(crowd: Crowd, pod: str) -> list[str]:
    why = why_pending(crowd.scene.objects.get(f"{PODS}/{pod}"))
    return [why] if "quorum" in why else []


def stateful_set(name: str, replicas: int, annotations: Mapping[str, str]) -> Thing:
    """In two of the three racks; all of its Pods are made at once."""
    labels = {"app": name}
    in_racks = [{"key": RACK, "operator": "In", "values": ["r0", "r1"]}]
    terms = {"nodeSelectorTerms": [{"matchExpressions": in_racks}]}
    claim = things.claim("data", str(VOLUME_BYTES), "fast")
    claim["metadata"]["annotations"] = dict(annotations)
    mount = {"name": "data", "mountPath": "/data"}
    pod = {
        "metadata": {"labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": "none", "volumeMounts": [mount]}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        },
    }
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": pod,
            "volumeClaimTemplates": [claim],
        },
    }
