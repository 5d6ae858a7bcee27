"""What changed between two snapshots of a file, told without reading either: base and changes make the target."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from node_agent.backends.file import extents
from tests.host.copies_rig import CLONING, content, derived, directory_on, rebuilt, written
from tests.host.file_rig import MIB, Rig, ran
from ullage.errors import InvalidRequestError, NotFoundError, PreconditionError
from ullage.model import ByteRange, Volume, VolumeKind

BLOCK = 4096
SIZE_BYTES = 4 * MIB
BLKDISCARD = 0x1277
SHARING = pytest.mark.parametrize("kind", CLONING)
Change = tuple[str, int, int]
"""What, and where: first block and blocks."""
CHANGES = some.lists(
    some.tuples(
        some.sampled_from(["write", "zero", "discard", "the same"]),
        some.integers(0, SIZE_BYTES // BLOCK - 1),
        some.integers(1, 64),
    ),
    max_size=12,
)
ROUNDS = 25
"""For each kind of file system and of volume."""


@pytest.fixture
def rig(root: Path, kind: str) -> Rig:
    return Rig(directory_on(kind, root))


def done(volume: Volume, changes: list[Change], fill: int) -> set[int]:
    """Do them to the device; the blocks that were touched."""
    touched: set[int] = set()
    descriptor = os.open(volume.device_path, os.O_RDWR)
    try:
        for what, first, blocks in changes:
            here = range(first, min(first + blocks, SIZE_BYTES // BLOCK))
            touched.update(here)
            offset, size = here.start * BLOCK, len(here) * BLOCK
            match what:
                case "write":
                    os.pwrite(descriptor, os.urandom(size // 2) + bytes([fill]) * (size // 2), offset)
                case "zero":
                    os.pwrite(descriptor, bytes(size), offset)
                case "the same":
                    os.pwrite(descriptor, os.pread(descriptor, size, offset), offset)
                case _:
                    os.fsync(descriptor)
                    fcntl.ioctl(descriptor, BLKDISCARD, struct.pack("=QQ", offset, size))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return touched


def blocks_of(ranges: list[ByteRange]) -> Iterator[int]:
    for each in ranges:
        yield from range(each.offset_bytes // BLOCK, -(-(each.offset_bytes + each.size_bytes) // BLOCK))


@SHARING
@pytest.mark.parametrize("is_sparse", [False, True], ids=["preallocated", "sparse"])
def test_base_and_changes_make_the_target_and_allocated_ranges_make_the_base(
    root: Path, kind: str, *, is_sparse: bool
) -> None:
    rig = Rig(directory_on(kind, root), is_sparse=is_sparse)
    origin = rig.create(mib=SIZE_BYTES // MIB)

    @settings(max_examples=ROUNDS, deadline=None, suppress_health_check=list(HealthCheck))
    @given(between=CHANGES, meanwhile=CHANGES)
    def holds(between: list[Change], meanwhile: list[Change]) -> None:
        base = derived(rig, "s-base", origin)
        touched = done(origin, between, 2)
        target = derived(rig, "s-target", origin)
        done(origin, meanwhile, 3)
        changed = list(rig.backend.changed(base, target))
        whole = content(rig, target.id)
        assert rebuilt(content(rig, base.id), whole, changed) == whole
        assert set(blocks_of(changed)) <= touched, "and no more than was touched"
        for each in (base, target):
            whole = content(rig, each.id)
            assert rebuilt(bytes(SIZE_BYTES), whole, list(rig.backend.allocated(each))) == whole
        assert list(rig.backend.changed(target, base)) == changed
        assert list(rig.backend.changed(base, base)) == []
        for each in (base, target):
            rig.backend.remove(each)

    holds()


@SHARING
def test_a_volume_that_grew_in_between_has_changed_where_it_was_written_to(rig: Rig) -> None:
    origin = rig.create()
    base = derived(rig, "s-1", origin)
    origin = rig.expand(16)
    written(origin, 12 * MIB, b"new" * BLOCK)
    target = derived(rig, "s-2", origin)
    assert list(rig.backend.changed(base, target)) == [ByteRange(offset_bytes=12 * MIB, size_bytes=3 * BLOCK)]


@SHARING
def test_a_snapshot_of_a_copy_is_compared_with_what_the_copy_began_as(rig: Rig) -> None:
    """A restored volume goes on where its snapshot was: only what it wrote since is different."""
    origin = rig.create()
    written(origin, 0, b"old" * BLOCK)
    base = derived(rig, "s-1", origin)
    copy = derived(rig, "b", base, VolumeKind.VOLUME)
    rig.backend.remove(origin)
    written(copy, BLOCK, b"n" * BLOCK)
    target = derived(rig, "s-2", copy)
    assert list(rig.backend.changed(base, target)) == [ByteRange(offset_bytes=BLOCK, size_bytes=BLOCK)]


@pytest.mark.parametrize("kind", ["ext4"])
def test_what_was_copied_by_bytes_is_not_compared_and_its_allocated_ranges_are_known(rig: Rig) -> None:
    origin = rig.create()
    written(origin, MIB, b"x" * BLOCK)
    base, target = derived(rig, "s-1", origin), derived(rig, "s-2", origin)
    with pytest.raises(PreconditionError, match=r"copied byte by byte.*xfs or btrfs"):
        rig.backend.changed(base, target)
    assert list(rig.backend.allocated(base)) == [ByteRange(offset_bytes=MIB, size_bytes=BLOCK)]


@pytest.mark.parametrize("kind", ["btrfs"])
def test_where_bytes_are_compressed_addresses_say_nothing_and_nothing_is_compared(rig: Rig, root: Path) -> None:
    ran("mount", "-o", "remount,compress-force=zlib", str(root / "btrfs"))
    origin = Rig(rig.directory, is_sparse=True).create()
    with rig.image().open("r+b") as image:
        image.write(b"compress me" * 100000)
        os.fsync(image.fileno())
    base = derived(rig, "s-1", origin)
    with pytest.raises(PreconditionError, match="FIEMAP flags"):
        rig.backend.changed(base, base)


@SHARING
def test_what_cannot_be_told_is_refused_at_once(rig: Rig) -> None:
    origin = rig.create()
    taken = derived(rig, "s-1", origin)
    with pytest.raises(InvalidRequestError, match="is a volume"):
        rig.backend.changed(origin, taken)
    with pytest.raises(InvalidRequestError, match="is a volume"):
        rig.backend.allocated(origin)
    rig.backend.remove(taken)
    with pytest.raises(NotFoundError):
        rig.backend.allocated(taken)
    with pytest.raises(NotFoundError):
        rig.backend.changed(taken, taken)


@SHARING
def test_a_file_with_more_extents_than_one_answer_holds_is_read_to_its_end(rig: Rig) -> None:
    path = rig.directory / "many"
    with path.open("wb") as file:
        for block in range(0, 2 * (2 * extents.BATCH + 10), 2):
            os.pwrite(file.fileno(), b"x" * BLOCK, block * BLOCK)
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(path, os.O_RDONLY)
    try:
        found = [each.offset_bytes for each in extents.extents(descriptor) if not each.flags & extents.UNWRITTEN]
        assert found == [2 * number * BLOCK for number in range(2 * extents.BATCH + 10)]
        assert extents.own_bytes(descriptor) >= len(found) * BLOCK
        assert [each.offset_bytes for each in extents.data(descriptor)] == found
    finally:
        os.close(descriptor)
