"""Where a file's bytes are on its file system, and files that share them: ioctl_ficlone(2), FIEMAP and lseek(2).

A block that two files share is never written to in place: whoever writes gets another one, and the block stays where it
is for as long as one of them has it. So two files that are not written to have the same bytes wherever their blocks are
the same, and nothing has to be read to know it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ullage.errors import PreconditionError
from ullage.model import ByteRange

FICLONE, FIEMAP = 0x40049409, 0xC020660B  # linux/fs.h
HEAD, EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQ16xL12x")  # struct fiemap; of struct fiemap_extent
BATCH = 1024
FLUSH_FIRST = 0x1
LAST, UNWRITTEN, SHARED = 0x1, 0x800, 0x2000
NO_ADDRESS = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
"""UNKNOWN, DELALLOC, ENCODED (compressed), DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL: the address does not
say, or not exactly, where the bytes are."""
CANNOT_CLONE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS)
"""What kernels and file systems answer that have no shared blocks, or none of these two files."""
PIECE_BYTES = 16 << 20


class Extent(NamedTuple):
    """A run of a file that lies in one piece; the fields as the kernel orders them. UNWRITTEN ones are zeroes."""

    offset_bytes: int
    physical_bytes: int
    size_bytes: int
    flags: int

    @property
    def end_bytes(self) -> int:
        """The first byte after it."""
        return self.offset_bytes + self.size_bytes


def clone(source: int, target: int) -> None:
    """Make the file `target` what `source` is at this moment; its blocks are shared, and atomic against writes.

    Raises OSError, one of CANNOT_CLONE where that is not to be had.
    """
    fcntl.ioctl(target, FICLONE, source)


def copy(source: int, target: int, go_on: Callable[[int], None]) -> None:
    """Make the empty file `target` what `source` is, byte by byte; holes stay holes.

    `go_on` is told how many bytes are on the disk after each piece, and raises to give it up. Raises OSError.
    """
    done_bytes = 0
    for run in data(source):
        offset = run.offset_bytes
        end = offset + run.size_bytes
        while offset < end:
            moved = os.copy_file_range(source, target, min(PIECE_BYTES, end - offset), offset, offset)
            if moved == 0:
                raise OSError(errno.EIO, f"the file ended at {offset} of {end} bytes")
            offset += moved
            done_bytes += moved
            os.fdatasync(target)  # or the time would be taken at the end, in one piece
            go_on(done_bytes)
    os.ftruncate(target, os.fstat(source).st_size)


def data(descriptor: int) -> Iterator[ByteRange]:
    """Where a file may be anything but zero, ascending and apart. Raises OSError."""
    end = os.fstat(descriptor).st_size
    offset = 0
    while offset < end:
        try:
            start = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        offset = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield ByteRange(offset_bytes=start, size_bytes=offset - start)


def extents(descriptor: int, *, is_flushed_first: bool = False) -> Iterator[Extent]:
    """A file's extents, ascending. Raises OSError, EOPNOTSUPP where the file system does not say."""
    return (Extent(*each) for batch in _batches(descriptor, FLUSH_FIRST * is_flushed_first) for each in batch)


def own_bytes(descriptor: int) -> int:
    """How much of a file lies in blocks that no other file has. Raises OSError."""
    return sum(
        size for batch in _batches(descriptor, 0) for _, _, size, flags in batch if not flags & (SHARED | NO_ADDRESS)
    )


def check_addresses(descriptor: int, name: str) -> None:
    """Raise PreconditionError unless the file's addresses say where all of its bytes are. Raises OSError."""
    for each in extents(descriptor, is_flushed_first=True):
        if each.flags & NO_ADDRESS and not each.flags & UNWRITTEN:
            raise PreconditionError(
                f"the file system does not tell where the bytes of {name} at {each.offset_bytes} are "
                f"(FIEMAP flags {each.flags:#x}: compressed, encrypted or not in blocks of their own)"
            )


def changed(base: int, target: int) -> Iterator[ByteRange]:
    """Where two files that share blocks may differ, within `target`: ascending and apart. Raises OSError.

    Exact under `check_addresses`, for files that nobody writes to.
    """
    end_bytes = os.fstat(target).st_size
    start = end = 0
    for each in _differing(_written(base), _written(target)):
        if each.offset_bytes > end:
            if end > start:
                yield ByteRange(offset_bytes=start, size_bytes=end - start)
            start = each.offset_bytes
        end = min(each.offset_bytes + each.size_bytes, end_bytes)
    if end > start:
        yield ByteRange(offset_bytes=start, size_bytes=end - start)


def _batches(descriptor: int, how: int) -> Iterator[Sequence[tuple[int, int, int, int]]]:
    start = 0
    buffer = bytearray(HEAD.size + BATCH * EXTENT.size)
    while True:
        HEAD.pack_into(buffer, 0, start, (1 << 64) - 1 - start, how, 0, BATCH, 0)
        fcntl.ioctl(descriptor, FIEMAP, buffer)
        mapped = HEAD.unpack_from(buffer)[3]
        found = list(EXTENT.iter_unpack(memoryview(buffer)[HEAD.size : HEAD.size + mapped * EXTENT.size]))
        yield found
        if not found or found[-1][3] & LAST:
            return
        start = found[-1][0] + found[-1][2]


def _written(descriptor: int) -> Iterator[Extent]:
    return (each for each in extents(descriptor) if not each.flags & UNWRITTEN)


def _differing(ones: Iterator[Extent], others: Iterator[Extent]) -> Iterator[ByteRange]:
    """The pieces in which one has a block and the other has none, or another one."""
    one, other = next(ones, None), next(others, None)
    at = 0
    while one is not None or other is not None:
        here = [each for each in (one, other) if each is not None]
        at = max(at, min(each.offset_bytes for each in here))
        # To the next place at which one of them begins or ends.
        until = min(each.end_bytes if each.offset_bytes <= at else each.offset_bytes for each in here)
        if _address(one, at) != _address(other, at):
            yield ByteRange(offset_bytes=at, size_bytes=until - at)
        at = until
        if one is not None and one.end_bytes <= at:
            one = next(ones, None)
        if other is not None and other.end_bytes <= at:
            other = next(others, None)


def _address(extent: Extent | None, at: int) -> int | None:
    if extent is None or at < extent.offset_bytes:
        return None
    return extent.physical_bytes + at - extent.offset_bytes
