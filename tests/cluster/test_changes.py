"""Volumes that are changed while they are there: through the real external-resizer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS, VOLUMES
from tests.cluster.machine import CLASSES
from tests.cluster.scene import Cluster
from tests.cluster.things import LOGICAL_VOLUMES
from tests.rigs.cluster.api import Json
from ullage.errors import MIB

CONTENT = os.urandom(MIB)


def resize(scene: Cluster, claim: str, size: str) -> None:
    scene.objects.patch(f"{CLAIMS}/{claim}", {"spec": {"resources": {"requests": {"storage": size}}}})


def has_size(size: str) -> Callable[[Json], bool]:
    def is_so(claim: Json) -> bool:
        status = claim["status"]
        return bool(status["capacity"]["storage"] == size and not status.get("allocatedResourceStatuses"))

    return is_so


def room(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize


@pytest.mark.parametrize("storage_class", CLASSES)
def test_a_claim_grows_while_its_pod_writes_to_it(scene: Cluster, storage_class: str) -> None:
    scene.claim("growing", "320Mi", f"{storage_class}-xfs", pod=True)
    place = scene.run("growing")["growing"]
    (place / "before").write_bytes(CONTENT)
    assert room(place) < 320 * MIB
    resize(scene, "growing", "480Mi")
    scene.node_of("growing").kubelet.grow("growing", place)
    scene.objects.until(f"{CLAIMS}/growing", has_size("480Mi"))
    assert room(place) > 400 * MIB
    assert (place / "before").read_bytes() == CONTENT
    (place / "after").write_bytes(CONTENT * 360)
    order = scene.order("growing")
    assert order["spec"]["sizeBytes"] == order["status"]["sizeBytes"] == 480 * MIB
    scene.audit()
    scene.end("growing")


def test_a_device_grows_and_no_node_is_asked(scene: Cluster) -> None:
    scene.claim("device", "64Mi", pod=True, is_block=True)
    device = scene.run("device")["device"]
    with device.open("r+b", buffering=0) as file:
        file.write(CONTENT)
    resize(scene, "device", "128Mi")
    scene.objects.until(f"{CLAIMS}/device", has_size("128Mi"))
    with device.open("rb") as file:
        assert file.read(MIB) == CONTENT
        assert file.seek(0, os.SEEK_END) == 128 * MIB
    scene.end("device")


def test_a_claim_that_cannot_grow_is_told_the_numbers_and_can_be_lowered_again(scene: Cluster) -> None:
    scene.claim("greedy", "320Mi", "fast-xfs", pod=True)
    place = scene.run("greedy")["greedy"]
    (place / "before").write_bytes(CONTENT)
    resize(scene, "greedy", "40Gi")
    assert "3.5 GiB free" in scene.wait_told("greedy", "VolumeResizeFailed", "40.0 GiB wanted")
    order = scene.order("greedy")
    assert order["spec"]["sizeBytes"] == order["status"]["sizeBytes"] == 320 * MIB
    assert (place / "before").read_bytes() == CONTENT
    (place / "meanwhile").write_bytes(CONTENT)

    resize(scene, "greedy", "384Mi")
    scene.node_of("greedy").kubelet.grow("greedy", place)
    scene.objects.until(f"{CLAIMS}/greedy", has_size("384Mi"))
    assert scene.order("greedy")["status"]["sizeBytes"] == 384 * MIB
    assert (place / "before").read_bytes() == CONTENT
    scene.end("greedy")


@pytest.mark.parametrize("storage_class", CLASSES)
def test_a_claim_gets_another_attributes_class_and_its_volume_another_wipe_policy(
    scene: Cluster, storage_class: str
) -> None:
    claim = scene.claim("careful", storage_class=storage_class, attributes="discard", pod=True)
    scene.wait_bound("careful")
    assert scene.order("careful")["status"]["wipe"] == "discard"
    scene.objects.patch(claim, {"spec": {"volumeAttributesClassName": "zero"}})
    scene.objects.until(claim, lambda it: it["status"].get("currentVolumeAttributesClassName") == "zero")
    order = scene.order("careful")
    assert order["spec"]["wipe"] == order["status"]["wipe"] == "zero"
    (volume,) = scene.wait_bound("careful")
    assert scene.objects.get(f"{VOLUMES}/{volume['metadata']['name']}")["spec"]["volumeAttributesClassName"] == "zero"
    assert [each.record and each.record["wipe"] for each in on_disks(scene.machines)] == ["zero"]
    scene.audit()


def test_a_claim_with_attributes_that_are_none_is_told_so_and_goes_on_as_it_was(scene: Cluster) -> None:
    scene.objects.create(
        "/apis/storage.k8s.io/v1/volumeattributesclasses",
        {"metadata": {"name": "nonsense"}, "driverName": "ullage.io", "parameters": {"colour": "blue"}},
    )
    claim = scene.claim("steady", attributes="discard", pod=True)
    scene.wait_bound("steady")
    before = scene.order("steady")["spec"]
    scene.objects.patch(claim, {"spec": {"volumeAttributesClassName": "nonsense"}})
    assert "colour" in scene.wait_told("steady", "VolumeModifyFailed")
    assert scene.order("steady")["spec"] == before
    scene.objects.patch(claim, {"spec": {"volumeAttributesClassName": "zero"}})
    scene.objects.until(claim, lambda it: it["status"].get("currentVolumeAttributesClassName") == "zero")
    assert (
        scene.objects.get(f"{LOGICAL_VOLUMES}/{scene.order('steady')['metadata']['name']}")["status"]["wipe"] == "zero"
    )
