"""Publishing: a staged file system, or the bare device, shown at a Pod's target path; and taking it away again.

A target is there or it is not: a bind mount is one step, and a repetition finds it and adds nothing. What a target
shows is compared by the device's number and the part of the file system, so that a target that shows something else is
a conflict and not an answer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from csi.fs import device as devices
from csi.fs import mount_flags, mount_table, mounts, readonly_loops
from csi.fs.device import Device
from csi.fs.mount_table import Mount, MountTable
from ullage.errors import (
    ConflictError,
    DeviceError,
    ForeignContentError,
    NotStagedError,
    PreconditionError,
    VolumeInUseError,
)
from ullage.run import Runner

_FEW = 3


def publish(  # noqa: PLR0913 (what NodePublishVolume knows; all but the paths are keywords)
    runner: Runner,
    device_path: str,
    staging: Path,
    place: Path,
    *,
    flags: Sequence[str],
    is_read_only: bool,
    is_shared: bool,
) -> None:
    """Show the file system staged at `staging` at `place`.

    Raises NotStagedError, ConflictError (staged or published otherwise), VolumeInUseError (not shared, and published
    elsewhere).
    """
    device = devices.looked_up(device_path)
    table = mount_table.read()
    staged = next(reversed(table.at(staging)), None)
    if staged is None or staged.device_number() != device.number:
        what = f"has {staged.source}" if staged else "has nothing"
        raise NotStagedError(f"{staging} {what} mounted, not {device.path}: stage the volume first", path=str(staging))
    if wrong := mount_flags.differences(staged, flags):
        raise ConflictError(f"{device.path} is staged with other flags: {', '.join(wrong)}", path=str(staging))
    is_to_be_read_only = is_read_only or mount_flags.is_read_only(flags) or staged.is_read_only
    there = next(reversed(table.at(place)), None)
    if there is None:
        if not is_shared:
            same = (mount for mount in table.of_device(device.number) if mount.root == staged.root)
            _require_alone(device, (mount for mount in same if mount.place not in (str(staging), str(place))))
        mounts.make_directory(place)
        # A bind mount has the flags of what it shows; to be read-only it must be said, and the others with it.
        needs_remount = is_to_be_read_only and "ro" not in staged.options
        options = mount_flags.joined(("ro",), mount_flags.kept_by_bind(staged)) if needs_remount else ""
        mounts.bind(runner, str(staging), place, options)
        there = next(reversed(mount_table.at(place)), None)
        if there is None:
            raise DeviceError(f"mount says that it has bound {staging}, and it is not at {place}", path=str(place))
    if there.device_number() != device.number or there.root != staged.root:
        raise ConflictError(f"{place} shows {there.source} ({there.root}), not {device.path}", path=str(place))
    if there.is_read_only != is_to_be_read_only:
        raise ConflictError(
            f"{place} is published {'read-only' if there.is_read_only else 'writable'} already; unpublish it first",
            path=str(place),
        )


def publish_block(runner: Runner, device_path: str, place: Path, *, is_read_only: bool, is_shared: bool) -> None:
    """Show the device itself at `place`, as a node; raises ConflictError, VolumeInUseError."""
    device = devices.looked_up(device_path)
    table = mount_table.read()
    there = next(reversed(table.at(place)), None)
    if there is not None and _is_stale(there):
        mounts.unmount_all(runner, place)
        there = None
    if there is not None:
        ours = readonly_loops.of_target(place) if is_read_only else ()
        numbers = {loop.number for loop in ours if loop.below == device.number} if is_read_only else {device.number}
        if there.node_number() not in numbers:
            raise ConflictError(f"{place} shows something else than is asked for; unpublish it first", path=str(place))
        return
    published = nodes_of(table, device)
    if not is_shared:
        _require_alone(device, published)
    mounted = table.of_device(device.number)
    if mounted and not published:  # a Pod may mount the device that was published to it
        raise VolumeInUseError(
            f"{device.path} is mounted at {mounted[0].place}, and is not given to anybody as a device meanwhile",
            device=device.path,
        )
    _make_file(place)
    source = readonly_loops.attach(device, place).path if is_read_only else device.path
    mounts.bind(runner, source, place)


def unpublish(runner: Runner, place: Path) -> None:
    """Bring it about that nothing is at `place`, mounted or not; raises VolumeInUseError, ForeignContentError."""
    mounts.unmount_all(runner, place)
    for loop in readonly_loops.of_target(place):
        readonly_loops.detach(loop)
    _remove(place)


def _require_alone(device: Device, others: Iterable[Mount]) -> None:
    places = sorted(mount.place for mount in others)
    if places:
        raise VolumeInUseError(
            f"{device.path} is for one target only, and is published at {', '.join(places[:_FEW])}", device=device.path
        )


def nodes_of(table: MountTable, device: Device) -> list[Mount]:
    """Where the device, or a read-only loop device over it, is published."""
    published = [(mount, number) for mount in table.nodes() if (number := mount.node_number()) is not None]
    # Loop devices are asked one by one, and a machine can have hundreds: only where one may be published.
    loops = readonly_loops.all_of_ours() if any(readonly_loops.is_loop(number) for _, number in published) else ()
    numbers = {device.number, *(loop.number for loop in loops if loop.below == device.number)}
    return [mount for mount, number in published if number in numbers]


def shows(mounted: Mount, number: int) -> bool:
    """Whether this is a mount of the device, of its node, or of a read-only loop device over it."""
    if not mounted.is_node:
        return mounted.device_number() == number
    node = mounted.node_number()
    return node == number or any(loop.number == node and loop.below == number for loop in readonly_loops.all_of_ours())


def _is_stale(there: Mount) -> bool:
    """A node whose device is gone, as after a deactivation: nobody can use it any more."""
    number = there.node_number()
    return number is not None and not devices.is_there(number)


def _make_file(place: Path) -> None:
    """An empty file to mount the node on."""
    try:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o640))
    except FileExistsError:
        if not _is_empty_file(place):
            raise PreconditionError(f"{place} is there and no empty file", path=str(place)) from None
    except OSError as failure:
        raise PreconditionError(f"{place} cannot be made: {failure.strerror}", path=str(place)) from failure


def _is_empty_file(place: Path) -> bool:
    status = place.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == 0


def _remove(place: Path) -> None:
    """The directory or file that was mounted on, if it is as empty as we made it."""
    try:
        if place.is_dir() and not place.is_symlink():
            within = sorted(entry.name for entry in place.iterdir())
            if within:
                raise ForeignContentError(
                    f"{place} is unmounted, and has files of its own ({', '.join(within[:_FEW])}): somebody wrote "
                    "there while the volume was not mounted. Nothing was deleted; move them away by hand",
                    path=str(place),
                )
            place.rmdir()
        elif _is_empty_file(place):
            place.unlink()
        else:
            raise ForeignContentError(f"{place} is no empty file of ours; nothing was deleted", path=str(place))
    except FileNotFoundError:
        return
    except OSError as failure:
        raise PreconditionError(f"{place} cannot be removed: {failure.strerror}", path=str(place)) from failure
