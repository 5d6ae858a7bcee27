"""A block volume: the device at a path, writable or really not."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

import pytest

from csi.fs import device, readonly_loops
from csi.fs.volumes import BlockStats
from tests.host.fs_rig import MIB, Disk, Node, ran
from ullage.errors import (
    ConflictError,
    DeviceError,
    ForeignContentError,
    PreconditionError,
    VolumeInUseError,
)

_BLKROSET = 0x125D


def number_of(path: Path | str) -> int:
    status = os.stat(path)  # noqa: PTH116 - a device node
    assert stat.S_ISBLK(status.st_mode)
    return status.st_rdev


def write(path: Path, *, flags: int = 0) -> None:
    """As root writes, to the device and through."""
    descriptor = os.open(path, os.O_RDWR | flags)
    try:
        os.pwrite(descriptor, b"x" * 4096, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@pytest.fixture
def disk(node: Node) -> Disk:
    return node.disk(8 * MIB)


def test_what_is_written_through_the_target_is_on_the_device(node: Node, disk: Disk) -> None:
    for _ in range(10):
        target = node.publish_block(disk)
    assert number_of(target) == number_of(disk.path)
    assert len(node.mounts()) == 1
    write(target)
    assert disk.file.read_bytes()[:4096] == b"x" * 4096
    assert node.fs.stats(disk.path, target) == BlockStats(total_bytes=8 * MIB)
    for _ in range(2):
        node.fs.unpublish(target)
    assert not target.exists()
    assert node.mounts() == ()


def test_read_only_means_that_root_cannot_write_whatever_it_tries(node: Node, disk: Disk) -> None:
    disk.put(0, b"kept")
    for _ in range(10):
        target = node.publish_block(disk, is_read_only=True)
    assert len(node.mounts()) == 1
    assert len(node.read_only_loops()) == 1
    before = disk.digest()
    for _ in range(2):
        with pytest.raises(OSError, match=r"not permitted|denied|Read-only") as refusal:
            write(target)
        assert refusal.value.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
        descriptor = os.open(target, os.O_RDONLY)
        fcntl.ioctl(descriptor, _BLKROSET, struct.pack("i", 0))  # blockdev --setrw, then once more
        os.close(descriptor)
    with Path(target).open("rb", buffering=0) as reader:
        assert reader.read(4) == b"kept"
    os.sync()
    assert disk.digest() == before
    assert node.fs.stats(disk.path, target) == BlockStats(total_bytes=8 * MIB)
    node.fs.unpublish(target)
    assert node.read_only_loops() == []


def test_a_read_only_volume_has_the_sectors_of_its_disk_and_direct_io(node: Node) -> None:
    disk = node.disk(8 * MIB, "--sector-size", "4096", "--direct-io=on")
    node.publish_block(disk, is_read_only=True)
    (loop,) = node.read_only_loops()
    assert ran("blockdev", "--getss", loop).strip() == "4096"
    assert (Path("/sys/block") / Path(loop).name / "loop/dio").read_text() == "1\n"


def test_read_only_and_writable_are_a_conflict_at_one_target(node: Node, disk: Disk) -> None:
    for name, is_read_only in (("a", True), ("b", False)):
        node.publish_block(disk, name, is_read_only=is_read_only)
        with pytest.raises(ConflictError):
            node.publish_block(disk, name, is_read_only=not is_read_only)
        with pytest.raises(ConflictError):
            node.publish_block(node.disk(8 * MIB), name, is_read_only=is_read_only)
    assert len(node.mounts()) == 2
    assert len(node.read_only_loops()) == 1


@pytest.mark.parametrize("is_read_only", [False, True])
def test_for_one_target_only_means_one(node: Node, disk: Disk, *, is_read_only: bool) -> None:
    for _ in range(2):
        node.publish_block(disk, is_read_only=is_read_only, is_shared=False)
    for other in (False, True):
        with pytest.raises(VolumeInUseError, match="one target only"):
            node.publish_block(disk, "b", is_read_only=other, is_shared=False)
    assert not node.target("b").exists()
    assert len(node.read_only_loops()) == is_read_only
    node.publish_block(node.disk(8 * MIB), "another volume", is_shared=False)
    node.fs.unpublish(node.target())
    node.publish_block(disk, "b", is_shared=False)


def test_several_targets_each_come_and_go(node: Node, disk: Disk) -> None:
    targets = [node.publish_block(disk, str(n), is_read_only=bool(n % 2)) for n in range(4)]
    assert len(node.read_only_loops()) == 2
    for target in targets:
        node.fs.unpublish(target)
    assert node.mounts() == ()
    assert node.read_only_loops() == []


def test_a_crash_between_the_loop_device_and_the_mount_leaves_nothing_in_the_end(node: Node, disk: Disk) -> None:
    readonly_loops.attach(device.looked_up(disk.path), node.target())
    node.publish_block(disk, is_read_only=True)
    assert len(node.read_only_loops()) == 1
    ran("umount", str(node.target()))  # and one between the unmount and the detaching
    node.fs.unpublish(node.target())
    assert node.read_only_loops() == []
    readonly_loops.attach(device.looked_up(disk.path), node.target())
    node.fs.unpublish(node.target())  # and no repetition of the publish at all
    assert node.read_only_loops() == []


def test_a_loop_device_of_another_hand_is_not_taken_and_not_detached(node: Node, disk: Disk) -> None:
    theirs = ran("losetup", "--read-only", "--find", "--show", disk.path).strip()
    try:
        target = node.publish_block(disk, is_read_only=True)
        assert number_of(target) != number_of(theirs)
        disk.grow(16 * MIB)
        node.fs.expand(target, disk.path)
        assert ran("blockdev", "--getsize64", theirs).strip() == str(8 * MIB)
        node.fs.unpublish(target)
        assert ran("losetup", "--noheadings", "--output", "BACK-FILE", theirs).strip() == disk.path
    finally:
        ran("losetup", "--detach", theirs)


def test_what_a_pod_still_has_open_goes_when_it_closes_it(node: Node, disk: Disk) -> None:
    target = node.publish_block(disk, is_read_only=True)
    with target.open("rb"), pytest.raises(VolumeInUseError, match="busy"):
        node.fs.unpublish(target)
    # A container runtime makes a node of its own, so that the target itself is not busy.
    descriptor = os.open(node.read_only_loops()[0], os.O_RDONLY)
    try:
        node.fs.unpublish(target)
        assert readonly_loops.of_target(target) == ()
        again = node.publish_block(disk, is_read_only=True)
        assert len(node.read_only_loops()) == 2
        assert os.pread(descriptor, 4, 0) == bytes(4)
        node.fs.unpublish(again)
    finally:
        os.close(descriptor)
    assert node.read_only_loops() == []


@pytest.mark.parametrize("is_read_only", [False, True])
def test_it_grows_with_its_device(node: Node, disk: Disk, *, is_read_only: bool) -> None:
    target = node.publish_block(disk, is_read_only=is_read_only)
    disk.grow(16 * MIB)
    assert node.fs.expand(target, disk.path) == 16 * MIB
    assert node.fs.stats(disk.path, target) == BlockStats(total_bytes=16 * MIB)


def test_a_node_whose_device_is_gone_is_replaced_and_unpublished(node: Node, disk: Disk) -> None:
    target = node.publish_block(disk)
    ran("losetup", "--detach", disk.path)
    with pytest.raises(DeviceError):
        node.fs.stats(disk.path, target)
    other = node.disk(8 * MIB) if number_of(disk.path) else disk
    if other.path == disk.path:  # the number was taken again: the same node, with new bytes behind it
        node.publish_block(other)
    node.fs.unpublish(target)
    assert node.mounts() == ()


def test_a_stale_node_gives_way_to_the_device_as_it_is_now(node: Node, disk: Disk) -> None:
    gone = node.disk(8 * MIB)
    target = node.publish_block(gone)
    ran("losetup", "--detach", gone.path)
    node.publish_block(disk)
    assert number_of(target) == number_of(disk.path)
    assert len(node.mounts()) == 1


def test_bytes_beneath_a_target_are_neither_covered_nor_deleted(node: Node, disk: Disk) -> None:
    target = node.target()
    target.write_text("kept")
    with pytest.raises(PreconditionError, match="no empty file"):
        node.publish_block(disk)
    with pytest.raises(ForeignContentError):
        node.fs.unpublish(target)
    assert target.read_text() == "kept"


def test_mounts_that_others_stacked_are_all_taken_away(node: Node, disk: Disk) -> None:
    target = node.publish_block(disk, is_read_only=True)
    for _ in range(3):
        ran("mount", "--bind", disk.path, str(target))
    node.fs.unpublish(target)
    assert node.mounts() == ()
    assert node.read_only_loops() == []
