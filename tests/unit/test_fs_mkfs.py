"""The exact arguments of each mkfs, for the programs of today and of other years."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from csi.fs import kinds, mkfs
from csi.fs.superblocks import OUR_UUID_BEGIN, new_uuid
from tests.unit.fs_doubles import DEVICE, Scripted
from ullage.errors import MIB, TIB, InvalidRequestError

XFS_6_1 = """Usage: mkfs.xfs
/* metadata */    [-m crc=0|1,finobt=0|1,uuid=xxx,rmapbt=0|1,reflink=0|1,
                   inobtcount=0|1,bigtime=0|1]
/* inode size */  [-i perblock=n|size=num,maxpct=n,attr=0|1|2,
                   projid32bit=0|1,sparse=0|1,nrext64=0|1]
/* naming */      [-n size=num,version=2|ci,ftype=0|1]
/* blocksize */   [-b size=num]
"""
XFS_4_20 = """Usage: mkfs.xfs
/* metadata */    [-m crc=0|1,finobt=0|1,uuid=xxx,rmapbt=0|1,reflink=0|1]
/* inode size */  [-i log=n|perblock=n|size=num,sparse=0|1]
/* naming */      [-n log=n|size=num,version=2|ci,ftype=0|1]
/* blocksize */   [-b size=num]
"""
XFS_NEW = XFS_6_1.replace("nrext64=0|1", "nrext64=0|1,exchange=0|1").replace("ftype=0|1", "ftype=0|1,parent=0|1")
BTRFS_6_2 = """Filesystem features available:
mixed-bg            - mixed data and metadata block groups (compat=2.6.37, safe=2.6.37)
extref              - increased hardlink limit per file to 65536 (compat=3.7, safe=3.12, default=3.12)
skinny-metadata     - reduced-size metadata extent refs (compat=3.10, safe=3.18, default=3.18)
no-holes            - no explicit hole extents for files (compat=3.14, safe=4.0, default=5.15)
"""
BTRFS_6_2_RUNTIME = """Runtime features available:
quota               - quota support (qgroups) (compat=3.4)
free-space-tree     - free space tree (space_cache=v2) (compat=4.5, safe=4.9, default=5.15)
"""
BTRFS_NEW = (
    BTRFS_6_2
    + """free-space-tree     - free space tree (compat=4.5, default=5.15)
block-group-tree    - block group tree (compat=6.1, default=6.19)
"""
)


def made(kind: str, answers: dict[tuple[str, ...], tuple[int, str, str]], *own: str, over: bool = False) -> list[str]:
    runner = Scripted(answers)
    mkfs.make(runner, kinds.named(kind), DEVICE, own, over_unfinished=over)
    (argv,) = runner.changes
    return list(argv)


def xfs(usage: str, *own: str, over: bool = False) -> str:
    argv = " ".join(made("xfs", {("mkfs.xfs",): (1, "", usage)}, *own, over=over))
    return re.sub(r"uuid=756c6c61-6765-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "uuid=OURS", argv)


def btrfs(features: str, runtime: str, *own: str) -> str:
    answers: dict[tuple[str, ...], tuple[int, str, str]] = {
        ("mkfs.btrfs", "-O", "list-all"): (0, "", features),
        ("mkfs.btrfs", "-R", "list-all"): (0, "", runtime),
    }
    return " ".join(made("btrfs", answers, *own))


def test_ext4_names_everything() -> None:
    assert " ".join(made("ext4", {})) == (
        "mkfs.ext4 -F -q -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,"
        "sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum -b 4096 -I 256 -i 16384 -m 0 "
        "-e remount-ro -E nodiscard,lazy_itable_init=1,lazy_journal_init=0 /dev/vg0/pvc-1"
    )


def test_the_class_s_own_features_of_ext4_come_after_ours_and_not_instead() -> None:
    argv = made("ext4", {}, "-O", "^huge_file", "-Oquota", "-E", "stride=4", "-L", "name", "-m", "3")
    assert argv[argv.index("-O") + 1].endswith("metadata_csum,^huge_file,quota")
    assert argv[argv.index("-E") + 1].endswith("lazy_journal_init=0,stride=4")
    assert argv[-5:] == ["-L", "name", "-m", "3", "/dev/vg0/pvc-1"]
    assert (argv.count("-O"), argv.count("-E")) == (1, 1)


@pytest.mark.parametrize(("size", "ratio"), [(MIB, 16384), (4 * TIB - 1, 16384), (4 * TIB, 32768), (16 * TIB, 65536)])
def test_large_ext4_have_fewer_inodes(size: int, ratio: int) -> None:
    runner = Scripted({})
    mkfs.make(runner, kinds.named("ext4"), replace(DEVICE, size_bytes=size), ())
    (argv,) = runner.changes
    assert argv[argv.index("-i") + 1] == str(ratio)


def test_xfs_is_told_only_what_it_knows() -> None:
    assert xfs(XFS_6_1) == (
        "mkfs.xfs -q -K -m crc=1,finobt=1,reflink=1,rmapbt=0,inobtcount=0,bigtime=0 -i size=512,sparse=1,nrext64=0 "
        "-n ftype=1 -b size=4096 -m uuid=OURS /dev/vg0/pvc-1"
    )
    assert xfs(XFS_4_20) == (
        "mkfs.xfs -q -K -m crc=1,finobt=1,reflink=1,rmapbt=0 -i size=512,sparse=1 -n ftype=1 -b size=4096 "
        "-m uuid=OURS /dev/vg0/pvc-1"
    )
    assert "nrext64=0,exchange=0 -n ftype=1,parent=0 " in xfs(XFS_NEW)


def test_what_the_class_says_of_xfs_is_not_said_twice() -> None:
    argv = xfs(XFS_6_1, "-m", "bigtime=1,uuid=6c4e8c0c-0000-4000-8000-000000000000", "-isize=1024")
    assert argv == (
        "mkfs.xfs -q -K -m crc=1,finobt=1,reflink=1,rmapbt=0,inobtcount=0 -i sparse=1,nrext64=0 -n ftype=1 "
        "-b size=4096 -m bigtime=1,uuid=6c4e8c0c-0000-4000-8000-000000000000 -isize=1024 /dev/vg0/pvc-1"
    )


def test_xfs_is_forced_only_over_what_our_own_left() -> None:
    assert " -f " not in xfs(XFS_6_1)
    assert " -f " in xfs(XFS_6_1, over=True)


def test_btrfs_of_each_year_gets_the_same_features() -> None:
    pinned = "mkfs.btrfs -q -K -d single -m dup -s 4096 -n 16384 -O extref,skinny-metadata,no-holes"
    assert btrfs(BTRFS_6_2, BTRFS_6_2_RUNTIME) == f"{pinned},^mixed-bg -R free-space-tree /dev/vg0/pvc-1"
    assert btrfs(BTRFS_NEW, "") == f"{pinned},free-space-tree,^mixed-bg,^block-group-tree /dev/vg0/pvc-1"
    assert btrfs("", "", "-L", "x") == "mkfs.btrfs -q -K -d single -m dup -s 4096 -n 16384 -L x /dev/vg0/pvc-1"


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_nothing_is_discarded(kind: str) -> None:
    answers: dict[tuple[str, ...], tuple[int, str, str]] = {
        ("mkfs.xfs",): (1, "", XFS_6_1),
        ("mkfs.btrfs", "-O", "list-all"): (0, "", BTRFS_NEW),
    }
    argv = made(kind, answers)
    assert "-K" in argv or "nodiscard" in " ".join(argv)


def test_every_uuid_of_ours_is_another_and_tells_us() -> None:
    many = {new_uuid(bytes([n, *range(1, 10)])) for n in range(16)} | {
        new_uuid(bytes(9) + bytes([n])) for n in range(9)
    }
    assert len(many) == 25
    for uuid in many:
        raw = bytes.fromhex(uuid.replace("-", ""))
        assert raw[:6] == OUR_UUID_BEGIN
        assert (raw[6] & 0xF0, raw[8] & 0xC0) == (0x80, 0x80)


@pytest.mark.parametrize(
    ("name", "least"), [("", 8 * MIB), ("ext4", 8 * MIB), ("xfs", 300 * MIB), ("btrfs", 256 * MIB)]
)
def test_each_has_its_least_size(name: str, least: int) -> None:
    assert kinds.minimum_bytes(name) == least


def test_a_file_system_that_we_do_not_make_has_none() -> None:
    with pytest.raises(InvalidRequestError, match="'zfs' is none of ext4, xfs, btrfs"):
        kinds.minimum_bytes("zfs")
