"""Volumes of one group: two with file systems that are mounted, one that nobody uses; and who writes to them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from node_agent.agent import Agent
from node_agent.assembly import Assembly, assemble
from node_agent.backends.lvm.backend import LvmBackend
from node_agent.backends.lvm.command import Lvm
from node_agent.debts import Debts
from node_agent.holds import FREEZE, THAW
from tests.contract.faults import LONG_SECONDS, Around, Programs, idle, undisturbed
from tests.contract.sites import Site, run, wanted
from ullage.errors import MIB
from ullage.model import DeviceClass, GroupId, TakeGroup, Volume, VolumeId
from ullage.names import group_id

A, B, C = VolumeId("pvc-a"), VolumeId("pvc-b"), VolumeId("pvc-c")
SIZES = {A: 64 * MIB, B: 304 * MIB, C: 8 * MIB}
"""mkfs.xfs makes nothing below 300 MiB."""
MOUNTED = {A: "ext4", B: "xfs"}
READ_ONLY = {"ext4": "ro,noload", "xfs": "ro,norecovery,nouuid"}
"""Nothing is replayed: what was frozen is whole without."""
GROUP: GroupId = group_id("the group")
TAKE = TakeGroup(group_id=GROUP, sources=(A, B, C))
RECORD = struct.Struct(">Q")


@dataclass(frozen=True)
class Scene:
    """The volumes of a site, mounted below `folder`."""

    site: Site
    folder: Path

    @property
    def debts(self) -> Debts:
        return Debts(self.folder / "debts")

    def place(self, volume_id: VolumeId) -> Path:
        return self.folder / volume_id

    def device_class(self) -> DeviceClass:
        """The site's, promising as much as a test wants."""
        found = self.site.device_class()
        assert found.thin_pool is not None
        return replace(found, thin_pool=replace(found.thin_pool, overprovision_ratio=Fraction(20)))

    def begun(self, around: Around = undisturbed) -> Assembly:
        """An agent after a start, with everything ended that an earlier one had begun."""
        assembly = assemble(
            (LvmBackend(Lvm(runner=Programs(change=around), has_udev=True)),),
            debts=self.debts,
            store_patience_seconds=60.0,
        )
        assembly.agent.configure([self.device_class()])
        assembly.agent.recover()
        idle(assembly)
        return assembly

    def make(self, agent: Agent) -> None:
        """Make, format and mount."""
        for volume_id, size_bytes in SIZES.items():
            device = volume_of(agent.create(wanted(volume_id, size_bytes)).volume).device_path
            if volume_id in MOUNTED:
                run(f"mkfs.{MOUNTED[volume_id]}", "-q", device)
                self.place(volume_id).mkdir()
                run("mount", device, str(self.place(volume_id)))

    def unmount(self) -> None:
        for volume_id in MOUNTED:
            run("fsfreeze", "--unfreeze", str(self.place(volume_id)), is_checked=False)
            run("umount", str(self.place(volume_id)), is_checked=False)

    def frozen(self) -> list[VolumeId]:
        return [volume_id for volume_id in MOUNTED if is_frozen(self.place(volume_id))]

    @contextmanager
    def looked_into(self, snapshots: Sequence[Volume]) -> Iterator[dict[VolumeId, Path]]:
        """The members of groups mounted read-only, by their ids; those of raw volumes as devices."""
        names = [f"{each.store}/{each.id}" for each in snapshots]
        run("lvchange", "--activate", "y", "--ignoreactivationskip", *names)
        places: dict[VolumeId, Path] = {}
        try:
            for each in snapshots:
                device = f"/dev/{each.store}/{each.id}"
                kind = MOUNTED.get(VolumeId(str(each.source)))
                place = self.folder / each.id
                if kind is not None:
                    place.mkdir(exist_ok=True)
                    run("mount", "-o", READ_ONLY[kind], device, str(place))
                places[each.id] = place if kind is not None else Path(device)
            yield places
        finally:
            for place in places.values():
                if place.is_dir():
                    run("umount", str(place))
            run("lvchange", "--activate", "n", *names)


class Writer(threading.Thread):
    """Appends records to two files by turns, each one durable before the next begins."""

    def __init__(self, even: Path, odd: Path) -> None:
        super().__init__(name="writer")
        self._paths = (even, odd)
        self.written = 0
        self._is_to_end = threading.Event()

    def run(self) -> None:
        files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in self._paths]
        while not self._is_to_end.is_set():
            os.write(files[self.written % 2], RECORD.pack(self.written))
            os.fsync(files[self.written % 2])
            self.written += 1
        for file in files:
            os.close(file)

    def end(self) -> None:
        self._is_to_end.set()
        self.join(LONG_SECONDS)
        assert not self.is_alive()


def records(path: Path) -> list[int]:
    content = path.read_bytes()
    return [number for (number,) in RECORD.iter_unpack(content[: len(content) // RECORD.size * RECORD.size])]


def are_of_one_moment(even: Sequence[int], odd: Sequence[int]) -> bool:
    """Whether they are all records up to one: none is there without the one that was durable before it."""
    return sorted((*even, *odd)) == list(range(len(even) + len(odd)))


def is_frozen(place: Path) -> bool:
    """Asked the only way there is: by freezing it, and thawing it again."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FREEZE, 0)
        fcntl.ioctl(descriptor, THAW, 0)
    except OSError as failure:
        if failure.errno != errno.EBUSY:
            raise
        return True
    finally:
        os.close(descriptor)
    return False


def volume_of(volume: Volume | None) -> Volume:
    assert volume is not None
    return volume
