"""Staging: from a device to a mounted file system.

Every step looks first and can be repeated. mkfs, only on what is blank; then the check; then the mount; then the
growth. A crash between any two leaves what the next look finds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from csi.fs import btrfs, growth, kinds, mkfs, mount_flags, mount_table, mounts, publishing
from csi.fs import device as devices
from csi.fs.device import Device
from csi.fs.kinds import Kind
from csi.fs.mount_table import Mount, MountTable
from csi.fs.probe import Content, probe
from ullage.errors import (
    CommandFailedError,
    ConflictError,
    DeviceError,
    FileSystemDamagedError,
    ForeignContentError,
    InvalidRequestError,
    NotFormattedError,
    PreconditionError,
    VolumeInUseError,
    human_bytes,
)
from ullage.run import Runner

_CORRECTED = 1
"""e2fsck(8): errors were found and all of them corrected."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRequest:
    """What NodeStageVolume knows."""

    device_path: str
    fs_type: str = ""
    """Empty means ext4."""
    mount_flags: tuple[str, ...] = ()
    """Passed to mount(8) unchanged, the commas inside quotes of an SELinux context included."""
    mkfs_options: tuple[str, ...] = ()
    """The class's own, one argument each, after ours."""
    is_read_only: bool = False
    copy_id: str = ""
    """The volume's id, if it began as a copy of another: its file system then may need a UUID of its own."""

    @property
    def is_without_writing(self) -> bool:
        """Neither made, nor checked, nor grown."""
        return self.is_read_only or mount_flags.is_read_only(self.mount_flags)


def stage(runner: Runner, request: StageRequest, place: Path) -> None:
    """Bring it about that the volume's file system is mounted at `place`, as large as its device."""
    kind = kinds.named(request.fs_type)
    device = devices.looked_up(request.device_path)
    table = mount_table.read()
    stack = table.at(place)
    if not stack:
        mounts.require_place(place)
        _require_no_block_volume(table, device)
        _ready(runner, kind, device, request)
        mounts.make_directory(place)
        mounts.mount(runner, kind, device.path, place, _options(kind, request))
        mounted = _as_asked(runner, kind, device, request, place)
    else:
        mounted = _same(stack, kind, device, request, place)
    if not request.is_without_writing and growth.is_needed(device, kind.name):
        growth.grow(runner, device, mounted)


def stage_block(place: Path) -> None:
    """There is nothing to do for a block volume; raises ConflictError where a file system is staged."""
    if stack := mount_table.read().at(place):
        raise ConflictError(
            f"{place} has the {stack[-1].kind} of {stack[-1].source} mounted; no block volume before that is unstaged",
            path=str(place),
        )


def unstage(runner: Runner, place: Path) -> None:
    """Bring it about that nothing is mounted at `place`; raises VolumeInUseError."""
    mounts.unmount_all(runner, place)


def _options(kind: Kind, request: StageRequest) -> str:
    return mount_flags.joined(kind.own_mount_options, ("ro",) if request.is_read_only else (), request.mount_flags)


def _as_asked(runner: Runner, kind: Kind, device: Device, request: StageRequest, place: Path) -> Mount:
    """What was just mounted; what came out otherwise than asked for is unmounted again. Raises PreconditionError."""
    stack = mount_table.read().at(place)
    try:
        _require_context(stack, request)
        return _same(stack, kind, device, request, place)
    except ConflictError as otherwise:  # such as with the flag `loop`, which mounts another device than was named
        mounts.unmount_all(runner, place)
        raise PreconditionError(
            f"mount made something else of {device.path} with the flags {', '.join(request.mount_flags)}: {otherwise}",
            device=device.path,
        ) from otherwise
    except PreconditionError:
        mounts.unmount_all(runner, place)
        raise


def _require_context(stack: tuple[Mount, ...], request: StageRequest) -> None:
    """Without its context a volume is mounted for a Pod that may not read it; raises PreconditionError."""
    if stack and mount_flags.is_context_lost(stack[-1], request.mount_flags):
        raise PreconditionError(
            f"mount dropped the SELinux context of {request.device_path}, as it does where it sees no SELinux: give "
            "the driver's container the host's /sys/fs/selinux and /etc/selinux",
            device=request.device_path,
        )


def _require_no_block_volume(table: MountTable, device: Device) -> None:
    """Whoever has the device writes there as he likes: that nothing is recognised does not make it blank."""
    if published := publishing.nodes_of(table, device):
        raise VolumeInUseError(
            f"{device.path} is published as a block device at {published[0].place}, and gets no file system meanwhile",
            device=device.path,
        )


def _same(stack: tuple[Mount, ...], kind: Kind, device: Device, request: StageRequest, place: Path) -> Mount:
    """The mount at the staging path, which must be what is asked for; raises ConflictError."""
    if not stack:
        raise DeviceError(f"mount says that it has mounted {device.path}, and it is not at {place}", path=str(place))
    top = stack[-1]
    wrong = [*mount_flags.differences(top, request.mount_flags)]
    if top.device_number() != device.number:
        wrong.append(f"device {top.source} instead of {device.path}")
    elif top.kind == "btrfs" and device.number not in btrfs.devices_at(place):
        wrong.append(f"another file system of the UUID that {device.path} has")
    if top.kind != kind.name:
        wrong.append(f"{top.kind} instead of {kind.name}")
    # Of the mount, not of the file system: that may have gone read-only by itself.
    if ("ro" in top.options) != request.is_without_writing:
        wrong.append("read-only" if "ro" in top.options else "writable instead of read-only")
    if wrong:
        raise ConflictError(f"{place} is staged otherwise: {', '.join(wrong)}; unstage it first", path=str(place))
    return top


def _ready(runner: Runner, kind: Kind, device: Device, request: StageRequest) -> None:
    """See to it that there is a file system of this kind which can be mounted, or say why there is none."""
    content = probe(runner, device)
    if content.is_blank or (content.is_unfinished and content.kind == kind.name):
        _make(runner, kind, device, request, content)
    elif content.kind != kind.name:
        raise ForeignContentError(
            f"{device.path} holds {content.found}, not {kind.name}, and is left as it is. If nobody needs that, delete "
            f"the volume, or empty it by hand with 'blkdiscard --zeroout {device.path}' and stage it again",
            device=device.path,
            found=content.found,
        )
    elif kind.name == "ext4" and not request.is_without_writing:
        _check(runner, kind, device)
    elif kind.name == "btrfs" and request.copy_id and not btrfs.are_told_apart():
        _tell_apart(device, request.copy_id)


def _make(runner: Runner, kind: Kind, device: Device, request: StageRequest, content: Content) -> None:
    if request.is_without_writing:
        raise NotFormattedError(
            f"{device.path} has no file system, and is to be read only: use it writable once", device=device.path
        )
    if device.size_bytes < kind.minimum_bytes:
        raise InvalidRequestError(
            f"{device.path} has {human_bytes(device.size_bytes)}; {kind.name} needs {human_bytes(kind.minimum_bytes)}",
            device=device.path,
            device_bytes=device.size_bytes,
            minimum_bytes=kind.minimum_bytes,
        )
    if content.is_unfinished:
        log.warning("mkfs was ended half-way, begun again", extra={"device": device.path, "fs_type": kind.name})
    mkfs.make(runner, kind, device, request.mkfs_options, over_unfinished=content.is_unfinished)
    log.info("made file system", extra={"device": device.path, "fs_type": kind.name, "size_bytes": device.size_bytes})


def _tell_apart(device: Device, copy_id: str) -> None:
    """Also for reading only: a copy that keeps its source's UUID could keep the source itself from being mounted."""
    if not mount_table.read().of_device(device.number):
        btrfs.give(device, btrfs.own_uuid(copy_id))


def _check(runner: Runner, kind: Kind, device: Device) -> None:
    """Replay the journal, and repair what is surely repaired (`e2fsck -p`); xfs and btrfs do so when mounted."""
    if mount_table.read().of_device(device.number):
        return  # mounted elsewhere already: e2fsck would refuse, and rightly
    try:
        checked = runner.change(("e2fsck", "-p", device.path), accepted=(0, _CORRECTED))
    except CommandFailedError as failure:
        if "is in use" in failure.stderr or "is mounted" in failure.stderr:
            raise VolumeInUseError(
                f"{device.path} is in use: {failure.stderr.strip()}", device=device.path
            ) from failure
        raise FileSystemDamagedError(
            f"e2fsck -p ended with {failure.exit_code} and will not repair the {kind.name} on {device.path} by itself: "
            f"{kind.advice.format(device=device.path)}",
            device=device.path,
            exit_code=failure.exit_code,
        ) from failure
    if checked.exit_code == _CORRECTED:
        log.warning("repaired", extra={"device": device.path, "said": checked.stdout.strip()})
