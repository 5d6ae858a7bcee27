"""A file system grows to its device, while it is mounted. Each program does nothing where nothing is to be done."""

from __future__ import annotations

import logging

from csi.fs import mount_table
from csi.fs.device import Device, read_at
from csi.fs.mount_table import Mount
from csi.fs.superblocks import READ_BYTES, superblocks
from ullage.errors import PreconditionError
from ullage.run import Runner

log = logging.getLogger(__name__)


def is_needed(device: Device, kind: str) -> bool:
    """Whether the superblock on the device has room for another block behind it.

    Of a mounted file system what is on the device may be older, and so smaller, than what is: then it is asked to grow
    once too often, never too seldom. blkid says a size from util-linux 2.39 on only.
    """
    found = next((block for block in superblocks(read_at(device, 0, READ_BYTES)) if block.kind == kind), None)
    return found is None or found.is_smaller_than(device.size_bytes)


def grow(runner: Runner, device: Device, mounted: Mount) -> None:
    """Grow to the device's size; raises PreconditionError when it is mounted for reading only, CommandFailedError.

    A volume can be published read-only while it is staged writable: any writable mount of it will do.
    """
    mounts = (mounted, *mount_table.read().of_device(device.number))
    writable = next((mount for mount in mounts if not mount.is_read_only), None)
    if writable is None:
        raise PreconditionError(
            f"The {mounted.kind} on {device.path} is mounted for reading only and cannot grow", device=device.path
        )
    runner.change(
        {
            "ext4": ("resize2fs", device.path),
            "xfs": ("xfs_growfs", "-d", writable.place),
            "btrfs": ("btrfs", "filesystem", "resize", "max", writable.place),
        }[mounted.kind]
    )
    log.info("grown", extra={"device": device.path, "fs_type": mounted.kind, "size_bytes": device.size_bytes})
