"""A block device that cannot be written: a read-only loop device over the volume's, one for each read-only target.

A read-only bind mount of a device node protects the node, not the device (mount_setattr(2) is about the file system the
node is in): root in the Pod would write all the same. The loop driver opens the volume for reading only, so a write
fails in the kernel whoever asks, also after `blockdev --setrw` (tried: EPERM).

The kernel keeps the record. Each loop device of ours carries its target in its name field (`lo_file_name`, as a
digest, for it has 63 bytes), and it gets file, flags and name in one step (LOOP_CONFIGURE, Linux 5.8): there is none
without a name that a crash could leave behind, and whoever unpublishes the target finds it. losetup(8) cannot do that:
it sets the name to the path it is given.

Direct I/O where the device can do it, and the volume's own sector size. When it is detached while somebody has it open,
it goes with its last user (LO_FLAGS_AUTOCLEAR).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from csi.fs.device import Device
from ullage.errors import DeviceError, UnsupportedError

SYSTEM_BLOCKS = Path("/sys/block")
DEVICES = Path("/dev")
# <linux/loop.h>
_SET_CAPACITY, _CLR_FD, _GET_STATUS64, _CONFIGURE, _CTL_GET_FREE = 0x4C07, 0x4C01, 0x4C05, 0x4C0A, 0x4C82
_STATUS = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
_CONFIG_HEAD, _CONFIG_RESERVED = struct.Struct("=2I"), bytes(64)  # struct loop_config around it
_READ_ONLY, _AUTOCLEAR, _DIRECT_IO = 1, 4, 16
_LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt
_MARK = b"ullage-ro:"
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
_TRIES = 16

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnlyLoop:
    """One of ours."""

    path: str
    number: int
    """As `st_rdev`."""
    below: int
    """The number of the volume's device."""
    mark: bytes
    is_leaving: bool
    """Detached while open: it goes with its last user, and is nobody's any more."""


def is_loop(number: int) -> bool:
    """Whether this is the number of a loop device, anybody's."""
    return os.major(number) == _LOOP_MAJOR


def all_of_ours() -> tuple[ReadOnlyLoop, ...]:
    """Every one on this machine; raises DeviceError when one cannot be asked."""
    found = (_loop(block) for block in sorted(SYSTEM_BLOCKS.glob("loop*")))
    return tuple(loop for loop in found if loop is not None)


def of_target(place: Path) -> tuple[ReadOnlyLoop, ...]:
    """Those for this target that are there to stay."""
    return tuple(loop for loop in all_of_ours() if loop.mark == _mark(place) and not loop.is_leaving)


def attach(device: Device, place: Path) -> ReadOnlyLoop:
    """The target's loop device over this device, attached if it is not yet; raises DeviceError, UnsupportedError."""
    for loop in of_target(place):
        if loop.below == device.number:
            return loop
        detach(loop)
    for _ in range(_TRIES):
        node = _free_node()
        if _is_configured(node, device, place):
            break
    else:
        raise DeviceError("Others take every free loop device before we do", device=device.path)
    made = next((loop for loop in of_target(place) if loop.below == device.number), None)
    if made is None:
        raise DeviceError(f"{node} was attached over {device.path}, and is not there", device=device.path)
    log.info("attached read-only", extra={"device": device.path, "loop": made.path, "path": str(place)})
    return made


def detach(loop: ReadOnlyLoop) -> None:
    """Take it away, now or with its last user; one that is gone is fine. Raises DeviceError."""
    try:
        _asked(loop.path, _CLR_FD)
    except OSError as failure:
        if failure.errno not in _GONE:
            raise DeviceError(f"{loop.path} cannot be detached: {failure}", device=loop.path) from failure
    log.info("detached read-only", extra={"loop": loop.path})


def follow_size(device: Device) -> None:
    """Let every loop device over this one have the size that the device has now; raises DeviceError."""
    for loop in all_of_ours():
        if loop.below == device.number and not loop.is_leaving:
            try:
                _asked(loop.path, _SET_CAPACITY)
            except OSError as failure:
                raise DeviceError(f"{loop.path} cannot follow its device: {failure}", device=loop.path) from failure


def _is_configured(node: Path, device: Device, place: Path) -> bool:
    """Whether we got it; False when another was faster."""
    flags = _READ_ONLY | _DIRECT_IO
    status = _STATUS.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, _mark(place), b"", b"", 0, 0)
    try:
        below = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _asked(str(node), _CONFIGURE, _CONFIG_HEAD.pack(below, device.sector_bytes) + status + _CONFIG_RESERVED)
        finally:
            os.close(below)
    except OSError as failure:
        if failure.errno in (errno.EBUSY, *_GONE):
            return False
        if failure.errno in (errno.EINVAL, errno.ENOTTY):
            raise UnsupportedError(
                f"A read-only block volume needs a loop device that is made in one step (Linux 5.8): {failure}",
                device=device.path,
            ) from failure
        raise DeviceError(f"{device.path} gets no read-only loop device: {failure}", device=device.path) from failure
    return True


def _loop(block: Path) -> ReadOnlyLoop | None:
    """None for a free one, and for another's."""
    try:
        if (block / "ro").read_text() != "1\n" or not (block / "loop" / "backing_file").exists():
            return None
        major, minor = map(int, (block / "dev").read_text().split(":"))
        answer = _asked(str(_node(block.name, major, minor)), _GET_STATUS64, bytes(_STATUS.size))
    except OSError as failure:
        if failure.errno in _GONE:
            return None
        raise DeviceError(f"{block.name} does not say what it is attached to: {failure}") from failure
    _, _, below, _, _, _, _, _, flags, name, *_ = _STATUS.unpack(answer)
    mark = name.rstrip(b"\0")
    if not mark.startswith(_MARK):
        return None
    return ReadOnlyLoop(
        path=str(DEVICES / block.name),
        number=os.makedev(major, minor),
        below=below,
        mark=mark,
        is_leaving=bool(flags & _AUTOCLEAR),
    )


def _mark(place: Path) -> bytes:
    return _MARK + hashlib.sha256(os.fsencode(place)).hexdigest()[:48].encode()


def _asked(path: str, request: int, argument: bytes | int = 0) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(descriptor, request, argument)
    finally:
        os.close(descriptor)
    return answer if isinstance(answer, bytes) else b""


def _free_node() -> Path:
    """The node of a free loop device, made where a container's own /dev gets none from the kernel."""
    try:
        with (DEVICES / "loop-control").open("rb") as control:
            name = f"loop{fcntl.ioctl(control, _CTL_GET_FREE)}"
        major, minor = map(int, (SYSTEM_BLOCKS / name / "dev").read_text().split(":"))
        return _node(name, major, minor)
    except OSError as failure:
        raise DeviceError(f"No loop device to be had (is the kernel module loop loaded?): {failure}") from failure


def _node(name: str, major: int, minor: int) -> Path:
    path = DEVICES / name
    if not path.exists():
        with suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(major, minor))
    return path
