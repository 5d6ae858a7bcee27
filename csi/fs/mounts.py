"""The changes asked of mount(8) and umount(8).

Never lazy, never forced: who is told that a volume is unmounted may take it away.
"""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from csi.fs import mount_table
from csi.fs.kinds import Kind
from ullage.errors import (
    CommandFailedError,
    DeviceError,
    FileSystemDamagedError,
    PreconditionError,
    VolumeInUseError,
)
from ullage.run import Runner

_DAMAGE = ("Structure needs cleaning", "can't read superblock", "Bad message", "Input/output error")
"""mount(8)'s words for EUCLEAN, EIO, EFSBADCRC: the file system was recognised, and is not whole."""
_EITHER = "bad superblock"
"""Its words for EINVAL, which also means a flag that the file system does not know."""
_TWICE = "File exists"
"""Its words for EEXIST: btrfs, before Linux 6.7, has another device of the same UUID."""

log = logging.getLogger(__name__)


def require_place(place: Path) -> None:
    """Raise PreconditionError unless there is a directory at this place, or can be. A link is not followed.

    mount(8) follows it, and the mount would be somewhere that nobody looks for it.
    """
    try:
        if not stat.S_ISDIR(place.lstat().st_mode):
            raise PreconditionError(f"{place} is there and no directory", path=str(place))
    except FileNotFoundError:
        if not place.parent.is_dir():
            raise PreconditionError(f"{place.parent} is no directory to mount in", path=str(place)) from None
    except OSError as failure:
        raise PreconditionError(f"{place} cannot be mounted at: {failure.strerror}", path=str(place)) from failure


def make_directory(place: Path) -> None:
    """Make the directory to mount at, if it is not there; raises PreconditionError."""
    try:
        place.mkdir(mode=0o750)
    except FileExistsError:
        require_place(place)
    except OSError as failure:
        raise PreconditionError(f"{place} cannot be made: {failure.strerror}", path=str(place)) from failure


def mount(runner: Runner, kind: Kind, device_path: str, place: Path, options: str) -> None:
    """Mount; raises FileSystemDamagedError with what to run, PreconditionError, CommandFailedError."""
    argv = ["mount", "-t", kind.name, *(["-o", options] if options else []), device_path, str(place)]
    try:
        runner.change(argv)
    except CommandFailedError as failure:
        if any(word in failure.stderr for word in _DAMAGE):
            raise FileSystemDamagedError(
                f"The {kind.name} on {device_path} cannot be mounted: {failure.stderr.strip()}; "
                f"{kind.advice.format(device=device_path)}",
                device=device_path,
                fs_type=kind.name,
            ) from failure
        if _EITHER in failure.stderr:
            raise PreconditionError(
                f"The kernel refused the {kind.name} on {device_path}, and its log says why: it does not know one of "
                f"the flags {options or '(none)'}, or it is damaged; then {kind.advice.format(device=device_path)}",
                device=device_path,
                fs_type=kind.name,
            ) from failure
        if _TWICE in failure.stderr:
            raise PreconditionError(
                f"The kernel knows the UUID of the {kind.name} on {device_path} from another device, which its log "
                "names, and takes the two for one: unmount that one and, if it is not needed, let the kernel forget it "
                "with 'btrfs device scan --forget'",
                device=device_path,
                fs_type=kind.name,
            ) from failure
        raise
    log.info("mounted", extra={"device": device_path, "path": str(place), "fs_type": kind.name, "options": options})


def bind(runner: Runner, source: str, place: Path, options: str = "") -> None:
    """Show `source` at `place`, too.

    With options it is one program and, before util-linux 2.39, two system calls: what a crash of ours leaves is the
    program, which goes on to its end (see ullage.run); what a failure of the second leaves is taken away.
    """
    try:
        runner.change(["mount", "--bind", *(["-o", options] if options else []), source, str(place)])
    except CommandFailedError:
        if mount_table.at(place):
            unmount_all(runner, place)
        raise
    log.info("bound", extra={"source": source, "path": str(place), "options": options})


def unmount_all(runner: Runner, place: Path) -> None:
    """Take away whatever is mounted at this place, one above the other; raises VolumeInUseError."""
    while stack := mount_table.at(place):
        _unmount(runner, place)
        if len(mount_table.at(place)) >= len(stack):
            raise DeviceError(f"umount says that it has unmounted {place}, and it is still mounted", path=str(place))
        log.info("unmounted", extra={"source": stack[-1].source, "path": str(place)})


def _unmount(runner: Runner, place: Path) -> None:
    try:
        runner.change(["umount", str(place)])
    except CommandFailedError as failure:
        if "busy" not in failure.stderr:
            raise
        within = [mount.place for mount in mount_table.read().below(place)]
        who = f"{', '.join(within)} is mounted in it" if within else "some process has it open, or works in it"
        raise VolumeInUseError(f"{place} is busy: {who}", path=str(place)) from failure
