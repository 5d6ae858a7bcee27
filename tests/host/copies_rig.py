"""Directories of volumes on file systems that can share blocks and on one that cannot."""

from __future__ import annotations

import os
from pathlib import Path

from node_agent.backends.file.loops import attached
from node_agent.backends.port import NewVolume
from tests.host.file_rig import MIB, OWNER, Rig, ran
from ullage.capacity import Allocation
from ullage.model import ByteRange, Volume, VolumeId, VolumeKind

MKFS = {
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
}
CLONING = ("xfs", "btrfs")


def directory_on(kind: str, root: Path, size_bytes: int = 512 * MIB) -> Path:
    """A new file system under `root`, mounted. It lies in memory, so that many flushes cost nothing."""
    memory, place = root / "memory", root / kind
    memory.mkdir()
    ran("mount", "-t", "tmpfs", "tmpfs", str(memory))
    disk = memory / f"{kind}-disk"
    with disk.open("wb") as file:
        file.truncate(size_bytes)
    ran(*MKFS[kind], str(disk))
    place.mkdir()
    ran("mount", "-o", "loop", str(disk), str(place))
    return place


def derived(  # noqa: PLR0913 - what a copy is
    rig: Rig,
    name: str,
    source: Volume,
    kind: VolumeKind = VolumeKind.SNAPSHOT,
    *,
    mib: int = 0,
    needs_wipe: bool = False,
) -> Volume:
    """A copy as the agent asks for it."""
    (pool,) = rig.report().pools
    size_bytes = mib * MIB or source.size_bytes
    made = rig.backend.create(
        NewVolume(
            id=VolumeId(name),
            kind=kind,
            source=source,
            taken_at=1234567890 if kind is VolumeKind.SNAPSHOT else 0,
            device_class=rig.device_class,
            pool=pool,
            allocation=Allocation(pool=pool.name, size_bytes=size_bytes),
            owner=OWNER,
            needs_wipe=needs_wipe,
        )
    )
    assert made == rig.volume(name)
    return made


def written(volume: Volume, offset_bytes: int, content: bytes) -> None:
    """Write to the volume's device, down to its image."""
    descriptor = os.open(volume.device_path, os.O_RDWR)
    try:
        assert os.pwrite(descriptor, content, offset_bytes) == len(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content(rig: Rig, name: str) -> bytes:
    """All of a volume, through its device where it has one, as a program that reads it sees it."""
    volume = rig.volume(name)
    if volume.kind is not VolumeKind.VOLUME:
        return rig.image(name).read_bytes()
    return Path(volume.device_path).read_bytes()


def rebuilt(base: bytes, target: bytes, ranges: list[ByteRange]) -> bytes:
    """The base with the target's bytes in these ranges, which are ascending and apart."""
    whole = bytearray(base.ljust(len(target), b"\0"))
    end = -1
    for each in ranges:
        assert end < each.offset_bytes
        assert each.size_bytes > 0
        end = each.offset_bytes + each.size_bytes
        assert end <= len(target)
        whole[each.offset_bytes : end] = target[each.offset_bytes : end]
    return bytes(whole)


def loops_below(directory: Path) -> int:
    """How many loop devices are on images in a directory."""
    return sum(loop.file_path.startswith(f"{directory}/") for loop in attached())
