"""Block devices as the kernel shows them: no process, no guess."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import DeviceError

SECTOR_BYTES = 512
"""The unit of /sys/class/block/*/size, whatever the device's own block size (Documentation/ABI/stable/sysfs-block)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """A device node that exists, and its size."""

    path: str
    major: int
    minor: int
    size_bytes: int
    dm_uuid: str
    """Device-mapper's lasting name for it, as `Volume.dm_uuid`; empty when it is no device-mapper's."""


def flush(path: str) -> None:
    """Wait until all that this device has been given is on it for good, its own cache included; raises DeviceError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failure:
        raise DeviceError(f"{path} cannot be flushed: {failure.strerror}", path=path) from failure


def block_device(path: str) -> BlockDevice:
    """What is behind this path; raises DeviceError when it is not there or is no block device."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a device node, not a file
        if not stat.S_ISBLK(status.st_mode):
            raise DeviceError(f"{path} is not a block device", path=path)
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        attributes = Path(f"/sys/dev/block/{major}:{minor}")
        sectors = int((attributes / "size").read_text(encoding="ascii"))
        uuid = attributes / "dm/uuid"
        dm_uuid = uuid.read_text(encoding="ascii").strip() if uuid.exists() else ""
    except OSError as failure:
        raise DeviceError(f"{path} cannot be read: {failure.strerror}", path=path) from failure
    return BlockDevice(path=path, major=major, minor=minor, size_bytes=sectors * SECTOR_BYTES, dm_uuid=dm_uuid)
