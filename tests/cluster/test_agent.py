"""`ullage node` at a real API server, with its account's rights: orders come true, through deaths and without it."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.csi.kubelet import Client, Kubelet
from tests.rigs.cluster import nodes
from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.control_plane import API_SERVER, ControlPlane
from tests.rigs.cluster.disks import disks, volumes
from tests.rigs.cluster.manifests import install
from tests.rigs.cluster.ours import NAMESPACE, Ours, node_agent
from ullage.errors import GIB, MIB
from ullage.model import VolumeId
from ullage.names import group_id, member_id, snapshot_id

OURS = "/apis/ullage.io/v1alpha1"
ORDERS, REPORTS, CLASSES = f"{OURS}/logicalvolumes", f"{OURS}/nodestorages", f"{OURS}/deviceclasses"
FINALIZER = "ullage.io/logical-volume"
N1, N2 = "n1", "n2"


@dataclass
class Cluster:
    """A control plane and two nodes, each with a class of its own."""

    plane: ControlPlane
    folder: Path
    api: Api
    agents: dict[str, Ours] = field(default_factory=dict)

    def volumes(self, node: str) -> Path:
        return self.folder / f"volumes-{node}"

    def prepare(self, node: str) -> None:
        nodes.add(self.api, node)
        spec = {
            "type": "file",
            "directory": str(self.volumes(node)),
            "sparse": True,
            "nodeSelector": {"kubernetes.io/hostname": node},
        }
        metadata = {"name": f"files-{node}"}
        self.api.create(
            CLASSES, {"apiVersion": "ullage.io/v1alpha1", "kind": "DeviceClass", "metadata": metadata, "spec": spec}
        )
        kubeconfig = self.plane.kubeconfig_for(NAMESPACE, "ullage-node", node)
        self.agents[node] = node_agent(self.folder, node, kubeconfig)

    def order(self, name: str, node: str = N1, size_bytes: int = 16 * MIB, **more: object) -> None:
        spec = {"nodeName": node, "deviceClass": f"files-{node}", "sizeBytes": size_bytes, "kind": "volume", **more}
        metadata = {"name": name, "finalizers": [FINALIZER]}
        self.api.create(
            ORDERS, {"apiVersion": "ullage.io/v1alpha1", "kind": "LogicalVolume", "metadata": metadata, "spec": spec}
        )

    def ready(self, name: str, holds: Callable[[Json], object] = lambda _: True) -> Json:
        return self.api.until(
            f"{ORDERS}/{name}",
            lambda each: each.get("status", {}).get("phase") == "Ready" and is_answered(each) and holds(each),
        )

    def report(self, holds: Callable[[Json], object], node: str = N1) -> Json:
        return self.api.until(f"{REPORTS}/{node}", lambda each: holds(each.get("status", {})))

    def kubelet(self, node: str = N1) -> Kubelet:
        return Kubelet(self.folder / f"kubelet-{node}", Client(self.agents[node].csi_endpoint))

    def metric(self, name: str, node: str = N1) -> float:
        with urllib.request.urlopen(f"http://{self.agents[node].http}/metrics") as answer:
            text = answer.read().decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"{name} is not there"
        return float(found[1])


def is_answered(thing: Json) -> bool:
    return bool(thing["status"].get("observedGeneration") == thing["metadata"]["generation"])


def free_bytes(status: Json) -> int:
    return int(status["pools"][0]["freeBytes"]) if status.get("pools") else 0


@pytest.fixture(scope="module")
def cluster(api_only: ControlPlane, folder: Path) -> Iterator[Cluster]:
    api = api_only.api()
    install(api)
    found = Cluster(api_only, folder, api)
    with disks(folder, [f"volumes-{node}" for node in (N1, N2)], GIB):
        try:
            for node in (N1, N2):
                found.prepare(node)
                found.agents[node].process.start()
            yield found
        finally:
            for agent in found.agents.values():
                if agent.process.is_alive():
                    agent.process.stop()


def test_an_order_is_carved_counted_grown_and_gone(cluster: Cluster) -> None:
    before = cluster.report(free_bytes)["status"]
    assert [each["name"] for each in before["pools"]] == [str(cluster.volumes(N1))]
    cluster.order("pvc-life")
    made = cluster.ready("pvc-life")
    assert (cluster.volumes(N1) / "pvc-life.img").stat().st_size == 16 * MIB
    counted = cluster.report(lambda status: status["revision"] >= made["status"]["revision"])["status"]
    assert free_bytes(counted) <= free_bytes(before) - 16 * MIB

    cluster.api.patch(f"{ORDERS}/pvc-life", {"spec": {"sizeBytes": 32 * MIB}})
    grown = cluster.ready("pvc-life", lambda each: each["status"]["sizeBytes"] == 32 * MIB)
    assert grown["status"]["revision"] > made["status"]["revision"]
    assert all(each["status"] == "True" for each in grown["status"]["conditions"] if each["type"] != "Degraded")

    cluster.api.delete(f"{ORDERS}/pvc-life")
    cluster.api.until_gone(f"{ORDERS}/pvc-life")
    assert not (cluster.volumes(N1) / "pvc-life.img").exists()


def test_the_report_belongs_to_its_node(cluster: Cluster) -> None:
    report = cluster.report(free_bytes)
    (owner,) = report["metadata"]["ownerReferences"]
    assert owner["uid"] == cluster.api.get(f"/api/v1/nodes/{N1}")["metadata"]["uid"]


def test_people_are_told_of_what_was_carved(cluster: Cluster) -> None:
    cluster.order("pvc-news")
    cluster.ready("pvc-news")
    path = "/apis/events.k8s.io/v1/namespaces/default/events"
    about = "regarding.name=pvc-news"
    cluster.api.until(f"{path}?fieldSelector={about}", lambda found: len(found["items"]) == 1)
    (event,) = cluster.api.items(f"{path}?fieldSelector={about}")
    assert event["reason"] == "Carved"
    assert str(16 * MIB) in event["note"]


def test_an_agent_hears_of_its_own_nodes_objects_only(cluster: Cluster) -> None:
    before = cluster.metric('ullage_objects{phase="Ready"}')
    cluster.order("pvc-elsewhere", N2)
    cluster.ready("pvc-elsewhere")
    cluster.order("pvc-here", N1)
    cluster.ready("pvc-here")
    assert cluster.metric('ullage_objects{phase="Ready"}') == before + 1
    assert "pvc-elsewhere" not in (cluster.folder / f"{N1}.log").read_text()


def test_what_was_ordered_while_the_agent_was_dead_is_done_after(cluster: Cluster) -> None:
    agent = cluster.agents[N1].process
    agent.kill()
    for number in range(5):
        cluster.order(f"pvc-late-{number}")
    agent.start()
    for number in range(5):
        cluster.ready(f"pvc-late-{number}")


def test_deaths_amid_orders_leave_one_volume_for_each(cluster: Cluster) -> None:
    agent = cluster.agents[N1].process
    names = [f"pvc-dead-{number}" for number in range(20)]
    for number, name in enumerate(names):
        cluster.order(name)
        if number % 7 == 3:
            agent.kill()
            agent.start()
    for name in names:
        cluster.ready(name)
    kept = {each["metadata"]["name"] for each in cluster.api.items(ORDERS) if each["spec"]["nodeName"] == N1}
    assert volumes(cluster.volumes(N1)) == kept
    for name in names[::2]:
        cluster.api.delete(f"{ORDERS}/{name}")
    agent.kill()
    agent.start()
    for name in names[::2]:
        cluster.api.until_gone(f"{ORDERS}/{name}")
    assert volumes(cluster.volumes(N1)) == kept - set(names[::2])


def test_a_volume_that_somebody_removed_is_missed_and_not_made_again(cluster: Cluster) -> None:
    cluster.order("pvc-lost")
    cluster.ready("pvc-lost")
    agent = cluster.agents[N1].process
    agent.stop()
    for path in cluster.volumes(N1).glob("pvc-lost.*"):
        path.unlink()
    agent.start()
    cluster.api.until(
        f"{ORDERS}/pvc-lost",
        lambda each: any(
            (found["type"], found["reason"]) == ("Ready", "VolumeMissing") for found in each["status"]["conditions"]
        ),
    )
    assert not (cluster.volumes(N1) / "pvc-lost.img").exists()
    assert cluster.metric('ullage_object_problems{reason="VolumeMissing"}') == 1
    cluster.api.delete(f"{ORDERS}/pvc-lost")
    cluster.api.until_gone(f"{ORDERS}/pvc-lost")


def test_without_the_api_server_kubelet_is_served_and_what_was_ordered_is_done_after(cluster: Cluster) -> None:
    cluster.order("pvc-busy")
    cluster.ready("pvc-busy")
    cluster.plane.kill(API_SERVER)
    try:
        kubelet = cluster.kubelet()
        kubelet.stage("pvc-busy")
        place = kubelet.publish("pvc-busy", "pod-1")
        (place / "written").write_text("while nobody could be asked")
        assert kubelet.stats("pvc-busy", place)
        # An agent that starts now serves what it served before.
        cluster.agents[N1].process.kill()
        cluster.agents[N1].process.start()
        kubelet = cluster.kubelet()
        assert kubelet.publish("pvc-busy", "pod-2").joinpath("written").exists()
        for pod in ("pod-1", "pod-2"):
            kubelet.unpublish("pvc-busy", pod)
        kubelet.unstage("pvc-busy")
    finally:
        cluster.plane.start(API_SERVER)
    cluster.order("pvc-after")
    cluster.ready("pvc-after")
    cluster.api.patch(f"{ORDERS}/pvc-busy", {"spec": {"sizeBytes": 48 * MIB}})
    cluster.ready("pvc-busy", lambda each: each["status"]["sizeBytes"] == 48 * MIB)


def test_snapshots_and_copies_come_and_go(cluster: Cluster) -> None:
    cluster.order("pvc-source")
    cluster.ready("pvc-source")
    taken = snapshot_id("nightly")
    cluster.order(taken, kind="snapshot", source={"volume": "pvc-source"})
    snapshot = cluster.ready(taken)["status"]
    assert (snapshot["sizeBytes"], snapshot["takenAt"] > 0) == (16 * MIB, True)
    cluster.order("pvc-copy", source={"snapshot": taken}, size_bytes=32 * MIB)
    assert cluster.ready("pvc-copy")["status"]["sizeBytes"] == 32 * MIB
    for name in (taken, "pvc-source", "pvc-copy"):
        cluster.api.delete(f"{ORDERS}/{name}")
    for name in (taken, "pvc-source", "pvc-copy"):
        cluster.api.until_gone(f"{ORDERS}/{name}")
    assert not volumes(cluster.volumes(N1)) & {taken, "pvc-source", "pvc-copy"}


def test_a_group_is_taken_whole_also_by_an_agent_that_dies(cluster: Cluster) -> None:
    sources = [VolumeId(f"pvc-group-{number}") for number in range(3)]
    for source in sources:
        cluster.order(source)
        cluster.ready(source)
    group = group_id("consistent")
    members = [member_id(group, source) for source in sources]
    agent = cluster.agents[N1].process
    for member, source in zip(members, sources, strict=True):
        cluster.order(
            member, kind="snapshot", source={"volume": source}, group={"name": group, "sources": list(sources)}
        )
    agent.kill()
    agent.start()
    moments = {cluster.ready(member)["status"]["takenAt"] for member in members}
    assert len(moments) == 1
    for name in members:
        cluster.api.delete(f"{ORDERS}/{name}")
    for name in members:
        cluster.api.until_gone(f"{ORDERS}/{name}")
    assert not volumes(cluster.volumes(N1)) & set(members)


def test_what_cannot_be_had_fails_with_its_numbers_and_goes(cluster: Cluster) -> None:
    cluster.order("pvc-huge", size_bytes=1 << 50)
    failed = cluster.api.until(f"{ORDERS}/pvc-huge", lambda each: each.get("status", {}).get("phase") == "Failed")
    (ready,) = [each for each in failed["status"]["conditions"] if each["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "InsufficientCapacity")
    assert "1024.0 TiB" in ready["message"] or "PiB" in ready["message"]
    cluster.api.delete(f"{ORDERS}/pvc-huge")
    cluster.api.until_gone(f"{ORDERS}/pvc-huge")


def test_a_class_that_comes_and_goes_needs_no_restart(cluster: Cluster) -> None:
    place = cluster.folder / "more"
    place.mkdir()
    spec = {"type": "file", "directory": str(place), "sparse": True, "nodeSelector": {"kubernetes.io/hostname": N1}}
    cluster.api.create(
        CLASSES,
        {"apiVersion": "ullage.io/v1alpha1", "kind": "DeviceClass", "metadata": {"name": "more"}, "spec": spec},
    )
    cluster.report(lambda status: str(place) in [each["name"] for each in status.get("pools", ())])
    cluster.api.delete(f"{CLASSES}/more")
    cluster.report(lambda status: str(place) not in [each["name"] for each in status.get("pools", ())])


def test_a_condemned_volume_in_use_stays_until_it_is_not(cluster: Cluster) -> None:
    cluster.order("pvc-held")
    cluster.ready("pvc-held")
    kubelet = cluster.kubelet()
    kubelet.stage("pvc-held")
    cluster.api.delete(f"{ORDERS}/pvc-held")
    told = cluster.api.until(
        f"{ORDERS}/pvc-held",
        lambda each: any(
            (found["type"], found["reason"]) == ("Ready", "VolumeInUse") for found in each["status"]["conditions"]
        ),
    )
    assert told["metadata"]["finalizers"] == [FINALIZER]
    kubelet.unstage("pvc-held")
    cluster.api.until_gone(f"{ORDERS}/pvc-held")
