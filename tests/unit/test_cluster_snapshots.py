"""Snapshots, copies and groups of a cluster: where their volumes are, once, and of a group all or none."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.unit.controller_doubles import LONG, TAKEN_AT, A, B, Scene, V, W, refused_by
from ullage.errors import (
    GIB,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    StillRunningError,
    VolumeInUseError,
    VolumeNotReadyError,
)
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import NodeName, Problem, TakeGroup, TakeSnapshot, VolumeId
from ullage.names import group_id, member_id, snapshot_id
from ullage.ports import Snapshot

S, T = snapshot_id("nightly"), snapshot_id("weekly")
G = group_id("both")
NO_ROOM = Problem(reason="InsufficientCapacity", message="it is full")


@pytest.fixture(name="scene")
def scene_fixture() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.stop()


def take(scene: Scene, source: VolumeId = V, *nodes: NodeName, patience_seconds: float = LONG) -> Snapshot:
    request = TakeSnapshot(snapshot_id=S, source=source)
    return scene.controller.snapshot(request, nodes, patience_seconds=patience_seconds)


def take_group(scene: Scene, *sources: VolumeId, patience_seconds: float = LONG) -> list[Snapshot]:
    request = TakeGroup(group_id=G, sources=sources or (V, W))
    return list(scene.controller.snapshot_group(request, patience_seconds=patience_seconds))


def test_a_snapshot_is_where_its_volume_is_and_a_repetition_finds_it(scene: Scene) -> None:
    scene.create(V, B)
    taken = take(scene)
    assert taken == Snapshot(id=S, source=V, node=B, size_bytes=GIB, taken_at=TAKEN_AT)
    assert take(scene, V, A, B) == taken == scene.controller.get_snapshot(S)
    assert list(scene.controller.snapshots()) == [taken]
    assert [each.id for each in scene.controller.volumes()] == [V]
    scene.controller.delete(V, patience_seconds=LONG)
    assert take(scene) == taken, "it outlives its volume"
    assert len(scene.server.written("POST", "logicalvolumes")) == 2


def test_a_snapshot_cannot_be_elsewhere(scene: Scene) -> None:
    scene.create(V, B)
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="wanted on node-a; it can be on node-b only"):
            take(scene, V, A)
        take(scene)


def test_a_snapshot_is_of_a_volume_that_is_there(scene: Scene) -> None:
    with pytest.raises(NotFoundError, match="no volume has the id pvc-v"):
        take(scene)
    scene.a.sleep()
    refused_by(lambda: scene.create(V, A, patience_seconds=0.01))
    with pytest.raises(VolumeNotReadyError, match="not ready yet"):
        take(scene)
    assert len(scene.server.written("POST", "logicalvolumes")) == 1


def test_another_snapshot_of_the_same_name_is_a_conflict(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, A)
    take(scene)
    with pytest.raises(ConflictError, match="is a snapshot of pvc-v, not a snapshot of pvc-w"):
        take(scene, W)


def test_a_snapshot_that_is_refused_leaves_nothing(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.refuse = lambda _volume: NO_ROOM
    with pytest.raises(InsufficientCapacityError, match="it is full"):
        take(scene)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V}
    scene.a.refuse = lambda _volume: None
    assert take(scene).id == S


def test_each_end_is_of_its_own_kind(scene: Scene) -> None:
    scene.create(V, A)
    take(scene)
    scene.controller.delete(S, patience_seconds=LONG)
    scene.controller.delete_snapshot(V, patience_seconds=LONG)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V, S}
    scene.controller.delete_snapshot(S, patience_seconds=LONG)
    scene.controller.delete_snapshot(T, patience_seconds=LONG)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V}


def test_what_has_overflowed_is_told_with_its_problem_and_not_ready(scene: Scene) -> None:
    scene.create(V, A)
    take(scene)
    found = scene.server.find(LOGICAL_VOLUMES, S)
    assert found is not None
    lost = {"type": "Degraded", "status": "True", "reason": "SnapshotOverflowed", "message": "it was full"}
    scene.server.put_status(LOGICAL_VOLUMES, S, {**found["status"], "conditions": [lost]})
    scene.seen(lambda controller: not controller.get_snapshot(S).is_ready)
    assert scene.controller.get_snapshot(S).problem == Problem(reason="SnapshotOverflowed", message="it was full")


def test_blocks_are_told_by_the_node_and_not_here(scene: Scene) -> None:
    scene.create(V, A)
    take(scene)
    with pytest.raises(PreconditionError, match="ask the driver's socket on node-a"):
        scene.controller.allocated(S, start_bytes=0)
    with pytest.raises(PreconditionError, match="ask the driver's socket on node-a"):
        scene.controller.changed(S, S, start_bytes=0)
    with pytest.raises(NotFoundError):
        scene.controller.allocated(T, start_bytes=0)


# Copies.


def test_a_copy_is_made_where_its_source_is_and_nowhere_else(scene: Scene) -> None:
    scene.create(V, B)
    take(scene)
    assert scene.create(W, source=S).node == B
    assert scene.controller.get(W).source == S
    assert scene.create("pvc-x", A, B, source=V).node == B
    with pytest.raises(InsufficientCapacityError, match="which it begins as, is on node-b only"):
        scene.create("pvc-y", A, source=S)
    for unknown in (VolumeId("pvc-z"), T):
        with pytest.raises(NotFoundError, match=f"has the id {unknown}"):
            scene.create("pvc-y", source=unknown)


def test_a_copy_whose_source_has_gone_is_found_by_a_repetition(scene: Scene) -> None:
    scene.create(V, B)
    made = scene.create(W, source=V)
    scene.controller.delete(V, patience_seconds=LONG)
    assert scene.create(W, source=V) == made


# Groups.


def test_a_group_is_its_members_taken_together_and_a_repetition_finds_it(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, A)
    members = take_group(scene)
    assert {each.source: each.id for each in members} == {each: member_id(G, each) for each in (V, W)}
    assert {each.group for each in members} == {G}
    assert take_group(scene, W, V) == members == list(scene.controller.group(G))
    assert list(scene.controller.snapshots()) == members
    assert len(scene.server.written("POST", "logicalvolumes")) == 4
    with pytest.raises(ConflictError, match="not of pvc-v"):
        take_group(scene, V)
    with pytest.raises(InvalidRequestError, match=f"is of the group {G}"):
        scene.controller.delete_snapshot(members[0].id, patience_seconds=LONG)


def test_volumes_of_two_nodes_are_no_group(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, B)
    with pytest.raises(PreconditionError, match="pvc-v is on node-a, pvc-w is on node-b"):
        take_group(scene)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V, W}
    with pytest.raises(NotFoundError, match="no volume has the id pvc-x"):
        take_group(scene, V, VolumeId("pvc-x"))


def test_of_a_group_with_a_member_that_is_refused_nothing_is_left(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, A)
    scene.a.refuse = lambda volume: NO_ROOM if volume.spec.source and volume.spec.source.volume == W else None
    with pytest.raises(InsufficientCapacityError, match="it is full"):
        take_group(scene)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V, W}
    assert scene.controller.group(G) == ()


def test_a_group_that_is_half_ordered_is_ordered_whole_and_is_none_before(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, A)
    scene.a.sleep()
    refused_by(lambda: take_group(scene, patience_seconds=0.01))
    scene.server.remove(LOGICAL_VOLUMES, member_id(G, W))
    scene.seen(lambda _: scene.views[0].volumes.get(member_id(G, W)) is None)
    assert scene.controller.group(G) == ()
    threading.Timer(0.1, scene.a.wake).start()
    assert len(take_group(scene)) == 2


def test_a_group_goes_when_all_its_members_are_named(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, A)
    take(scene)
    ids = [each.id for each in take_group(scene)]
    for named in ([], ids[:1]):
        with pytest.raises(InvalidRequestError, match="has members that are not named: s-"):
            scene.controller.delete_group(G, named, patience_seconds=LONG)
    with pytest.raises(InvalidRequestError, match="is no snapshot of group"):
        scene.controller.delete_group(G, [*ids, S], patience_seconds=LONG)
    scene.a.in_use.add(ids[0])
    with pytest.raises(VolumeInUseError):
        scene.controller.delete_group(G, ids, patience_seconds=LONG)
    assert scene.controller.group(G) == (), "it is going"
    scene.a.in_use.clear()
    scene.a.look()
    scene.seen(lambda _: scene.views[0].volumes.get(ids[0]) is None)
    scene.controller.delete_group(G, ids, patience_seconds=LONG)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V, W, S}
    scene.controller.delete_group(G, [*ids, T, VolumeId("a b")], patience_seconds=LONG)


def test_a_group_that_takes_longer_goes_on(scene: Scene) -> None:
    scene.create(V, A)
    scene.create(W, A)
    scene.a.sleep()
    assert type(refused_by(lambda: take_group(scene, patience_seconds=0.01))) is StillRunningError
    threading.Timer(0.1, scene.a.wake).start()
    assert len(take_group(scene)) == 2
    assert len(scene.server.written("POST", "logicalvolumes")) == 4
