"""Places to run the contract on: real storage of each kind, and a second opinion of what is on it.

A Site makes its stores before a test and leaves nothing behind. Its `truth` never asks our own code: it reads LVM and
the file system by itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from node_agent.assembly import Assembly, assemble, backends
from ullage.errors import GIB, MIB
from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Layout,
    LayoutKind,
    Owner,
    ThinPoolPolicy,
    VolumeId,
    Wipe,
)
from ullage.run import Runner, Subprocesses

CLASS = DeviceClassName("main")
MARK = "ullage.io/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is really there: sizes and tags (or records) by volume, and the room that is left, each by store."""

    sizes: Mapping[str, int]
    tags: Mapping[str, frozenset[str]]
    free_bytes: int


class Site(Protocol):
    """One kind of storage, set up for a test."""

    name: str
    step_bytes: int
    """Sizes are multiples of this."""
    is_lvm: bool

    def device_class(self, wipe: Wipe = Wipe.DISCARD) -> DeviceClass:
        """The class named CLASS on this site."""

    def set_up(self) -> None:
        """Make the stores, empty."""

    def tear_down(self) -> None:
        """Remove everything, whatever state it is in."""

    def truth(self) -> Truth:
        """Read the storage without our code."""

    def lose_store(self) -> contextlib.AbstractContextManager[None]:
        """Make the store vanish for the duration, as a pulled disk or a missing mount does."""


def started(
    site: Site, *, runner: Runner | None = None, classes: Sequence[DeviceClass] | None = None, wipe: Wipe = Wipe.DISCARD
) -> Assembly:
    """A fresh agent on the site, configured and recovered, as after a start of the process."""
    assembly = assemble(backends(runner or Subprocesses()), store_patience_seconds=20.0)
    assembly.agent.configure(list(classes) if classes is not None else [site.device_class(wipe)])
    assembly.agent.recover()
    return assembly


def wanted(volume_id: str, size_bytes: int, **changes: object) -> CreateVolume:
    """A request for a volume of CLASS with an owner."""
    owner = Owner(pv_name=f"pv-{volume_id}", claim_namespace="default", claim_name=volume_id, claim_uid="u-1")
    request = CreateVolume(volume_id=VolumeId(volume_id), device_class=CLASS, size_bytes=size_bytes, owner=owner)
    return replace(request, **changes)  # type: ignore[arg-type] # fields by name, checked at run time


def run(*argv: str, is_checked: bool = True) -> str:
    """A program of the test's own."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert not is_checked or done.returncode == 0, f"{argv}: {done.returncode}: {done.stderr}"
    return done.stdout


class FileSite:
    """A directory of this machine."""

    name = "file"
    step_bytes = 4 * MIB
    is_lvm = False

    def __init__(self, total_bytes: int = 2 * GIB) -> None:
        self._total_bytes = total_bytes
        self._base = Path()

    @property
    def directory(self) -> Path:
        """Where the volumes are."""
        return self._base / "volumes"

    def device_class(self, wipe: Wipe = Wipe.DISCARD) -> DeviceClass:
        return DeviceClass(name=CLASS, type=DeviceType.FILE, directory=str(self.directory), wipe=wipe)

    def set_up(self) -> None:
        """A file system of our own, so that nobody else changes its free space during a test."""
        self._base = Path(tempfile.mkdtemp(prefix="ullage-contract-"))
        image = self._base / "image"
        with image.open("wb") as file:
            file.truncate(self._total_bytes)
        run("mkfs.ext4", "-q", "-m", "0", str(image))
        self.directory.mkdir()
        run("mount", "-o", "loop", str(image), str(self.directory))

    def tear_down(self) -> None:
        for line in run("losetup", "--noheadings", "--output", "NAME,BACK-FILE").splitlines():
            device, _, file = line.strip().partition(" ")
            if file.strip().startswith(f"{self.directory}/"):
                run("umount", "--quiet", device, is_checked=False)
                run("losetup", "--detach", device, is_checked=False)
        for _ in range(50):  # the kernel lets go of a detached loop device's file a moment later
            if subprocess.run(["umount", str(self.directory)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        shutil.rmtree(self._base)

    def truth(self) -> Truth:
        status = os.statvfs(self.directory)
        sizes = {path.stem: path.stat().st_size for path in self.directory.glob("*.img")}
        records = {path.stem: json.loads(path.read_text()) for path in self.directory.glob("[!.]*.json")}
        tags = {name: frozenset(str(value) for value in record.values()) for name, record in records.items()}
        return Truth(sizes=sizes, tags=tags, free_bytes=status.f_bavail * status.f_frsize)

    @contextlib.contextmanager
    def lose_store(self) -> Iterator[None]:
        moved = self._base / "moved"
        run("mount", "--make-private", str(self.directory))
        moved.mkdir(exist_ok=True)
        run("mount", "--move", str(self.directory), str(moved))
        try:
            yield
        finally:
            run("mount", "--move", str(moved), str(self.directory))


GROUP = "vgcontract"
DISKS = ("/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd")


class LvmSite:
    """A volume group on the VM's blank disks, with one layout."""

    is_lvm = True

    def __init__(self, name: str, layout: Layout | None = None, *, is_thin: bool = False) -> None:
        self.name = name
        self.layout = layout or Layout()
        self.is_thin = is_thin
        self.step_bytes = 4 * MIB * self.layout.stripes

    def device_class(self, wipe: Wipe = Wipe.DISCARD) -> DeviceClass:
        thin = ThinPoolPolicy(name="pool0", overprovision_ratio=Fraction(3, 2), create_size_bytes=800 * MIB)
        return DeviceClass(
            name=CLASS,
            type=DeviceType.THIN if self.is_thin else DeviceType.THICK,
            volume_groups=(GROUP,),
            layout=self.layout,
            thin_pool=thin if self.is_thin else None,
            wipe=wipe,
        )

    def set_up(self) -> None:
        for disk in DISKS:
            run("wipefs", "--all", "--quiet", disk)
        run("vgcreate", "--quiet", "--yes", GROUP, *DISKS)

    def tear_down(self) -> None:
        run("udevadm", "settle")
        run("vgremove", "--force", "--force", "--yes", GROUP, is_checked=False)
        for disk in DISKS:
            run("pvremove", "--force", "--force", "--yes", disk, is_checked=False)
            run("wipefs", "--all", "--quiet", disk)

    def truth(self) -> Truth:
        report = json.loads(
            run("lvs", "--reportformat", "json", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size,lv_tags", GROUP)
        )
        rows = report["report"][0]["lv"]
        tags = {row["lv_name"]: frozenset(filter(None, row["lv_tags"].split(","))) for row in rows}
        ours = {row["lv_name"]: int(row["lv_size"]) for row in rows if f"{MARK}pool" not in tags[row["lv_name"]]}
        free = run("vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free", GROUP)
        return Truth(sizes=ours, tags={name: tags[name] for name in ours}, free_bytes=int(free))

    @contextlib.contextmanager
    def lose_store(self) -> Iterator[None]:
        """Hide the physical volumes' labels, as if other disks were there: LVM then finds no such group."""
        saved = {}
        for disk in DISKS:
            with open(disk, "r+b", buffering=0) as device:  # noqa: PTH123 - a device
                saved[disk] = device.read(MIB)
                device.seek(0)
                device.write(bytes(MIB))
                os.fsync(device.fileno())
        try:
            yield
        finally:
            for disk, content in saved.items():
                with open(disk, "r+b", buffering=0) as device:  # noqa: PTH123
                    device.write(content)
                    os.fsync(device.fileno())
            run("udevadm", "settle")


SITES: Mapping[str, Site] = {
    site.name: site
    for site in (
        FileSite(),
        LvmSite("thick"),
        LvmSite("thin", is_thin=True),
        LvmSite("striped", Layout(kind=LayoutKind.STRIPED, stripes=2)),
        LvmSite("raid1", Layout(kind=LayoutKind.RAID1, mirrors=1)),
        LvmSite("raid1-integrity", Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True)),
    )
}
