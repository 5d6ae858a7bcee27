"""The controller orders volumes as objects: each once, on a node with room, found again by whoever asks again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from csi.cluster.provisioner import ClusterProvisioner
from csi.cluster.view import ClusterView
from tests.unit.controller_doubles import (
    FAST,
    LONG,
    POOL,
    A,
    B,
    Scene,
    V,
    W,
    deaf_threads,
    put_class,
    refused_by,
    request,
    volume_of,
)
from ullage.errors import (
    GIB,
    MIB,
    ApiUnavailableError,
    ConfigError,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    StillRunningError,
    UllageError,
    UnavailableError,
    UnknownDeviceClassError,
    VolumeInUseError,
    VolumeNotReadyError,
)
from ullage.kube.api import Api
from ullage.kube.logical_volume import APPLIED, FINALIZER, READY, Phase, Spec, Status, order
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, Condition, condition
from ullage.kube.node_storage import CAPACITY_KNOWN
from ullage.model import (
    DeviceClassName,
    ExpandVolume,
    ModifyVolume,
    NodeName,
    Owner,
    Problem,
    TakeGroup,
    TakeSnapshot,
    VolumeId,
    Wipe,
)
from ullage.names import group_id, snapshot_id
from ullage.ports import Provisioned


@pytest.fixture(name="scene")
def scene_fixture() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.stop()


NO_ROOM = Problem(reason="InsufficientCapacity", message="it was taken meanwhile")


# A volume is made.


def test_a_volume_is_ordered_from_its_node_with_all_that_was_asked_for_and_awaited(scene: Scene) -> None:
    owner = Owner(pv_name="pv", claim_namespace="db", claim_name="pg-0")
    made = scene.create(V, B, size_bytes=GIB - 1, limit_bytes=2 * GIB, wipe=Wipe.ZERO, owner=owner)
    assert made == Provisioned(id=V, node=B, device_class=FAST, size_bytes=GIB, wipe=Wipe.ZERO)
    written = volume_of(scene.server, V)
    assert written is not None
    assert written.metadata.finalizers == (FINALIZER,)
    assert (written.spec.node_name, written.spec.limit_bytes) == (B, 2 * GIB)
    assert written.spec.claim_ref is not None
    assert (written.spec.claim_ref.name, written.spec.persistent_volume) == ("pg-0", "pv")
    assert scene.controller.get(V) == made
    assert list(scene.controller.volumes()) == [made]


def test_one_volume_costs_one_write_to_make_and_one_to_delete_and_no_read(scene: Scene) -> None:
    scene.server.reads.clear()
    scene.create()
    assert [method for method, _ in scene.server.writes] == ["POST"]
    assert scene.server.reads == []
    scene.controller.delete(V, patience_seconds=LONG)
    assert [method for method, _ in scene.server.writes] == ["POST", "DELETE"]
    assert volume_of(scene.server, V) is None
    assert scene.a.kept == {}


def test_a_repetition_finds_the_volume_where_it_is_whichever_node_it_names(scene: Scene) -> None:
    made = scene.create(V, A)
    assert scene.create(V, B) == made
    assert scene.create(V) == made
    assert scene.server.written("POST", "logicalvolumes") == [LOGICAL_VOLUMES.path()]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"size_bytes": GIB + 1}, "fewer than"),
        ({"limit_bytes": GIB - 1}, "more than the limit"),
        ({"device_class": "slow"}, "its device class is fast"),
        ({"source": W}, "it began as an empty volume, not as pvc-w"),
    ],
)
def test_another_request_of_the_same_name_is_a_conflict(scene: Scene, asked: dict[str, Any], why: str) -> None:
    scene.create()
    with pytest.raises(ConflictError, match=why):
        scene.create(V, **asked)


def test_a_larger_request_of_the_same_name_does_not_get_what_was_ordered_before(scene: Scene) -> None:
    scene.a.sleep()
    refused_by(lambda: scene.create(V, A, patience_seconds=0.01))
    threading.Timer(0.1, scene.a.wake).start()
    with pytest.raises(ConflictError, match=f"it has {GIB} bytes, fewer than {2 * GIB}"):
        scene.create(V, A, size_bytes=2 * GIB)


def test_a_deadline_leaves_the_order_and_a_repetition_finds_what_has_become_of_it(scene: Scene) -> None:
    scene.a.sleep()
    with pytest.raises(StillRunningError, match="is still being made on node-a"):
        scene.create(V, A, patience_seconds=0.05)
    assert volume_of(scene.server, V) is not None
    assert list(scene.controller.volumes()) == [], "nothing is said to exist before it does"
    threading.Timer(0.1, scene.a.wake).start()
    assert scene.create(V, B).node == A
    assert len(scene.server.written("POST", "logicalvolumes")) == 1


def test_an_agent_without_room_has_the_order_taken_back_and_another_node_tried(scene: Scene) -> None:
    scene.a.refuse = lambda _volume: NO_ROOM
    scene.b.total_bytes -= GIB  # the first choice is the other
    scene.b.report()
    scene.seen(lambda controller: controller.pools(B)[0].free_bytes == 9 * GIB)
    assert scene.create(V, A, B).node == B
    made = volume_of(scene.server, V)
    assert made is not None
    assert made.spec.node_name == B


def test_a_node_that_refused_is_not_asked_twice_and_its_numbers_are_told(scene: Scene) -> None:
    scene.a.refuse = scene.b.refuse = lambda _volume: NO_ROOM
    with pytest.raises(InsufficientCapacityError, match=r"No room for pvc-v: node-.: it was taken meanwhile"):
        scene.create(V, A, B)
    assert len(scene.server.written("POST", "logicalvolumes")) == 2
    assert scene.server.all(LOGICAL_VOLUMES) == {}, "and nothing is left of it"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("InvalidRequest", InvalidRequestError),
        ("OutOfRange", OutOfRangeError),
        ("NotFound", NotFoundError),
        ("Precondition", PreconditionError),
        ("AlreadyExists", ConflictError),
        ("SomethingOfTomorrow", UnavailableError),
    ],
)
def test_another_refusal_is_told_as_what_it_is_and_nothing_is_left_of_it(
    scene: Scene, reason: str, kind: type[UllageError]
) -> None:
    scene.a.refuse = lambda _volume: Problem(reason=reason, message="because")
    refusal = refused_by(lambda: scene.create(V, A))
    assert (type(refusal), str(refusal)) == (kind, "because")
    assert scene.server.all(LOGICAL_VOLUMES) == {}


def test_a_refused_order_that_its_caller_did_not_live_to_take_back_is_begun_anew(scene: Scene) -> None:
    scene.a.sleep()
    refused_by(lambda: scene.create(V, A, patience_seconds=0.01))
    scene.a.refuse = lambda _volume: NO_ROOM
    scene.a.wake()
    scene.a.refuse = lambda _volume: None
    scene.seen(lambda _: "Failed" in str(scene.views[0].volumes.get(V)))
    assert scene.create(V, A).node == A


def test_what_is_condemned_is_waited_for_by_asking_again(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.in_use.add(V)
    refused_by(lambda: scene.controller.delete(V, patience_seconds=LONG))
    with pytest.raises(VolumeNotReadyError, match="is being deleted"):
        scene.create(V, A)
    with pytest.raises(VolumeNotReadyError):
        scene.controller.get(V)
    assert list(scene.controller.volumes()) == []
    scene.a.in_use.clear()
    scene.a.look()
    scene.seen(lambda _: scene.views[0].volumes.get(V) is None)
    assert scene.create(V, B).node == B


def test_one_that_is_deleted_while_it_is_made_is_asked_for_again(scene: Scene) -> None:
    scene.a.sleep()
    with ThreadPoolExecutor() as threads:
        made = threads.submit(scene.create, V, A)
        scene.server.wait_until(lambda: volume_of(scene.server, V) is not None)
        gone = threads.submit(scene.controller.delete, V, patience_seconds=LONG)
        with pytest.raises(VolumeNotReadyError, match="deleted while it was being made"):
            made.result(LONG)
        scene.a.wake()
        gone.result(LONG)
    assert scene.server.all(LOGICAL_VOLUMES) == {}


# Where there is room.


def test_a_burst_is_ordered_as_far_as_there_is_room_and_no_further(scene: Scene) -> None:
    """Fifty at once, room for thirty, and no agent that would say no."""
    scene.a.total_bytes = 30 * GIB
    scene.a.report()
    scene.seen(lambda controller: controller.pools(A)[0].free_bytes == 30 * GIB)
    scene.a.sleep()

    def take_time(method: str, _path: str) -> None:
        if method == "POST":
            time.sleep(0.05)  # the others choose meanwhile

    scene.server.before = take_time

    def order(number: int) -> type[UllageError]:
        return type(refused_by(lambda: scene.create(f"pvc-{number}", A, patience_seconds=0.5)))

    with ThreadPoolExecutor(50) as threads:
        ends = list(threads.map(order, range(50)))
    assert (ends.count(StillRunningError), ends.count(InsufficientCapacityError)) == (30, 20)
    assert len(scene.server.all(LOGICAL_VOLUMES)) == 30
    scene.a.wake()
    scene.seen(lambda controller: len(controller.volumes()) == 30)
    assert scene.a.answered == 30


def test_what_is_left_is_the_report_without_what_it_does_not_have_yet(scene: Scene) -> None:
    scene.a.sleep()
    refused_by(lambda: scene.create(V, A, patience_seconds=0.01))
    assert scene.controller.pools(A)[0].free_bytes == 9 * GIB
    assert [pool.free_bytes for pool in scene.controller.pools(None)] == [9 * GIB, 10 * GIB]
    assert scene.controller.pools(NodeName("nowhere")) == []


@pytest.mark.parametrize("revision", [1, 2], ids=["in the report", "in the next report, too"])
def test_the_last_room_of_a_node_is_not_refused_while_an_order_there_may_be_counted_twice(
    scene: Scene, revision: int
) -> None:
    """It is carved, and in the report; that it is carved has not been heard of, or that it is that report."""
    scene.a.sleep()
    refused_by(lambda: scene.create(V, A, size_bytes=5 * GIB, patience_seconds=0.01))
    scene.a.kept[V] = 5 * GIB
    scene.a.report()
    scene.seen(lambda controller: controller.pools(A)[0].free_bytes == 0)
    before = scene.views[0].storages.get(A)
    assert before is not None
    carved = Status(
        phase=Phase.READY,
        size_bytes=5 * GIB,
        pool=POOL,
        revision=before.status.revision + revision - 1,
        observed_generation=1,
        conditions=(condition(READY, None), condition(APPLIED, None)),
    )
    with ThreadPoolExecutor() as threads:
        made = threads.submit(scene.create, W, A, size_bytes=5 * GIB)
        with pytest.raises(TimeoutError):
            made.result(0.1)
        scene.server.put_status(LOGICAL_VOLUMES, V, carved)
        scene.a._revision = carved.revision
        scene.a.report()
        scene.a.wake()
        assert made.result(LONG).node == A
    assert isinstance(refused_by(lambda: scene.create("pvc-more", A, size_bytes=GIB)), InsufficientCapacityError)


def test_an_order_whose_writing_is_not_answered_yet_may_be_counted_twice_too(scene: Scene) -> None:
    """Its agent was quicker than the API server's answer."""
    scene.controller._on_their_way[V] = order(request(V, size_bytes=5 * GIB), A)
    scene.a.kept[V] = 5 * GIB
    scene.a.report()
    scene.seen(lambda controller: controller.pools(A)[0].free_bytes == 5 * GIB)
    with ThreadPoolExecutor() as threads:
        made = threads.submit(scene.create, W, A, size_bytes=5 * GIB)
        with pytest.raises(TimeoutError):
            made.result(0.1)
        del scene.controller._on_their_way[V]
        assert made.result(LONG).node == A


def test_of_several_nodes_the_one_with_most_room_is_taken(scene: Scene) -> None:
    assert scene.create("pvc-0", A).node == A
    assert [scene.create(f"pvc-{number}", A, B).node for number in range(1, 4)] == [B, A, B]
    assert scene.create("pvc-9").node == A, "none named: anywhere"


@pytest.mark.parametrize("nodes", [(A,), (NodeName("nowhere"),), ()])
def test_no_room_is_told_with_the_numbers_and_nothing_is_ordered(scene: Scene, nodes: tuple[NodeName, ...]) -> None:
    with pytest.raises(InsufficientCapacityError, match=r"10\.0 GiB free|has not reported any storage"):
        scene.create(V, *nodes, size_bytes=11 * GIB)
    assert scene.server.writes == []


def test_an_agent_that_is_not_heard_of_gets_no_order(scene: Scene) -> None:
    scene.a.report(observed_at=datetime.now(UTC) - timedelta(days=1))
    scene.seen(lambda controller: not controller.pools(A))
    with pytest.raises(InsufficientCapacityError, match="was last heard of"):
        scene.create(V, A)
    assert scene.create(V, A, B).node == B


def test_a_class_that_is_on_no_node_yet_has_no_room_and_one_that_is_nowhere_is_unknown(scene: Scene) -> None:
    put_class(scene.server, "slow")
    scene.seen(lambda controller: _is_known(controller, "slow"))
    with pytest.raises(InsufficientCapacityError, match="it has no pool of device class slow"):
        scene.create(V, device_class=DeviceClassName("slow"))
    with pytest.raises(UnknownDeviceClassError, match=r"no DeviceClass 'quick' in this cluster; there are: fast, slow"):
        scene.create(V, device_class=DeviceClassName("quick"))


def test_a_class_is_the_one_that_is_named_or_the_only_default(scene: Scene) -> None:
    assert scene.controller.device_class(None).name == FAST, "one class needs no default"
    put_class(scene.server, "slow", default=True)
    scene.seen(lambda controller: _is_known(controller, "slow"))
    assert scene.controller.device_class(None).name == "slow"
    put_class(scene.server, "third", default=True)
    scene.seen(lambda controller: _is_known(controller, "third"))
    with pytest.raises(InvalidRequestError, match="2 are the default"):
        scene.controller.device_class(None)


def test_a_class_that_cannot_be_read_is_told_of_and_stands_in_nobodys_way(scene: Scene) -> None:
    scene.server.put(DEVICE_CLASSES, {"metadata": {"name": "broken"}, "spec": {"type": "file"}})
    scene.seen(lambda controller: isinstance(refused_by(lambda: _broken(controller)), ConfigError))
    assert scene.create(V, A).node == A


def _broken(controller: ClusterProvisioner) -> None:
    controller.device_class(DeviceClassName("broken"))


def _is_known(controller: ClusterProvisioner, name: str) -> bool:
    try:
        controller.device_class(DeviceClassName(name))
    except UnknownDeviceClassError:
        return False
    return True


# Several at work at once.


def test_two_controllers_with_one_request_make_one_volume(scene: Scene) -> None:
    other = scene.another()
    both = threading.Barrier(2)

    def meet(method: str, _path: str) -> None:
        if method == "POST":
            both.wait(LONG)

    scene.server.before = meet
    with ThreadPoolExecutor() as threads:
        one = threads.submit(scene.create, V, A)
        two = threads.submit(other.create, request(), (B,), patience_seconds=LONG)
        assert one.result(LONG) == two.result(LONG)
    assert len(scene.a.kept) + len(scene.b.kept) == 1


def test_an_order_that_was_not_heard_of_is_found_before_a_refusal_that_would_be_final(scene: Scene) -> None:
    """Its own volume has filled the node: a no would have the caller give up, and the volume be nobody's."""
    deaf = scene.another()

    def keep_deaf(method: str, path: str) -> None:
        if method == "WATCH" and path == LOGICAL_VOLUMES.path() and threading.current_thread() in own:
            raise ApiUnavailableError("no watch")

    own = deaf_threads(deaf)
    scene.server.before = keep_deaf
    scene.server.break_streams()
    made = scene.create(V, A, size_bytes=10 * GIB)
    ends = datetime.now(UTC) + timedelta(seconds=LONG)
    while deaf.pools(A)[0].free_bytes:
        assert datetime.now(UTC) < ends
    assert list(deaf.volumes()) == []
    with pytest.raises(InsufficientCapacityError):
        deaf.create(request(W), (A,), patience_seconds=LONG)
    assert deaf.create(request(size_bytes=10 * GIB), (A,), patience_seconds=LONG) == made


def test_nothing_is_answered_before_all_is_listed(scene: Scene) -> None:
    api = Api(scene.server)
    controller = ClusterProvisioner(api, ClusterView(api))
    asks: list[Callable[[], object]] = [
        lambda: controller.create(request(), (A,), patience_seconds=1),
        lambda: controller.expand(ExpandVolume(volume_id=V, size_bytes=1), patience_seconds=1),
        lambda: controller.modify(ModifyVolume(volume_id=V, wipe=Wipe.ZERO), patience_seconds=1),
        lambda: controller.delete(V, patience_seconds=1),
        lambda: controller.delete_snapshot(snapshot_id("s"), patience_seconds=1),
        lambda: controller.delete_group(group_id("g"), (), patience_seconds=1),
        lambda: controller.snapshot(TakeSnapshot(snapshot_id=snapshot_id("s"), source=V), (), patience_seconds=1),
        lambda: controller.snapshot_group(TakeGroup(group_id=group_id("g"), sources=(V,)), patience_seconds=1),
        lambda: controller.get(V),
        lambda: controller.get_snapshot(snapshot_id("s")),
        controller.volumes,
        controller.snapshots,
        lambda: controller.group(group_id("g")),
        lambda: controller.pools(None),
        lambda: controller.device_class(None),
    ]
    for ask in asks:
        assert type(refused_by(ask)) is UnavailableError
    assert scene.server.writes == []


# A volume is changed.


def test_a_volume_grows_by_one_write_and_one_that_is_large_enough_by_none(scene: Scene) -> None:
    scene.create(V, A)
    grown = scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=2 * GIB - 1), patience_seconds=LONG)
    assert (grown.size_bytes, grown.node) == (2 * GIB, A)
    for size_bytes in (2 * GIB, GIB, 1):
        same = scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=size_bytes), patience_seconds=LONG)
        assert same == grown
    assert len(scene.server.written("PATCH", "logicalvolumes")) == 1


def test_a_growth_that_is_refused_leaves_the_order_as_the_volume_is(scene: Scene) -> None:
    scene.create(V, A)
    with pytest.raises(InsufficientCapacityError, match="wanted"):
        scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=11 * GIB), patience_seconds=LONG)
    assert _spec(scene).size_bytes == GIB
    assert scene.controller.get(V).size_bytes == GIB
    grown = scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=3 * GIB), patience_seconds=LONG)
    assert grown.size_bytes == 3 * GIB


def test_a_growth_that_takes_longer_than_its_caller_waits_is_found_done(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.sleep()
    growth = ExpandVolume(volume_id=V, size_bytes=2 * GIB)
    with pytest.raises(StillRunningError, match="is still being changed on node-a"):
        scene.controller.expand(growth, patience_seconds=0.01)
    threading.Timer(0.1, scene.a.wake).start()
    assert scene.controller.expand(growth, patience_seconds=LONG).size_bytes == 2 * GIB
    assert len(scene.server.written("PATCH", "logicalvolumes")) == 1


def test_a_refusal_of_a_request_before_is_not_the_answer_to_this_one(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.sleep()
    refused_by(lambda: scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=50 * GIB), patience_seconds=0.01))
    threading.Timer(0.1, scene.a.wake).start()
    grown = scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=2 * GIB), patience_seconds=LONG)
    assert grown.size_bytes == 2 * GIB
    assert _spec(scene).size_bytes == 2 * GIB


def test_a_volume_that_somebody_changes_at_that_moment_is_changed_all_the_same(scene: Scene) -> None:
    scene.create(V, A)
    moments = iter(range(3))

    def interfere(method: str, _path: str) -> None:
        if method == "PATCH" and next(moments, None) is not None:
            found = scene.server.find(LOGICAL_VOLUMES, V)
            assert found is not None
            scene.server.put(LOGICAL_VOLUMES, {**found, "metadata": {"name": V, "labels": {"at": str(len(found))}}})

    scene.server.before = interfere
    assert (
        scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=2 * GIB), patience_seconds=LONG).size_bytes > GIB
    )


def test_a_growth_that_is_under_way_is_never_taken_back_for_a_smaller_one(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.sleep()
    for size_bytes in (5 * GIB, 2 * GIB):
        growth = ExpandVolume(volume_id=V, size_bytes=size_bytes)
        assert type(refused_by(lambda: scene.controller.expand(growth, patience_seconds=0.01))) is StillRunningError  # noqa: B023 - called at once
        assert _spec(scene).size_bytes == 5 * GIB


def test_two_growths_at_one_moment_come_to_the_larger(scene: Scene) -> None:
    scene.create(V, A)

    def overtake(method: str, _path: str) -> None:
        if method == "PATCH":
            scene.server.before = lambda _method, _path: None
            other = ExpandVolume(volume_id=V, size_bytes=5 * GIB)
            scene.another().expand(other, patience_seconds=LONG)

    scene.server.before = overtake
    grown = scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=2 * GIB), patience_seconds=LONG)
    assert grown.size_bytes == _spec(scene).size_bytes == 5 * GIB


def test_a_volume_above_the_limit_is_out_of_range(scene: Scene) -> None:
    scene.create(V, A)
    with pytest.raises(OutOfRangeError, match=f"has {GIB} bytes, the limit is {MIB}"):
        scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=1, limit_bytes=MIB), patience_seconds=LONG)


def test_a_wipe_policy_is_changed_and_one_that_is_refused_is_set_back(scene: Scene) -> None:
    scene.create(V, A)
    change = ModifyVolume(volume_id=V, wipe=Wipe.ZERO)
    assert scene.controller.modify(change, patience_seconds=LONG).wipe is Wipe.ZERO
    assert scene.controller.modify(change, patience_seconds=LONG).wipe is Wipe.ZERO
    assert len(scene.server.written("PATCH", "logicalvolumes")) == 1
    scene.a.refuse = lambda _volume: Problem(reason="Precondition", message="not today")
    with pytest.raises(PreconditionError, match="not today"):
        scene.controller.modify(replace(change, wipe=Wipe.NONE), patience_seconds=LONG)
    assert _spec(scene).wipe is Wipe.ZERO


def test_what_is_not_there_is_not_changed(scene: Scene) -> None:
    for change in (
        lambda: scene.controller.expand(ExpandVolume(volume_id=V, size_bytes=1), patience_seconds=LONG),
        lambda: scene.controller.modify(ModifyVolume(volume_id=V, wipe=Wipe.ZERO), patience_seconds=LONG),
        lambda: scene.controller.get(V),
    ):
        assert type(refused_by(change)) is NotFoundError


# A volume goes.


def test_a_volume_in_use_stays_and_says_so_until_it_is_let_go(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.in_use.add(V)
    for _ in range(2):
        with pytest.raises(VolumeInUseError, match="pvc-v is mounted"):
            scene.controller.delete(V, patience_seconds=LONG)
    assert len(scene.server.written("DELETE", "logicalvolumes")) == 1
    scene.a.in_use.clear()
    scene.a.look()
    scene.seen(lambda _: scene.views[0].volumes.get(V) is None)
    scene.controller.delete(V, patience_seconds=LONG)


def test_a_deletion_that_takes_longer_goes_on(scene: Scene) -> None:
    scene.create(V, A)
    scene.a.sleep()
    with pytest.raises(StillRunningError, match="is still being deleted"):
        scene.controller.delete(V, patience_seconds=0.01)
    threading.Timer(0.1, scene.a.wake).start()
    scene.controller.delete(V, patience_seconds=LONG)
    assert volume_of(scene.server, V) is None


def test_another_volume_of_the_same_name_is_not_deleted_for_it(scene: Scene) -> None:
    """Between the look and the deletion it went, and somebody made it anew."""
    scene.create(V, A)
    found = scene.server.find(LOGICAL_VOLUMES, V)
    assert found is not None

    def replace_it(method: str, _path: str) -> None:
        if method == "DELETE":
            scene.server.remove(LOGICAL_VOLUMES, V)
            scene.server.put(LOGICAL_VOLUMES, {**found, "metadata": {"name": V, "finalizers": [FINALIZER]}})

    scene.server.before = replace_it
    scene.controller.delete(V, patience_seconds=LONG)
    now = volume_of(scene.server, V)
    assert now is not None
    assert not now.is_condemned


def test_a_snapshot_under_a_volumes_name_is_left_alone(scene: Scene) -> None:
    """Nobody but a person could have made it so."""
    scene.create(V, A)
    found = scene.server.find(LOGICAL_VOLUMES, V)
    assert found is not None
    scene.server.put(LOGICAL_VOLUMES, {**found, "metadata": {"name": W}, "spec": {**found["spec"], "kind": "snapshot"}})
    scene.seen(lambda _: scene.views[0].volumes.get(W) is not None)
    scene.controller.delete(W, patience_seconds=LONG)
    assert scene.server.all(LOGICAL_VOLUMES).keys() == {V, W}
    for ask in (lambda: scene.controller.get(W), lambda: scene.controller.get_snapshot(V)):
        assert type(refused_by(ask)) is NotFoundError


def test_a_volume_that_has_lost_its_object_is_not_said_to_be_gone(scene: Scene) -> None:
    scene.b.orphans = (V, snapshot_id("s"))
    scene.b.report()
    scene.seen(lambda controller: _refusal_of_delete(controller, V) is not None)
    sentence = r"has lost its object and is still on node-b: `ullage recover`"
    with pytest.raises(PreconditionError, match=sentence):
        scene.controller.delete(V, patience_seconds=LONG)
    with pytest.raises(PreconditionError, match=sentence):
        scene.controller.delete_snapshot(snapshot_id("s"), patience_seconds=LONG)
    scene.controller.delete(W, patience_seconds=LONG)


def test_while_a_node_does_not_know_what_it_has_nothing_is_said_to_be_gone(scene: Scene) -> None:
    blind = Condition(type=CAPACITY_KNOWN, status="False", reason="PoolUnavailable", message="vg0 is missing")
    scene.b.report(conditions=(blind,))
    scene.seen(lambda controller: _refusal_of_delete(controller, V) is not None)
    with pytest.raises(UnavailableError, match="may be on node-b, whose storage is not known: vg0 is missing"):
        scene.controller.delete(V, patience_seconds=LONG)
    scene.b.report()
    scene.seen(lambda controller: _refusal_of_delete(controller, V) is None)


def _refusal_of_delete(controller: ClusterProvisioner, volume_id: VolumeId) -> UllageError | None:
    try:
        controller.delete(volume_id, patience_seconds=LONG)
    except UllageError as refusal:
        return refusal
    return None


def test_a_problem_of_a_volume_is_told(scene: Scene) -> None:
    scene.create(V, A)
    ill = Condition(type="Degraded", status="True", reason="Partial", message="a mirror is gone")
    found = volume_of(scene.server, V)
    assert found is not None
    scene.server.put_status(
        LOGICAL_VOLUMES, V, msgspec.structs.replace(found.status, conditions=(*found.status.conditions, ill))
    )
    scene.seen(lambda controller: controller.get(V).problem is not None)
    assert scene.controller.get(V).problem == Problem(reason="Partial", message="a mirror is gone")


def _spec(scene: Scene) -> Spec:
    found = volume_of(scene.server, V)
    assert found is not None
    return found.spec
