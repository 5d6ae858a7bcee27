"""Storage for one run: made before it, searched for what was left in it, and gone after it.

What is left is read from the file system, the kernel and LVM, never from our own code.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from tests.rigs.host import RigError
from tests.rigs.sanity.cases import Storage

CLASS = "sanity"
GROUP = "ullagesanity"
POOL = "pool0"
DISKS = ("/dev/vda", "/dev/vdb")
RECORDS = {".ullage.json", "lost+found"}
"""What is in a directory of volumes without being one."""
PATIENCE_SECONDS = 10.0
"""The kernel lets go of a detached loop device's file a moment later."""
COMMAND_SECONDS = 120.0

Found = TypeVar("Found")


class Store(Protocol):
    """Where the driver makes its volumes."""

    def config(self) -> str:
        """The driver's configuration, with one device class named CLASS."""

    def left(self) -> list[str]:
        """Volumes and devices that are there, a sentence each."""

    def clear(self) -> None:
        """Remove what is left, whatever state it is in."""


@contextmanager
def made(storage: Storage, base: Path) -> Iterator[Store]:
    """The store, with its files below `base`; at the end it is gone, and nothing is mounted below `base`."""
    store = Group(is_thin=storage is Storage.THIN) if storage.is_lvm else Files(base / "volumes")
    try:
        yield store
    finally:
        for point in reversed(mount_points(base)):
            run("umount", str(point), is_checked=False)
        store.clear()


def remains(store: Store, base: Path) -> list[str]:
    """What a run left behind, after a little patience; empty when all is well."""

    def look() -> list[str]:
        mounts = [f"still mounted: {point}" for point in mount_points(base)]
        return mounts + store.left()

    return _when_empty(look)


def mount_points(base: Path) -> list[Path]:
    """Everything mounted below `base`, in the order in which it was."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [Path(line.split()[4]) for line in lines]
    return [point for point in points if base in point.parents]


class Files:
    """A directory."""

    def __init__(self, directory: Path) -> None:
        """The directory is made."""
        self._directory = directory
        directory.mkdir()

    def config(self) -> str:
        return f"deviceClasses:\n  - name: {CLASS}\n    type: file\n    directory: {self._directory}\n"

    def left(self) -> list[str]:
        files = {path.name for path in self._directory.iterdir()} - RECORDS
        told = [f"still there: {self._directory / name}" for name in sorted(files)]
        return told + [f"still attached: {device} on {file}" for device, file in self._loops()]

    def clear(self) -> None:
        for device, _ in self._loops():
            run("losetup", "--detach", device, is_checked=False)
        _when_empty(self._loops)

    def _loops(self) -> list[tuple[str, str]]:
        lines = run("losetup", "--noheadings", "--output", "NAME,BACK-FILE").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        return [(device, file) for device, file in pairs if file.startswith(f"{self._directory}/")]


class Group:
    """A volume group on the virtual machine's blank disks."""

    def __init__(self, *, is_thin: bool) -> None:
        """The group is made."""
        self._is_thin = is_thin
        missing = [name for name in ("/dev/mapper/control", *DISKS) if not Path(name).exists()]
        if missing:
            raise RigError(f"no {', '.join(missing)}: LVM runs in the VM; leave --here away")
        run("vgcreate", "--yes", "--quiet", GROUP, *DISKS)

    def config(self) -> str:
        lines = ["deviceClasses:", f"  - name: {CLASS}", f"    volumeGroups: [{GROUP}]"]
        if self._is_thin:
            pool = f"{{name: {POOL}, createSize: 4Gi, overprovisionRatio: 2}}"
            return "\n".join([*lines, "    type: thin", f"    thinPool: {pool}", ""])
        return "\n".join([*lines, "    type: thick", ""])

    def left(self) -> list[str]:
        volumes = run("lvs", "--noheadings", "--options", "lv_name", GROUP).split()
        devices = [line.split()[0] for line in run("dmsetup", "ls").splitlines() if line.startswith(f"{GROUP}-")]
        told = [f"still there: logical volume {name}" for name in volumes if name != POOL]
        return told + [f"still active: {name}" for name in devices if not name.startswith(f"{GROUP}-{POOL}")]

    def clear(self) -> None:
        run("vgremove", "--force", "--force", "--yes", "--quiet", GROUP, is_checked=False)
        run("wipefs", "--all", "--quiet", *DISKS, is_checked=False)


def run(*argv: str, is_checked: bool = True) -> str:
    """A program's output; raises RigError when it fails, unless its failure is no news."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv, check=False, capture_output=True, text=True, env=environment, timeout=COMMAND_SECONDS
        )
    except subprocess.TimeoutExpired as failure:
        raise RigError(str(failure)) from failure
    if is_checked and done.returncode != 0:
        raise RigError(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def _when_empty(look: Callable[[], list[Found]]) -> list[Found]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
