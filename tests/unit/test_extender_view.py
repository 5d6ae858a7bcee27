"""The view keeps little of each object, and answers as if it kept all: whatever comes, in whatever order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_extender.feeds import KINDS, Fed
from scheduler_extender.objects import CONTENTS, Claim, Seen
from scheduler_extender.view import View
from tests.unit.extender_scene import (
    Json,
    claim,
    content,
    device_class,
    logical_volume,
    node,
    node_storage,
    persistent_volume,
    pool,
    storage_class,
)
from ullage.errors import GIB
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import (
    CLAIMS,
    DEVICE_CLASSES,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    NODES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    Resource,
    timestamp,
)
from ullage.kube.node_storage import NodeStorage
from ullage.model import NodeName, PoolName
from ullage.stock import STALE_SECONDS, Candidate, is_reported, pools_left, why_unknown

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ON = ("n1", "n2")
SELECTED = "volume.kubernetes.io/selected-node"
Event: TypeAlias = tuple[Resource, str, Json | None]
"""Kind, name, and what is there of that name from now on."""

nodes = st.sampled_from(ON)
sizes = st.integers(1, 6).map(lambda number: number * GIB)
revisions = st.integers(0, 3)


def volumes(name: str, uid: str) -> st.SearchStrategy[Json]:
    about: Json = {"claimRef": {"namespace": "default", "name": uid.removeprefix("uid-"), "uid": uid}} if uid else {}
    copied: Json = {"source": {"volume": "v"}}
    kinds = [{}, {}, copied] if name != "s" else [{"kind": "snapshot", **copied}]

    def made(*, kind: Json, grown: int, ends: str, where: str, **parts: Any) -> Json:  # noqa: ANN401 - as it takes them
        found = logical_volume(name, **parts, **about, **kind)
        found["spec"]["sizeBytes"] += grown
        found["metadata"] |= {"deletionTimestamp": ends} if ends else {}
        if parts["phase"] == "Ready":
            found["status"]["pool"] = where
        return found

    return st.builds(
        made,
        on=nodes,
        size_bytes=sizes,
        phase=st.sampled_from(["Ready", "Ready", "Ready", "Pending", "Failed"]),
        revision=revisions,
        kind=st.sampled_from(kinds),
        is_of=st.sampled_from(["fast", "slow"]),
        grown=st.sampled_from([0, 0, 0, GIB]),
        ends=st.sampled_from(["", "", "2026-01-01T00:00:00Z"]),
        where=st.sampled_from(["vg0", "vg0", "vg1", ""]),
    )


def reports(name: str) -> st.SearchStrategy[Json]:
    def made(free: int, more: int, revision: int, observed: int | None, ready: bool) -> Json:  # noqa: FBT001 - drawn
        pools = [pool(free_bytes=free * GIB), pool("vg1", free_bytes=more * GIB, classes=("slow",))]
        moment = timestamp(NOW + timedelta(seconds=observed)) if observed is not None else ""
        found = node_storage(name, *pools, revision=revision, ready=ready)
        found["status"]["observedAt"] = moment
        return found

    is_ready = st.sampled_from([True, True, True, False])
    return st.builds(
        made, st.integers(0, 20), st.integers(18, 20), revisions, st.sampled_from([0, 0, 600, 1200, None]), is_ready
    )


def claims(name: str) -> st.SearchStrategy[Json]:
    said = st.sampled_from([{}, {SELECTED: "n1"}, {SELECTED: "n2", "spread.ullage.io/group": "g", "other": "x"}])
    volume = st.sampled_from(["", "", "pvc-uid-a", "odd", "v", "static", "elsewhere"])
    return st.builds(lambda volume, said: claim(name, volume=volume, **said), volume, said)


THINGS: Mapping[tuple[Resource, str], st.SearchStrategy[Json]] = {
    **{(NODE_STORAGES, name): reports(name) for name in ON},
    **{
        (LOGICAL_VOLUMES, name): volumes(name, uid)
        for name, uid in {"pvc-uid-a": "uid-a", "odd": "uid-b", "v": "", "w": "", "s": ""}.items()
    },
    **{(CLAIMS, name): claims(name) for name in "ab"},
    (PERSISTENT_VOLUMES, "static"): st.sampled_from(
        [persistent_volume("static", "v"), persistent_volume("static"), persistent_volume("static", "v", "other")]
    ),
    (DEVICE_CLASSES, "fast"): st.sampled_from([device_class(), device_class(type="thin"), device_class(type="odd")]),
    (DEVICE_CLASSES, "slow"): st.just(device_class("slow")),
    (STORAGE_CLASSES, "fast"): st.sampled_from([storage_class(), storage_class(of="slow"), storage_class(of="none")]),
    (NODES, "n1"): st.sampled_from([node("n1"), node("n1", rack="r1")]),
    (CONTENTS, "c"): st.sampled_from(
        [content("c", "snap", "s"), content("c", "other", "s"), content("c", "snap", "w")]
    ),
}


ROOM = (NODE_STORAGES, LOGICAL_VOLUMES, DEVICE_CLASSES)
NAMES = (LOGICAL_VOLUMES, CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, NODES, CONTENTS)


def steps(*resources: Resource) -> st.SearchStrategy[list[tuple[str, Any]]]:
    """What may happen to objects of these kinds, and that time passes."""
    things = [thing for thing in THINGS if thing[0] in resources]

    def there(thing: tuple[Resource, str]) -> st.SearchStrategy[Event]:
        found = st.one_of(THINGS[thing], THINGS[thing], THINGS[thing], st.none())
        return found.map(lambda found: (*thing, found))

    event = st.sampled_from(things).flatmap(there)
    heard = event.map(lambda event: ("heard", event))
    missed = event.map(lambda event: ("missed", event))
    lists = st.tuples(st.sampled_from(["listed", "half listed"]), st.sampled_from(resources))
    later = st.tuples(st.just("later"), st.sampled_from([300, 900]))
    return st.lists(st.one_of(heard, heard, heard, missed, lists, later), min_size=12, max_size=30)


@dataclass
class Twins:
    """A view, and beside it all that it was told, whole."""

    now: datetime = NOW
    told: dict[Resource, dict[str, Json]] = field(default_factory=dict)
    there: dict[Resource, dict[str, Json]] = field(default_factory=dict)
    kept: dict[str, Candidate] = field(default_factory=dict)
    """What somebody has worked out, until he is told that it is out of date."""

    def __post_init__(self) -> None:
        self.view = View(clock=lambda: self.now)
        self.view.on_node_change(self._out_of_date)
        self.feeds = {each.resource: Fed(self.view, each.struct) for each in KINDS}
        for each in KINDS:
            self.told[each.resource], self.there[each.resource] = {}, {}

    def heard(self, event: Event) -> None:
        resource, name, found = event
        self.missed(event)
        if found is None:
            namespace = "default" if resource is CLAIMS else ""
            self.told[resource].pop(name, None)
            self.feeds[resource].watched("", deleted=(namespace, name))
        else:
            self.told[resource][name] = found
            self.feeds[resource].watched("", found=decoded(resource, found))

    def missed(self, event: Event) -> None:
        resource, name, found = event
        if found is None:
            self.there[resource].pop(name, None)
        else:
            self.there[resource][name] = found

    def listed(self, resource: Resource) -> None:
        self._begin(resource, self.there[resource])
        self.told[resource] = dict(self.there[resource])
        self.feeds[resource].end_list("")

    def half_listed(self, resource: Resource) -> None:
        self._begin(resource, list(self.there[resource])[::2])

    def later(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    def _begin(self, resource: Resource, names: Iterable[str]) -> None:
        feed = self.feeds[resource]
        feed.begin_list()
        for name in names:
            found = decoded(resource, self.there[resource][name])
            self.told[resource][name] = self.there[resource][name]
            feed.listed("", feed.check(found), found)

    def _out_of_date(self, on: str) -> None:
        if on:
            self.kept.pop(on, None)
        else:
            self.kept.clear()

    # What all of it says.

    def all(self, resource: Resource) -> dict[str, Any]:
        return {name: decoded(resource, each) for name, each in self.told[resource].items()}

    def candidate(self, on: str) -> Candidate:
        storage: NodeStorage | None = self.all(NODE_STORAGES).get(on)
        if storage is None:
            return Candidate(node=NodeName(on), pools={}, unknown="no storage agent on this node")
        unknown = why_unknown(storage, self.now)
        if unknown:
            return Candidate(node=NodeName(on), pools={}, unknown=unknown)
        orders = self.all(LOGICAL_VOLUMES).values()
        return Candidate(node=NodeName(on), pools=pools_left(storage, orders, self.view.device_classes))

    def order_of(self, of: Claim) -> LogicalVolume | None:
        orders: dict[str, LogicalVolume] = self.all(LOGICAL_VOLUMES)
        bound = of.spec.volume_name
        volume = self.all(PERSISTENT_VOLUMES).get(bound)
        is_ours = volume is not None and volume.spec.csi.driver == "ullage.io"
        found = orders.get(volume.spec.csi.volume_handle if volume is not None and is_ours else bound)
        if bound and found is not None:
            return found
        uid = of.metadata.uid
        by_uid = (each for each in orders.values() if each.spec.claim_ref and each.spec.claim_ref.uid == uid)
        return next(by_uid, None)

    def check(self) -> None:
        self.view.age()
        for on in (*ON, "n3"):
            if on not in self.kept:
                self.kept[on] = self.view.candidate(on)
            assert self.kept[on] == self.candidate(on)
            self._check_whole(on)
            labels = self.all(NODES)[on].metadata.labels if on in self.told[NODES] else {}
            assert self.view.labels(on) == labels
        assert set(self.view.nodes) == set(self.told[NODE_STORAGES])
        assert set(self.view.claims) == {("default", name) for name in self.told[CLAIMS]}
        assert len(self.view.claims) == len(self.told[CLAIMS])
        for name, whole in self.all(CLAIMS).items():
            assert ("default", name) in self.view.claims
            self._check_claim(whole, self.view.claims["default", name])
        for name in self.told[LOGICAL_VOLUMES]:
            found = self.view.order(name)
            assert found is not None
            assert place(found) == place(self.all(LOGICAL_VOLUMES)[name])
        contents = self.all(CONTENTS).values()
        for snapshot in ("snap", "other"):
            about = [each for each in contents if each.spec.volume_snapshot_ref.name == snapshot]
            snapped = self.all(LOGICAL_VOLUMES).get(about[0].status.snapshot_handle) if about else None
            assert place(self.view.snapshot(("default", snapshot))) == place(snapped)

    def _check_whole(self, on: str) -> None:
        """Nothing is kept whole that has come to rest."""
        storage: NodeStorage | None = self.all(NODE_STORAGES).get(on)
        report = self.view._reports.get(on)
        if storage is not None and report is not None and not report.unknown:
            here = [each for each in self.all(LOGICAL_VOLUMES).values() if each.node == on]
            moving = {
                each.id
                for each in here
                if not is_reported(each, storage.revision) or each.is_condemned or not each.pool
            }
            assert {each.id for each in self.view._orders.news(on)} == moving

    def _check_claim(self, whole: Claim, kept: Claim) -> None:
        assert place(self.view.order_of(kept)) == place(self.order_of(whole))
        assert (kept.key, kept.metadata.uid) == (whole.key, whole.metadata.uid)
        assert (kept.spec.volume_name, kept.selected_node) == (whole.spec.volume_name, whole.selected_node)
        assert kept.spec.storage_class_name == whole.spec.storage_class_name
        group = "spread.ullage.io/group"
        assert kept.metadata.annotations.get(group) == whole.metadata.annotations.get(group)
        assert whole.spec.volume_name or kept == whole
        order = self.view.order(f"pvc-{whole.metadata.uid}")
        if not whole.spec.volume_name and order is not None:
            assert order.spec.claim_ref is not None, "whoever has promised something to the claim is told of its volume"
            assert order.spec.claim_ref.name == whole.metadata.name


def decoded(resource: Resource, found: Json) -> Any:  # noqa: ANN401 - of any kind
    struct: type[Seen] = next(each.struct for each in KINDS if each.resource is resource)
    return msgspec.json.decode(msgspec.json.encode(found), type=struct)


def place(found: LogicalVolume | None) -> object:
    """All that anybody asks of a volume that is made."""
    if found is None:
        return None
    is_made = found.is_ready and not found.is_condemned
    size = found.status.size_bytes
    return found.id, found.node, found.pool, size, found.spec.kind, is_made, found.spec.device_class


def play(steps: list[tuple[str, Any]]) -> None:
    twins = Twins()
    for step, what in steps:
        getattr(twins, step.replace(" ", "_"))(what)
        twins.check()


@settings(max_examples=400)
@given(steps(*ROOM))
def test_what_a_node_has_left_is_worked_out_from_little_as_from_all_that_was_told(steps: list[tuple[str, Any]]) -> None:
    play(steps)


@settings(max_examples=200)
@given(steps(*NAMES))
def test_who_belongs_to_whom_is_known_from_little_as_from_all_that_was_told(steps: list[tuple[str, Any]]) -> None:
    play(steps)


@given(steps(*ROOM, *NAMES))
def test_what_is_kept_answers_as_all_that_was_told_would(steps: list[tuple[str, Any]]) -> None:
    play(steps)


class Room:
    """A view, whom it tells, and what `n1` has left in the end."""

    def __init__(self, *objects: Json) -> None:
        self.now = NOW
        self.view = View(clock=lambda: self.now)
        self.told: list[str] = []
        self.put(device_class(), *objects)
        self.view.on_node_change(self.told.append)

    def put(self, *objects: Json) -> None:
        for each in objects:
            kind = next(kind for kind in KINDS if kind.resource.kind == each["kind"])
            self.view.put(decoded(kind.resource, each))

    @property
    def free_bytes(self) -> int:
        return self.view.candidate("n1").pools[PoolName("vg0")].free_bytes


def report(*, revision: int = 1, free_bytes: int = 10 * GIB, seconds: int = 0, on: str = "n1") -> Json:
    observed_at = timestamp(NOW + timedelta(seconds=seconds))
    return node_storage(on, pool(free_bytes=free_bytes), revision=revision, observed_at=observed_at)


def test_a_volume_counts_until_the_report_has_it() -> None:
    room = Room(report(), logical_volume("v", "n1", phase="Pending"))
    assert room.free_bytes == 9 * GIB
    room.put(logical_volume("v", "n1", revision=2))
    assert room.free_bytes == 9 * GIB
    room.put(report(revision=2, free_bytes=9 * GIB))
    assert (room.free_bytes, room.view._orders.news("n1")) == (9 * GIB, ())


def test_a_volume_that_was_there_before_its_report_does_not_count_twice() -> None:
    room = Room(logical_volume("v", "n1", revision=3))
    assert room.view._orders.news("n1") == ()
    room.put(report(revision=3))
    assert room.free_bytes == 10 * GIB


def test_a_report_that_has_fallen_back_has_fewer_volumes() -> None:
    room = Room(report(revision=3), logical_volume("v", "n1", revision=3), logical_volume("w", "n1", revision=1))
    assert room.free_bytes == 10 * GIB
    room.put(report(revision=2))
    assert (room.free_bytes, room.told) == (9 * GIB, ["n1"])
    room.put(report(revision=3))
    assert (room.free_bytes, room.told) == (10 * GIB, ["n1"] * 2)


def test_what_a_volume_has_grown_by_counts_alone_once_the_report_has_the_rest() -> None:
    grown = logical_volume("v", "n1", revision=2)
    grown["spec"]["sizeBytes"] = 3 * GIB
    room = Room(report(), grown)
    assert room.free_bytes == 7 * GIB
    room.put(report(revision=2))
    assert (room.free_bytes, room.told) == (8 * GIB, ["n1"])


def test_a_snapshot_counts_where_its_volume_is_though_that_is_long_in_the_report() -> None:
    pools = pool(free_bytes=9 * GIB), pool("vg1", free_bytes=2 * GIB)
    source = logical_volume("v", "n1", status={"pool": "vg1"})
    room = Room(node_storage("n1", *pools, observed_at=timestamp(NOW)), source)
    assert room.view._orders.news("n1") == ()
    room.put(logical_volume("s", "n1", phase="Pending", kind="snapshot", source={"volume": "v"}))
    left = room.view.candidate("n1").pools
    assert left[PoolName("vg1")].free_bytes < 2 * GIB
    assert left[PoolName("vg0")].free_bytes == 9 * GIB


def test_a_volume_is_its_claims_by_its_name_or_by_what_it_says_and_until_it_is_gone() -> None:
    room = Room(claim("a"), logical_volume("another-name", "n1", claim="a"))

    def of_claim() -> str:
        found = room.view.order_of(room.view.claims["default", "a"])
        return found.id if found is not None else ""

    assert of_claim() == "another-name"
    room.view.drop(LogicalVolume, ("", "another-name"))
    assert of_claim() == ""
    room.put(logical_volume("pvc-uid-a", "n2"))
    assert of_claim() == "pvc-uid-a"


def test_a_volume_that_is_made_anew_elsewhere_is_news_to_both_nodes() -> None:
    room = Room(report(), report(on="n2"), logical_volume("v", "n1", phase="Pending"))
    room.put(logical_volume("v", "n2", phase="Pending"))
    assert set(room.told) == {"n1", "n2"}
    assert room.free_bytes == 10 * GIB


def test_who_keeps_what_a_node_has_left_is_told_when_its_report_grows_old_and_when_it_is_renewed() -> None:
    room = Room(report(), report(on="n2", seconds=600))
    room.now += timedelta(seconds=STALE_SECONDS)
    room.view.age()
    assert room.told == []
    room.now += timedelta(seconds=1)
    room.view.age()
    assert (room.told, room.view.candidate("n1").unknown[:30]) == (["n1"], "its agent was last heard of at")
    room.view.age()
    assert room.told == ["n1"], "once"
    room.put(report(seconds=901))
    assert (room.told, room.free_bytes) == (["n1"] * 2, 10 * GIB)
    room.now += timedelta(seconds=600)
    room.view.age()
    assert room.told == ["n1", "n1", "n2"]


def test_a_report_that_says_nothing_new_is_told_to_nobody() -> None:
    room = Room(report(), logical_volume("v", "n1"))
    room.put(report(revision=2, seconds=60), device_class(), logical_volume("v", "n1"))
    assert room.told == []
    room.now += timedelta(seconds=STALE_SECONDS + 30)
    assert room.free_bytes == 10 * GIB, "but it counts as new"


def test_no_report_means_no_agent() -> None:
    room = Room(report())
    room.view.drop(NodeStorage, ("", "n1"))
    assert (room.told, room.view.candidate("n1").unknown) == (["n1"], "no storage agent on this node")
    room.put(node_storage("n1", observed_at=timestamp(NOW), ready=False))
    assert room.view.candidate("n1").unknown == "its agent is not ready: is ill"


def test_nothing_is_remembered_of_names_that_nobody_has_reported() -> None:
    room = Room(report())
    for number in range(100):
        assert room.view.candidate(f"autoscaled-{number}").unknown == "no storage agent on this node"
    assert room.free_bytes == 10 * GIB
    assert list(room.view._candidates) == ["n1"]


def test_a_device_class_that_changes_is_news_to_all_nodes_and_one_that_is_told_again_to_none() -> None:
    room = Room(report())
    room.put(device_class())
    assert room.told == []
    room.put(device_class(type="odd"))
    assert (room.told, room.view.device_classes) == ([""], {})
    room.put(device_class())
    room.view.drop(DeviceClassObject, ("", "fast"))
    assert room.told == [""] * 3
