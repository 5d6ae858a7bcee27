"""NodeStorage: what it says, when it is written, and what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from node_agent.backends.port import StoreReport
from node_agent.cluster.publisher import HEARTBEAT_SECONDS, Publisher
from node_agent.cluster.revisions import VERSIONS_PER_MS, Revisions
from node_agent.cluster.strays import Strays
from node_agent.stock import Stock
from tests.unit.cluster_doubles import FAST, Heard, volume
from tests.unit.kube_doubles import ApiServer
from ullage.errors import GIB, MIB
from ullage.kube.api import Api
from ullage.kube.foreign import Node
from ullage.kube.informer import Informer
from ullage.kube.meta import NODE_STORAGES, NODES
from ullage.kube.node_storage import CAPACITY_KNOWN, DEGRADED, READY, NodeStorage
from ullage.model import (
    DeviceClassName,
    DeviceType,
    NodeName,
    Orphan,
    OrphanKind,
    Pool,
    PoolName,
    Problem,
    StoreName,
    Volume,
    VolumeId,
)

NODE = NodeName("node-1")
STORE = StoreName("/srv")


def pool(free_bytes: int = GIB, problem: Problem | None = None) -> Pool:
    return Pool(
        name=PoolName("/srv"),
        store=STORE,
        type=DeviceType.FILE,
        classes=(FAST,),
        total_bytes=2 * GIB,
        free_bytes=free_bytes,
        extent_bytes=4 * MIB,
        problem=problem,
    )


def report(free_bytes: int = GIB, volumes: tuple[Volume, ...] = (), **more: object) -> StoreReport:
    return StoreReport(name=STORE, pools=(pool(free_bytes),), volumes=volumes, **more)  # type: ignore[arg-type] # a test's words


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    api: ApiServer = field(default_factory=ApiServer)
    stock: Stock = field(default_factory=Stock)
    heard: Heard = field(default_factory=Heard)
    clock: Clock = field(default_factory=Clock)
    objects: set[VolumeId] = field(default_factory=set)
    classes: set[DeviceClassName] = field(default_factory=lambda: {FAST})
    probed: list[VolumeId] = field(default_factory=list)
    revisions: Revisions = field(init=False)
    strays: Strays = field(init=False)
    storages: Informer[NodeStorage] = field(init=False)
    nodes: Informer[Node] = field(init=False)
    publisher: Publisher = field(init=False)

    def __post_init__(self) -> None:
        self.api.put(NODES, {"metadata": {"name": NODE, "uid": "node-uid"}})
        api = Api(self.api)
        self.storages = Informer(api, NODE_STORAGES, NodeStorage)
        self.nodes = Informer(api, NODES, Node)
        self.revisions = Revisions(lambda: self.stock.wait_for_change(-1, 0), now=lambda: 5.0)
        self.strays = Strays(lambda each: each in self.objects, self._probe, clock=self.clock)
        self.publisher = Publisher(
            node=NODE,
            version="1.0",
            stock=self.stock,
            strays=self.strays,
            revisions=self.revisions,
            api=api,
            storages=self.storages,
            nodes=self.nodes,
            classes=lambda: self.classes,
            events=self.heard,
            clock=self.clock,
        )
        for each in (self.storages, self.nodes):
            each.start()
            assert each.wait_until_synced(5)

    def _probe(self, found: Volume) -> str:
        self.probed.append(found.id)
        return "ext4"

    def told(self) -> NodeStorage:
        found = self.api.find(NODE_STORAGES, NODE)
        assert found is not None
        return msgspec.convert(found, NodeStorage)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.publisher.stop()
    scene.storages.stop()
    scene.nodes.stop()


def test_the_first_report_makes_the_object_which_goes_with_its_node(scene: Scene) -> None:
    scene.stock.put(report())
    assert scene.publisher.publish()
    (owner,) = scene.told().metadata.owner_references
    assert (owner.kind, owner.name, owner.uid) == ("Node", NODE, "node-uid")
    (told,) = scene.told().pools
    assert told == pool()
    assert scene.told().status.pools[0].largest_volume_bytes == GIB
    assert scene.told().status.agent_version == "1.0"


def test_without_its_node_there_is_no_report(scene: Scene) -> None:
    scene.api.remove(NODES, NODE)
    scene.nodes.wait(NODE, lambda each: each is None, 5)
    scene.stock.put(report())
    assert not scene.publisher.publish()
    assert scene.api.writes == []


def test_what_says_the_same_is_not_written_again(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.publish()
    assert not scene.publisher.publish()
    scene.stock.put(report(volumes=(volume("pvc-a"),)))
    scene.objects.add(VolumeId("pvc-a"))
    assert not scene.publisher.publish(), "the pools are as they were"


def test_a_pool_that_no_class_names_any_more_is_not_offered(scene: Scene) -> None:
    """Its store stays known, for the volumes on it; what is free there nobody can have."""
    scene.stock.put(report(volumes=(volume("pvc-a"),)))
    scene.publisher.publish()
    assert len(scene.told().pools) == 1
    scene.classes.clear()
    assert scene.publisher.publish()
    assert scene.told().pools == ()


def test_what_is_different_is_written(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.publish()
    before = scene.told().status
    scene.stock.put(report(GIB // 2))
    assert scene.publisher.publish()
    assert scene.told().pools[0].free_bytes == GIB // 2
    assert scene.told().status.revision > before.revision


def test_a_revision_that_a_volume_was_told_with_comes_even_without_news(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.publish()
    scene.stock.put(report(volumes=(volume("pvc-a"),)))
    scene.objects.add(VolumeId("pvc-a"))
    promised = scene.revisions.now()
    scene.revisions.promise(promised)
    assert promised > scene.told().status.revision
    assert scene.publisher.publish()
    assert scene.told().status.revision >= promised


def test_now_and_then_the_same_is_written_again(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.publish()
    scene.clock.now += 2 * HEARTBEAT_SECONDS
    assert scene.publisher.publish()


def test_revisions_grow_over_a_restart_also_when_the_clock_was_set_back(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.publish()
    before = scene.told().status.revision
    later = Revisions(lambda: 1, now=lambda: 1.0)
    later.settle(before)
    assert later.now() > before
    assert Revisions(lambda: 1, now=lambda: 6.0).now() > before


def test_a_revision_of_a_process_is_not_passed_by_its_predecessors() -> None:
    assert Revisions(lambda: 900, now=lambda: 5.0).now() < Revisions(lambda: 0, now=lambda: 5.001).now()
    assert VERSIONS_PER_MS == 1000


def test_what_empties_is_told_to_be_empty(scene: Scene) -> None:
    orphan = Orphan(name="x", kind=OrphanKind.VOLUME_WITHOUT_RECORD, message="x.img has no x.json")
    scene.stock.put(report(orphans=(orphan,)))
    scene.publisher.publish()
    assert [each.name for each in scene.told().status.orphans] == ["x"]
    scene.stock.put(report())
    scene.publisher.publish()
    assert scene.told().status.orphans == ()


def test_a_store_that_cannot_be_read_makes_a_condition(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.publish()
    gone = Problem(reason="VolumeGroupMissing", message="vg0 is not there")
    scene.stock.put(StoreReport(name=STORE, problem=gone))
    scene.publisher.publish()
    conditions = {each.type: each for each in scene.told().status.conditions}
    assert conditions[READY].is_true
    assert not conditions[CAPACITY_KNOWN].is_true
    assert (conditions[DEGRADED].is_true, conditions[DEGRADED].reason) == (True, "VolumeGroupMissing")
    assert scene.told().pools[0].problem is not None
    assert ("NodeStorage", NODE, "VolumeGroupMissing") in scene.heard.told
    scene.stock.put(report())
    scene.publisher.publish()
    conditions = {each.type: each for each in scene.told().status.conditions}
    assert conditions[CAPACITY_KNOWN].is_true
    assert not conditions[DEGRADED].is_true
    assert len(scene.heard.told) == 1


def test_a_volume_without_an_object_is_an_orphan_after_a_while_with_all_that_is_known_of_it(scene: Scene) -> None:
    scene.strays.start()
    stray = replace(volume("pvc-a"), source=VolumeId("pvc-b"))
    scene.stock.put(report(volumes=(stray,)))
    scene.publisher.publish()
    assert scene.told().status.orphans == ()
    assert scene.strays.is_undecided
    scene.clock.now += 61
    scene.publisher.publish()
    (told,) = scene.told().status.orphans
    assert (told.name, told.kind, told.device_class) == ("pvc-a", OrphanKind.VOLUME_WITHOUT_RECORD, FAST)
    assert (told.size_bytes, told.pool, told.source) == (stray.size_bytes, stray.pool, "pvc-b")
    assert (told.claim_namespace, told.claim_name, told.claim_uid) == ("default", "web-0", "u-1")
    assert ("NodeStorage", NODE, "OrphanFound") in scene.heard.told


def test_an_orphan_is_probed_once_and_its_content_told(scene: Scene) -> None:
    scene.strays.start()
    scene.strays.on_change(scene.publisher.wish)
    scene.stock.put(report(volumes=(volume("pvc-a"),)))
    scene.publisher.publish()
    scene.clock.now += 61
    scene.publisher.publish()
    assert scene.publisher._is_wished.wait(5)
    scene.publisher.publish()
    assert scene.told().status.orphans[0].content == "ext4"
    scene.stock.put(report(GIB // 2, volumes=(volume("pvc-a"),)))
    scene.publisher.publish()
    assert scene.probed == ["pvc-a"]
    assert [reason for _, _, reason in scene.heard.told] == ["OrphanFound"]


def test_a_volume_whose_object_came_or_went_just_now_is_no_orphan(scene: Scene) -> None:
    scene.stock.put(report(volumes=(volume("pvc-a"),)))
    scene.publisher.publish()
    scene.clock.now += 30
    scene.objects.add(VolumeId("pvc-a"))
    scene.publisher.publish()
    scene.objects.clear()
    scene.clock.now += 45
    scene.publisher.publish()
    assert scene.told().status.orphans == ()
    assert scene.probed == []


def test_at_work_it_publishes_what_changes(scene: Scene) -> None:
    scene.publisher.start()
    scene.stock.put(report())
    scene.api.wait_until(lambda: bool(scene.api.find(NODE_STORAGES, NODE)) and bool(scene.told().pools))
    scene.stock.put(report(GIB // 4))
    scene.api.wait_until(lambda: scene.told().pools[0].free_bytes == GIB // 4)


def test_an_object_that_somebody_has_deleted_is_made_again(scene: Scene) -> None:
    scene.storages.on_change(lambda _before, _after: scene.publisher.wish())
    scene.stock.put(report())
    scene.publisher.start()
    scene.api.wait_until(lambda: bool(scene.api.find(NODE_STORAGES, NODE)) and bool(scene.told().pools))
    scene.api.remove(NODE_STORAGES, NODE)
    scene.api.wait_until(lambda: bool(scene.api.find(NODE_STORAGES, NODE)) and bool(scene.told().pools))


def test_a_second_without_the_api_server_loses_nothing(scene: Scene) -> None:
    scene.stock.put(report())
    scene.publisher.start()
    scene.api.wait_until(lambda: bool(scene.api.find(NODE_STORAGES, NODE)) and bool(scene.told().pools))
    scene.api.go_down()
    scene.stock.put(report(GIB // 8))
    scene.api.is_down = False
    scene.api.wait_until(lambda: scene.told().pools[0].free_bytes == GIB // 8, 30)
