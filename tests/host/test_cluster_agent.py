"""The agent in its cluster, over real files: what is ordered comes to be, is counted, grows and goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.faults import until
from tests.host.cluster_rig import CLASS, NODE, Mortal, Process, ordered, put_class, put_node
from tests.host.file_rig import ran
from tests.unit.kube_doubles import ApiServer, Change
from ullage.errors import MIB, UnavailableError
from ullage.kube.api import Api
from ullage.kube.logical_volume import READY
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES
from ullage.model import VolumeId


@pytest.fixture
def api(root: Path) -> ApiServer:
    api = ApiServer()
    (root / "volumes").mkdir()
    ran("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(root / "volumes"))  # nobody else writes there
    put_class(api, root / "volumes")
    put_node(api)
    return api


@pytest.fixture
def process(api: ApiServer, root: Path) -> Iterator[Process]:
    process = Process(api, root).start()
    yield process
    process.stop()


def test_an_order_is_carved_told_counted_grown_and_gone(api: ApiServer, process: Process, root: Path) -> None:
    process.joined()
    until(lambda: api.find(NODE_STORAGES, NODE) is not None and process.storage().status.revision > 0)
    free_bytes = process.storage().pools[0].free_bytes
    ordered(api, "pvc-a")
    ready = process.until("pvc-a", lambda each: each.is_ready)
    assert ready.is_answered
    assert (ready.status.size_bytes, ready.status.pool) == (8 * MIB, str(root / "volumes"))
    assert (root / "volumes" / "pvc-a.img").exists()
    until(lambda: process.storage().status.revision >= ready.status.revision)
    assert process.storage().pools[0].free_bytes <= free_bytes - 8 * MIB

    fields = api.find(LOGICAL_VOLUMES, "pvc-a")
    assert fields is not None
    fields["spec"]["sizeBytes"] = 16 * MIB
    api.put(LOGICAL_VOLUMES, fields)
    grown = process.until("pvc-a", lambda each: each.is_answered and each.status.size_bytes == 16 * MIB)
    assert grown.status.revision > ready.status.revision

    Api(api).delete(LOGICAL_VOLUMES, "pvc-a")
    until(lambda: api.find(LOGICAL_VOLUMES, "pvc-a") is None)
    assert not (root / "volumes" / "pvc-a.img").exists()
    until(lambda: process.storage().pools[0].free_bytes >= free_bytes - 4 * MIB)  # our own mark stays
    reasons = [reason for _, _, reason in process.heard.told]
    assert reasons == ["Carved", "Carved", "Grown", "Grown"]
    assert api.written("PATCH", "logicalvolumes") == [
        "/apis/ullage.io/v1alpha1/logicalvolumes/pvc-a/status",
        "/apis/ullage.io/v1alpha1/logicalvolumes/pvc-a/status",
        "/apis/ullage.io/v1alpha1/logicalvolumes/pvc-a",
    ]


POINTS = [(write, is_after) for write in range(3) for is_after in (False, True)]
"""Before and after each write to an object in its life: carved, grown, let go."""


@pytest.mark.parametrize(("write", "is_after"), POINTS)
def test_a_death_at_any_write_converges_with_one_volume_and_then_none(
    api: ApiServer, root: Path, write: int, *, is_after: bool
) -> None:
    way = Mortal(api, write, is_after=is_after)
    dying = Process(api, root, way).start()
    ordered(api, "pvc-a")
    lived = live(api, root, dying, way)
    dying.stop()
    assert way.is_dead
    successor = Process(api, root).start()
    try:
        if lived < 1:
            successor.until("pvc-a", lambda each: each.is_ready)
        if lived < 2:
            assert images(root) == ["pvc-a.img"]
            grow(api)
            successor.until("pvc-a", lambda each: each.is_answered and each.status.size_bytes == 16 * MIB)
        if api.find(LOGICAL_VOLUMES, "pvc-a") is not None:
            Api(api).delete(LOGICAL_VOLUMES, "pvc-a")
        until(lambda: api.find(LOGICAL_VOLUMES, "pvc-a") is None)
        assert images(root) == []
    finally:
        successor.stop()


def live(api: ApiServer, root: Path, process: Process, way: Mortal) -> int:
    """How many of its steps the process has lived to see the end of."""
    until(lambda: way.is_dead or process.object("pvc-a").is_ready)
    if way.is_dead:
        return 0
    grow(api)
    until(lambda: way.is_dead or process.object("pvc-a").status.size_bytes == 16 * MIB)
    if way.is_dead:
        return 1
    Api(api).delete(LOGICAL_VOLUMES, "pvc-a")
    until(lambda: way.is_dead)
    assert images(root) == [], "the volume goes first"
    return 2


def grow(api: ApiServer) -> None:
    fields = api.find(LOGICAL_VOLUMES, "pvc-a")
    assert fields is not None
    fields["spec"]["sizeBytes"] = 16 * MIB
    api.put(LOGICAL_VOLUMES, fields)


def images(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "volumes").glob("*.img"))


def test_an_agent_that_starts_without_the_api_server_serves_what_the_last_one_did(api: ApiServer, root: Path) -> None:
    first = Process(api, root).start().joined()
    ordered(api, "pvc-a")
    first.until("pvc-a", lambda each: each.is_ready)
    first.stop()
    api.go_down()
    second = Process(api, root).start()
    try:
        assert second.assembly.agent.get(VolumeId("pvc-a")).size_bytes == 8 * MIB
        assert not second.link.is_joined
        api.is_down = False
        second.joined()
    finally:
        second.stop()


def test_an_agent_that_knows_no_class_says_of_no_volume_that_it_is_not_there(api: ApiServer, root: Path) -> None:
    api.go_down()
    process = Process(api, root).start()
    try:
        with pytest.raises(UnavailableError, match="no device class"):
            process.assembly.agent.get(VolumeId("pvc-a"))
    finally:
        process.stop()


def test_a_volume_without_an_object_is_told_and_left(api: ApiServer, root: Path) -> None:
    first = Process(api, root).start().joined()
    ordered(api, "pvc-a")
    first.until("pvc-a", lambda each: each.is_ready)
    first.stop()
    api.remove(LOGICAL_VOLUMES, "pvc-a")
    second = Process(api, root).start().joined()
    try:
        second.link._strays._grace_seconds = 0.0
        second.link._publisher.wish()
        until(lambda: [each.content for each in second.storage().status.orphans] == ["ext4"])
        (orphan,) = second.storage().status.orphans
        assert (orphan.name, orphan.claim_name, orphan.size_bytes) == ("pvc-a", "web-0", 8 * MIB)
        assert images(root) == ["pvc-a.img"]
        ordered(api, "pvc-a")
        second.until("pvc-a", lambda each: each.is_ready)
        until(lambda: second.storage().status.orphans == ())
    finally:
        second.stop()


def test_a_class_that_is_gone_lets_no_object_go_that_may_have_a_volume_there(api: ApiServer, root: Path) -> None:
    first = Process(api, root).start().joined()
    ordered(api, "pvc-a")
    first.until("pvc-a", lambda each: each.is_ready)
    first.stop()
    api.remove(DEVICE_CLASSES, CLASS)
    (root / "other").mkdir()
    put_class(api, root / "other", "other")
    Api(api).delete(LOGICAL_VOLUMES, "pvc-a")
    second = Process(api, root).start().joined()
    try:
        told = second.until("pvc-a", lambda each: each.problem(READY) is not None)
        assert told.metadata.finalizers
        assert images(root) == ["pvc-a.img"]
        put_class(api, root / "volumes")
        until(lambda: api.find(LOGICAL_VOLUMES, "pvc-a") is None)
        assert images(root) == []
    finally:
        second.stop()


def _made_ready(change: Change) -> list[str]:
    """The order that is told to be ready by this write, and was not told so just the same before."""
    after, before = change.after or {}, change.before or {}
    is_ready = after.get("kind") == "LogicalVolume" and after.get("status", {}).get("phase") == "Ready"
    return [after["metadata"]["name"]] if is_ready and after["status"] != before.get("status") else []


def test_a_hundred_orders_at_once_are_each_carved_once(api: ApiServer, process: Process, root: Path) -> None:
    process.joined()
    told: list[str] = []
    api.watch_all(lambda change: told.extend(_made_ready(change)))
    names = [f"pvc-{number}" for number in range(100)]
    for name in names:
        ordered(api, name, 4 * MIB)
    for name in names:
        process.until(name, lambda each: each.is_ready)
    assert len(images(root)) == 100
    until(lambda: len(told) >= 100)
    assert sorted(told) == sorted(names), "one for each; that some had to wait may be told besides"
    for name in names:
        Api(api).delete(LOGICAL_VOLUMES, name)
    until(lambda: not api.all(LOGICAL_VOLUMES))
    assert images(root) == []
