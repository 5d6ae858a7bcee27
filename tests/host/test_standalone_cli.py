"""`ullage volume` and `snapshot` against `ullage standalone`, as the programs that they are, on files of this machine.

What is there and what is left is read from the kernel and the file system, never from our own code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.contract.faults import until
from tests.host.file_rig import ran

PROGRAM = str(Path(sys.executable).with_name("ullage"))
MIB = 1 << 20
STOP_SECONDS = 60
RECORD = ".ullage.json"
"""The directory's own, in which no volume is."""


@dataclass(frozen=True)
class Machine:
    """A driver of one class, and its user's command line."""

    base: Path
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"unix://{self.base}/csi.sock"

    @property
    def staging(self) -> Path:
        return self.base / "staging" / "db"

    def refused(self, *words: str, command: str = "volume") -> str:
        """What `ullage volume …` says when it does not do it."""
        done = self._asked(command, *words)
        assert done.returncode == 1, (words, done)
        assert done.stdout == ""
        assert done.stderr.startswith("ullage: ")
        return done.stderr

    def does(self, *words: str, command: str = "volume") -> str:
        """What `ullage volume …` prints when it does it."""
        done = self._asked(command, *words)
        assert (done.returncode, done.stderr) == (0, ""), (words, done)
        return done.stdout

    def made(self, *words: str) -> list[dict[str, Any]]:
        """What `ullage volume create …` makes, while how far it is goes unread."""
        return self._told("volume", *words)

    def snapshots(self, *words: str) -> list[dict[str, Any]]:
        """What `ullage snapshot …` tells programs."""
        return self._told("snapshot", *words)

    def _told(self, command: str, *words: str) -> list[dict[str, Any]]:
        done = self._asked(command, *words, "-o", "json", "--timeout", "60")
        assert done.returncode == 0, (words, done)
        items: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return items

    def listed(self) -> dict[str, int]:
        items: list[dict[str, Any]] = json.loads(self.does("list", "-o", "json"))["items"]
        return {item["volumeId"]: item["capacityBytes"] for item in items}

    def mounts(self) -> dict[str, str]:
        """Where something is mounted below the base, and with which options."""
        return dict(
            line.split(maxsplit=1)
            for line in ran("findmnt", "--noheadings", "--raw", "--output", "TARGET,OPTIONS").splitlines()
            if line.startswith(f"{self.base}/")
        )

    def loops(self) -> dict[str, str]:
        """The loop devices over files below the base, and those over such a device."""
        lines = ran("losetup", "--noheadings", "--raw", "--output", "NAME,BACK-FILE").splitlines()
        over = dict(line.split(maxsplit=1) for line in lines)
        ours = {device for device, file in over.items() if file.startswith(f"{self.base}/")}
        return {device: file for device, file in over.items() if device in ours or file in ours}

    def forget_read_only_devices(self) -> None:
        """Those that a failed test has left, which no other cleaning knows."""
        for device, below in self.loops().items():
            if below.startswith("/dev/"):
                ran("losetup", "--detach", device)

    def let_go(self) -> None:
        """Unmount what a failed test has left, and the volumes' own file system once the kernel lets go of it."""
        disk, volumes = str(self.base / "disk"), str(self.base / "volumes")
        for device in (device for device, file in self.loops().items() if file != disk):
            ran("losetup", "--detach", device)
        for place in reversed([place for place in self.mounts() if place != volumes]):
            ran("umount", place)
        if volumes in self.mounts():
            until(lambda: subprocess.run(("umount", volumes), check=False, capture_output=True).returncode == 0)

    def files(self) -> set[str]:
        return {path.name for path in (self.base / "volumes").iterdir()} - {RECORD, "lost+found"}

    def _asked(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        is_staged = words[0] in ("expand", "mount", "unmount")
        staging = ("--staging-path", str(self.base / "staging" / words[1])) if is_staged else ()
        argv = (PROGRAM, command, *words, *staging, "--csi-endpoint", self.endpoint)
        return subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture(params=["this"])
def machine(root: Path, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Its volumes are in a directory of this machine, or on a new file system of the kind that is asked for."""
    (root / "volumes").mkdir()
    if request.param != "this":
        with (root / "disk").open("wb") as disk:
            disk.truncate(2048 * MIB)
        ran(f"mkfs.{request.param}", "-q", str(root / "disk"))
        ran("mount", "-o", "loop", str(root / "disk"), str(root / "volumes"))
    with _served(root) as machine:
        yield machine


@contextmanager
def _served(root: Path) -> Iterator[Machine]:
    config = root / "config.yaml"
    config.write_text(f"deviceClasses:\n- {{name: files, type: file, sparse: true, directory: {root}/volumes}}\n")
    with serving(root, config) as process:
        machine = Machine(root, process)
        try:
            yield machine
        finally:
            machine.forget_read_only_devices()
    machine.let_go()


@contextmanager
def serving(base: Path, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    sockets = ("--csi-endpoint", f"unix://{base}/csi.sock", "--socket", f"unix://{base}/agent.sock")
    log = base / "log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            (PROGRAM, "standalone", "--config", str(config), *sockets, "--node-name", "here", "--log-format", "json"),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        until(lambda: b'"serving"' in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_volume_lives_and_dies_by_the_command_line_and_leaves_nothing(machine: Machine) -> None:
    target, look = machine.base / "db", machine.base / "look"
    made = machine.does("create", "db", "--size", "320Mi", "--class", "files")
    assert made.splitlines()[1].split() == ["db", "320.0", "MiB", "here"]
    machine.does("create", "db", "--size", "320Mi")  # the same again
    assert machine.listed() == {"db": 320 * MIB}

    for _ in range(2):
        assert machine.does("mount", "db", str(target), "--fs", "xfs", "-o", "noatime") == (
            f"volume db mounted at {target}\n"
        )
    machine.does("mount", "db", str(look), "--fs", "xfs", "-o", "noatime", "--read-only")
    assert set(machine.mounts()) == {str(target), str(look), str(machine.staging)}
    assert "noatime" in machine.mounts()[str(target)]
    (target / "file").write_text("cask")
    assert (look / "file").read_text() == "cask"
    with pytest.raises(OSError, match="Read-only"):
        (look / "other").touch()

    before = os.statvfs(target).f_blocks
    said = machine.does("expand", "db", "--size", "640Mi")
    assert said == f"volume db has 640.0 MiB\nwhat is mounted at {machine.staging} has grown with it\n"
    assert os.statvfs(target).f_blocks > 1.5 * before
    assert machine.listed() == {"db": 640 * MIB}

    assert "in use" in machine.refused("delete", "db")
    with (target / "file").open():
        assert "busy" in machine.refused("unmount", "db", str(target))
    assert "stays staged" in machine.does("unmount", "db", str(target))
    assert (look / "file").read_text() == "cask"
    assert machine.does("unmount", "db", str(look)) == f"volume db unmounted from {look}\n"
    assert machine.mounts() == {}
    assert not target.exists()
    assert not look.exists()

    assert machine.does("delete", "db") == "volume db deleted\n"
    assert (machine.listed(), machine.loops(), machine.files()) == ({}, {}, set())
    machine.process.terminate()
    assert machine.process.wait(STOP_SECONDS) == 0
    assert {path.name for path in machine.base.iterdir()} <= {"volumes", "config.yaml", "log", "staging"}


def test_a_device_is_written_at_one_path_and_only_read_at_another(machine: Machine) -> None:
    target, look = machine.base / "raw", machine.base / "look"
    machine.does("create", "db", "--size", "16Mi")
    machine.does("mount", "db", str(target), "--block")
    machine.does("mount", "db", str(look), "--block", "--read-only")
    with target.open("r+b", buffering=0) as device:
        device.write(b"cask" * 1024)
        os.fsync(device.fileno())
    assert look.read_bytes()[:8] == b"caskcask"
    with pytest.raises(PermissionError), look.open("r+b", buffering=0) as device:
        device.write(b"dregs")
    machine.does("expand", "db", "--size", "32Mi", "--path", str(look))
    assert [ran("blockdev", "--getsize64", str(path)).strip() for path in (target, look)] == [str(32 * MIB)] * 2
    machine.does("unmount", "db", str(look))
    machine.does("unmount", "db", str(target))
    machine.does("delete", "db")
    assert (machine.mounts(), machine.loops(), machine.files()) == ({}, {}, set())


def test_unmount_leaves_the_mounts_of_others_where_they_are(machine: Machine) -> None:
    others = machine.base / "others"
    others.mkdir()
    ran("mount", "-t", "tmpfs", "tmpfs", str(others))
    machine.does("create", "db", "--size", "16Mi")
    machine.does("mount", "db", str(machine.base / "db"))
    assert "not the same volume" in machine.refused("unmount", "db", str(others))
    assert set(machine.mounts()) == {str(others), str(machine.base / "db"), str(machine.staging)}


def test_a_mount_that_is_refused_leaves_nothing_staged(machine: Machine) -> None:
    machine.does("create", "db", "--size", "16Mi")
    assert "is no directory to mount in" in machine.refused("mount", "db", str(machine.base / "no" / "where"))
    assert machine.mounts() == {}


@pytest.mark.parametrize("machine", ["ext4", "xfs", "btrfs"], indirect=True)
def test_a_snapshot_and_a_clone_are_seen_beside_their_volume_and_leave_nothing(machine: Machine) -> None:
    target, old, again = machine.base / "db", machine.base / "old", machine.base / "again"
    machine.does("create", "db", "--size", "320Mi")
    machine.does("mount", "db", str(target), "--fs", "xfs")
    (target / "file").write_text("cask")
    (taken,) = machine.snapshots("create", "monday", "--source", "db")
    assert (taken["sourceVolumeId"], taken["sizeBytes"], taken["readyToUse"]) == ("db", 320 * MIB, True)
    (target / "file").write_text("dregs")
    assert machine.snapshots("create", "monday", "--source", "db") == [taken]
    assert machine.snapshots("list", "db") == machine.snapshots("get", "monday") == [taken]

    (restored,) = machine.snapshots("restore", "monday", "old", "--size", "400Mi")
    assert restored["capacityBytes"] == 400 * MIB
    machine.does("mount", "old", str(old), "--fs", "xfs")
    assert ((old / "file").read_text(), (target / "file").read_text()) == ("cask", "dregs")
    machine.made("create", "again", "--from", "db")
    machine.does("mount", "again", str(again), "--fs", "xfs")
    (again / "file").write_text("cask once more")
    assert ((again / "file").read_text(), (target / "file").read_text()) == ("cask once more", "dregs")
    assert machine.listed() == {"again": 320 * MIB, "db": 320 * MIB, "old": 400 * MIB}

    assert machine.does("delete", "monday", command="snapshot") == f"snapshot {taken['snapshotId']} deleted\n"
    assert "there is no snapshot monday" in machine.refused("delete", "monday", command="snapshot")
    for name in ("db", "old", "again"):
        machine.does("unmount", name, str(machine.base / name))
        machine.does("delete", name)
    assert (machine.listed(), machine.snapshots("list"), machine.files()) == ({}, [], set())
