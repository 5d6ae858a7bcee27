"""The largest volume that the arithmetic promises is made by LVM, takes what was said, and one extent more is refused.

Each case is a volume group with uneven free space, in pieces, from a seeded random choice, and one layout. What is
promised is asked for through the real backend; the refusal comes from our arithmetic and, on the same physical volumes,
from bare LVM. `ULLAGE_SEED` chooses other pieces.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node_agent.assembly import backends
from node_agent.backends.lvm.backend import LvmBackend
from node_agent.backends.port import NewVolume
from tests.contract.sites import CLASS, run
from tests.lvm.conftest import GROUP
from ullage.capacity import (
    Allocation,
    allocate,
    allocate_growth,
    image_extents,
    largest_growth_bytes,
    largest_volume_bytes,
    rounded_bytes,
)
from ullage.errors import GIB, KIB, MIB, TIB
from ullage.model import (
    DeviceClass,
    DeviceType,
    Layout,
    LayoutKind,
    Owner,
    Pool,
    StoreName,
    Volume,
    VolumeId,
    Wipe,
)
from ullage.run import Subprocesses

SEED = os.environ.get("ULLAGE_SEED", "1")
STORE = StoreName(GROUP)

PLAIN = {
    "linear": Layout(),
    "striped-2": Layout(kind=LayoutKind.STRIPED, stripes=2),
    "striped-3": Layout(kind=LayoutKind.STRIPED, stripes=3),
    "raid1": Layout(kind=LayoutKind.RAID1, mirrors=1),
    "raid1-three-copies": Layout(kind=LayoutKind.RAID1, mirrors=2),
    "raid5": Layout(kind=LayoutKind.RAID5, stripes=2),
    "raid6": Layout(kind=LayoutKind.RAID6, stripes=3),
    "raid10": Layout(kind=LayoutKind.RAID10, stripes=2, mirrors=1),
}
WITH_INTEGRITY = {f"{name}-integrity": replace(PLAIN[name], integrity=True) for name in ("raid1", "raid5", "raid10")}
LAYOUTS = PLAIN | WITH_INTEGRITY
EXTENTS = (MIB, 4 * MIB, 32 * MIB)
CASES = (
    *((name, EXTENTS[number % 3]) for number, name in enumerate(PLAIN)),
    ("linear", 32 * MIB),
    ("raid1-integrity", 4 * MIB),
    ("raid5-integrity", 4 * MIB),
)

Runs = Mapping[str, Sequence[tuple[int, int]]]
"""By physical volume: first extent and length of each free run."""
Pieces = Mapping[str, Mapping[str, int]]
"""Extents by logical volume and physical volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A volume group under test, through the product's eyes."""

    backend: LvmBackend
    device_class: DeviceClass

    @property
    def layout(self) -> Layout:
        return self.device_class.layout

    def pool(self) -> Pool:
        report = self.backend.look_at(STORE)
        assert report.problem is None
        return report.pools[0]

    def volume(self, name: str) -> Volume:
        return next(each for each in self.backend.look_at(STORE).volumes if each.id == name)

    def create(self, name: str, pool: Pool, size_bytes: int) -> Volume:
        """A volume where the arithmetic wants it: LVM takes it, and takes exactly what was said."""
        allocation = allocate(pool, self.layout, size_bytes)
        assert allocation is not None
        new = NewVolume(
            id=VolumeId(name),
            device_class=self.device_class,
            pool=pool,
            allocation=allocation,
            owner=Owner(),
            needs_wipe=False,
        )
        made = self.backend.create(new)
        assert made.device_size_bytes == allocation.size_bytes
        found = pieces()
        assert taken_bytes(found, name, pool.extent_bytes) == said_bytes(allocation)
        assert images_are_apart(found, name)
        return made


def group(disks: Sequence[str], layout: Layout, extent_bytes: int, reserve_bytes: int = 0) -> Group:
    run("vgcreate", "--quiet", "--yes", "--physicalextentsize", f"{extent_bytes}b", GROUP, *disks)
    device_class = DeviceClass(
        name=CLASS,
        type=DeviceType.THICK,
        volume_groups=(GROUP,),
        layout=layout,
        wipe=Wipe.NONE,
        reserve_bytes=reserve_bytes,
    )
    backend = next(each for each in backends(Subprocesses()) if isinstance(each, LvmBackend))
    backend.configure([device_class])
    return Group(backend=backend, device_class=device_class)


def leave_free(runs: Runs) -> None:
    """Take all of an empty group but these runs, with one volume that is never activated."""
    words, count = [], 0
    for disk, by_disk in pieces()[""].items():
        start = 0
        for free_start, length in (*runs[disk], (by_disk, 0)):
            if free_start > start:
                words.append(f"{disk}:{start}-{free_start - 1}")
                count += free_start - start
            start = free_start + length
    off = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")
    run("lvcreate", "--quiet", "--yes", *off, "--extents", str(count), "--name", "others", GROUP, *words)


def some_runs(chance: random.Random, disks: Sequence[str], lengths: Sequence[range]) -> Runs:
    """On each disk a run for each of these ranges of lengths, in random order, at random places."""
    found = {}
    for disk in disks:
        start, runs = 0, []
        for length in chance.sample(lengths, k=chance.randint(1, len(lengths)) if len(lengths) > 1 else 1):
            start += chance.randint(1, 9)
            runs.append((start, chance.choice(length)))
            start += runs[-1][1]
        found[disk] = runs
    return found


def pieces() -> Pieces:
    """Extents by logical volume (hidden ones, too) and physical volume, read without our code; "" is free space."""
    shape = ("--segments", "--reportformat", "json", "-o", "pv_name,lv_name,pvseg_size")
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for row in json.loads(run("pvs", *shape))["report"][0]["pvseg"]:
        by_disk = found[row["lv_name"].strip("[]")]
        by_disk[row["pv_name"]] = by_disk.get(row["pv_name"], 0) + int(row["pvseg_size"])
    return found


def taken_bytes(found: Pieces, name: str, extent_bytes: int) -> dict[str, int]:
    """What a volume and its parts really take from each physical volume."""
    taken: defaultdict[str, int] = defaultdict(int)
    for part, by_disk in found.items():
        if part == name or part.startswith(f"{name}_"):
            for disk, extents in by_disk.items():
                taken[disk] += extents * extent_bytes
    return dict(taken)


def said_bytes(allocation: Allocation) -> dict[str, int]:
    return {share.physical_volume: share.size_bytes for share in allocation.taken}


def images_are_apart(found: Pieces, name: str) -> bool:
    """Whether each image, with its metadata, is on one physical volume, and each on another."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for part, by_disk in found.items():
        if image := re.fullmatch(rf"{name}_r(?:image|meta)_(\d+)(?:_i(?:orig|meta))?", part):
            homes[image[1]] |= by_disk.keys()
    return all(len(home) == 1 for home in homes.values()) and len(set().union(*homes.values())) == len(homes)


def lvm_takes(layout: Layout, size_bytes: int, disks: Sequence[str]) -> bool:
    """Whether bare lvcreate makes it on these physical volumes; whatever it leaves behind goes again."""
    words = ["--type", layout.kind.value]
    if layout.kind is not LayoutKind.RAID1 and layout.is_spread:
        words += ["--stripes", str(layout.stripes)]
    words += ["--mirrors", str(layout.mirrors)] if layout.mirrors else []
    words += ["--raidintegrity", "y"] if layout.integrity else []
    is_taken = lvm_does("lvcreate", *words, "--size", f"{size_bytes}b", "--name", "bare", GROUP, *disks)
    if is_taken or layout.integrity:
        for name in run("lvs", "--noheadings", "-o", "lv_name", GROUP).split():
            if name.startswith("bare"):
                run("lvremove", "--yes", "--force", f"{GROUP}/{name}")
    return is_taken


def lvm_does(*argv: str) -> bool:
    """False when LVM refuses for want of room; any other failure is the test's own."""
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run([*argv, "--yes"], capture_output=True, text=True, check=False, env=environment)
    wants_room = re.search(
        r"[Ii]nsufficient|No specified PVs have space|Failed to add integrity|with no extents", done.stderr
    )
    assert done.returncode == 0 or wants_room, done.stderr
    return done.returncode == 0


@pytest.mark.parametrize(("name", "extent_bytes"), CASES, ids=[f"{name}-{size // MIB}MiB" for name, size in CASES])
def test_the_largest_is_made_takes_what_was_said_and_one_extent_more_is_refused(
    clean: tuple[str, ...], name: str, extent_bytes: int
) -> None:
    layout = LAYOUTS[name]
    chance = random.Random(f"{SEED} {name} {extent_bytes}")  # noqa: S311 - for choice, not for secrets
    lengths = (range(30, 60), range(1, 9)) if layout.integrity else (range(1, 13),) * 4
    runs = some_runs(chance, clean, lengths)
    reserve = chance.choice((0, 0, 7 * extent_bytes + 1))
    print(f"ULLAGE_SEED={SEED}, reserve {reserve}, free {runs}")
    under_test = group(clean, layout, extent_bytes, reserve)
    leave_free(runs)
    pool = under_test.pool()
    step = extent_bytes * layout.stripes
    largest = largest_volume_bytes(pool, layout)
    allocation = allocate(pool, layout, largest)
    assert allocation is not None
    assert allocate(pool, layout, largest + 1) is None
    is_exact = not reserve and not layout.parity and not layout.integrity
    if is_exact:
        assert not lvm_takes(layout, largest + step, allocation.physical_volumes)
    under_test.create("a", pool, largest)
    run("lvremove", "--yes", f"{GROUP}/a")

    volume = under_test.create("g", pool, chance.randint(1, largest // step) * step // 2)
    pool = under_test.pool()
    disks = tuple(share.physical_volume for share in volume.taken)
    largest = largest_growth_bytes(pool, layout, disks, volume.device_size_bytes)
    growth = allocate_growth(pool, layout, disks, volume.device_size_bytes, largest)
    assert growth is not None
    assert allocate_growth(pool, layout, disks, volume.device_size_bytes, largest + 1) is None
    grown = under_test.backend.expand(volume, growth, needs_wipe=False)
    assert grown.device_size_bytes == largest
    found = pieces()
    assert taken_bytes(found, "g", extent_bytes) == {share.physical_volume: share.size_bytes for share in grown.taken}
    assert sum(found.get("", {}).values()) * extent_bytes >= reserve
    assert images_are_apart(found, "g")
    # What the next growth will be computed from is what the disks show.
    reread = under_test.volume("g")
    assert reread.taken == grown.taken
    assert replace(reread.layout, stripe_size_bytes=layout.stripe_size_bytes) == layout
    if is_exact:
        where = disks if layout.is_spread else clean
        assert not lvm_does("lvextend", "--size", f"{largest + step}b", f"{GROUP}/g", *where)


@pytest.mark.parametrize("name", ["raid5", "raid6", "raid10-integrity"])
def test_where_free_space_is_one_run_the_largest_with_parity_or_integrity_is_exact_too(
    clean: tuple[str, ...], name: str
) -> None:
    """Then one run per image costs nothing: what is refused, LVM refuses."""
    layout, extent = LAYOUTS[name], 4 * MIB
    chance = random.Random(f"{SEED} {name}")  # noqa: S311 - for choice, not for secrets
    under_test = group(clean, layout, extent)
    leave_free(some_runs(chance, clean, (range(10, 30),)))
    pool = under_test.pool()
    largest = largest_volume_bytes(pool, layout)
    allocation = allocate(pool, layout, largest)
    assert allocation is not None
    assert not lvm_takes(layout, largest + layout.stripes * extent, allocation.physical_volumes)
    under_test.create("a", pool, largest)


def test_integrity_metadata_is_as_large_as_computed_at_every_boundary(clean: tuple[str, ...]) -> None:
    """One volume grows over the steps of the metadata (500 MiB each) and of its journal (512 MiB, 1 GiB)."""
    layout, extent = LAYOUTS["raid1-integrity"], 4 * MIB
    under_test = group(clean[:2], layout, extent)
    volume = under_test.create("a", under_test.pool(), 496 * MIB)
    for size_mib in (500, 512, 516, 1028):
        pool = under_test.pool()
        growth = allocate_growth(pool, layout, clean[:2], volume.device_size_bytes, size_mib * MIB)
        assert growth is not None
        volume = under_test.backend.expand(volume, growth, needs_wipe=False)
        image = image_extents(layout, extent, size_mib // 4) * extent
        assert taken_bytes(pieces(), "a", extent) == dict.fromkeys(clean[:2], image), size_mib
        assert volume.taken == under_test.volume("a").taken


def test_with_large_extents_integrity_begins_where_lvm_can_make_it(clean: tuple[str, ...]) -> None:
    """LVM rounds the metadata down to whole extents and fails when that leaves none: the volume is made larger."""
    layout, extent = LAYOUTS["raid1-integrity"], 16 * MIB
    under_test = group(clean[:2], layout, extent)
    least = rounded_bytes(layout, extent, 1)
    assert least > 512 * MIB
    assert not lvm_takes(layout, least - extent, clean[:2])
    assert under_test.create("a", under_test.pool(), 1).device_size_bytes == least


def test_parity_is_not_promised_where_lvm_would_let_images_share_a_disk(clean: tuple[str, ...]) -> None:
    """The case that was seen: bare LVM makes it, and one lost disk would take two images."""
    layout, disks = PLAIN["raid5"], clean[:3]
    under_test = group(disks, layout, MIB)
    leave_free(
        dict(zip(disks, ([(3, 8), (14, 6), (24, 6)], [(3, 9), (18, 8)], [(8, 12), (22, 9), (32, 4)]), strict=True))
    )
    pool = under_test.pool()
    assert min(each.free_bytes for each in pool.physical_volumes) == 17 * MIB
    under_test.create("a", pool, largest_volume_bytes(pool, layout))
    run("lvremove", "--yes", f"{GROUP}/a")
    shape = ("--type", "raid5", "--stripes", "2", "--size", f"{32 * MIB}b", "--name", "bare")
    run("lvcreate", "--yes", *shape, GROUP, *disks)
    assert not images_are_apart(pieces(), "bare"), "LVM has learnt it: parity may lie in fragments"


def test_fragments_too_small_for_integrity_metadata_are_not_promised(clean: tuple[str, ...]) -> None:
    """LVM would begin, fail, and leave parts behind: so nothing is tried."""
    layout = LAYOUTS["raid1-integrity"]
    under_test = group(clean[:2], layout, 4 * MIB)
    leave_free({disk: [(2 * start, 1) for start in range(20)] for disk in clean[:2]})
    pool = under_test.pool()
    assert [each.free_bytes for each in pool.physical_volumes] == [20 * 4 * MIB] * 2
    assert largest_volume_bytes(pool, layout) == 0
    assert allocate(pool, layout, 4 * MIB) is None
    assert not lvm_takes(layout, 4 * MIB, clean[:2])


def test_a_linear_volume_over_several_disks_takes_the_shares_that_were_said(clean: tuple[str, ...]) -> None:
    """LVM alone would begin with the largest run, which is not where most room is."""
    under_test = group(clean[:3], Layout(), 4 * MIB)
    leave_free({clean[0]: [(5, 10)], clean[1]: [(1, 4), (8, 4), (20, 4)], clean[2]: [(0, 2), (4, 7)]})
    pool = under_test.pool()
    volume = under_test.create("a", pool, 24 * 4 * MIB)
    assert [share.size_bytes // (4 * MIB) for share in volume.taken] == [10, 12, 2]


@pytest.fixture
def vast(clean: tuple[str, ...], tmp_path: Path) -> Iterator[list[str]]:
    """Two sparse disks of 6 TiB."""
    assert clean
    devices = []
    for number in range(2):
        image = tmp_path / f"vast{number}"
        with image.open("wb") as file:
            file.truncate(6 * TIB)
        devices.append(run("losetup", "--find", "--show", str(image)).strip())
    try:
        yield devices
    finally:
        run("vgremove", "--force", "--force", "--yes", GROUP, is_checked=False)
        for device in devices:
            run("losetup", "--detach", device)


def test_raid_metadata_is_as_large_as_computed_at_its_boundaries_and_never_larger(vast: list[str]) -> None:
    """120 KiB of bitmap fill the first extent of 128 KiB; past 4 TiB LVM's regions, and so its bitmap, change."""
    layout, extent = PLAIN["raid1"], 128 * KIB
    group(vast, layout, extent)
    for size, is_exact in ((1920 * GIB, True), (1920 * GIB + 2 * MIB, True), (4 * TIB, True), (5 * TIB, False)):
        shape = ("--type", "raid1", "--mirrors", "1", "--nosync", "--size", f"{size}b", "--name", "a")
        run("lvcreate", "--yes", *shape, GROUP)
        taken = set(taken_bytes(pieces(), "a", extent).values())
        said = image_extents(layout, extent, size // extent) * extent
        assert taken == {said} if is_exact else max(taken) <= said, size
        if size < 5 * TIB:
            run("lvremove", "--yes", f"{GROUP}/a")
