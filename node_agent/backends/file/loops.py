"""Loop devices: which there are, and the three changes asked of losetup(8).

Looking starts no process. sysfs lists the attached devices with the path of their file, but that path is as the mount
namespace of whoever attached it saw it (an agent's container that is long gone), so it only preselects; the ioctl
LOOP_GET_STATUS64 then gives the file's device and inode, which are exact.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from node_agent.backends.file.directory import IMAGE_SUFFIX, Image
from ullage.errors import CommandFailedError, DeviceError, VolumeInUseError
from ullage.run import Runner

SYSTEM_BLOCKS = Path("/sys/devices/virtual/block")
"""What /sys/block links to."""
DEVICES = Path("/dev")
CONTROL = DEVICES / "loop-control"
LOOP_GET_STATUS64, LOOP_CTL_GET_FREE = 0x4C05, 0x4C82  # linux/loop.h
STATUS = struct.Struct("=5Q4I64s64s32s2Q")  # struct loop_info64
READ_ONLY, AUTOCLEAR = 1, 4
SECTOR_BYTES = 512
DELETED = " (deleted)"
DETACHED_MEANWHILE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)
MOST_PATH_BYTES = 4096
"""A file in sysfs is one page."""
RELEASE_SECONDS = 2.0
"""How long a detached device may still be open: udev probes whatever changes, and is quick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A loop device with a file. `is_leaving`: detached while open, it goes with its last user."""

    path: str
    major: int
    minor: int
    size_bytes: int
    file_path: str
    file: tuple[int, int]
    is_whole: bool
    """The whole file, writable: as we attach it. Anything else on an image of ours was made by another hand."""
    is_leaving: bool
    holders: tuple[str, ...]


def attached(images: Collection[str] | None = None) -> tuple[Loop, ...]:
    """Every loop device whose file is named like an image, lowest number first; raises DeviceError.

    With `images` only those on files of these names, in whichever directory: a machine can have hundreds of others,
    each of which would cost ten times what its name does. Each step looks, so no Path is made here.
    """
    names = os.listdir(SYSTEM_BLOCKS)  # noqa: PTH208
    found = (_loop(SYSTEM_BLOCKS / name) for name in names if name.startswith("loop") and _is_on(name, images))
    return tuple(sorted((loop for loop in found if loop is not None), key=lambda loop: loop.minor))


def of_image(loops: Sequence[Loop], image: Image) -> tuple[Loop, ...]:
    """The devices on this image, ours first."""
    mine = [loop for loop in loops if loop.file == (image.device, image.inode)]
    return tuple(sorted(mine, key=lambda loop: not loop.is_whole))


def of_lost_image(loops: Sequence[Loop], path: str) -> tuple[Loop, ...]:
    """The devices on an image that was unlinked under them; its blocks live as long as they do."""
    return tuple(loop for loop in loops if loop.file_path == path + DELETED)


class Loops:
    """Attaches, grows and detaches; each looks afterwards whether it is so."""

    def __init__(self, runner: Runner, *, release_seconds: float = RELEASE_SECONDS) -> None:
        """`release_seconds`: how long to wait for a device to go."""
        self._runner = runner
        self._release_seconds = release_seconds

    def attach(self, path: str, image: Image) -> Loop:
        """The image's device, attached if it is not yet; raises DeviceError, CommandFailedError.

        512-byte sectors always: the kernel's own choice depends on direct I/O, and a file system made on one sector
        size may not mount on another. Direct I/O where the kernel gives it, else through the page cache. The device
        takes discards, so that mkfs and fstrim give blocks back to the file system below, also a preallocated image's:
        the promise goes on counting (`Entry.promised_bytes`). Setting the queue's discard_max_bytes to 0 would keep
        them, but the kernel does not let that be undone, not even for whoever gets this device next (seen on 6.18).
        """
        names = {os.path.basename(path)}  # noqa: PTH119
        if not any(loop.is_whole and not loop.is_leaving for loop in of_image(attached(names), image)):
            _make_free_node()
            # --nooverlap takes the device that is there already, also one that is leaving, and makes it stay.
            argv = ("losetup", "--find", "--show", "--nooverlap", "--sector-size", str(SECTOR_BYTES))
            try:
                self._runner.change([*argv, "--direct-io=on", path])
            except CommandFailedError:
                self._runner.change([*argv, path])
        loop = next((loop for loop in of_image(attached(names), image) if loop.is_whole), None)
        if loop is None:
            raise DeviceError(f"losetup gave {path} a device, and no device has it")
        return loop

    def grow(self, loop: Loop, size_bytes: int) -> None:
        """Let the device have its whole file; raises DeviceError if it does not become `size_bytes`."""
        self._runner.change(["losetup", "--set-capacity", loop.path])
        now = _loop(_block(loop))
        if now is None or now.size_bytes != size_bytes:
            raise DeviceError(f"{loop.path} did not become {size_bytes} bytes")

    def detach(self, loop: Loop, path: str) -> None:
        """Take the file from the device; raises VolumeInUseError, and leaves it attached, when somebody has it open.

        The kernel keeps no count of openers to read. It tells by what it does: a device that is open stays until its
        last user closes it, and until then can be made to stay for good.
        """
        self._runner.change(["losetup", "--detach", loop.path])
        if not _comes_true(lambda: not _is_same(_loop(_block(loop)), loop), self._release_seconds):
            if not loop.file_path.endswith(DELETED):
                self._runner.change(["losetup", "--find", "--show", "--nooverlap", path])
            raise VolumeInUseError(f"{loop.path} ({path}) is open in some process", device=loop.path)


def _is_on(name: str, images: Collection[str] | None) -> bool:
    """Whether it has a file, of one of these names. What cannot be read is for `_loop` to say."""
    try:
        descriptor = os.open(f"{SYSTEM_BLOCKS}/{name}/loop/backing_file", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        path = os.read(descriptor, MOST_PATH_BYTES)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return images is None or os.fsdecode(path).removesuffix("\n").removesuffix(DELETED).rpartition("/")[2] in images


def _loop(block: Path) -> Loop | None:
    """None for a device without a file, or with one that is not named like an image; raises DeviceError.

    A device that cannot be read is never taken for a free one: an image could be removed under its user.
    """
    try:
        file_path = os.fsdecode((block / "loop" / "backing_file").read_bytes().removesuffix(b"\n"))
        if not file_path.removesuffix(DELETED).endswith(IMAGE_SUFFIX):
            return None
        major, minor = map(int, (block / "dev").read_text().split(":"))
        status = _status(_node(block.name, major, minor))
        file_device, inode, _, offset, size_limit, _, _, _, flags, *_ = STATUS.unpack(status)
        return Loop(
            path=str(DEVICES / block.name),
            major=major,
            minor=minor,
            size_bytes=int((block / "size").read_text()) * 512,
            file_path=file_path,
            file=(file_device, inode),
            is_whole=offset == size_limit == 0 and not flags & READ_ONLY,
            is_leaving=bool(flags & AUTOCLEAR),
            holders=tuple(sorted(holder.name for holder in (block / "holders").iterdir())),
        )
    except OSError as failure:
        if failure.errno in DETACHED_MEANWHILE:
            return None
        raise DeviceError(f"{block.name} does not say what it is attached to: {failure}") from failure


def _status(node: Path) -> bytes:
    descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, LOOP_GET_STATUS64, bytes(STATUS.size))
    finally:
        os.close(descriptor)


def _make_free_node() -> None:
    """See to it that the device losetup will find has a node: a container's own /dev gets none from the kernel."""
    try:
        with CONTROL.open("rb") as control:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
        block = SYSTEM_BLOCKS / f"loop{number}"
        major, minor = map(int, (block / "dev").read_text().split(":"))
        _node(block.name, major, minor)
    except OSError as failure:
        raise DeviceError(f"no loop device to be had (is the kernel module loop loaded?): {failure}") from failure


def _node(name: str, major: int, minor: int) -> Path:
    path = DEVICES / name
    if not path.exists():
        with suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(major, minor))
    return path


def _block(loop: Loop) -> Path:
    return SYSTEM_BLOCKS / Path(loop.path).name


def _is_same(now: Loop | None, then: Loop) -> bool:
    return now is not None and now.file == then.file


def _comes_true(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
