"""A volume with a file system, from its first stage to its last unstage, on real loop devices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from csi.fs import kinds
from csi.fs.volumes import BlockStats, FileSystemStats, StageRequest
from tests.host.fs_rig import GIB, KINDS, MIB, SIZE, Hurdles, Node, ran
from ullage.errors import (
    ConflictError,
    DeviceError,
    ForeignContentError,
    InvalidRequestError,
    NotFormattedError,
    NotFoundError,
    NotStagedError,
    PreconditionError,
    VolumeInUseError,
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_pod_writes_is_there_for_the_next(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    for text in ("first", "second"):
        node.stage(disk, kind)
        target = node.publish(disk)
        if text == "second":
            assert (target / "file").read_text() == "first"
        (target / "file").write_text(text)
        node.fs.unpublish(target)
        node.fs.unstage(node.staging)
    assert disk.type() == kind
    assert node.mounts() == ()
    assert not node.target().exists()
    assert list(node.staging.iterdir()) == []


def test_the_default_is_ext4(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    node.stage(disk)
    assert disk.type() == "ext4"


@pytest.mark.parametrize("kind", KINDS)
def test_ten_times_the_same_call_is_one_mount_and_one_mkfs(node: Node, kind: str) -> None:
    node.runner = runner = Hurdles()
    disk = node.disk(SIZE[kind])
    for _ in range(10):
        node.stage(disk, kind)
    for _ in range(10):
        node.publish(disk)
    assert sorted(mount.place for mount in node.mounts()) == [str(node.staging), str(node.target())]
    assert runner.programs().count(f"mkfs.{kind}") == 1
    for _ in range(2):
        node.fs.unpublish(node.target())
        node.fs.unstage(node.staging)


@pytest.mark.parametrize("kind", KINDS)
def test_the_smallest_device_is_enough_and_a_smaller_one_is_refused_blank(node: Node, kind: str) -> None:
    disk = node.disk(kinds.minimum_bytes(kind))
    node.stage(disk, kind)
    (node.staging / "file").write_bytes(bytes(MIB))
    small = node.disk(kinds.minimum_bytes(kind) - 4096)
    before = small.digest()
    with pytest.raises(InvalidRequestError, match="needs"):
        node.fs.stage(StageRequest(device_path=small.path, fs_type=kind), node.root / "other")
    assert small.digest() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_with_sectors_of_4_kib_will_do(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind] + 4096, "--sector-size", "4096")
    for _ in range(2):
        node.stage(disk, kind)
        (node.staging / "file").write_bytes(b"x" * 4096)
        node.fs.unstage(node.staging)


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_staged_read_only_is_neither_made_nor_written_nor_grown(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    with pytest.raises(NotFormattedError):
        node.stage(disk, kind, is_read_only=True)
    assert disk.type() == ""
    node.stage(disk, kind)
    node.fs.unstage(node.staging)
    disk.grow(2 * SIZE[kind])
    before = disk.digest()
    for flags in ((), ("noatime", "ro")):
        node.stage(disk, kind, *flags, is_read_only=not flags)
        target = node.publish(disk, "a", *flags)
        node.publish(disk, "a", *flags)
        with pytest.raises(OSError, match="Read-only"):
            (target / "file").touch()
        with pytest.raises(PreconditionError, match="cannot grow"):
            node.fs.expand(target, disk.path)
        node.fs.unpublish(target)
        node.fs.unstage(node.staging)
    if kind != "xfs":  # it clears stale blocks of its log on the device also when it is mounted for reading only
        assert disk.digest() == before


@pytest.mark.parametrize("kind", KINDS)
def test_read_only_is_for_one_target_and_the_others_write(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    flags = ("nosuid", "nodev", "noatime")
    node.stage(disk, kind, *flags)
    reading = node.publish(disk, "reading", *flags, is_read_only=True)
    writing = node.publish(disk, "writing", *flags)
    (writing / "file").write_text("seen")
    assert (reading / "file").read_text() == "seen"
    with pytest.raises(OSError, match="Read-only"):
        (reading / "file").write_text("not")
    (at_reading,) = (mount for mount in node.mounts() if mount.place == str(reading))
    assert {"ro", *flags} <= set(at_reading.options)
    for name, is_read_only in (("reading", False), ("writing", True)):
        with pytest.raises(ConflictError, match="published"):
            node.publish(disk, name, *flags, is_read_only=is_read_only)


def test_flags_arrive_and_other_flags_are_a_conflict(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    flags = ("noatime", "data=ordered,commit=7", "nodev")
    node.stage(disk, "ext4", *flags)
    (staged,) = node.mounts()
    assert {"noatime", "nodev"} <= set(staged.options)
    assert "commit=7" in staged.super_options
    for others in ((), ("noatime",), (*flags, "noexec")):
        with pytest.raises(ConflictError, match="otherwise"):
            node.stage(disk, "ext4", *others)
        with pytest.raises(ConflictError, match="other flags"):
            node.publish(disk, "a", *others)
    node.publish(disk, "a", *flags)
    node.publish(disk, "a", *flags)


def test_an_selinux_context_that_mount_drops_is_told_and_nothing_stays_mounted(node: Node) -> None:
    if Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("SELinux is there, and mount keeps contexts")
    disk = node.disk(SIZE["ext4"])
    with pytest.raises(PreconditionError, match="/sys/fs/selinux"):
        node.stage(disk, "ext4", "noatime", 'context="system_u:object_r:container_file_t:s0:c1,c2"')
    assert node.mounts() == ()


def test_a_place_that_has_another_volume_is_a_conflict_and_left_alone(node: Node) -> None:
    one, other = node.disk(SIZE["ext4"]), node.disk(SIZE["ext4"])
    node.stage(one)
    node.publish(one)
    before = node.mounts()
    with pytest.raises(ConflictError, match="device"):
        node.stage(other)
    with pytest.raises(NotStagedError):
        node.publish(other, "b")
    node.fs.stage(StageRequest(device_path=other.path), node.root / "elsewhere")
    with pytest.raises(ConflictError, match="shows"):
        node.fs.publish(
            other.path, node.root / "elsewhere", node.target(), mount_flags=(), is_read_only=False, is_shared=True
        )
    assert set(before) <= set(node.mounts())
    with pytest.raises(ConflictError, match="ext4 instead of xfs"):
        node.stage(one, "xfs")


@pytest.mark.parametrize("kind", KINDS)
def test_another_file_system_than_was_asked_for_is_never_made_anew(node: Node, kind: str) -> None:
    disk = node.disk(SIZE["xfs"])
    node.stage(disk, kind)
    node.fs.unstage(node.staging)
    before = disk.digest()
    for asked in set(KINDS) - {kind}:
        with pytest.raises(ForeignContentError, match=f"{kind} file system"):
            node.stage(disk, asked)
    assert disk.digest() == before


def test_a_file_system_that_we_do_not_make_is_an_invalid_request(node: Node) -> None:
    with pytest.raises(InvalidRequestError, match="ext4, xfs, btrfs"):
        node.stage(node.disk(SIZE["ext4"]), "ntfs")


@pytest.mark.parametrize("kind", KINDS)
def test_for_one_target_only_means_one(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    (node.staging / "sub").mkdir()
    sub = node.root / "sub path"
    sub.mkdir()
    ran("mount", "--bind", str(node.staging / "sub"), str(sub))  # as the kubelet does for a subPath
    node.publish(disk, is_shared=False)
    node.publish(disk, is_shared=False)
    with pytest.raises(VolumeInUseError, match="one target only"):
        node.publish(disk, "b", is_shared=False)
    assert not node.target("b").exists()
    node.publish(disk, "b", is_shared=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_volume_is_not_unmounted_and_the_sentence_says_so(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    target = node.publish(disk)
    with (target / "file").open("w"), pytest.raises(VolumeInUseError, match="busy: some process"):
        node.fs.unpublish(target)
    assert len(node.mounts()) == 2
    (target / "sub").mkdir()
    ran("mount", "-t", "tmpfs", "tmpfs", str(target / "sub"))
    with pytest.raises(VolumeInUseError, match=r"sub is mounted in it"):
        node.fs.unpublish(target)
    ran("umount", str(target / "sub"))
    node.fs.unpublish(target)


def test_mounts_that_others_stacked_are_all_taken_away(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    node.stage(disk)
    target = node.publish(disk)
    for place in (target, node.staging):
        for _ in range(3):
            ran("mount", "--bind", str(node.staging), str(place))
    node.fs.unpublish(target)
    node.fs.unstage(node.staging)
    assert node.mounts() == ()


def test_what_was_never_published_or_staged_is_unpublished_and_unstaged(node: Node) -> None:
    node.fs.unpublish(node.target())
    node.fs.unpublish(node.root / "no" / "such" / "parent")
    node.fs.unstage(node.staging)
    node.target().mkdir()
    node.fs.unpublish(node.target())
    assert not node.target().exists()


def test_files_beneath_a_mount_are_never_deleted(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    node.stage(disk)
    node.target().mkdir()
    (node.target() / "written to the root disk").write_text("kept")
    node.publish(disk)
    for _ in range(2):
        with pytest.raises(ForeignContentError, match="written to the root disk"):
            node.fs.unpublish(node.target())
    assert (node.target() / "written to the root disk").read_text() == "kept"
    file = node.target("file")
    file.write_text("kept")
    with pytest.raises(ForeignContentError):
        node.fs.unpublish(file)
    assert file.read_text() == "kept"


def test_without_a_staged_volume_nothing_is_published(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    node.staging.mkdir()
    with pytest.raises(NotStagedError):
        node.publish(disk)
    assert not node.target().exists()


def test_a_path_through_a_link_is_the_same_path(node: Node) -> None:
    (node.root / "kubelet").mkdir()
    (node.root / "link").symlink_to("kubelet")
    disk = node.disk(SIZE["ext4"])
    for _ in range(2):
        node.fs.stage(StageRequest(device_path=disk.path), node.root / "link" / "staging")
    (mount,) = node.mounts()
    assert mount.place == str(node.root / "kubelet" / "staging")
    node.fs.unstage(node.root / "link" / "staging")
    assert node.mounts() == ()


def test_a_device_by_another_name_is_the_same_device(node: Node) -> None:
    disk = node.disk(SIZE["btrfs"])
    link = node.root / "by-name"
    link.symlink_to(disk.path)
    node.fs.stage(StageRequest(device_path=str(link), fs_type="btrfs"), node.staging)
    node.stage(disk, "btrfs")
    node.publish(disk)
    assert node.fs.expand(node.target(), str(link)) == SIZE["btrfs"]


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_clone_is_mounted_beside_its_origin(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    (node.staging / "file").write_text("both")
    node.fs.unstage(node.staging)
    copy = node.root / "copy.img"
    ran("cp", "--sparse=always", str(disk.file), str(copy))
    clone = node.attached(copy)
    node.stage(disk, kind)
    node.fs.stage(StageRequest(device_path=clone.path, fs_type=kind), node.root / "clone")
    assert (node.root / "clone" / "file").read_text() == "both"


@pytest.mark.parametrize("kind", KINDS)
def test_stats_are_those_of_the_mount_and_cost_no_process(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    target = node.publish(disk)
    (target / "file").write_bytes(os.urandom(8 * MIB))
    os.sync()
    node.runner = Hurdles()
    found = node.fs.stats(disk.path, target)
    assert isinstance(found, FileSystemStats)
    assert SIZE[kind] * 0.6 < found.total_bytes <= SIZE[kind]
    assert 8 * MIB <= found.used_bytes < found.total_bytes
    assert 0 < found.available_bytes <= found.total_bytes - found.used_bytes
    assert (found.total_inodes > found.used_inodes > 0) == (kind != "btrfs")
    assert node.runner.ran == []


@pytest.mark.parametrize("path", ["some/path", "/nowhere/at/all", "/", "/proc"])
def test_stats_of_what_is_no_volume_are_not_found(node: Node, path: str) -> None:
    disk = node.disk(8 * MIB)
    with pytest.raises((NotFoundError, InvalidRequestError)):
        node.fs.stats(disk.path, Path(path))
    with pytest.raises(NotFoundError):
        node.fs.stats(disk.path, node.root)


def test_expand_of_what_is_no_mount_is_not_found(node: Node) -> None:
    disk, other = node.disk(SIZE["ext4"]), node.disk(SIZE["ext4"])
    with pytest.raises(NotFoundError):
        node.fs.expand(node.staging, disk.path)
    node.stage(disk)
    with pytest.raises(NotFoundError):
        node.fs.expand(node.staging, other.path)


def test_a_device_that_is_not_there_is_a_device_error(node: Node) -> None:
    with pytest.raises(DeviceError):
        node.fs.stage(StageRequest(device_path="/dev/nothing"), node.staging)
    with pytest.raises(DeviceError, match="not a block device"):
        node.fs.stage(StageRequest(device_path="/dev/null"), node.staging)


def test_a_class_has_its_own_options_of_mkfs(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    request = StageRequest(device_path=disk.path, mkfs_options=("-L", "its-own", "-O", "^huge_file", "-m", "3"))
    node.fs.stage(request, node.staging)
    shown = ran("dumpe2fs", "-h", disk.path)
    assert "its-own" in shown
    assert "metadata_csum" in shown
    assert "huge_file" not in shown


def test_block_stats_are_the_device_s(node: Node) -> None:
    disk = node.disk(GIB)
    target = node.publish_block(disk)
    assert node.fs.stats(disk.path, target) == BlockStats(total_bytes=GIB)
