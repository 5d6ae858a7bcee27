"""`ullage controller` and two `ullage node` at a real API server, with their accounts' rights, asked through CSI."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.csi.kubelet import Client, Kubelet, code_of, creation, of_snapshot, of_volume, refusal_of
from tests.rigs.cluster import nodes
from tests.rigs.cluster.api import Api
from tests.rigs.cluster.control_plane import API_SERVER, ControlPlane
from tests.rigs.cluster.disks import disks, volumes
from tests.rigs.cluster.manifests import CONTROLLER_ALONE, install
from tests.rigs.cluster.ours import NAMESPACE, Ours, controller, node_agent
from ullage.errors import GIB, MIB
from ullage.pb.csi.v1 import csi_pb2 as pb

OURS = "/apis/ullage.io/v1alpha1"
ORDERS, REPORTS, CLASSES = f"{OURS}/logicalvolumes", f"{OURS}/nodestorages", f"{OURS}/deviceclasses"
N1, N2 = "n1", "n2"
Code = grpc.StatusCode


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A control plane, two nodes with a class each, and two controllers of which one runs."""

    plane: ControlPlane
    api: Api
    folder: Path
    disks: dict[str, Path]
    agents: dict[str, Ours]
    controller: Ours
    other: Ours

    @property
    def client(self) -> Client:
        return Client(self.controller.csi_endpoint)

    def create(self, name: str, node: str = N1, size_bytes: int = 16 * MIB, **more: Any) -> pb.Volume:  # noqa: ANN401 - what a request may hold
        return self.client.create(name, size_bytes, device_class=f"files-{node}", nodes=(node,), **more)

    def orders(self) -> set[str]:
        return {each["metadata"]["name"] for each in self.api.items(ORDERS)}

    def kept(self, node: str = N1) -> set[str]:
        return volumes(self.disks[node])

    def is_clean(self) -> bool:
        return self.orders() == self.kept(N1) | self.kept(N2)


@pytest.fixture(scope="module", name="cluster")
def cluster_fixture(api_only: ControlPlane, folder: Path) -> Iterator[Cluster]:
    with ExitStack() as ends:
        places = ends.enter_context(disks(folder, (N1, N2)))
        api = api_only.api()
        install(api)
        agents = {}
        for node, place in places.items():
            nodes.add(api, node)
            spec = {"type": "file", "directory": str(place), "nodeSelector": {"kubernetes.io/hostname": node}}
            metadata = {"name": f"files-{node}"}
            thing = {"apiVersion": "ullage.io/v1alpha1", "kind": "DeviceClass", "metadata": metadata, "spec": spec}
            api.create(CLASSES, thing)
            agents[node] = node_agent(folder, node, api_only.kubeconfig_for(NAMESPACE, "ullage-node", node))
        account = api_only.kubeconfig_for(NAMESPACE, CONTROLLER_ALONE)
        controllers = [controller(folder, name, account) for name in ("c1", "c2")]
        for each in (*agents.values(), controllers[0]):
            ends.callback(each.process.kill)
            each.process.start()
        ends.callback(controllers[1].process.kill)
        for node in places:
            api.until(f"{REPORTS}/{node}", lambda each: each.get("status", {}).get("pools"))
        yield Cluster(
            plane=api_only,
            api=api,
            folder=folder,
            disks=places,
            agents=agents,
            controller=controllers[0],
            other=controllers[1],
        )


@pytest.fixture(autouse=True)
def leave_nothing(cluster: Cluster) -> Iterator[None]:
    yield
    client = cluster.client
    for order in cluster.api.items(ORDERS):
        group = order["spec"].get("group")
        if group:
            client.delete_group(group["name"], *[each for each in cluster.orders() if each.startswith("s-")])
    for name in cluster.orders():
        code_of(lambda: client.delete_snapshot(name) if name.startswith("s-") else client.delete(name))  # noqa: B023 - called at once
        cluster.api.until_gone(f"{ORDERS}/{name}")  # whoever looked at its device lets go, and its agent tries again
    assert cluster.orders() == cluster.kept(N1) == cluster.kept(N2) == set()


def test_a_volume_is_made_grown_changed_and_gone(cluster: Cluster) -> None:
    made = cluster.create("pvc-life", N2, mutable={"wipe": "signatures"})
    assert made.accessible_topology[0].segments == {"ullage.io/node": N2}
    assert cluster.kept(N2) == {"pvc-life"}
    assert cluster.client.ids() == ["pvc-life"]
    assert cluster.client.expand("pvc-life", 32 * MIB).capacity_bytes == 32 * MIB
    assert (cluster.disks[N2] / "pvc-life.img").stat().st_size == 32 * MIB
    cluster.client.modify("pvc-life", wipe="none")
    assert cluster.api.get(f"{ORDERS}/pvc-life")["status"]["wipe"] == "none"
    again = cluster.client.create("pvc-life", 16 * MIB, device_class=f"files-{N2}", nodes=(N1,))
    assert again.accessible_topology == made.accessible_topology, "where it is, not where it is wanted now"
    cluster.client.delete("pvc-life")
    cluster.client.delete("pvc-life")
    assert cluster.is_clean()


def test_what_does_not_fit_is_not_ordered_and_what_an_agent_refuses_is_taken_back(cluster: Cluster) -> None:
    code, sentence = refusal_of(lambda: cluster.create("pvc-big", size_bytes=100 * GIB))
    assert code is Code.RESOURCE_EXHAUSTED
    assert "100.0 GiB wanted" in sentence
    assert code_of(lambda: cluster.client.create("pvc-x", MIB, device_class="none")) is Code.INVALID_ARGUMENT
    cluster.create("pvc-small")
    assert code_of(lambda: cluster.client.expand("pvc-small", 100 * GIB)) is Code.OUT_OF_RANGE
    order = cluster.api.get(f"{ORDERS}/pvc-small")
    assert order["spec"]["sizeBytes"] == order["status"]["sizeBytes"] == 16 * MIB
    assert cluster.client.expand("pvc-small", 20 * MIB).capacity_bytes == 20 * MIB
    assert cluster.orders() == {"pvc-small"}


def test_snapshots_copies_and_groups_are_where_their_volumes_are(cluster: Cluster) -> None:
    client = cluster.client
    for name in ("pvc-a", "pvc-b"):
        cluster.create(name)
    taken = client.snapshot("snap", "pvc-a")
    assert client.snapshot("snap", "pvc-a") == taken
    cluster.create("pvc-restored", source=of_snapshot(taken.snapshot_id))
    cluster.create("pvc-clone", source=of_volume("pvc-a"))
    elsewhere = creation("pvc-c", 16 * MIB, device_class=f"files-{N1}", nodes=(N2,), source=of_volume("pvc-a"))
    assert code_of(lambda: client.controller.CreateVolume(elsewhere)) is Code.RESOURCE_EXHAUSTED
    group = client.snapshot_group("both", "pvc-a", "pvc-b")
    members = [each.snapshot_id for each in group.snapshots]
    assert len({each.creation_time.seconds for each in group.snapshots}) == 1
    assert client.get_group(group.group_snapshot_id, *members) == group
    assert code_of(lambda: client.delete_snapshot(members[0])) is Code.INVALID_ARGUMENT
    assert cluster.is_clean()
    client.delete_group(group.group_snapshot_id, *members)
    assert cluster.kept() == {"pvc-a", "pvc-b", "pvc-restored", "pvc-clone", taken.snapshot_id}
    cluster.create("pvc-far", N2)
    assert code_of(lambda: client.snapshot_group("far", "pvc-a", "pvc-far")) is Code.FAILED_PRECONDITION


def test_a_volume_in_use_stays_and_goes_when_it_is_let_go(cluster: Cluster) -> None:
    cluster.create("pvc-used")
    kubelet = Kubelet(cluster.folder / "kubelet", Client(cluster.agents[N1].csi_endpoint))
    kubelet.stage("pvc-used")
    code, sentence = refusal_of(lambda: cluster.client.delete("pvc-used"))
    assert code is Code.FAILED_PRECONDITION, sentence
    assert "mounted" in sentence
    assert cluster.kept() == {"pvc-used"}
    kubelet.unstage("pvc-used")
    cluster.api.until_gone(f"{ORDERS}/pvc-used")


def test_a_killed_controller_finds_what_it_ordered(cluster: Cluster) -> None:
    agent = cluster.agents[N1].process
    agent.signal(signal.SIGSTOP)
    request = creation("pvc-late", 16 * MIB, device_class=f"files-{N1}", nodes=(N1,))
    try:
        waiting = cluster.client.controller
        assert code_of(lambda: waiting.CreateVolume(request, timeout=1.0)) is Code.DEADLINE_EXCEEDED
        assert cluster.orders() == {"pvc-late"}
        cluster.controller.process.kill()
        cluster.controller.process.start()
    finally:
        agent.signal(signal.SIGCONT)
    assert cluster.client.create("pvc-late", 16 * MIB, device_class=f"files-{N1}", nodes=(N2,)).volume_id == "pvc-late"
    assert cluster.kept() == {"pvc-late"}


def test_a_controller_that_is_ended_does_not_wait_for_agents(cluster: Cluster) -> None:
    agent = cluster.agents[N1].process
    agent.signal(signal.SIGSTOP)
    request = creation("pvc-wait", 16 * MIB, device_class=f"files-{N1}", nodes=(N1,))
    client = cluster.client
    try:
        with ThreadPoolExecutor() as threads:
            asked = threads.submit(code_of, lambda: client.controller.CreateVolume(request, timeout=60.0))
            cluster.api.until(f"{ORDERS}/pvc-wait", lambda _: True)
            assert cluster.controller.process.stop() == 0
            assert asked.result(60) in {Code.CANCELLED, Code.UNAVAILABLE}
        cluster.controller.process.start()
    finally:
        agent.signal(signal.SIGCONT)
    cluster.create("pvc-wait")


def test_while_the_api_server_is_gone_it_stays_and_goes_on_afterwards(cluster: Cluster) -> None:
    cluster.create("pvc-before")
    cluster.plane.kill(API_SERVER)
    assert cluster.client.ids() == ["pvc-before"]
    assert cluster.client.is_ready()
    assert code_of(lambda: cluster.create("pvc-during")) is Code.UNAVAILABLE
    cluster.plane.start(API_SERVER)
    cluster.create("pvc-after")
    assert cluster.kept() == {"pvc-before", "pvc-after"}


def test_two_controllers_at_once_make_each_volume_once(cluster: Cluster) -> None:
    cluster.other.process.start()
    clients = [cluster.client, Client(cluster.other.csi_endpoint)]
    together = threading.Barrier(2)

    def create_all(client: Client) -> list[str]:
        together.wait()
        return [
            client.create(f"pvc-{number}", 16 * MIB, device_class=f"files-{N1}", nodes=(N1,)).volume_id
            for number in range(20)
        ]

    with ThreadPoolExecutor() as threads:
        one, two = threads.map(create_all, clients)
    assert one == two
    assert cluster.kept() == cluster.orders() == set(one)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda client: [code_of(lambda: client.delete(each)) for each in one], clients))  # noqa: B023 - called at once
    for each in one:  # another process may have looked at its device just then: its agent tries again
        cluster.api.until_gone(f"{ORDERS}/{each}")
    assert cluster.orders() == cluster.kept() == set()
    assert cluster.other.process.stop() == 0


def test_a_burst_takes_all_the_room_there_is_and_leaves_no_order_behind(cluster: Cluster) -> None:
    """Fifty at once, room for half of them."""
    size_bytes = 5 * GIB // 2

    def create(name: str) -> grpc.StatusCode:
        return code_of(lambda: cluster.create(name, size_bytes=size_bytes))

    names = [f"pvc-{number}" for number in range(50)]
    with ThreadPoolExecutor(50) as threads:
        codes = dict(zip(names, threads.map(create, names), strict=True))
    made = {name for name, code in codes.items() if code is Code.OK}
    assert set(codes.values()) == {Code.OK, Code.RESOURCE_EXHAUSTED}
    assert cluster.orders() == cluster.kept() == made
    assert create("pvc-more") is Code.RESOURCE_EXHAUSTED
    (pool,) = cluster.api.get(f"{REPORTS}/{N1}")["status"]["pools"]
    assert len(made) == pool["totalBytes"] // size_bytes
