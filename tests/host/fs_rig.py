"""A node for one test: disks that are loop devices, a staging path, targets; everything gone at the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest

from csi.fs import mount_table, readonly_loops
from csi.fs.mount_table import Mount
from csi.fs.volumes import FileSystems, StageRequest
from ullage.run import Finished, Runner, Subprocesses

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
KINDS = ("ext4", "xfs", "btrfs")
SIZE = {"ext4": 64 * MIB, "xfs": 300 * MIB, "btrfs": 256 * MIB}
NOTHING_FOUND = 2  # blkid's exit code
_BLOCK = 64 * KIB


def ran(*argv: str, accepted: Sequence[int] = (0,), stdin: str = "") -> str:
    finished = subprocess.run(argv, check=False, capture_output=True, text=True, input=stdin)
    assert finished.returncode in accepted, f"{argv}: {finished.returncode} {finished.stderr}"
    return finished.stdout


@dataclass(frozen=True)
class Disk:
    """A loop device over a sparse file. `loop.put` and `size` are as the signatures of test_wipe.py use them."""

    path: str
    file: Path

    @property
    def size(self) -> int:
        return int(ran("blockdev", "--getsize64", self.path))

    def put(self, offset: int, data: bytes) -> None:
        with Path(self.path).open("r+b", buffering=0) as device:
            device.seek(offset)
            device.write(data)
            os.fsync(device.fileno())

    def grow(self, size: int) -> None:
        os.truncate(self.file, size)
        ran("losetup", "--set-capacity", self.path)

    def digest(self) -> str:
        """Of every byte that is not zero, and where it is; holes cost nothing."""
        summed = hashlib.sha256()
        with self.file.open("rb", buffering=0) as file:
            for number in sorted({n for a, b in _extents(file.fileno()) for n in range(a // _BLOCK, -(-b // _BLOCK))}):
                part = os.pread(file.fileno(), _BLOCK, number * _BLOCK)
                if part.count(0) != len(part):
                    summed.update(f"{number}:".encode() + part)
        return summed.hexdigest()

    def type(self) -> str:
        return ran("blkid", "-p", "-s", "TYPE", "-o", "value", self.path, accepted=(0, NOTHING_FOUND)).strip()


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


@dataclass
class Node:
    """Where volumes are staged and published; `fs` is what is tested."""

    root: Path
    runner: Runner = field(default_factory=Subprocesses)
    disks: list[Disk] = field(default_factory=list)

    @property
    def fs(self) -> FileSystems:
        return FileSystems(self.runner, is_standalone=True)

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    def target(self, name: str = "a") -> Path:
        return self.root / f"target {name}"

    def disk(self, size: int, *options: str) -> Disk:
        file = self.root / f"{len(self.disks)}.img"
        file.touch()
        os.truncate(file, size)
        return self.attached(file, *options)

    def attached(self, file: Path, *options: str) -> Disk:
        disk = Disk(ran("losetup", "--find", "--show", *options, str(file)).strip(), file)
        self.disks.append(disk)
        return disk

    def stage(self, disk: Disk, fs_type: str = "", *flags: str, is_read_only: bool = False) -> None:
        request = StageRequest(device_path=disk.path, fs_type=fs_type, mount_flags=flags, is_read_only=is_read_only)
        self.fs.stage(request, self.staging)

    def publish(
        self, disk: Disk, name: str = "a", *flags: str, is_read_only: bool = False, is_shared: bool = True
    ) -> Path:
        target = self.target(name)
        self.fs.publish(
            disk.path, self.staging, target, mount_flags=flags, is_read_only=is_read_only, is_shared=is_shared
        )
        return target

    def publish_block(self, disk: Disk, name: str = "a", *, is_read_only: bool = False, is_shared: bool = True) -> Path:
        target = self.target(name)
        self.fs.publish_block(disk.path, target, is_read_only=is_read_only, is_shared=is_shared)
        return target

    def mounts(self) -> tuple[Mount, ...]:
        return mount_table.read().below(self.root)

    def read_only_loops(self) -> list[str]:
        numbers = {os.stat(disk.path).st_rdev for disk in self.disks}  # noqa: PTH116 - a device node
        return [loop.path for loop in readonly_loops.all_of_ours() if loop.below in numbers]

    def clean(self) -> None:
        for mount in sorted(self.mounts(), key=lambda mount: mount.id, reverse=True):
            ran("umount", mount.place)
        for loop in self.read_only_loops():
            ran("losetup", "--detach", loop)
        for disk in self.disks:
            with contextlib.suppress(AssertionError):
                ran("losetup", "--detach", disk.path)
            disk.file.unlink()  # what was written there is room
        end = time.monotonic() + 10
        while self._attached() and time.monotonic() < end:
            time.sleep(0.05)  # udev may have one open still
        assert self._attached() == []

    def _attached(self) -> list[str]:
        return [line for line in ran("losetup", "--list", "--noheadings").splitlines() if str(self.root) in line]


def require_eio_behind_the_end(disk: Disk) -> None:
    """Skip where a loop device reads zeroes behind the end of its file (Linux 6.1 does, 6.18 does not)."""
    with Path(disk.path).open("rb", buffering=0) as device, contextlib.suppress(OSError):
        device.seek(disk.size - 4096)
        device.read(4096)
        pytest.skip("loop devices of this kernel read zeroes behind the end of their file")


class Hurdles:
    """A Runner that counts what it ran, and may refuse a program."""

    def __init__(self, *refused: str) -> None:
        self._real, self._refused = Subprocesses(), refused
        self.ran: list[tuple[str, ...]] = []

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        return self._real.look(argv, timeout_seconds=timeout_seconds, stdin=stdin, accepted=accepted, into=into)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        self.ran.append(tuple(argv))
        assert argv[0] not in self._refused, f"{argv} was not to be run"
        return self._real.change(argv, stdin=stdin, accepted=accepted)

    def programs(self) -> list[str]:
        return [argv[0] for argv in self.ran]
