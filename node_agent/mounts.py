"""What is mounted where, for whoever has to know who uses a block device: /proc/self/mountinfo, see proc(5).

A device is compared by its number, never by its name. btrfs has a made-up number of major 0 for every file system, so
there the number of the mount's source is looked up instead. What is mounted in another namespace only is not seen here.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_UNNAMED_MAJOR = 0
_NODE_KINDS = ("devtmpfs", "tmpfs")
"""Where device nodes live: the kernel's own /dev, or a container's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo."""

    id: int
    device: int
    """As `st_dev`."""
    root: str
    place: str
    kind: str
    source: str
    is_read_only: bool
    """The file system itself, through whichever mount."""

    @property
    def is_node(self) -> bool:
        """One file out of a /dev: how a block volume is published."""
        return self.kind in _NODE_KINDS and self.root != "/"

    def device_number(self) -> int | None:
        """The block device below the file system; None for a source that is none (any more)."""
        if os.major(self.device) != _UNNAMED_MAJOR:
            return self.device
        return _block_number(self.source) if self.source.startswith("/") else None

    def node_number(self) -> int | None:
        """The block device that the node mounted here stands for; None if it is no node of one."""
        return _block_number(self.place) if self.is_node else None


def read() -> tuple[Mount, ...]:
    """All mounts of our namespace at one moment."""
    # The kernel escapes line feeds only; a path may have other characters that Python takes for the end of a line.
    return tuple(parsed(line) for line in MOUNTINFO.read_bytes().split(b"\n") if line)


def parsed(line: bytes) -> Mount:
    """One line."""
    before, _, after = line.partition(b" - ")
    mount_id, _, numbers, root, place, *_ = before.split(b" ")
    kind, source, options = after.split(b" ", 2)
    major, minor = numbers.split(b":")
    return Mount(
        id=int(mount_id),
        device=os.makedev(int(major), int(minor)),
        root=_plain(root),
        place=_plain(place),
        kind=_plain(kind),
        source=_plain(source),
        is_read_only=options.split(b",")[0] == b"ro",
    )


def mount_id(descriptor: int) -> int:
    """The number of the mount that an open file is in (proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii").splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("mnt_id:")))


def _plain(escaped: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), escaped))


def _block_number(path: str) -> int | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a device node, not a file
    except OSError:
        return None
    return status.st_rdev if stat.S_ISBLK(status.st_mode) else None
