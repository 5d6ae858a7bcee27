"""Snapshots over CSI: what is ordered, what is answered, and that neither is ever taken for a volume."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest

from csi.calls import Calls
from csi.controller import Controller
from csi.orders import snapshots as orders
from csi.orders.controller import MOST_ENTRIES, Page
from csi.parameters import topology
from tests.unit.csi_doubles import (
    HERE,
    TAKEN_AT,
    RefusedError,
    Shelf,
    caller,
    mounted,
    snapshot_source,
    taken,
    volume,
    volume_source,
)
from ullage.errors import GIB, InvalidRequestError, InvalidTokenError, NotFoundError, UllageError, UnavailableError
from ullage.model import GroupId, NodeName, Problem, TakeSnapshot, VolumeId, VolumeKind
from ullage.names import frozen_id, group_id, kind_of, member_id, snapshot_id, volume_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.ports import Snapshot

Code = grpc.StatusCode
A, B = VolumeId("pvc-a"), VolumeId("pvc-b")
S, T, U = sorted(snapshot_id(name) for name in ("one", "two", "three"))
SIDECAR = "csi.storage.k8s.io"


def on(shelf: Shelf) -> Controller:
    return Controller(Calls(), shelf)


def refusal(ask: Callable[[], object]) -> Code:
    with pytest.raises(RefusedError) as refused:
        ask()
    return refused.value.code


def listed(shelf: Shelf, **fields: object) -> list[str]:
    request = pb.ListSnapshotsRequest(**fields)  # type: ignore[arg-type] # what is under test
    return [each.snapshot.snapshot_id for each in on(shelf).ListSnapshots(request, caller()).entries]


@pytest.mark.parametrize("name", ["snapshot-1", "x" * 128, "é" * 64, "a\nb", "../../etc/passwd", str(S)])
def test_any_name_makes_an_id_that_no_volume_ever_has(name: str) -> None:
    order = orders.take(pb.CreateSnapshotRequest(name=name, source_volume_id="pvc-a"))
    assert order == orders.Take(volume_id=snapshot_id(name), source=A, nodes=())
    assert kind_of(order.volume_id) is VolumeKind.SNAPSHOT
    assert kind_of(volume_id(name)) is VolumeKind.VOLUME
    assert kind_of(volume_id(order.volume_id)) is VolumeKind.VOLUME
    assert kind_of(frozen_id(A)) is VolumeKind.FROZEN


def test_a_snapshot_as_csi_snapshotter_asks_for_it() -> None:
    request = pb.CreateSnapshotRequest(
        name="snapshot-1",
        source_volume_id="pvc-a",
        parameters={f"{SIDECAR}/volumesnapshot/name": "nightly", f"{SIDECAR}/volumesnapshot/namespace": "db"},
        secrets={"key": "nobody reads it"},
        accessibility_requirements=pb.TopologyRequirement(requisite=[topology(HERE)], preferred=[topology(HERE)]),
    )
    assert orders.take(request) == orders.Take(volume_id=snapshot_id("snapshot-1"), source=A, nodes=(HERE,))


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"name": ""}, InvalidRequestError, "name is missing"),
        ({"name": "x" * 129}, InvalidRequestError, "name has 129 bytes"),
        ({"source_volume_id": ""}, InvalidRequestError, "source_volume_id is missing"),
        ({"source_volume_id": "x" * 129}, InvalidRequestError, "source_volume_id has 129 bytes"),
        ({"source_volume_id": "a b"}, NotFoundError, "No volume has the id 'a b'"),
        ({"source_volume_id": str(S)}, NotFoundError, "it is a snapshot's"),
        (
            {"parameters": {"ullage.io/device-class": "fast"}},
            InvalidRequestError,
            "is no parameter of a VolumeSnapshot",
        ),
        ({"parameters": {f"{SIDECAR}/x": "y" * 5000}}, InvalidRequestError, "parameters has 5020 bytes"),
        ({"source_volume_id": "a b", "parameters": {"typo": ""}}, InvalidRequestError, "'typo' is no parameter"),
        (
            {"accessibility_requirements": pb.TopologyRequirement(requisite=[pb.Topology(segments={"zone": "a"})])},
            InvalidRequestError,
            "A topology without the key ullage.io/node",
        ),
    ],
)
def test_a_snapshot_is_refused_with_what_is_wrong_with_the_request(
    fields: dict[str, object], error: type[UllageError], sentence: str
) -> None:
    right: dict[str, object] = {"name": "snapshot-1", "source_volume_id": "pvc-a"}
    with pytest.raises(error, match=re.escape(sentence)):
        orders.take(pb.CreateSnapshotRequest(**{**right, **fields}))  # type: ignore[arg-type] # what is under test


def test_a_snapshot_is_answered_with_all_that_is_known_of_it_and_a_repetition_with_the_same() -> None:
    shelf = Shelf(volume(A, GIB))
    request = pb.CreateSnapshotRequest(name="nightly", source_volume_id=A)
    first = on(shelf).CreateSnapshot(request, caller())
    assert first == pb.CreateSnapshotResponse(
        snapshot=pb.Snapshot(
            size_bytes=GIB,
            snapshot_id=snapshot_id("nightly"),
            source_volume_id=A,
            creation_time={"seconds": TAKEN_AT},
            ready_to_use=True,
            accessible_topology=[topology(HERE)],
        )
    )
    assert on(shelf).CreateSnapshot(request, caller()) == first
    assert shelf.asked == [(TakeSnapshot(snapshot_id=snapshot_id("nightly"), source=A), ())] * 2


def test_what_a_snapshot_cannot_be_is_told_by_its_code() -> None:
    shelf = Shelf(volume(A, GIB), volume(B, GIB), taken(snapshot_id("nightly"), B, GIB))
    for source, code in ((A, Code.ALREADY_EXISTS), ("pvc-x", Code.NOT_FOUND), (S, Code.NOT_FOUND)):
        request = pb.CreateSnapshotRequest(name="nightly" if source == A else "other", source_volume_id=source)
        assert refusal(lambda request=request: on(shelf).CreateSnapshot(request, caller())) is code  # type: ignore[misc]


def test_one_snapshot_is_taken_once_at_a_time_and_its_source_is_not_held() -> None:
    """How long a source may be held is for whoever takes the snapshot: another call may be mounting it for minutes."""
    shelf, calls = Shelf(volume(A, GIB)), Calls()
    controller = Controller(calls, shelf)
    request = pb.CreateSnapshotRequest(name="nightly", source_volume_id=A)
    with calls.alone(snapshot_id("nightly"), "CreateSnapshot"):
        assert refusal(lambda: controller.CreateSnapshot(request, caller())) is Code.ABORTED
        assert refusal(lambda: delete(controller, snapshot_id("nightly"))) is Code.ABORTED
    with calls.alone(A, "NodeStageVolume"):
        assert controller.CreateSnapshot(request, caller()).snapshot.ready_to_use


def delete(controller: Controller, of: str) -> None:
    controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=of), caller())


def test_one_that_can_never_be_restored_is_shown_and_not_ready() -> None:
    lost = replace(taken(S, A, GIB), is_ready=False, problem=Problem(reason="SnapshotOverflowed", message="full"))
    controller = on(Shelf(lost))
    assert not controller.GetSnapshot(pb.GetSnapshotRequest(snapshot_id=S), caller()).snapshot.ready_to_use
    (entry,) = controller.ListSnapshots(pb.ListSnapshotsRequest(), caller()).entries
    assert (entry.snapshot.snapshot_id, entry.snapshot.ready_to_use) == (S, False)


@pytest.mark.parametrize("of", ["pvc-a", "never-was", "a b", "s-x", "x" * 128, frozen_id(A), group_id("g")])
def test_whatever_is_no_snapshot_is_as_gone_as_a_snapshot_can_be(of: str) -> None:
    """Above all a volume: DeleteSnapshot must never be the end of one."""
    shelf = Shelf(volume(A, GIB))
    delete(on(shelf), of)
    assert (shelf.asked, list(shelf.kept)) == ([], [A])


def test_a_snapshot_goes_once_and_again_but_not_out_of_its_group() -> None:
    shelf = Shelf(taken(S, A, GIB), replace(taken(T, A, GIB), group=group_id("g")))
    for _ in range(2):
        delete(on(shelf), S)
    assert refusal(lambda: delete(on(shelf), T)) is Code.INVALID_ARGUMENT
    assert refusal(lambda: delete(on(shelf), "")) is Code.INVALID_ARGUMENT
    assert refusal(lambda: delete(on(shelf), "x" * 129)) is Code.INVALID_ARGUMENT
    assert list(shelf.kept) == [T]


def test_a_list_is_of_one_snapshot_or_of_one_volumes_or_of_all() -> None:
    shelf = Shelf(volume(A, GIB), taken(T, B, GIB), taken(U, A, GIB), taken(S, A, GIB))
    assert listed(shelf) == [S, T, U]
    assert listed(shelf, snapshot_id=T) == [T]
    assert listed(shelf, source_volume_id=A) == [S, U]
    assert listed(shelf, source_volume_id=A, snapshot_id=U) == [U]
    nothing: list[dict[str, object]] = [
        {"source_volume_id": A, "snapshot_id": T},
        {"snapshot_id": A},
        {"snapshot_id": "a b"},
        {"snapshot_id": snapshot_id("never was")},
        {"source_volume_id": "pvc-x"},
        {"source_volume_id": "a b"},
    ]
    for fields in nothing:
        assert listed(shelf, **fields) == [], fields


def test_a_list_has_pages_as_the_one_of_volumes_has() -> None:
    controller = on(Shelf(taken(T, B, GIB), taken(U, A, GIB), taken(S, A, GIB)))
    first = controller.ListSnapshots(pb.ListSnapshotsRequest(max_entries=2), caller())
    assert [each.snapshot.snapshot_id for each in first.entries] == [S, T]
    rest = controller.ListSnapshots(pb.ListSnapshotsRequest(starting_token=first.next_token), caller())
    assert ([each.snapshot.snapshot_id for each in rest.entries], rest.next_token) == ([U], "")
    of_one = controller.ListSnapshots(pb.ListSnapshotsRequest(max_entries=1, source_volume_id=A), caller())
    assert [each.snapshot.snapshot_id for each in of_one.entries] == [S]
    assert of_one.next_token
    bad = pb.ListSnapshotsRequest(starting_token="5")  # noqa: S106 - a page's
    assert refusal(lambda: controller.ListSnapshots(bad, caller())) is Code.ABORTED
    negative = pb.ListSnapshotsRequest(max_entries=-1)
    assert refusal(lambda: controller.ListSnapshots(negative, caller())) is Code.INVALID_ARGUMENT


def test_what_a_list_is_asked_for_is_checked_like_any_id() -> None:
    assert orders.listing(pb.ListSnapshotsRequest(source_volume_id="pvc-a")) == orders.Listing(
        page=Page(after="", most=MOST_ENTRIES), snapshot_id=None, source=A
    )
    with pytest.raises(InvalidRequestError, match="snapshot_id has 129 bytes"):
        orders.listing(pb.ListSnapshotsRequest(snapshot_id="x" * 129))
    with pytest.raises(InvalidTokenError):
        orders.listing(pb.ListSnapshotsRequest(starting_token="5"))  # noqa: S106 - a page's


class Blind(Shelf):
    """One whose storage cannot be read."""

    def get_snapshot(self, snapshot_id: VolumeId) -> Snapshot:
        raise UnavailableError(f"{snapshot_id} may be where nobody can look")


def test_a_snapshot_that_may_be_out_of_sight_is_never_said_to_be_gone() -> None:
    """An empty list would be taken for "deleted"."""
    assert refusal(lambda: listed(Blind(), snapshot_id=S)) is Code.UNAVAILABLE
    assert refusal(lambda: on(Blind()).GetSnapshot(pb.GetSnapshotRequest(snapshot_id=S), caller())) is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("of", "code"),
    [
        ("", Code.INVALID_ARGUMENT),
        ("x" * 129, Code.INVALID_ARGUMENT),
        ("a b", Code.NOT_FOUND),
        (str(A), Code.NOT_FOUND),
        (str(snapshot_id("never was")), Code.NOT_FOUND),
    ],
)
def test_a_snapshot_that_is_not_there_is_not_found(of: str, code: Code) -> None:
    controller = on(Shelf(volume(A, GIB), taken(S, A, GIB)))
    assert controller.GetSnapshot(pb.GetSnapshotRequest(snapshot_id=S), caller()).snapshot.snapshot_id == S
    assert refusal(lambda: controller.GetSnapshot(pb.GetSnapshotRequest(snapshot_id=of), caller())) is code


def test_a_member_of_a_group_names_it() -> None:
    group = group_id("g")
    shelf = Shelf(replace(taken(member_id(group, A), A, GIB), group=GroupId(group)))
    (entry,) = on(shelf).ListSnapshots(pb.ListSnapshotsRequest(), caller()).entries
    assert entry.snapshot.group_snapshot_id == group


# Volumes that begin as something.


def creation(
    name: str, source: pb.VolumeContentSource | None, required: int = 0, limit: int = 0
) -> pb.CreateVolumeRequest:
    return pb.CreateVolumeRequest(
        name=name,
        volume_capabilities=[mounted()],
        volume_content_source=source,
        capacity_range=pb.CapacityRange(required_bytes=required, limit_bytes=limit),
        accessibility_requirements=pb.TopologyRequirement(requisite=[topology(NodeName("node-1"))]),
    )


@pytest.mark.parametrize("source", [snapshot_source(S), volume_source(A)], ids=["restore", "clone"])
def test_a_copy_says_what_it_began_as_whenever_it_is_asked(source: pb.VolumeContentSource) -> None:
    """external-provisioner deletes a volume again that does not."""
    shelf = Shelf(volume(A, GIB), taken(S, A, GIB))
    for _ in range(2):
        made = on(shelf).CreateVolume(creation("pvc-c", source, 2 * GIB), caller()).volume
        assert (made.content_source, made.capacity_bytes) == (source, 2 * GIB)
    assert on(shelf).ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id="pvc-c"), caller()).volume == made
    entries = on(shelf).ListVolumes(pb.ListVolumesRequest(), caller()).entries
    assert [each.volume.HasField("content_source") for each in entries] == [False, True]


@pytest.mark.parametrize("source", [snapshot_source(S), volume_source(A)], ids=["restore", "clone"])
def test_a_copy_for_which_no_size_is_named_is_as_large_as_its_source_if_the_limit_allows(
    source: pb.VolumeContentSource,
) -> None:
    shelf = Shelf(volume(A, 3 * GIB), taken(S, A, 3 * GIB))
    assert on(shelf).CreateVolume(creation("pvc-c", source), caller()).volume.capacity_bytes == 3 * GIB
    assert on(shelf).CreateVolume(creation("pvc-d", source, 0, 3 * GIB), caller()).volume.capacity_bytes == 3 * GIB
    too_small = creation("pvc-e", source, 0, 3 * GIB - 1)
    assert refusal(lambda: on(shelf).CreateVolume(too_small, caller())) is Code.OUT_OF_RANGE


@pytest.mark.parametrize("source", [snapshot_source(S), volume_source(A)], ids=["restore", "clone"])
def test_a_copy_that_outlived_its_source_is_found_again_and_no_new_one_is_made(source: pb.VolumeContentSource) -> None:
    shelf = Shelf(volume(A, GIB), taken(S, A, GIB))
    first = on(shelf).CreateVolume(creation("pvc-c", source), caller())
    del shelf.kept[A], shelf.kept[S]
    assert on(shelf).CreateVolume(creation("pvc-c", source), caller()) == first
    assert refusal(lambda: on(shelf).CreateVolume(creation("pvc-d", source), caller())) is Code.NOT_FOUND
    other = volume_source("pvc-b")
    assert refusal(lambda: on(shelf).CreateVolume(creation("pvc-c", other), caller())) is Code.ALREADY_EXISTS
