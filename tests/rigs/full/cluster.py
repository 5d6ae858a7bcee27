"""A whole Kubernetes cluster: the control plane as processes of this machine, nodes as virtual machines with kubelets.

  with started(folder, Shape(nodes=2)) as cluster:
      cluster.kubectl("get", "nodes")
      cluster.nodes["n1"].kill()
      cluster.nodes["n1"].boot()

Who starts one leaves the machine's network for the cluster's own (network.py). The same cluster can be used by another
process, which `attached` to its folder: it may do what the first may do, except with the control plane's processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.rigs.cluster import control_plane, scheduler
from tests.rigs.cluster.api import Api
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import SNAPSHOT_CLIENT
from tests.rigs.cluster.kubelets import Kubelets
from tests.rigs.full import driver, images, network, pids, settings, state
from tests.rigs.full.node import NODES, Hardware, Node
from tests.rigs.gotools import programs
from tests.rigs.host import RigError
from tests.rigs.vm import kernel

KUBECTL_SECONDS = 300.0
NODE_PROGRAMS = ("kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2")
TOOLS = ("kubectl", "helm")
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
SHAPE, PID = "shape.json", "pid"
"""In the cluster's folder: what it was made by, and the process whose network it is in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many nodes, and of what kind."""

    nodes: int = 2
    hardware: Hardware = field(default_factory=Hardware)

    def names(self) -> list[str]:
        return [f"n{number}" for number in range(1, self.nodes + 1)]


class Cluster:
    """One that runs."""

    def __init__(self, folder: Path, shape: Shape, plane: ControlPlane | None) -> None:
        """`plane`: of whoever started it."""
        self.folder = folder
        self.kubeconfig = folder / "plane" / "admin.kubeconfig"
        self.api = _api(self.kubeconfig)
        self._plane = plane
        self.nodes = {
            name: Node(
                folder / name, _identity(name, number, shape), shape.hardware, self.api, outlives_us=plane is None
            )
            for number, name in enumerate(shape.names())
        }

    @property
    def plane(self) -> ControlPlane:
        """The control plane's processes; raises RigError where another process has started them."""
        if self._plane is None:
            raise RigError("the control plane belongs to the process that has started the cluster")
        return self._plane

    def install(self, values: Mapping[str, Any] = {}) -> None:
        """Install our driver by its chart, or upgrade it; `values` are added to the rig's. Raises RigError."""
        driver.install(self.api, self.kubeconfig, values)

    def kubectl(self, *words: str, text: str = "", timeout_seconds: float = KUBECTL_SECONDS) -> str:
        """What kubectl prints, with `text` as its input; raises RigError with what it complains of."""
        argv = (str(programs.get("kubectl")), "--kubeconfig", str(self.kubeconfig), *words)
        try:
            done = subprocess.run(
                argv, check=False, input=text, capture_output=True, text=True, timeout=timeout_seconds
            )
        except subprocess.TimeoutExpired as failure:
            raise RigError(str(failure)) from failure
        if done.returncode != 0:
            raise RigError(f"kubectl {' '.join(words)} ended with {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout


@contextmanager
def started(folder: Path, shape: Shape) -> Iterator[Cluster]:
    """A new one; when the context ends nothing of it is left but logs. Raises RigError."""
    began = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    names = shape.names()
    disk = _made()
    pids.write(folder / PID, os.getpid())
    (folder / SHAPE).write_text(json.dumps(dataclasses.asdict(shape)), encoding="ascii")
    network.lay(names)
    with ControlPlane(folder / "plane", nodes=Kubelets(address=network.HOST, nodes=names)) as plane:
        extender = f"{network.address_of(0)}:{driver.EXTENDER_PORT}"
        plane.configure_scheduler(scheduler.shipped(scheduler.EVERY_POD, extender))
        _say(f"the control plane is there after {time.monotonic() - began:.0f} s")
        cluster = Cluster(folder, shape, plane)
        try:
            for number, (name, node) in enumerate(cluster.nodes.items()):
                settings.write(node.boot_folder, _identity(name, number, shape), plane)
                node.make()
                state.overlay(disk, node.state_disk)
                node.boot(waits=False)
            _say(f"{len(names)} nodes are on after {time.monotonic() - began:.0f} s")
            with ThreadPoolExecutor() as together:
                list(together.map(Node.wait_until_ready, cluster.nodes.values()))
            # kubelet may not say this of itself: on such nodes the chart puts the extender.
            cluster.api.patch(f"{NODES}/{names[0]}", {"metadata": {"labels": {CONTROL_PLANE: ""}}})
            _say(f"they are ready after {time.monotonic() - began:.0f} s")
            yield cluster
        finally:
            for node in cluster.nodes.values():
                node.kill()
                for disk in [*node.folder.glob("*.img"), node.state_disk]:
                    disk.unlink(missing_ok=True)


def attached(folder: Path) -> Cluster:
    """One that another process has started, whose network this one enters; raises RigError."""
    pid = pids.living(folder / PID)
    if pid is None:
        raise RigError(f"no cluster runs in {folder}")
    words = json.loads((folder / SHAPE).read_text(encoding="ascii"))
    network.enter(pid)
    return Cluster(folder, Shape(**{**words, "hardware": Hardware(**words["hardware"])}), None)


def _made() -> Path:
    """The state disk, once all is there that can only be had outside the cluster's network; raises RigError."""
    kernel.get()
    for name in (*control_plane.NAMES, *NODE_PROGRAMS, *TOOLS):
        programs.get(name)
    programs.source("snapshotter", SNAPSHOT_CLIENT)
    return state.get(images.archives(), changing=images.OURS)


def _identity(name: str, number: int, shape: Shape) -> settings.Identity:
    letters = "abcdefghijklmnopqrstuvw"[: shape.hardware.disks]
    return settings.Identity(
        name=name, number=number, pause=images.PAUSE, disks=[f"/dev/vd{letter}" for letter in letters]
    )


def _api(kubeconfig: Path) -> Api:
    content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    server = content["clusters"][0]["cluster"]
    return Api(server["server"], Path(server["certificate-authority"]), content["users"][0]["user"]["token"])


def _say(sentence: str) -> None:
    sys.stderr.write(f"full: {sentence}\n")
    sys.stderr.flush()
