"""A mkfs that was killed: the next stage makes the file system after all, and nobody's data is ever in the way.

The kernel sees exactly what was written until then: mkfs is ended (by strace) at one of its writes, the first ones, the
last ones, and some between.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from csi.fs.volumes import StageRequest
from tests.host.fs_rig import KINDS, SIZE, Disk, Node, ran
from ullage.errors import CommandFailedError, ForeignContentError
from ullage.run import Finished, Subprocesses

SIGKILL = 9
KILLS = 12


class KillsMkfs:
    """A Runner under which mkfs dies at its nth write, if it has so many."""

    def __init__(self, write: int, log: Path) -> None:
        self._real, self._write, self._log = Subprocesses(), write, log

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
        if argv[0].startswith("mkfs."):
            kill = f"inject=pwrite64:signal=KILL:when={self._write}"
            argv = ("strace", "-f", "-o", str(self._log), "-e", "trace=pwrite64", "-e", kill, *argv)
        return self._real.change(argv, stdin=stdin, accepted=accepted)


def writes_of_mkfs(node: Node, kind: str) -> int:
    """How many there are, undisturbed."""
    log = node.root / "strace"
    node.runner = KillsMkfs(60_000, log)
    node.stage(node.disk(SIZE[kind]), kind)
    node.fs.unstage(node.staging)
    return len(re.findall(r"^\d+ +pwrite64", log.read_text(), re.MULTILINE))


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_stage_makes_what_a_killed_mkfs_did_not(node: Node, kind: str) -> None:
    writes = writes_of_mkfs(node, kind)
    assert writes > KILLS
    ends = {*range(1, 6), *range(6, writes, writes // KILLS), *range(writes - 4, writes + 1)}
    deaths = 0
    for write in sorted(ends):
        disk = node.disk(SIZE[kind])
        node.runner = KillsMkfs(write, node.root / "strace")
        exit_code = exit_code_of_stage(node, disk, kind)
        assert exit_code in (0, -SIGKILL)  # the number of writes differs by a few from run to run
        if exit_code:
            assert node.mounts() == ()
            deaths += 1
        node.runner = Subprocesses()
        node.stage(disk, kind)
        (node.staging / "file").write_text("works")
        node.fs.unstage(node.staging)
        assert disk.type() == kind
    assert deaths >= KILLS


def exit_code_of_stage(node: Node, disk: Disk, kind: str) -> int:
    try:
        node.stage(disk, kind)
    except CommandFailedError as failure:
        return failure.exit_code
    return 0


def unfinished_xfs(node: Node) -> Disk:
    """What is left in the middle: recognised by blkid, refused by the kernel."""
    disk = node.disk(SIZE["xfs"])
    node.runner = KillsMkfs(30, node.root / "strace")
    with pytest.raises(CommandFailedError):
        node.stage(disk, "xfs")
    node.runner = Subprocesses()
    assert disk.type() == "xfs"
    return disk


def test_an_unfinished_xfs_is_begun_again_as_xfs_only(node: Node) -> None:
    disk = unfinished_xfs(node)
    with pytest.raises(ForeignContentError):
        node.stage(disk, "ext4")
    node.stage(disk, "xfs")


@pytest.mark.parametrize(
    ("offset", "content"),
    [
        (32, b"someone"),  # a UUID that our mkfs never gives: another hand's mkfs, xfs_copy
        (128, (640).to_bytes(8, "big")),  # inodes in use: xfs_mdrestore sets the flag on a file system with files
    ],
)
def test_an_xfs_that_may_have_data_is_never_begun_again(node: Node, offset: int, content: bytes) -> None:
    disk = unfinished_xfs(node)
    disk.put(0, patched(disk, offset, content))
    before = disk.digest()
    with pytest.raises(Exception, match=r"xfs_repair|kernel refused"):
        node.stage(disk, "xfs")
    assert disk.digest() == before


def test_an_xfs_in_use_is_never_begun_again(node: Node) -> None:
    disk = node.disk(SIZE["xfs"])
    node.stage(disk, "xfs")
    for number in range(100):
        (node.staging / str(number)).write_text("kept")
    node.fs.unstage(node.staging)
    disk.put(0, patched(disk, 126, b"\1"))  # sb_inprogress, as a tool that was killed leaves it
    before = disk.digest()
    with pytest.raises(Exception, match=r"xfs_repair|kernel refused"):
        node.stage(disk, "xfs")
    assert disk.digest() == before


def patched(disk: Disk, offset: int, content: bytes) -> bytes:
    sector = bytearray(disk.file.read_bytes()[:512])
    sector[offset : offset + len(content)] = content
    return bytes(sector)


def test_a_hostile_mke2fs_conf_changes_nothing(node: Node) -> None:
    """In a mount namespace of its own, with another /etc/mke2fs.conf."""
    hostile = node.root / "mke2fs.conf"
    hostile.write_text(
        "[defaults]\nbase_features = sparse_super,large_file\nblocksize = 1024\ninode_size = 128\n"
        "inode_ratio = 65536\nreserved_ratio = 20\nerrors = panic\n"
        "[fs_types]\next4 = {\n features = bigalloc,inline_data,encrypt,casefold\n}\nsmall = {\n blocksize = 2048\n}\n"
    )
    shown = []
    for conf in (hostile, Path("/etc/mke2fs.conf")):
        disk = node.disk(SIZE["ext4"])
        script = (
            "import sys; from pathlib import Path; from csi.fs.volumes import FileSystems, StageRequest; "
            "from ullage.run import Subprocesses; "
            "FileSystems(Subprocesses(), is_standalone=True).stage(StageRequest(device_path=sys.argv[1]), "
            "Path(sys.argv[2]))"
        )
        ran(
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$1" /etc/mke2fs.conf && shift && exec "$@"',
            "sh",
            str(conf),
            str(Path(__file__).parents[2] / ".venv/bin/python"),
            "-c",
            script,
            disk.path,
            str(node.staging),
        )
        lines = ran("dumpe2fs", "-h", disk.path).splitlines()
        kept = ("Filesystem features", "Errors behavior", "Inode count", "Block", "Reserved block count", "Inode size")
        shown.append([line for line in lines if line.startswith(kept)])
    assert shown[0] == shown[1]
    features = shown[0][0].split(":")[1].split()
    assert {"has_journal", "extent", "metadata_csum", "64bit"} <= set(features)
    assert not {"orphan_file", "metadata_csum_seed", "casefold", "inline_data"} & set(features)


def test_xfs_and_btrfs_have_what_linux_5_4_mounts(node: Node) -> None:
    for kind in ("xfs", "btrfs"):
        disk = node.disk(SIZE[kind])
        node.fs.stage(StageRequest(device_path=disk.path, fs_type=kind), node.root / kind)
        if kind == "xfs":
            shown = ran("xfs_info", str(node.root / kind))
            for word in ("bigtime=0", "inobtcount=0", "nrext64=0", "reflink=1", "finobt=1", "rmapbt=0", "crc=1"):
                assert word in shown.replace(" ", "")
        else:
            shown = ran("btrfs", "inspect-internal", "dump-super", disk.path)
            assert "FREE_SPACE_TREE_VALID" in shown
            assert "NO_HOLES" in shown
            assert "BLOCK_GROUP_TREE" not in shown
