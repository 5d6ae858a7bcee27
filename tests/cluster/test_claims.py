"""A claim from its beginning to its end, through the real scheduler and external-provisioner."""

from __future__ import annotations

import pytest

from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.machine import CLASSES
from tests.cluster.scene import Cluster, until
from tests.cluster.things import LOGICAL_VOLUMES, is_bound
from ullage.errors import GIB, MIB
from ullage.quantity import format_bytes
from ullage.storage_classes import NODE_KEY

CONTENT = b"what a Pod has written" * 1000


@pytest.mark.parametrize("storage_class", CLASSES)
def test_a_pod_runs_where_its_volume_is_and_finds_its_data_again_and_nothing_is_left_of_both(
    scene: Cluster, storage_class: str
) -> None:
    claim = scene.claim("data", storage_class=storage_class, pod=True)
    (volume,) = scene.wait_bound("data")
    order = scene.order("data")
    node = scene.node_of("data")
    places = scene.run("data")
    (places["data"] / "file").write_bytes(CONTENT)
    assert volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"] == [
        {"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": [node.name]}]}
    ]
    assert scene.place_of("data") == node
    assert order["spec"]["claimRef"]["name"] == "data"
    assert order["spec"]["persistentVolume"] == volume["metadata"]["name"]
    assert scene.objects.get(claim)["status"]["capacity"]["storage"] == format_bytes(order["status"]["sizeBytes"])
    scene.end("data")

    scene.pod("again", ["data"])
    assert (scene.run("again")["data"] / "file").read_bytes() == CONTENT
    assert scene.place_of("again") == node
    scene.audit()
    scene.end("again")

    scene.delete(claim)
    scene.objects.until_gone(f"{VOLUMES}/{volume['metadata']['name']}")
    assert scene.objects.find(f"{LOGICAL_VOLUMES}/{order['metadata']['name']}") is None
    assert on_disks(scene.machines) == []


@pytest.mark.parametrize("storage_class", CLASSES)
def test_a_pod_is_given_a_device_and_finds_its_bytes_again(scene: Cluster, storage_class: str) -> None:
    scene.claim("device", storage_class=storage_class, pod=True, is_block=True)
    device = scene.run("device")["device"]
    assert device.is_block_device()
    with device.open("r+b", buffering=0) as file:
        file.seek(60 * MIB)
        file.write(CONTENT[:4096])
    scene.end("device")
    scene.pod("again", ["device"], is_block=True)
    with scene.run("again")["device"].open("rb") as file:
        file.seek(60 * MIB)
        assert file.read(4096) == CONTENT[:4096]
    scene.end("again")


def test_a_claim_that_waits_for_no_pod_is_bound_on_the_node_with_the_most_room(scene: Cluster) -> None:
    for node in ("n1", "n3"):
        scene.claim(f"heavy-{node}", "1Gi", node=node)
        scene.wait_bound(f"heavy-{node}")
    scene.claim("now", storage_class="fast-now")
    scene.wait_bound("now")
    assert scene.node_of("now").name == "n2"
    assert scene.objects.items(PODS) != []
    assert all(pod["metadata"]["name"] != "now" for pod in scene.objects.items(PODS))


def test_a_claim_for_a_node_without_room_is_bound_on_another(scene: Cluster) -> None:
    """The node is full, and the scheduler, that did not know it, has chosen it already."""
    scene.claim("heavy", "3Gi", node="n1")
    scene.wait_bound("heavy")
    scene.claim("moved", "2Gi", selected_node="n1")
    told = scene.wait_told("moved", "ResourceExhausted")
    assert "n1" in told
    assert "2.0 GiB" in told
    scene.pod("moved", ["moved"])
    scene.wait_bound("moved")
    assert scene.node_of("moved").name in {"n2", "n3"}


def test_a_claim_that_fits_nowhere_stays_pending_with_the_numbers_and_nothing_is_left_behind(scene: Cluster) -> None:
    scene.claim("vast", "40Gi", "fast-now")
    told = scene.wait_told("vast", "ResourceExhausted")
    assert "40.0 GiB" in told
    assert all(name in told for name in scene.nodes)
    assert scene.objects.get(f"{CLAIMS}/vast")["status"]["phase"] == "Pending"
    scene.audit(is_empty=False)
    assert on_disks(scene.machines) == []
    assert scene.objects.items(LOGICAL_VOLUMES) == []


def test_a_claim_is_not_gone_before_its_pod_is_nor_its_volume_before_it_is_unstaged(scene: Cluster) -> None:
    claim = scene.claim("used", pod=True)
    place = scene.run("used")["used"]
    (bound,) = scene.wait_bound("used")
    volume = bound["metadata"]["name"]
    scene.delete(claim)  # its protection holds it while there is a Pod
    (place / "file").write_bytes(CONTENT)
    assert scene.objects.get(claim)["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]

    pod = scene.objects.get(f"{PODS}/used")
    scene.delete(f"{PODS}/used?gracePeriodSeconds=0")  # by force: kubelet has not taken its volumes away
    told = scene.wait_told(volume, "VolumeFailedDelete")
    assert "FailedPrecondition" in told
    assert (place / "file").read_bytes() == CONTENT
    assert [each.id for each in on_disks(scene.machines)] == [volume]

    scene.node_with(volume).kubelet.take_away(bound, pod["metadata"]["uid"])
    scene.objects.until_gone(f"{VOLUMES}/{volume}")
    assert on_disks(scene.machines) == []


def test_fifty_claims_at_once_come_and_go_and_none_is_there_twice(scene: Cluster) -> None:
    names = [f"many-{number}" for number in range(50)]
    for number, name in enumerate(names):
        scene.claim(name, "32Mi", CLASSES[number % len(CLASSES)], pod=True)
    volumes = scene.wait_bound(*names)
    assert len({volume["spec"]["csi"]["volumeHandle"] for volume in volumes}) == len(names)
    scene.audit()
    assert len(on_disks(scene.machines)) == len(names)
    scene.delete(*(f"{PODS}/{name}?gracePeriodSeconds=0" for name in names), *(f"{CLAIMS}/{name}" for name in names))
    scene.audit(is_empty=True)


def test_of_a_burst_exactly_as_many_are_bound_as_fit_and_the_others_are_told_why(scene: Cluster) -> None:
    size_bytes = GIB
    fits = sum(free // size_bytes for free in scene.free_bytes("fast").values())
    names = [f"burst-{number}" for number in range(fits + 6)]
    for name in names:
        scene.claim(name, format_bytes(size_bytes), "fast-now")

    def bound() -> list[str]:
        return [each["metadata"]["name"] for each in scene.objects.items(CLAIMS) if is_bound(each)]

    until(lambda: len(bound()) >= fits, bound)
    for name in sorted(set(names) - set(bound())):
        scene.wait_told(name, "ResourceExhausted", "1.0 GiB")
    scene.audit()
    assert len(bound()) == fits
    assert sum(each.size_bytes or 0 for each in on_disks(scene.machines)) == fits * size_bytes
    assert all(free < size_bytes for free in scene.free_bytes("fast").values())
