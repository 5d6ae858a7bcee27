"""What else befalls claims, volumes and classes in a cluster."""

from __future__ import annotations

from tests.cluster import things
from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.scene import Cluster, until
from tests.cluster.things import DEVICE_CLASSES, EVENTS, LOGICAL_VOLUMES, SNAPSHOTS, STORAGE, of_snapshot, snapshot
from tests.rigs.cluster.api import Json
from ullage.kube.meta import API_VERSION

CONTENT = b"what a Pod has written" * 1000
BY_CHANCE_SECONDS = 400.0
"""Until a scheduler that is told nothing hits the one node of three. It guesses every ten seconds in the end, so nine
guesses, which is what the tests wait for else, are all wrong once in forty times."""


def is_released(volume: Json) -> bool:
    return bool(volume["status"]["phase"] == "Released")


def test_a_claims_description_says_what_was_done_for_it_on_which_node(scene: Cluster) -> None:
    """`kubectl describe` asks for the events with the claim's uid."""
    path = scene.claim("data", pod=True)
    node = scene.node_of("data").name
    uid = scene.objects.get(path)["metadata"]["uid"]

    def told() -> list[str]:
        events = scene.objects.items(f"{EVENTS}?fieldSelector=involvedObject.uid={uid}")
        return [each["message"] for each in events if each["reason"] == "Carved"]

    until(told, lambda: scene.events("data"))
    assert f"on {node}: volume of 64.0 MiB (67108864 bytes) in" in told()[0]


def test_a_volume_that_is_made_for_a_pod_goes_with_the_pod(scene: Cluster) -> None:
    spec = things.claim("", "64Mi", "fast")["spec"]
    pod = things.pod("worker", [])
    pod["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}]
    scene.objects.create(PODS, pod)
    (scene.run("worker")["worker-scratch"] / "file").write_bytes(CONTENT)
    (volume,) = scene.wait_bound("worker-scratch")
    scene.audit()
    scene.end("worker")
    scene.objects.until_gone(f"{VOLUMES}/{volume['metadata']['name']}")
    assert on_disks(scene.machines) == []


def test_a_volume_that_is_retained_is_given_to_another_claim_with_its_data(scene: Cluster) -> None:
    scene.claim("first", pod=True)
    (scene.run("first")["first"] / "file").write_bytes(CONTENT)
    scene.end("first")
    (bound,) = scene.wait_bound("first")
    name = bound["metadata"]["name"]
    volume = f"{VOLUMES}/{name}"
    scene.objects.patch(volume, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    scene.delete(f"{CLAIMS}/first")
    scene.objects.until(volume, is_released)
    assert [each.id for each in on_disks(scene.machines)] == [name]
    scene.audit()

    scene.objects.patch(volume, {"spec": {"claimRef": None}})
    second = things.claim("second", "64Mi", "fast")
    second["spec"]["volumeName"] = name
    scene.objects.create(CLAIMS, second)
    scene.pod("second", ["second"])
    assert (scene.run("second")["second"] / "file").read_bytes() == CONTENT
    scene.end("second")
    scene.objects.patch(volume, {"spec": {"persistentVolumeReclaimPolicy": "Delete"}})


def test_a_class_can_be_used_as_soon_as_it_is_there_and_its_volumes_outlive_it(scene: Cluster) -> None:
    """It is another one on disks that are served already: both take from the same room."""
    directory = scene.objects.get(f"{DEVICE_CLASSES}/fast")["spec"]["directory"]
    spec = {"type": "file", "directory": directory, "wipe": "zero"}
    kind = {"apiVersion": API_VERSION, "kind": "DeviceClass"}
    scene.objects.create(DEVICE_CLASSES, {**kind, "metadata": {"name": "safe"}, "spec": spec})
    content = {"metadata": {"name": "safe"}, "provisioner": "ullage.io", "volumeBindingMode": things.LATE}
    scene.objects.create(f"{STORAGE}/storageclasses", {**content, "parameters": {"ullage.io/device-class": "safe"}})
    try:
        until(lambda: set(scene.free_bytes("safe")) == set(scene.nodes), lambda: scene.free_bytes("safe"))
        scene.claim("data", storage_class="safe", pod=True)
        (scene.run("data")["data"] / "file").write_bytes(CONTENT)
        assert scene.order("data")["status"]["wipe"] == "zero"
        node = scene.node_of("data").name
        until(
            lambda: scene.free_bytes("safe")[node] == scene.free_bytes("fast")[node],
            lambda: (scene.free_bytes("safe"), scene.free_bytes("fast")),
        )
        scene.end("data")
        scene.delete(f"{DEVICE_CLASSES}/safe")
        until(lambda: not scene.free_bytes("safe"), lambda: scene.free_bytes("safe"))
        scene.pod("again", ["data"])
        assert (scene.run("again")["data"] / "file").read_bytes() == CONTENT
        scene.end("again")
        (volume,) = scene.wait_bound("data")
        scene.delete(f"{CLAIMS}/data")
        scene.objects.until_gone(f"{VOLUMES}/{volume['metadata']['name']}")
        assert on_disks(scene.machines) == []
    finally:
        scene.delete(f"{DEVICE_CLASSES}/safe", f"{STORAGE}/storageclasses/safe")


def test_a_restore_for_a_pod_that_may_run_anywhere_finds_its_way_to_its_source(scene: Cluster) -> None:
    """Nothing tells the scheduler where that is: a wrong node is refused, and it chooses again."""
    scene.claim("source", node="n2")
    (scene.run("source")["source"] / "file").write_bytes(CONTENT)
    scene.end("source")
    scene.objects.create(SNAPSHOTS, snapshot("monday", "source"))
    scene.claim("restored", source=of_snapshot("monday"), pod=True)
    assert scene.place_of("restored", BY_CHANCE_SECONDS).name == "n2"
    assert (scene.run("restored")["restored"] / "file").read_bytes() == CONTENT
    scene.end("restored")


def test_a_volume_whose_order_was_deleted_by_hand_stays_while_its_pod_uses_it(scene: Cluster) -> None:
    claim = scene.claim("data", pod=True)
    place = scene.run("data")["data"]
    (volume,) = scene.wait_bound("data")
    order = f"{LOGICAL_VOLUMES}/{scene.order('data')['metadata']['name']}"
    scene.delete(order)
    scene.objects.until(order, lambda it: "VolumeInUse" in str(it["status"]["conditions"]))
    (place / "file").write_bytes(CONTENT)
    assert (place / "file").read_bytes() == CONTENT
    assert len(on_disks(scene.machines)) == 1
    scene.end("data")
    scene.objects.until_gone(order)
    scene.delete(claim)
    scene.objects.until_gone(f"{VOLUMES}/{volume['metadata']['name']}")
