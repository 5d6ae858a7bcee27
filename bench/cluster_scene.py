"""What the benchmarks of the cluster stand on: a real control plane, `ullage controller`, `ullage node`, a provisioner.

The node's volumes are sparse files on an XFS image, so that a carve costs little and what is around it is seen. The
driver that does nothing (`bench.idle_driver`) can be put beside ours, on the same node, with a provisioner of the same
version and flags.
"""

from __future__ import annotations

import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import idle_driver
from bench.counting import AUDIT_POLICY, Write, lasting, total, writes
from bench.lvm_rig import BenchError, Memory, cpu_seconds_of, memory_of
from tests.rigs.cluster import manifests, nodes, ours, sidecars
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.disks import disks
from tests.rigs.cluster.ours import NAMESPACE, Ours
from tests.rigs.cluster.process import Answers, Process, answers, free_ports
from tests.rigs.gotools import programs
from ullage.errors import GIB
from ullage.kube.api import Api
from ullage.kube.connection import connect
from ullage.kube.meta import API_VERSION, DEVICE_CLASSES
from ullage.storage_classes import CLASS_KEY, DRIVER, NODE_KEY

DISK_BYTES = 256 * GIB
"""Of sparse image: a burst of volumes is not to be refused."""
NODES = ("one", "two", "three")
"""Each has a device class of its own, in a directory of its own: all are this machine. Volumes are on the first."""
STORAGE_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
NOW, LATE = "Immediate", "WaitForFirstConsumer"
OURS, IDLE = "ours", "idle"
DRIVERS = {OURS: DRIVER, IDLE: idle_driver.DRIVER}
UNLIMITED, USUAL = 1000, 20
"""Requests a second that kube-controller-manager allows itself: for claims it makes some twelve each. With its usual
limit any two drivers are nearly equally slow."""
ACCOUNTS = frozenset({"ullage-controller", "ullage-node"})
LAZY_SECONDS, REST_TRIES = 32.0, 6
"""Room is told after 30 s at the latest; of many events one a second."""
ASK_SECONDS = 30.0
READY_SECONDS = 120.0


class Scene:
    """The control plane with our objects in it; programs of ours are added. `scene` makes one."""

    def __init__(self, plane: ControlPlane, folder: Path, stack: ExitStack) -> None:
        """What is started ends with the stack."""
        self.plane = plane
        self.folder = folder
        self.rig = plane.api()
        self.kube = Api(connect(plane.kubeconfig))
        self.agents: dict[str, Ours] = {}
        self._audit = folder / "audit.log"
        self._stack = stack

    def install(self, directories: Mapping[str, Path]) -> None:
        """All that an administrator makes, with a device class for each node's directory."""
        manifests.install(self.rig)
        for node, directory in directories.items():
            spec = {"type": "file", "directory": str(directory), "sparse": True, "nodeSelector": {NODE_KEY: node}}
            meta = {"name": device_class(node)}
            made = {"apiVersion": API_VERSION, "kind": DEVICE_CLASSES.kind, "metadata": meta, "spec": spec}
            self.rig.create(DEVICE_CLASSES.path(), made)
        idle = {"metadata": {"name": idle_driver.DRIVER}, "spec": {"attachRequired": False, "storageCapacity": False}}
        self.rig.create("/apis/storage.k8s.io/v1/csidrivers", idle)
        for side, driver in DRIVERS.items():
            parameters = {CLASS_KEY: device_class(NODES[0])} if side == OURS else {}
            for mode in (NOW, LATE):
                name = {"metadata": {"name": storage_class(side, mode)}}
                what = {"provisioner": driver, "volumeBindingMode": mode, "parameters": parameters}
                self.rig.create(STORAGE_CLASSES, {**name, **what})

    def controller(self) -> Ours:
        """Start `ullage controller`."""
        return self._started(self.controller_of())

    def controller_of(self) -> Ours:
        """The same, not started."""
        account = self.plane.kubeconfig_for(NAMESPACE, "ullage-controller")
        return self._ended(ours.controller(self.folder, "controller", account))

    def agent(self, node: str) -> Ours:
        """Start `ullage node` on a node, which is made if it is not there."""
        if self.rig.find(f"{nodes.NODES}/{node}") is None:
            nodes.add(self.rig, node)
        self.agents[node] = self._started(self.agent_of(node))
        return self.agents[node]

    def agent_of(self, node: str) -> Ours:
        """The same, not started; the node is there."""
        account = self.plane.kubeconfig_for(NAMESPACE, "ullage-node", node)
        return self._ended(ours.node_agent(self.folder, node, account))

    def idle_driver(self, node: str) -> Path:
        """Start the driver that does nothing, as registered on the node; its socket."""
        socket = self.folder / "idle.sock"
        argv: list[str | Path] = [sys.executable, "-m", "bench.idle_driver", socket, node]
        self._begin(Process(argv, self.folder / "idle.log", lambda: answers(socket)))
        self.rig.patch(f"{nodes.NODES}/{node}", {"metadata": {"labels": {idle_driver.NODE_KEY: node}}})
        path = f"{nodes.CSI_NODES}/{node}"
        drivers = self.rig.get(path)["spec"]["drivers"]
        more = {"name": idle_driver.DRIVER, "nodeID": node, "topologyKeys": [idle_driver.NODE_KEY]}
        self.rig.patch(path, {"spec": {"drivers": [*drivers, more]}})
        return socket

    def provisioner(self, side: str, socket: Path) -> None:
        """Start external-provisioner for a driver, with the flags of the cluster tests."""
        address = f"127.0.0.1:{free_ports(1)[0]}"
        flags = [
            f"--kubeconfig={self.plane.kubeconfig}",
            f"--http-endpoint={address}",
            f"--csi-address={socket}",
            *sidecars.RATE,
            *sidecars.OF_EACH[sidecars.PROVISIONER],
        ]
        log = self.folder / f"provisioner-{side}.log"
        argv: list[str | Path] = [programs.get(sidecars.PROVISIONER), *flags]
        self._begin(Process(argv, log, Answers(f"http://{address}/metrics")))

    def moment(self) -> int:
        """Now, for `writes`."""
        return self._audit.stat().st_size

    def writes(self, since: int) -> list[Write]:
        """Writes that the API server has answered after this moment."""
        with self._audit.open(encoding="utf-8") as log:
            log.seek(since)
            return writes(log)

    def rest(self) -> None:
        """Wait until what is written lazily, or was held back, has been written; raises BenchError when it goes on."""
        for _ in range(REST_TRIES):
            begun = self.moment()
            time.sleep(LAZY_SECONDS)
            if not any(each.writer in ACCOUNTS for each in lasting(self.writes(begun))):
                return
        raise BenchError("our programs do not cease to write")

    def _started(self, program: Ours) -> Ours:
        program.process.start()
        return program

    def _ended(self, program: Ours) -> Ours:
        """At the end it is, if it was started."""
        self._stack.callback(program.process.kill)
        return program

    def _begin(self, process: Process) -> None:
        self._stack.callback(process.kill)
        process.start()


@contextmanager
def scene(folder: Path, *, only_api: bool = False, requests_per_second: int = UNLIMITED) -> Iterator[Scene]:
    """One with all objects installed and none of our programs; `folder` has a short path and is there.

    `requests_per_second` are those that kube-controller-manager allows itself.
    """
    limits = [f"--kube-api-qps={requests_per_second}", f"--kube-api-burst={requests_per_second * 3 // 2}"]
    policy = folder / "audit-policy.yaml"
    policy.write_text(yaml.safe_dump(dict(AUDIT_POLICY)), encoding="utf-8")
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={folder / 'audit.log'}", "--audit-log-maxsize=100000"]
    with (
        disks(folder, NODES, DISK_BYTES) as directories,
        ControlPlane(folder / "plane", only_api=only_api, api_flags=flags, controller_flags=limits) as plane,
        ExitStack() as stack,
    ):
        made = Scene(plane, folder, stack)
        made.install(directories)
        yield made


def device_class(node: str) -> str:
    """The device class of a node's directory."""
    return f"files-{node}"


def storage_class(side: str, mode: str) -> str:
    """The StorageClass of a driver that binds in this way."""
    return f"{side}-{mode.lower()}"


def claim(name: str, side: str, mode: str, size_bytes: int) -> dict[str, Any]:
    """A PersistentVolumeClaim, to be created."""
    spec = {
        "storageClassName": storage_class(side, mode),
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": str(size_bytes)}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def pod(name: str) -> dict[str, Any]:
    """A Pod for the claim of its name, on the first node. No kubelet runs it; it goes at once when it is deleted."""
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    container = {"name": "main", "image": "none", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    spec = {
        "containers": [container],
        "volumes": [volume],
        "terminationGracePeriodSeconds": 0,
        "nodeSelector": {NODE_KEY: NODES[0]},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


@dataclass(frozen=True, slots=True, kw_only=True)
class Carved:
    """What an agent says that it has done so far."""

    seconds: float
    count: int


def carved(scene: Scene) -> Carved:
    """By the first node's agent, since its start."""
    page = metrics_of(scene.agents[NODES[0]])
    name, what = "ullage_operation_seconds", "CreateVolume"
    return Carved(
        seconds=total(page, f"{name}_sum", operation=what), count=round(total(page, f"{name}_count", operation=what))
    )


def metrics_of(program: Ours) -> str:
    """The page as it is now."""
    with urllib.request.urlopen(f"http://{program.http}/metrics", timeout=ASK_SECONDS) as reply:
        text: str = reply.read().decode()
    return text


def seconds_to_ready(program: Ours) -> float:
    """Start it, and wait until it says that it is ready; raises BenchError."""
    is_ready = Answers(f"http://{program.http}/readyz")
    started = time.monotonic()
    program.process.begin()
    while not is_ready():
        if time.monotonic() - started > READY_SECONDS or not program.process.is_alive():
            raise BenchError(f"{program.process.name} does not become ready:\n{program.process.tail()}")
        time.sleep(0.01)
    return time.monotonic() - started


def memory(program: Ours) -> Memory:
    """What it costs now."""
    return memory_of(program.process.pid)


def peak_bytes(program: Ours) -> int:
    """The most memory that was resident at once, so far."""
    return peak_bytes_of(program.process.pid)


def peak_bytes_of(pid: int) -> int:
    """The same of any process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise BenchError("the kernel does not tell VmHWM")


def cpu_seconds(program: Ours) -> float:
    """What the program has had of the processors so far: unlike time, hardly more on a busy machine."""
    return cpu_seconds_of(program.process.pid)
