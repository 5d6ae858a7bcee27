"""The room of a thick snapshot is, to the extent, what LVM calls the most that is usable, and it really is enough."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.backends.port import NewVolume
from tests.contract.sites import run
from tests.lvm.conftest import GROUP
from tests.lvm.test_capacity_is_exact import Group, group, pieces, said_bytes, taken_bytes
from ullage.capacity import COW_CHUNK_BYTES, allocate_growth, allocate_snapshot, whole_cow_bytes
from ullage.errors import KIB, MIB
from ullage.model import Layout, Owner, SnapshotPolicy, Volume, VolumeId, VolumeKind

AROUND_A_CHUNK_OF_EXCEPTIONS = (252, 256, 260, 512)
"""MiB: each 256 MiB of chunks fill one more chunk of exceptions."""


@pytest.mark.parametrize("extent_bytes", [128 * KIB, 4 * MIB, 32 * MIB])
def test_all_its_room_is_the_most_that_lvm_gives(clean: tuple[str, ...], extent_bytes: int) -> None:
    group(clean, Layout(), extent_bytes)
    quick = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")
    for size in (1, 60, *AROUND_A_CHUNK_OF_EXCEPTIONS):
        size_bytes = max(size * MIB, extent_bytes) // extent_bytes * extent_bytes
        run("lvcreate", "--yes", *quick, "--size", f"{size_bytes}b", "--name", "a", GROUP)
        words = ("--chunksize", f"{COW_CHUNK_BYTES}b", "--extents", "900%ORIGIN", "--name", "s")
        run("lvcreate", "--yes", "--snapshot", "--permission", "r", *words, f"{GROUP}/a")
        given = run("lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_size", f"{GROUP}/s")
        assert int(given) == whole_cow_bytes(extent_bytes, size_bytes), size
        run("lvremove", "--yes", f"{GROUP}/a")


def test_with_all_its_room_none_is_lost_where_the_last_chunk_of_exceptions_is_full(clean: tuple[str, ...]) -> None:
    """There the kernel clears one more: with 128 KiB extents nothing is rounded up that would have room for it."""
    extent_bytes, size_bytes = 128 * KIB, 256 * MIB
    under_test = group(clean, Layout(), extent_bytes)
    origin = under_test.create("a", under_test.pool(), size_bytes)
    last = os.urandom(MIB)
    with Path(origin.device_path).open("r+b", buffering=0) as device:
        os.pwrite(device.fileno(), last, size_bytes - MIB)
        os.fsync(device.fileno())
    taken = _snapshot(under_test, origin, SnapshotPolicy())
    with Path(origin.device_path).open("r+b", buffering=0) as device:
        for offset in range(0, size_bytes, MIB):
            os.pwrite(device.fileno(), os.urandom(MIB), offset)
        os.fsync(device.fileno())
    assert under_test.volume(taken.id).problem is None
    with under_test.backend.reading(taken) as descriptor:
        assert os.pread(descriptor, MIB, size_bytes - MIB) == last


def test_it_takes_what_was_said_over_several_disks_and_grows_to_all(clean: tuple[str, ...]) -> None:
    under_test = group(clean[:3], Layout(), 4 * MIB)
    pool = under_test.pool()
    room = min(each.free_bytes for each in pool.physical_volumes)
    origin = under_test.create("a", pool, room + 64 * MIB)
    policy = SnapshotPolicy(size_percent=30)
    taken = _snapshot(under_test, origin, policy)
    pool = under_test.pool()
    whole = whole_cow_bytes(4 * MIB, origin.size_bytes)
    has = sum(share.size_bytes for share in taken.taken)
    growth = allocate_growth(pool, Layout(), (), has, whole)
    assert growth is not None
    grown = under_test.backend.expand(taken, growth, needs_wipe=False)
    assert {share.physical_volume: share.size_bytes for share in grown.taken} == taken_bytes(
        pieces(), taken.id, 4 * MIB
    )
    found = under_test.volume(taken.id)
    assert found.taken == grown.taken
    assert sum(share.size_bytes for share in found.taken) == whole
    assert replace(found, used_percent=None, is_open=False) == replace(grown, used_percent=None, is_open=False)


def _snapshot(under_test: Group, origin: Volume, policy: SnapshotPolicy) -> Volume:
    pool = under_test.pool()
    allocation = allocate_snapshot(pool, policy, origin.size_bytes)
    assert allocation is not None
    new = NewVolume(
        id=VolumeId("s-1"),
        kind=VolumeKind.SNAPSHOT,
        source=origin,
        device_class=replace(under_test.device_class, snapshots=policy),
        pool=pool,
        allocation=allocation,
        owner=Owner(),
        needs_wipe=False,
    )
    made = under_test.backend.create(new)
    assert taken_bytes(pieces(), made.id, pool.extent_bytes) == said_bytes(allocation)
    assert (made.size_bytes, made.device_size_bytes) == (origin.size_bytes, origin.size_bytes)
    return made
