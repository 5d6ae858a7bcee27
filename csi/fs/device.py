"""The block device of a volume, read directly: its number, its size, and the bytes at a place. No process.

A device that cannot be read is never taken for an empty one. blkid does just that (2.38.1: exit 2, no word, on a device
that answers every read with EIO), so what it calls blank is read here once more.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import DeviceError

_BLKGETSIZE64 = 0x80081272  # <linux/fs.h>
_BLKSSZGET = 0x1268
_STEP_BYTES = 1 << 18
FIRST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A block device that is there."""

    path: str
    number: int
    """As `st_rdev`."""
    size_bytes: int
    sector_bytes: int


def looked_up(path: str) -> Device:
    """The device behind a path; raises DeviceError when there is none, or it does not answer."""
    with _opened(path) as descriptor, _answering(path):
        (size,) = struct.unpack("=Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))
        (sector,) = struct.unpack("=i", fcntl.ioctl(descriptor, _BLKSSZGET, bytes(4)))
        return Device(path=path, number=os.fstat(descriptor).st_rdev, size_bytes=size, sector_bytes=sector)


def read_at(device: Device, offset: int, size: int) -> bytes:
    """The bytes there, fewer where the device ends; raises DeviceError."""
    with _opened(device.path) as descriptor, _answering(device.path):
        found = bytearray()
        while len(found) < size:
            part = os.pread(descriptor, min(_STEP_BYTES, size - len(found)), offset + len(found))
            if not part:
                break
            found += part
        return bytes(found)


def read_through(device: Device, offset: int, size: int) -> bytes:
    """The first FIRST_BYTES there, when all `size` can be read (fewer where the device ends); raises DeviceError.

    The rest is looked at and not kept, in memory that goes back to the kernel: thirty volumes staged at once would
    otherwise hold megabytes each, and the allocator the room for them ever after.
    """
    with _opened(device.path) as descriptor, _answering(device.path), mmap.mmap(-1, _STEP_BYTES) as room:
        first, done = b"", 0
        with memoryview(room) as step:
            while done < size and (got := os.preadv(descriptor, [step[: size - done]], offset + done)):
                if len(first) < FIRST_BYTES:
                    first += step[: min(got, FIRST_BYTES - len(first))]
                done += got
        return first


def is_there(number: int) -> bool:
    """Whether the kernel has a device of this number with any room on it (a detached loop device has none)."""
    return size_of(number) > 0


def size_of(number: int) -> int:
    """Bytes of the device with this number, from sysfs, without opening it; 0 when it is gone."""
    try:
        sectors = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/size").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(sectors) * 512


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    with _answering(path):
        if not stat.S_ISBLK(os.stat(path).st_mode):  # noqa: PTH116 - a device node, not a file
            raise DeviceError(f"{path} is not a block device", device=path)
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _answering(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise DeviceError(
            f"{path} cannot be read: {failure.strerror or failure}", device=path, errno=failure.errno or 0
        ) from failure
