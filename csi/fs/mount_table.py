"""What is mounted where, as the kernel says it in /proc/self/mountinfo: the only record of mounts that is used.

The fields are those of proc_pid_mountinfo(5). Paths there are escaped (blank, tab, newline, backslash and # as three
octal digits), mounts at one place are stacked, and of a stack only the uppermost is seen by a path.

A device is compared by its number, never by its name. btrfs has a made-up number of major 0 for every file system, so
there the number of the mount's source is looked up instead: the kernel names the device that it has open, by the path
it was last scanned under.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_NEVER_ESCAPED = re.compile(r"[A-Za-z0-9/._~+@:-]+")
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_UNNAMED_MAJOR = 0
_NODE_KINDS = ("devtmpfs", "tmpfs")
"""Where device nodes live: the kernel's own /dev, or a container's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    id: int
    parent_id: int
    device: int
    """As `st_dev`."""
    root: str
    """Which part of the file system is mounted: `/` is all of it."""
    place: str
    """The mount point."""
    options: tuple[str, ...]
    """Of this mount: two mounts of one file system can differ in them."""
    propagation: tuple[str, ...]
    """`shared:N`, `master:N`, …; nothing at all is a private mount."""
    kind: str
    source: str
    super_options: tuple[str, ...]
    """Of the file system, whichever mount of it one looks at."""

    @property
    def is_read_only(self) -> bool:
        """Nothing can be written through this mount, because of itself or of its file system."""
        return "ro" in self.options or "ro" in self.super_options

    @property
    def is_shared(self) -> bool:
        """What is mounted beneath it shows in the other namespaces of its peer group, too."""
        return any(field.startswith("shared:") for field in self.propagation)

    @property
    def is_node(self) -> bool:
        """One file out of a /dev: how a block volume is published."""
        return self.kind in _NODE_KINDS and self.root != "/"

    def device_number(self) -> int | None:
        """The block device below the file system; None for a source that is (no longer) one."""
        if os.major(self.device) != _UNNAMED_MAJOR:
            return self.device
        return _block_number(self.source) if self.source.startswith("/") else None

    def node_number(self) -> int | None:
        """The block device that the node mounted here stands for; None if it is no node of one."""
        return _block_number(self.place) if self.is_node else None


@dataclass(frozen=True, slots=True)
class MountTable:
    """All mounts of our namespace at one moment."""

    mounts: tuple[Mount, ...]

    def at(self, place: Path) -> tuple[Mount, ...]:
        """The stack at this very place, the lowest first."""
        waiting = [mount for mount in self.mounts if mount.place == str(place)]
        stack: list[Mount] = []
        while waiting:
            covered = {mount.id for mount in waiting}
            lowest = next((mount for mount in waiting if mount.parent_id not in covered), waiting[0])
            waiting.remove(lowest)
            stack.append(lowest)
        return tuple(stack)

    def below(self, place: Path) -> tuple[Mount, ...]:
        """What is mounted somewhere under this place, the place itself left out."""
        return tuple(mount for mount in self.mounts if mount.place.startswith(f"{place}/"))

    def of_device(self, number: int) -> tuple[Mount, ...]:
        """Every mount of the file system on this device."""
        return tuple(
            mount for mount in self.mounts if mount.device_number() == number and mount.kind not in _NODE_KINDS
        )

    def nodes(self) -> tuple[Mount, ...]:
        """Every published block device (and whatever else is a file of a /dev, mounted)."""
        return tuple(mount for mount in self.mounts if mount.is_node)

    def with_id(self, mount_id: int) -> Mount | None:
        """The mount of this number."""
        return next((mount for mount in self.mounts if mount.id == mount_id), None)


def mount_id(descriptor: int) -> int:
    """The number of the mount that an open file is in (proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("mnt_id:")))


def shows_at(place: Path, number: int) -> bool:
    """Whether what is mounted uppermost at this very place is this block device: its file system, or its node.

    No table is read, whose lines the kernel writes anew for each reader, all of them. "No" may also mean that only the
    table can tell: btrfs has a number of its own, a read-only node that of a loop device.
    """
    with suppress(OSError), _found(place) as there, _found(place.parent) as above:
        status = os.fstat(there)
        shown = status.st_rdev if stat.S_ISBLK(status.st_mode) else status.st_dev
        return shown == number and mount_id(there) != mount_id(above)
    return False


def read() -> MountTable:
    """The table as it is now."""
    return parsed(MOUNTINFO.read_bytes())


def at(place: Path) -> tuple[Mount, ...]:
    """`read().at(place)`, in a fraction of the time on a node with hundreds of mounts."""
    return parsed_at(MOUNTINFO.read_bytes(), place)


def parsed(table: bytes) -> MountTable:
    """The table out of the bytes of a mountinfo."""
    return MountTable(tuple(_mount(line) for line in table.split(b"\n") if line))


def parsed_at(table: bytes, place: Path) -> tuple[Mount, ...]:
    """`parsed(table).at(place)`, without a look at the fields of what is mounted elsewhere.

    A place with a character that may be escaped takes the long way.
    """
    if not _NEVER_ESCAPED.fullmatch(str(place)):
        return parsed(table).at(place)
    needle = f" {place} ".encode()
    return parsed(b"\n".join(line for line in table.split(b"\n") if needle in line)).at(place)


def split_options(options: str) -> tuple[str, ...]:
    """At the commas, but not at those in double quotes (an SELinux context has some)."""
    return tuple(option for option in re.findall(r'(?:[^,"]|"[^"]*"?)+', options) if option)


@contextmanager
def _found(path: Path) -> Iterator[int]:
    """What is at the path, without opening it: neither a file system nor a device is asked."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mount(line: bytes) -> Mount:
    fields = line.split(b" ")
    dash = fields.index(b"-", 6)
    major, minor = fields[2].split(b":")
    return Mount(
        id=int(fields[0]),
        parent_id=int(fields[1]),
        device=os.makedev(int(major), int(minor)),
        root=_plain(fields[3]),
        place=_plain(fields[4]),
        options=split_options(_plain(fields[5])),
        propagation=tuple(_texts(fields[6:dash])),
        kind=_plain(fields[dash + 1]),
        source=_plain(fields[dash + 2]),
        super_options=split_options(_plain(b" ".join(fields[dash + 3 :]))),
    )


def _plain(escaped: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), escaped))


def _texts(fields: Iterable[bytes]) -> list[str]:
    return [_plain(field) for field in fields]


def _block_number(path: str) -> int | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a device node, not a file
    except OSError:
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None
