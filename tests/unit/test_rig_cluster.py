"""The parts of the cluster rig that are pure, and what it does with a program that will not run: no Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from tests.rigs.cluster import disks, keys, nodes
from tests.rigs.cluster.process import LOCAL_PORTS, Process, answers, free_ports
from tests.rigs.host import RigError
from ullage.storage_classes import DRIVER, NODE_KEY


def test_a_kubeconfig_names_its_server_and_its_user_in_one_context(tmp_path: Path) -> None:
    path = keys.write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1", tmp_path / "ca.crt", "secret")
    content = yaml.safe_load(path.read_text())
    (context,) = content["contexts"]
    assert content["current-context"] == context["name"]
    assert context["context"] == {"cluster": content["clusters"][0]["name"], "user": content["users"][0]["name"]}
    assert content["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    assert content["users"][0]["user"] == {"token": "secret"}


def test_a_node_is_ready_and_says_where_the_driver_s_volumes_are_as_kubelet_would() -> None:
    node = nodes._node("one", "a", {"rack": "r1"}, nodes.ROOM)
    driver = nodes._csi_node("one", "uid")["spec"]["drivers"]
    assert (node["metadata"]["labels"][NODE_KEY], node["metadata"]["labels"]["rack"]) == ("one", "r1")
    assert [(each["type"], each["status"]) for each in node["status"]["conditions"]] == [("Ready", "True")]
    assert driver == [{"name": DRIVER, "nodeID": "one", "topologyKeys": [NODE_KEY]}]


def test_ports_are_none_that_an_outgoing_connection_could_take() -> None:
    first_of_those = int(LOCAL_PORTS.read_text().split()[0])
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert max(ports) < first_of_those


def test_volumes_are_told_from_the_rest_of_a_directory(tmp_path: Path) -> None:
    for name in ("pvc-1.img", "pvc-1.json", "s-2.img", ".ullage.json"):
        (tmp_path / name).touch()
    assert disks.volumes(tmp_path) == {"pvc-1", "s-2"}


def test_nobody_answers_on_a_socket_that_a_dead_program_left(tmp_path: Path) -> None:
    assert not answers(tmp_path / "no.sock")


def test_what_never_ran_cannot_be_stopped_and_may_be_killed(tmp_path: Path) -> None:
    process = Process([sys.executable], tmp_path / "agent.log", is_ready=lambda: True)
    process.kill()
    assert not process.is_alive()
    with pytest.raises(RigError, match="agent does not run"):
        process.stop()
