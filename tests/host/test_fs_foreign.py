"""mkfs is for what is truly blank: everything else is refused by name, and not one byte of it changes."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from csi.fs.probe import BLUESTORE, BLUESTORE_OFFSETS, BTRFS_COPY_OFFSETS
from tests.host.fs_rig import GIB, KIB, KINDS, MIB, SIZE, Disk, Node, ran, require_eio_behind_the_end
from tests.host.test_wipe import SIGNATURES, Loop
from ullage.errors import DeviceError, ForeignContentError, NotFormattedError
from ullage.places import PLACES

FAT = bytearray(512)
FAT[0:3], FAT[3:11], FAT[510:512] = b"\xeb\x3c\x90", b"MSDOS5.0", b"\x55\xaa"
struct.pack_into("<HBHBHHBHHH", FAT, 11, 512, 4, 4, 2, 512, 0, 0xF8, 64, 32, 2)
struct.pack_into("<I", FAT, 32, 131072)
FAT[38], FAT[54:62] = 0x29, b"FAT16   "


def _put(*pieces: tuple[int, bytes]) -> Callable[[Loop], None]:
    def make(disk: Loop) -> None:
        for offset, content in pieces:
            disk.put(offset, content)

    return make


def _ran(*argv: str) -> Callable[[Loop], None]:
    def make(disk: Loop) -> None:
        ran(*argv, disk.path)

    return make


def _two(disk: Loop) -> None:
    """An old swap signature in a new xfs: blkid calls it ambivalent."""
    ran("mkfs.xfs", "-q", disk.path)
    disk.put(4096 - 10, b"SWAPSPACE2")
    disk.put(1024, struct.pack("<III", 1, 1000, 0))


FOREIGN: dict[str, tuple[int, Callable[[Loop], None]]] = {
    **{name: made for name, made in SIGNATURES.items() if name not in KINDS},
    "ext2": (96 * MIB, _ran("mkfs.ext2", "-q", "-F")),
    "ext3": (96 * MIB, _ran("mkfs.ext3", "-q", "-F")),
    "vfat": (96 * MIB, _put((0, bytes(FAT)), (2 * KIB, b"\xf8\xff\xff\xff"))),
    "iso9660": (96 * MIB, _put((32 * KIB, b"\1CD001\1".ljust(2048, b" ")), (34 * KIB, b"\xffCD001\1"))),
    "squashfs": (96 * MIB, _put((0, b"hsqs".ljust(28, b"\0") + struct.pack("<HH", 4, 0)))),
    "at once": (320 * MIB, _two),
    "damaged xfs superblock": (96 * MIB, _put((0, b"XFSB"))),
    **{
        f"copy of a btrfs superblock {offset}": (offset + GIB, _put((offset + 0x40, b"_BHRfS_M")))
        for offset in BTRFS_COPY_OFFSETS
    },
    **{
        f"BlueStore label {offset}": (offset + GIB, _put((offset, BLUESTORE + b"0123\n")))
        for offset in BLUESTORE_OFFSETS[1:]
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_content_is_named_and_left_as_it_is(node: Node, name: str, kind: str) -> None:
    size, make = FOREIGN[name]
    disk = node.disk(max(size, SIZE[kind] + size % MIB))
    make(Loop(disk.path, disk.file, disk.size))
    os.sync()
    before = disk.digest()
    with pytest.raises(ForeignContentError) as refusal:
        node.stage(disk, kind)
    os.sync()
    assert disk.digest() == before
    first = {"gpt": "gpt partition table", "dos": "dos partition table", "at once": "several things at once: "}.get(
        name, name.split(maxsplit=1)[0]
    )
    assert first in str(refusal.value)
    assert "blkdiscard --zeroout" in str(refusal.value)
    assert node.mounts() == ()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_refused_is_taken_after_the_advice_was_followed(node: Node, kind: str) -> None:
    disk = node.disk(2 * GIB)
    disk.put(GIB, BLUESTORE)
    with pytest.raises(ForeignContentError, match=r"at 1\.0 GiB"):
        node.stage(disk, kind)
    ran("blkdiscard", "--zeroout", disk.path)
    node.stage(disk, kind)


def test_the_places_that_a_wipe_empties_are_those_that_keep_mkfs_away() -> None:
    """Otherwise a volume that was wiped could be refused for ever."""
    wiped = {place.offset_bytes for place in PLACES}
    assert {*BLUESTORE_OFFSETS, *BTRFS_COPY_OFFSETS} <= wiped


def unreadable(node: Node, good_bytes: int) -> Disk:
    """A disk that answers EIO behind its first bytes: its file is shorter than it is."""
    disk = node.disk(SIZE["xfs"])
    os.truncate(disk.file, good_bytes)
    Path("/proc/sys/vm/drop_caches").write_text("3")
    require_eio_behind_the_end(disk)
    return disk


@pytest.mark.parametrize("good_bytes", [0, 128 * KIB, 8 * MIB, 128 * MIB])
def test_a_device_that_cannot_be_read_is_never_taken_for_blank(node: Node, good_bytes: int) -> None:
    """Of each of them blkid says that there is nothing."""
    disk = unreadable(node, good_bytes)
    probed = subprocess.run(["blkid", "-p", disk.path], check=False, capture_output=True)
    assert (probed.returncode, probed.stdout) == (2, b"")
    with pytest.raises(DeviceError, match="cannot be read"):
        node.stage(disk)
    assert disk.file.stat().st_size == good_bytes
    assert disk.digest() == unreadable(node, good_bytes).digest()


def test_bytes_that_are_no_signature_are_no_content(node: Node) -> None:
    """A class without a wipe hands out what an earlier volume left: that is no reason to refuse."""
    disk = node.disk(SIZE["xfs"])
    for offset in range(0, 16 * MIB, MIB):
        disk.put(offset, b"an earlier tenant's row of data\n" * (MIB // 32))
    for kind in KINDS:
        node.stage(disk, kind)
        node.fs.unstage(node.staging)
        ran("wipefs", "--all", "--quiet", disk.path)


def test_a_blank_device_stays_blank_when_it_is_to_be_read_only(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    with pytest.raises(NotFormattedError):
        node.stage(disk, is_read_only=True)
    assert disk.digest() == node.disk(SIZE["ext4"]).digest()
