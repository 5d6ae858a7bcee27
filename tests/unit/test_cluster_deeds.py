"""What the agent does about one object: it carves, adopts, grows, lets go; and what it never does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import msgspec
import pytest

from node_agent.cluster.answers import MISMATCH, MISSING
from node_agent.cluster.deeds import Deeds
from node_agent.cluster.revisions import Revisions
from node_agent.cluster.telling import BY_GROUP, Told, groups_of
from tests.unit.cluster_doubles import FAST, POOL, Disks, Heard, volume
from tests.unit.kube_doubles import ApiServer, Fields
from ullage.errors import (
    MIB,
    ApiUnavailableError,
    ConflictError,
    InsufficientCapacityError,
    NotOursError,
    PendingOperationError,
    PoolUnavailableError,
    PreconditionError,
    StillRunningError,
    UllageError,
    UnavailableError,
    UnknownDeviceClassError,
    VolumeInUseError,
)
from ullage.kube.api import Api
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import (
    ABANDONED,
    APPLIED,
    DEGRADED,
    READY,
    RECOVERED,
    UNWRITTEN,
    LogicalVolume,
    Phase,
    order,
    snapshot_order,
)
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    NodeName,
    Owner,
    PoolName,
    Problem,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.names import group_id, member_id, snapshot_id

NODE = NodeName("node-1")
A, B = VolumeId("pvc-a"), VolumeId("pvc-b")
OWNER = Owner(pv_name="pv-1", claim_namespace="default", claim_name="web-0", claim_uid="u-1")
FULL = InsufficientCapacityError("vg0: 4 MiB free, 8 MiB wanted")


@dataclass
class Scene:
    """One node's objects, disks and people; the deeds are done when a test says so."""

    api: ApiServer = field(default_factory=ApiServer)
    disks: Disks = field(default_factory=Disks)
    heard: Heard = field(default_factory=Heard)
    held: list[str] = field(default_factory=list)
    is_staging: bool = False
    revisions: Revisions = field(init=False)
    deeds: Deeds = field(init=False)
    orders: Informer[LogicalVolume] = field(init=False)

    def __post_init__(self) -> None:
        api = Api(self.api)
        self.revisions = Revisions(lambda: self.disks.version, now=lambda: 0.1)
        self.orders = Informer(api, LOGICAL_VOLUMES, LogicalVolume, indexes={BY_GROUP: groups_of})
        self.orders.start()
        self.deeds = Deeds(
            node=NODE,
            storage=self.disks,
            orders=self.orders,
            told=Told(api, self.orders, self.heard, NODE, self.revisions),
            alone=self._alone,
        )
        assert self.orders.wait_until_synced(5)

    def _alone(self, volume_id: VolumeId, what: str) -> AbstractContextManager[None]:
        if self.is_staging:
            raise PendingOperationError(f"NodeStageVolume of {volume_id} is under way")
        self.held.append(f"{what} {volume_id}")
        return nullcontext()

    def ordered(self, wanted: LogicalVolume) -> None:
        self.api.put(LOGICAL_VOLUMES, wanted)
        self.known()

    def change(self, name: str = A, **spec: object) -> None:
        """Somebody writes the spec."""
        fields = self.fields(name)
        fields["spec"] |= spec
        self.api.put(LOGICAL_VOLUMES, fields)
        self.known()

    def condemn(self, name: str = A) -> None:
        Api(self.api).delete(LOGICAL_VOLUMES, name)
        self.known()

    def known(self) -> None:
        """The agent has heard of all of it."""
        for name, fields in self.api.all(LOGICAL_VOLUMES).items():
            version = fields["metadata"]["resourceVersion"]
            self.orders.wait(name, partial(is_version, version), 5)

    def fields(self, name: str = A) -> Fields:
        found = self.api.find(LOGICAL_VOLUMES, name)
        assert found is not None, f"{name} has no object"
        return found

    def told(self, name: str = A) -> LogicalVolume:
        return msgspec.convert(self.fields(name), LogicalVolume)

    def do(self, key: str = A, failures: int = 0) -> UllageError | None:
        """One look, and what is to be tried again after it."""
        try:
            instead = self.deeds.do(key, failures)
            if instead is not None:
                self.deeds.do(instead, failures)
        except UllageError as error:
            return error
        return None

    def ready(self, name: str = A, **more: object) -> None:
        """A volume that was made and told of."""
        self.ordered(wanted(name, **more))  # type: ignore[arg-type] # a test's words
        assert self.do(name) is None
        assert self.told(name).is_ready
        self.disks.asked.clear()
        self.heard.told.clear()
        self.api.writes.clear()

    @property
    def writes(self) -> int:
        return len(self.api.writes)


def wanted(
    name: str = A,
    size_bytes: int = 8 * MIB,
    device_class: DeviceClassName = FAST,
    source: VolumeId | None = None,
    wipe: Wipe | None = None,
) -> LogicalVolume:
    request = CreateVolume(
        volume_id=VolumeId(name),
        device_class=device_class,
        size_bytes=size_bytes,
        source=source,
        owner=OWNER,
        wipe=wipe,
    )
    return order(request, NODE)


def is_version(version: str, found: LogicalVolume | None) -> bool:
    return found is not None and found.metadata.resource_version == version


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.orders.stop()


def reason(scene: Scene, kind: str, name: str = A) -> str:
    problem = scene.told(name).problem(kind)
    return problem.reason if problem else ""


def test_an_order_is_carved_and_told_in_one_write(scene: Scene) -> None:
    scene.ordered(wanted())
    assert scene.do() is None
    made = scene.told()
    assert made.is_ready
    assert made.is_answered
    assert (made.status.size_bytes, made.status.pool, made.status.wipe) == (8 * MIB, POOL, Wipe.DISCARD)
    assert made.status.revision == scene.revisions.now(), "what the stock says after the operation"
    assert scene.api.writes == [("PATCH", "/apis/ullage.io/v1alpha1/logicalvolumes/pvc-a/status")]
    assert scene.heard.told == [("LogicalVolume", A, "Carved"), ("PersistentVolumeClaim", "web-0", "Carved")]
    assert str(8 * MIB) in scene.heard.sentences[0]


def test_what_has_not_changed_is_not_written_again(scene: Scene) -> None:
    scene.ready()
    assert scene.do() is None
    assert (scene.writes, scene.disks.asked, scene.heard.told) == (0, [], [])
    promised = scene.revisions.promised
    scene.disks.has(volume("pvc-other"))
    assert scene.do() is None
    assert scene.revisions.promised == promised, "no report has to come for it"


def test_a_volume_whose_carver_died_before_telling_is_told_and_not_carved_again(scene: Scene) -> None:
    scene.disks.has(replace(volume(A), owner=OWNER))
    scene.ordered(wanted())
    assert scene.do() is None
    assert scene.told().is_ready
    assert len(scene.disks.there) == 1


def test_another_nodes_order_is_nobodys_here(scene: Scene) -> None:
    elsewhere = wanted()
    scene.ordered(msgspec.structs.replace(elsewhere, spec=msgspec.structs.replace(elsewhere.spec, node_name="node-2")))
    assert scene.do() is None
    scene.condemn()
    assert scene.do() is None
    assert (scene.disks.asked, scene.writes) == ([], 1), "the one write is the test's own"


def test_a_refusal_ends_the_order_with_its_numbers_and_is_not_tried_again(scene: Scene) -> None:
    scene.disks.failing["create"] = FULL
    scene.ordered(wanted())
    assert scene.do() is None
    failed = scene.told()
    assert failed.status.phase is Phase.FAILED
    assert failed.is_answered
    assert failed.problem(READY) == Problem(reason="InsufficientCapacity", message=str(FULL))
    assert ("PersistentVolumeClaim", "web-0", "InsufficientCapacity") in scene.heard.told
    scene.disks.failing.clear()
    assert scene.do() is None
    assert scene.disks.asked == ["create pvc-a"]


@pytest.mark.parametrize("error", [PoolUnavailableError("vg0 is missing"), StillRunningError("2 s, goes on")])
def test_what_may_be_over_soon_is_tried_again_and_told_only_when_it_lasts(scene: Scene, error: UllageError) -> None:
    scene.disks.failing["create"] = error
    scene.ordered(wanted())
    assert scene.do() is error
    assert scene.writes == 0
    assert scene.do(failures=1) is error
    waiting = scene.told()
    assert waiting.status.phase is Phase.PENDING
    assert not waiting.is_answered
    assert reason(scene, READY) == error.reason
    again = type(error)("the same, in other words")
    scene.disks.failing["create"] = again
    assert scene.do(failures=2) is again
    assert scene.writes == (2 if isinstance(error, StillRunningError) else 1), "only how far it is is news"
    scene.disks.failing.clear()
    assert scene.do(failures=3) is None
    assert scene.told().is_ready
    assert reason(scene, READY) == ""


def test_a_larger_size_grows_the_volume_and_answers_for_that_spec(scene: Scene) -> None:
    scene.ready()
    scene.change(sizeBytes=16 * MIB)
    assert not scene.told().is_answered
    assert scene.do() is None
    grown = scene.told()
    assert grown.is_answered
    assert grown.status.size_bytes == 16 * MIB
    assert grown.status.revision == scene.revisions.now()
    assert [each[2] for each in scene.heard.told] == ["Grown", "Grown"]


def asked(scene: Scene, question: str | None, name: str = A) -> None:
    Api(scene.api).patch(LOGICAL_VOLUMES, name, {"metadata": {"annotations": {ABANDONED: question}}})
    scene.known()


@pytest.mark.parametrize("is_written", [False, True])
def test_whether_a_volume_was_ever_written_to_is_answered_once_for_each_question(
    scene: Scene, *, is_written: bool
) -> None:
    scene.ready()
    scene.disks.written = {A} if is_written else set()
    for question in ("first", "second"):
        asked(scene, question)
        assert scene.do() is None
        answer = scene.told().answer
        assert answer is not None
        assert (answer.is_true, answer.observed_generation) == (not is_written, 1)
        assert answer.message.startswith(f"asked {question}: ")
        assert scene.do() is None
        assert scene.told().answer == answer
    assert scene.disks.asked == ["examine pvc-a"] * 2
    assert scene.held == [f"{what} pvc-a" for what in ("create", "examine", "examine")]
    assert scene.told().is_ready
    assert scene.heard.told == [], "whoever has asked tells people"
    asked(scene, None)
    assert scene.do() is None
    assert [each.type for each in scene.told().status.conditions] == [READY, APPLIED, DEGRADED]


def test_nothing_is_read_while_somebody_stages_it(scene: Scene) -> None:
    scene.ready()
    asked(scene, "now")
    scene.is_staging = True
    assert isinstance(scene.do(), PendingOperationError)
    assert scene.told().answer is None


@pytest.mark.parametrize("news", ["withdrawn", "condemned", "changed", "asked anew"])
def test_what_is_wanted_otherwise_meanwhile_ends_the_reading_without_an_answer(scene: Scene, news: str) -> None:
    scene.ready()
    asked(scene, "now")

    def happen() -> None:
        match news:
            case "condemned":
                scene.condemn()
            case "changed":
                scene.change(sizeBytes=16 * MIB)
            case _:
                asked(scene, "again" if news == "asked anew" else None)

    scene.disks.examining = happen
    assert isinstance(scene.do(), UnavailableError)
    assert all(each.type != UNWRITTEN for each in scene.told().status.conditions)


def test_what_is_not_what_was_ordered_is_not_read_for_anybody(scene: Scene) -> None:
    scene.ready()
    scene.disks.has(replace(scene.disks.there[A], source=B))
    asked(scene, "now")
    assert scene.do() is None
    assert scene.told().answer is None
    assert scene.disks.asked == []


def test_a_smaller_size_is_answered_and_shrinks_nothing(scene: Scene) -> None:
    scene.ready()
    scene.change(sizeBytes=4 * MIB)
    assert scene.do() is None
    assert scene.disks.asked == []
    assert scene.told().is_answered
    assert scene.told().status.size_bytes == 8 * MIB


def test_a_growth_that_is_refused_leaves_the_volume_ready_and_is_not_tried_until_the_order_changes(
    scene: Scene,
) -> None:
    scene.ready()
    scene.disks.failing["expand"] = FULL
    scene.change(sizeBytes=16 * MIB)
    assert scene.do() is None
    refused = scene.told()
    assert refused.is_ready
    assert refused.is_answered
    assert refused.problem(READY) is None
    assert refused.problem(APPLIED) == Problem(reason="InsufficientCapacity", message=str(FULL))
    assert refused.status.size_bytes == 8 * MIB
    scene.disks.failing.clear()
    assert scene.do() is None
    assert scene.disks.asked == ["expand pvc-a"]
    scene.change(sizeBytes=8 * MIB)
    assert scene.do() is None
    assert reason(scene, APPLIED) == ""
    scene.change(sizeBytes=12 * MIB)
    assert scene.do() is None
    assert scene.told().status.size_bytes == 12 * MIB


def test_a_growth_that_is_delayed_is_no_answer(scene: Scene) -> None:
    scene.ready()
    scene.disks.failing["expand"] = UnavailableError("vg0 is busy")
    scene.change(sizeBytes=16 * MIB)
    assert isinstance(scene.do(failures=1), UnavailableError)
    delayed = scene.told()
    assert not delayed.is_answered
    assert (reason(scene, APPLIED), reason(scene, READY)) == ("Unavailable", "")


def test_another_wipe_policy_is_written_on_the_volume(scene: Scene) -> None:
    scene.ready()
    scene.change(wipe="zero", sizeBytes=16 * MIB)
    assert scene.do() is None
    assert scene.disks.asked == ["modify pvc-a", "expand pvc-a"]
    assert (scene.told().status.wipe, scene.told().status.size_bytes) == (Wipe.ZERO, 16 * MIB)
    assert scene.writes == 1, "both in one"


def test_whoever_changes_a_volume_holds_it_against_the_calls_of_csi(scene: Scene) -> None:
    scene.ready()
    scene.change(wipe="zero", sizeBytes=16 * MIB)
    assert scene.do() is None
    scene.condemn()
    assert scene.do() is None
    assert scene.held == ["create pvc-a", "modify pvc-a", "expand pvc-a", "delete pvc-a"]


def test_what_kubelet_is_at_is_not_changed_meanwhile(scene: Scene) -> None:
    """A file system that is made while its volume grows would have its new part wiped."""
    scene.ready()
    scene.change(sizeBytes=16 * MIB)
    scene.is_staging = True
    assert isinstance(scene.do(), PendingOperationError)
    scene.condemn()
    assert isinstance(scene.do(), PendingOperationError)
    assert scene.disks.asked == []
    scene.is_staging = False
    assert scene.do() is None
    assert scene.disks.asked == ["delete pvc-a"]


def test_a_volume_that_is_gone_is_missed_and_never_made_again(scene: Scene) -> None:
    scene.ready()
    scene.disks.loses(A)
    assert scene.do() is None
    missing = scene.told()
    assert reason(scene, READY) == MISSING
    assert missing.is_ready, "it was there: it will not be made again"
    assert missing.status.size_bytes == 8 * MIB
    assert ("LogicalVolume", A, MISSING) in scene.heard.told
    scene.change(sizeBytes=16 * MIB)
    assert scene.do() is None
    assert scene.told().is_answered, "whoever waits for the growth is not left to wait"
    assert scene.do() is None
    assert {each.split()[0] for each in scene.disks.asked} == {"look"}
    assert [each[2] for each in scene.heard.told].count(MISSING) == 2, "once, on the object and its claim"


def test_a_volume_that_comes_back_is_ready_again(scene: Scene) -> None:
    scene.ready()
    was = scene.disks.there[A]
    scene.disks.loses(A)
    assert scene.do() is None
    scene.disks.has(was)
    assert scene.do() is None
    assert (reason(scene, READY), reason(scene, APPLIED)) == ("", "")


def test_a_volume_where_nobody_can_look_is_not_said_to_be_missing(scene: Scene) -> None:
    scene.ready()
    scene.disks.loses(A)
    scene.disks.is_blind = True
    assert isinstance(scene.do(failures=1), UnavailableError)
    assert reason(scene, READY) == "Unavailable"


OTHERS = {
    "class": replace(volume(A), device_class=DeviceClassName("slow")),
    "source": replace(volume(A), source=B),
    "pool": replace(volume(A), pool=PoolName("vg1")),
    "claim": replace(volume(A), owner=replace(OWNER, claim_uid="u-2")),
    "size": replace(volume(A), size_bytes=4 * MIB),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_volume_under_the_id_is_told_and_never_touched(scene: Scene, other: object) -> None:
    scene.ready()
    scene.disks.has(other)  # type: ignore[arg-type] # a volume
    scene.change(sizeBytes=16 * MIB, wipe="zero")
    assert scene.do() is None
    degraded = scene.told().problem(DEGRADED)
    assert degraded is not None
    assert degraded.reason == MISMATCH
    assert scene.told().is_answered
    scene.condemn()
    assert scene.do() is None
    assert scene.disks.asked == []
    assert scene.told().is_condemned, "its object stays until somebody has looked"


@pytest.mark.parametrize("kind", ["class", "source", "claim", "size"])
def test_an_order_for_an_id_that_something_else_has_is_refused_and_may_go_without_it(scene: Scene, kind: str) -> None:
    scene.disks.has(OTHERS[kind])
    scene.ordered(wanted())
    assert scene.do() is None
    refused = scene.told()
    assert refused.status.phase is Phase.FAILED
    assert (reason(scene, READY), reason(scene, DEGRADED)) == ("AlreadyExists", MISMATCH)
    scene.condemn()
    assert scene.do() is None
    assert scene.api.find(LOGICAL_VOLUMES, A) is None
    assert scene.disks.there == {A: OTHERS[kind]}
    assert scene.disks.asked == []


@pytest.mark.parametrize(
    ("state", "stays"), [(VolumeState.READY, True), (VolumeState.GROWING, True), (VolumeState.CREATING, False)]
)
def test_with_an_order_that_was_refused_goes_what_its_attempt_left_and_nothing_that_was_whole(
    scene: Scene, state: VolumeState, *, stays: bool
) -> None:
    """A volume that is larger than the order's limit, say: it has lost its own object, and is full of bytes."""
    there = replace(volume(A, 64 * MIB), state=state)
    scene.disks.has(there)
    scene.disks.failing["create"] = ConflictError(f"{A} has 64 MiB, more than the limit")
    scene.ordered(wanted())
    assert scene.do() is None
    assert scene.told().status.phase is Phase.FAILED
    scene.disks.failing.clear()
    scene.condemn()
    assert scene.do() is None
    assert scene.api.find(LOGICAL_VOLUMES, A) is None
    assert scene.disks.there == ({A: there} if stays else {})


def test_a_condemned_volume_goes_before_its_object(scene: Scene) -> None:
    scene.ready()
    scene.condemn()
    scene.disks.failing["delete"] = VolumeInUseError("pvc-a is mounted")
    assert isinstance(scene.do(failures=1), VolumeInUseError)
    assert reason(scene, READY) == "VolumeInUse"
    assert scene.told().is_condemned
    scene.disks.failing.clear()
    assert scene.do() is None
    assert scene.disks.there == {}
    assert scene.api.find(LOGICAL_VOLUMES, A) is None


@pytest.mark.parametrize("error", [PoolUnavailableError("vg0 is missing"), NotOursError("it is in vg1")])
def test_an_object_stays_while_its_volume_cannot_be_told_to_be_gone(scene: Scene, error: UllageError) -> None:
    scene.ready()
    scene.condemn()
    scene.disks.failing["delete"] = error
    assert scene.do(failures=1) is error
    assert reason(scene, READY) == error.reason
    assert scene.told().is_condemned


def test_an_object_whose_class_nobody_knows_any_more_does_not_go_for_that(scene: Scene) -> None:
    """Its volume may be in a volume group that no class names: nobody has looked there."""
    scene.ordered(wanted())
    scene.condemn()
    scene.disks.classes_known = ()
    error = scene.do()
    assert isinstance(error, UnavailableError)
    assert "fast" in str(error)
    assert scene.disks.asked == []
    assert scene.told().is_condemned


def test_the_object_of_an_order_that_was_refused_goes_even_when_some_store_cannot_be_read(scene: Scene) -> None:
    scene.disks.failing["create"] = FULL
    scene.ordered(wanted())
    assert scene.do() is None
    scene.condemn()
    scene.disks.is_blind = True
    assert scene.do() is None
    assert scene.api.find(LOGICAL_VOLUMES, A) is None


def test_an_order_that_nobody_has_begun_does_not_go_while_some_store_cannot_be_read(scene: Scene) -> None:
    """An earlier process may have carved it, and died before it told."""
    scene.ordered(wanted())
    scene.condemn()
    scene.disks.is_blind = True
    assert isinstance(scene.do(), UnavailableError)
    assert scene.told().is_condemned


def test_a_death_between_removal_and_finalizer_ends_as_without_it(scene: Scene) -> None:
    scene.ready()
    scene.condemn()
    scene.disks.loses(A)
    assert scene.do() is None
    assert scene.api.find(LOGICAL_VOLUMES, A) is None


def test_only_our_finalizer_is_taken_off(scene: Scene) -> None:
    scene.ready()
    fields = scene.fields()
    fields["metadata"]["finalizers"] = ["example.com/other", *fields["metadata"]["finalizers"], "example.com/third"]
    scene.api.put(LOGICAL_VOLUMES, fields)
    scene.condemn()
    assert scene.do() is None
    scene.known()
    assert scene.told().metadata.finalizers == ("example.com/other", "example.com/third")
    scene.disks.asked.clear()
    assert scene.do() is None
    assert scene.disks.asked == []


def test_a_status_that_could_not_be_written_is_written_at_the_next_look(scene: Scene) -> None:
    scene.ordered(wanted())
    scene.api.is_down = True
    assert isinstance(scene.do(), ApiUnavailableError)
    scene.api.is_down = False
    assert scene.do() is None
    assert scene.told().is_ready
    assert len(scene.disks.there) == 1


def test_an_unknown_class_is_a_refusal(scene: Scene) -> None:
    scene.disks.failing["create"] = UnknownDeviceClassError("no device class 'fast' on this node")
    scene.ordered(wanted())
    assert scene.do() is None
    assert reason(scene, READY) == "UnknownDeviceClass"


def test_what_is_wrong_with_a_volume_is_told(scene: Scene) -> None:
    scene.ready()
    ill = Problem(reason="DeviceGone", message="sdb does not answer")
    scene.disks.has(replace(scene.disks.there[A], problem=ill))
    assert scene.do() is None
    assert scene.told().problem(DEGRADED) == ill
    assert scene.told().problem(READY) is None
    scene.disks.has(replace(scene.disks.there[A], problem=None))
    assert scene.do() is None
    assert scene.told().problem(DEGRADED) is None


def test_a_snapshot_is_taken_and_has_its_sources_size_for_good(scene: Scene) -> None:
    scene.ready()
    name = snapshot_id("nightly")
    scene.ordered(snapshot_order(name, scene.told()))
    assert scene.do(name) is None
    taken = scene.told(name)
    assert (taken.is_ready, taken.status.taken_at, taken.status.size_bytes) == (True, 1_800_000_000, 8 * MIB)
    scene.change(name, sizeBytes=16 * MIB)
    assert scene.do(name) is None
    assert scene.disks.asked == [f"snapshot {name}"]


def test_an_order_that_contradicts_its_own_id_is_refused(scene: Scene) -> None:
    scene.ready()
    scene.ordered(snapshot_order(B, scene.told()))
    assert scene.do(B) is None
    assert reason(scene, READY, B) == "InvalidRequest"


GROUP = group_id("consistent")
MEMBERS = tuple(member_id(GROUP, each) for each in (A, B))


def ordered_group(scene: Scene, *sources: VolumeId) -> None:
    for source in sources:
        member = snapshot_order(member_id(GROUP, source), scene.told(source), group=GROUP, sources=(A, B))
        scene.ordered(member)


def test_a_group_is_taken_when_all_its_members_are_ordered(scene: Scene) -> None:
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A)
    assert scene.do(MEMBERS[0]) is None
    assert scene.disks.asked == []
    ordered_group(scene, B)
    assert scene.do(MEMBERS[1]) is None
    assert scene.disks.asked == [f"group {GROUP}"]
    assert all(scene.told(each).is_ready for each in MEMBERS)


def test_a_group_that_is_refused_is_refused_whole(scene: Scene) -> None:
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A, B)
    scene.disks.failing["group"] = PreconditionError("pvc-b cannot be held still")
    assert scene.do(MEMBERS[0]) is None
    assert {scene.told(each).status.phase for each in MEMBERS} == {Phase.FAILED}
    assert {reason(scene, READY, each) for each in MEMBERS} == {PreconditionError.reason}


def test_a_death_between_two_refusals_does_not_take_half_a_group(scene: Scene) -> None:
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A, B)
    scene.disks.failing["group"] = PreconditionError("pvc-b cannot be held still")
    written: list[str] = []

    def dies_after_one(method: str, path: str) -> None:
        if method == "PATCH":
            if written:
                raise ApiUnavailableError("gone")
            written.append(path)

    scene.api.before = dies_after_one
    assert isinstance(scene.do(MEMBERS[0]), ApiUnavailableError)
    scene.api.before = lambda _method, _path: None
    scene.disks.failing.clear()
    assert scene.do(MEMBERS[1]) is None
    assert all(scene.told(each).status.phase is Phase.FAILED for each in MEMBERS)
    assert scene.disks.asked == [f"group {GROUP}"]


def test_a_death_between_two_members_answers_ends_with_both(scene: Scene) -> None:
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A, B)
    assert scene.do(MEMBERS[0]) is None
    fields = scene.fields(MEMBERS[1])
    fields["status"] = {}
    scene.api.put(LOGICAL_VOLUMES, fields)
    scene.known()
    assert scene.do(MEMBERS[1]) is None
    assert scene.told(MEMBERS[1]).is_ready


def test_a_group_of_which_a_member_is_condemned_is_not_taken(scene: Scene) -> None:
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A, B)
    scene.condemn(MEMBERS[0])
    assert scene.do(MEMBERS[1]) is None
    assert scene.disks.asked == [f"delete {MEMBERS[0]}"]
    assert scene.told(MEMBERS[1]).status.phase is Phase.PENDING


def test_a_member_is_not_let_go_while_its_group_is_still_being_taken(scene: Scene) -> None:
    """The operation would make it after its object had gone."""
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A, B)
    scene.disks.busy.add(VolumeId(GROUP))
    scene.condemn(MEMBERS[0])
    assert isinstance(scene.do(MEMBERS[0]), PendingOperationError)
    assert scene.told(MEMBERS[0]).is_condemned
    scene.disks.busy.clear()
    assert scene.do(MEMBERS[0]) is None
    assert scene.api.find(LOGICAL_VOLUMES, MEMBERS[0]) is None


def test_a_group_goes_with_its_objects(scene: Scene) -> None:
    scene.ready(A)
    scene.ready(B)
    ordered_group(scene, A, B)
    assert scene.do(MEMBERS[0]) is None
    for each in MEMBERS:
        scene.condemn(each)
    assert scene.do(MEMBERS[1]) is None
    assert set(scene.disks.there) == {A, B}
    assert set(scene.api.all(LOGICAL_VOLUMES)) == {A, B}


def test_a_volume_that_is_still_being_deleted_by_somebody_is_not_said_to_be_usable(scene: Scene) -> None:
    scene.ready()
    scene.disks.has(replace(scene.disks.there[A], state=VolumeState.DELETING))
    assert scene.do() is None
    assert reason(scene, READY) == "VolumeNotReady"


def made_anew(name: str = A) -> LogicalVolume:
    """As `ullage recover` makes it."""
    made = wanted(name)
    return msgspec.structs.replace(
        made, metadata=msgspec.structs.replace(made.metadata, annotations={RECOVERED: "ext4"})
    )


def test_what_an_object_was_made_anew_for_is_taken_over_as_it_is(scene: Scene) -> None:
    scene.disks.has(replace(volume(A), owner=OWNER))
    scene.ordered(made_anew())
    assert scene.do() is None
    assert (scene.told().status.size_bytes, scene.told().is_ready, scene.disks.asked) == (8 * MIB, True, [])
    assert ("LogicalVolume", A, "TakenOver") in scene.heard.told


def test_for_an_object_that_was_made_anew_nothing_is_ever_carved(scene: Scene) -> None:
    scene.ordered(made_anew())
    assert scene.do() is None
    assert (scene.told().status.phase, reason(scene, READY)) == (Phase.FAILED, MISSING)
    assert (scene.disks.there, scene.disks.asked) == ({}, ["look for pvc-a"])


def test_where_nobody_can_look_an_object_that_was_made_anew_waits(scene: Scene) -> None:
    scene.disks.is_blind = True
    scene.ordered(made_anew())
    assert isinstance(scene.do(), UnavailableError)
    assert scene.told().status.phase is Phase.PENDING


def test_what_was_made_anew_for_something_else_is_refused(scene: Scene) -> None:
    scene.disks.has(replace(volume(A), owner=OWNER, device_class=DeviceClassName("other")))
    scene.ordered(made_anew())
    assert scene.do() is None
    assert (scene.told().status.phase, reason(scene, READY)) == (Phase.FAILED, "AlreadyExists")


def test_the_members_of_a_group_that_were_made_anew_are_taken_over_one_by_one(scene: Scene) -> None:
    group = group_id("g")
    member = member_id(group, A)
    scene.disks.has(replace(volume(member), kind=VolumeKind.SNAPSHOT, source=A, group=group, taken_at=7))
    made = snapshot_order(member, wanted(), group=group, sources=(A, B))
    meta = msgspec.structs.replace(made.metadata, annotations={RECOVERED: "unknown"})
    scene.ordered(msgspec.structs.replace(made, metadata=meta))
    assert scene.do(member) is None
    assert (scene.told(member).is_ready, scene.told(member).status.taken_at, scene.disks.asked) == (True, 7, [])
