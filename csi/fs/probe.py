"""What is on a device: nothing at all, a file system of ours, or something that is not to be touched.

Blank is said only when blkid's low-level probe finds nothing (it knows file systems, partition tables, RAID, LVM,
LUKS, swap, BlueStore's first label …), when neither of the two things that it does not know is there (BlueStore's other
labels; a superblock that is damaged, but there), and when every place that a probe looks at can really be read.
Anything else, and any doubt, is content, and content is never formatted.
"""

from __future__ import annotations

from dataclasses import dataclass

from csi.fs.device import Device, read_at, read_through
from csi.fs.superblocks import READ_BYTES, Superblock, superblocks
from ullage.errors import GIB, MIB, CommandFailedError, human_bytes
from ullage.places import PLACES
from ullage.run import Runner

LOOK_SECONDS = 60.0
BLUESTORE = b"bluestore block device\n"
BLUESTORE_OFFSETS = (0, 1 * GIB, 10 * GIB, 100 * GIB, 1000 * GIB)
"""Ceph, src/os/bluestore/BlueStore.cc, bdev_label_positions. blkid knows the first, Ceph reads them all."""
BTRFS_COPY_OFFSETS = (64 * MIB, 256 * GIB)
"""The second and third superblock, of which Linux restores the first (btrfs-progs, kernel-shared/disk-io.h)."""
_NOTHING, _AMBIVALENT = 2, 8  # blkid(8), exit codes; 2 is also "cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What was found. `found` is a phrase for a sentence, empty on a blank device."""

    found: str
    kind: str = ""
    """The file system's kind, when it is one and nothing else is there."""
    superblock: Superblock | None = None
    """Of a file system of a kind that we make."""

    @property
    def is_blank(self) -> bool:
        """Nothing at all."""
        return not self.found

    @property
    def is_unfinished(self) -> bool:
        """What our own mkfs left when it was killed; no data can be in it, see csi.fs.superblocks."""
        return self.superblock is not None and self.superblock.is_unfinished


def probe(runner: Runner, device: Device) -> Content:
    """Look; raises DeviceError when a place cannot be read, CommandFailedError, CommandTimedOutError."""
    beginning = read_at(device, 0, READ_BYTES)
    argv = ("blkid", "-p", "-o", "export", device.path)
    seen = runner.look(argv, timeout_seconds=LOOK_SECONDS, accepted=(0, _NOTHING, _AMBIVALENT))
    if seen.exit_code == _AMBIVALENT:
        return Content(found=f"several things at once: {_listed(runner, device)}")
    if seen.exit_code == _NOTHING:
        if seen.stderr.strip():
            raise CommandFailedError(argv=argv, exit_code=seen.exit_code, stderr=seen.stderr)
        return Content(found=_overlooked(device, beginning))
    tags = _tags(seen.stdout)
    kind = tags.get("TYPE", "") if tags.get("USAGE", "") == "filesystem" else ""
    superblock = next((block for block in superblocks(beginning) if block.kind == kind), None)
    return Content(found=_phrase(tags), kind=kind, superblock=superblock)


def _tags(export: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in export.splitlines() if "=" in line)


def _phrase(tags: dict[str, str]) -> str:
    parts = []
    if kind := tags.get("TYPE", ""):
        what = {"filesystem": " file system", "raid": " RAID or LVM member", "crypto": " encrypted device"}
        parts.append(f"{kind}{what.get(tags.get('USAGE', ''), '')}")
    if table := tags.get("PTTYPE", ""):
        parts.append(f"{table} partition table")
    parts += [f"{name} {tags[name]}" for name in ("LABEL", "UUID") if tags.get(name)]
    return ", ".join(parts) or "something that blkid knows"


def _listed(runner: Runner, device: Device) -> str:
    """Every signature and where it is."""
    argv = ("wipefs", "--no-act", "--noheadings", "--output", "TYPE,OFFSET", device.path)
    lines = runner.look(argv, timeout_seconds=LOOK_SECONDS).stdout.splitlines()
    return ", ".join(" at ".join(line.split()) for line in lines if line.strip()) or "blkid cannot say which"


def _overlooked(device: Device, beginning: bytes) -> str:
    """What blkid does not see; empty when there is really nothing."""
    for place in PLACES:
        offset = place.offset_bytes if place.offset_bytes >= 0 else max(0, device.size_bytes + place.offset_bytes)
        there = read_through(device, offset, place.size_bytes) if offset < device.size_bytes else b""
        if offset in BLUESTORE_OFFSETS and there.startswith(BLUESTORE):
            return f"BlueStore label of a Ceph OSD at {human_bytes(offset)}"
        if offset in BTRFS_COPY_OFFSETS and there[0x40:0x48] == b"_BHRfS_M":
            return f"copy of a btrfs superblock at {human_bytes(offset)}, without its first"
    damaged = superblocks(beginning)
    return f"damaged {damaged[0].kind} superblock" if damaged else ""
