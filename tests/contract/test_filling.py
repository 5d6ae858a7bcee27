"""Copies by bytes: what they hold in the end, who can use them before, and what is left of a death at any step."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.agent import Agent
from node_agent.assembly import Assembly
from node_agent.local import LocalProvisioner
from tests.contract import filling_and_dying
from tests.contract.faults import (
    CHECKPOINT_BYTES,
    LONG_SECONDS,
    Copies,
    Death,
    Disturbed,
    Fate,
    Stall,
    T,
    begun,
    idle,
    until,
)
from tests.contract.filling_and_dying import SURVIVED
from tests.contract.forked import Forked
from tests.contract.sampling import is_died_at
from tests.contract.sites import GROUP, OLD_BYTES, OTHER_GROUP, FileSite, Site, run, started, wanted
from ullage.errors import (
    MIB,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    SnapshotOverflowedError,
    StillRunningError,
    UnavailableError,
    VolumeInUseError,
    VolumeNotReadyError,
)
from ullage.model import (
    DeleteVolume,
    DeviceClass,
    ExpandVolume,
    NodeName,
    SnapshotPolicy,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.names import frozen_id, snapshot_id

A, B = VolumeId("pvc-a"), VolumeId("pvc-b")
S = snapshot_id("the snapshot")
F = frozen_id(B)
TAKE = TakeSnapshot(snapshot_id=S, source=A)
SIZE_BYTES = 24 * MIB
PATTERN = b"what the copy has to begin with " * 128
RESTORE, CLONE, LARGER = "restore", "clone", "larger clone"
SOURCES = {RESTORE: S, CLONE: A, LARGER: A}
SIZES = {RESTORE: SIZE_BYTES, CLONE: SIZE_BYTES, LARGER: SIZE_BYTES + 16 * MIB}

pytestmark = pytest.mark.only_on("file", "thick")


@pytest.mark.parametrize("what", [RESTORE, LARGER])
def test_a_copy_holds_what_its_source_held_and_is_a_volume_of_its_own(site: Site, what: str) -> None:
    site.dirty()
    agent = _with_origin(site).agent
    if what == RESTORE:
        agent.snapshot(TAKE)
        _write(agent.get(A), PATTERN * 64)  # later
    copy = _made(agent, what)
    assert (copy.state, copy.size_bytes, copy.source) == (VolumeState.READY, SIZES[what], SOURCES[what])
    _is_whole(copy)
    _write(copy, bytes(len(OLD_BYTES)))
    assert (_read(agent.get(A))[: len(OLD_BYTES)] == OLD_BYTES) == (what != RESTORE)
    assert set(site.truth().sizes) == {A, B} | ({S} if what == RESTORE else set())
    for gone in (S, A, B):
        agent.delete(DeleteVolume(volume_id=gone))
    assert (site.truth().sizes, site.leftovers(), agent.volumes()) == ({}, [], ())


def test_a_repetition_finds_the_copy_after_a_restart_too(site: Site) -> None:
    agent = _with_origin(site).agent
    first = _made(agent, CLONE)
    for each in (agent, started(site).agent):
        done = each.create(wanted(B, SIZE_BYTES, source=A))
        assert (done.is_new, _volume(done.volume).dm_uuid) == (False, first.dm_uuid)
    with pytest.raises(ConflictError, match="it began as"):
        agent.create(wanted(B, SIZE_BYTES))


@pytest.mark.only_on("thick")
def test_a_copy_of_a_volume_that_is_written_all_the_time_is_what_it_was_at_one_moment(site: Site) -> None:
    agent = _with_origin(site).agent
    with _written_all_the_time(agent.get(A)) as turns:
        until(lambda: len(turns) > 20)
        copy = _made(agent, CLONE)
        until(lambda: len(turns) > 40)
    found = [struct.unpack_from("<Q", _read(copy, BLOCK_BYTES, first))[0] for first in PLACES]
    last = max(found)
    assert last > 0
    assert found == [last - (last - place) % len(PLACES) if last >= place else 0 for place in range(len(PLACES))]


def test_nobody_has_a_volume_before_it_is_filled_nor_takes_away_what_it_is_filled_from(site: Site) -> None:
    stall, other = Stall(words=(f"copied up to {CHECKPOINT_BYTES + 4 * MIB}",)), VolumeId("pvc-x")
    assembly = _with_origin(site, Disturbed(copies=stall))
    agent, provisioner = assembly.agent, LocalProvisioner(assembly.agent, NodeName("here"))
    agent.snapshot(TAKE)
    for name, source in ((other, S), (B, A)):
        with pytest.raises(StillRunningError):
            agent.create(wanted(name, SIZE_BYTES, source=source), patience_seconds=0)
    stall.wait()
    until(lambda: len(assembly.fills.under_way()) == 2)
    until(lambda: stall.count == 2)
    filling = agent.get(B)
    assert (filling.state, filling.filled_bytes, filling.source) == (VolumeState.FILLING, CHECKPOINT_BYTES, A)
    with pytest.raises(StillRunningError, match=r"[0-9.]+ MiB of 24\.0 MiB copied, and goes on"):
        agent.create(wanted(B, SIZE_BYTES, source=A), patience_seconds=0)
    assert {each.id for each in provisioner.volumes()} == {A}
    with pytest.raises(VolumeNotReadyError):
        agent.snapshot(TakeSnapshot(snapshot_id=snapshot_id("of a half"), source=B))
    with pytest.raises(VolumeNotReadyError):
        agent.create(wanted("pvc-y", SIZE_BYTES, source=B))
    with pytest.raises(StillRunningError):
        agent.create(wanted(B, SIZE_BYTES, source=A), patience_seconds=0)
    with pytest.raises(VolumeInUseError, match="still being copied to pvc-x"):
        agent.delete(DeleteVolume(volume_id=S))
    with pytest.raises(VolumeInUseError, match="still being copied to pvc-b"):
        agent.delete(DeleteVolume(volume_id=A))
    with pytest.raises(InvalidRequestError, match="goes with the copy"):
        agent.delete(DeleteVolume(volume_id=F))
    with pytest.raises(InvalidRequestError, match="copy's alone"):
        agent.create(wanted("pvc-y", SIZE_BYTES, source=F))
    stall.release()
    idle(assembly)
    for each in (B, other):
        _is_whole(agent.get(each))
    agent.delete(DeleteVolume(volume_id=S))
    assert set(site.truth().sizes) == {A, B, other}


def test_a_delete_ends_the_copy(site: Site) -> None:
    stall = Stall(words=("copied up to",))
    assembly = _with_origin(site, Disturbed(copies=stall))
    with pytest.raises(StillRunningError):
        assembly.agent.create(wanted(B, SIZE_BYTES, source=A), patience_seconds=0)
    stall.wait()
    threading.Timer(0.2, stall.release).start()
    assert assembly.agent.delete(DeleteVolume(volume_id=B)).is_new
    assert stall.count == 1, "it ended after that step"
    assert (set(site.truth().sizes), site.leftovers()) == ({A}, [])


def test_what_cannot_be_is_refused_and_leaves_nothing_frozen(site: Site) -> None:
    agent = _with_origin(site).agent
    agent.snapshot(TAKE)
    before = site.truth()
    with pytest.raises(OutOfRangeError, match="cannot have fewer"):
        agent.create(wanted(B, SIZE_BYTES // 2, source=A))
    with pytest.raises(OutOfRangeError, match="limit"):
        agent.create(wanted(B, SIZE_BYTES + 1, limit_bytes=SIZE_BYTES + 2, source=A))
    with pytest.raises(InsufficientCapacityError):
        agent.create(wanted(B, before.free_bytes + SIZE_BYTES, source=A))
    with pytest.raises(NotFoundError):
        agent.create(wanted(B, SIZE_BYTES, source=VolumeId("never-was")))
    with site.second() as other:
        both = started(site, classes=[site.device_class(), other]).agent
        with pytest.raises(InvalidRequestError, match="none of device class other's pools"):
            both.create(replace(wanted(B, SIZE_BYTES, source=A), device_class=other.name))
    assert site.truth() == before


def test_where_there_is_no_room_after_all_nothing_is_left_frozen(site: Site) -> None:
    def full(step: str, act: Callable[[], T], /) -> T:
        if step == f"create {B}":
            raise InsufficientCapacityError("somebody else was quicker")
        return act()

    agent = _with_origin(site, Disturbed(port=full)).agent
    before = site.truth()
    with pytest.raises(InsufficientCapacityError, match="quicker"):
        agent.create(wanted(B, SIZE_BYTES, source=A))
    assert site.truth() == before
    assert {each.id for each in agent.volumes()} == {A}


@pytest.mark.parametrize("what", [pytest.param(RESTORE, marks=pytest.mark.only_on("file")), LARGER])
def test_a_death_at_any_step_converges(site: Site, what: str) -> None:
    origin = _with_origin(site).agent
    if what == RESTORE:
        origin.snapshot(TAKE)
    left = set(site.truth().sizes)
    fate = Fate()
    assembly = _begun(site, fate)
    fate.count()
    _made(assembly.agent, what)
    steps = fate.steps
    assert len([step for step in steps if "copied up to" in step]) >= 3, steps
    assert len([step for step in steps if "state=filling" in step or step == f"write {B}.json"]) >= 3, steps
    # One of these is like the others, and like the step before.
    alike = [at for at, step in enumerate(steps) if ("copied up to" in step and at % 3) or "write aside" in step]
    different = [at for at in range(len(steps)) if at not in alike]
    for at in (at for number, at in enumerate(different) if is_died_at(site, number)):
        step = steps[at]
        for is_after in (False, True) if at == 0 else (True,):  # after a step is before the next
            told = f"{'after' if is_after else 'before'} {step}"
            begun(Disturbed().assembly(), [site.device_class()]).agent.delete(DeleteVolume(volume_id=B))
            assert set(site.truth().sizes) == left, told
            dying = _begun(site, fate := Fate())
            fate.doom(at, is_after=is_after)
            with pytest.raises(Death):
                _made(dying.agent, what)
            idle(dying)
            again = begun(Disturbed().assembly(), [site.device_class()]).agent
            found = {each.id: each.state for each in again.volumes()}
            assert set(found.values()) == {VolumeState.READY}, told
            assert set(found) - {B} == left, told
            if B in found:
                _is_whole(again.get(B))
            _is_whole(_made(again, what))
            assert set(site.truth().sizes) == {*left, B}, told
            assert site.leftovers() == [], told


def test_a_process_that_is_killed_at_any_step_leaves_what_converges(site: Site, tmp_path: Path) -> None:
    agent = _with_origin(site).agent
    agent.snapshot(TAKE)
    config = tmp_path / "config.yaml"
    place = f"volumeGroups: [{GROUP}]" if site.is_lvm else f"directory: {site.device_class().directory}"
    config.write_text(f"deviceClasses:\n- {{name: main, type: {site.device_class().type}, {place}}}\n")
    for at in range(100):
        if not (is_died_at(site, at) if site.is_lvm else at % 3 == 0):
            continue
        begun(Disturbed().assembly(), [site.device_class()]).agent.delete(DeleteVolume(volume_id=B))
        ended = Forked(filling_and_dying.main, config, B, S, SIZE_BYTES, at).wait(LONG_SECONDS)
        if ended == SURVIVED:
            break
        assert ended == -signal.SIGKILL
        assembly = begun(Disturbed().assembly(), [site.device_class()])
        for volume in assembly.agent.volumes():
            assert volume.state is VolumeState.READY, at
        _is_whole(_made(assembly.agent, RESTORE))
        assert (set(site.truth().sizes), _left_over(site)) == ({A, S, B}, []), at
    assert at > (8 if site.is_lvm else 10)


def test_a_copy_that_died_goes_on_in_the_background_from_what_was_noted(site: Site) -> None:
    fate = Fate()
    dying = _with_origin(site, Disturbed(copies=fate))
    fate.doom(4, is_after=False)  # at 20 of 24 MiB, 16 are noted
    with pytest.raises(Death):
        dying.agent.create(wanted(B, SIZE_BYTES, source=A))
    idle(dying)
    stall = Stall()
    copies = Copies(stall)
    assembly = Disturbed(copies=copies).assembly()
    assembly.agent.configure([site.device_class()])
    assert assembly.agent.get(B).filled_bytes == 2 * CHECKPOINT_BYTES
    assembly.agent.recover()  # and does not wait
    stall.wait()
    assert (assembly.operations.in_flight(), assembly.agent.get(B).state) == (1, VolumeState.FILLING)
    assert {each.id for each in assembly.agent.volumes()} == {A, B, F}, "what it reads from is kept"
    stall.release()
    idle(assembly)
    assert copies.starts == [2 * CHECKPOINT_BYTES]
    _is_whole(assembly.agent.get(B))
    assert set(site.truth().sizes) == {A, B}


def test_an_agent_that_stops_leaves_a_copy_that_goes_on(site: Site) -> None:
    stall = Stall(words=(f"copied up to {4 * MIB}",))
    assembly = _with_origin(site, Disturbed(copies=stall))
    with pytest.raises(StillRunningError):
        assembly.agent.create(wanted(B, SIZE_BYTES, source=A), patience_seconds=0)
    stall.wait()
    threading.Timer(0.2, stall.release).start()
    assert assembly.stop(30.0)
    copies = Copies()
    again = begun(Disturbed(copies=copies).assembly(), [site.device_class()])
    assert copies.starts == [4 * MIB], "what it had copied is noted"
    _is_whole(again.agent.get(B))


def test_what_can_never_be_filled_goes_and_nothing_else(site: Site) -> None:
    """The snapshot is removed by hand while no agent runs."""
    _half_filled(site, RESTORE)
    blind = Disturbed().assembly()
    blind.agent.configure([site.device_class()])
    with site.lose_store():
        blind.agent.configure([site.device_class()])
        with pytest.raises(UnavailableError):
            blind.agent.create(wanted(B, SIZE_BYTES, source=S))
        blind.agent.recover()
        idle(blind)
    assert set(site.truth().sizes) == {A, B, S}
    _remove_by_hand(site, S)
    agent = begun(Disturbed().assembly(), [site.device_class()]).agent
    assert {each.id for each in agent.volumes()} == {A}
    with pytest.raises(NotFoundError):
        agent.create(wanted(B, SIZE_BYTES, source=S))
    assert (set(site.truth().sizes), site.leftovers()) == ({A}, [])


def test_a_copy_of_a_volume_is_begun_again_when_what_was_frozen_for_it_has_gone(site: Site) -> None:
    _half_filled(site, CLONE)
    _remove_by_hand(site, F)
    assembly = Disturbed().assembly()
    assembly.agent.configure([site.device_class()])
    _is_whole(_made(assembly.agent, CLONE))
    assert set(site.truth().sizes) == {A, B}


@pytest.mark.only_on("thick")
@pytest.mark.parametrize("what", [RESTORE, CLONE])
def test_a_copy_whose_snapshot_overflows_is_never_ready(site: Site, what: str) -> None:
    little_room = replace(site.device_class(), snapshots=SnapshotPolicy(size_percent=25, grow_at_percent=100))
    stall = Stall(words=(f"copied up to {CHECKPOINT_BYTES}",))
    assembly = _with_origin(site, Disturbed(copies=stall), [little_room])
    agent = assembly.agent
    if what == RESTORE:
        agent.snapshot(TAKE)
    with pytest.raises(StillRunningError):
        agent.create(wanted(B, SIZE_BYTES, source=SOURCES[what]), patience_seconds=0)
    stall.wait()
    _write(agent.get(A), PATTERN * (SIZE_BYTES // len(PATTERN)))
    stall.release()
    idle(assembly)
    assert agent.get(B).state is VolumeState.FILLING
    assembly.reporter.look_now()
    if what == RESTORE:
        with pytest.raises(SnapshotOverflowedError):
            agent.create(wanted(B, SIZE_BYTES, source=S))
        assert set(site.truth().sizes) == {A, S}
    else:  # of the volume as it is now
        assert _read(_made(agent, what)) == _read(agent.get(A))
        assert set(site.truth().sizes) == {A, B}


@pytest.mark.only_on("thick")
def test_a_copy_can_be_in_another_group_and_waits_for_a_source_that_cannot_be_seen(site: Site) -> None:
    with site.second():
        both = replace(site.device_class(), volume_groups=(GROUP, OTHER_GROUP))
        agent = _with_origin(site, classes=[both]).agent
        agent.snapshot(TAKE)
        with site.full():
            agent = started(site, classes=[both]).agent
            fate = Fate()
            dying = begun(Disturbed(copies=fate).assembly(), [both])
            fate.doom(4, is_after=False)
            with pytest.raises(Death):
                dying.agent.create(wanted(B, SIZE_BYTES, source=S))
            idle(dying)
        with site.lose_store():
            blind = begun(Disturbed().assembly(), [both])
            assert (blind.agent.get(B).state, blind.agent.get(B).store) == (VolumeState.FILLING, OTHER_GROUP)
            with pytest.raises(UnavailableError):
                blind.agent.create(wanted(B, SIZE_BYTES, source=S))
        seeing = begun(Disturbed(copies=(copies := Copies())).assembly(), [both]).agent
        assert copies.starts == [2 * CHECKPOINT_BYTES]
        _is_whole(seeing.get(B))
        seeing.delete(DeleteVolume(volume_id=B))


def test_what_is_being_filled_does_not_grow(site: Site) -> None:
    _half_filled(site, CLONE)
    assembly = Disturbed().assembly()
    assembly.agent.configure([site.device_class()])
    with pytest.raises(VolumeNotReadyError, match="still filling"):
        assembly.agent.expand(ExpandVolume(volume_id=B, size_bytes=2 * SIZE_BYTES))


BLOCK_BYTES = 4096
PLACES = tuple(range(0, SIZE_BYTES, 3 * MIB))


@contextlib.contextmanager
def _written_all_the_time(volume: Volume) -> Iterator[list[int]]:
    """Each turn writes its number to the next of a few places, and the next begins when it is on the disk."""
    turns: list[int] = []
    is_over = threading.Event()

    def write() -> None:
        descriptor = os.open(volume.device_path, os.O_WRONLY | os.O_SYNC)
        try:
            for number in range(len(PLACES) * 1_000_000):
                os.pwrite(descriptor, struct.pack("<Q", number).ljust(BLOCK_BYTES, b"\0"), PLACES[number % len(PLACES)])
                turns.append(number)
                if is_over.is_set():
                    return
        finally:
            os.close(descriptor)

    _write(volume, bytes(SIZE_BYTES))
    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield turns
    finally:
        is_over.set()
        thread.join()


def _left_over(site: Site) -> list[str]:
    """A killed program's udev cookies are nobody's to take back, and not what this is about."""
    return [each for each in site.leftovers() if not each.startswith("cookie")]


def _with_origin(site: Site, disturbed: Disturbed | None = None, classes: Sequence[DeviceClass] = ()) -> Assembly:
    """A volume that has old bytes, zeroes, and old bytes at its very end."""
    assembly = begun((disturbed or Disturbed()).assembly(), classes or [site.device_class()])
    origin = _volume(assembly.agent.create(wanted(A, SIZE_BYTES)).volume)
    _write(origin, _content())
    return assembly


def _content() -> bytes:
    piece = OLD_BYTES * (MIB // len(OLD_BYTES))
    return piece * 3 + bytes(7 * MIB) + piece * 2 + bytes(SIZE_BYTES - 13 * MIB) + piece


def _begun(site: Site, fate: Fate) -> Assembly:
    """Programs, files, wipes and copies are counted."""
    disturbed = Disturbed(change=fate, files=fate, wipes=fate, copies=fate)
    return begun(disturbed.assembly(), [site.device_class()])


def _half_filled(site: Site, what: str) -> None:
    fate = Fate()
    dying = _with_origin(site, Disturbed(copies=fate))
    if what == RESTORE:
        dying.agent.snapshot(TAKE)
    fate.doom(4, is_after=False)
    with pytest.raises(Death):
        _made(dying.agent, what)
    idle(dying)


def _remove_by_hand(site: Site, volume_id: VolumeId) -> None:
    if isinstance(site, FileSite):
        site.remove_foreign(volume_id)
    else:
        run("lvremove", "--yes", f"{GROUP}/{volume_id}")


def _made(agent: Agent, what: str) -> Volume:
    return _volume(agent.create(wanted(B, SIZES[what], source=SOURCES[what])).volume)


def _volume(volume: Volume | None) -> Volume:
    assert volume is not None
    return volume


def _is_whole(volume: Volume) -> None:
    """Byte for byte what the origin held, and zeroes after that."""
    assert (volume.state, volume.kind, volume.filled_bytes) == (VolumeState.READY, VolumeKind.VOLUME, 0)
    found = _read(volume, volume.size_bytes)
    assert found[:SIZE_BYTES] == _content()
    assert found.count(0, SIZE_BYTES) == volume.size_bytes - SIZE_BYTES


def _write(volume: Volume, content: bytes) -> None:
    with Path(volume.device_path).open("r+b", buffering=0) as device:
        view = memoryview(content)
        while view:
            view = view[device.write(view) :]
        os.fsync(device.fileno())


def _read(volume: Volume, size_bytes: int = SIZE_BYTES, offset: int = 0) -> bytes:
    with Path(volume.device_path).open("rb") as device:
        device.seek(offset)
        return device.read(size_bytes)
