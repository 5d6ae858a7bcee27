"""Which block devices LVM may read when all volume groups are looked for: from sysfs, without touching a device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

SYS_BLOCK = Path("/sys/class/block")
NEVER = ("ram", "zram", "sr", "fd", "nbd")
"""Kinds that hold no physical volume, or that may block a reader for ever."""
LVM_UUID_PREFIX = "LVM-"


def candidates(file_directories: Sequence[str], sys_block: Path = SYS_BLOCK) -> tuple[str, ...]:
    """Device paths that may hold a physical volume of ours.

    Left out: logical volumes (what is inside belongs to a guest), loop devices over volumes in `file_directories` (the
    same), and devices without a size. A disk that has partitions stays in: LVM itself passes over it.
    """
    names = sorted(path.name for path in sys_block.iterdir() if not path.name.startswith(NEVER))
    return tuple(f"/dev/{name.replace('!', '/')}" for name in names if _may_hold(sys_block / name, file_directories))


def _may_hold(device: Path, file_directories: Sequence[str]) -> bool:
    if _read(device / "size") in ("", "0"):
        return False
    if _read(device / "dm/uuid").startswith(LVM_UUID_PREFIX) or _read(device / "dm/suspended") == "1":
        return False
    # A partition of a loop device has no attribute of its own; the kernel names the file by its real path.
    whole = device.resolve().parent
    backing_file = _read(device / "loop/backing_file") or _read(whole / "loop/backing_file")
    directories = {path.rstrip("/") for each in file_directories for path in (each, os.path.realpath(each))}
    return not any(backing_file.startswith(f"{directory}/") for directory in directories)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""  # the attribute belongs to another kind of device, or the device has just gone
