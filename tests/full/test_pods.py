"""Pods on real kubelets: each kind of volume is mounted, written to, shared or not, and keeps what it was given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.things import EVENTS, LOGICAL_VOLUMES, is_ours
from tests.full.audit import audit
from tests.full.classes import BLOCK, EXT4, KINDS, SIZE
from tests.full.pods import (
    RWOP,
    Writer,
    about,
    claimed,
    end_pods,
    eventually,
    inside,
    node_of,
    of_claim,
    order_of,
    pod,
    sleeping,
    start_writer,
    until_running,
    writing,
)
from tests.full.scene import on_stage
from tests.rigs.full.cluster import Cluster


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Cluster]:
    with on_stage(cluster) as prepared:
        yield prepared


def test_each_kind_of_volume_keeps_its_data_when_its_pod_is_deleted(scene: Cluster) -> None:
    for kind in KINDS:
        scene.api.create(CLAIMS, claimed(kind.name, kind, SIZE))
    first = [start_writer(scene, f"first-{kind.name}", kind, kind.name) for kind in KINDS]
    for writer in first:
        until_running(scene, writer.name)
    acknowledged = {writer.kind: writer.goes_on() for writer in first}
    orders = {kind: order_of(scene, kind.name) for kind in KINDS}
    audit(scene)
    end_pods(scene, *(writer.name for writer in first))
    second = [start_writer(scene, f"second-{kind.name}", kind, kind.name) for kind in KINDS]
    for writer in second:
        until_running(scene, writer.name)
        assert writer.goes_on() >= acknowledged[writer.kind]
        begins = scene.kubectl("logs", writer.name).split("\n")[0]
        assert int(begins.removeprefix("begins after ")) >= acknowledged[writer.kind]
    assert {kind: order_of(scene, kind.name) for kind in KINDS} == orders
    audit(scene)


def test_each_file_system_is_the_one_that_was_asked_for_and_has_the_claims_size(scene: Cluster) -> None:
    for kind in KINDS:
        scene.api.create(CLAIMS, claimed(kind.name, kind, SIZE))
        scene.api.create(PODS, pod(kind.name, kind, sleeping(), of_claim(kind.name)))
    for kind in KINDS:
        until_running(scene, kind.name)
    types = {kind.name: inside(scene, kind.name, "stat", "-f", "-c", "%T", "/data") for kind in KINDS if kind != BLOCK}
    assert {name: found.strip() for name, found in types.items()} == {
        "ext4": "ext2/ext3",  # one magic number for all three
        "xfs": "xfs",
        "thin": "ext2/ext3",
    }
    assert int(inside(scene, "block", "blockdev", "--getsize64", BLOCK.path)) == 512 << 20


def test_an_ephemeral_volume_lives_as_long_as_its_pod(scene: Cluster) -> None:
    template = {"volumeClaimTemplate": {"spec": claimed("", EXT4, SIZE)["spec"]}}
    scene.api.create(PODS, pod("short", EXT4, writing(EXT4), {"ephemeral": template}))
    until_running(scene, "short")
    Writer(scene, "short", EXT4).goes_on()
    assert order_of(scene, "short-data")
    audit(scene)
    end_pods(scene, "short")
    eventually(scene, "the claim is gone", lambda: scene.api.find(f"{CLAIMS}/short-data") is None)
    eventually(scene, "the volume is gone", lambda: not any(map(is_ours, scene.api.items(VOLUMES))))
    eventually(scene, "the order is gone", lambda: not scene.api.items(LOGICAL_VOLUMES))


def test_two_pods_of_one_node_share_a_volume_that_is_for_one_node(scene: Cluster) -> None:
    scene.api.create(CLAIMS, claimed("shared", EXT4, SIZE))
    writer = start_writer(scene, "writes", EXT4, "shared")
    until_running(scene, "writes")
    scene.api.create(PODS, pod("reads", EXT4, sleeping(), of_claim("shared")))
    until_running(scene, "reads")
    assert node_of(scene, "reads") == node_of(scene, "writes")
    acknowledged = writer.goes_on()
    assert Writer(scene, "reads", EXT4).checked() >= acknowledged
    end_pods(scene, "reads")
    writer.goes_on()
    audit(scene)


def test_a_volume_for_one_pod_refuses_a_second_and_takes_it_once_the_first_is_gone(scene: Cluster) -> None:
    scene.api.create(CLAIMS, claimed("mine", EXT4, SIZE, mode=RWOP))
    first = start_writer(scene, "first", EXT4, "mine")
    until_running(scene, "first")
    acknowledged = first.goes_on()
    # Past the scheduler: whom it would not have let through, the node does not either.
    node = node_of(scene, "first")
    forced = pod("forced", EXT4, writing(EXT4), of_claim("mine"))
    forced["spec"]["nodeName"] = node
    scene.api.create(PODS, forced)
    second = start_writer(scene, "second", EXT4, "mine")
    refused(scene, "second", "FailedScheduling", "ReadWriteOncePod")
    refused(scene, "forced", "FailedMount", "")
    assert scene.api.get(f"{PODS}/forced")["status"]["phase"] == "Pending"
    first.goes_on()
    end_pods(scene, "forced", "first")
    until_running(scene, "second")
    assert second.goes_on() >= acknowledged
    audit(scene)


def refused(cluster: Cluster, name: str, reason: str, word: str) -> None:
    """Wait until an event says so of a Pod."""

    def is_told() -> bool:
        told = [each for each in cluster.api.items(EVENTS) if each["involvedObject"]["name"] == name]
        return any(each["reason"] == reason and word in each.get("message", "") for each in told)

    eventually(cluster, f"an event {reason} of {name}", is_told, name)
    assert cluster.api.get(f"{PODS}/{name}")["status"]["phase"] == "Pending", about(cluster, name)
