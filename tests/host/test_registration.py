"""`ullage node --register` as kubelet meets it: the program itself, while its API server is gone."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from tests.contract.faults import until
from tests.rigs.cluster.keys import made, write_kubeconfig
from tests.rigs.cluster.ours import PROGRAM
from tests.rigs.cluster.process import Process, answers, free_ports
from tests.unit.registration_doubles import Kubelet
from ullage.pb.csi.v1 import csi_pb2, csi_pb2_grpc
from ullage.storage_classes import NODE_KEY


@dataclass(frozen=True)
class Machine:
    """A node whose API server never was."""

    kubelet: Kubelet
    csi_socket: Path
    http: str
    process: Process

    def ready(self) -> tuple[int, str]:
        """What its readiness probe is answered."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=30) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


@pytest.fixture
def machine(root: Path) -> Iterator[Machine]:
    nowhere = f"https://127.0.0.1:{free_ports(1)[0]}"
    kubeconfig = write_kubeconfig(root / "kubeconfig", nowhere, made(root).certificate, "token")
    http = f"127.0.0.1:{free_ports(1)[0]}"
    registry, csi_socket = root / "plugins_registry", root / "plugins" / "csi.sock"
    kubelet = Kubelet(registry / "ullage.io-reg.sock")
    words = ["--node-name", "n1", "--kubeconfig", str(kubeconfig), "--http", http, "--log-format", "json"]
    sockets = ["--csi-endpoint", f"unix://{csi_socket}", "--socket", f"unix://{root}/agent.sock"]
    argv = [*PROGRAM, "node", *words, *sockets, "--register", str(registry)]
    process = Process(argv, root / "node.log", lambda: answers(kubelet.socket))
    machine = Machine(kubelet=kubelet, csi_socket=csi_socket, http=http, process=process)
    process.start()
    yield machine
    process.kill()


def test_what_kubelet_is_told_serves_and_the_node_is_ready_once_kubelet_has_registered_it(machine: Machine) -> None:
    found = machine.kubelet.asked()
    with grpc.insecure_channel(f"unix://{found.endpoint}") as channel:
        node = csi_pb2_grpc.NodeStub(channel).NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=30)
    assert node.node_id == "n1"
    assert node.accessible_topology.segments == {NODE_KEY: "n1"}
    assert machine.ready()[0] == 503
    machine.kubelet.tells(is_registered=True)
    assert machine.ready() == (200, "ok\n")


def test_a_refusal_is_what_the_readiness_probe_is_answered(machine: Machine) -> None:
    machine.kubelet.tells(is_registered=False, error="another driver has the name")
    assert machine.ready() == (503, "RefusedByKubelet: another driver has the name\n")
    assert machine.process.says("kubelet refused the driver")


def test_sigterm_takes_both_sockets_away(machine: Machine) -> None:
    assert machine.process.stop() == 0
    assert not machine.kubelet.socket.exists()
    assert not machine.csi_socket.exists()


def test_after_a_kill_the_next_one_takes_the_dead_sockets_place(machine: Machine) -> None:
    machine.process.kill()
    assert machine.kubelet.socket.exists()
    machine.process.start()
    assert machine.kubelet.asked().name == "ullage.io"


def test_a_process_whose_csi_socket_was_removed_ends_to_be_started_anew(machine: Machine) -> None:
    machine.csi_socket.unlink()
    until(lambda: not machine.process.is_alive())
    assert machine.process.says("the CSI socket was removed")
    assert not machine.kubelet.socket.exists()
    machine.process.start()
    assert machine.kubelet.asked().name == "ullage.io"
