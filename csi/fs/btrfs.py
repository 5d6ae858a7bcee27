"""Two btrfs of one UUID on one node: a copy and its source, which are never to be taken for each other.

btrfs knows a file system by its UUID and not by its device. From Linux 6.7 on the kernel gives the second of two such
file systems a UUID for as long as it is mounted (`temp_fsid` among its features), and nothing is to be done. An older
one (tried with 6.1) refuses the second mount (EEXIST), and refuses even the only one when it has seen, by udev's scan,
a newer state of the same UUID: a copy that was used could so keep its own source from being mounted. There a copy gets
a UUID of its own, before it is mounted for the first time.

`btrfstune -M` cannot do it. It goes through two transactions, and a file system that was copied while it was in use has
a log that fits the one before them: it cannot be mounted any more (tried with 6.2: "failed to read log tree"), and what
had been fsynced is lost. So the superblock is changed, in one write of 4 KiB, to what btrfstune makes of it: the old
UUID becomes the one of the metadata (METADATA_UUID, Linux 5.0), and no tree, no log and no generation is touched. The
superblock's other places keep the old one until the kernel's first commit: until then a torn write, which its checksum
shows, is undone by `btrfs rescue super-recover`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import struct
import uuid
from pathlib import Path

from csi.fs.device import Device, read_at
from csi.fs.superblocks import new_uuid
from ullage.errors import DeviceError, PreconditionError, VolumeInUseError

SYSFS = Path("/sys/fs/btrfs")
SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES = 64 << 10, 4096
_MAGIC = b"_BHRfS_M"
_CHECKSUM = slice(0, 32)
_UUID, _METADATA_UUID, _DEVICE_ITEM_UUID = slice(0x20, 0x30), slice(0x23B, 0x24B), slice(0x11B, 0x12B)
_HAS_METADATA_UUID = 1 << 10
_WRITTEN = 1
"""The one flag of a file system that nothing special is being done with (a seed, a UUID half changed, a dump, …)."""
_CRC32C, _SHA256, _BLAKE2 = 0, 2, 3
_CRC32C_POLYNOMIAL = 0x82F63B78
_FS_INFO, _FS_INFO_BYTES, _FS_INFO_UUID = 0x8400941F, 1024, slice(16, 32)  # <linux/btrfs.h>, BTRFS_IOC_FS_INFO

log = logging.getLogger(__name__)


class _NotAsMadeError(Exception):
    """A superblock that we do not change; says why."""


def are_told_apart() -> bool:
    """Whether this kernel mounts two file systems of one UUID. While btrfs is no part of it yet, that is not known."""
    return (SYSFS / "features" / "temp_fsid").exists()


def own_uuid(copy_id: str) -> uuid.UUID:
    """The UUID of this copy: the same at each try, and no other volume's."""
    return uuid.UUID(new_uuid(hashlib.sha256(copy_id.encode()).digest()[:10]))


def give(device: Device, wanted: uuid.UUID) -> None:
    """Give the btrfs on an unused device this UUID, if it does not have it; whole or not at all.

    Raises VolumeInUseError, PreconditionError (it is not as our mkfs makes one), DeviceError.
    """
    found = read_at(device, SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
    if found[_UUID] == wanted.bytes:
        return
    try:
        changed = renamed(found, wanted)
    except _NotAsMadeError as reason:
        raise PreconditionError(
            f"The btrfs on {device.path} has the UUID of what it is a copy of, this kernel (before Linux 6.7) takes "
            f"two of one UUID for one, and the copy gets no other: {reason}",
            device=device.path,
        ) from reason
    _write(device, changed)
    if read_at(device, SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES) != changed:
        raise DeviceError(f"{device.path} does not keep what is written to it", device=device.path)
    log.info("gave a copy its own UUID", extra={"device": device.path, "uuid": str(wanted)})


def renamed(superblock: bytes, wanted: uuid.UUID) -> bytes:
    """The same file system under another UUID; raises unless all of it is what is expected of a whole superblock."""
    (place, flags) = struct.unpack_from("<QQ", superblock, 0x30)
    (devices,) = struct.unpack_from("<Q", superblock, 0x88)
    (incompatible,) = struct.unpack_from("<Q", superblock, 0xBC)
    has_metadata_uuid = bool(incompatible & _HAS_METADATA_UUID)
    metadata_uuid = superblock[_METADATA_UUID if has_metadata_uuid else _UUID]
    if superblock[0x40:0x48] != _MAGIC or place != SUPERBLOCK_OFFSET:
        raise _NotAsMadeError("there is no superblock at its place")
    if superblock[_CHECKSUM] != _checksum(superblock):
        raise _NotAsMadeError("its superblock has a wrong checksum")
    if flags != _WRITTEN:
        raise _NotAsMadeError(f"its flags are {flags:#x}")
    if devices != 1:
        raise _NotAsMadeError(f"it is on {devices} devices")
    if superblock[_DEVICE_ITEM_UUID] != metadata_uuid:
        raise _NotAsMadeError("its device belongs to another file system")
    changed = bytearray(superblock)
    changed[_UUID], changed[_METADATA_UUID] = wanted.bytes, metadata_uuid
    struct.pack_into("<Q", changed, 0xBC, incompatible | _HAS_METADATA_UUID)
    changed[_CHECKSUM] = _checksum(bytes(changed))
    return bytes(changed)


def devices_at(place: Path) -> frozenset[int]:
    """The numbers of the devices that the btrfs mounted at this place is really on; raises DeviceError."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            told = fcntl.ioctl(descriptor, _FS_INFO, bytes(_FS_INFO_BYTES))
        finally:
            os.close(descriptor)
        mounted = uuid.UUID(bytes=told[_FS_INFO_UUID])
        numbers = [path.read_text(encoding="ascii") for path in (SYSFS / str(mounted) / "devices").glob("*/dev")]
    except OSError as failure:
        raise DeviceError(f"{place} does not say which device it is on: {failure}", path=str(place)) from failure
    return frozenset(os.makedev(*map(int, number.split(":"))) for number in numbers)


def _write(device: Device, superblock: bytes) -> None:
    """One write, onto the device; raises VolumeInUseError where it is mounted or held, DeviceError."""
    try:
        descriptor = os.open(device.path, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as failure:
        raise VolumeInUseError(
            f"{device.path} is to get a UUID of its own and is in use: {failure.strerror}", device=device.path
        ) from failure
    try:
        os.pwrite(descriptor, superblock, SUPERBLOCK_OFFSET)
        os.fsync(descriptor)
    except OSError as failure:
        raise DeviceError(f"{device.path} cannot be written: {failure.strerror}", device=device.path) from failure
    finally:
        os.close(descriptor)


def _checksum(superblock: bytes) -> bytes:
    """What its first 32 bytes are to be, of what follows them."""
    (kind,) = struct.unpack_from("<H", superblock, 0xC4)
    rest = superblock[_CHECKSUM.stop :]
    if kind == _CRC32C:
        return crc32c(rest).to_bytes(4, "little").ljust(32, b"\0")
    if kind == _SHA256:
        return hashlib.sha256(rest).digest()
    if kind == _BLAKE2:
        return hashlib.blake2b(rest, digest_size=32).digest()
    raise _NotAsMadeError(f"its checksums are of a kind ({kind}) that we cannot make")


def crc32c(content: bytes) -> int:
    """CRC-32C (RFC 3720, appendix B.4), bit by bit: it is for 4 KiB, once in the life of a copy."""
    value = 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_CRC32C_POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF
