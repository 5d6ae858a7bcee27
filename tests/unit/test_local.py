"""The agent as CSI sees it: volumes and snapshots apart, what is half made unseen, and nothing ended by mistake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest

from node_agent.agent import Agent
from node_agent.local import LocalNode, LocalProvisioner
from ullage.errors import (
    GIB,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
    VolumeNotReadyError,
)
from ullage.model import (
    ByteRange,
    ChangedBlocks,
    CreateVolume,
    DeleteVolume,
    DeviceClassName,
    DeviceType,
    Done,
    GroupId,
    NodeName,
    PoolName,
    Problem,
    StoreName,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.names import frozen_id, group_id, member_id, snapshot_id
from ullage.ports import Snapshot

NODE, ELSEWHERE = NodeName("node-1"), NodeName("node-2")
A, B = VolumeId("pvc-a"), VolumeId("pvc-b")
S, T = snapshot_id("nightly"), snapshot_id("weekly")
F = frozen_id(B)
TAKEN_AT = 1_800_000_000


class Stocked:
    """An agent that has what a test gives it; it deletes and takes what it is told to."""

    def __init__(self, *volumes: Volume, is_blind: bool = False) -> None:
        self.kept = {volume.id: volume for volume in volumes}
        self.deleted: list[VolumeId] = []
        self._is_blind = is_blind

    def volumes(self) -> tuple[Volume, ...]:
        return tuple(self.kept.values())

    def get(self, volume_id: VolumeId) -> Volume:
        if volume_id not in self.kept:
            raise UnavailableError("blind") if self._is_blind else NotFoundError(f"no {volume_id}")
        return self.kept[volume_id]

    def delete(self, request: DeleteVolume, *, patience_seconds: float) -> Done:
        del patience_seconds
        self.deleted.append(request.volume_id)
        return Done(volume=None, is_new=True)

    def create(self, request: CreateVolume, *, patience_seconds: float) -> Done:
        del patience_seconds
        return Done(volume=replace(volume(request.volume_id), source=request.source), is_new=True)

    def snapshot(self, request: TakeSnapshot, *, patience_seconds: float) -> Done:
        del patience_seconds
        return Done(volume=snapshot(request.snapshot_id, request.source), is_new=True)

    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> tuple[Volume, ...]:
        del patience_seconds
        return tuple(
            replace(snapshot(member_id(request.group_id, each), each), group=request.group_id)
            for each in request.sources
        )

    def group(self, group: GroupId) -> tuple[Volume, ...]:
        return tuple(each for each in self.kept.values() if each.group == group)

    def delete_group(self, group: GroupId, snapshots: Sequence[VolumeId], *, patience_seconds: float) -> None:
        del group, patience_seconds
        self.deleted += snapshots

    def allocated(self, snapshot_id: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        block = ByteRange(offset_bytes=start_bytes, size_bytes=1)
        return ChangedBlocks(volume_size_bytes=self.get(snapshot_id).size_bytes, ranges=iter([block]))

    def changed(self, base: VolumeId, target: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        self.get(base)
        return self.allocated(target, start_bytes=start_bytes)


def volume(volume_id: VolumeId, kind: VolumeKind = VolumeKind.VOLUME) -> Volume:
    return Volume(
        id=volume_id,
        kind=kind,
        pool=PoolName("vg0/pool0"),
        store=StoreName("vg0"),
        type=DeviceType.THIN,
        device_class=DeviceClassName("fast"),
        size_bytes=GIB,
        device_size_bytes=GIB,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        device_path=f"/dev/vg0/{volume_id}",
    )


def snapshot(taken_id: VolumeId, source: VolumeId = A) -> Volume:
    return replace(volume(taken_id, VolumeKind.SNAPSHOT), source=source, taken_at=TAKEN_AT)


def local(*volumes: Volume, is_blind: bool = False) -> tuple[LocalProvisioner, Stocked]:
    agent = Stocked(*volumes, is_blind=is_blind)
    return LocalProvisioner(cast("Agent", agent), NODE), agent


FROZEN = replace(volume(F, VolumeKind.FROZEN), source=A)


def test_volumes_and_snapshots_are_listed_apart_and_what_a_copy_reads_from_not_at_all() -> None:
    there, _ = local(volume(A), snapshot(S), replace(volume(B), source=S), FROZEN)
    assert [(each.id, each.source) for each in there.volumes()] == [(A, None), (B, S)]
    assert there.snapshots() == (Snapshot(id=S, source=A, node=NODE, size_bytes=GIB, taken_at=TAKEN_AT),)
    assert there.get_snapshot(S) == there.snapshots()[0]


@pytest.mark.parametrize("state", [each for each in VolumeState if each is not VolumeState.READY])
def test_a_snapshot_that_is_not_whole_is_not_listed_and_asked_for_again_by_its_id(state: VolumeState) -> None:
    there, _ = local(volume(A), replace(snapshot(S), state=state))
    assert there.snapshots() == ()
    with pytest.raises(VolumeNotReadyError, match=f"still {state}"):
        there.get_snapshot(S)


def test_what_has_overflowed_is_listed_with_its_problem_and_not_ready_and_other_problems_pass() -> None:
    lost = Problem(reason="SnapshotOverflowed", message="it is full")
    there, _ = local(replace(snapshot(S), problem=lost), replace(snapshot(T), problem=replace(lost, reason="Partial")))
    assert [(each.is_ready, each.problem and each.problem.reason) for each in there.snapshots()] == [
        (False, "SnapshotOverflowed"),
        (True, "Partial"),
    ]


def test_one_kind_is_never_found_as_the_other() -> None:
    there, agent = local(volume(A), snapshot(S), FROZEN)
    node = LocalNode(cast("Agent", agent))
    asks: list[Callable[[VolumeId], object]] = [there.get, node.get]
    for ask in asks:
        for other in (S, F):
            with pytest.raises(NotFoundError, match="no volume has the id"):
                ask(other)
    for other in (A, F):
        with pytest.raises(NotFoundError, match="no snapshot has the id"):
            there.get_snapshot(other)
    assert (there.get(A).id, node.get(A).id) == (A, A)


def test_who_is_blind_does_not_say_that_a_snapshot_is_gone() -> None:
    there, _ = local(is_blind=True)
    with pytest.raises(UnavailableError):
        there.get_snapshot(S)


def test_each_end_is_of_its_own_kind_known_or_not() -> None:
    there, agent = local(volume(A), snapshot(S), FROZEN)
    for of_no_volume in (S, T, F):
        there.delete(of_no_volume, patience_seconds=1)
    for of_no_snapshot in (A, B, F):
        there.delete_snapshot(of_no_snapshot, patience_seconds=1)
    assert agent.deleted == []
    there.delete(A, patience_seconds=1)
    there.delete(B, patience_seconds=1)
    there.delete_snapshot(S, patience_seconds=1)
    there.delete_snapshot(T, patience_seconds=1)
    assert agent.deleted == [A, B, S, T], "what is not known the agent looks for"


def test_what_has_an_id_of_the_other_kind_is_left_alone_whatever_it_is_called() -> None:
    """Nobody but the agent's own caller could have made it so."""
    there, agent = local(volume(S), snapshot(A, B))
    there.delete(A, patience_seconds=1)
    there.delete_snapshot(S, patience_seconds=1)
    assert agent.deleted == []


def test_a_member_of_a_group_does_not_go_alone() -> None:
    there, agent = local(replace(snapshot(S), group=GroupId(group_id("both"))))
    with pytest.raises(InvalidRequestError, match=f"is of the group {group_id('both')}"):
        there.delete_snapshot(S, patience_seconds=1)
    assert agent.deleted == []
    assert there.snapshots()[0].group == group_id("both")


def test_a_snapshot_is_where_its_volume_is() -> None:
    there, _ = local(volume(A))
    request = TakeSnapshot(snapshot_id=S, source=A)
    for nodes in ((), (NODE,), (ELSEWHERE, NODE)):
        assert there.snapshot(request, nodes, patience_seconds=1).node == NODE
    with pytest.raises(InvalidRequestError, match="wanted on node-2; it can be on node-1 only"):
        there.snapshot(request, (ELSEWHERE,), patience_seconds=1)


def test_a_copy_is_where_its_source_is() -> None:
    there, _ = local(volume(A), snapshot(S))
    request = CreateVolume(volume_id=B, device_class=DeviceClassName("fast"), size_bytes=GIB, source=S)
    assert there.create(request, (NODE,), patience_seconds=1).source == S
    with pytest.raises(InsufficientCapacityError, match="volumes on node-1 only"):
        there.create(request, (ELSEWHERE,), patience_seconds=1)
    with pytest.raises(ConflictError, match="exists on node-1"):
        there.create(replace(request, volume_id=A), (ELSEWHERE,), patience_seconds=1)


def test_a_group_is_its_members_and_goes_when_all_of_them_are_named() -> None:
    group = group_id("both")
    there, agent = local(volume(A), volume(B))
    members = there.snapshot_group(TakeGroup(group_id=group, sources=(A, B)), patience_seconds=1)
    assert {each.source: each.group for each in members} == {A: group, B: group}
    ids = [each.id for each in members]
    agent.kept |= {each.id: replace(snapshot(each.id, each.source), group=group) for each in members}
    assert there.group(group) == members == there.snapshots()
    for named in ([], ids[:1]):
        with pytest.raises(InvalidRequestError, match="has members that are not named: s-"):
            there.delete_group(group, named, patience_seconds=1)
    assert agent.deleted == []
    there.delete_group(group, [*ids, S], patience_seconds=1)
    assert agent.deleted == [*ids, S], "whether the others are of it, the agent tells"


def test_of_a_group_that_is_not_there_the_names_do_not_matter() -> None:
    there, agent = local(volume(A), snapshot(S))
    there.delete_group(group_id("never was"), [S, A, VolumeId("a b")], patience_seconds=1)
    assert agent.deleted == []
    assert there.group(group_id("never was")) == ()


def test_blocks_are_told_of_whole_snapshots_only() -> None:
    there, _ = local(volume(A), snapshot(S), replace(snapshot(T), state=VolumeState.DELETING), FROZEN)
    for found in (there.allocated(S, start_bytes=7), there.changed(S, S, start_bytes=7)):
        assert (found.volume_size_bytes, [each.offset_bytes for each in found.ranges]) == (GIB, [7])
    for other, error in ((A, NotFoundError), (F, NotFoundError), (T, VolumeNotReadyError)):
        with pytest.raises(error):
            there.allocated(other, start_bytes=0)
        with pytest.raises(error):
            there.changed(S, other, start_bytes=0)
        with pytest.raises(error):
            there.changed(other, S, start_bytes=0)
