"""Snapshots, restores, clones and groups, through the real snapshot-controller, csi-snapshotter and provisioner.

Nothing in Kubernetes sends a copy to its source's node: whoever makes one for a Pod says where that is to run.
"""

from __future__ import annotations

import os

import pytest

from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS
from tests.cluster.machine import CLASSES
from tests.cluster.scene import Cluster
from tests.cluster.things import (
    CONTENTS,
    GROUP_CONTENTS,
    GROUPS,
    LOGICAL_VOLUMES,
    SNAPSHOTS,
    group_snapshot,
    of_claim,
    of_snapshot,
    snapshot,
)
from tests.rigs.cluster.api import Json
from ullage.errors import MIB

BEFORE, AFTER = os.urandom(MIB), os.urandom(MIB)


def is_ready(found: Json) -> bool:
    return bool(found.get("status", {}).get("readyToUse"))


def is_held(scene: Cluster, snapshot_name: str) -> str:
    """The id of what a snapshot is on its node."""
    found = scene.objects.until(f"{SNAPSHOTS}/{snapshot_name}", is_ready)
    content = scene.objects.get(f"{CONTENTS}/{found['status']['boundVolumeSnapshotContentName']}")
    return str(content["status"]["snapshotHandle"])


@pytest.mark.parametrize("storage_class", CLASSES)
def test_a_snapshot_is_restored_as_it_was_also_into_a_larger_claim_and_outlives_its_volume(
    scene: Cluster, storage_class: str
) -> None:
    claim = scene.claim("source", "320Mi", f"{storage_class}-xfs", pod=True)
    place = scene.run("source")["source"]
    (place / "file").write_bytes(BEFORE)
    node = scene.node_of("source")
    if storage_class == "bulk":
        scene.end("source")  # where bytes are copied, a volume has to keep still
    scene.objects.create(SNAPSHOTS, snapshot("monday", "source"))
    held = is_held(scene, "monday")
    assert scene.node_with(held) == node
    if storage_class == "fast":
        (place / "file").write_bytes(AFTER)
        scene.end("source")
    scene.delete(claim)

    for name, size in (("same", "320Mi"), ("larger", "480Mi")):
        scene.claim(name, size, f"{storage_class}-xfs", source=of_snapshot("monday"), node=node.name)
        restored = scene.run(name)[name]
        assert (restored / "file").read_bytes() == BEFORE
        (restored / "file").write_bytes(AFTER)
        found = os.statvfs(restored)
        assert (found.f_blocks * found.f_frsize > 320 * MIB) == (name == "larger")
    scene.audit()
    for name in ("same", "larger"):
        scene.end(name)
        scene.delete(f"{CLAIMS}/{name}")
    scene.delete(f"{SNAPSHOTS}/monday")
    scene.audit(is_empty=True)


@pytest.mark.parametrize("storage_class", CLASSES)
def test_a_copy_for_a_claim_that_waits_for_no_pod_is_made_where_its_source_is(
    scene: Cluster, storage_class: str
) -> None:
    scene.claim("source", storage_class=storage_class, node="n3")
    (scene.run("source")["source"] / "file").write_bytes(BEFORE)
    scene.end("source")
    scene.objects.create(SNAPSHOTS, snapshot("monday", "source"))
    is_held(scene, "monday")
    for name, source in (("restored", of_snapshot("monday")), ("cloned", of_claim("source"))):
        scene.claim(name, storage_class=f"{storage_class}-now", source=source)
        scene.wait_bound(name)
        scene.pod(name, [name])
        assert (scene.run(name)[name] / "file").read_bytes() == BEFORE
        assert scene.node_of(name).name == "n3"
        scene.end(name)


def test_a_clone_is_its_own_from_its_first_moment(scene: Cluster) -> None:
    scene.claim("source", pod=True)
    source = scene.run("source")["source"]
    (source / "file").write_bytes(BEFORE)
    scene.claim("clone", source=of_claim("source"), node=scene.node_of("source").name)
    clone = scene.run("clone")["clone"]
    assert (clone / "file").read_bytes() == BEFORE
    (source / "file").write_bytes(AFTER)
    assert (clone / "file").read_bytes() == BEFORE
    (clone / "mine").write_bytes(AFTER)
    assert not (source / "mine").exists()
    scene.audit()
    scene.end("source", "clone")
    scene.delete(f"{CLAIMS}/source")
    scene.objects.until_gone(f"{CLAIMS}/source")
    scene.pod("again", ["clone"])
    assert (scene.run("again")["clone"] / "file").read_bytes() == BEFORE
    scene.end("again")


def test_a_restore_for_a_pod_elsewhere_waits_and_says_where_its_source_is(scene: Cluster) -> None:
    scene.claim("source", node="n2")
    scene.wait_bound("source")
    scene.objects.create(SNAPSHOTS, snapshot("monday", "source"))
    is_held(scene, "monday")
    scene.claim("astray", source=of_snapshot("monday"), node="n1")
    assert "on n2 only" in scene.wait_told("astray", "ResourceExhausted")
    assert len(on_disks(scene.machines)) == 2


def test_the_claims_of_a_pod_are_snapshotted_together_and_restored(scene: Cluster) -> None:
    labels = {"app": "pair"}
    for name in ("left", "right"):
        scene.claim(name, labels=labels)
    scene.pod("pair", ["left", "right"])
    places = scene.run("pair")
    for name, place in places.items():
        (place / "file").write_bytes(BEFORE + name.encode())
    node = scene.node_of("left").name
    assert scene.node_of("right").name == node
    scene.end("pair")

    scene.objects.create(GROUPS, group_snapshot("both", labels))
    group = scene.objects.until(f"{GROUPS}/both", is_ready)
    members = scene.objects.items(SNAPSHOTS)
    handles = {is_held(scene, each["metadata"]["name"]): each for each in members}
    assert len(handles) == 2
    orders = [scene.objects.get(f"{LOGICAL_VOLUMES}/{handle}") for handle in handles]
    content = scene.objects.get(f"{GROUP_CONTENTS}/{group['status']['boundVolumeGroupSnapshotContentName']}")
    assert {order["spec"]["group"]["name"] for order in orders} == {content["status"]["volumeGroupSnapshotHandle"]}
    assert len({order["status"]["takenAt"] for order in orders}) == 1

    found = set()
    for number, name in enumerate(each["metadata"]["name"] for each in members):
        scene.claim(f"restored-{number}", source=of_snapshot(name), node=node)
        found.add((scene.run(f"restored-{number}")[f"restored-{number}"] / "file").read_bytes())
        scene.end(f"restored-{number}")
    assert found == {BEFORE + b"left", BEFORE + b"right"}
    scene.audit()
    scene.delete(f"{GROUPS}/both")
    scene.objects.until_gone(f"{GROUPS}/both")
    for handle in handles:
        scene.objects.until_gone(f"{LOGICAL_VOLUMES}/{handle}")


def test_claims_on_two_nodes_are_not_snapshotted_together_and_nothing_of_them_is_taken(scene: Cluster) -> None:
    labels = {"app": "apart"}
    for name, node in (("here", "n1"), ("there", "n2")):
        scene.claim(name, labels=labels, node=node)
        scene.wait_bound(name)
    scene.objects.create(GROUPS, group_snapshot("none", labels))
    found = scene.objects.until(f"{GROUPS}/none", lambda it: it.get("status", {}).get("error"))
    assert "several nodes" in found["status"]["error"]["message"]
    assert scene.objects.items(SNAPSHOTS) == []
    assert len(on_disks(scene.machines)) == 2
