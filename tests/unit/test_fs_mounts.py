"""The exact arguments of mount(8) and umount(8), and what their refusals mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from csi.fs import mount_flags, probe, staging
from csi.fs.kinds import KINDS, named
from csi.fs.mounts import bind, mount
from csi.fs.staging import StageRequest
from csi.fs.volumes import FileSystems
from tests.unit.fs_doubles import Scripted
from ullage.errors import (
    CommandFailedError,
    FileSystemDamagedError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
)
from ullage.run import PACKAGES

CONTEXT = 'context="system_u:object_r:container_file_t:s0:c1,c2"'
PLACE = Path("/var/lib/kubelet/staging")


def options(kind: str, *flags: str, is_read_only: bool = False) -> str:
    request = StageRequest(device_path="/dev/x", mount_flags=flags, is_read_only=is_read_only)
    return staging._options(named(kind), request)


def test_a_context_is_one_flag_with_its_commas() -> None:
    runner = Scripted({})
    mount(runner, named("xfs"), "/dev/vg0/a", PLACE, options("xfs", "noatime", CONTEXT))
    assert runner.changes == [
        ("mount", "-t", "xfs", "-o", f"nouuid,noatime,{CONTEXT}", "/dev/vg0/a", "/var/lib/kubelet/staging")
    ]


def test_without_flags_there_is_no_option() -> None:
    runner = Scripted({})
    mount(runner, named("ext4"), "/dev/vg0/a", PLACE, options("ext4"))
    bind(runner, "/dev/vg0/a", PLACE)
    assert runner.changes == [
        ("mount", "-t", "ext4", "/dev/vg0/a", str(PLACE)),
        ("mount", "--bind", "/dev/vg0/a", str(PLACE)),
    ]


def test_read_only_is_said_before_the_caller_s_own_flags() -> None:
    assert options("ext4", "noload", is_read_only=True) == "ro,noload"
    assert options("xfs", "norecovery", is_read_only=True) == "nouuid,ro,norecovery"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("stderr", "meaning"),
    [
        ("mount: /x: mount(2) system call failed: Structure needs cleaning.", FileSystemDamagedError),
        ("mount: /x: can't read superblock on /dev/loop0.", FileSystemDamagedError),
        ("mount: /x: wrong fs type, bad option, bad superblock on /dev/loop0, …", PreconditionError),
        ("mount: /x: /dev/loop0 already mounted or mount point busy.", CommandFailedError),
    ],
)
def test_a_refused_mount_says_what_to_run(kind: str, stderr: str, meaning: type[Exception]) -> None:
    argv = ("mount", "-t", kind, "/dev/vg0/a", str(PLACE))
    with pytest.raises(meaning) as refusal:
        mount(Scripted({argv: (32, "", stderr)}), named(kind), "/dev/vg0/a", PLACE, "")
    assert type(refusal.value) is meaning
    if meaning is not CommandFailedError:
        assert named(kind).advice.format(device="/dev/vg0/a") in str(refusal.value)


def test_no_advice_throws_a_log_away() -> None:
    for kind in KINDS.values():
        assert "xfs_repair -L" not in kind.advice.format(device="/dev/x")
        assert "--repair /dev" not in kind.advice.format(device="/dev/x")


@pytest.mark.parametrize("path", ["relative/path", "", ".", "/", "/a/.."])
def test_a_path_that_nothing_can_be_mounted_at_is_refused_before_anything_is_run(path: str) -> None:
    fs = FileSystems(Scripted({}), is_standalone=True)
    for call in (fs.unstage, fs.unpublish):
        with pytest.raises(InvalidRequestError):
            call(Path(path))
    with pytest.raises((InvalidRequestError, NotFoundError)):
        fs.stats("/dev/null", Path(path))


def test_the_words_of_blkid_become_a_phrase() -> None:
    tags = probe._tags("DEVNAME=/dev/x\nUUID=1-2\nLABEL=a=b\nTYPE=crypto_LUKS\nUSAGE=crypto\n\n")
    assert probe._phrase(tags) == "crypto_LUKS encrypted device, LABEL a=b, UUID 1-2"
    assert probe._phrase({"PTTYPE": "gpt"}) == "gpt partition table"
    assert probe._phrase({"TYPE": "LVM2_member", "USAGE": "raid"}) == "LVM2_member RAID or LVM member"
    assert probe._phrase({"TYPE": "swap", "USAGE": "other"}) == "swap"
    assert probe._phrase({}) == "something that blkid knows"


def test_every_program_of_ours_names_its_package() -> None:
    used = {"blkid", "wipefs", "mount", "umount", "e2fsck", "resize2fs", "xfs_growfs", "btrfs"}
    assert used | {f"mkfs.{kind}" for kind in KINDS} <= set(PACKAGES)


def test_the_flags_of_a_request_tell_whether_anything_is_written() -> None:
    assert StageRequest(device_path="/dev/x", mount_flags=("noatime,ro",)).is_without_writing
    assert StageRequest(device_path="/dev/x", is_read_only=True).is_without_writing
    assert not StageRequest(device_path="/dev/x").is_without_writing
    assert mount_flags.joined() == ""
