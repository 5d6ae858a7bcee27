"""How a file system is made: everything that matters is said, nothing is left to a configuration file or a version.

A file system made by a new mkfs must mount on an old kernel: after a change of the image, or of the node below it. So
the features are pinned to what Linux 5.4 mounts (its file-system trees; man pages ext4(5), mkfs.xfs(8), btrfs(5)):

    ext4    begins with no feature at all (`-O none`), then names each: no orphan_file (5.15), no metadata_csum_seed.
            Block size, inodes, reserve and error behaviour are named too: /etc/mke2fs.conf would set them
    xfs     no bigtime and no inobtcount (5.10), no nrext64 (5.19), no exchange and no parent (6.10), no metadir (6.13).
            Without bigtime its times end in 2038: who has no old kernels adds `-m bigtime=1` to the class
    btrfs   no-holes (3.14) and free-space-tree (4.5), no block-group-tree (6.1), data once, metadata twice

An option that an older mkfs does not know must not be given, so xfs and btrfs are asked first which they know; what
they do not know they do not do. Nothing is discarded at mkfs: the agent has done what the class says.

The class's own options come last. Where a program would refuse, or forget ours for, an option given twice, the two are
merged into one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from csi.fs.device import Device
from csi.fs.kinds import Kind
from csi.fs.superblocks import new_uuid
from ullage.errors import TIB
from ullage.run import Runner

LOOK_SECONDS = 30.0
EXT4_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
# The journal is written whole (no lazy_journal_init): an old one at the same place could be replayed after a crash.
EXT4_EXTENDED = "nodiscard,lazy_itable_init=1,lazy_journal_init=0"
XFS_PINNED = {
    "-m": ("crc=1", "finobt=1", "reflink=1", "rmapbt=0", "inobtcount=0", "bigtime=0", "metadir=0", "autofsck=0"),
    "-i": ("size=512", "sparse=1", "nrext64=0", "exchange=0"),
    "-n": ("ftype=1", "parent=0"),
    "-b": ("size=4096",),
}
BTRFS_ON = ("extref", "skinny-metadata", "no-holes", "free-space-tree")
BTRFS_OFF = ("mixed-bg", "block-group-tree", "raid-stripe-tree", "quota", "squota", "zoned")


def make(runner: Runner, kind: Kind, device: Device, own: Sequence[str], *, over_unfinished: bool = False) -> None:
    """Make the file system on a device that was found blank (or to hold what our own mkfs has left unfinished).

    `own` are the class's options, as separate arguments. Raises CommandFailedError, CommandMissingError.
    """
    runner.change(_ARGUMENTS[kind.name](runner, device, own, over_unfinished))


def _ext4(_runner: Runner, device: Device, own: Sequence[str], _over_unfinished: bool) -> list[str]:  # noqa: FBT001
    rest, features = _taken(own, "-O")
    rest, extended = _taken(rest, "-E")
    # -F: it may be a whole disk. mke2fs still refuses what is mounted; what is on it we have looked at.
    argv = ["mkfs.ext4", "-F", "-q", "-O", ",".join((EXT4_FEATURES, *features))]
    argv += ["-b", "4096", "-I", "256", "-i", str(ext4_bytes_per_inode(device.size_bytes)), "-m", "0"]
    return [*argv, "-e", "remount-ro", "-E", ",".join((EXT4_EXTENDED, *extended)), *rest, device.path]


def ext4_bytes_per_inode(size_bytes: int) -> int:
    """As the mke2fs.conf of e2fsprogs has it, but for small ones, which it gives four times as many."""
    if size_bytes < 4 * TIB:
        return 16384
    return 32768 if size_bytes < 16 * TIB else 65536


def _xfs(runner: Runner, device: Device, own: Sequence[str], over_unfinished: bool) -> list[str]:  # noqa: FBT001
    # Without a device it prints its usage and ends with 1.
    usage = runner.look(("mkfs.xfs",), timeout_seconds=LOOK_SECONDS, accepted=(0, 1, 2))
    known = usage.stderr + usage.stdout
    argv = ["mkfs.xfs", "-q", "-K"]
    for option, pinned in XFS_PINNED.items():
        _, theirs = _taken(own, option)
        named = {word.partition("=")[0] for value in theirs for word in value.split(",")}
        words = [word for word in pinned if word.partition("=")[0] not in named and _names(known, word)]
        argv += [option, ",".join(words)] if words else []
    if not any("uuid=" in value for value in _taken(own, "-m")[1]):
        argv += ["-m", f"uuid={new_uuid(os.urandom(10))}"]
    # Without -f it looks for itself, and refuses what it finds.
    return [*argv, *(["-f"] if over_unfinished else []), *own, device.path]


def _names(usage: str, word: str) -> bool:
    return f"{word.partition('=')[0]}=" in usage


def _btrfs(runner: Runner, device: Device, own: Sequence[str], _over_unfinished: bool) -> list[str]:  # noqa: FBT001
    features = _btrfs_known(runner, "-O")
    argv = ["mkfs.btrfs", "-q", "-K", "-d", "single", "-m", "dup", "-s", "4096", "-n", "16384"]
    words = [*(on for on in BTRFS_ON if on in features), *(f"^{off}" for off in BTRFS_OFF if off in features)]
    argv += ["-O", ",".join(words)] if words else []
    if "free-space-tree" not in features:  # before btrfs-progs 6.3 it is a runtime feature
        argv += ["-R", "free-space-tree"] if "free-space-tree" in _btrfs_known(runner, "-R") else []
    return [*argv, *own, device.path]


def _btrfs_known(runner: Runner, option: str) -> set[str]:
    listed = runner.look(("mkfs.btrfs", option, "list-all"), timeout_seconds=LOOK_SECONDS, accepted=(0, 1))
    return {line.split()[0] for line in (listed.stdout + listed.stderr).splitlines() if " - " in line}


_ARGUMENTS: dict[str, Callable[[Runner, Device, Sequence[str], bool], list[str]]] = {
    "ext4": _ext4,
    "xfs": _xfs,
    "btrfs": _btrfs,
}


def _taken(own: Sequence[str], option: str) -> tuple[list[str], list[str]]:
    """Arguments without this option, and the values it had (`-O x` or `-Ox`)."""
    rest: list[str] = []
    values: list[str] = []
    words = iter(own)
    for word in words:
        if word == option:
            values += [value for value in [next(words, "")] if value]
        elif word.startswith(option):
            values.append(word.removeprefix(option))
        else:
            rest.append(word)
    return rest, values
