"""What the scheduler is told of a node's room is there, follows, is written seldom, and goes with what it is about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import msgspec
import pytest

from csi.cluster.rooms import AT_ONCE, LABELS, Change, change, object_name, objects, rooms_of
from csi.cluster.storage_capacity import LAZY_SECONDS, CapacityObjects, StorageCapacityWriter
from csi.cluster.view import ClusterView
from tests.unit.kube_doubles import ApiServer, Fields
from tests.unit.loop_doubles import (
    CLASSES,
    FAST,
    NOW,
    pool,
    running,
    storage,
    storage_class,
    volume,
)
from ullage.errors import GIB, ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.foreign import StorageCapacity
from ullage.kube.logical_volume import Phase, Status
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, STORAGE_CAPACITIES, STORAGE_CLASSES
from ullage.model import DeviceClass, DeviceClassName, DeviceType, Problem
from ullage.stock import STALE_SECONDS
from ullage.storage_classes import NODE_KEY, device_class_of

NAMESPACE = "ullage"
FAST_CLASS = {"metadata": {"name": "fast"}, "spec": {"type": "file", "directory": "/srv", "sparse": True}}


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


@contextmanager
def writing(
    server: ApiServer, *, clock: Clock | None = None, late: timedelta = timedelta()
) -> Iterator[tuple[CapacityObjects, ClusterView]]:
    """The objects as they are known, written only when it is asked for."""
    view = ClusterView(Api(server))
    found = CapacityObjects(
        Api(server),
        view,
        NAMESPACE,
        on_write=lambda _verb, _outcome: None,
        pause=lambda _seconds: None,
        clock=clock or time.monotonic,
        now=lambda: NOW + late,
    )
    with running(view, found.storage_classes, found.written):
        yield found, view


@contextmanager
def started(server: ApiServer) -> Iterator[StorageCapacityWriter]:
    view = ClusterView(Api(server))
    writer = StorageCapacityWriter(Api(server), view, NAMESPACE)
    with running(view):
        writer.start()
        yield writer
        writer.stop()


def written(server: ApiServer) -> dict[str, Fields]:
    """By node and StorageClass."""
    return {
        f"{each['nodeTopology']['matchLabels'][NODE_KEY]}/{each['storageClassName']}": each
        for each in server.all(STORAGE_CAPACITIES).values()
    }


def said(server: ApiServer, which: str = "n1/fast") -> int:
    return int(written(server).get(which, {"capacity": -1})["capacity"])


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.put(STORAGE_CLASSES, storage_class())
    server.put(DEVICE_CLASSES, FAST_CLASS)
    server.put(NODE_STORAGES, storage("n1", pool(10 * GIB)))
    return server


def test_each_node_has_one_for_each_class_with_a_pool_there(server: ApiServer) -> None:
    server.put(STORAGE_CLASSES, storage_class("slow", device_class="slow"))
    server.put(STORAGE_CLASSES, storage_class("at-once", volume_binding_mode="Immediate"))
    server.put(STORAGE_CLASSES, storage_class("others", provisioner="other.io"))
    server.put(NODE_STORAGES, storage("n2", pool(3 * GIB)))
    server.put(NODE_STORAGES, storage("n3"))
    with started(server):
        server.wait_until(lambda: written(server).keys() == {"n1/fast", "n2/fast"})
    made = written(server)["n1/fast"]
    assert (made["capacity"], made["maximumVolumeSize"]) == (str(10 * GIB), str(10 * GIB))
    assert made["metadata"]["name"] == object_name("n1", "fast")
    assert made["metadata"]["namespace"] == NAMESPACE
    assert made["metadata"]["ownerReferences"][0]["uid"] == server.all(NODE_STORAGES)["n1"]["metadata"]["uid"]


def test_what_is_ordered_is_taken_off_before_the_node_reports_it(server: ApiServer) -> None:
    with started(server):
        server.wait_until(lambda: said(server) == 10 * GIB)
        ordered = msgspec.structs.replace(volume("pvc-1"), status=Status(phase=Phase.PENDING))
        server.put(LOGICAL_VOLUMES, ordered)
        server.wait_until(lambda: said(server) == 9 * GIB)


def test_it_goes_with_its_storage_class_its_device_class_and_its_node(server: ApiServer) -> None:
    with started(server):
        server.put(NODE_STORAGES, storage("n2", pool(3 * GIB)))
        server.wait_until(lambda: written(server).keys() == {"n1/fast", "n2/fast"})
        server.remove(NODE_STORAGES, "n2")
        server.wait_until(lambda: written(server).keys() == {"n1/fast"})
        server.put(NODE_STORAGES, storage("n1"))
        server.wait_until(lambda: not written(server))
        server.put(NODE_STORAGES, storage("n1", pool(GIB)))
        server.wait_until(lambda: written(server).keys() == {"n1/fast"})
        server.remove(STORAGE_CLASSES, "fast")
        server.wait_until(lambda: not written(server))


def test_one_that_somebody_deletes_or_edits_is_made_right_again(server: ApiServer) -> None:
    with started(server):
        server.wait_until(lambda: said(server) == 10 * GIB)
        name = object_name("n1", "fast")
        server.remove(STORAGE_CAPACITIES, name, namespace=NAMESPACE)
        server.wait_until(lambda: said(server) == 10 * GIB)
        edited = {**server.all(STORAGE_CAPACITIES)[name], "capacity": "7"}
        server.put(STORAGE_CAPACITIES, edited, namespace=NAMESPACE)
        server.wait_until(lambda: said(server) == 10 * GIB)
        edited = server.all(STORAGE_CAPACITIES)[name]
        edited["metadata"]["labels"] = {}
        server.put(STORAGE_CAPACITIES, edited | {"capacity": "7"}, namespace=NAMESPACE)
        server.wait_until(lambda: said(server) == 10 * GIB)
        assert server.all(STORAGE_CAPACITIES)[name]["metadata"]["labels"] == dict(LABELS)


def test_a_new_leader_writes_nothing_that_is_there_already(server: ApiServer) -> None:
    with started(server):
        server.wait_until(lambda: said(server) == 10 * GIB)
    before = len(server.writes)
    with writing(server) as (found, _):
        found.settle("n1")
    assert len(server.writes) == before


def test_a_small_change_waits_and_a_large_one_does_not(server: ApiServer) -> None:
    clock = Clock()
    with writing(server, clock=clock) as (found, view):
        found.settle("n1")
        server.wait_until(lambda: said(server) == 10 * GIB)

        def report(free_bytes: int) -> None:
            made = msgspec.json.decode(msgspec.json.encode(server.put(NODE_STORAGES, storage("n1", pool(free_bytes)))))
            version = made["metadata"]["resourceVersion"]
            seen = view.storages.wait(
                "n1", lambda each: each is not None and each.metadata.resource_version == version, 10.0
            )
            assert seen is not None
            found.settle("n1")

        report(int(9.8 * GIB) // (1 << 20) << 20)
        assert said(server) == 10 * GIB
        report(5 * GIB)
        assert said(server) == 5 * GIB
        report(5 * GIB - (1 << 20))
        assert said(server) == 5 * GIB
        clock.seconds += LAZY_SECONDS
        found.settle("n1")
        assert said(server) == 5 * GIB - (1 << 20)


def test_near_full_every_byte_is_told_at_once() -> None:
    def of(capacity_bytes: int) -> StorageCapacity:
        return objects(storage(), {"fast": (capacity_bytes, capacity_bytes)}, NAMESPACE)[0]

    step = 16 << 20
    assert change(of(1 << 40), of((1 << 40) - step)) is Change.SMALL
    assert change(of(4 * step), of(3 * step)) is Change.LARGE
    assert change(of(step), of(0)) is Change.LARGE
    assert change(of(0), of(1)) is Change.LARGE
    assert change(of(16000), of(int(16000 * (1 - AT_ONCE)))) is Change.SMALL
    assert change(of(5000), msgspec.structs.replace(of(5000), capacity="5k")) is Change.NONE
    assert change(None, of(0)) is Change.LARGE


def test_one_whose_owner_was_made_anew_is_written_before_it_is_collected(server: ApiServer) -> None:
    with started(server):
        server.wait_until(lambda: said(server) == 10 * GIB)
        server.remove(NODE_STORAGES, "n1")
        again = server.put(NODE_STORAGES, storage("n1", pool(10 * GIB)))
        server.wait_until(
            lambda: (
                [
                    each["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"]
                    for each in written(server).values()
                ]
                == [True]
            )
        )


def test_a_node_whose_agent_is_silent_is_offered_to_nobody(server: ApiServer) -> None:
    with writing(server, late=timedelta(seconds=STALE_SECONDS + 1)) as (found, _):
        found.settle("n1")
    assert (written(server)["n1/fast"]["capacity"], said(server)) == ("0", 0)


def test_before_its_agent_has_reported_nothing_is_said_of_a_node_and_nothing_taken_back(server: ApiServer) -> None:
    with writing(server) as (found, _):
        found.settle("n1")
    unsaid = msgspec.structs.replace(storage("n1"), status=msgspec.structs.replace(storage("n1").status, revision=0))
    server.put(NODE_STORAGES, unsaid)
    with writing(server) as (found, _):
        found.settle("n1")
    assert said(server) == 10 * GIB


def test_a_pool_with_a_problem_offers_nothing() -> None:
    broken = replace(pool(), problem=Problem(reason="Missing", message="gone"))
    assert rooms_of([broken, pool(GIB)], [storage_class()], CLASSES) == {"fast": (GIB, GIB)}
    assert rooms_of([broken], [storage_class()], CLASSES) == {"fast": (0, 0)}


def test_a_class_that_names_no_device_class_has_the_only_one() -> None:
    assert rooms_of([pool(GIB)], [storage_class(parameters={})], CLASSES) == {"fast": (GIB, GIB)}
    assert rooms_of([pool(GIB)], [storage_class(parameters={"ullage.io/device-class": "No Name"})], CLASSES) == {}


def test_of_two_defaults_none_is_meant() -> None:
    def default(name: str) -> DeviceClass:
        return DeviceClass(name=DeviceClassName(name), type=DeviceType.FILE, is_default=True)

    nameless = storage_class(parameters={})
    assert device_class_of(nameless, {FAST: default(FAST)}) == default(FAST)
    assert device_class_of(nameless, {FAST: default(FAST), DeviceClassName("b"): default("b")}) is None


def test_while_the_api_server_is_away_it_is_tried_again_until_it_is_there(server: ApiServer) -> None:
    failures: list[str] = []

    def fail(method: str, _path: str) -> None:
        if method == "POST" and len(failures) < 3:
            failures.append(method)
            raise ApiUnavailableError("away")

    server.before = fail
    with started(server):
        server.wait_until(lambda: said(server) == 10 * GIB)
    assert len(failures) == 3


def test_it_may_lead_again_after_it_has_stopped(server: ApiServer) -> None:
    with started(server) as writer:
        server.wait_until(lambda: said(server) == 10 * GIB)
        writer.stop()
        server.put(NODE_STORAGES, storage("n1", pool(GIB)))
        writer.start()
        server.wait_until(lambda: said(server) == GIB)
