"""What is mounted on this machine, so that `ullage volume unmount` takes away no other mount than the volume's.

CSI's caller is trusted to give the right path; a person is not. All of it is read from mountinfo (proc(5)) as this
process sees it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ullage.errors import ForeignContentError, NotOursError

MOUNTINFO = Path("/proc/self/mountinfo")
NODE_KINDS = ("devtmpfs", "tmpfs")
"""Where device nodes live; one of them, mounted by itself, is a block volume."""

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of mountinfo; `device` is its major:minor, the same for all mounts of a file system."""

    place: Path
    device: str
    root: str
    kind: str
    source: str

    @property
    def is_node(self) -> bool:
        """One file out of a /dev."""
        return self.kind in NODE_KINDS and self.root != "/"


def mounts() -> list[Mount]:
    """All of them, a later one above an earlier one at the same place."""
    return parsed(MOUNTINFO.read_bytes())


def parsed(table: bytes) -> list[Mount]:
    """What is in the bytes of a mountinfo."""
    return [_mount(line.split(b" ")) for line in table.split(b"\n") if line]


def at(table: Sequence[Mount], place: Path) -> Mount | None:
    """What one sees at this place; None: it is no mount point."""
    return next((mount for mount in reversed(table) if mount.place == place), None)


def others(table: Sequence[Mount], staging: Path) -> list[Path]:
    """Where else the file system that is staged here is mounted: while it is, it stays staged."""
    staged = at(table, staging)
    if staged is None:
        return []
    return sorted({mount.place for mount in table if mount.device == staged.device and mount.place != staging})


def require_ours(table: Sequence[Mount], place: Path, staging: Path) -> None:
    """Raise NotOursError when something is mounted at `place` that is neither a device nor what is staged."""
    there, staged = at(table, place), at(table, staging)
    if there is None or there.is_node or (staged is not None and there.device == staged.device):
        return
    has = f"{staged.source}" if staged else "nothing"
    raise NotOursError(
        f"{place} has {there.source} ({there.kind}) mounted, {staging} has {has}: they are not the same volume, and "
        "nothing was unmounted. If it was staged elsewhere, say --staging-path",
        path=str(place),
    )


def require_empty(table: Sequence[Mount], place: Path) -> None:
    """Raise ForeignContentError for a directory with files: a volume would hide them, and could not be taken away."""
    if at(table, place) is None and place.is_dir() and any(place.iterdir()):
        raise ForeignContentError(
            f"{place} has files in it; name a path that is not there yet, or an empty directory", path=str(place)
        )


def resolved(path: str) -> Path:
    """The path as mountinfo spells it: absolute, links in its parents followed; itself it may be a dead mount."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute() keeps '..', resolve() touches the mount
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def _mount(fields: Sequence[bytes]) -> Mount:
    dash = fields.index(b"-", 6)
    return Mount(
        place=Path(_plain(fields[4])),
        device=_plain(fields[2]),
        root=_plain(fields[3]),
        kind=_plain(fields[dash + 1]),
        source=_plain(fields[dash + 2]),
    )


def _plain(escaped: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), escaped))
