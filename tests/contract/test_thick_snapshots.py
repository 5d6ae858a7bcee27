"""Thick snapshots: what they hold, that nobody can change it, how they fill, and what goes with what."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from grpc import StatusCode

from node_agent.agent import Agent
from node_agent.assembly import backends
from node_agent.backends.lvm.backend import LvmBackend
from node_agent.backends.lvm.command import Lvm
from node_agent.backends.port import NewVolume
from node_agent.tending import Tending
from tests.contract.faults import (
    Death,
    Disturbed,
    Fate,
    KilledHalfway,
    Programs,
    begun,
    code_from,
    has_device,
    idle,
    until,
)
from tests.contract.sites import DISKS, GROUP, OLD_BYTES, Site, run, started, wanted
from ullage.capacity import allocate, whole_cow_bytes
from ullage.errors import (
    KIB,
    MIB,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    SnapshotOverflowedError,
    UnsupportedError,
    VolumeInUseError,
)
from ullage.model import (
    DeleteVolume,
    DeviceClass,
    ExpandVolume,
    Layout,
    Owner,
    SnapshotPolicy,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.names import snapshot_id
from ullage.run import Subprocesses

A = VolumeId("pvc-a")
S, S2 = snapshot_id("the snapshot"), snapshot_id("another")
TAKE = TakeSnapshot(snapshot_id=S, source=A)
SIZE_BYTES, EXTENT = 16 * MIB, 4 * MIB
WHOLE_BYTES = SIZE_BYTES + EXTENT
NEW_BYTES = b"what was written later          " * 128


@pytest.mark.only_on("thick", "raid1")
def test_a_snapshot_holds_what_was_there_and_nobody_can_write_to_it(site: Site) -> None:
    agent = started(site).agent
    origin = _origin(agent)
    _write(origin, OLD_BYTES)
    taken = _volume(agent.snapshot(TAKE).volume)
    assert (taken.kind, taken.source, taken.state) == (VolumeKind.SNAPSHOT, A, VolumeState.READY)
    assert (taken.size_bytes, taken.device_size_bytes, taken.taken_at > 0) == (SIZE_BYTES, SIZE_BYTES, True)
    assert taken.layout == Layout()
    _write(origin, NEW_BYTES)
    assert (_read(origin), _read(taken)) == (NEW_BYTES, OLD_BYTES)
    assert _held(taken) == OLD_BYTES
    with pytest.raises(PermissionError), Path(taken.device_path).open("r+b", buffering=0) as device:
        device.write(NEW_BYTES)
    with pytest.raises(PermissionError), Path(taken.device_path).open("r+b", buffering=0) as device:
        os.pwrite(device.fileno(), NEW_BYTES, SIZE_BYTES // 2)
    assert _read(taken) == OLD_BYTES


@pytest.mark.only_on("thick")
def test_what_is_told_of_a_new_snapshot_is_what_the_next_report_says(site: Site) -> None:
    assembly = started(site)
    _origin(assembly.agent)
    told = _volume(assembly.agent.snapshot(TAKE).volume)
    (pool,) = assembly.agent.pools()
    assembly.reporter.look_now()
    assert assembly.agent.pools() == (pool,)
    found = assembly.agent.get(S)
    assert replace(found, is_open=False, used_percent=None) == replace(told, is_open=False)
    assert found.used_percent is not None
    assert found.used_percent < 1


@pytest.mark.only_on("thick", "striped", "raid1")
def test_it_takes_exactly_what_was_said_in_its_volumes_pool(site: Site) -> None:
    agent = started(site).agent
    _origin(agent)
    before = site.truth().free_bytes
    taken = _volume(agent.snapshot(TAKE).volume)
    assert before - site.truth().free_bytes == WHOLE_BYTES == sum(share.size_bytes for share in taken.taken)
    (pool,) = agent.pools()
    assert pool.free_bytes == site.truth().free_bytes


@pytest.mark.only_on("thick", "raid1")
def test_one_that_has_all_its_room_outlives_a_volume_that_is_written_all_over(site: Site) -> None:
    assembly = started(site)
    origin = _origin(assembly.agent)
    _write(origin, OLD_BYTES)
    agent = assembly.agent
    taken = _volume(agent.snapshot(TAKE).volume)
    _write_all_over(origin)
    assembly.reporter.look_now()
    assert agent.get(S).problem is None
    assert _held(taken) == OLD_BYTES


@pytest.mark.only_on("thick")
def test_an_overflowed_one_is_reported_and_never_read_from(site: Site) -> None:
    assembly = started(site, classes=[_with_room(site, 25)])
    agent = assembly.agent
    origin = _origin(agent)
    taken = _volume(agent.snapshot(TAKE).volume)
    with _reading(taken) as descriptor:
        _write_all_over(origin)
        with pytest.raises(OSError, match="Input/output error"):
            os.pread(descriptor, SIZE_BYTES, 0)
    assembly.reporter.look_now()
    for each in (assembly, started(site, classes=[_with_room(site, 25)])):
        problem = each.agent.get(S).problem
        assert problem is not None
        assert problem.reason == "SnapshotOverflowed"
        with pytest.raises(SnapshotOverflowedError, match="holds nothing any more"), _reading(each.agent.get(S)):
            pass
        with pytest.raises(SnapshotOverflowedError):
            each.agent.create(wanted("pvc-b", SIZE_BYTES, source=S))
        assert each.agent.tend() == frozenset(), "what is lost needs no room"
    assert agent.delete(DeleteVolume(volume_id=S)).is_new
    assert set(site.truth().sizes) == {A}


@pytest.mark.only_on("thick")
def test_a_volume_with_snapshots_neither_goes_nor_grows_and_names_them(site: Site) -> None:
    """LVM would remove them with it."""
    for wipe in (Wipe.DISCARD, Wipe.NONE):
        agent = started(site, wipe=wipe).agent
        origin = _origin(agent, wipe=wipe)
        _write(origin, OLD_BYTES)
        agent.snapshot(TAKE)
        agent.snapshot(replace(TAKE, snapshot_id=S2))
        before = site.truth()
        with pytest.raises(VolumeInUseError, match=f"delete {S}, {S2} first|delete {S2}, {S} first"):
            agent.delete(DeleteVolume(volume_id=A))
        with pytest.raises(VolumeInUseError, match=r"has snapshots.* first"):
            agent.expand(ExpandVolume(volume_id=A, size_bytes=3 * SIZE_BYTES))
        assert site.truth() == before
        assert agent.get(A).state is VolumeState.READY
        assert _read(origin) == OLD_BYTES
        agent.delete(DeleteVolume(volume_id=S))
        agent.delete(DeleteVolume(volume_id=S2))
        assert agent.expand(ExpandVolume(volume_id=A, size_bytes=2 * SIZE_BYTES)).is_new
        assert _read(origin) == OLD_BYTES
        assert agent.delete(DeleteVolume(volume_id=A)).is_new
        assert (site.truth().sizes, site.leftovers()) == ({}, [])


@pytest.mark.only_on("thick")
def test_what_a_deleted_snapshot_kept_is_wiped_as_its_policy_asks(site: Site) -> None:
    agent = started(site, wipe=Wipe.ZERO).agent
    origin = _origin(agent, wipe=Wipe.ZERO)
    secret = os.urandom(64 * KIB)
    _write(origin, secret)
    agent.snapshot(TAKE)
    _write(origin, bytes(len(secret)))
    run("sync")
    assert _is_on_disks(secret), "this test sees what is kept"
    agent.delete(DeleteVolume(volume_id=S))
    assert not _is_on_disks(secret)


@pytest.mark.only_on("thick")
def test_what_is_mounted_or_open_of_a_snapshot_keeps_it(site: Site) -> None:
    agent = started(site).agent
    _origin(agent)
    taken = _volume(agent.snapshot(TAKE).volume)
    with _reading(taken), pytest.raises(VolumeInUseError):
        agent.delete(DeleteVolume(volume_id=S))
    assert agent.get(S).state is VolumeState.READY
    assert agent.delete(DeleteVolume(volume_id=S)).is_new
    assert not agent.delete(DeleteVolume(volume_id=S)).is_new


@pytest.mark.only_on("thick")
def test_it_is_there_again_after_the_group_was_down_and_the_agent_began_anew(site: Site) -> None:
    agent = started(site).agent
    origin = _origin(agent)
    _write(origin, OLD_BYTES)
    agent.snapshot(TAKE)
    _write(origin, NEW_BYTES)
    run("vgchange", "--activate", "n", GROUP)
    again = started(site).agent
    taken = again.get(S)
    assert (taken.is_active, again.get(A).is_active) == (True, True)
    assert (_held(taken), _read(again.get(A))) == (OLD_BYTES, NEW_BYTES)
    assert not again.snapshot(TAKE).is_new
    with pytest.raises(PermissionError), Path(taken.device_path).open("r+b", buffering=0) as device:
        device.write(NEW_BYTES)


@pytest.mark.only_on("thick")
def test_a_mounted_file_system_is_whole_in_its_snapshot(site: Site, tmp_path: Path) -> None:
    agent = started(site).agent
    origin = _volume(agent.create(wanted("pvc-a", 64 * MIB)).volume)
    run("mkfs.ext4", "-q", origin.device_path)
    (there := tmp_path / "there").mkdir()
    run("mount", origin.device_path, str(there))
    try:
        (there / "file").write_bytes(OLD_BYTES)  # and no sync: LVM brings the file system to rest
        taken = _volume(agent.snapshot(TAKE).volume)
        (there / "file").write_bytes(NEW_BYTES)
        with pytest.raises(VolumeInUseError, match="has snapshots"):
            agent.delete(DeleteVolume(volume_id=A))
    finally:
        run("umount", str(there))
    run("e2fsck", "-fn", taken.device_path)
    run("mount", "-o", "ro", taken.device_path, str(there))
    try:
        assert (there / "file").read_bytes() == OLD_BYTES
    finally:
        run("umount", str(there))


@pytest.mark.only_on("thick")
def test_what_differs_or_cannot_be_is_refused(site: Site) -> None:
    agent = started(site).agent
    _origin(agent)
    agent.create(wanted("pvc-e", SIZE_BYTES))
    agent.snapshot(TAKE)
    before = site.truth()
    with pytest.raises(ConflictError, match="a snapshot of pvc-a"):
        agent.snapshot(replace(TAKE, source=VolumeId("pvc-e")))
    with pytest.raises(InvalidRequestError, match="is a snapshot itself"):
        agent.snapshot(TakeSnapshot(snapshot_id=S2, source=S))
    with pytest.raises(NotFoundError):
        agent.snapshot(replace(TAKE, snapshot_id=S2, source=VolumeId("never-was")))
    with pytest.raises(InvalidRequestError, match="is a snapshot"):
        agent.expand(ExpandVolume(volume_id=S, size_bytes=2 * SIZE_BYTES))
    assert site.truth() == before


@pytest.mark.only_on("thick")
def test_without_room_for_all_that_may_be_written_it_is_not_taken(site: Site) -> None:
    agent = started(site).agent
    (pool,) = agent.pools()
    size_bytes = (pool.free_bytes // 2) // EXTENT * EXTENT
    agent.create(wanted("pvc-a", size_bytes, wipe=Wipe.NONE))
    with pytest.raises(InsufficientCapacityError, match=r"a snapshot of pvc-a can be within vgcontract only: .*wanted"):
        agent.snapshot(TAKE)
    assert set(site.truth().sizes) == {A}


@pytest.mark.only_on("raid1-integrity")
def test_of_a_volume_with_integrity_there_is_none(site: Site) -> None:
    agent = started(site).agent
    agent.create(wanted("pvc-a", SIZE_BYTES))
    with pytest.raises(UnsupportedError, match="has integrity, and LVM takes no snapshots"):
        agent.snapshot(TAKE)
    assert set(site.truth().sizes) == {A}


@pytest.mark.only_on("thick")
def test_one_with_less_than_all_its_room_grows_before_it_is_full_under_a_writer(site: Site) -> None:
    """The writer takes a third of a step between two looks, however slow the machine is."""
    size_bytes, step_bytes = 96 * MIB, 12 * MIB
    assembly = started(site, classes=[_with_room(site, 10)])
    agent = assembly.agent
    origin = _volume(agent.create(wanted("pvc-a", size_bytes, wipe=Wipe.NONE)).volume)
    _write(origin, OLD_BYTES)
    taken = _volume(agent.snapshot(TAKE).volume)
    assert sum(share.size_bytes for share in taken.taken) == step_bytes
    looks: list[frozenset[VolumeId]] = []

    def tend() -> frozenset[VolumeId]:
        looks.append(agent.tend())
        return looks[-1]

    tending = Tending(tend, poll_seconds=0.01)
    tending.start()
    try:
        with Path(origin.device_path).open("r+b", buffering=0) as device:
            for offset in range(0, size_bytes, step_bytes // 3):
                os.pwrite(device.fileno(), os.urandom(step_bytes // 3), offset)
                os.fsync(device.fileno())
                seen = len(looks)
                until(lambda seen=seen: len(looks) > seen + 1)  # type: ignore[misc] # a default
    finally:
        tending.stop()
    assembly.reporter.look_now()
    found = agent.get(S)
    assert sum(share.size_bytes for share in found.taken) == whole_cow_bytes(EXTENT, size_bytes)
    assert found.problem is None
    assert _held(taken) == OLD_BYTES
    assert agent.pools()[0].free_bytes == site.truth().free_bytes


@pytest.mark.only_on("thick")
def test_where_there_is_no_more_room_it_takes_what_there_is_and_says_so(site: Site) -> None:
    device_class = _with_room(site, 25)
    assembly = started(site, classes=[device_class])
    agent = assembly.agent
    origin = _volume(agent.create(wanted("pvc-a", 64 * MIB)).volume)
    agent.snapshot(TAKE)
    assert agent.tend() == frozenset(), "it is empty"
    _write_all_over(origin, up_to_bytes=16 * MIB)
    run("lvcreate", "--yes", "--name", "theirs", "--extents", "100%FREE", GROUP)
    run("lvreduce", "--yes", "--extents", "-1", f"{GROUP}/theirs")
    assert agent.tend() == {S}
    assert sum(share.size_bytes for share in agent.get(S).taken) == 24 * MIB
    run("lvremove", "--yes", f"{GROUP}/theirs")


@pytest.mark.parametrize("deed", ["snapshot", "deletion"])
@pytest.mark.only_on("thick")
def test_a_death_at_any_command_converges(site: Site, deed: str) -> None:
    def ask(agent: Agent) -> None:
        if deed == "snapshot":
            agent.snapshot(TAKE)
        else:
            agent.delete(DeleteVolume(volume_id=S))

    def prepared(agent: Agent) -> None:
        agent.delete(DeleteVolume(volume_id=S))
        if deed == "deletion":
            agent.snapshot(TAKE)

    origin = _origin(started(site).agent)
    _write(origin, OLD_BYTES)
    prepared(started(site).agent)
    fate = Fate()
    assembly = begun(Disturbed(change=fate, wipes=fate).assembly(), [site.device_class()])
    fate.count()
    ask(assembly.agent)
    idle(assembly)
    assert len(fate.steps) == (1 if deed == "snapshot" else 6), fate.steps
    for at, is_after in [(0, False), *((at, True) for at in range(len(fate.steps)))]:
        prepared(started(site).agent)
        fate = Fate()
        dying = begun(Disturbed(change=fate, wipes=fate).assembly(), [site.device_class()])
        fate.doom(at, is_after=is_after)
        with pytest.raises(Death):
            ask(dying.agent)
        idle(dying)
        _converges(site, ask, origin, deed)


@pytest.mark.only_on("thick")
def test_what_lvcreate_left_when_it_was_killed_is_no_snapshot_and_is_made_again(site: Site) -> None:
    """It makes the room as a volume of its own first, with our tags: it reads as old bytes, and is none."""
    origin = _origin(started(site).agent)
    _write(origin, OLD_BYTES)
    device = f"{GROUP}-{S.replace('-', '--')}"
    killed = KilledHalfway(("lvcreate", "--snapshot"), lambda: has_device(device))
    assembly = begun(Disturbed(change=killed).assembly(), [site.device_class()])
    try:
        assert code_from(lambda: assembly.agent.snapshot(TAKE)) in (StatusCode.OK, StatusCode.UNAVAILABLE)
        assert len(killed.exit_codes) == 1
    finally:
        run("dmsetup", "udevcomplete_all", "--yes")  # what a kill leaves, and why the agent never kills
    _converges(site, lambda agent: agent.snapshot(TAKE), origin, "snapshot")


@pytest.mark.only_on("thick", "striped", "raid1")
def test_a_copy_by_bytes_begins_without_content_in_its_classs_layout_and_is_filling(site: Site) -> None:
    """RAID comes into being in several commits: until the last it is CREATING as well, and removed after a death."""
    assembly = started(site)
    _origin(assembly.agent)
    source = _volume(assembly.agent.snapshot(TAKE).volume)
    device_class = site.device_class()
    for is_dying in (True, False):
        (pool,) = assembly.agent.pools()
        allocation = allocate(pool, device_class.layout, 2 * SIZE_BYTES)
        assert allocation is not None
        new = NewVolume(
            id=VolumeId("pvc-b"),
            source=source,
            device_class=device_class,
            pool=pool,
            allocation=allocation,
            owner=Owner(),
            needs_wipe=False,
        )
        fate = Fate()
        backend = LvmBackend(Lvm(runner=Programs(change=fate)))
        backend.configure([device_class])
        backend.look()
        if is_dying:
            fate.doom(0, is_after=True)
            with pytest.raises(Death):
                backend.create(new)
            state = VolumeState.CREATING if device_class.layout.is_raid else VolumeState.FILLING
        else:
            made = backend.create(new)
            state = VolumeState.FILLING
            assert (made.state, made.filled_bytes, made.source) == (state, 0, S)
            assert made.size_bytes == made.device_size_bytes == 2 * SIZE_BYTES
            assert made.layout == device_class.layout
            assert replace(backend.note_filled(made, MIB), filled_bytes=0) == made
        assembly.reporter.look_now()
        found = assembly.agent.get(VolumeId("pvc-b"))
        assert (found.state, found.filled_bytes) == (state, 0 if is_dying else MIB)
        assert found.layout.kind is device_class.layout.kind
        run("lvremove", "--yes", f"{GROUP}/pvc-b")
        assembly.reporter.look_now()


def _converges(site: Site, ask: Callable[[Agent], object], origin: Volume, deed: str) -> None:
    again = begun(Disturbed().assembly(), [site.device_class()]).agent
    assert all(volume.state is VolumeState.READY for volume in again.volumes())
    ask(again)
    assert _read(origin) == OLD_BYTES
    if deed == "snapshot":
        assert _held(again.get(S)) == OLD_BYTES
        again.delete(DeleteVolume(volume_id=S))
    assert {volume.id for volume in again.volumes()} == set(site.truth().sizes) == {A}
    assert site.leftovers() == []


def _with_room(site: Site, percent: int) -> DeviceClass:
    return replace(site.device_class(), snapshots=SnapshotPolicy(size_percent=percent, grow_at_percent=50))


def _origin(agent: Agent, wipe: Wipe = Wipe.DISCARD) -> Volume:
    return _volume(agent.create(wanted("pvc-a", SIZE_BYTES, wipe=wipe)).volume)


@contextmanager
def _reading(volume: Volume) -> Iterator[int]:
    backend = next(each for each in backends(Subprocesses()) if isinstance(each, LvmBackend))
    with backend.reading(volume) as descriptor:
        yield descriptor


def _held(volume: Volume) -> bytes:
    with _reading(volume) as descriptor:
        return os.pread(descriptor, len(OLD_BYTES), 0)


def _write_all_over(volume: Volume, up_to_bytes: int = 0) -> None:
    with Path(volume.device_path).open("r+b", buffering=0) as device:
        for offset in range(0, up_to_bytes or volume.size_bytes, MIB):
            os.pwrite(device.fileno(), os.urandom(MIB), offset)
        os.fsync(device.fileno())


def _is_on_disks(secret: bytes) -> bool:
    run("blockdev", "--flushbufs", *DISKS)
    for disk in DISKS:
        with Path(disk).open("rb") as device:
            rest = b""
            while block := device.read(16 * MIB):
                if secret in rest + block:
                    return True
                rest = block[-len(secret) :]
    return False


def _volume(volume: Volume | None) -> Volume:
    assert volume is not None
    return volume


def _write(volume: Volume, content: bytes) -> None:
    with Path(volume.device_path).open("r+b", buffering=0) as device:
        device.write(content)
        os.fsync(device.fileno())


def _read(volume: Volume) -> bytes:
    with Path(volume.device_path).open("rb") as device:
        return device.read(len(OLD_BYTES))
