"""What the nodes of a cluster test keep their volumes on: directories, each on a file system of its own.

On XFS, whose files share blocks: snapshots cost nothing, and volumes that nobody has mounted make groups. The images
are sparse: a cluster of many nodes needs no more of the machine's disk than is written.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.rigs.host import RigError
from tests.rigs.sanity.stores import mount_points, run
from ullage.errors import GIB

SIZE_BYTES = 64 * GIB
PATIENCE_SECONDS = 10.0
"""The kernel lets go of a detached loop device's file a moment later."""


@contextmanager
def disks(folder: Path, names: Sequence[str], size_bytes: int = SIZE_BYTES) -> Iterator[dict[str, Path]]:
    """A directory by name, in `folder`. At the end all that is mounted from them or on them is unmounted.

    Whoever uses them has ended by then. Raises RigError, also when something does not go.
    """
    places = {name: folder / name for name in names}
    try:
        for place in places.values():
            _mount(place, size_bytes)
        yield places
    finally:
        _clear(folder, {_image(place) for place in places.values()})


def volumes(directory: Path) -> set[str]:
    """The ids of the volumes and snapshots that are really there."""
    return {path.stem for path in directory.glob("*.img")}


def _mount(place: Path, size_bytes: int) -> None:
    image = _image(place)
    with image.open("wb") as file:
        file.truncate(size_bytes)
    run("mkfs.xfs", "-q", "-f", "-m", "reflink=1", str(image))
    place.mkdir()
    run("mount", "-o", "loop", str(image), str(place))


def _image(place: Path) -> Path:
    return place.with_name(f"{place.name}.disk")


def _clear(folder: Path, disks: Collection[Path]) -> None:
    """A disk itself goes with its last mount, which another test's mount namespace may still have copied."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := [*mount_points(folder), *_loops(folder, disks)]:
        if time.monotonic() > deadline:
            raise RigError(f"still in use after {PATIENCE_SECONDS:.0f} s: {', '.join(map(str, left))}")
        for point in reversed(mount_points(folder)):
            run("fsfreeze", "--unfreeze", str(point), is_checked=False)
            run("umount", "--quiet", str(point), is_checked=False)
        for device in _loops(folder, disks):
            run("losetup", "--detach", device, is_checked=False)
        time.sleep(0.1)


def _loops(folder: Path, disks: Collection[Path]) -> list[str]:
    """Loop devices on files below the folder, but for the disks."""
    lines = run("losetup", "--noheadings", "--output", "NAME,BACK-FILE").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [device for device, file in pairs if file.startswith(f"{folder}/") and Path(file) not in disks]
