"""Volumes as the CSI node service needs them: staged, published, grown, looked at, and undone again.

Nothing is remembered here: the kernel's mount table and what is on the devices say all, so that a restarted process, or
a second one, goes on where the first was. Each call can be repeated after a crash at any point. The caller sees to it
that there is one call at a time for a volume.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from csi.fs import condition, growth, mount_table, propagation, publishing, readonly_loops, staging
from csi.fs import device as devices
from csi.fs.condition import BlockStats, FileSystemStats
from csi.fs.mount_table import Mount
from csi.fs.staging import StageRequest
from ullage.errors import InvalidRequestError, NotFoundError
from ullage.model import Problem
from ullage.run import Runner

__all__ = ["BlockStats", "FileSystemStats", "FileSystems", "StageRequest"]


class FileSystems:
    """The node's volumes. Paths are absolute; devices are given as the agent reports them.

    Every call may raise DeviceError (the device does not answer), CommandError, and InvalidRequestError (a relative
    path).
    """

    def __init__(self, runner: Runner, *, is_standalone: bool = False) -> None:
        """`is_standalone`: whoever uses the mounts is in our own mount namespace, so that none needs to leave it."""
        self._runner = runner
        self._is_standalone = is_standalone

    def stage(self, request: StageRequest, staging_path: Path) -> None:
        """Mount the volume's file system: made if the device is blank, checked, and grown to its device.

        Raises ForeignContentError, NotFormattedError, FileSystemDamagedError, ConflictError (staged otherwise),
        InvalidRequestError (unknown file system, or too small a device), NotPropagatedError.
        """
        place = _resolved(staging_path)
        self._require_seen(place)
        staging.stage(self._runner, request, place)

    def stage_block(self, staging_path: Path) -> None:
        """A block volume needs nothing; raises ConflictError where a file system is staged."""
        staging.stage_block(_resolved(staging_path))

    def unstage(self, staging_path: Path) -> None:
        """Unmount it, however often it is mounted there; nothing there is fine. Raises VolumeInUseError."""
        staging.unstage(self._runner, _resolved(staging_path))

    def publish(  # noqa: PLR0913 (what NodePublishVolume knows; all but the paths are keywords)
        self,
        device_path: str,
        staging_path: Path,
        target_path: Path,
        *,
        mount_flags: Sequence[str],
        is_read_only: bool,
        is_shared: bool,
    ) -> None:
        """Show the staged file system at the target, whose directory is made.

        Not `is_shared` is SINGLE_NODE_SINGLE_WRITER: VolumeInUseError when it is published elsewhere. Raises also
        NotStagedError, ConflictError (published or staged otherwise), NotPropagatedError.
        """
        place = _resolved(target_path)
        self._require_seen(place)
        publishing.publish(
            self._runner,
            device_path,
            _resolved(staging_path),
            place,
            flags=mount_flags,
            is_read_only=is_read_only,
            is_shared=is_shared,
        )

    def publish_block(self, device_path: str, target_path: Path, *, is_read_only: bool, is_shared: bool) -> None:
        """Show the device at the target, whose file is made; read-only means that nobody can write it. As `publish`."""
        place = _resolved(target_path)
        self._require_seen(place)
        publishing.publish_block(self._runner, device_path, place, is_read_only=is_read_only, is_shared=is_shared)

    def unpublish(self, target_path: Path) -> None:
        """Unmount and remove the target, of either sort; nothing there is fine.

        Raises VolumeInUseError, and ForeignContentError when files are beneath the mount: they are never deleted.
        """
        publishing.unpublish(self._runner, _resolved(target_path))

    def expand(self, volume_path: Path, device_path: str) -> int:
        """Grow what is mounted at the path to its device, whose bytes are returned; a block volume has them already.

        Raises NotFoundError (not mounted there), PreconditionError (mounted for reading only).
        """
        place = _resolved(volume_path)
        device = devices.looked_up(device_path)
        mounted = _mounted(place, device_path, device.number)
        if mounted.is_node:
            readonly_loops.follow_size(device)
        elif growth.is_needed(device, mounted.kind):
            growth.grow(self._runner, device, mounted)
        return device.size_bytes

    def stats(self, device_path: str, volume_path: Path) -> FileSystemStats | BlockStats:
        """How full the volume is; raises NotFoundError unless the path shows it. A gone device is not compared."""
        if not volume_path.is_absolute():
            raise NotFoundError(f"{volume_path} is no mount of a volume", path=str(volume_path))
        place = _resolved(volume_path)
        try:
            number = os.stat(device_path).st_rdev  # noqa: PTH116 - a device node, not a file
        except FileNotFoundError:
            condition.require_ours(place)
        else:
            if not mount_table.shows_at(place, number):
                _mounted(place, device_path, number)
        return condition.stats(place)

    def health(self, device_path: str, volume_path: Path) -> Problem | None:
        """What is wrong with the device, or with its mount at the path; None when nothing shows."""
        return condition.health(device_path, _resolved(volume_path))

    def _require_seen(self, place: Path) -> None:
        if not self._is_standalone:
            propagation.require(place)


def _mounted(place: Path, device_path: str, number: int) -> Mount:
    """The mount at the place, which must be the device's; raises NotFoundError."""
    mounted = next(reversed(mount_table.at(place)), None)
    if mounted is None:
        raise NotFoundError(f"Nothing is mounted at {place}", path=str(place))
    if not publishing.shows(mounted, number):
        raise NotFoundError(f"{place} has {mounted.source} mounted, not {device_path}", path=str(place))
    return mounted


def _resolved(path: Path) -> Path:
    """The path as mountinfo spells it: links in its parents followed, itself never touched (it may be a dead mount)."""
    if not path.is_absolute() or path.name in ("", ".."):
        raise InvalidRequestError(f"{str(path)!r} is no absolute path to mount at", path=str(path))
    return Path(os.path.realpath(path.parent)) / path.name
