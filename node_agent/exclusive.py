"""A block device held open, mostly to be written to, usually so that nobody else can: opened, measured, zeroed.

O_EXCL keeps mounts, RAID, device-mapper and other exclusive openers away; a process that merely has the device open
does not show in that way, nor does a loop device on top of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from ullage.errors import DeviceError, VolumeInUseError

PASSING_SECONDS = 1.0
"""How long a holder is waited for. lvcreate holds a new volume exclusively while it zeroes its beginning, and when it
has ended the kernel may still have to close the device for it."""

# <linux/fs.h>, as encoded on every architecture but MIPS, PowerPC and SPARC (there they are unknown: ENOTTY, no harm).
_BLKSSZGET = 0x1268
_BLKDISCARD = 0x1277
_BLKZEROOUT = 0x127F
_BLKGETSIZE64 = 0x80081272


@contextlib.contextmanager
def held(path: str, *, is_exclusive: bool, is_read_only: bool = False) -> Iterator[int]:
    """A descriptor (that nobody else can hold); what is no block device is not opened (an open can act on a tape).

    Raises VolumeInUseError, DeviceError.
    """
    with answering(path, "looking at", 0):
        before = Path(path).stat()
    if not stat.S_ISBLK(before.st_mode):
        raise DeviceError(f"{path} is no block device", device=path)
    access = os.O_RDONLY if is_read_only else os.O_RDWR
    descriptor = _opened(path, access | os.O_CLOEXEC | (os.O_EXCL if is_exclusive else 0))
    try:
        if os.fstat(descriptor).st_rdev != before.st_rdev:
            raise DeviceError(f"{path} became another device while it was being opened", device=path)
        yield descriptor
    finally:
        os.close(descriptor)


def size_bytes(path: str, descriptor: int) -> int:
    """The device's; raises DeviceError."""
    with answering(path, "measuring", 0):
        (device_bytes,) = struct.unpack("=Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8)))
    return int(device_bytes)


def block_bytes(path: str, descriptor: int) -> int:
    """Of what it writes at least at once; raises DeviceError."""
    with answering(path, "measuring", 0):
        (block,) = struct.unpack("=i", fcntl.ioctl(descriptor, _BLKSSZGET, bytes(4)))
    return int(block)


def zero(path: str, descriptor: int, offset: int, size: int) -> None:
    """Make whole blocks read as zeroes, from memory too (see `node_agent.wipe`); raises DeviceError."""
    with answering(path, "zeroing", offset):
        _ioctl_range(descriptor, _BLKZEROOUT, offset, size)


def discard(path: str, descriptor: int, offset: int, size: int) -> bool:
    """Give whole blocks back; False where the device cannot. Raises DeviceError."""
    try:
        _ioctl_range(descriptor, _BLKDISCARD, offset, size)
    except OSError as failure:
        if failure.errno == errno.EOPNOTSUPP:
            return False
        raise device_error(path, "discarding", offset, failure) from failure
    return True


@contextlib.contextmanager
def answering(path: str, doing: str, offset: int) -> Iterator[None]:
    """Turn an OSError of the block into a DeviceError."""
    try:
        yield
    except OSError as failure:
        raise device_error(path, doing, offset, failure) from failure


def device_error(path: str, doing: str, offset: int, failure: OSError) -> DeviceError:
    """What a device has answered, with where and while doing what."""
    what = failure.strerror or str(failure)
    return DeviceError(
        f"{doing.capitalize()} {path} at byte {offset}: {what}",
        device=path,
        offset_bytes=offset,
        errno=failure.errno or 0,
    )


def _opened(path: str, flags: int) -> int:
    give_up = time.monotonic() + PASSING_SECONDS
    while True:
        try:
            return os.open(path, flags)
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise device_error(path, "opening", 0, failure) from failure
            if time.monotonic() > give_up:
                raise VolumeInUseError(f"{path} is mounted or held by another device", device=path) from failure
        time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - spreads load, hides nothing


def _ioctl_range(descriptor: int, request: int, offset: int, size: int) -> None:
    fcntl.ioctl(descriptor, request, struct.pack("=QQ", offset, size))
