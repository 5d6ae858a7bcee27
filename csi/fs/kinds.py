"""The file systems a volume can have, and the least room each of them needs. Pure: the controller reads it too.

All three can be made on, and mounted by, any kernel from 5.4 on with the options of `csi.fs.mkfs`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ullage.errors import InvalidRequestError
from ullage.quoting import LONGEST, quoted
from ullage.storage_classes import LEAST_BYTES

DEFAULT = "ext4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of file system. The name is the kernel's and blkid's."""

    name: str
    minimum_bytes: int
    """Measured with the options of `csi.fs.mkfs` (e2fsprogs 1.47.0, xfsprogs 6.1.0, btrfs-progs 6.2)."""
    own_mount_options: tuple[str, ...] = ()
    """What every mount of ours has, beside what is asked for."""
    advice: str
    """What a person runs when the file system cannot be mounted; {device} is filled in."""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            name="ext4",
            minimum_bytes=LEAST_BYTES["ext4"],  # with less, mke2fs leaves the journal out and says so on a warning only
            advice="look with 'e2fsck -fn {device}', then repair with 'e2fsck -f {device}'",
        ),
        Kind(
            name="xfs",
            minimum_bytes=LEAST_BYTES["xfs"],  # mkfs.xfs refuses less since xfsprogs 5.19
            # A snapshot or clone has its origin's UUID, and xfs mounts a UUID once (xfs(5)).
            own_mount_options=("nouuid",),
            advice=(
                "look with 'xfs_repair -n {device}', then repair with 'xfs_repair {device}'; its option -L throws the "
                "log away, and the last writes with it: only on a copy"
            ),
        ),
        Kind(
            name="btrfs",
            # mkfs.btrfs takes 109 MiB (metadata twice, and apart from the data), but the kernel refuses to make one
            # of less than 256 MiB larger, if it is still less then (EINVAL, tried with 6.1 and 6.18).
            minimum_bytes=LEAST_BYTES["btrfs"],
            advice=(
                "look with 'btrfs check --readonly {device}', save files with 'mount -o ro,rescue=all {device} …'; "
                "'btrfs check --repair' only on a copy"
            ),
        ),
    )
}


def named(fs_type: str) -> Kind:
    """The kind of this name, the default for an empty one; raises InvalidRequestError."""
    kind = KINDS.get(fs_type or DEFAULT)
    if kind is None:
        raise InvalidRequestError(
            f"File system {quoted(fs_type)} is none of {', '.join(KINDS)}", fs_type=fs_type[:LONGEST]
        )
    return kind


def minimum_bytes(fs_type: str) -> int:
    """The smallest device that this file system fits on; raises InvalidRequestError for one we do not make."""
    return named(fs_type).minimum_bytes
