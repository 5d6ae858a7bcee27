"""A node: a virtual machine that is booted and cut off the power as often as one likes, and keeps its disks.

Everything of it is in one folder, so that whoever knows the folder can look after it: what starts it, its disks, the
pid of the QEMU that is it now, the logs of its programs. Nothing but the folder and the QEMU lasts.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.kubelets import SERVICE_ADDRESS
from tests.rigs.cluster.process import POLL_SECONDS, spawned
from tests.rigs.full import network, pids, settings
from tests.rigs.host import RigError
from tests.rigs.vm import kernel, qemu

FIRST_WORD_SECONDS = 240.0
"""From power to the first script in the guest, which takes half a minute of a busy machine."""
POWER_ONS = 3
"""Now and then an emulated machine of two processors stands still for good, mostly in the kernel's first second."""
STUCK = re.compile(rb"soft lockup - CPU#\d+ stuck for (\d+)s")
STUCK_SECONDS = 100
"""What the kernel says of that, if it has come so far; what is said of less may pass."""
BOOT_SECONDS = 600.0
READY_SECONDS = 900.0
"""From commands being answered to kubelet having said so: with six machines on four cores it takes minutes."""
RUN_SECONDS = 120.0
CONNECT_SECONDS = 5.0
TAIL_LINES = 40
FILES_BYTES = 8 << 30
"""Sparse: of the XFS for a file class."""
NODES = "/api/v1/nodes"


class CommandFailed(Exception):  # noqa: N818 - an answer, as a Refusal of the API server is
    """A command in a node ended with something else than 0."""

    def __init__(self, argv: tuple[str, ...], exit_code: int, output: str, errors: str) -> None:
        """All that there is to know of it."""
        super().__init__(f"{' '.join(argv)} ended with {exit_code}: {errors}{output}")
        self.exit_code = exit_code
        self.output = output
        self.errors = errors


class _StandsStillError(Exception):
    """A machine that is on and does nothing, and never will."""


def stands_still(console: bytes) -> bool:
    """Whether a kernel has said that one of its processors got no further for longer than a busy host explains."""
    return any(int(seconds) >= STUCK_SECONDS for seconds in STUCK.findall(console))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What each node has. Of its disks the last is for the group pooled, all others for the group nvme."""

    cpus: int = 2
    memory_bytes: int = 2 << 30
    disks: int = 2
    disk_bytes: int = 8 << 30


class Node:
    """One of the cluster's nodes, whether it runs or not."""

    def __init__(
        self,
        folder: Path,
        identity: settings.Identity,
        hardware: Hardware,
        api: Api,
        *,
        outlives_us: bool = False,
    ) -> None:
        """`folder` has its disks; settings.write has filled folder/boot.

        Booted by this process it is switched off with it, unless it outlives us.
        """
        self.name = identity.name
        self.address = identity.address
        self.folder = folder
        self.boot_folder = folder / "boot"
        self.console = self.boot_folder / "console"
        self.logs = folder / "logs"
        """Of containerd, kubelet and kube-proxy, as they write them."""
        self._identity = identity
        self._hardware = hardware
        self._api = api
        self._outlives_us = outlives_us
        self._reaper: threading.Thread | None = None
        """Ends with the QEMU that this process has started last."""
        self._pid_file = folder / "pid"

    def make(self) -> None:
        """Blank disks, and what the guest's scripts read. The state disk is the caller's to bring."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for disk in self._disks():
            with disk.open("wb") as file:
                file.truncate(self._hardware.disk_bytes)
        with self._files.open("wb") as file:
            file.truncate(FILES_BYTES)
        subprocess.run(("mkfs.xfs", "-q", str(self._files)), check=True)
        address = qemu.Address(address=f"{self.address}/{network.BITS}", gateway=network.HOST, nameserver=network.HOST)
        job = qemu.Job(
            command=["/bin/sh", "node.sh"],
            tree=self.boot_folder,
            environment={},
            has_results=True,
            address=address,
            hostname=self.name,
        )
        qemu.write_job(self.boot_folder, job, kernel.get())

    @property
    def state_disk(self) -> Path:
        """The file of the disk that containerd and kubelet keep their state on."""
        return self.folder / "state.qcow2"

    @property
    def pid(self) -> int | None:
        """Of the QEMU that is this node now; None while it is off."""
        return pids.living(self._pid_file)

    def boot(self, *, waits: bool = True) -> None:
        """Switch it on, and wait until its kubelet has said that it is ready; raises RigError."""
        if self.pid is not None:
            raise RigError(f"{self.name} is on already")
        self._switch_on()
        if waits:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Switch it off and on again while it stands still; raises RigError when it dies or takes too long."""
        for left in reversed(range(POWER_ONS)):
            try:
                self._come_up()
            except _StandsStillError as still:
                if not left:
                    raise RigError(f"{self.name} has stood still {POWER_ONS} times. {self._tail()}") from still
                self.kill()
                self._switch_on()
            else:
                return

    def _come_up(self) -> None:
        self._see_it_start()
        booted = self._boot_id()

        def is_ready(node: Json) -> bool:
            self._goes_on()
            conditions = {each["type"]: each["status"] for each in node["status"].get("conditions", [])}
            return node["status"]["nodeInfo"]["bootID"] == booted and conditions.get("Ready") == "True"

        self._api.until(f"{NODES}/{self.name}", is_ready, READY_SECONDS)
        deadline = time.monotonic() + READY_SECONDS
        while not self._has_services_and_groups():
            self._goes_on()
            if time.monotonic() > deadline:
                raise RigError(f"{self.name} is not complete after {READY_SECONDS:.0f} s. {self._tail()}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Cut its power: what it has not handed to its disks is gone. Nothing when it is off."""
        pids.end(self._pid_file)
        if self._reaper is not None:
            self._reaper.join()

    def run(self, *argv: str, timeout_seconds: float = RUN_SECONDS, text: str = "") -> str:
        """What a command prints that root runs in the node, with `text` as its input.

        Raises CommandFailed, and RigError when the node is off, dies meanwhile, or the time is over: then it is killed.
        """
        answer = self._asked({"argv": argv, "input": text}, timeout_seconds)
        if answer["exit_code"] != 0:
            raise CommandFailed(argv, answer["exit_code"], answer["output"], answer["errors"])
        output: str = answer["output"]
        return output

    def _asked(self, question: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_seconds
        pid = self.pid
        if pid is None:
            raise RigError(f"{self.name} is off")
        ended = os.pidfd_open(pid)
        heard = b""
        try:
            with socket.create_connection((self.address, settings.COMMANDS_PORT), CONNECT_SECONDS) as connection:
                connection.sendall(json.dumps(question).encode() + b"\n")
                while not heard.endswith(b"\n"):
                    left = max(0.0, deadline - time.monotonic())
                    readable, _, _ = select.select([connection.fileno(), ended], [], [], left)
                    if not readable:
                        raise RigError(f"{self.name}: {question['argv']} took more than {timeout_seconds:.0f} s")
                    if ended in readable:
                        raise RigError(f"{self.name} died under {question['argv']}")
                    chunk = connection.recv(1 << 16)
                    if not chunk:
                        raise RigError(f"{self.name} hung up on {question['argv']}")
                    heard += chunk
        except OSError as failure:
            raise RigError(f"{self.name} takes no commands: {failure}") from failure
        finally:
            os.close(ended)
        answer: dict[str, Any] = json.loads(heard)
        return answer

    def _has_services_and_groups(self) -> bool:
        """Whether kube-proxy has told the kernel of the first Service, and LVM of its groups."""
        try:
            self.run("ls", "/run/rig/groups")
            return SERVICE_ADDRESS in self.run("nft", "list", "map", "ip", "kube-proxy", "service-ips")
        except CommandFailed:
            return False

    def _switch_on(self) -> None:
        self._first_word.unlink(missing_ok=True)
        argv = qemu.argv(self._guest(), kernel.get())
        running = spawned(argv, self.folder / "qemu.log", os.environ, outlives_us=self._outlives_us)
        pids.write(self._pid_file, running.pid)
        # Whatever ends it, somebody waits for it, so that no zombie is left; it may also go on when we end.
        self._reaper = threading.Thread(target=running.wait, name=f"wait-{self.name}", daemon=True)
        self._reaper.start()

    def _see_it_start(self) -> None:
        deadline = time.monotonic() + FIRST_WORD_SECONDS
        while not (self._first_word.exists() and self._first_word.stat().st_size):
            self._goes_on()
            if time.monotonic() > deadline:
                raise _StandsStillError
            time.sleep(POLL_SECONDS)

    def _boot_id(self) -> str:
        """Of the boot that goes on, once the node takes commands."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                return self.run("cat", "/proc/sys/kernel/random/boot_id").strip()
            except RigError as failure:
                self._goes_on()
                if time.monotonic() > deadline:
                    raise RigError(f"{self.name} is not up after {BOOT_SECONDS:.0f} s. {self._tail()}") from failure
            time.sleep(POLL_SECONDS)

    def _goes_on(self) -> None:
        """Raises RigError when it is dead, _StandsStillError when its kernel says that its processors are stuck."""
        if self.pid is None:
            raise RigError(f"{self.name} died before it was ready. {self._tail()}")
        if self.console.exists() and stands_still(self.console.read_bytes()):
            raise _StandsStillError

    @property
    def _first_word(self) -> Path:
        """The file of the guest's control port."""
        return self.boot_folder / qemu.PORTS[0]

    @property
    def _files(self) -> Path:
        return self.folder / "files.img"

    def _disks(self) -> list[Path]:
        return [self.folder / f"disk-{number}.img" for number in range(self._hardware.disks)]

    def _guest(self) -> qemu.Guest:
        drives = {f"ullage-{number}": qemu.of_file(file) for number, file in enumerate(self._disks())}
        drives["ullage-files"] = qemu.of_file(self._files)
        drives["ullage-state"] = qemu.of_file(self.state_disk, "qcow2")
        return qemu.Guest(
            directory=self.boot_folder,
            cpus=self._hardware.cpus,
            memory_bytes=self._hardware.memory_bytes,
            disks=[qemu.Disk(drive=drive, serial=serial) for serial, drive in drives.items()],
            ports={port: str(self.boot_folder / port) for port in qemu.PORTS},
            network=f"tap,ifname={network.device_of(self.name)},script=no,downscript=no",
            mac=f"52:54:00:80:00:{self._identity.number + network.FIRST_NODE:02x}",
            collect=self.logs,
        )

    def _tail(self) -> str:
        said = []
        for file in (self.folder / "qemu.log", self.console, self.boot_folder / "stdout", self.boot_folder / "stderr"):
            if file.exists():
                said += file.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "The end of what it said:\n" + "\n".join(said)
