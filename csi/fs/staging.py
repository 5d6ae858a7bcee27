"""Staging: from a device to a mounted file system.

Every step looks first and can be repeated. mkfs, only on what is blank; then the check; then the mount; then the
growth. A crash between any two leaves what the next look finds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from csi.fs import device as devices
from csi.fs import growth, kinds, mkfs, mount_flags, mount_table, mounts
from csi.fs.device import Device
from csi.fs.kinds import Kind
from csi.fs.mount_table import Mount
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

    @property
    def is_without_writing(self) -> bool:
        """Neither made, nor checked, nor grown."""
        return self.is_read_only or mount_flags.is_read_only(self.mount_flags)


def stage(runner: Runner, request: StageRequest, place: Path) -> None:
    """Bring it about that the volume's file system is mounted at `place`, as large as its device."""
    kind = kinds.named(request.fs_type)
    device = devices.looked_up(request.device_path)
    stack = mount_table.at(place)
    if not stack:
        _ready(runner, kind, device, request)
        mounts.make_directory(place)
        mounts.mount(runner, kind, device.path, place, _options(kind, request))
        stack = mount_table.at(place)
        _require_context(runner, stack, request, place)
    mounted = _same(stack, kind, device, request, place)
    if not request.is_without_writing and growth.is_needed(device, kind.name):
        growth.grow(runner, device, mounted)


def unstage(runner: Runner, place: Path) -> None:
    """Bring it about that nothing is mounted at `place`; raises VolumeInUseError."""
    mounts.unmount_all(runner, place)


def _options(kind: Kind, request: StageRequest) -> str:
    return mount_flags.joined(kind.own_mount_options, ("ro",) if request.is_read_only else (), request.mount_flags)


def _require_context(runner: Runner, stack: tuple[Mount, ...], request: StageRequest, place: Path) -> None:
    """Without its context a volume is mounted for a Pod that may not read it; raises PreconditionError."""
    if stack and mount_flags.is_context_lost(stack[-1], request.mount_flags):
        mounts.unmount_all(runner, place)
        raise PreconditionError(
            f"mount dropped the SELinux context of {request.device_path}, as it does where it sees no SELinux: give "
            "the driver's container the host's /sys/fs/selinux and /etc/selinux",
            device=request.device_path,
        )


def _same(stack: tuple[Mount, ...], kind: Kind, device: Device, request: StageRequest, place: Path) -> Mount:
    """The mount at the staging path, which must be what is asked for; raises ConflictError."""
    if not stack:
        raise DeviceError(f"mount says that it has mounted {device.path}, and it is not at {place}", path=str(place))
    top = stack[-1]
    wrong = [*mount_flags.differences(top, request.mount_flags)]
    if top.device_number() != device.number:
        wrong.append(f"device {top.source} instead of {device.path}")
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
