"""File systems that are damaged, and devices that go away under a mount."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.host.fs_rig import KIB, KINDS, MIB, SIZE, Disk, Hurdles, Node, ran, require_eio_behind_the_end
from ullage.errors import DeviceError, FileSystemDamagedError, PreconditionError
from ullage.model import Problem


def made(node: Node, kind: str) -> Disk:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    (node.staging / "file").write_text("kept")
    node.fs.unstage(node.staging)
    return disk


def reason(problem: Problem | None) -> str:
    return problem.reason if problem else ""


def test_an_ext4_with_errors_is_repaired_where_that_is_safe_and_mounted(node: Node) -> None:
    disk = made(node, "ext4")
    ran("debugfs", "-w", "-R", "set_super_value free_blocks_count 7", disk.path)
    ran("debugfs", "-w", "-R", "set_super_value state 2", disk.path)  # "errors detected"
    node.stage(disk)
    assert (node.staging / "file").read_text() == "kept"
    node.fs.unstage(node.staging)
    ran("e2fsck", "-fn", disk.path)


def test_an_ext4_that_needs_a_person_is_refused_with_what_to_run(node: Node) -> None:
    disk = made(node, "ext4")
    ran("debugfs", "-w", "-R", "clri <2>", disk.path)  # no root directory
    ran("debugfs", "-w", "-R", "set_super_value state 2", disk.path)
    with pytest.raises(FileSystemDamagedError, match=f"e2fsck -f {disk.path}") as refusal:
        node.stage(disk)
    assert int(refusal.value.facts["exit_code"]) & 4
    assert node.mounts() == ()


def test_an_ext4_with_a_torn_superblock_is_refused(node: Node) -> None:
    disk = made(node, "ext4")
    disk.put(KIB + 0x48, b"\xff")
    before = disk.digest()
    with pytest.raises(FileSystemDamagedError, match="e2fsck"):
        node.stage(disk)
    assert disk.digest() == before


def test_an_xfs_that_the_kernel_refuses_is_left_with_what_to_run(node: Node) -> None:
    disk = made(node, "xfs")
    disk.put(64 * KIB, bytes(16 * KIB))  # the first inodes
    before = disk.digest()
    with pytest.raises(FileSystemDamagedError, match=f"xfs_repair {disk.path}") as refusal:
        node.stage(disk, "xfs")
    assert "-L throws the log away" in str(refusal.value)
    assert disk.type() == "xfs"
    assert before  # the log may have been written by the attempt


def test_a_btrfs_that_the_kernel_refuses_is_left_with_what_to_run(node: Node) -> None:
    disk = made(node, "btrfs")
    for offset in (*range(1 * MIB, 64 * MIB, MIB), *range(65 * MIB, 128 * MIB, MIB)):
        disk.put(offset, bytes(MIB))
    with pytest.raises(PreconditionError, match=f"btrfs check --readonly {disk.path}"):
        node.stage(disk, "btrfs")
    assert disk.type() == "btrfs"


def test_a_flag_that_the_file_system_does_not_know_is_told(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    with pytest.raises(PreconditionError, match="nonsense=1"):
        node.stage(disk, "ext4", "nonsense=1")
    assert node.mounts() == ()
    node.stage(disk)


def test_a_journal_is_replayed_before_the_check(node: Node) -> None:
    for kind in ("ext4", "xfs"):
        disk = node.disk(SIZE[kind])
        node.stage(disk, kind)
        (node.staging / "file").write_text("kept")
        ran("xfs_io", "-x", "-c", "fsync", str(node.staging / "file"))
        ran("xfs_io", "-x", "-c", "shutdown", str(node.staging))
        node.fs.unstage(node.staging)
        node.stage(disk, kind)
        assert (node.staging / "file").read_text() == "kept"
        node.fs.unstage(node.staging)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_dead_mount_is_seen_and_can_be_taken_away(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    target = node.publish(disk)
    assert node.fs.health(disk.path, target) is None
    ran("xfs_io", "-x", "-c", "shutdown", str(node.staging))
    if kind == "xfs" or "shutdown" in node.mounts()[0].super_options:  # ext4 says so from Linux 6.15 on
        assert reason(node.fs.health(disk.path, target)) == "FileSystemStopped"
    if kind == "xfs":
        with pytest.raises(OSError, match="Input/output"):
            target.stat()
    node.fs.unpublish(target)
    node.fs.unstage(node.staging)
    assert node.mounts() == ()
    assert not target.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_mount_whose_disk_answers_no_more_can_be_taken_away(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    target = node.publish(disk)
    (target / "file").write_bytes(bytes(range(256)) * 4096)
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    os.truncate(disk.file, 0)
    require_eio_behind_the_end(disk)
    with pytest.raises(OSError, match="Input/output"):
        (target / "file").read_bytes()
    node.fs.unpublish(target)
    node.fs.unstage(node.staging)
    assert node.mounts() == ()


def test_a_file_system_that_went_read_only_by_itself_is_seen(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    node.stage(disk)
    target = node.publish(disk)
    assert node.fs.health(disk.path, target) is None
    ran("mount", "-o", "remount,ro", disk.path, str(node.staging))
    ran("mount", "-o", "remount,bind,rw", str(node.staging))
    assert reason(node.fs.health(disk.path, target)) == "FileSystemReadOnly"


def test_what_is_read_only_on_purpose_is_well(node: Node) -> None:
    disk = made(node, "ext4")
    node.stage(disk, is_read_only=True)
    assert node.fs.health(disk.path, node.publish(disk)) is None
    assert node.fs.health(disk.path, node.publish(disk, "b", is_read_only=True)) is None


def test_health_knows_a_device_that_is_gone_and_a_mount_that_is_not_there(node: Node) -> None:
    disk = node.disk(8 * MIB)
    node.runner = Hurdles()
    assert reason(node.fs.health("/dev/nothing", node.target())) == "DeviceGone"
    assert reason(node.fs.health(disk.path, node.target())) == "NotMounted"
    target = node.publish_block(disk, is_read_only=True)
    assert node.fs.health(disk.path, target) is None
    os.truncate(disk.file, 0)
    require_eio_behind_the_end(disk)
    assert reason(node.fs.health(disk.path, target)) == "DeviceFailed"


def test_stats_of_a_dead_mount_are_an_error_and_never_nothing(node: Node) -> None:
    disk = node.disk(8 * MIB)
    target = node.publish_block(disk)
    ran("losetup", "--detach", disk.path)
    with pytest.raises(DeviceError):
        node.fs.stats(disk.path, target)
