"""A real `ullage standalone` for the benchmarks of the CSI driver, and a client that uses it as kubelet does.

The driver is started from the command line as a unit file would. Which programs it ran, with which arguments, is read
in its own log (level debug), so that the bare commands can be given the same.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.lvm_rig import BenchError, Memory, memory_of
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1.csi_pb2_grpc import ControllerStub, IdentityStub, NodeStub

START_SECONDS, STOP_SECONDS = 120.0, 60.0
CALL_SECONDS = 120.0
"""What kubelet gives a call."""
QUIET_SECONDS, REST_SECONDS = 2.2, 300.0
"""No program has ended for this long: longer than the driver puts off a look. And how long that may take to come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds of the three calls that bring a volume to a Pod."""

    create: float
    stage: float
    publish: float

    @property
    def total(self) -> float:
        """All three."""
        return self.create + self.stage + self.publish


class Driver:
    """The process."""

    def __init__(self, folder: Path, configuration: str, http_port: int, *, log_level: str = "info") -> None:
        """Start it in `folder`, and wait until it is ready."""
        self.endpoint = f"unix://{folder}/csi.sock"
        self.agent_address = f"unix://{folder}/agent.sock"
        config = folder / "config.yaml"
        config.write_text(configuration)
        self._log_path = folder / "driver.log"
        self._log = self._log_path.open("w")
        self._process = subprocess.Popen(  # noqa: S603 - the program under test
            [
                *(sys.executable, "-m", "ullage.cli", "standalone", "--config", str(config), "--node-name", "bench"),
                *("--csi-endpoint", self.endpoint, "--socket", self.agent_address),
                *("--http", f"127.0.0.1:{http_port}", "--log-format", "json", "--log-level", log_level),
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self._await_readiness()

    @property
    def pid(self) -> int:
        """Whose children its programs are."""
        return self._process.pid

    def stop(self) -> None:
        """End it as systemd does."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def memory(self) -> Memory:
        """What it costs now."""
        return memory_of(self._process.pid)

    def programs(self) -> list[list[str]]:
        """The argument lists of all programs that have ended so far, oldest first; none below log level debug."""
        lines = (json.loads(line) for line in self._log_path.read_text().splitlines() if line.startswith("{"))
        return [line["argv"] for line in lines if line["message"] in ("command ended", "command failed")]

    def settled(self) -> list[list[str]]:
        """Wait until storage is at rest, then answer as `programs`; raises BenchError when it does not come to rest."""
        deadline = time.monotonic() + REST_SECONDS
        while time.monotonic() < deadline:
            subprocess.run(["udevadm", "settle"], check=False)  # noqa: S607 - as the driver finds it
            before = self._log_path.stat().st_size
            time.sleep(QUIET_SECONDS)
            if self._log_path.stat().st_size == before:
                return self.programs()
        raise BenchError("the driver does not come to rest")

    def _await_readiness(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(grpc.RpcError), client_of(self.endpoint) as client:
                if client.identity.Probe(pb.ProbeRequest(), timeout=5.0).ready.value:
                    return
            time.sleep(0.2)
        raise BenchError(f"the driver does not come up:\n{self._log_path.read_text()}")


class Client:
    """One channel to the driver, and the calls of a volume's life as the sidecars and kubelet make them."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Whoever made the channel closes it."""
        self.identity = IdentityStub(channel)
        self.controller = ControllerStub(channel)
        self.node = NodeStub(channel)

    def create(self, volume_id: str, device_class: str, size_bytes: int, fs_type: str = "ext4") -> None:
        """CreateVolume, with what external-provisioner says."""
        self.controller.CreateVolume(
            pb.CreateVolumeRequest(
                name=volume_id,
                capacity_range=pb.CapacityRange(required_bytes=size_bytes),
                volume_capabilities=[_mounted(fs_type)],
                parameters={
                    "ullage.io/device-class": device_class,
                    "csi.storage.k8s.io/pv/name": volume_id,
                    "csi.storage.k8s.io/pvc/name": f"data-{volume_id}",
                    "csi.storage.k8s.io/pvc/namespace": "default",
                },
            ),
            timeout=CALL_SECONDS,
        )

    def stage(self, volume_id: str, place: Path, fs_type: str = "ext4") -> None:
        """NodeStageVolume; the directory above is kubelet's, and made."""
        place.parent.mkdir(parents=True, exist_ok=True)
        request = pb.NodeStageVolumeRequest(
            volume_id=volume_id, staging_target_path=str(place), volume_capability=_mounted(fs_type)
        )
        self.node.NodeStageVolume(request, timeout=CALL_SECONDS)

    def publish(self, volume_id: str, staged: Path, place: Path, fs_type: str = "ext4") -> None:
        """NodePublishVolume; the directory above is kubelet's, and made."""
        place.parent.mkdir(parents=True, exist_ok=True)
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(staged),
            target_path=str(place),
            volume_capability=_mounted(fs_type),
        )
        self.node.NodePublishVolume(request, timeout=CALL_SECONDS)

    def bring(self, volume_id: str, device_class: str, size_bytes: int, folder: Path, fs_type: str = "ext4") -> Spent:
        """All three, for a volume that is to be seen at `target_of(folder, volume_id)`."""
        staged, target = staging_of(folder, volume_id), target_of(folder, volume_id)
        moments = [time.monotonic()]
        self.create(volume_id, device_class, size_bytes, fs_type)
        moments.append(time.monotonic())
        self.stage(volume_id, staged, fs_type)
        moments.append(time.monotonic())
        self.publish(volume_id, staged, target, fs_type)
        moments.append(time.monotonic())
        create, stage, publish = (after - before for before, after in itertools.pairwise(moments))
        return Spent(create=create, stage=stage, publish=publish)

    def take_away(self, volume_id: str, folder: Path) -> None:
        """Unpublish, unstage, delete, whichever of them there is to do."""
        target = pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(target_of(folder, volume_id)))
        self.node.NodeUnpublishVolume(target, timeout=CALL_SECONDS)
        staged = pb.NodeUnstageVolumeRequest(
            volume_id=volume_id, staging_target_path=str(staging_of(folder, volume_id))
        )
        self.node.NodeUnstageVolume(staged, timeout=CALL_SECONDS)
        self.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=CALL_SECONDS)


@contextlib.contextmanager
def client_of(endpoint: str) -> Iterator[Client]:
    """A client with a connection of its own."""
    with grpc.insecure_channel(endpoint, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Client(channel)


def staging_of(folder: Path, volume_id: str) -> Path:
    """Where kubelet would have a volume staged."""
    return folder / "plugins" / volume_id / "globalmount"


def target_of(folder: Path, volume_id: str) -> Path:
    """Where kubelet would have it for a Pod."""
    return folder / "pods" / volume_id / "mount"


def _mounted(fs_type: str) -> pb.VolumeCapability:
    return pb.VolumeCapability(
        mount=pb.VolumeCapability.MountVolume(fs_type=fs_type),
        access_mode=pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER),
    )
