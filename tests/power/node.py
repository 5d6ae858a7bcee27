"""A node whose power can be cut: a VM that runs `ullage node`, on disks that outlive it and lose what was not flushed.

What the host knows of it: `acknowledged`, the last record of each writer that was durable before the host was told.
Whatever else was in the VM, memory and /run above all, is gone with the power.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from tests.csi.kubelet import Client, block, mounted
from tests.rigs.cluster.process import free_ports
from tests.rigs.host import RigError
from tests.rigs.vm import machine
from tests.rigs.vm.volatile import VolatileDisk
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc

DISK_BYTES = 8 << 30
DISKS = ("a", "b")
PORT, CSI_PORT = 7000, 7001
"""Of `inside` in the guest."""
HOST = "10.0.2.2"
"""The host's loopback, as the guest reaches it."""
ASK_SECONDS = 300.0
BOOT_SECONDS = 240.0
LIFE_SECONDS = 7200.0
KUBELET = "/var/lib/kubelet"
GROUP, POOL = "nvme", "thin"
DEVICES = ("/dev/vda", "/dev/vdb")


class OffError(Exception):
    """The node does not answer: its power was cut."""


class AnswerError(Exception):
    """What was asked for has failed in the node, which says why."""


class PowerNode:
    """One node; no VM runs before `boot`. Its logs are in the folder."""

    def __init__(self, name: str, folder: Path, logs: Path) -> None:
        """`folder` has a short path, for sockets."""
        self.name = name
        self.logs = logs
        self.acknowledged: dict[str, int] = {}
        """By run."""
        self.lives = 0
        self._disks = [VolatileDisk(folder / f"disk-{each}", DISK_BYTES) for each in DISKS]
        self._ends = ExitStack()
        self._plug = machine.Plug()
        self._vm: threading.Thread | None = None
        self._said = ""
        self._cluster: dict[str, Any] = {}
        self._port, self._csi_port = free_ports(2)
        self._client: Client | None = None
        self._door = socket.create_server(("127.0.0.1", 0))
        self._listener: threading.Thread | None = None

    def __enter__(self) -> Self:
        """The disks are there."""
        for disk in self._disks:
            self._ends.enter_context(disk)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pull()
        self._ends.close()
        self._door.close()

    @property
    def is_on(self) -> bool:
        return self._vm is not None and self._vm.is_alive()

    def boot(self) -> None:
        """Until `inside` answers; raises RigError, with what the machine has said."""
        self.lives += 1
        self._plug, self._said = machine.Plug(), ""
        self._vm = threading.Thread(target=self._run, args=(self._plug,), name=f"vm-{self.name}", daemon=True)
        self._vm.start()
        self._listener = threading.Thread(target=self._hear, args=(self._vm,), name="acknowledgements", daemon=True)
        self._listener.start()
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self.ask("ping", seconds=5.0)
            except OffError:
                if not self._vm.is_alive() or time.monotonic() > deadline:
                    raise RigError(f"{self.name} does not come up: {self._said}") from None
                time.sleep(0.2)
            else:
                return

    def cut(self, dice: random.Random, *, is_in_order: bool) -> str:
        """Cut the power: what was lost of what the disks had not made safe."""
        self._pull()
        losses = [disk.cut(dice, is_in_order=is_in_order) for disk in self._disks]
        return ", ".join(f"{lost} of {unsafe}" for lost, unsafe in losses)

    def ask(self, what: str, *, seconds: float = ASK_SECONDS, **facts: object) -> Any:  # noqa: ANN401 - JSON
        """One request to `inside`; raises OffError, AnswerError."""
        request = json.dumps({"do": what, **facts}).encode() + b"\n"
        try:
            with socket.create_connection(("127.0.0.1", self._port), seconds) as connection:
                connection.settimeout(seconds)
                connection.sendall(request)
                with connection.makefile("rb") as stream:
                    said = stream.readline()
        except OSError as failure:
            raise OffError(f"{what}: {failure}") from failure
        if not said:
            raise OffError(what)
        answer: Mapping[str, Any] = json.loads(said)
        if "error" in answer:
            raise AnswerError(f"{what} {facts}: {answer['error']}")
        return answer["is"]

    def run(self, *argv: str) -> str:
        """A command as root in the guest; raises AnswerError with its output when it fails."""
        done = self.ask("run", argv=argv)
        if done["code"] != 0:
            raise AnswerError(f"{' '.join(argv)}: {done['code']}: {done['out']}{done['err']}")
        return str(done["out"])

    def make_storage(self) -> None:
        """The volume group and the thin pool, on blank disks, as an administrator makes them: he waits for the end."""
        self.run("pvcreate", "--quiet", "--yes", *DEVICES)
        self.run("vgcreate", "--quiet", GROUP, *DEVICES)
        pool = ("--type", "thin-pool", "--name", POOL, "--size", "5G", "--poolmetadatasize", "16M")
        self.run("lvcreate", "--quiet", "--yes", *pool, GROUP)
        self.run("blockdev", "--flushbufs", *DEVICES)
        for device in DEVICES:
            self.run("dd", "if=/dev/null", f"of={device}", "conv=fsync,notrunc", "status=none")

    def know(self, kubeconfig: Path, certificate: Path) -> None:
        """How the agent reaches the API server of this machine."""
        text = kubeconfig.read_text(encoding="utf-8").replace("127.0.0.1", HOST).replace(str(certificate), "@CA@")
        self._cluster = {"kubeconfig": text, "certificate": certificate.read_text(encoding="utf-8")}

    def start_agent(self) -> None:
        """`ullage node`; its log is kept for each life. Raises AnswerError, OffError."""
        self.ask("start_agent", node=self.name, log=f"/results/{self.name}-{self.lives}.log", **self._cluster)
        self._client = Client(f"127.0.0.1:{self._csi_port}")

    def use(self, handle: str, pod: str, fs_type: str) -> str:
        """Stage and publish, as kubelet does; where it is. A raw device without `fs_type`. Raises OffError."""
        staging, target = _places(handle, pod, fs_type)
        capability = mounted(fs_type) if fs_type else block()
        above = Path(target).parent
        self.ask("make_directories", paths=[staging, str(above)])
        node = self._calls()
        stage = pb.NodeStageVolumeRequest(volume_id=handle, staging_target_path=staging, volume_capability=capability)
        publish = pb.NodePublishVolumeRequest(
            volume_id=handle, staging_target_path=staging, target_path=target, volume_capability=capability
        )
        self._call(lambda: node.NodeStageVolume(stage, timeout=ASK_SECONDS))
        self._call(lambda: node.NodePublishVolume(publish, timeout=ASK_SECONDS))
        return target

    def end_use(self, handle: str, pod: str, fs_type: str) -> None:
        """Unpublish and unstage; raises OffError."""
        staging, target = _places(handle, pod, fs_type)
        node = self._calls()
        unpublish = pb.NodeUnpublishVolumeRequest(volume_id=handle, target_path=target)
        unstage = pb.NodeUnstageVolumeRequest(volume_id=handle, staging_target_path=staging)
        self._call(lambda: node.NodeUnpublishVolume(unpublish, timeout=ASK_SECONDS))
        self._call(lambda: node.NodeUnstageVolume(unstage, timeout=ASK_SECONDS))

    def grow(self, handle: str, place: str, size_bytes: int) -> None:
        """NodeExpandVolume; raises OffError."""
        size = pb.CapacityRange(required_bytes=size_bytes)
        expand = pb.NodeExpandVolumeRequest(volume_id=handle, volume_path=place, capacity_range=size)
        self._call(lambda: self._calls().NodeExpandVolume(expand, timeout=ASK_SECONDS))

    def _calls(self) -> csi_pb2_grpc.NodeStub:
        if self._client is None:
            raise OffError("no agent runs")
        return self._client.node

    def _call(self, ask: Callable[[], object]) -> None:
        """As kubelet: whoever is told that the volume is busy asks again. Raises OffError, grpc.RpcError."""
        while True:
            try:
                ask()
            except grpc.RpcError as refused:
                code = refused.code()
                if code is grpc.StatusCode.UNAVAILABLE or not self.is_on:
                    raise OffError(str(refused)) from refused
                if code is not grpc.StatusCode.ABORTED:
                    raise
                time.sleep(0.5)
            else:
                return

    def _pull(self) -> None:
        self._plug.pull()
        for thread in (self._vm, self._listener):
            if thread is not None:
                thread.join()
        if self._client is not None:
            self._client.close()
            self._client = None

    def _run(self, plug: machine.Plug) -> None:
        port = self._door.getsockname()[1]
        argv = [sys.executable, "-m", "tests.power.inside", "--port", str(PORT), "--csi-port", str(CSI_PORT)]
        argv += ["--acknowledge-to", f"{HOST}:{port}"]
        wanted = machine.Machine(
            kept=tuple(disk.drive for disk in self._disks),
            cpus=1,
            forwards=((self._port, PORT), (self._csi_port, CSI_PORT)),
            collect=self.logs,
        )
        with (self.logs / f"{self.name}-{self.lives}.console").open("wb") as output:
            try:
                machine.run(wanted, argv, timeout_seconds=LIFE_SECONDS, stdout=output, stderr=output, plug=plug)
            except (machine.GuestError, RigError) as failure:
                self._said = f"{failure}\n{getattr(failure, 'console', '')}"
            else:
                self._said = "inside has ended"

    def _hear(self, vm: threading.Thread) -> None:
        """What one life says; it ends with the VM, after the last word that has come out of it."""
        self._door.settimeout(1.0)
        guest = _accepted(self._door, vm.is_alive)
        if guest is None:
            return
        with guest, guest.makefile("r", encoding="ascii") as stream, suppress(OSError):
            for line in stream:
                if line.endswith("\n"):
                    run, number = line.split()
                    self.acknowledged[run] = int(number)


def _places(handle: str, pod: str, fs_type: str) -> tuple[str, str]:
    """Kubelet's staging and target paths."""
    if not fs_type:
        devices = f"{KUBELET}/plugins/kubernetes.io/csi/volumeDevices"
        return f"{devices}/staging/{handle}", f"{devices}/publish/{handle}/{pod}"
    staging = f"{KUBELET}/plugins/kubernetes.io/csi/ullage.io/{handle}/globalmount"
    return staging, f"{KUBELET}/pods/{pod}/volumes/kubernetes.io~csi/{handle}/mount"


def _accepted(door: socket.socket, is_worth_waiting: Callable[[], bool]) -> socket.socket | None:
    while is_worth_waiting():
        with suppress(TimeoutError):
            guest, _ = door.accept()
            guest.settimeout(None)
            return guest
    return None
