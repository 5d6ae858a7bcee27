"""A Pod of higher priority takes processors from others where there is room for its volumes: eviction frees no disk."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import things
from tests.cluster.extender.crowd import CPU, VOLUME_BYTES, Crowd
from tests.cluster.kubelet import PODS
from tests.cluster.scene import until
from tests.cluster.things import EVENTS, NODE_STORAGES
from tests.rigs.cluster.api import Json
from ullage.storage_classes import NODE_KEY

PRIORITY_CLASSES = "/apis/scheduling.k8s.io/v1/priorityclasses"
URGENT = "urgent"
FULL, ROOMY = "n00", "n03"
OTHER_FULL = "n05"
"""Like FULL."""


@pytest.fixture(scope="module", autouse=True)
def priorities(shared_crowd: Crowd) -> Iterator[None]:
    api = shared_crowd.scene.objects
    api.create(PRIORITY_CLASSES, {"metadata": {"name": URGENT}, "value": 1000})
    yield
    api.delete(f"{PRIORITY_CLASSES}/{URGENT}")


def occupy(crowd: Crowd, node: str) -> str:
    """All of a node's processors, by one Pod without volumes: its name."""
    name = f"busy-{node}"
    pod = things.pod(name, [], node=node)
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": CPU}}
    crowd.scene.objects.create(PODS, pod)
    crowd.scene.place_of(name)
    return name


def fill(crowd: Crowd, node: str, but_for: int) -> None:
    """Volumes, until there is room for so many more."""
    (storage,) = (each for each in crowd.scene.objects.items(NODE_STORAGES) if each["metadata"]["name"] == node)
    (free_bytes,) = (pool["freeBytes"] for pool in storage["status"]["pools"] if "fast" in pool["classes"])
    size_bytes = (free_bytes // VOLUME_BYTES - but_for) * VOLUME_BYTES
    crowd.scene.claim(f"full-{node}", str(size_bytes), node=node)
    crowd.scene.wait_bound(f"full-{node}")


def come(crowd: Crowd, *nodes: str, volumes: int = 2) -> None:
    """A Pod that goes before others, wants as much processor as a node has, and may go to these nodes."""
    among = [{"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": list(nodes)}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": among}}}
    claims = [f"{URGENT}-{number}" for number in range(volumes)]
    for claim in claims:
        crowd.scene.claim(claim, str(VOLUME_BYTES))
    pod = things.pod(URGENT, claims)
    pod["spec"] |= {"priorityClassName": URGENT, "affinity": affinity}
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": CPU}}
    crowd.scene.objects.create(PODS, pod)


def preempted(crowd: Crowd) -> list[Json]:
    return [each for each in crowd.scene.objects.items(EVENTS) if each["reason"] == "Preempted"]


def uids(crowd: Crowd, *pods: str) -> list[str]:
    return [crowd.scene.objects.get(f"{PODS}/{pod}")["metadata"]["uid"] for pod in pods]


def test_nobody_is_evicted_from_a_node_that_lacks_room_for_the_volumes_and_somebody_is_where_only_processors_lack(
    crowd: Crowd,
) -> None:
    """Each of the two volumes would fit the full node, which is all that kube-scheduler itself looks at."""
    fill(crowd, FULL, but_for=1)
    stays, goes = occupy(crowd, FULL), occupy(crowd, ROOMY)
    (uid,) = uids(crowd, stays)
    come(crowd, FULL, ROOMY)
    assert crowd.scene.place_of(URGENT).name == ROOMY
    crowd.scene.wait_bound(f"{URGENT}-0", f"{URGENT}-1")
    assert uids(crowd, stays) == [uid]
    assert crowd.scene.objects.find(f"{PODS}/{goes}") is None


def test_nobody_is_evicted_at_all_where_no_node_has_room_for_the_volumes(crowd: Crowd) -> None:
    before = len(preempted(crowd))
    for node in (FULL, OTHER_FULL):
        fill(crowd, node, but_for=1)
    there = [occupy(crowd, node) for node in (FULL, OTHER_FULL)]
    found = uids(crowd, *there)
    come(crowd, FULL, OTHER_FULL)
    until(lambda: "preemption" in crowd.unscheduled()[URGENT], crowd.unscheduled)
    print(f"\n{crowd.unscheduled()[URGENT]}")
    assert uids(crowd, *there) == found
    assert len(preempted(crowd)) == before
    crowd.scene.delete(f"{PODS}/{there[0]}?gracePeriodSeconds=0")  # something happens: it is tried again
    until(lambda: "2 volumes need" in crowd.unscheduled()[URGENT], crowd.unscheduled)
    assert uids(crowd, there[1]) == found[1:]
