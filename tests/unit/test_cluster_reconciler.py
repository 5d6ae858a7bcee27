"""When an object is looked at: when it comes, when its operation ends, when the disks change; and when it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from msgspec.structs import replace as replaced

from node_agent.cluster.deeds import Deeds
from node_agent.cluster.queue import WorkQueue
from node_agent.cluster.reconciler import Reconciler
from node_agent.cluster.revisions import Revisions
from node_agent.cluster.telling import BY_GROUP, Told, groups_of
from tests.unit.cluster_doubles import FAST, Disks, Heard, eventually, volume
from tests.unit.kube_doubles import ApiServer
from ullage.errors import MIB, PoolUnavailableError, StillRunningError
from ullage.kube.api import Api
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import ABANDONED, READY, LogicalVolume, order
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import CreateVolume, ExpandVolume, NodeName, Owner, Problem, VolumeId

NODE = NodeName("node-1")
A = VolumeId("pvc-a")
QUESTION = {"annotations": {ABANDONED: "now"}}


@dataclass
class Running:
    """A reconciler at work."""

    api: ApiServer = field(default_factory=ApiServer)
    disks: Disks = field(default_factory=Disks)
    looks: list[str] = field(default_factory=list)
    queue: WorkQueue = field(default_factory=WorkQueue)
    is_started: bool = True
    reconciler: Reconciler = field(init=False)
    orders: Informer[LogicalVolume] = field(init=False)

    def __post_init__(self) -> None:
        api = Api(self.api)
        self.orders = Informer(
            api,
            LOGICAL_VOLUMES,
            LogicalVolume,
            field_selector=f"spec.nodeName={NODE}",
            indexes={BY_GROUP: groups_of},
        )
        deeds = Deeds(
            node=NODE,
            storage=self.disks,
            orders=self.orders,
            told=Told(api, self.orders, Heard(), NODE, Revisions(lambda: 1)),
            alone=lambda _id, _what: nullcontext(),
        )
        self.reconciler = Reconciler(deeds, self.orders, self.disks, observe=self._looked, queue=self.queue)
        if not self.is_started:
            return
        self.orders.on_change(self.reconciler.changed)
        self.orders.start()
        assert self.orders.wait_until_synced(5)
        self.reconciler.start()

    def stop(self) -> None:
        self.reconciler.stop()
        self.orders.stop()

    def _looked(self, outcome: str) -> None:
        self.looks.append(outcome)

    def ordered(self, name: str = A, size_bytes: int = 8 * MIB) -> None:
        request = CreateVolume(volume_id=VolumeId(name), device_class=FAST, size_bytes=size_bytes, owner=Owner())
        self.api.put(LOGICAL_VOLUMES, order(request, NODE))

    def told(self, name: str = A) -> LogicalVolume:
        found = self.api.find(LOGICAL_VOLUMES, name)
        assert found is not None
        return msgspec.convert(found, LogicalVolume)

    def until_ready(self, name: str = A) -> None:
        self.api.wait_until(lambda: self.told(name).is_ready)


@pytest.fixture
def running() -> Iterator[Running]:
    running = Running()
    yield running
    running.stop()


def test_an_order_is_carried_out_when_it_comes(running: Running) -> None:
    running.ordered()
    running.until_ready()
    assert running.disks.asked == ["create pvc-a"]


def test_what_was_ordered_before_the_start_is_carried_out(running: Running) -> None:
    for number in range(20):
        running.ordered(f"pvc-{number}")
    for number in range(20):
        running.until_ready(f"pvc-{number}")


def test_what_we_have_written_ourselves_is_no_reason_to_look_again_and_what_others_have_is() -> None:
    idle = Running(is_started=False).reconciler
    request = CreateVolume(volume_id=A, device_class=FAST, size_bytes=8 * MIB)
    old = order(request, NODE)
    old = replaced(old, metadata=replaced(old.metadata, generation=1, uid="u-1"))
    idle.changed(old, replaced(old, status=replaced(old.status, pool="x")))
    assert idle.waiting() == 0
    idle.changed(old, None)
    idle.changed(old, replaced(old, metadata=replaced(old.metadata, annotations={"somebody.io": "else's"})))
    assert idle.waiting() == 0
    for news in ({"generation": 2}, {"deletion_timestamp": "2026-01-01T00:00:00Z"}, {"uid": "u-2"}, QUESTION):
        idle = Running(is_started=False).reconciler
        idle.changed(old, replaced(old, metadata=replaced(old.metadata, **news)))
        assert idle.waiting() == 1, news


def test_an_operation_that_outlives_its_waiter_is_told_by_its_end() -> None:
    running = Running(queue=WorkQueue(jitter=lambda: 1000.0))  # the next try by itself is far away
    running.disks.failing["create"] = StillRunningError("it goes on")
    running.ordered()
    eventually(lambda: "StillRunning" in running.looks)
    running.disks.failing.clear()
    running.disks.has(volume(A))
    request = CreateVolume(volume_id=A, device_class=FAST, size_bytes=8 * MIB)
    running.reconciler.ended(request, None, 1.0)
    running.until_ready()
    running.stop()


def test_the_end_of_an_operation_that_somebody_waited_for_wakes_nobody(running: Running) -> None:
    running.reconciler.ended(ExpandVolume(volume_id=A, size_bytes=1), None, 1.0)
    assert running.reconciler.waiting() == 0


def test_a_volume_that_falls_ill_is_told_without_an_order(running: Running) -> None:
    running.ordered()
    running.until_ready()
    ill = Problem(reason="DeviceGone", message="sdb does not answer")
    running.disks.has(replace(running.disks.there[A], problem=ill))
    running.api.wait_until(lambda: running.told().problem("Degraded") == ill)


def test_a_volume_that_vanishes_is_told_without_an_order(running: Running) -> None:
    running.ordered()
    running.until_ready()
    running.disks.loses(A)
    running.api.wait_until(lambda: running.told().problem(READY) is not None)
    assert "create pvc-a" in running.disks.asked
    assert running.disks.asked.count("create pvc-a") == 1


def test_what_fails_is_tried_until_it_does_not(running: Running) -> None:
    running.disks.failing["create"] = PoolUnavailableError("vg0 is missing")
    running.ordered()
    running.api.wait_until(lambda: running.told().problem(READY) is not None)
    running.disks.failing.clear()
    running.until_ready()


def test_an_api_server_that_was_away_is_caught_up_with(running: Running) -> None:
    running.ordered()
    running.until_ready()
    running.api.go_down()
    fields = running.api.find(LOGICAL_VOLUMES, A)
    assert fields is not None
    fields["spec"]["sizeBytes"] = 16 * MIB
    running.api.put(LOGICAL_VOLUMES, fields)
    running.api.is_down = False
    running.api.wait_until(lambda: running.told().status.size_bytes == 16 * MIB, 30)
