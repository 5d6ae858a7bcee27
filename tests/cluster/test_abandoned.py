"""Claims that are deleted while nobody who remembers them runs: what was never written to goes, and nothing else."""

from __future__ import annotations

import shutil
import signal
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.audit import on_disks
from tests.cluster.kubelet import CLAIMS, VOLUMES
from tests.cluster.machine import attached
from tests.cluster.scene import Cluster, cluster, until
from tests.cluster.things import LOGICAL_VOLUMES
from tests.rigs.cluster.api import Json
from ullage.errors import MIB

OFTEN = ("--abandoned-after=4", "--orphan-scan=3")
CONTENT = b"what a Pod has written"


@pytest.fixture(scope="module", name="running")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    path = Path(tempfile.mkdtemp(prefix="ullage-cluster-"))
    with cluster(path, tmp_path_factory.mktemp("abandoned"), more=OFTEN) as running:
        yield running
    shutil.rmtree(path)


@pytest.fixture
def scene(running: Cluster) -> Iterator[Cluster]:
    yield running
    running.clear()
    for each in running.objects.items(LOGICAL_VOLUMES):
        running.objects.delete(f"{LOGICAL_VOLUMES}/{each['metadata']['name']}")
    running.audit(is_empty=True)


def orders_of(scene: Cluster, claim: str) -> list[Json]:
    found = scene.objects.items(LOGICAL_VOLUMES)
    return [each for each in found if each["spec"].get("claimRef", {}).get("name") == claim]


def is_ready(found: Json) -> bool:
    return bool(found.get("status", {}).get("phase") == "Ready")


def abandon(scene: Cluster, *claims: str) -> list[str]:
    """Order volumes, lose all who remember them with the controller, and delete the claims: the ids. It stays away."""
    for node in scene.nodes.values():
        node.agent.process.signal(signal.SIGSTOP)
    for claim in claims:
        scene.claim(claim, storage_class="fast-now")
    ids = []
    for claim in claims:
        (order,) = until(lambda: orders_of(scene, claim), lambda: f"{claim} is not ordered")  # noqa: B023 - called at once
        ids.append(order["metadata"]["name"])
    scene.controllers[0].process.kill()
    for claim in claims:
        scene.delete(f"{CLAIMS}/{claim}")
        scene.objects.until_gone(f"{CLAIMS}/{claim}")
    for node in scene.nodes.values():
        node.agent.process.signal(signal.SIGCONT)
    for name in ids:
        scene.objects.until(f"{LOGICAL_VOLUMES}/{name}", is_ready)
        assert scene.objects.find(f"{VOLUMES}/{name}") is None
    return ids


def device_of(scene: Cluster, volume_id: str) -> str:
    store = scene.node_with(volume_id).machine.stores["fast"]
    inode = (store / f"{volume_id}.img").stat().st_ino
    return next(name for name, of in attached(store) if of == inode)


def removed(scene: Cluster) -> float:
    with urllib.request.urlopen(f"http://{scene.controllers[0].http}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    name = 'ullage_abandoned_volumes_total{outcome="removed"} '
    return float(next(line for line in lines if line.startswith(name)).removeprefix(name))


def test_what_was_never_written_to_goes_and_what_belongs_to_a_claim_stays(scene: Cluster) -> None:
    scene.claim("bystander", storage_class="fast-now")
    (bound,) = scene.wait_bound("bystander")
    names = abandon(scene, "gone-1", "gone-2")
    assert set(names) < {each.id for each in on_disks(scene.machines)}
    scene.controllers[0].process.start()
    for name in names:
        scene.objects.until_gone(f"{LOGICAL_VOLUMES}/{name}", 90)
        scene.wait_told(name, "AbandonedRemoved", "reads as zero")
    scene.audit()
    assert [each.id for each in on_disks(scene.machines)] == [bound["spec"]["csi"]["volumeHandle"]]
    assert removed(scene) == len(names)
    order = scene.order("bystander")
    assert "annotations" not in order["metadata"]
    assert {each["type"] for each in order["status"]["conditions"]} == {"Ready", "Applied", "Degraded"}


def test_one_byte_keeps_a_volume_and_it_is_told(scene: Cluster) -> None:
    (name,) = abandon(scene, "written")
    with Path(device_of(scene, name)).open("r+b", buffering=0) as file:
        file.seek(60 * MIB)
        file.write(b"x")
    scene.controllers[0].process.start()
    told = scene.wait_told(name, "AbandonedKept", "default/written")
    assert f"byte {60 * MIB}" in told
    assert [each.id for each in on_disks(scene.machines)] == [name]
    with Path(device_of(scene, name)).open("rb") as file:
        file.seek(60 * MIB)
        assert file.read(1) == b"x"


def test_a_volume_that_was_kept_on_purpose_stays_with_what_was_written(scene: Cluster) -> None:
    claim = scene.claim("kept", pod=True)
    (scene.run("kept")["kept"] / "file").write_bytes(CONTENT)
    (bound,) = scene.wait_bound("kept")
    name, volume = bound["spec"]["csi"]["volumeHandle"], f"{VOLUMES}/{bound['metadata']['name']}"
    scene.objects.patch(volume, {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    scene.end("kept")
    scene.delete(claim)
    scene.objects.until_gone(claim)
    scene.delete(volume)
    scene.objects.until_gone(volume)
    scene.wait_told(name, "AbandonedKept", "default/kept")
    found = scene.objects.get(f"{LOGICAL_VOLUMES}/{name}")
    assert "deletionTimestamp" not in found["metadata"]
    assert [each.id for each in on_disks(scene.machines)] == [name]


def test_a_persistent_volume_made_by_hand_takes_the_question_back(scene: Cluster) -> None:
    (name,) = abandon(scene, "adopted")
    with Path(device_of(scene, name)).open("r+b", buffering=0) as file:
        file.write(b"x")
    scene.controllers[0].process.start()
    scene.wait_told(name, "AbandonedKept")
    content = {
        "metadata": {"name": "by-hand"},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "fast",
            "csi": {"driver": "ullage.io", "volumeHandle": name},
        },
    }
    scene.objects.create(VOLUMES, content)

    def is_as_before(found: Json) -> bool:
        kinds = {each["type"] for each in found["status"]["conditions"]}
        return "annotations" not in found["metadata"] and "Unwritten" not in kinds

    scene.objects.until(f"{LOGICAL_VOLUMES}/{name}", is_as_before)
    scene.delete(f"{VOLUMES}/by-hand")
    scene.objects.until_gone(f"{VOLUMES}/by-hand")
