"""A copy has its source's file system, UUID and all: both are mounted, each on its own device.

Here, and once more in the VM (the lvm shard), whose kernel knows a btrfs by its UUID alone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from csi.fs import btrfs, mount_table
from csi.fs.device import looked_up
from csi.fs.volumes import FileSystemStats, StageRequest
from tests.host.fs_rig import KIB, KINDS, MIB, SIZE, Disk, Node, ran
from tests.host.test_fs_growth import require_growth
from ullage.errors import ConflictError, PreconditionError, VolumeInUseError

PIECE = b"what was durable when the copy was made".ljust(4 * KIB, b".")
PIECES = 64
BEFORE_67 = pytest.mark.skipif(btrfs.are_told_apart(), reason="Linux 6.7 and later; the VM's lvm shard does it")
SUPERBLOCK = slice(64 * KIB, 68 * KIB)


@contextmanager
def _frozen(place: Path) -> Iterator[None]:
    ran("fsfreeze", "--freeze", str(place))
    try:
        yield
    finally:
        ran("fsfreeze", "--unfreeze", str(place))


def _in_use(node: Node, kind: str, *, mkfs: tuple[str, ...] = ()) -> Disk:
    """A volume that is mounted, with a file of which all is durable, and most of it in the log only."""
    disk = node.disk(SIZE[kind])
    if mkfs:
        ran(f"mkfs.{kind}", "-q", *mkfs, disk.path)
    node.stage(disk, kind)
    descriptor = os.open(node.staging / "file", os.O_CREAT | os.O_WRONLY)
    for _ in range(PIECES):
        os.write(descriptor, PIECE)
        os.fsync(descriptor)
    os.close(descriptor)
    return disk


def _copy(node: Node, source: Disk, size: int = 0) -> Disk:
    """What a snapshot of this moment holds; larger, if so asked."""
    file = node.root / f"{len(node.disks)}.img"
    ran("cp", "--reflink=auto", "--sparse=always", str(source.file), str(file))
    if size:
        os.truncate(file, size)
    return node.attached(file)


def _staged(node: Node, disk: Disk, kind: str, name: str = "copy", *, is_read_only: bool = False) -> Path:
    """Staged as a copy, under this volume id."""
    place = node.root / f"staging {name}"
    request = StageRequest(device_path=disk.path, fs_type=kind, is_read_only=is_read_only, copy_id=name)
    node.fs.stage(request, place)
    return place


def _uuid(disk: Disk) -> str:
    return ran("blkid", "-p", "-s", "UUID", "-o", "value", disk.path).strip()


def _superblock(disk: Disk) -> bytes:
    with Path(disk.path).open("rb", buffering=0) as device:
        return os.pread(device.fileno(), 4 * KIB, SUPERBLOCK.start)


@pytest.mark.parametrize("is_frozen", [False, True], ids=["in use", "frozen"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_and_its_source_are_mounted_side_by_side(node: Node, kind: str, *, is_frozen: bool) -> None:
    source = _in_use(node, kind)
    if is_frozen:
        with _frozen(node.staging):
            copy = _copy(node, source)
    else:
        copy = _copy(node, source)
    (node.staging / "only the source's").write_text("s")
    places = {node.staging: source, _staged(node, copy, kind): copy}
    (node.root / "staging copy" / "only the copy's").write_text("c")
    for place, disk in places.items():
        (mounted,) = mount_table.at(place)
        assert mounted.device_number() == looked_up(disk.path).number
        assert (place / "file").read_bytes() == PIECE * PIECES
    for _ in range(2):  # at the second time each is mounted alone, the copy first
        assert (node.staging / "only the source's").exists()
        assert not (node.staging / "only the copy's").exists()
        assert [path.name for path in (node.root / "staging copy").glob("only*")] == ["only the copy's"]
        for place in places:
            node.fs.unstage(place)
        _staged(node, copy, kind)
        node.stage(source, kind)
    if kind != "btrfs" or btrfs.are_told_apart():
        assert _uuid(source) == _uuid(copy), "no UUID is regenerated"


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_copy_has_its_file_system_grown_when_it_is_staged(node: Node, kind: str) -> None:
    require_growth(kind)
    source = _in_use(node, kind)
    copy = _copy(node, source, 3 * SIZE[kind])
    place = _staged(node, copy, kind)
    stats = node.fs.stats(copy.path, place)
    assert isinstance(stats, FileSystemStats)
    assert stats.total_bytes > 2.5 * SIZE[kind]
    (place / "more").write_bytes(bytes(2 * SIZE[kind]))
    assert (place / "file").read_bytes() == PIECE * PIECES
    assert (node.staging / "file").read_bytes() == PIECE * PIECES
    os.sync()
    before = node.fs.stats(source.path, node.staging)
    assert isinstance(before, FileSystemStats)
    assert before.total_bytes <= SIZE[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_what_was_in_use_is_whole_for_reading_only_too(node: Node, kind: str) -> None:
    """Its log is replayed, which writes: it is a volume of its own, and what was fsynced is in the log."""
    source = _in_use(node, kind)
    copy = _copy(node, source, 2 * SIZE[kind])
    for _ in range(2):
        place = _staged(node, copy, kind, is_read_only=True)
        assert (place / "file").read_bytes() == PIECE * PIECES
        with pytest.raises(OSError, match="Read-only"):
            (place / "other").touch()
        node.fs.unstage(place)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_was_used_keeps_nobody_from_mounting_its_source(node: Node, kind: str) -> None:
    """Linux before 6.7 takes the newer one of two btrfs that it has seen, and refuses the other."""
    source = _in_use(node, kind)
    copy = _copy(node, source)
    node.fs.unstage(node.staging)
    for is_read_only in (True, False):
        place = _staged(node, copy, kind, is_read_only=is_read_only)
        if not is_read_only:
            for number in range(5):
                (place / f"{number}").touch()
                ran("sync", "-f", str(place))
        node.fs.unstage(place)
        ran("btrfs", "device", "scan", copy.path, accepted=(0, 1))
        node.stage(source, kind)
        assert sorted(path.name for path in node.staging.iterdir() if path.name != "lost+found") == ["file"]
        node.fs.unstage(node.staging)


@pytest.mark.parametrize("checksum", ["crc32c", "sha256", "blake2"])
def test_a_btrfs_gets_a_uuid_of_its_own_and_loses_nothing(node: Node, checksum: str) -> None:
    source = _in_use(node, "btrfs", mkfs=("--csum", checksum))
    copy = _copy(node, source, 2 * SIZE["btrfs"])
    second = _copy(node, source)
    old, wanted = _uuid(source), btrfs.own_uuid("copy")
    before = _superblock(copy)
    assert before[0x60:0x68] != bytes(8), "it has a log"
    for _ in range(2):
        btrfs.give(looked_up(copy.path), wanted)
        assert _uuid(copy) == str(wanted)
    differing = {number for number, (a, b) in enumerate(zip(before, _superblock(copy), strict=True)) if a != b}
    assert differing <= {*range(0x30), *range(0xBC, 0xC4), *range(0x23B, 0x24B)}
    place = _staged(node, copy, "btrfs", "copy")
    assert (place / "file").read_bytes() == PIECE * PIECES
    assert (btrfs.SYSFS / str(wanted) / "devices" / Path(copy.path).name).exists()
    stats = node.fs.stats(copy.path, place)
    assert isinstance(stats, FileSystemStats)
    assert stats.total_bytes == 2 * SIZE["btrfs"]
    btrfs.give(looked_up(second.path), btrfs.own_uuid("second"))
    assert (_staged(node, second, "btrfs", "second") / "file").read_bytes() == PIECE * PIECES
    of_copy = _copy(node, copy)
    btrfs.give(looked_up(of_copy.path), btrfs.own_uuid("of copy"))
    assert (_staged(node, of_copy, "btrfs", "of copy") / "file").read_bytes() == PIECE * PIECES
    for name in ("copy", "second", "of copy"):
        node.fs.unstage(node.root / f"staging {name}")
    for disk in (copy, second, of_copy):
        ran("btrfs", "check", disk.path)
        assert f"metadata_uuid\t\t{old}" in ran("btrfs", "inspect-internal", "dump-super", disk.path)


def _checksummed(superblock: bytes) -> bytes:
    return btrfs.crc32c(superblock[32:]).to_bytes(4, "little").ljust(32, b"\0") + superblock[32:]


def _with(offset: int, new: bytes) -> bytes:
    """An offset, and the bytes there, of a superblock that is otherwise right."""
    return struct.pack("<Q", offset) + new


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_with(0x38, struct.pack("<Q", 1 | 1 << 36)), "flags"),
        (_with(0x38, struct.pack("<Q", 1 | 1 << 32)), "flags"),
        (_with(0x88, struct.pack("<Q", 2)), "2 devices"),
        (_with(0x11B, bytes(16)), "another file system"),
        (_with(0xC4, struct.pack("<H", 1)), "checksums"),
        (_with(0x30, struct.pack("<Q", 64 * MIB)), "no superblock"),
        (_with(0x00, b"torn"), "wrong checksum"),
    ],
)
def test_a_superblock_that_is_not_as_expected_is_left_as_it_is(node: Node, change: bytes, why: str) -> None:
    disk = node.disk(SIZE["btrfs"])
    ran("mkfs.btrfs", "-q", disk.path)
    offset, new = *struct.unpack("<Q", change[:8]), change[8:]
    superblock = bytearray(_superblock(disk))
    superblock[offset : offset + len(new)] = new
    disk.put(SUPERBLOCK.start, bytes(superblock) if offset == 0 else _checksummed(bytes(superblock)))
    before = disk.digest()
    with pytest.raises(PreconditionError, match=why):
        btrfs.give(looked_up(disk.path), btrfs.own_uuid("copy"))
    assert disk.digest() == before


def test_what_is_mounted_gets_no_other_uuid(node: Node) -> None:
    disk = _in_use(node, "btrfs")
    before = _superblock(disk)
    with pytest.raises(VolumeInUseError):
        btrfs.give(looked_up(disk.path), btrfs.own_uuid("copy"))
    assert _superblock(disk) == before


def test_each_copy_has_its_uuid_and_always_the_same() -> None:
    ids = [f"pvc-{number}" for number in range(100)]
    assert len({btrfs.own_uuid(each) for each in ids}) == len(ids)
    assert str(btrfs.own_uuid("pvc-1")) == "756c6c61-6765-8286-8e1a-a7cab669517c", "also in the next release"


@BEFORE_67
def test_a_btrfs_of_a_uuid_that_is_mounted_already_is_refused_and_told_why(node: Node) -> None:
    """No copy of ours: somebody made it beside us."""
    source = _in_use(node, "btrfs")
    twin = _copy(node, source)
    before = twin.digest()
    with pytest.raises(PreconditionError, match="takes the two for one"):
        node.fs.stage(StageRequest(device_path=twin.path, fs_type="btrfs"), node.root / "other")
    assert mount_table.at(node.root / "other") == ()
    assert (node.staging / "file").read_bytes() == PIECE * PIECES
    assert twin.digest() == before


def test_a_btrfs_is_where_the_kernel_has_it_open_and_not_where_its_path_leads_now(node: Node) -> None:
    source = _in_use(node, "btrfs")
    copy = _copy(node, source)
    node.fs.unstage(node.staging)
    path, aside = node.root / "device", node.root / "aside"
    os.mknod(path, 0o60600, looked_up(source.path).number)
    request = StageRequest(device_path=str(path), fs_type="btrfs")
    node.fs.stage(request, node.staging)
    path.rename(aside)
    os.mknod(path, 0o60600, looked_up(copy.path).number)
    with pytest.raises(ConflictError, match="another file system of the UUID"):
        node.fs.stage(request, node.staging)
