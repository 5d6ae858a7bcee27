"""What kube-scheduler is told of the room on each node, and where it sends Pods for that."""

from __future__ import annotations

from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.machine import CLASSES
from tests.cluster.scene import Cluster, until
from tests.cluster.things import CAPACITIES, NODE_STORAGES, is_bound
from tests.rigs.cluster.api import Json
from ullage.errors import GIB
from ullage.quantity import format_bytes, parse_bytes
from ullage.storage_classes import NODE_KEY

PENDING = "did not have enough free storage"


def told(scene: Cluster) -> dict[tuple[str, str], tuple[int, int]]:
    """By node and StorageClass: how many bytes there are, and how many one volume can have."""
    return {
        (each["nodeTopology"]["matchLabels"][NODE_KEY], each["storageClassName"]): (
            parse_bytes(each["capacity"]),
            parse_bytes(each["maximumVolumeSize"]),
        )
        for each in scene.objects.items(CAPACITIES)
    }


def true(scene: Cluster) -> dict[tuple[str, str], tuple[int, int]]:
    """The same, as the nodes report it."""
    return {
        (storage["metadata"]["name"], storage_class): (pool["freeBytes"], pool["largestVolumeBytes"])
        for storage in scene.objects.items(NODE_STORAGES)
        for pool in storage["status"]["pools"]
        for name in pool["classes"]
        for storage_class in (name, f"{name}-xfs")
    }


def is_unschedulable(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "PodScheduled" and PENDING in each.get("message", "") for each in conditions)


def test_the_scheduler_is_told_of_each_class_on_each_node_and_of_what_is_taken_and_given_back(scene: Cluster) -> None:
    until(lambda: told(scene) == true(scene), lambda: (told(scene), true(scene)))
    assert set(told(scene)) == {
        (node, f"{each}{more}") for node in scene.nodes for each in CLASSES for more in ("", "-xfs")
    }
    before = told(scene)
    scene.claim("some", "1Gi", node="n1")
    scene.wait_bound("some")
    until(lambda: told(scene)["n1", "fast-xfs"][0] == before["n1", "fast-xfs"][0] - GIB, lambda: told(scene))
    until(lambda: told(scene) == true(scene), lambda: (told(scene), true(scene)))
    assert {key: told(scene)[key] for key in before if key[0] != "n1"} == {
        key: before[key] for key in before if key[0] != "n1"
    }
    scene.clear()
    until(lambda: told(scene) == before, lambda: (told(scene), before))


def test_a_pod_is_sent_where_all_its_claims_fit_and_nobody_is_asked_in_vain(scene: Cluster) -> None:
    for node in ("n1", "n3"):
        scene.claim(f"heavy-{node}", "2Gi", node=node)
        scene.wait_bound(f"heavy-{node}")
    until(lambda: told(scene) == true(scene), lambda: (told(scene), true(scene)))
    scene.claim("large", "3Gi")
    scene.claim("beside", "1Gi", "bulk")
    scene.pod("both", ["large", "beside"])
    scene.wait_bound("large", "beside")
    assert scene.place_of("both").name == "n2"
    assert not [event for event in scene.events("large") if "ProvisioningFailed" in event]


def test_a_pod_whose_claim_fits_nowhere_waits_and_runs_when_there_is_room(scene: Cluster) -> None:
    for node in scene.nodes:
        scene.claim(f"heavy-{node}", "2Gi", node=node)
        scene.wait_bound(f"heavy-{node}")
    scene.claim("late", "3Gi", pod=True)
    scene.objects.until(f"{PODS}/late", is_unschedulable)
    assert len(on_disks(scene.machines)) == len(scene.nodes)
    scene.delete(f"{PODS}/heavy-n2?gracePeriodSeconds=0", f"{CLAIMS}/heavy-n2")
    scene.wait_bound("late")
    assert scene.node_of("late").name == "n2"


def test_of_a_burst_of_pods_exactly_as_many_get_their_volumes_as_fit(scene: Cluster) -> None:
    """The scheduler decides from what it was told, one Pod after the other; whoever comes too late is sent again."""
    size_bytes = GIB
    fits = sum(free // size_bytes for free in scene.free_bytes("bulk").values())
    names = [f"burst-{number}" for number in range(fits + 6)]
    for name in names:
        scene.claim(name, format_bytes(size_bytes), "bulk", pod=True)

    def bound() -> set[str]:
        return {each["metadata"]["name"] for each in scene.objects.items(CLAIMS) if is_bound(each)}

    until(lambda: len(bound()) >= fits, bound)
    for name in set(names) - bound():
        scene.objects.until(f"{PODS}/{name}", is_unschedulable)
    scene.audit()
    assert len(bound()) == fits
    assert sum(each.size_bytes or 0 for each in on_disks(scene.machines)) == fits * size_bytes
