"""Who uses a loop device: what can be seen without disturbing anybody, and the one question that cannot.

Mounts and published block devices (a bind mount of the device node) are in mountinfo, stacked devices in sysfs. Mounts
in other namespaces, swap and exclusive openers only show when we ask for the device exclusively, which is done just
before a volume is given up.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from node_agent.backends.file.loops import Loop

MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo, see proc(5)."""

    device: str
    root: str
    place: str
    kind: str


def mounts() -> tuple[Mount, ...]:
    """What is mounted where, as this process sees it."""
    table = MOUNTS.read_bytes().decode("utf-8", "surrogateescape")
    # The kernel escapes line feeds only; a path may have other characters that Python takes for the end of a line.
    return tuple(_mount(line) for line in table.split("\n") if line)


def visible(loop: Loop, seen: tuple[Mount, ...]) -> tuple[str, ...]:
    """What uses the device, in words."""
    mounted = [f"mounted on {place}" for place in mount_points(loop, seen)]
    published = [f"published as {m.place}" for m in seen if _is_node(loop, m)]
    held = [f"held by /dev/{holder}" for holder in loop.holders]
    return (*mounted, *published, *held)


def mount_points(loop: Loop, seen: tuple[Mount, ...]) -> tuple[str, ...]:
    """Where its file system is mounted."""
    return tuple(m.place for m in seen if m.device == f"{loop.major}:{loop.minor}")


def is_claimed(loop: Loop) -> bool:
    """Whether the kernel refuses us the device for ourselves."""
    try:
        with claimed(loop):
            return False
    except OSError as failure:
        return failure.errno == errno.EBUSY


@contextmanager
def claimed(loop: Loop) -> Iterator[None]:
    """Have the device for ourselves: nobody can mount it meanwhile. Raises OSError, EBUSY when somebody else has."""
    descriptor = os.open(loop.path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield
    finally:
        os.close(descriptor)


def _is_node(loop: Loop, mount: Mount) -> bool:
    if mount.kind not in ("devtmpfs", "tmpfs") or Path(mount.root).name != Path(loop.path).name:
        return False
    try:
        found = os.stat(mount.place)  # noqa: PTH116 - a path as text from the kernel
    except OSError:
        return False
    return stat.S_ISBLK(found.st_mode) and found.st_rdev == os.makedev(loop.major, loop.minor)


def _mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    _, _, device, root, place, *_ = before.split(" ")
    return Mount(device=device, root=_plain(root), place=_plain(place), kind=after.split(" ")[0])


def _plain(escaped: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        escaped = escaped.replace(code, character)
    return escaped
