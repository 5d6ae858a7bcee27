"""How full a volume is, and whether it is well: asked of the kernel once a minute, so without any process."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from csi.fs import device as devices
from csi.fs import kinds, mount_table
from csi.fs.mount_table import Mount
from ullage.errors import DeviceError, NotFoundError
from ullage.model import Problem

_STOPPED = {"shutdown", "emergency_ro"}
"""What ext4 shows among its options after an error it could not go on from (Linux 6.15)."""
_READ_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystemStats:
    """statvfs(3), in bytes. `used` and `available` do not add up to `total` where root has a reserve."""

    total_bytes: int
    used_bytes: int
    available_bytes: int
    total_inodes: int
    """0 where the file system does not count them (btrfs)."""
    used_inodes: int
    available_inodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockStats:
    """A device has a size, and nobody knows how much of it is used."""

    total_bytes: int


def require_ours(place: Path) -> None:
    """Raise NotFoundError unless something is mounted at `place` that can be a volume's."""
    if _ours(place) is None:
        raise NotFoundError(f"{place} is no mount of a volume", path=str(place))


def stats(place: Path) -> FileSystemStats | BlockStats:
    """Of the volume that is mounted at `place`; raises DeviceError (it does not answer)."""
    try:
        status = place.stat()
        if stat.S_ISBLK(status.st_mode):
            return BlockStats(total_bytes=_size(status.st_rdev, place))
        found = os.statvfs(place)
    except OSError as failure:
        raise DeviceError(f"{place} does not answer: {failure.strerror}", path=str(place)) from failure
    return FileSystemStats(
        total_bytes=found.f_blocks * found.f_frsize,
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        available_bytes=found.f_bavail * found.f_frsize,
        total_inodes=found.f_files,
        used_inodes=found.f_files - found.f_ffree,
        available_inodes=found.f_favail,
    )


def health(device_path: str, place: Path) -> Problem | None:
    """What is wrong with the volume's device, or with its mount at `place`; None when nothing shows."""
    return _device_problem(device_path) or _mount_problem(place)


def _ours(place: Path) -> Mount | None:
    top = next(reversed(mount_table.at(place)), None)
    if top is None:
        return None
    return top if top.kind in kinds.KINDS or top.node_number() is not None else None


def _size(number: int, place: Path) -> int:
    size_bytes = devices.size_of(number)
    if not size_bytes:
        raise DeviceError(f"The device published at {place} is gone", path=str(place))
    return size_bytes


def _device_problem(path: str) -> Problem | None:
    """Read the device's first block, really: past the page cache."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            with mmap.mmap(-1, _READ_BYTES) as aligned:
                got = os.preadv(descriptor, [aligned], 0)
        finally:
            os.close(descriptor)
    except OSError as failure:
        reason = "DeviceGone" if failure.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV) else "DeviceFailed"
        return Problem(reason=reason, message=f"{path} cannot be read: {failure.strerror}")
    return None if got else Problem(reason="DeviceGone", message=f"{path} has no bytes")


def _mount_problem(place: Path) -> Problem | None:
    top = _ours(place)
    if top is None:
        return Problem(reason="NotMounted", message=f"{place} is no mount of a volume")
    if stopped := _STOPPED.intersection(top.super_options):
        return Problem(reason="FileSystemStopped", message=f"The {top.kind} at {place} is {', '.join(sorted(stopped))}")
    # What was mounted read-only is so itself; a file system that became so beneath a writable mount fell ill.
    if "rw" in top.options and "ro" in top.super_options:
        return Problem(
            reason="FileSystemReadOnly", message=f"The {top.kind} at {place} went read-only, as it does after an error"
        )
    try:
        place.stat()
    except OSError as failure:
        return Problem(reason="FileSystemStopped", message=f"{place} does not answer: {failure.strerror}")
    return None
