"""Group snapshots: of one moment, of all or of none, and nothing held afterwards, whatever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.agent import Agent
from node_agent.holds import Hold, Holds
from tests.contract import dying_group
from tests.contract.dying_group import SURVIVED
from tests.contract.faults import LONG_SECONDS, Fate, be_killed
from tests.contract.forked import Forked
from tests.contract.group_scene import (
    GROUP,
    MOUNTED,
    SIZES,
    TAKE,
    A,
    B,
    C,
    Scene,
    Writer,
    are_of_one_moment,
    records,
    volume_of,
)
from tests.contract.sampling import EACH, is_died_at
from tests.contract.sites import OLD_BYTES, Site, run, started, wanted
from ullage.errors import (
    MIB,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    UllageError,
)
from ullage.model import DeleteVolume, TakeGroup, TakeSnapshot, Volume, VolumeId, VolumeKind, VolumeState
from ullage.names import group_id, member_id, snapshot_id

GROUPS = int(os.environ.get("ULLAGE_GROUPS", "15"))
"""So many are taken beside a writer; a change here is worth 50."""
BATCH = 10

ON_THIN = pytest.mark.only_on("thin")


@pytest.fixture
def scene(site: Site, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(site, tmp_path)
    try:
        yield scene
    finally:
        scene.unmount()


@ON_THIN
def test_a_group_holds_what_all_its_volumes_held_and_is_found_again(scene: Scene) -> None:
    agent = scene.begun().agent
    scene.make(agent)
    for volume_id in MOUNTED:
        (scene.place(volume_id) / "file").write_bytes(OLD_BYTES)
    with Path(agent.get(C).device_path).open("r+b", buffering=0) as device:
        device.write(OLD_BYTES)
        os.fsync(device.fileno())
    taken = agent.snapshot_group(TAKE)
    for volume_id in MOUNTED:
        (scene.place(volume_id) / "file").write_bytes(b"later")
    assert [each.id for each in taken] == sorted(member_id(GROUP, source) for source in (A, B, C))
    assert {each.source for each in taken} == {A, B, C}
    assert {(each.kind, each.state, each.group) for each in taken} == {(VolumeKind.SNAPSHOT, VolumeState.READY, GROUP)}
    assert len({each.taken_at for each in taken}) == 1
    assert scene.frozen() == []
    with scene.looked_into(taken) as places:
        for each in taken:
            place = places[each.id]
            with (place / "file" if place.is_dir() else place).open("rb") as content:
                assert content.read(len(OLD_BYTES)) == OLD_BYTES
    again = scene.begun().agent
    for asked in (agent, again):
        assert asked.group(GROUP) == asked.snapshot_group(replace(TAKE, sources=(C, A, B)))
        assert [(each.id, each.taken_at) for each in asked.group(GROUP)] == [(e.id, e.taken_at) for e in taken]
        with pytest.raises(ConflictError, match="exists, with snapshots of pvc-a, pvc-b, pvc-c, not of pvc-a, pvc-b"):
            asked.snapshot_group(replace(TAKE, sources=(A, B)))
    copy = volume_of(again.create(wanted("pvc-copy", SIZES[C], source=member_id(GROUP, C))).volume)
    with Path(copy.device_path).open("rb") as content:
        assert content.read(len(OLD_BYTES)) == OLD_BYTES
    assert scene.site.leftovers() == []


@ON_THIN
def test_a_group_goes_as_a_whole_and_half_of_one_does_too(scene: Scene) -> None:
    agent = scene.begun().agent
    scene.make(agent)
    taken = agent.snapshot_group(TAKE)
    agent.snapshot(TakeSnapshot(snapshot_id=(single := snapshot_id("single")), source=A))
    for stranger in (A, single):
        with pytest.raises(InvalidRequestError, match="no snapshot of group"):
            agent.delete_group(GROUP, [taken[0].id, stranger])
    assert agent.group(GROUP) == taken
    agent.delete(DeleteVolume(volume_id=taken[1].id))
    with pytest.raises(ConflictError):
        agent.snapshot_group(TAKE)
    for _ in range(2):
        agent.delete_group(GROUP, [each.id for each in taken])
        assert set(scene.site.truth().sizes) == {A, B, C, single}
    assert agent.group(GROUP) == ()
    agent.delete_group(group_id("never was"), [])


@ON_THIN
def test_what_cannot_be_held_or_has_no_room_is_refused_and_nothing_is_made(scene: Scene) -> None:
    agent = scene.begun().agent
    scene.make(agent)
    before = scene.site.truth().sizes
    for wrong in (replace(TAKE, sources=()), replace(TAKE, sources=(A, B, A))):
        with pytest.raises(InvalidRequestError, match="each of them once"):
            agent.snapshot_group(wrong)
    with pytest.raises(NotFoundError):
        agent.snapshot_group(replace(TAKE, sources=(A, VolumeId("never-was"))))
    with Path(agent.get(C).device_path).open("rb"), pytest.raises(PreconditionError, match=r"pvc-c .*it is open"):
        agent.snapshot_group(TAKE)
    node = scene.folder / "node"
    node.touch()
    run("mount", "--bind", agent.get(C).device_path, str(node))
    try:
        with pytest.raises(PreconditionError, match=r"pvc-c .*published"):
            agent.snapshot_group(TAKE)
    finally:
        run("umount", str(node))
    run("fsfreeze", "--freeze", str(scene.place(A)))
    run("fsfreeze", "--freeze", str(scene.place(B)))
    try:
        with pytest.raises(PreconditionError, match="busy"):
            agent.snapshot_group(TAKE)
        assert scene.frozen() == [A, B], "another's freeze is left alone"
    finally:
        run("fsfreeze", "--unfreeze", str(scene.place(A)))
        run("fsfreeze", "--unfreeze", str(scene.place(B)))
    free_bytes = agent.pools()[0].free_bytes
    agent.create(wanted("pvc-large", free_bytes - SIZES[B] - SIZES[A]))
    before = {**before, "pvc-large": free_bytes - SIZES[B] - SIZES[A]}
    with pytest.raises(InsufficientCapacityError):
        agent.snapshot_group(TAKE)
    assert agent.group(GROUP) == ()
    assert scene.site.truth().sizes == before
    assert (scene.frozen(), scene.site.leftovers()) == ([], [])


@ON_THIN
def test_a_program_that_fails_leaves_nothing_frozen_and_no_member(scene: Scene) -> None:
    fate = Fate(be_killed, is_final=False)
    agent = scene.begun(fate).agent
    scene.make(agent)
    fate.count()
    agent.snapshot_group(TAKE)
    programs = [step.split()[1] if step.startswith("lvm") else step.split()[0] for step in fate.steps]
    assert programs == ["lvcreate"] * 3 + ["dmsetup"] * 6 + ["lvchange"] * 3, fate.steps
    for at in (1, 3, 6, 8, 10):
        agent.delete_group(GROUP, [])
        fate.steps.clear()
        fate.doom(at, is_after=False)
        with pytest.raises(UllageError):
            agent.snapshot_group(TAKE)
        fate.doom(-1, is_after=False)
        assert scene.frozen() == []
        is_known_to_be_of_one_moment = programs[at] == "lvchange"
        assert len(scene.site.truth().sizes) == (6 if is_known_to_be_of_one_moment else 3)
        assert _has_whole_group(agent.snapshot_group(TAKE))
    assert scene.site.leftovers() == []


@ON_THIN
def test_a_kill_at_any_step_leaves_nothing_frozen_and_all_or_none(scene: Scene) -> None:
    scene.make(scene.begun().agent)
    whole, none, at, is_over = 0, 0, -1, False
    while not is_over:
        at += 1
        if not is_died_at(scene.site, at):
            continue
        for when in ("before", "after") if at == 0 else ("after",):
            exit_code = Forked(dying_group.main, scene.site.name, scene.folder, at, when).wait(LONG_SECONDS)
            is_over = exit_code == SURVIVED
            assert is_over or exit_code == -signal.SIGKILL
            agent = scene.begun().agent
            assert (scene.frozen(), list((scene.folder / "debts").glob("*"))) == ([], []), f"{when} step {at}"
            found = agent.group(GROUP)
            assert not found or _has_whole_group(found), f"{when} step {at}"
            whole, none = whole + bool(found), none + (not found)
            assert set(scene.site.truth().sizes) == {A, B, C, *(each.id for each in found)}, f"{when} step {at}"
            assert scene.site.leftovers() == [], f"{when} step {at}"
            if found:
                assert agent.snapshot_group(TAKE) == found
                agent.delete_group(GROUP, [])
    assert _has_whole_group(scene.begun().agent.snapshot_group(TAKE))
    # Three lvcreate, two freezes, six messages and two thaws, then three settlements; the last round survived.
    assert (none, whole) == {1: (14, 4), 3: (6, 2)}.get(EACH, (none, whole))


@ON_THIN
def test_no_group_ever_shows_a_later_record_without_the_one_before(scene: Scene) -> None:
    agent = scene.begun().agent
    scene.make(agent)
    counts = _taken_beside_a_writer(scene, agent, GROUPS)
    assert all(are_of_one_moment(*each) for each in counts)
    lengths = [sum(map(len, each)) for each in counts]
    assert lengths == sorted(set(lengths)), "the writer got on between any two"
    assert scene.frozen() == []


@ON_THIN
def test_without_a_hold_it_does(scene: Scene) -> None:
    """The test above can tell: the same, with each file system at rest only for its own snapshot."""
    assembly = scene.begun()
    scene.make(assembly.agent)
    assembly.agent._ground.holds = NothingHeld()
    backend = assembly.agent._backends[0]
    backend.renew = lambda snapshots: None  # type: ignore[method-assign] # noqa: ARG005 - it wants what is held
    counts = _taken_beside_a_writer(scene, assembly.agent, 3)
    assert not all(are_of_one_moment(*each) for each in counts)


class NothingHeld(Holds):
    @contextmanager
    def still(self, volumes: object, limit_seconds: float) -> Iterator[Hold]:  # noqa: ARG002 - as it is called
        yield Hold([])


def _taken_beside_a_writer(scene: Scene, agent: Agent, number: int) -> list[tuple[list[int], list[int]]]:
    """The records in each group's snapshots."""
    counts: list[tuple[list[int], list[int]]] = []
    writer = Writer(scene.place(A) / "records", scene.place(B) / "records")
    writer.start()
    try:
        while len(counts) < number:
            groups = [group_id(f"{len(counts)}/{n}") for n in range(min(BATCH, number - len(counts)))]
            taken = [agent.snapshot_group(TakeGroup(group_id=group, sources=(A, B))) for group in groups]
            with scene.looked_into([member for members in taken for member in members]) as places:
                for members in taken:
                    place = {member.source: places[member.id] / "records" for member in members}
                    counts.append((_records(place[A]), _records(place[B])))
            for group in groups:
                agent.delete_group(group, [])
    finally:
        writer.end()
    assert writer.written > number
    return counts


def _records(path: Path) -> list[int]:
    return records(path) if path.exists() else []


def _has_whole_group(found: tuple[Volume, ...]) -> bool:
    states = {each.state for each in found}
    return {each.source for each in found} == {A, B, C} and states == {VolumeState.READY}


@pytest.mark.only_on("thick")
def test_thick_volumes_that_nobody_uses_are_a_group(site: Site) -> None:
    agent = started(site).agent
    for name in ("pvc-a", "pvc-b"):
        with Path(volume_of(agent.create(wanted(name, SIZES[C])).volume).device_path).open("r+b") as device:
            device.write(OLD_BYTES)
    taken = agent.snapshot_group(TakeGroup(group_id=GROUP, sources=(A, B)))
    assert {(each.source, each.state, each.group) for each in taken} == {
        (source, VolumeState.READY, GROUP) for source in (A, B)
    }
    again = started(site).agent.group(GROUP)
    assert [(each.id, each.taken_at) for each in again] == [(each.id, each.taken_at) for each in taken]
    agent.delete_group(GROUP, [each.id for each in taken])
    assert (set(site.truth().sizes), site.leftovers()) == ({A, B}, [])


@pytest.mark.only_on("thick")
def test_thick_volumes_that_are_mounted_are_refused_before_anything_is_frozen(site: Site, tmp_path: Path) -> None:
    agent = started(site).agent
    volume = volume_of(agent.create(wanted("pvc-a", 64 * MIB)).volume)
    run("mkfs.ext4", "-q", volume.device_path)
    (place := tmp_path / "there").mkdir()
    run("mount", volume.device_path, str(place))
    try:
        with pytest.raises(PreconditionError, match="thick and mounted"):
            agent.snapshot_group(TakeGroup(group_id=GROUP, sources=(A,)))
    finally:
        run("umount", str(place))
    assert set(site.truth().sizes) == {A}
