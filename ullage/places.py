"""Where on a device a probe looks: who wipes must reach all of it, who calls a device blank must have read it.

One list for both, so that nothing that is left by the one is overlooked by the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from ullage.errors import GIB, KIB, MIB


@dataclass(frozen=True, slots=True)
class Place:
    """Where a probe looks: an offset from the device's start or, if negative, from its end."""

    offset_bytes: int
    size_bytes: int


# Offsets as util-linux has them in libblkid/src/superblocks ("sb") and partitions ("pt"), generously rounded.
PLACES = (
    # pt: MBR at 0, GPT at block 1, BSD, Sun, SGI, Mac, Ultrix at 16 KiB less 8. sb: LVM2's label in sectors 0 to 3, md
    # 1.1 at 0 and 1.2 at 4 KiB, LUKS1 and LUKS2 at 0, BlueStore at 0, XFS at 0, ext at 1 KiB, bcache and bcachefs at
    # 4 KiB, swap at up to 64 KiB less 10, ISO 9660 at 32 KiB, UDF from 32 to 288 KiB, btrfs and ReiserFS at 64 KiB,
    # UFS at up to 256 KiB, an XFS log anywhere in 256 KiB, ZFS's labels 0 and 1 in 512 KiB, LUKS2's secondary header at
    # 16, 32, 64, 128, 256 and 512 KiB.
    Place(0, MIB),
    # sb: VMFS's volume member (vmfs.c, kboff 1024), LUKS2's secondary header (luks.c, LUKS2_HDR2_OFFSETS), UDF's anchor
    # with blocks of 4 KiB (udf.c, block 256). bcachefs-tools, docs/ondiskformat.rst: the second superblock follows the
    # room reserved for the first (up to 1 MiB, from 4 KiB on).
    Place(1 * MIB, MIB),
    # sb: VMFS's file system (vmfs.c, kboff 2048), LUKS2.
    Place(2 * MIB, MIB),
    # sb: LUKS2, the last offset of LUKS2_HDR2_OFFSETS.
    Place(4 * MIB, MIB),
    # sb: btrfs.c, the second superblock (kboff 64 * 1024); the third is at 256 GiB. Each has 4 KiB.
    Place(64 * MIB, 64 * KIB),
    Place(256 * GIB, 64 * KIB),
    # Ceph, src/os/bluestore/BlueStore.cc, bdev_label_positions: libblkid knows the first label only, Ceph reads all.
    Place(1 * GIB, MIB),
    Place(10 * GIB, MIB),
    Place(100 * GIB, MIB),
    Place(1000 * GIB, MIB),
    # pt: GPT's backup in the last 33 blocks. sb: md 0.90 in the last 128 KiB and 1.0 in the last 12 KiB
    # (linux_raid.c), ZFS's labels 2 and 3 in the last 768 KiB (zfs.c), DRBD and NILFS in the last 4 KiB, Intel, LSI,
    # Silicon, NVIDIA, VIA, Adaptec, JMicron, HighPoint in the last 8 KiB, DDF at 257 sectors, Promise at up to 3087
    # sectors (promise_raid.c). bcachefs-tools: the last superblock, in the last whole 1 MiB. LVM: a second metadata
    # area.
    Place(-2 * MIB, 2 * MIB),
)
