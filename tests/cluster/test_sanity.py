"""The Kubernetes project's own client of CSI, at a controller and a node that meet in objects only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rigs.cluster import nodes, ours
from tests.rigs.cluster.api import Api
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.disks import disks, volumes
from tests.rigs.cluster.manifests import CONTROLLER_ALONE, install
from tests.rigs.gotools import programs
from tests.rigs.sanity import report
from ullage.errors import GIB, MIB
from ullage.storage_classes import CLASS_KEY

NODE, CLASS = "n1", "files"
OURS = "/apis/ullage.io/v1alpha1"
SECONDS = 400.0


@dataclass(frozen=True, kw_only=True)
class Split:
    """A driver in two processes."""

    api: Api
    folder: Path
    disk: Path
    agent: ours.Ours
    controller: ours.Ours


@pytest.fixture(scope="module", name="split")
def split_fixture(api_only: ControlPlane, folder: Path) -> Iterator[Split]:
    with ExitStack() as ends:
        place = ends.enter_context(disks(folder, [NODE]))[NODE]
        api = api_only.api()
        install(api)
        nodes.add(api, NODE)
        spec = {"type": "file", "directory": str(place)}
        thing = {"apiVersion": "ullage.io/v1alpha1", "kind": "DeviceClass", "metadata": {"name": CLASS}, "spec": spec}
        api.create(f"{OURS}/deviceclasses", thing)
        agent = ours.node_agent(folder, NODE, api_only.kubeconfig_for(ours.NAMESPACE, "ullage-node", node=NODE))
        controller = ours.controller(folder, "c1", api_only.kubeconfig_for(ours.NAMESPACE, CONTROLLER_ALONE))
        for each in (agent, controller):
            ends.callback(each.process.kill)
            each.process.start()
        api.until(f"{OURS}/nodestorages/{NODE}", lambda found: found.get("status", {}).get("pools"))
        yield Split(api=api, folder=folder, disk=place, agent=agent, controller=controller)


def test_csi_sanity_finds_nothing_and_leaves_nothing(split: Split, tmp_path: Path) -> None:
    parameters, mutable = tmp_path / "parameters.yaml", tmp_path / "mutable.yaml"
    parameters.write_text(f"{CLASS_KEY}: {CLASS}\n")
    mutable.write_text("wipe: signatures\n")
    flags = [
        f"--csi.endpoint={split.agent.csi_endpoint}",
        f"--csi.controllerendpoint={split.controller.csi_endpoint}",
        f"--csi.mountdir={split.folder}/target",
        f"--csi.stagingdir={split.folder}/staging",
        f"--csi.testvolumesize={512 * MIB}",
        f"--csi.testvolumeexpandsize={GIB}",
        f"--csi.testvolumeparameters={parameters}",
        f"--csi.testvolumemutableparameters={mutable}",
        "--ginkgo.no-color",
        "--ginkgo.v",
        f"--ginkgo.junit-report={tmp_path}/junit.xml",
    ]
    with (tmp_path / "csi-sanity.log").open("wb") as log:
        done = subprocess.run(
            [programs.get("csi-sanity"), *flags], stdout=log, stderr=log, timeout=SECONDS, check=False
        )
    assert done.returncode == 0, (tmp_path / "csi-sanity.log").read_text(errors="replace")[-4000:]
    assert report.complaints(report.read(tmp_path / "junit.xml")) == []
    assert split.api.items(f"{OURS}/logicalvolumes") == []
    assert volumes(split.disk) == set()
