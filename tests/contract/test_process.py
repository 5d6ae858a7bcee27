"""`ullage agent` as a process: its socket, its end by SIGTERM in the middle of work, and its start after SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from tests.contract.faults import LONG_SECONDS, Disturbed, begun, until
from tests.contract.sites import CLASS, Site, run
from ullage.model import VolumeState
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1 import agent_pb2_grpc

pytestmark = pytest.mark.only_on("file")


class Process:
    """An agent on the site, killed at the latest when the test is over."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.socket = folder / "agent.sock"
        config = folder / "config.yaml"
        directory = site.device_class().directory
        config.write_text(f"deviceClasses:\n- {{name: {CLASS}, type: file, directory: {directory}}}\n")
        argv = ["-m", "ullage.cli", "agent", "--config", str(config), "--socket", f"unix://{self.socket}"]
        self._log = folder / "log"
        with self._log.open("a") as log:
            log.write("---\n")
            self.popen = subprocess.Popen(
                [sys.executable, *argv, "--log-format", "json"], stdout=log, stderr=subprocess.STDOUT
            )

    def says(self, message: str) -> bool:
        """Whether it has logged this since it started."""
        return message in self._log.read_text().rpartition("---\n")[2]

    def wait_for(self, message: str) -> None:
        until(lambda: self.says(message) or self.popen.poll() is not None)
        assert self.says(message), self._log.read_text()

    def is_stuck_in_the_kernel(self) -> bool:
        """Whether one of its threads waits for a device or a file system."""
        tasks = Path(f"/proc/{self.popen.pid}/task").iterdir()
        return any(" D " in (task / "stat").read_text().rpartition(")")[2][:3] for task in tasks)

    def create(self, volume_id: str, size_bytes: int) -> pb.CreateVolumeResponse:
        request = pb.CreateVolumeRequest(volume_id=volume_id, device_class=CLASS, size_bytes=size_bytes)
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            made: pb.CreateVolumeResponse = agent_pb2_grpc.AgentStub(channel).CreateVolume(
                request, timeout=LONG_SECONDS
            )
        return made


@contextmanager
def serving(site: Site, folder: Path) -> Iterator[Process]:
    process = Process(site, folder)
    try:
        process.wait_for("serving")
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()


def test_sigterm_lets_an_operation_end_answers_it_and_removes_the_socket(site: Site, tmp_path: Path) -> None:
    """The operation is held up by a frozen file system; it thaws when the agent has said that it stops."""
    directory = site.device_class().directory
    with serving(site, tmp_path) as process, ThreadPoolExecutor(1) as pool:
        process.create("pvc-first", site.step_bytes)
        run("fsfreeze", "--freeze", directory)
        try:
            answer = pool.submit(process.create, "pvc-a", site.step_bytes)
            until(process.is_stuck_in_the_kernel)
            process.popen.send_signal(signal.SIGTERM)
            process.wait_for("stopping")
            assert process.popen.poll() is None
        finally:
            run("fsfreeze", "--unfreeze", directory)
        assert answer.result(LONG_SECONDS).volume.size_bytes == site.step_bytes
        assert process.popen.wait(LONG_SECONDS) == 0
        assert not process.socket.exists()
    _check_converged(site, "pvc-first", "pvc-a")


def test_sigkill_in_the_middle_leaves_a_socket_and_a_volume_that_the_next_start_deals_with(
    site: Site, tmp_path: Path
) -> None:
    directory = site.device_class().directory
    with serving(site, tmp_path) as process, ThreadPoolExecutor(1) as pool:
        run("fsfreeze", "--freeze", directory)
        try:
            answer = pool.submit(process.create, "pvc-a", site.step_bytes)
            until(process.is_stuck_in_the_kernel)
            process.popen.kill()
        finally:
            run("fsfreeze", "--unfreeze", directory)
        process.popen.wait(LONG_SECONDS)
        with pytest.raises(grpc.RpcError):
            answer.result(LONG_SECONDS)
        assert process.socket.exists()
    with serving(site, tmp_path) as process:
        assert process.create("pvc-a", site.step_bytes).volume.size_bytes == site.step_bytes
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(LONG_SECONDS) == 0
    _check_converged(site, "pvc-a")


def test_the_socket_is_for_its_owner_only_and_for_one_agent(site: Site, tmp_path: Path) -> None:
    with serving(site, tmp_path) as process:
        assert process.socket.stat().st_mode & 0o777 == 0o600
        second = Process(site, tmp_path)
        assert second.popen.wait(LONG_SECONDS) == 2
        assert second.says("another process is serving")
        assert process.socket.is_socket()
        assert process.create("pvc-a", site.step_bytes).volume.volume_id == "pvc-a"


def _check_converged(site: Site, *volume_ids: str) -> None:
    agent = begun(Disturbed().assembly(), [site.device_class()]).agent
    assert [volume.id for volume in agent.volumes()] == sorted(volume_ids)
    assert {volume.state for volume in agent.volumes()} == {VolumeState.READY}
    assert site.truth().sizes == dict.fromkeys(volume_ids, site.step_bytes)
    assert site.leftovers() == []
