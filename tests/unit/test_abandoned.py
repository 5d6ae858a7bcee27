"""A volume that nobody wants goes only when every single thing that has to be so is so, asked just now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import product

import msgspec
import pytest

from csi.cluster.abandoned import AbandonedVolumes, Others, Step, is_alone, is_claimed, judge
from csi.cluster.orphans import KNOWN
from csi.cluster.view import ClusterView
from tests.unit.kube_doubles import ApiServer
from tests.unit.loop_doubles import NOW, Heard, claim, persistent, running, volume
from ullage.errors import ApiForbiddenError, ConflictError, UnavailableError
from ullage.kube.api import Api
from ullage.kube.foreign import Claim
from ullage.kube.logical_volume import (
    ABANDONED,
    DEGRADED,
    READY,
    RECOVERED,
    UNWRITTEN,
    ClaimRef,
    LogicalVolume,
    Phase,
    Source,
    Status,
    answer_to,
)
from ullage.kube.meta import CLAIMS, LOGICAL_VOLUMES, PERSISTENT_VOLUMES, Condition, Meta, timestamp
from ullage.model import VolumeId, VolumeKind

UID, OTHER_UID = "0b2c41e0-6f3b-4c57-9a58-6d4c6b1a7f10", "0b2c41e0-6f3b-4c57-9a58-6d4c6b1a7f11"
NAME = VolumeId(f"pvc-{UID}")
ASKED = "2026-01-01T00:00:00.000001Z"
BEFORE = NOW - timedelta(minutes=5)
replaced = msgspec.structs.replace


def answered(status: str = "True", *, question: str = ASKED, generation: int = 1) -> Condition:
    return Condition(
        type=UNWRITTEN,
        status=status,
        reason="AllZero" if status == "True" else "Written",
        message=f"{answer_to(question)}so it is",
        observed_generation=generation,
    )


def ready(
    name: str = NAME, *said: Condition, question: str = "", phase: Phase = Phase.READY, observed: int = 1
) -> LogicalVolume:
    """A volume of the claim `db/data`, an hour old, asked and answered like this."""
    made = volume(name)
    status = made.status
    if phase is not Phase.READY:
        status = Status(phase=phase, conditions=(Condition(type=READY, status="False", reason="InsufficientCapacity"),))
    return replaced(
        made,
        metadata=replaced(
            made.metadata, uid="u-1", generation=1, annotations={ABANDONED: question} if question else {}
        ),
        status=replaced(status, observed_generation=observed, conditions=(*status.conditions, *said)),
    )


def with_meta(of: LogicalVolume, **fields: object) -> LogicalVolume:
    return replaced(of, metadata=replaced(of.metadata, **fields))


def with_spec(of: LogicalVolume, **fields: object) -> LogicalVolume:
    return replaced(of, spec=replaced(of.spec, **fields))


def of_uid(uid: str) -> Claim:
    return replaced(claim(NAME), metadata=Meta(name="data", namespace="db", uid=uid))


def test_one_that_nothing_has_to_do_with_is_alone() -> None:
    others = Others.of([persistent("pv-2")], [volume("pvc-2")])
    assert is_alone(ready(), others, BEFORE)


@pytest.mark.parametrize(
    "other",
    [
        with_spec(ready(), kind=VolumeKind.SNAPSHOT),
        with_spec(ready(), claim_ref=None),
        with_spec(ready(), claim_ref=ClaimRef(namespace="db", name="")),
        with_spec(ready(), persistent_volume=""),
        with_meta(ready(), deletion_timestamp=timestamp(NOW)),
        with_meta(ready(), labels={KNOWN: ""}),
        with_meta(ready(), annotations={RECOVERED: "ext4"}),
        with_meta(ready(), creation_timestamp=timestamp(NOW - timedelta(minutes=4))),
        with_meta(ready(), creation_timestamp=""),
    ],
)
def test_one_that_was_ordered_otherwise_or_is_known_to_somebody_is_not(other: LogicalVolume) -> None:
    assert not is_alone(other, Others(), BEFORE)


def test_one_that_another_object_names_is_not_alone() -> None:
    assert not is_alone(ready(), Others.of([persistent(NAME, "other-handle")], []), BEFORE)
    assert not is_alone(ready(), Others.of([persistent("by-hand", NAME)], []), BEFORE)
    copy = with_spec(volume("pvc-2"), source=Source(volume=NAME))
    assert not is_alone(ready(), Others.of([], [copy]), BEFORE)


@pytest.mark.parametrize(
    ("name", "own", "found", "is_so"),
    [
        (NAME, "", None, False),
        (NAME, "", of_uid(UID), True),
        (NAME, "", of_uid(OTHER_UID), False),
        (NAME, OTHER_UID, of_uid(OTHER_UID), True),
        ("pvc-1", "", of_uid(OTHER_UID), True),
        (NAME, "", of_uid(""), True),
    ],
)
def test_a_claim_of_the_same_name_is_another_only_when_that_can_be_told(
    name: str, own: str, found: Claim | None, *, is_so: bool
) -> None:
    of = with_spec(ready(name), claim_ref=ClaimRef(namespace="db", name="data", uid=own))
    assert is_claimed(of, found) is is_so


SAID = (
    None,
    answered(),
    answered("False"),
    answered("Unknown"),
    answered(question="earlier"),
    answered("False", question="earlier"),
    answered(generation=0),
)
SICK = Condition(type=DEGRADED, status="True", reason="SpecMismatch")


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("said", SAID)
def test_nothing_is_removed_unless_all_of_it_is_as_it_has_to_be(phase: Phase, said: Condition | None) -> None:
    removed = 0
    questions, sides = ("", ASKED, "earlier"), (False, True)
    claims = (None, of_uid(UID), of_uid(OTHER_UID))
    for question, asked, found in product(questions, questions, claims):
        for is_named, is_sick, has_pool, is_condemned, is_old in product(sides, repeat=5):
            conditions = [each for each in (said, SICK if is_sick else None) if each is not None]
            of = ready(NAME, *conditions, question=question, phase=phase, observed=0 if is_old else 1)
            of = replaced(of, status=replaced(of.status, pool="files" if has_pool else ""))
            of = with_meta(of, deletion_timestamp=timestamp(NOW) if is_condemned else "")
            is_proven = bool(asked) and question == asked and said == answered(question=asked)
            may_go = (phase is Phase.READY and is_proven) or (phase is Phase.FAILED and not has_pool)
            is_nobodys = not is_named and found != of_uid(UID) and not is_condemned
            step = judge(of, is_named=is_named, claim=found, asked=asked)
            assert (step is Step.REMOVE) == (may_go and is_nobodys and not is_old and not is_sick), (of, step)
            removed += step is Step.REMOVE
    assert bool(removed) == (
        phase is Phase.FAILED or (phase is Phase.READY and said in (answered(), answered(question="earlier")))
    )


def test_an_order_that_was_refused_for_what_is_there_is_left() -> None:
    of = ready(phase=Phase.FAILED)
    conflict = Condition(type=READY, status="False", reason=ConflictError.reason)
    of = replaced(of, status=replaced(of.status, conditions=(conflict,)))
    assert judge(of, is_named=False, claim=None, asked="") is Step.LEAVE


@dataclass
class Scene:
    """One abandoned volume, and the leader that looks; its agent answers when a test says so."""

    server: ApiServer = field(default_factory=ApiServer)
    heard: Heard = field(default_factory=Heard)
    counted: list[str] = field(default_factory=list)
    is_leader: bool = True
    view: ClusterView = field(init=False)
    loop: AbandonedVolumes = field(init=False)

    def __post_init__(self) -> None:
        self.view = ClusterView(Api(self.server))
        self.loop = self.leader()

    def leader(self) -> AbandonedVolumes:
        return AbandonedVolumes(
            Api(self.server),
            self.view,
            self.heard,
            is_leader=lambda: self.is_leader,
            observe=self.counted.append,
            clock=lambda: NOW,
        )

    def put(self, of: LogicalVolume) -> None:
        self.server.put(LOGICAL_VOLUMES, of)
        self.known()

    def now(self, name: str = NAME) -> LogicalVolume | None:
        found = self.server.find(LOGICAL_VOLUMES, name)
        return None if found is None else msgspec.convert(found, LogicalVolume)

    def known(self) -> None:
        """The informer has heard of all of it."""
        for name, fields in self.server.all(LOGICAL_VOLUMES).items():
            version = fields["metadata"]["resourceVersion"]
            seen = self.view.volumes.wait(name, is_of(version), 5)
            assert seen is not None
            assert seen.metadata.resource_version == version

    def answer(self, status: str = "True", *, is_heard: bool = True) -> None:
        of = self.now()
        assert of is not None
        told = answered(status, question=of.question, generation=of.metadata.generation)
        kept = [each for each in of.status.conditions if each.type != UNWRITTEN]
        self.server.put_status(LOGICAL_VOLUMES, NAME, replaced(of.status, conditions=(*kept, told)))
        if is_heard:
            self.known()

    @property
    def is_to_go(self) -> bool:
        of = self.now()
        return of is None or of.is_condemned

    @property
    def question(self) -> str:
        of = self.now()
        return of.question if of is not None else ""


def is_of(version: str) -> Callable[[LogicalVolume | None], bool]:
    return lambda seen: seen is not None and seen.metadata.resource_version == version


@contextmanager
def beginning() -> Iterator[Scene]:
    scene = Scene()
    scene.server.put(LOGICAL_VOLUMES, ready())
    with running(scene.view):
        yield scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    with beginning() as scene:
        yield scene


def test_it_is_asked_about_and_goes_once_it_is_proven_empty(scene: Scene) -> None:
    scene.loop.check()
    assert scene.question
    assert not scene.is_to_go
    scene.loop.check()
    assert scene.server.written("PATCH", "logicalvolumes") == [LOGICAL_VOLUMES.path(NAME)], "asked once"
    scene.answer()
    scene.loop.check()
    assert scene.is_to_go
    assert scene.heard.events == [("LogicalVolume", NAME, "AbandonedRemoved")]
    assert scene.counted == ["removed"]


def test_what_may_hold_something_stays_and_is_told_of_once(scene: Scene) -> None:
    scene.loop.check()
    scene.answer("False")
    for _ in range(3):
        scene.loop.check()
    assert not scene.is_to_go
    assert scene.heard.events == [("LogicalVolume", NAME, "AbandonedKept")]
    assert scene.counted == ["kept"]
    scene.leader().check()
    assert scene.server.written("PATCH", "logicalvolumes") == [LOGICAL_VOLUMES.path(NAME)], "nobody asks again"
    assert len(scene.heard.events) == 1


def test_an_order_that_came_to_nothing_goes_unasked(scene: Scene) -> None:
    scene.put(ready(phase=Phase.FAILED))
    scene.loop.check()
    assert scene.is_to_go
    assert scene.server.written("PATCH", "logicalvolumes") == []


def test_one_that_is_still_being_made_is_waited_for(scene: Scene) -> None:
    scene.put(replaced(ready(), status=Status()))
    scene.loop.check()
    assert scene.server.writes == []


def appearing(scene: Scene, what: str) -> None:
    if what == "volume":
        scene.server.put(PERSISTENT_VOLUMES, persistent(NAME))
    elif what == "by hand":
        scene.server.put(PERSISTENT_VOLUMES, persistent("by-hand", NAME))
    else:
        scene.server.put(CLAIMS, of_uid(UID), namespace="db")


@pytest.mark.parametrize(("what", "is_asked"), [*product(["volume", "by hand", "claim"], [False, True])])
def test_what_appears_before_the_question_or_after_the_answer_keeps_it(
    scene: Scene, what: str, *, is_asked: bool
) -> None:
    if is_asked:
        scene.loop.check()
        scene.answer()
    appearing(scene, what)
    for _ in range(2):
        scene.loop.check()
        scene.known()
    assert not scene.is_to_go
    assert not scene.question, "taken back"
    assert scene.server.written("DELETE", "logicalvolumes") == []


def test_another_claim_of_the_same_name_does_not_keep_it(scene: Scene) -> None:
    scene.server.put(CLAIMS, of_uid(OTHER_UID), namespace="db")
    scene.loop.check()
    scene.answer()
    scene.loop.check()
    assert scene.is_to_go


def test_an_object_that_has_changed_since_it_was_judged_is_not_deleted(scene: Scene) -> None:
    scene.loop.check()
    scene.answer()

    def meddle(method: str, _path: str) -> None:
        if method == "DELETE":
            scene.server.before = lambda _method, _path: None
            labels = {"metadata": {"labels": {KNOWN: ""}}}
            Api(scene.server).patch(LOGICAL_VOLUMES, NAME, labels)

    scene.server.before = meddle
    scene.loop.check()
    assert not scene.is_to_go
    assert scene.counted == []


def test_the_answer_to_another_leaders_question_is_none(scene: Scene) -> None:
    scene.loop.check()
    first = scene.question
    scene.answer()
    scene.loop = AbandonedVolumes(
        Api(scene.server), scene.view, scene.heard, is_leader=lambda: True, clock=lambda: NOW + timedelta(seconds=1)
    )
    scene.loop.check()
    assert not scene.is_to_go
    assert scene.question not in ("", first)
    scene.answer()
    scene.loop.check()
    assert scene.is_to_go


def test_who_does_not_lead_any_more_writes_nothing(scene: Scene) -> None:
    scene.loop.check()
    scene.answer()
    scene.server.writes.clear()
    scene.is_leader = False
    scene.loop.check()
    assert scene.server.writes == []
    assert scene.heard.events == []


@pytest.mark.parametrize("resource", [PERSISTENT_VOLUMES, CLAIMS])
def test_what_cannot_be_looked_at_is_not_taken_for_gone(scene: Scene, resource: object) -> None:
    scene.loop.check()
    scene.answer()
    assert resource in (PERSISTENT_VOLUMES, CLAIMS)
    place = "persistentvolumes/" if resource is PERSISTENT_VOLUMES else "persistentvolumeclaims/"

    def refuse(method: str, path: str) -> None:
        if method == "GET" and place in path:
            raise ApiForbiddenError(f"GET {path}: 403", code=403)

    scene.server.before = refuse
    scene.loop.check()
    assert not scene.is_to_go


def test_before_all_is_listed_nothing_is_abandoned() -> None:
    scene = Scene()
    with pytest.raises(UnavailableError):
        scene.loop.check()


def test_an_answer_is_acted_upon_at_once() -> None:
    with beginning() as scene:
        scene.loop.start()
        try:
            scene.server.wait_until(lambda: bool(scene.question))
            scene.answer(is_heard=False)
            scene.server.wait_until(lambda: scene.is_to_go)  # the next round would come in minutes
        finally:
            scene.loop.stop()


def test_the_question_does_not_survive_what_it_was_about(scene: Scene) -> None:
    scene.loop.check()
    scene.server.remove(LOGICAL_VOLUMES, NAME)
    scene.view.volumes.wait(NAME, lambda seen: seen is None, 5)
    scene.loop.check()
    assert scene.loop._term.asked == {}
