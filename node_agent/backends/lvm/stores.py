"""The volume groups that are stores, found by looking: which there are, which devices each is on, what cannot be read.

A group that cannot be read is never taken for one that has gone: each store that is wanted is in the answer, whole or
with its problem.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from node_agent.backends.lvm.command import Lvm
from node_agent.backends.lvm.devices import candidates
from node_agent.backends.lvm.pools import names, store_report
from node_agent.backends.lvm.report import VolumeGroup, volume_groups
from node_agent.backends.lvm.rows import ARGUMENTS
from node_agent.backends.port import StoreReport
from ullage.errors import CommandError, CommandFailedError, CommandMissingError, CommandTimedOutError
from ullage.model import DeviceClass, PoolName, Problem, StoreName


class Stores:
    """Looks at volume groups and changes nothing. It remembers the devices that each was on."""

    def __init__(self, lvm: Lvm) -> None:
        """Nothing is looked at until the first `look`."""
        self._lvm = lvm
        self._classes: tuple[DeviceClass, ...] = ()
        self._file_directories: tuple[str, ...] = ()
        self._devices: dict[StoreName, tuple[str, ...]] = {}
        """The physical volumes of each group at its last look: what its commands may read. Replaced, never changed."""
        self.marked: frozenset[PoolName] = frozenset()
        """The thin pools whose metadata snapshot is marked as ours, as the last look at everything has found them."""

    def configure(self, classes: tuple[DeviceClass, ...], file_directories: tuple[str, ...]) -> None:
        """Take these classes from now on; no loop device of a file in `file_directories` is looked at."""
        self._classes = classes
        self._file_directories = file_directories

    def look(self) -> tuple[StoreReport, ...]:
        """See Backend. A group is a store when a class names it, when it holds volumes of ours, or when it once did."""
        everything = candidates(self._file_directories)
        named = {StoreName(name) for each in self._classes for name in each.volume_groups if not _is_glob(name)}
        wanted = named | self._devices.keys()
        try:
            groups = self._groups(everything)
        except CommandError as failure:
            if isinstance(failure, CommandMissingError) and not self._classes:
                return ()  # no LVM on this machine, and nobody expects it
            return tuple(self._one_by_one(failure, wanted))
        ours = {
            name: group
            for name, group in groups.items()
            if name in self._devices or group.volumes or any(names(each, name) for each in self._classes)
        }
        self._devices = {**self._devices, **{name: group.devices for name, group in ours.items()}}
        self.marked = frozenset(
            PoolName(f"{name}/{pool.name}")
            for name, group in ours.items()
            for pool in group.thin_pools
            if pool.is_marked
        )
        return (
            *(store_report(group, self._classes) for _, group in sorted(ours.items())),
            *(_missing(name) for name in sorted(wanted - ours.keys())),
        )

    def look_at(self, store: StoreName) -> StoreReport:
        """See Backend."""
        everything = candidates(self._file_directories)
        try:
            group = self._group(store, self._devices.get(store) or everything)
            if group is None or group.missing_physical_volumes:
                # Perhaps the group has moved to devices that we did not know of: a vgextend by hand, a disk renamed.
                group = self._group(store, everything)
        except CommandError as failure:
            return _unreadable(store, failure)
        if group is None:
            return _missing(store)
        self._devices = {**self._devices, store: group.devices}
        return store_report(group, self._classes)

    def devices(self, store: StoreName) -> tuple[str, ...]:
        """The physical volumes of a group at its last look: what its commands may read. None for one never seen."""
        return self._devices.get(store, ())

    def devices_or_all(self, store: StoreName) -> tuple[str, ...]:
        """The same, and every candidate for a group that was not looked at yet."""
        return self.devices(store) or tuple(candidates(self._file_directories))

    def group(self, store: StoreName) -> VolumeGroup | None:
        """One group as it is now, or None: it is not on the devices it was last seen on."""
        return self._group(store, self.devices(store))

    def _groups(self, devices: Sequence[str], *arguments: str) -> dict[StoreName, VolumeGroup]:
        if not devices:
            return {}
        groups = volume_groups(self._lvm.look("fullreport", *ARGUMENTS, *arguments, devices=devices))
        return {name: _as_nodes_show(group) for name, group in groups.items()}

    def _group(self, store: StoreName, devices: Sequence[str]) -> VolumeGroup | None:
        """One group, or None: it is not on these devices. A report on a missing group is empty *and* exits 5."""
        try:
            return self._groups(devices, store).get(store)
        except CommandFailedError as failure:
            if f'Volume group "{store}" not found' in failure.stderr:
                return None
            raise

    def _one_by_one(self, failure: CommandError, wanted: Iterable[StoreName]) -> Iterator[StoreReport]:
        """After a look at everything has failed: one bad group, or one hanging device, must not hide the others.

        A glob stands for groups that cannot be named now. It is reported as a store that cannot be read, so that nobody
        takes the volumes on them for gone; so is LVM itself when no group can be named at all.
        """
        globs = {StoreName(name) for each in self._classes for name in each.volume_groups if _is_glob(name)}
        yield from (_unreadable(name, failure) for name in sorted(globs))
        for name in sorted(wanted):
            # Where some device hangs, only groups whose devices are known can be read without touching that one.
            is_readable = name in self._devices or not isinstance(failure, CommandTimedOutError)
            yield self.look_at(name) if is_readable else _unreadable(name, failure)
        if not globs and not wanted:
            yield _unreadable(StoreName("lvm"), failure)


def _as_nodes_show(group: VolumeGroup) -> VolumeGroup:
    """LVM calls active what has a device, also one that it died over before there was a table and a node to open."""
    volumes = (
        replace(volume, is_active=volume.is_active and os.path.exists(volume.device_path))  # noqa: PTH110 - a device
        for volume in group.volumes
    )
    return replace(group, volumes=tuple(volumes))


def _is_glob(name: str) -> bool:
    return any(letter in name for letter in "*?[")


def _missing(store: StoreName) -> StoreReport:
    message = f"volume group {store} is on none of this node's devices"
    return StoreReport(name=store, problem=Problem(reason="VolumeGroupMissing", message=message))


def _unreadable(store: StoreName, failure: CommandError) -> StoreReport:
    return StoreReport(name=store, problem=Problem(reason=failure.reason, message=f"{store} cannot be read: {failure}"))
