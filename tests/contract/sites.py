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
OTHER_CLASS = DeviceClassName("other")
OLD_BYTES = b"an earlier tenant's secret bytes" * 128
DIRTY_BYTES, DIRTY_STEP_BYTES = 32 * MIB, MIB // 4
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

    def leftovers(self) -> list[str]:
        """What is there and belongs to no volume: parts, devices, temporary files, cookies."""

    def empty(self) -> None:
        """As after `set_up`."""

    def dirty(self) -> None:
        """Put an earlier tenant's bytes where the next volumes of an empty store will be."""

    def full(self) -> contextlib.AbstractContextManager[None]:
        """Take all room that is left by hand, behind the agent's back."""

    def second(self) -> contextlib.AbstractContextManager[DeviceClass]:
        """Another store, empty, and its only class (OTHER_CLASS)."""

    def make_foreign(self, name: str, size_bytes: int, tagged_as: str = "") -> None:
        """A volume by hand that is not ours, or that bears the mark of `tagged_as`."""

    def remove_foreign(self, name: str) -> None:
        """By hand, again."""


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


EXT4 = ("mkfs.ext4", "-q", "-m", "0")
XFS = ("mkfs.xfs", "-q", "-f", "-m", "reflink=1")


class FileSite:
    """A directory of this machine, on a file system of its own."""

    step_bytes = 4 * MIB
    is_lvm = False

    def __init__(self, name: str = "file", mkfs: Sequence[str] = EXT4, total_bytes: int = 2 * GIB) -> None:
        self.name = name
        self._mkfs = mkfs
        self._total_bytes = total_bytes
        self._base = Path()

    @property
    def directory(self) -> Path:
        """Where the volumes are."""
        return self._base / "volumes"

    def device_class(self, wipe: Wipe = Wipe.DISCARD) -> DeviceClass:
        return DeviceClass(name=CLASS, type=DeviceType.FILE, directory=str(self.directory), wipe=wipe)

    def set_up(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="ullage-contract-"))
        # What lies on a mount that is shared, as systemd's are, cannot be moved: `lose_store`.
        run("mount", "--bind", str(self._base), str(self._base))
        run("mount", "--make-private", str(self._base))
        self._mount(self.directory)

    def tear_down(self) -> None:
        self._unmount(self.directory)
        run("umount", str(self._base))
        shutil.rmtree(self._base)

    def leftovers(self) -> list[str]:
        names = {path.name for path in self.directory.iterdir()} - {"lost+found", ".ullage.json"}
        pairs = {f"{stem}{suffix}" for stem in self.truth().sizes for suffix in (".img", ".json")}
        attached = [file for _, file in self._loops(self.directory)]
        devices = [file for file in attached if Path(file).name not in pairs or attached.count(file) > 1]
        return [f"file {name}" for name in sorted(names ^ pairs)] + [f"loop device on {file}" for file in devices]

    def empty(self) -> None:
        for device, _ in self._loops(self.directory):
            run("losetup", "--detach", device)
        for path in self.directory.iterdir():
            if path.name != "lost+found":
                path.unlink()

    def dirty(self) -> None:
        """Nothing to do: a new file shows zeroes."""

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        theirs = self.directory / "theirs"
        with theirs.open("wb") as file:
            for piece in (GIB, 64 * MIB, MIB, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
        try:
            yield
        finally:
            theirs.unlink()

    @contextlib.contextmanager
    def second(self) -> Iterator[DeviceClass]:
        other = self._base / "other"
        self._mount(other)
        try:
            yield DeviceClass(name=OTHER_CLASS, type=DeviceType.FILE, directory=str(other), wipe=Wipe.NONE)
        finally:
            self._unmount(other)

    def make_foreign(self, name: str, size_bytes: int, tagged_as: str = "") -> None:
        with (self.directory / f"{name}.img").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        if tagged_as:
            record = {"version": 1, "id": tagged_as, "class": CLASS, "size_bytes": size_bytes, "state": "ready"}
            more = {"wipe": "none", "is_sparse": False, "owner": {}, "created_at": "2026-01-01T00:00:00Z"}
            (self.directory / f"{name}.json").write_text(json.dumps({**record, **more}))

    def remove_foreign(self, name: str) -> None:
        (self.directory / f"{name}.img").unlink()
        (self.directory / f"{name}.json").unlink(missing_ok=True)

    def _mount(self, directory: Path) -> None:
        """A file system of our own, so that nobody else changes its free space during a test."""
        image = self._base / f"{directory.name}-image"
        with image.open("wb") as file:
            file.truncate(self._total_bytes)
        run(*self._mkfs, str(image))
        directory.mkdir()
        run("mount", "-o", "loop", str(image), str(directory))

    def _unmount(self, directory: Path) -> None:
        run("fsfreeze", "--unfreeze", str(directory), is_checked=False)
        for device, _ in self._loops(directory):
            run("umount", "--quiet", device, is_checked=False)
            run("losetup", "--detach", device, is_checked=False)
        for _ in range(50):  # the kernel lets go of a detached loop device's file a moment later
            if subprocess.run(["umount", str(directory)], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)

    def _loops(self, directory: Path) -> list[tuple[str, str]]:
        """Loop devices on files in a directory, each with its file."""
        lines = run("losetup", "--noheadings", "--output", "NAME,BACK-FILE").splitlines()
        pairs = [(device, file.strip()) for device, _, file in (line.strip().partition(" ") for line in lines)]
        return [(device, file) for device, file in pairs if file.startswith(f"{directory}/")]

    def truth(self) -> Truth:
        status = os.statvfs(self.directory)
        sizes = {path.stem: path.stat().st_size for path in self.directory.glob("*.img")}
        records = {path.stem: json.loads(path.read_text()) for path in self.directory.glob("[!.]*.json")}
        tags = {name: frozenset(str(value) for value in record.values()) for name, record in records.items()}
        return Truth(sizes=sizes, tags=tags, free_bytes=status.f_bavail * status.f_frsize)

    @contextlib.contextmanager
    def lose_store(self) -> Iterator[None]:
        moved = self._base / "moved"
        moved.mkdir(exist_ok=True)
        run("mount", "--move", str(self.directory), str(moved))
        try:
            yield
        finally:
            run("mount", "--move", str(moved), str(self.directory))


GROUP = "vgcontract"
OTHER_GROUP = "vgother"
DISKS = ("/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd")
MORE_DISKS = ("/dev/vde", "/dev/vdf")


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
        run("wipefs", "--all", "--quiet", *DISKS)
        run("vgcreate", "--quiet", "--yes", GROUP, *DISKS)

    def tear_down(self) -> None:
        run("udevadm", "settle")
        run("vgremove", "--force", "--force", "--yes", GROUP, is_checked=False)
        run("wipefs", "--all", "--quiet", *DISKS)

    def truth(self) -> Truth:
        report = self._report()
        tags = {row["lv_name"]: frozenset(filter(None, row["lv_tags"].split(","))) for row in _shown(report["lv"])}
        ours = {
            row["lv_name"]: int(row["lv_size"])
            for row in _shown(report["lv"])
            if f"{MARK}pool" not in tags[row["lv_name"]]
        }
        return Truth(sizes=ours, tags={name: tags[name] for name in ours}, free_bytes=int(report["vg"][0]["vg_free"]))

    def leftovers(self) -> list[str]:
        known = {row["lv_name"].strip("[]") for row in self._report()["lv"]}
        found = []
        for line in run("dmsetup", "info", "--columns", "--noheadings", "--options", "name,suspended").splitlines():
            device, _, state = line.partition(":")
            group, _, volume = device.replace("--", "\0").partition("-")
            name, _, layer = volume.partition("-")
            name = name.replace("\0", "-")
            is_needed = layer != "real" or any(each.startswith(("s-", "f-")) for each in known)
            if group == GROUP and (name not in known or not is_needed):
                found.append(f"device {device}")
            if group == GROUP and state == "Suspended":
                found.append(f"suspended {device}")
        cookies = run("dmsetup", "udevcookies").splitlines()
        return found + [f"cookie {line}" for line in cookies if line.startswith("0x")]

    def empty(self) -> None:
        run("lvremove", "--yes", "--force", GROUP)

    def dirty(self) -> None:
        for disk in DISKS:
            with open(disk, "r+b", buffering=0) as device:  # noqa: PTH123 - a device
                for offset in range(MIB, MIB + DIRTY_BYTES, DIRTY_STEP_BYTES):
                    device.seek(offset)
                    device.write(OLD_BYTES)
                os.fsync(device.fileno())

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        run("lvcreate", "--yes", "--name", "theirs", "--extents", "100%FREE", GROUP)
        try:
            yield
        finally:
            run("lvremove", "--yes", f"{GROUP}/theirs")

    @contextlib.contextmanager
    def second(self) -> Iterator[DeviceClass]:
        run("wipefs", "--all", "--quiet", *MORE_DISKS)
        run("vgcreate", "--quiet", "--yes", OTHER_GROUP, *MORE_DISKS)
        try:
            yield DeviceClass(
                name=OTHER_CLASS, type=DeviceType.THICK, volume_groups=(OTHER_GROUP,), wipe=Wipe.NONE, layout=Layout()
            )
        finally:
            run("udevadm", "settle")
            run("vgremove", "--force", "--force", "--yes", OTHER_GROUP, is_checked=False)
            run("wipefs", "--all", "--quiet", *MORE_DISKS)

    def make_foreign(self, name: str, size_bytes: int, tagged_as: str = "") -> None:
        tag = ("--addtag", f"{MARK}volume={tagged_as}") if tagged_as else ()
        run("lvcreate", "--yes", "--name", name, "--size", f"{size_bytes}b", *tag, GROUP)

    def remove_foreign(self, name: str) -> None:
        run("lvremove", "--yes", f"{GROUP}/{name}")

    def _report(self) -> dict[str, list[dict[str, str]]]:
        argv = ("lvm", "fullreport", "--all", "--reportformat", "json", "--units", "b", "--nosuffix")
        fields = ("--configreport", "vg", "-o", "vg_free", "--configreport", "lv", "-o", "lv_name,lv_size,lv_tags")
        groups: list[dict[str, list[dict[str, str]]]] = json.loads(run(*argv, *fields, GROUP))["report"]
        return groups[0]

    @contextlib.contextmanager
    def lose_store(self) -> Iterator[None]:
        """LVM then finds no such group."""
        with self.lose_disks(*DISKS):
            yield

    @contextlib.contextmanager
    def lose_disks(self, *disks: str) -> Iterator[None]:
        """Hide these physical volumes' labels, as if other disks were there."""
        saved = {}
        for disk in disks:
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


def _shown(rows: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    return [row for row in rows if not row["lv_name"].startswith("[")]


SITES: Mapping[str, Site] = {
    site.name: site
    for site in (
        FileSite(),
        FileSite("file-reflink", XFS),
        LvmSite("thick"),
        LvmSite("thin", is_thin=True),
        LvmSite("striped", Layout(kind=LayoutKind.STRIPED, stripes=2)),
        LvmSite("raid1", Layout(kind=LayoutKind.RAID1, mirrors=1)),
        LvmSite("raid1-integrity", Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True)),
    )
}
