"""The audit sees what it is for: each kind of difference between objects and disks, made by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.machine import Machine
from tests.cluster.scene import Cluster
from tests.cluster.things import LOGICAL_VOLUMES
from tests.rigs.cluster.api import Json


@pytest.fixture
def volume(scene: Cluster) -> Iterator[Json]:
    """A PersistentVolume whose volume is on node n1."""
    scene.claim("data", node="n1")
    (bound,) = scene.wait_bound("data")
    scene.audit()
    yield bound
    for node in scene.nodes.values():
        node.machine.stir()  # an agent may have looked while something was there that nothing told of
    scene.audit()


def fault(scene: Cluster, *, is_empty: bool = False) -> str:
    with pytest.raises(AssertionError) as told:
        scene.audit(is_empty=is_empty, seconds=1)
    return str(told.value)


def machine(scene: Cluster, name: str) -> Machine:
    return scene.nodes[name].machine


def test_a_volume_that_is_there_twice_is_seen(scene: Cluster, volume: Json) -> None:
    name = volume["metadata"]["name"]
    copies = [machine(scene, "n2").stores["fast"] / f"{name}{suffix}" for suffix in (".img", ".json")]
    for copy in copies:
        shutil.copyfile(machine(scene, "n1").stores["fast"] / copy.name, copy)
    try:
        assert f"{name} is there 2 times" in fault(scene)
    finally:
        for copy in copies:
            copy.unlink()


def test_a_file_that_nobody_ordered_is_seen(scene: Cluster, volume: Json) -> None:
    stray = machine(scene, "n3").stores["bulk"] / "pvc-stray.img"
    stray.write_bytes(b"data")
    try:
        told = fault(scene)
    finally:
        stray.unlink()
    assert "pvc-stray" in told
    assert volume["metadata"]["name"] not in told


def test_a_record_that_says_something_else_than_the_object_is_seen(scene: Cluster, volume: Json) -> None:
    path = machine(scene, "n1").stores["fast"] / f"{volume['metadata']['name']}.json"
    before = path.read_text()
    try:
        for key, text in (("wipe", "zero"), ("state", "growing"), ("class", "bulk")):
            path.write_text(json.dumps({**json.loads(before), key: text}))
            assert volume["metadata"]["name"] in fault(scene)
    finally:
        path.write_text(before)


def test_a_volume_that_no_claim_has_and_one_that_is_left_are_seen(scene: Cluster, volume: Json) -> None:
    name = volume["metadata"]["name"]
    assert f"{LOGICAL_VOLUMES}/{name} is left" in fault(scene, is_empty=True)
    assert f"{VOLUMES}/{name} is left" in fault(scene, is_empty=True)
    scene.objects.patch(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    scene.clear()
    assert "is left" in fault(scene, is_empty=True)
    scene.objects.delete(f"{VOLUMES}/{name}")
    scene.objects.until_gone(f"{VOLUMES}/{name}")
    assert f"LogicalVolume {name} is nobody's volume" in fault(scene)
    scene.objects.delete(f"{LOGICAL_VOLUMES}/{name}")
    scene.objects.until_gone(f"{LOGICAL_VOLUMES}/{name}")
    assert on_disks(scene.machines) == []


def test_an_object_that_something_holds_is_seen(scene: Cluster, volume: Json) -> None:
    claim = f"{CLAIMS}/data"
    scene.objects.patch(claim, {"metadata": {"finalizers": ["example.com/held"]}})
    scene.delete(claim, f"{PODS}/data?gracePeriodSeconds=0")
    try:
        assert "example.com/held" in fault(scene)
    finally:
        scene.objects.patch(claim, {"metadata": {"finalizers": []}})
    scene.objects.until_gone(f"{VOLUMES}/{volume['metadata']['name']}")
