"""The few bytes of a superblock that we read ourselves. Pure functions of bytes.

They say whether it is there, how large its file system is, and, for xfs, whether mkfs came to its end. blkid is asked
what a device holds; this is for what blkid does not say. A magic number counts here even where the rest is damaged: in
doubt there is something.

What a killed mkfs leaves was tried by killing each at each of its writes (e2fsprogs 1.47.0, xfsprogs 6.1.0, btrfs-progs
6.2; tests/host/test_fs_unfinished.py does it again):

    ext4    the magic number is in its last write, which follows an fsync: the device is blank until then
    btrfs   another magic number until the last writes ("!BHRfS_M"): blkid finds nothing until then
    xfs     its superblock is among its first writes, with sb_inprogress set, which the kernel refuses to mount;
            the flag is cleared by its last write

So only xfs leaves something that is seen and cannot be used. A file system that our own mkfs has begun is told by its
UUID (`OUR_UUID_BEGIN`, only our mkfs gives such), by the flag, and by having no inode but those that mkfs makes: no
kernel ever mounted it, so nobody has data there.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

READ_BYTES = 68 << 10
"""All three superblocks are in the first 68 KiB."""
OUR_UUID_BEGIN = b"ullage"
_VERSION_8 = 0x80
"""RFC 9562: a UUID whose bits are the application's."""
_XFS_OWN_INODES = 3  # the root directory and two of the real-time section


@dataclass(frozen=True, slots=True, kw_only=True)
class Superblock:
    """A file system's own word about its size; `is_unfinished`: our mkfs has begun it, and has not ended."""

    kind: str
    block_bytes: int
    blocks: int
    is_unfinished: bool = False

    def is_smaller_than(self, device_bytes: int) -> bool:
        """Whether at least one more block would fit on the device."""
        return self.block_bytes > 0 and device_bytes // self.block_bytes > self.blocks


def new_uuid(random: bytes) -> str:
    """A UUID that tells our mkfs; of 10 random bytes, 74 bits are in it."""
    version_and_variant = bytes([_VERSION_8 | random[0] & 0x0F, random[1], 0x80 | random[2] & 0x3F])
    return str(uuid.UUID(bytes=OUR_UUID_BEGIN + version_and_variant + random[3:10]))


def superblocks(beginning: bytes) -> tuple[Superblock, ...]:
    """Whose magic number is there, of ext, xfs and btrfs, in the first READ_BYTES of a device (less, if it is less)."""
    whole = beginning.ljust(READ_BYTES, b"\0")
    found = (_ext(whole[0x400:0x800]), _xfs(whole[:0x200]), _btrfs(whole[0x10000:0x11000]))
    return tuple(superblock for superblock in found if superblock is not None)


def _ext(block: bytes) -> Superblock | None:
    if block[0x38:0x3A] != b"\x53\xef":
        return None
    (low,), (log_block,) = struct.unpack_from("<I", block, 0x04), struct.unpack_from("<I", block, 0x18)
    (incompatible,), (high,) = struct.unpack_from("<I", block, 0x60), struct.unpack_from("<I", block, 0x150)
    is_64_bit = bool(incompatible & 0x80)
    # A block of more than 64 KiB is no block: a damaged superblock.
    block_bytes = 1024 << log_block if log_block <= 6 else 0  # noqa: PLR2004 (see above)
    return Superblock(kind="ext4", block_bytes=block_bytes, blocks=low | (high << 32 if is_64_bit else 0))


def _xfs(block: bytes) -> Superblock | None:
    if block[:4] != b"XFSB":
        return None
    block_bytes, blocks = struct.unpack_from(">IQ", block, 4)
    inodes, free_inodes = struct.unpack_from(">QQ", block, 128)
    is_ours = block[32:38] == OUR_UUID_BEGIN and block[38] & 0xF0 == _VERSION_8
    is_never_mounted = block[126] == 1 and 0 <= inodes - free_inodes <= _XFS_OWN_INODES
    return Superblock(kind="xfs", block_bytes=block_bytes, blocks=blocks, is_unfinished=is_ours and is_never_mounted)


def _btrfs(block: bytes) -> Superblock | None:
    if block[0x40:0x48] != b"_BHRfS_M":
        return None
    (sector_bytes,), (device_bytes,) = struct.unpack_from("<I", block, 0x90), struct.unpack_from("<Q", block, 0xD1)
    return Superblock(
        kind="btrfs", block_bytes=sector_bytes, blocks=device_bytes // sector_bytes if sector_bytes else 0
    )
