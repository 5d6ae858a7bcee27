"""The bytes of superblocks, as their formats have them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.fs.superblocks import READ_BYTES, Superblock, superblocks

OURS, THEIRS = b"ullage\x85\xec\xac\x7b" + bytes(6), b"ullage\x45\xec\xac\x7b" + bytes(6)


def xfs(*, uuid: bytes = OURS, in_progress: int = 0, inodes: int = 64, free: int = 61) -> bytes:
    block = bytearray(READ_BYTES)
    struct.pack_into(">4sIQ", block, 0, b"XFSB", 4096, 76800)
    block[32:48], block[126] = uuid, in_progress
    struct.pack_into(">QQ", block, 128, inodes, free)
    return bytes(block)


def ext(*, blocks: int, log_block: int = 2, is_64_bit: bool = True) -> bytes:
    block = bytearray(READ_BYTES)
    struct.pack_into("<I", block, 1024 + 4, blocks & 0xFFFFFFFF)
    struct.pack_into("<I", block, 1024 + 24, log_block)
    block[1024 + 56 : 1024 + 58] = b"\x53\xef"
    struct.pack_into("<I", block, 1024 + 0x60, 0x80 if is_64_bit else 0)
    struct.pack_into("<I", block, 1024 + 0x150, blocks >> 32)
    return bytes(block)


def btrfs(size: int, sector: int = 4096) -> bytes:
    block = bytearray(READ_BYTES)
    block[0x10040:0x10048] = b"_BHRfS_M"
    struct.pack_into("<I", block, 0x10090, sector)
    struct.pack_into("<Q", block, 0x100D1, size)
    return bytes(block)


def test_nothing_is_found_in_nothing() -> None:
    assert superblocks(b"") == ()
    assert superblocks(bytes(READ_BYTES)) == ()


def test_each_says_its_size() -> None:
    assert superblocks(ext(blocks=5 << 32)) == (Superblock(kind="ext4", block_bytes=4096, blocks=5 << 32),)
    assert superblocks(ext(blocks=7 | 1 << 32, is_64_bit=False))[0].blocks == 7
    assert superblocks(xfs()) == (Superblock(kind="xfs", block_bytes=4096, blocks=76800),)
    assert superblocks(btrfs(1 << 30)) == (Superblock(kind="btrfs", block_bytes=4096, blocks=1 << 18),)


@pytest.mark.parametrize("more", [0, 1, 4095])
def test_less_than_a_block_is_no_room_to_grow(more: int) -> None:
    found = Superblock(kind="ext4", block_bytes=4096, blocks=100)
    assert not found.is_smaller_than(100 * 4096 + more)
    assert found.is_smaller_than(101 * 4096 + more)


@pytest.mark.parametrize(
    ("content", "is_unfinished"),
    [
        (xfs(in_progress=1, inodes=0, free=0), True),
        (xfs(in_progress=1), True),
        (xfs(in_progress=0), False),
        (xfs(in_progress=1, uuid=THEIRS), False),
        (xfs(in_progress=1, uuid=bytes(16)), False),
        (xfs(in_progress=1, inodes=64, free=60), False),
        (xfs(in_progress=1, inodes=0, free=1), False),
    ],
)
def test_only_what_our_mkfs_began_and_nobody_used_is_unfinished(content: bytes, *, is_unfinished: bool) -> None:
    assert superblocks(content)[0].is_unfinished is is_unfinished


@pytest.mark.parametrize("content", [ext(blocks=1, log_block=1 << 20), btrfs(1 << 30, sector=0)])
def test_a_damaged_superblock_is_still_one_and_not_to_be_grown(content: bytes) -> None:
    (found,) = superblocks(content)
    assert not found.is_smaller_than(1 << 60)


@given(st.binary(max_size=READ_BYTES))
def test_no_bytes_make_it_fail(content: bytes) -> None:
    for found in superblocks(content):
        found.is_smaller_than(1 << 40)


@given(
    st.sampled_from(["xfs", "ext", "btrfs"]),
    st.dictionaries(st.integers(0, 2047) | st.integers(0x10048, READ_BYTES - 1), st.integers(0, 255), max_size=20),
)
def test_no_bytes_behind_a_magic_number_make_it_fail(kind: str, changes: dict[int, int]) -> None:
    content = bytearray({"xfs": xfs(), "ext": ext(blocks=9), "btrfs": btrfs(9)}[kind])
    for offset, byte in changes.items():
        content[offset] = byte
    for found in superblocks(bytes(content)):
        found.is_smaller_than(1 << 40)
