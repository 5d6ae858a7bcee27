"""The rig itself: a whole control plane and the sidecars, with `ullage standalone` as their driver on the one node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rigs.cluster import nodes, ours
from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.control_plane import NAMES, ControlPlane
from tests.rigs.cluster.disks import disks, volumes
from tests.rigs.cluster.sidecars import PROVISIONER, Sidecars
from ullage.errors import GIB
from ullage.storage_classes import CLASS_KEY, DRIVER, NODE_KEY

NODE = "one"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
PODS = "/api/v1/namespaces/default/pods"
VOLUMES = "/api/v1/persistentvolumes"
STORAGE = "/apis/storage.k8s.io/v1"
SNAPSHOT, GROUP_SNAPSHOT = "snapshot.storage.k8s.io/v1", "groupsnapshot.storage.k8s.io/v1"
CLASS = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a test here looks at."""

    plane: ControlPlane
    api: Api
    driver: ours.Ours
    sidecars: Sidecars
    directory: Path

    def claim(self, name: str, **more: object) -> str:
        """A claim and a Pod that uses it; the claim's path."""
        spec = {"storageClassName": CLASS, "accessModes": ["ReadWriteOnce"]}
        size = {"resources": {"requests": {"storage": "1Gi"}}}
        self.api.create(CLAIMS, {"metadata": {"name": name, "labels": {"app": "db"}}, "spec": {**spec, **size, **more}})
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
        container = {"name": "main", "image": "none", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        self.api.create(PODS, {"metadata": {"name": name}, "spec": {"containers": [container], "volumes": [volume]}})
        return f"{CLAIMS}/{name}"

    def volume(self, claim: str) -> Json:
        """The PersistentVolume that the claim is bound to, in the end."""
        bound = self.api.until(claim, lambda found: found["status"].get("phase") == "Bound")
        return self.api.get(f"{VOLUMES}/{bound['spec']['volumeName']}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Cluster]:
    logs = tmp_path_factory.mktemp("cluster")
    with disks(folder, [NODE]) as directories, ControlPlane(logs) as plane:
        config = folder / "config.yaml"
        config.write_text(f"deviceClasses:\n- {{name: {CLASS}, type: file, directory: {directories[NODE]}}}\n")
        api = plane.api()
        set_up(api)
        driver = ours.standalone(folder, NODE, config)
        try:
            driver.process.start()
            with Sidecars(logs, driver.csi_socket, plane.kubeconfig, api) as sidecars:
                set_up_snapshots(api)
                yield Cluster(plane=plane, api=api, driver=driver, sidecars=sidecars, directory=directories[NODE])
        finally:
            driver.process.kill()


def set_up(api: Api) -> None:
    """A node, and what an administrator makes."""
    nodes.add(api, NODE)
    api.create(f"{STORAGE}/csidrivers", {"metadata": {"name": DRIVER}, "spec": {"attachRequired": False}})
    late = {"volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": True}
    made = {"metadata": {"name": CLASS}, "provisioner": DRIVER, "parameters": {CLASS_KEY: CLASS}}
    api.create(f"{STORAGE}/storageclasses", {**made, **late})
    zero = {"metadata": {"name": "zero"}, "driverName": DRIVER, "parameters": {"wipe": "zero"}}
    api.create(f"{STORAGE}/volumeattributesclasses", zero)


def set_up_snapshots(api: Api) -> None:
    """The classes of snapshots, when their kinds are known."""
    for version, kind in ((SNAPSHOT, "VolumeSnapshotClass"), (GROUP_SNAPSHOT, "VolumeGroupSnapshotClass")):
        content = {"metadata": {"name": CLASS}, "driver": DRIVER, "deletionPolicy": "Delete"}
        api.create(f"/apis/{version}/{kind.lower()}es", {"apiVersion": version, "kind": kind, **content})


def test_a_claim_with_a_pod_is_bound_on_the_node_and_deleting_it_leaves_nothing(cluster: Cluster) -> None:
    claim = cluster.claim("data")
    volume = cluster.volume(claim)
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": NODE_KEY, "operator": "In", "values": [NODE]}]}]
    assert cluster.api.until(f"{PODS}/data", lambda pod: pod["spec"].get("nodeName"))["spec"]["nodeName"] == NODE
    assert volume["spec"]["csi"]["volumeHandle"] in volumes(cluster.directory)
    cluster.api.delete(f"{PODS}/data?gracePeriodSeconds=0")
    cluster.api.delete(claim)
    cluster.api.until_gone(f"{VOLUMES}/{volume['metadata']['name']}")
    assert volumes(cluster.directory) == set()


def test_a_claim_grows_and_changes_its_attributes(cluster: Cluster) -> None:
    claim = cluster.claim("growing")
    volume = f"{VOLUMES}/{cluster.volume(claim)['metadata']['name']}"
    cluster.api.patch(claim, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    cluster.api.until(volume, lambda found: found["spec"]["capacity"]["storage"] == "2Gi")
    cluster.api.patch(claim, {"spec": {"volumeAttributesClassName": "zero"}})
    cluster.api.until(claim, lambda found: found["status"].get("currentVolumeAttributesClassName") == "zero")
    assert any(path.stat().st_size == 2 * GIB for path in cluster.directory.iterdir())


def test_a_snapshot_becomes_a_volume_and_so_does_a_claim(cluster: Cluster) -> None:
    cluster.volume(cluster.claim("source"))
    snapshots = f"/apis/{SNAPSHOT}/namespaces/default/volumesnapshots"
    source = {"persistentVolumeClaimName": "source"}
    spec = {"volumeSnapshotClassName": CLASS, "source": source}
    kind = {"apiVersion": SNAPSHOT, "kind": "VolumeSnapshot"}
    cluster.api.create(snapshots, {**kind, "metadata": {"name": "monday"}, "spec": spec})
    cluster.api.until(f"{snapshots}/monday", lambda found: found.get("status", {}).get("readyToUse"))
    of_snapshot = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "monday"}
    of_claim = {"kind": "PersistentVolumeClaim", "name": "source"}
    for name, origin in (("restored", of_snapshot), ("cloned", of_claim)):
        cluster.volume(cluster.claim(name, dataSource=origin))


def test_the_claims_of_an_application_are_snapshotted_together(cluster: Cluster) -> None:
    for name in ("left", "right"):
        cluster.volume(cluster.claim(name))
        cluster.api.patch(f"{CLAIMS}/{name}", {"metadata": {"labels": {"app": "pair"}}})
    groups = f"/apis/{GROUP_SNAPSHOT}/namespaces/default/volumegroupsnapshots"
    spec = {"volumeGroupSnapshotClassName": CLASS, "source": {"selector": {"matchLabels": {"app": "pair"}}}}
    kind = {"apiVersion": GROUP_SNAPSHOT, "kind": "VolumeGroupSnapshot"}
    cluster.api.create(groups, {**kind, "metadata": {"name": "both"}, "spec": spec})
    cluster.api.until(f"{groups}/both", lambda found: found.get("status", {}).get("readyToUse"))


def test_the_sidecars_are_there_again_after_the_driver_was_killed(cluster: Cluster) -> None:
    before = cluster.sidecars.process(PROVISIONER).pid
    cluster.driver.process.kill()
    cluster.driver.process.start()
    cluster.volume(cluster.claim("after"))
    assert cluster.sidecars.process(PROVISIONER).pid != before


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_is_bound_after_a_program_of_the_control_plane_was_killed(cluster: Cluster, name: str) -> None:
    cluster.plane.kill(name)
    cluster.plane.start(name)
    cluster.volume(cluster.claim(f"after-{name}"))
