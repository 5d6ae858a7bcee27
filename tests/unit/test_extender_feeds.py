"""The view is what the API server has, or what a file says, by one way: whatever comes, goes, breaks off or is odd."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from scheduler_extender.feeds import KINDS, Feeds, Loaded, load
from scheduler_extender.objects import CONTENTS, PODS, STATEFUL_SETS
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
    pod,
    pool,
    stateful_set,
    storage_class,
)
from tests.unit.kube_doubles import ApiServer
from ullage.errors import GIB, ApiNotFoundError, ConfigError
from ullage.kube.api import PAGE_OBJECTS, Api
from ullage.kube.meta import CLAIMS, LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES, Resource
from ullage.kube.metrics import InformerCollector
from ullage.model import DeviceClassName, PoolName

ENOUGH = 10.0
CLUSTER: list[Json] = [
    device_class(),
    storage_class(),
    node("n1", rack="r1"),
    node("n2"),
    node_storage("n1", pool(free_bytes=10 * GIB)),
    node_storage("n2", pool(free_bytes=20 * GIB)),
    logical_volume("old", "n1"),
    logical_volume("pvc-b", "n2", phase="Pending", claim="b"),
    logical_volume("s", "n1", kind="snapshot", source={"volume": "old"}),
    persistent_volume("static", handle="old"),
    claim("a", volume="static"),
    claim("b"),
    pod("waits", "b"),
    pod("runs", "a", on="n1"),
    stateful_set("db", 3),
    content("content", of="snap", handle="s"),
]


def resource_of(found: Json) -> Resource:
    return next(each.resource for each in KINDS if each.resource.kind == found["kind"])


def put(server: ApiServer, found: Json) -> None:
    server.put(resource_of(found), found, namespace=found["metadata"].get("namespace", ""))


def free_bytes(view: View, on: str) -> int:
    return view.candidate(on).pools[PoolName("vg0")].free_bytes


def require_known(view: View) -> None:
    """All that is in CLUSTER."""
    with view.changed:
        assert set(view.nodes) == {"n1", "n2"}
        assert view.labels("n1") == {"rack": "r1"}
        assert (free_bytes(view, "n1"), free_bytes(view, "n2")) == (10 * GIB, 19 * GIB), "b is not in its report"
        assert view.claims.keys() == {("default", "a"), ("default", "b")}
        for name, volume in (("a", "old"), ("b", "pvc-b")):
            found = view.order_of(view.claims["default", name])
            assert found is not None
            assert found.id == volume
        assert view.pods.keys() == {("default", "waits")}, "who runs has its claims"
        assert view.stateful_sets == {("default", "db"): 3}
        snapshot = view.snapshot(("default", "snap"))
        assert snapshot is not None
        assert snapshot.id == "s"
        found_class = view.device_class("fast")
        assert found_class is not None
        assert found_class.name == DeviceClassName("fast")


@pytest.fixture
def server() -> ApiServer:
    made = ApiServer()
    for each in CLUSTER:
        put(made, each)
    return made


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
def feeds(server: ApiServer, view: View) -> Iterator[Feeds]:
    made = Feeds(view, Api(server))
    yield made
    made.stop()


def until(view: View, holds: Callable[[], bool]) -> None:
    with view.changed:
        assert view.changed.wait_for(holds, ENOUGH), "it has not come to hold"


# From the API server.


def test_what_the_api_server_has_is_known_once_all_is_listed(view: View, feeds: Feeds) -> None:
    assert not feeds.is_synced
    assert set(feeds.missing) == {each.resource.plural for each in KINDS}
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    assert feeds.is_synced
    require_known(view)


def test_what_comes_and_goes_is_told_to_the_view(server: ApiServer, view: View, feeds: Feeds) -> None:
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    put(server, logical_volume("pvc-b", "n2", claim="b", revision=2))
    until(view, lambda: view.candidate("n2").pools[PoolName("vg0")].free_bytes == 19 * GIB)
    put(server, node_storage("n2", pool(free_bytes=5 * GIB), revision=2))
    until(view, lambda: free_bytes(view, "n2") == 5 * GIB)
    server.remove(NODE_STORAGES, "n1")
    until(view, lambda: "n1" not in view.nodes)
    server.remove(LOGICAL_VOLUMES, "pvc-b")
    until(view, lambda: view.order_of(view.claims["default", "b"]) is None)
    server.remove(CONTENTS, "content")
    until(view, lambda: view.snapshot(("default", "snap")) is None)
    server.remove(STATEFUL_SETS, "db", namespace="default")
    until(view, lambda: not view.stateful_sets)


def test_what_went_while_the_history_was_forgotten_goes_with_the_next_list(
    server: ApiServer, view: View, feeds: Feeds
) -> None:
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    server.go_down()
    for resource, name, namespace in (
        (LOGICAL_VOLUMES, "pvc-b", ""),
        (NODE_STORAGES, "n1", ""),
        (CLAIMS, "b", "default"),
        (PODS, "waits", "default"),
        (PERSISTENT_VOLUMES, "static", ""),
        (CONTENTS, "content", ""),
    ):
        server.remove(resource, name, namespace=namespace)
    server.compact()
    server.is_down = False
    until(view, lambda: set(view.nodes) == {"n2"} and not view.pods and view.claims.keys() == {("default", "a")})
    until(view, lambda: view.order_of(view.claims["default", "a"]) is None)
    until(view, lambda: view.snapshot(("default", "snap")) is None)
    until(view, lambda: free_bytes(view, "n2") == 20 * GIB)


def test_a_list_that_breaks_off_drops_nothing(server: ApiServer, view: View, feeds: Feeds) -> None:
    for number in range(PAGE_OBJECTS + 1):
        put(server, claim(f"many-{number}"))
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    lists = 0

    def break_off(method: str, path: str) -> None:
        nonlocal lists
        if method == "GET" and path.endswith("claims"):
            lists += 1
            if lists == 2:
                raise ApiNotFoundError("the second page is not there", code=404)

    dropped: list[object] = []
    view.on_change(lambda kind, key, found: dropped.append((kind, key)) if found is None else None)
    server.before = break_off
    server.compact()
    server.break_streams()
    put(server, claim("zz-last"))
    until(view, lambda: ("default", "zz-last") in view.claims)
    assert lists >= 4
    assert not dropped


def test_a_pod_is_known_until_it_is_bound(server: ApiServer, view: View, feeds: Feeds) -> None:
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    assert set(view.pods) == {("default", "waits")}
    put(server, pod("waits", "b", on="n2"))
    until(view, lambda: not view.pods)
    put(server, pod("asks for nothing"))
    put(server, pod("next", "b"))
    until(view, lambda: set(view.pods) == {("default", "next")})


def test_snapshots_that_nobody_has_installed_are_not_waited_for_and_found_when_they_come(
    server: ApiServer, view: View, feeds: Feeds, caplog: pytest.LogCaptureFixture
) -> None:
    is_installed = False

    def absent(method: str, path: str) -> None:
        if path == CONTENTS.path() and not is_installed:
            raise ApiNotFoundError(f"{method} {path}: the server could not find the requested resource", code=404)

    server.before = absent
    caplog.set_level(logging.INFO)
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    assert view.snapshot(("default", "snap")) is None
    reader = next(each for each in feeds.readers if each.resource is CONTENTS)
    deadline = time.monotonic() + ENOUGH
    while reader._is_missing and server.reads.count(CONTENTS.path()) == 0 and time.monotonic() < deadline:
        is_installed = len([each for each in caplog.records if each.message.startswith("the API server")]) > 0
        time.sleep(0.01)
    until(view, lambda: view.snapshot(("default", "snap")) is not None)
    told = [each.message for each in caplog.records if each.__dict__.get("resource") == CONTENTS.plural]
    assert told == ["the API server does not serve this kind"]
    is_installed = False
    server.break_streams()
    until(view, lambda: view.snapshot(("default", "snap")) is None)


def test_a_kind_of_ours_that_is_not_installed_is_waited_for(server: ApiServer, feeds: Feeds) -> None:
    def absent(_method: str, path: str) -> None:
        if path == NODE_STORAGES.path():
            raise ApiNotFoundError("the server could not find the requested resource", code=404)

    server.before = absent
    feeds.start()
    assert not feeds.wait_until_synced(1.0)
    assert feeds.missing == (NODE_STORAGES.plural,)


def test_one_object_that_cannot_be_understood_does_not_hide_the_others(
    server: ApiServer, view: View, feeds: Feeds
) -> None:
    put(server, {**logical_volume("odd", "n1"), "spec": {"nodeName": 7}})
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    require_known(view)
    assert sum(each.unreadable for each in feeds.readers) == 1


def test_the_readers_are_measured(feeds: Feeds) -> None:
    feeds.start()
    assert feeds.wait_until_synced(ENOUGH)
    found = {
        (family.name, sample.labels["resource"]): sample.value
        for family in InformerCollector(feeds.readers).collect()
        for sample in family.samples
    }
    assert found["ullage_informer_objects", "persistentvolumeclaims"] == 2
    assert found["ullage_informer_relists", "logicalvolumes"] == 1


# From a file.


def as_list(found: Iterable[Json]) -> Json:
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": list(found)}


def written(folder: Path, text: str) -> str:
    file = folder / "cluster"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(as_list(CLUSTER)),
        yaml.safe_dump(as_list(CLUSTER)),
        yaml.safe_dump_all(CLUSTER),
        json.dumps(as_list([as_list(CLUSTER[:5]), as_list(CLUSTER[5:])])),
    ],
    ids=["json", "yaml", "several documents", "lists in a list"],
)
def test_a_file_says_the_same_as_the_api_server(text: str, view: View, tmp_path: Path) -> None:
    loaded = load(view, written(tmp_path, text))
    require_known(view)
    assert loaded.taken.total() == len(CLUSTER)
    assert not loaded.passed_over


def test_a_list_of_one_kind_says_of_what_it_is(view: View, tmp_path: Path) -> None:
    bare = [{key: each[key] for key in ("metadata", "spec")} for each in CLUSTER if each["kind"] == "Pod"]
    found = {"apiVersion": "v1", "kind": "PodList", "items": bare}
    assert load(view, written(tmp_path, json.dumps(found))) == Loaded(taken=Counter({"Pod": 2}))
    assert view.pods.keys() == {("default", "waits")}


def test_standard_input_is_a_file(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps(as_list(CLUSTER)).encode())

    monkeypatch.setattr(sys, "stdin", Stdin())
    load(view, "-")
    require_known(view)


def test_kinds_that_say_nothing_about_storage_are_passed_over_and_counted(view: View, tmp_path: Path) -> None:
    other = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": []}
    foreign = {**node("n9"), "apiVersion": "example.org/v1"}
    loaded = load(view, written(tmp_path, json.dumps(as_list([other, *CLUSTER, other, foreign, {}]))))
    assert loaded.passed_over == {"Secret": 2, "Node": 1, "an object without a kind": 1}
    assert view.labels("n9") == {}
    require_known(view)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (json.dumps(as_list([{**claim("odd"), "spec": 7}])), "PersistentVolumeClaim default/odd: .*spec"),
        (json.dumps(as_list([device_class("odd", type="nowhere")])), "DeviceClass odd: .*type"),
        (json.dumps(as_list([7])), "no object"),  # type: ignore[list-item]
        ('{"kind": "List", "items": [', "no object"),
        ("kind: [", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("nothing", "no object"),
    ],
)
def test_what_cannot_be_understood_is_named(text: str, sentence: str, view: View, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load(view, written(tmp_path, text))
    assert str(tmp_path) in str(refusal.value)


def test_a_file_that_is_not_there_is_named(view: View, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere: cannot be read: No such file"):
        load(view, str(tmp_path / "nowhere"))


def test_a_saved_cluster_does_not_grow_old(view: View, tmp_path: Path) -> None:
    reports = [
        node_storage("n1", pool(free_bytes=GIB), observed_at="2020-01-01T12:00:00Z"),
        node_storage("n2", pool(free_bytes=GIB), observed_at="2020-01-01T11:00:00Z"),
    ]
    load(view, written(tmp_path, json.dumps(as_list(reports))))
    assert view.candidate("n1").unknown == ""
    assert "last heard of at 2020-01-01T11:00:00Z" in view.candidate("n2").unknown, "when it was saved it was silent"
