"""The controller's loops at a real API server, with its account's rights: capacity, lost nodes, and a lost etcd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.csi.kubelet import Client, Kubelet
from tests.rigs.cluster import nodes
from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.disks import disks, volumes
from tests.rigs.cluster.manifests import CONTROLLER_ALONE, install
from tests.rigs.cluster.ours import NAMESPACE, PROGRAM, Ours, controller, node_agent
from ullage.errors import GIB, MIB
from ullage.quantity import parse_bytes

OURS = "/apis/ullage.io/v1alpha1"
ORDERS, REPORTS, CLASSES = f"{OURS}/logicalvolumes", f"{OURS}/nodestorages", f"{OURS}/deviceclasses"
STORAGE_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
CAPACITIES = f"/apis/storage.k8s.io/v1/namespaces/{NAMESPACE}/csistoragecapacities"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
PERSISTENT_VOLUMES = "/api/v1/persistentvolumes"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
FINALIZER = "ullage.io/logical-volume"
N1, N2, N3 = "n1", "n2", "n3"
DELAY_SECONDS = 8


@dataclass
class Cluster:
    """A control plane, a controller, and nodes with a class of its own each."""

    plane: ControlPlane
    folder: Path
    api: Api
    directories: dict[str, Path]
    agents: dict[str, Ours] = field(default_factory=dict)

    def add(self, node: str) -> None:
        nodes.add(self.api, node)
        selector = {"kubernetes.io/hostname": node}
        spec = {"type": "file", "directory": str(self.directories[node]), "nodeSelector": selector}
        self.api.create(CLASSES, _ours("DeviceClass", f"files-{node}", spec))
        self.api.create(STORAGE_CLASSES, _storage_class(node))
        self.start(node)

    def start(self, node: str) -> None:
        """With a token of its own: that of an earlier Node of this name died with it."""
        kubeconfig = self.plane.kubeconfig_for(NAMESPACE, "ullage-node", node)
        self.agents[node] = node_agent(self.folder, node, kubeconfig)
        self.agents[node].process.start()

    def order(self, name: str, node: str, size_bytes: int = 64 * MIB, claim: str = "") -> None:
        spec = {"nodeName": node, "deviceClass": f"files-{node}", "sizeBytes": size_bytes, "kind": "volume"}
        of_claim = {"claimRef": {"namespace": "default", "name": claim}, "persistentVolume": name} if claim else {}
        self.api.create(ORDERS, _ours("LogicalVolume", name, {**spec, **of_claim}, finalizers=[FINALIZER]))
        self.ready(name)

    def ready(self, name: str) -> Json:
        return self.api.until(f"{ORDERS}/{name}", lambda each: each.get("status", {}).get("phase") == "Ready")

    def lose_object(self, name: str) -> None:
        """As etcd would: its agent never hears of a deletion."""
        self.api.patch(f"{ORDERS}/{name}", {"metadata": {"finalizers": None}})
        self.api.delete(f"{ORDERS}/{name}")

    def claim(self, name: str, volume: str, storage_class: str, annotations: dict[str, str] | None = None) -> Json:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": str(64 * MIB)}},
            **({"volumeName": volume} if volume else {}),
        }
        metadata = {"name": name, "annotations": annotations or {}}
        thing = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        return self.api.create(CLAIMS, thing)

    def bound(self, claim: str) -> Json:
        return self.api.until(f"{CLAIMS}/{claim}", lambda each: each["status"].get("phase") == "Bound")

    def told(self, about: str, reason: str) -> None:
        """An event of this reason on the object of this name, in the namespace of what has none."""
        self.api.until(
            f"{EVENTS}?fieldSelector=regarding.name={about}",
            lambda found: any(each["reason"] == reason for each in found["items"]),
        )

    def capacity(self, node: str, holds: Callable[[int], object] = lambda _: True) -> int:
        """What the scheduler is told, once it is so."""

        def said(found: Json) -> int | None:
            sizes = [each for each in found["items"] if each["storageClassName"] == f"files-{node}"]
            return parse_bytes(sizes[0]["capacity"]) if len(sizes) == 1 else None

        found = self.api.until(CAPACITIES, lambda found: (size := said(found)) is not None and holds(size))
        size = said(found)
        assert size is not None
        return size

    def ullage(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, as an administrator gives it."""
        argv = [*PROGRAM, *words, "--kubeconfig", str(self.plane.kubeconfig)]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    def kubelet(self, node: str) -> Kubelet:
        return Kubelet(self.folder / f"kubelet-{node}", Client(self.agents[node].csi_endpoint))


def _ours(kind: str, name: str, spec: Json, **meta: object) -> Json:
    return {"apiVersion": "ullage.io/v1alpha1", "kind": kind, "metadata": {"name": name, **meta}, "spec": spec}


def _storage_class(node: str) -> Json:
    return {
        "metadata": {"name": f"files-{node}"},
        "provisioner": "ullage.io",
        "parameters": {"ullage.io/device-class": f"files-{node}"},
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Retain",
    }


def _persistent_volume(name: str, node: str) -> Json:
    term = {"matchExpressions": [{"key": "ullage.io/node", "operator": "In", "values": [node]}]}
    spec = {
        "capacity": {"storage": str(64 * MIB)},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": f"files-{node}",
        "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "ullage.io", "volumeHandle": name},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def cluster(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with (
        disks(folder, [N1, N2, N3], 2 * GIB) as directories,
        ControlPlane(tmp_path_factory.mktemp("plane")) as plane,
    ):
        api = plane.api()
        install(api)
        found = Cluster(plane, folder, api, directories)
        options = ["--node-loss-delay", str(DELAY_SECONDS), "--orphan-scan", "1"]
        ours = controller(folder, "controller", plane.kubeconfig_for(NAMESPACE, CONTROLLER_ALONE), options)
        try:
            ours.process.start()
            for node in (N1, N2, N3):
                found.add(node)
            yield found
        finally:
            for each in (ours, *found.agents.values()):
                if each.process.is_alive():
                    each.process.stop()


def test_the_scheduler_is_told_of_room_and_of_what_becomes_of_it(cluster: Cluster) -> None:
    before = cluster.capacity(N1, lambda size: size > 0)
    report = cluster.api.until(f"{REPORTS}/{N1}", lambda each: each["status"].get("pools"))
    assert before == report["status"]["pools"][0]["freeBytes"]
    cluster.order("pvc-room", N1, 512 * MIB)
    cluster.capacity(N1, lambda size: size <= before - 512 * MIB)
    cluster.api.delete(f"{ORDERS}/pvc-room")
    cluster.capacity(N1, lambda size: size > before - 512 * MIB)


def test_capacity_is_that_of_nodes_and_classes_that_are_there(cluster: Cluster) -> None:
    cluster.capacity(N1)
    cluster.capacity(N2)
    owners = {each["metadata"]["ownerReferences"][0]["kind"] for each in cluster.api.items(CAPACITIES)}
    assert owners == {"NodeStorage"}
    cluster.api.delete(f"{STORAGE_CLASSES}/files-{N1}")
    cluster.api.until(
        CAPACITIES, lambda found: f"files-{N1}" not in {each["storageClassName"] for each in found["items"]}
    )
    cluster.api.create(STORAGE_CLASSES, _storage_class(N1))
    cluster.capacity(N1)


def test_what_etcd_has_lost_is_made_anew_with_its_content(cluster: Cluster) -> None:
    names = ("pvc-data", "pvc-blank")
    for name in names:
        cluster.order(name, N1, claim=f"of-{name}")
    kubelet = cluster.kubelet(N1)
    kubelet.stage("pvc-data")
    kubelet.publish("pvc-data", "pod-1").joinpath("written").write_text("before etcd was lost")
    kubelet.unpublish("pvc-data", "pod-1")
    kubelet.unstage("pvc-data")

    agent = cluster.agents[N1].process
    agent.kill()
    for name in names:
        cluster.lose_object(name)
    agent.start()
    strays = cluster.api.until(
        f"{REPORTS}/{N1}",
        lambda each: (
            [found.get("content") for found in each["status"].get("orphans", ()) if found["name"] == "pvc-data"]
            == ["ext4"]
        ),
        150,
    )["status"]["orphans"]
    assert {each["name"] for each in strays} == set(names)
    cluster.told(N1, "Orphan")
    listed = cluster.ullage("orphans", "-o", "json")
    assert listed.returncode == 1, listed.stderr
    kinds = {each["name"]: each["kind"] for each in json.loads(listed.stdout)["items"]}
    assert kinds == dict.fromkeys(names, "volume_without_object")

    tried = cluster.ullage("recover")
    assert (tried.returncode, "pvc-blank=Block" in tried.stderr) == (1, True), tried.stderr
    assert cluster.api.find(f"{ORDERS}/pvc-data") is None
    done = cluster.ullage("recover", "--volume-mode", "pvc-blank=Block", "--yes")
    assert done.returncode == 0, done.stderr
    for name in names:
        assert cluster.ready(name)["status"]["sizeBytes"] == 64 * MIB
    again = cluster.ullage("recover")
    assert (again.returncode, again.stdout.count("\n")) == (0, 1), "nothing is left to be made"

    cluster.claim("of-pvc-data", "", f"files-{N1}")
    assert cluster.bound("of-pvc-data")["spec"]["volumeName"] == "pvc-data"
    source = cluster.api.get(f"{PERSISTENT_VOLUMES}/pvc-data")["spec"]["csi"]
    assert (source["volumeHandle"], source["fsType"]) == ("pvc-data", "ext4")
    kubelet = cluster.kubelet(N1)
    kubelet.stage("pvc-data")
    place = kubelet.publish("pvc-data", "pod-2")
    assert place.joinpath("written").read_text() == "before etcd was lost"
    kubelet.unpublish("pvc-data", "pod-2")
    kubelet.unstage("pvc-data")


def test_for_an_object_that_is_made_anew_from_an_old_report_nothing_is_carved(cluster: Cluster) -> None:
    spec = {"nodeName": N1, "deviceClass": f"files-{N1}", "sizeBytes": 64 * MIB, "kind": "volume"}
    meta = {"finalizers": [FINALIZER], "annotations": {"ullage.io/recovered": "ext4"}}
    cluster.api.create(ORDERS, _ours("LogicalVolume", "pvc-never", spec, **meta))
    cluster.api.until(f"{ORDERS}/pvc-never", lambda each: each.get("status", {}).get("phase") == "Failed")
    assert "pvc-never" not in volumes(cluster.directories[N1])
    cluster.api.delete(f"{ORDERS}/pvc-never")
    cluster.api.until_gone(f"{ORDERS}/pvc-never")


def test_an_acknowledged_orphan_is_no_more_spoken_of(cluster: Cluster) -> None:
    cluster.api.create(PERSISTENT_VOLUMES, _persistent_volume("pv-half", N1))
    assert "pv-half" in cluster.ullage("orphans").stdout
    assert "pv-half" not in cluster.ullage("orphans", "--acknowledge", "pv-half").stdout
    assert "pv-half" in cluster.ullage("orphans", "--all").stdout
    cluster.api.delete(f"{PERSISTENT_VOLUMES}/pv-half")


def test_the_volumes_of_a_lost_node_are_given_up_and_stay_on_its_disks(cluster: Cluster) -> None:
    for name, wish in (("pvc-lost", {"ullage.io/on-node-loss": "delete-claim"}), ("pvc-kept", {})):
        cluster.order(name, N2, claim=f"of-{name}")
        cluster.api.create(PERSISTENT_VOLUMES, _persistent_volume(name, N2))
        cluster.claim(f"of-{name}", name, f"files-{N2}", wish)
        cluster.bound(f"of-{name}")

    nodes.set_ready(cluster.api, N2, is_ready=False)
    cluster.agents[N2].process.kill()
    nodes.remove(cluster.api, N2)
    cluster.told(N2, "NodeGone")
    assert cluster.ready("pvc-lost"), "not before the delay is over"
    for name in ("pvc-lost", "pvc-kept"):
        cluster.api.until_gone(f"{ORDERS}/{name}")
    cluster.api.until_gone(f"{CLAIMS}/of-pvc-lost")
    assert cluster.bound("of-pvc-kept")
    cluster.told("pvc-lost", "NodeLost")
    cluster.told("of-pvc-lost", "NodeLost")
    assert volumes(cluster.directories[N2]) == {"pvc-lost", "pvc-kept"}
    cluster.api.until(
        CAPACITIES, lambda found: f"files-{N2}" not in {each["storageClassName"] for each in found["items"]}
    )


def test_a_node_that_comes_back_in_time_keeps_its_volumes(cluster: Cluster) -> None:
    cluster.order("pvc-stays", N3)
    cluster.agents[N3].process.kill()
    nodes.remove(cluster.api, N3)
    cluster.told(N3, "NodeGone")
    nodes.add(cluster.api, N3)
    cluster.told(N3, "NodeBack")
    cluster.start(N3)
    assert cluster.ready("pvc-stays")
