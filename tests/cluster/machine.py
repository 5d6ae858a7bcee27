"""A node of the cluster, as far as storage sees one: file systems of its own, a kubelet's directory, an agent.

All nodes are this one machine, and a DeviceClass names one directory for all of them. So each agent lives as it does in
a container: in a mount namespace of its own, made anew for each of its lives, where the classes' directories are bind
mounts of its node's, and kubelet's directory is shared with the outside (`mountPropagation: Bidirectional`). What the
agent mounts for Pods is seen out here, and outlives it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.rigs.cluster.nodes import ROOM
from tests.rigs.host import RigError
from tests.rigs.sanity.stores import mount_points, run
from ullage.errors import GIB

MKFS: Mapping[str, Sequence[str]] = {
    "fast": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "bulk": ("mkfs.ext4", "-q", "-m", "0"),
}
"""A file system for each class: one whose files share blocks, so that snapshots are free, and one whose do not."""
CLASSES = tuple(MKFS)
SIZES: Mapping[str, int] = dict.fromkeys(MKFS, 4 * GIB)
PATIENCE_SECONDS = 20.0
"""The kernel lets go of a detached loop device's file a moment later."""
POLL_SECONDS = 0.1
IN_ITS_NAMESPACE = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 70; shift 2; done; shift; exec "$@"'
"""What runs before an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a node is to be."""

    name: str
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)
    """Of each class's file system: in bytes, and sparse."""
    labels: Mapping[str, str] = field(default_factory=dict)
    room: Mapping[str, str] = field(default_factory=lambda: ROOM)
    """What it has for Pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One node's part of this machine. `stores` are its classes' directories, as they are seen out here."""

    name: str
    stores: Mapping[str, Path]
    kubelet_root: Path
    directories: Mapping[str, Path]
    """The same as a DeviceClass names them, for every node alike; there is something only where the agent is."""

    @property
    def container(self) -> tuple[str, ...]:
        """What is put before the argv of the node's agent."""
        pairs = [str(path) for name in CLASSES for path in (self.stores[name], self.directories[name])]
        return (
            "unshare",
            "--mount",
            "--propagation",
            "unchanged",
            "--",
            "sh",
            "-c",
            IN_ITS_NAMESPACE,
            "sh",
            *pairs,
            "--",
        )

    def stir(self) -> None:
        """Say what the kernel says when the devices below the file systems change: the agents look again, soon."""
        for store in self.stores.values():
            device = store.stat().st_dev
            Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/uevent").write_text("change", encoding="ascii")


@contextmanager
def machines(folder: Path, hosts: Sequence[Host]) -> Iterator[dict[str, Machine]]:
    """Nodes below `folder`. At the end nothing of them is mounted or attached; their agents have ended by then.

    Raises RigError, also when something does not go.
    """
    volumes = folder / "volumes"
    directories = {name: volumes / name for name in CLASSES}
    try:
        # What is unmounted out here is to be unmounted in every namespace, another run's among them; what an agent
        # mounts at the classes' directories is to be seen by it alone.
        _bound(folder, "--make-shared")
        _bound(volumes, "--make-private")
        for directory in directories.values():
            directory.mkdir()
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as together:
            made = list(together.map(lambda host: _made(folder / host.name, directories, host.sizes), hosts))
        yield {each.name: each for each in made}
    finally:
        _clear(folder)


def _made(place: Path, directories: Mapping[str, Path], sizes: Mapping[str, int]) -> Machine:
    root = place / "kubelet"
    _bound(root, "--make-shared")
    stores = {name: place / name for name in CLASSES}
    for name, store in stores.items():
        image = store.with_suffix(".disk")
        with image.open("wb") as file:
            file.truncate(sizes[name])
        run(*MKFS[name], str(image))
        store.mkdir()
        run("mount", "-o", "loop", str(image), str(store))
    return Machine(name=place.name, stores=stores, kubelet_root=root, directories=directories)


def _bound(directory: Path, propagation: str) -> None:
    """A mount point, made if it is not there. It shares with its copies only, not with what it lies on.

    Else what is mounted below is mounted twice at its place, and unmounted at once.
    """
    directory.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", str(directory), str(directory))
    run("mount", "--make-private", str(directory))
    run("mount", propagation, str(directory))


def attached(store: Path) -> list[tuple[str, int]]:
    """Loop devices on files of the file system that is mounted here, each with its file's inode.

    By the file system's number: the path is one of whichever namespace it was opened in.
    """
    device = store.stat().st_dev
    mine = f"{os.major(device)}:{os.minor(device)}"
    told = run("losetup", "--json", "--output", "NAME,BACK-MAJ:MIN,BACK-INO")
    found = json.loads(told)["loopdevices"] if told else ()
    return [(each["name"], int(each["back-ino"])) for each in found if (each["back-maj:min"] or "").strip() == mine]


def _clear(folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while points := [point for point in mount_points(folder.parent) if point == folder or folder in point.parents]:
        if time.monotonic() > deadline:
            raise RigError(f"still mounted after {PATIENCE_SECONDS:.0f} s: {', '.join(map(str, points))}")
        for point in reversed(points):
            if point.name in CLASSES:
                for device, _ in attached(point):
                    run("losetup", "--detach", device, is_checked=False)
            run("umount", "--quiet", str(point), is_checked=False)
        time.sleep(POLL_SECONDS)
