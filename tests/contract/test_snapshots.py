"""Snapshots and copies that share their blocks with their source: what they hold, who may change it, what is left."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.agent import Agent
from tests.contract.faults import Death, Disturbed, Fate, begun, idle
from tests.contract.sites import GROUP, OLD_BYTES, Site, run, started, wanted
from ullage.errors import (
    MIB,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
)
from ullage.model import DeleteVolume, ExpandVolume, TakeSnapshot, Volume, VolumeId, VolumeKind, VolumeState
from ullage.names import snapshot_id

A, B = VolumeId("pvc-a"), VolumeId("pvc-b")
S = snapshot_id("the snapshot")
TAKE = TakeSnapshot(snapshot_id=S, source=A)
SIZE_BYTES = 8 * MIB
NEW_BYTES = b"what was written later          " * 128

pytestmark = pytest.mark.only_on("thin", "file-reflink")


def test_a_snapshot_holds_what_was_there_and_a_copy_of_it_is_a_volume_of_its_own(site: Site) -> None:
    agent = started(site).agent
    origin = _volume(agent.create(wanted("pvc-a", SIZE_BYTES)).volume)
    _write(origin, OLD_BYTES)
    taken = _volume(agent.snapshot(TAKE).volume)
    assert (taken.kind, taken.source, taken.size_bytes) == (VolumeKind.SNAPSHOT, A, SIZE_BYTES)
    assert (taken.state, taken.is_active, taken.taken_at > 0) == (VolumeState.READY, False, True)
    _write(origin, NEW_BYTES)
    copy = _volume(agent.create(wanted("pvc-b", SIZE_BYTES, source=S)).volume)
    clone = _volume(agent.create(wanted("pvc-c", SIZE_BYTES, source=A)).volume)
    assert (_read(origin), _read(copy), _read(clone)) == (NEW_BYTES, OLD_BYTES, NEW_BYTES)
    _write(copy, bytes(len(OLD_BYTES)))
    assert (_read(origin), _read(clone)) == (NEW_BYTES, NEW_BYTES)
    again = _volume(agent.create(wanted("pvc-d", SIZE_BYTES, source=S)).volume)
    assert _read(again) == OLD_BYTES, "the snapshot is as it was"


def test_each_goes_without_the_others(site: Site) -> None:
    agent = started(site).agent
    _write(_volume(agent.create(wanted("pvc-a", SIZE_BYTES)).volume), OLD_BYTES)
    agent.snapshot(TAKE)
    assert agent.delete(DeleteVolume(volume_id=A)).is_new
    copy = _volume(agent.create(wanted("pvc-b", SIZE_BYTES, source=S)).volume)
    assert agent.delete(DeleteVolume(volume_id=S)).is_new
    assert not agent.delete(DeleteVolume(volume_id=S)).is_new
    assert _read(copy) == OLD_BYTES
    assert site.truth().sizes == {"pvc-b": SIZE_BYTES}
    agent.delete(DeleteVolume(volume_id=B))
    assert (site.truth().sizes, site.leftovers()) == ({}, [])


def test_a_copy_can_be_larger_and_what_is_new_of_it_is_zero(site: Site) -> None:
    agent = started(site).agent
    _write(_volume(agent.create(wanted("pvc-a", SIZE_BYTES)).volume), OLD_BYTES)
    agent.snapshot(TAKE)
    copy = _volume(agent.create(wanted("pvc-b", 3 * SIZE_BYTES - 1, source=S)).volume)
    assert copy.size_bytes == copy.device_size_bytes == site.truth().sizes["pvc-b"] == 3 * SIZE_BYTES
    assert copy.state is VolumeState.READY
    with Path(copy.device_path).open("rb") as device:
        assert device.read(len(OLD_BYTES)) == OLD_BYTES
        device.seek(SIZE_BYTES)
        assert device.read().count(0) == 2 * SIZE_BYTES


def test_a_repetition_finds_what_is_there_after_a_restart_too(site: Site) -> None:
    agent = started(site).agent
    agent.create(wanted("pvc-a", SIZE_BYTES))
    first = agent.snapshot(TAKE).volume
    copy = agent.create(wanted("pvc-b", 2 * SIZE_BYTES, source=S)).volume
    for each in (agent, started(site).agent):
        found, made = each.snapshot(TAKE), each.create(wanted("pvc-b", 2 * SIZE_BYTES, source=S))
        assert (found.is_new, made.is_new) == (False, False)
        assert _told(found.volume) == _told(first)
        assert _told(made.volume) == _told(copy)


def test_what_differs_or_cannot_be_is_refused(site: Site) -> None:
    agent = started(site).agent
    agent.create(wanted("pvc-a", SIZE_BYTES))
    agent.create(wanted("pvc-e", SIZE_BYTES))
    agent.snapshot(TAKE)
    agent.create(wanted("pvc-b", SIZE_BYTES, source=S))
    before = site.truth()
    with pytest.raises(ConflictError, match="a snapshot of pvc-a"):
        agent.snapshot(replace(TAKE, source=VolumeId("pvc-e")))
    with pytest.raises(ConflictError, match="it began as"):
        agent.create(wanted("pvc-b", SIZE_BYTES, source=A))
    with pytest.raises(ConflictError, match="it began as"):
        agent.create(wanted("pvc-b", SIZE_BYTES))
    with pytest.raises(ConflictError, match="it is a snapshot"):
        agent.create(replace(wanted("pvc-x", SIZE_BYTES), volume_id=S))
    with pytest.raises(InvalidRequestError, match="is a snapshot itself"):
        agent.snapshot(TakeSnapshot(snapshot_id=snapshot_id("of a snapshot"), source=S))
    with pytest.raises(OutOfRangeError, match="cannot have fewer"):
        agent.create(wanted("pvc-x", SIZE_BYTES // 2, source=S))
    with pytest.raises(OutOfRangeError, match="limit"):
        agent.create(wanted("pvc-x", SIZE_BYTES + 1, limit_bytes=SIZE_BYTES + 2, source=S))
    with pytest.raises(InvalidRequestError, match="no copy of it can be in"):
        agent.create(wanted("pvc-x", SIZE_BYTES, source=S, pool="elsewhere"))
    with pytest.raises(NotFoundError):
        agent.create(wanted("pvc-x", SIZE_BYTES, source=VolumeId("never-was")))
    with pytest.raises(NotFoundError):
        agent.snapshot(replace(TAKE, snapshot_id=snapshot_id("another"), source=VolumeId("never-was")))
    with pytest.raises(InvalidRequestError, match="is a snapshot"):
        agent.expand(ExpandVolume(volume_id=S, size_bytes=2 * SIZE_BYTES))
    assert site.truth() == before


@pytest.mark.only_on("thin")
def test_snapshots_and_copies_are_promised_room_as_volumes_are(site: Site) -> None:
    agent = started(site).agent
    agent.create(wanted("pvc-a", 400 * MIB))
    (pool,) = agent.pools()
    agent.snapshot(TAKE)
    assert agent.pools()[0].free_bytes == pool.free_bytes - 400 * MIB
    with pytest.raises(InsufficientCapacityError, match="within vgcontract/pool0 only"):
        agent.create(wanted("pvc-b", pool.free_bytes, source=S))
    assert set(site.truth().sizes) == {"pvc-a", S}


@pytest.mark.only_on("thin")
def test_a_snapshot_is_really_read_only_and_stays_without_a_device(site: Site) -> None:
    agent = started(site).agent
    _write(_volume(agent.create(wanted("pvc-a", SIZE_BYTES)).volume), OLD_BYTES)
    agent.snapshot(TAKE)
    agent.create(wanted("pvc-b", SIZE_BYTES, source=S))
    run("vgchange", "--activate", "n", GROUP)
    again = started(site).agent
    assert {each.id: each.is_active for each in again.volumes()} == {A: True, B: True, S: False}
    run("lvchange", "--activate", "y", "--ignoreactivationskip", f"{GROUP}/{S}")
    with pytest.raises(PermissionError), Path(f"/dev/{GROUP}/{S}").open("r+b", buffering=0) as device:
        device.write(NEW_BYTES)
    run("lvchange", "--activate", "n", f"{GROUP}/{S}")


@pytest.mark.only_on("thin")
def test_a_mounted_file_system_is_whole_in_its_snapshot(site: Site, tmp_path: Path) -> None:
    agent = started(site).agent
    origin = _volume(agent.create(wanted("pvc-a", 64 * MIB)).volume)
    run("mkfs.ext4", "-q", origin.device_path)
    (there := tmp_path / "there").mkdir()
    run("mount", origin.device_path, str(there))
    try:
        (there / "file").write_bytes(OLD_BYTES)  # and no sync: LVM brings the file system to rest
        agent.snapshot(TAKE)
        (there / "file").write_bytes(NEW_BYTES)
    finally:
        run("umount", str(there))
    copy = _volume(agent.create(wanted("pvc-b", 64 * MIB, source=S)).volume)
    run("e2fsck", "-fn", copy.device_path)
    run("mount", "-o", "ro", copy.device_path, str(there))
    try:
        assert (there / "file").read_bytes() == OLD_BYTES
    finally:
        run("umount", str(there))


@pytest.mark.only_on("thin")
@pytest.mark.parametrize("what", ["snapshot", "copy", "larger copy"])
def test_a_death_at_any_command_converges(site: Site, what: str) -> None:
    size_bytes = 2 * SIZE_BYTES if what == "larger copy" else SIZE_BYTES

    def deed(agent: Agent) -> Volume:
        done = agent.snapshot(TAKE) if what == "snapshot" else agent.create(wanted("pvc-b", size_bytes, source=A))
        return _volume(done.volume)

    _write(_volume(started(site).agent.create(wanted("pvc-a", SIZE_BYTES)).volume), OLD_BYTES)
    fate = Fate()
    assembly = begun(Disturbed(change=fate).assembly(), [site.device_class()])
    fate.count()
    made = deed(assembly.agent)
    idle(assembly)
    assert len(fate.steps) == (3 if what == "larger copy" else 1), fate.steps
    for at, is_after in [(0, False), *((at, True) for at in range(len(fate.steps)))]:
        started(site).agent.delete(DeleteVolume(volume_id=made.id))
        fate = Fate()
        dying = begun(Disturbed(change=fate).assembly(), [site.device_class()])
        fate.doom(at, is_after=is_after)
        with pytest.raises(Death):
            deed(dying.agent)
        idle(dying)
        again = begun(Disturbed().assembly(), [site.device_class()]).agent
        assert all(volume.state is VolumeState.READY for volume in again.volumes()), fate.steps
        found = deed(again)
        assert (found.size_bytes, site.truth().sizes[found.id]) == (size_bytes, size_bytes)
        assert found.is_active == (what != "snapshot")
        assert what == "snapshot" or _read(found) == OLD_BYTES
        assert site.leftovers() == []


def _volume(volume: Volume | None) -> Volume:
    assert volume is not None
    return volume


def _told(volume: Volume | None) -> Volume:
    return replace(_volume(volume), is_open=False)


def _write(volume: Volume, content: bytes) -> None:
    with Path(volume.device_path).open("r+b", buffering=0) as device:
        device.write(content)
        os.fsync(device.fileno())


def _read(volume: Volume) -> bytes:
    with Path(volume.device_path).open("rb") as device:
        return device.read(len(OLD_BYTES))
