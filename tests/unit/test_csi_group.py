"""Groups of snapshots over CSI: all of one moment, named by one id, and gone together or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable

import grpc
import pytest

from csi.calls import Calls
from csi.group import GroupController
from csi.orders import group as orders
from tests.unit.csi_doubles import TAKEN_AT, RefusedError, Shelf, caller, volume
from ullage.errors import GIB, InvalidRequestError, NotFoundError, UllageError
from ullage.model import TakeGroup, VolumeId
from ullage.names import group_id, is_group_id, member_id, snapshot_id, volume_id
from ullage.pb.csi.v1 import csi_pb2 as pb

Code = grpc.StatusCode
A, B, C = VolumeId("pvc-a"), VolumeId("pvc-b"), VolumeId("pvc-c")
G = group_id("both")
MEMBERS = sorted(member_id(G, each) for each in (A, B))
SIDECAR = "csi.storage.k8s.io"


def shelf() -> Shelf:
    return Shelf(volume(A, GIB), volume(B, 2 * GIB), volume(C, GIB))


def on(kept: Shelf) -> GroupController:
    return GroupController(Calls(), kept)


def take(kept: Shelf, name: str = "both", *sources: str) -> pb.VolumeGroupSnapshot:
    request = pb.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=sources or (A, B))
    return on(kept).CreateVolumeGroupSnapshot(request, caller()).group_snapshot


def get(kept: Shelf, group: str, *members: str) -> pb.VolumeGroupSnapshot:
    request = pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=group, snapshot_ids=members)
    return on(kept).GetVolumeGroupSnapshot(request, caller()).group_snapshot


def delete(kept: Shelf, group: str, *members: str) -> None:
    request = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group, snapshot_ids=members)
    on(kept).DeleteVolumeGroupSnapshot(request, caller())


def refusal(ask: Callable[[], object]) -> Code:
    with pytest.raises(RefusedError) as refused:
        ask()
    return refused.value.code


def test_a_group_as_csi_snapshotter_asks_for_it() -> None:
    request = pb.CreateVolumeGroupSnapshotRequest(
        name="both",
        source_volume_ids=["pvc-b", "pvc-a"],
        parameters={f"{SIDECAR}/volumegroupsnapshot/name": "both"},
        secrets={"key": "nobody reads it"},
    )
    order = orders.take(request)
    assert order == orders.Take(group=G, sources=(B, A))
    assert order.volume_id == VolumeId(G), "one call at a time for a group"
    assert is_group_id(G)
    assert not any(is_group_id(each) for each in (snapshot_id("both"), volume_id("both"), volume_id(G), "g-x", ""))


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"name": ""}, InvalidRequestError, "name is missing"),
        ({"name": "x" * 129}, InvalidRequestError, "name has 129 bytes"),
        ({"source_volume_ids": []}, InvalidRequestError, "source_volume_ids is missing"),
        ({"source_volume_ids": ["pvc-a", ""]}, InvalidRequestError, "source_volume_ids is missing"),
        ({"source_volume_ids": ["pvc-a", "x" * 129]}, InvalidRequestError, "source_volume_ids has 129 bytes"),
        ({"source_volume_ids": ["pvc-a", "pvc-b", "pvc-a"]}, InvalidRequestError, "names 'pvc-a' more than once"),
        ({"source_volume_ids": ["a b", "pvc-a"]}, NotFoundError, "No volume has the id 'a b'"),
        ({"source_volume_ids": ["pvc-a", str(snapshot_id("x"))]}, NotFoundError, "it is a snapshot's"),
        ({"parameters": {"typo": "x"}}, InvalidRequestError, "'typo' is no parameter"),
        ({"parameters": {"typo": "x"}, "source_volume_ids": ["a b"]}, InvalidRequestError, "'typo' is no parameter"),
    ],
)
def test_a_group_is_refused_with_what_is_wrong_with_the_request(
    fields: dict[str, object], error: type[UllageError], sentence: str
) -> None:
    right: dict[str, object] = {"name": "both", "source_volume_ids": ["pvc-a", "pvc-b"]}
    with pytest.raises(error, match=re.escape(sentence)):
        orders.take(pb.CreateVolumeGroupSnapshotRequest(**{**right, **fields}))  # type: ignore[arg-type] # under test


def test_a_group_is_answered_with_its_members_each_of_which_names_it() -> None:
    kept = shelf()
    first = take(kept)
    assert (first.group_snapshot_id, first.creation_time.seconds, first.ready_to_use) == (G, TAKEN_AT, True)
    assert [each.snapshot_id for each in first.snapshots] == MEMBERS
    assert {each.source_volume_id: each.size_bytes for each in first.snapshots} == {A: GIB, B: 2 * GIB}
    assert {each.group_snapshot_id for each in first.snapshots} == {G}
    assert take(kept, "both", B, A) == first == get(kept, G, *MEMBERS)
    assert kept.asked == [TakeGroup(group_id=G, sources=(A, B)), TakeGroup(group_id=G, sources=(B, A))]


def test_a_group_of_other_volumes_or_of_one_that_is_not_there_is_refused() -> None:
    kept = shelf()
    take(kept)
    assert refusal(lambda: take(kept, "both", A, C)) is Code.ALREADY_EXISTS
    assert refusal(lambda: take(kept, "other", A, "pvc-x")) is Code.NOT_FOUND


def test_a_group_is_changed_once_at_a_time() -> None:
    kept, calls = shelf(), Calls()
    controller = GroupController(calls, kept)
    request = pb.CreateVolumeGroupSnapshotRequest(name="both", source_volume_ids=(A, B))
    with calls.alone(VolumeId(G), "CreateVolumeGroupSnapshot"):
        assert refusal(lambda: controller.CreateVolumeGroupSnapshot(request, caller())) is Code.ABORTED
        gone = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=G)
        assert refusal(lambda: controller.DeleteVolumeGroupSnapshot(gone, caller())) is Code.ABORTED


@pytest.mark.parametrize("group", [str(group_id("never was")), "a b", str(A), str(snapshot_id("both")), "x" * 128])
@pytest.mark.parametrize("members", [(), ("s-x", "a b")])
def test_of_a_group_that_is_not_there_the_members_do_not_matter(group: str, members: tuple[str, ...]) -> None:
    kept = shelf()
    before = dict(kept.kept)
    assert refusal(lambda: get(kept, group, *members)) is Code.NOT_FOUND
    delete(kept, group, *members)
    assert kept.kept == before


def test_a_group_without_an_id_is_refused() -> None:
    kept = shelf()
    for group in ("", "x" * 129):
        assert refusal(lambda group=group: get(kept, group)) is Code.INVALID_ARGUMENT  # type: ignore[misc]
        assert refusal(lambda group=group: delete(kept, group)) is Code.INVALID_ARGUMENT  # type: ignore[misc]


@pytest.mark.parametrize(
    "members", [(), MEMBERS[:1], [*MEMBERS, str(snapshot_id("alone"))]], ids=["none", "few", "many"]
)
def test_a_group_that_is_there_is_shown_to_who_knows_its_members(members: tuple[str, ...]) -> None:
    kept = shelf()
    take(kept)
    assert refusal(lambda: get(kept, G, *members)) is Code.INVALID_ARGUMENT
    assert get(kept, G, *reversed(MEMBERS)).group_snapshot_id == G


def test_a_group_goes_with_all_its_members_and_again() -> None:
    kept = shelf()
    take(kept)
    assert refusal(lambda: delete(kept, G)) is Code.INVALID_ARGUMENT
    assert refusal(lambda: delete(kept, G, MEMBERS[0])) is Code.INVALID_ARGUMENT
    for _ in range(2):
        delete(kept, G, *MEMBERS)
    assert set(kept.kept) == {A, B, C}
