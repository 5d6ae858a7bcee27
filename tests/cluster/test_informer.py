"""The informer at a real API server that is killed, restarted, stopped and made to forget."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.rigs.cluster.control_plane import API_SERVER, ETCD, ControlPlane
from ullage.errors import ApiUnavailableError
from ullage.kube.api import PAGE_OBJECTS, Api
from ullage.kube.connection import JSON, Connection, Endable, connect
from ullage.kube.informer import Informer
from ullage.kube.meta import LEASES, Meta, Resource
from ullage.kube.reader import SILENCE_SECONDS

ENOUGH = 60.0
THINGS = Resource(group="example.org", version="v1", plural="things", kind="Thing", is_namespaced=True)
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SPACE = "default"


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    node: str = ""
    size: int = 0


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Meta
    spec: Spec = Spec()


def definition() -> dict[str, Any]:
    fields = {"node": {"type": "string"}, "size": {"type": "integer"}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}
    return {
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org",
            "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "selectableFields": [{"jsonPath": ".spec.node"}],
                }
            ],
        },
    }


@dataclass
class Wire:
    """The real connection, which a test can cut: nothing goes through, and what is open breaks off."""

    connection: Connection
    silence_seconds: float | None = None
    """Instead of what the caller would wait."""
    is_cut: bool = False
    asked: list[Mapping[str, str]] = field(default_factory=list)
    _streams: list[Endable] = field(default_factory=list)

    def request(  # noqa: PLR0913 - the port's
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        timeout_seconds: float,
    ) -> bytes:
        self._check()
        self.asked.append(query)
        return self.connection.request(
            method, path, query, body, content_type=content_type, timeout_seconds=timeout_seconds
        )

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        self._check()
        self.asked.append(query)
        with self.connection.lines(path, query, silence_seconds=self.silence_seconds or silence_seconds) as lines:
            assert isinstance(lines, Endable)
            self._streams.append(lines)
            if self.is_cut:
                lines.end()
            yield lines

    def cut(self) -> None:
        self.is_cut = True
        for each in self._streams:
            each.end()
        self._streams.clear()

    def _check(self) -> None:
        if self.is_cut:
            raise ApiUnavailableError("the wire is cut")


@pytest.fixture(scope="module")
def plane(api_only: ControlPlane) -> ControlPlane:
    api = api_only.api()
    api.create(CRDS, definition())
    api.until(f"{CRDS}/things.example.org", is_established)
    return api_only


def is_established(crd: dict[str, Any]) -> bool:
    conditions = crd.get("status", {}).get("conditions") or []  # null at first
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@pytest.fixture
def wire(plane: ControlPlane) -> Wire:
    return Wire(connect(plane.kubeconfig))


@pytest.fixture
def api(plane: ControlPlane) -> Iterator[Api]:
    """Another client than the informer's; what it has made is removed."""
    made = Api(connect(plane.kubeconfig))
    yield made
    for name in names(made):
        made.delete(THINGS, name, namespace=SPACE)


@pytest.fixture
def things(wire: Wire) -> Iterator[Informer[Thing]]:
    made = Informer(Api(wire), THINGS, Thing, indexes={"node": lambda each: [each.spec.node]})
    yield made
    made.stop()


def make(api: Api, name: str, *, node: str = "n1", size: int = 1) -> bytes:
    body = {
        "apiVersion": THINGS.api_version,
        "kind": THINGS.kind,
        "metadata": {"name": name},
        "spec": {"node": node, "size": size},
    }
    return api.create(THINGS, body, namespace=SPACE)


def names(api: Api) -> set[str]:
    class Listed(msgspec.Struct):
        items: list[Thing]

    listed = msgspec.json.decode(api.page(THINGS, namespace=SPACE), type=Listed)
    return {each.metadata.name for each in listed.items}


def known(things: Informer[Thing]) -> set[str]:
    return {each.metadata.name for each in things.all()}


def wait(things: Informer[Thing], name: str, until: Callable[[Thing | None], bool]) -> Thing | None:
    found = things.wait(name, until, ENOUGH, namespace=SPACE)
    assert until(found)
    return found


def is_there(found: Thing | None) -> bool:
    return found is not None


def is_gone(found: Thing | None) -> bool:
    return found is None


def test_changes_come_as_they_are_made(api: Api, things: Informer[Thing]) -> None:
    make(api, "before")
    things.start()
    assert things.wait_until_synced(ENOUGH)
    make(api, "after", node="n2")
    wait(things, "after", is_there)
    api.patch(THINGS, "after", {"spec": {"node": "n3"}}, namespace=SPACE)
    wait(things, "after", lambda found: found is not None and found.spec.node == "n3")
    assert (things.by_index("node", "n2"), len(things.by_index("node", "n3"))) == ((), 1)
    api.delete(THINGS, "before", namespace=SPACE)
    wait(things, "before", is_gone)
    assert known(things) == {"after"}
    assert (things.relists, things.watches) == (1, 1)


def test_what_leaves_a_field_selector_is_gone_and_other_nodes_objects_are_not_heard_of(wire: Wire, api: Api) -> None:
    mine = Informer(Api(wire), THINGS, Thing, field_selector="spec.node=n1")
    make(api, "mine")
    make(api, "other", node="n2")
    mine.start()
    assert mine.wait_until_synced(ENOUGH)
    assert known(mine) == {"mine"}
    for number in range(20):
        make(api, f"other-{number}", node="n2")
    api.patch(THINGS, "mine", {"spec": {"node": "n2"}}, namespace=SPACE)
    wait(mine, "mine", is_gone)
    assert mine.events == 1
    mine.stop()


def test_an_answer_is_known_before_the_watch_tells_it_and_is_not_told_twice(
    wire: Wire, api: Api, things: Informer[Thing]
) -> None:
    told: list[tuple[int | None, int | None]] = []
    things.on_change(
        lambda before, after: told.append((before.spec.size if before else None, after.spec.size if after else None))
    )
    things.start()
    assert things.wait_until_synced(ENOUGH)
    things.learn(make(Api(wire), "mine", size=0))
    for size in range(1, 21):
        things.learn(Api(wire).patch(THINGS, "mine", {"spec": {"size": size}}, namespace=SPACE))
        found = things.get("mine", SPACE)
        assert found is not None
        assert found.spec.size == size
    make(api, "last", size=99)
    wait(things, "last", is_there)
    api.delete(THINGS, "last", namespace=SPACE)
    wait(things, "last", is_gone)
    api.delete(THINGS, "mine", namespace=SPACE)
    wait(things, "mine", is_gone)
    ends = [(None, 99), (99, None), (20, None)]
    assert [each for each in told if each not in ends] == [(None, 0), *((size, size + 1) for size in range(20))]


@pytest.mark.parametrize("name", [API_SERVER, ETCD])
def test_it_outlives_a_kill(name: str, plane: ControlPlane, api: Api, things: Informer[Thing]) -> None:
    things.start()
    assert things.wait_until_synced(ENOUGH)
    for number in range(3):
        make(api, f"old-{number}")
        plane.kill(name)
        assert things.is_synced
        plane.start(name)
        again(partial(make, api, f"new-{number}"))
        again(partial(api.delete, THINGS, f"old-{number}", namespace=SPACE))
        wait(things, f"new-{number}", is_there)
        wait(things, f"old-{number}", is_gone)
        assert known(things) == names(api)


def again(call: Callable[[], object]) -> None:
    """A server that has just come back may still refuse a first call."""
    for _ in range(100):
        try:
            call()
        except ApiUnavailableError:
            threading.Event().wait(0.1)
        else:
            return
    raise AssertionError("it does not come back")


def test_what_was_deleted_while_the_history_was_compacted_away_is_told_as_removed(
    plane: ControlPlane, wire: Wire, api: Api, things: Informer[Thing]
) -> None:
    removed: list[str] = []
    things.on_change(lambda before, after: removed.append(before.metadata.name) if before and not after else None)
    for name in ("kept", "lost"):
        make(api, name)
    things.start()
    assert things.wait_until_synced(ENOUGH)
    wire.cut()
    api.delete(THINGS, "lost", namespace=SPACE)
    make(api, "new")
    plane.compact()
    plane.restart(API_SERVER)
    assert known(things) == {"kept", "lost"}, "what was known stays"
    wire.is_cut = False
    wait(things, "lost", is_gone)
    assert known(things) == {"kept", "new"}
    assert things.relists == 2
    again(lambda: make(api, "last"))
    wait(things, "last", is_there)
    assert removed == ["lost"]


def test_a_watch_that_etcd_itself_calls_compacted_is_followed_by_a_list(tmp_path: Path) -> None:
    """Without the API server's own memory of the past, which hides etcd's."""
    with ControlPlane(tmp_path / "plane", only_api=True, api_flags=["--watch-cache=false"]) as plane:
        wire, api = Wire(connect(plane.kubeconfig)), Api(connect(plane.kubeconfig))
        leases = Informer(Api(wire), LEASES, Thing, namespace=SPACE, label_selector="app=x")
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        api.create(LEASES, {**body, "metadata": {"name": "lost", "labels": {"app": "x"}}}, namespace=SPACE)
        leases.start()
        assert leases.wait_until_synced(ENOUGH)
        wire.cut()
        api.delete(LEASES, "lost", namespace=SPACE)
        api.create(LEASES, {**body, "metadata": {"name": "new", "labels": {"app": "x"}}}, namespace=SPACE)
        plane.compact()
        wire.is_cut = False
        wait(leases, "lost", is_gone)
        wait(leases, "new", is_there)
        assert leases.relists == 2
        leases.stop()


def test_an_etcd_that_was_restored_from_a_backup_is_believed(tmp_path: Path) -> None:
    """A watch from a version that is still to come says nothing, for ever: seen with the real server."""
    with ControlPlane(tmp_path / "plane", only_api=True) as plane:
        plane.api().create(CRDS, definition())
        plane.api().until(f"{CRDS}/things.example.org", is_established)
        api = Api(connect(plane.kubeconfig))
        make_backup, restore = partial(carry, plane, "etcd", "backup"), partial(carry, plane, "backup", "etcd")
        again(partial(make, api, "old"))
        make_backup()
        for number in range(50):
            again(partial(make, api, f"lost-{number}"))
        api.delete(THINGS, "old", namespace=SPACE)
        wire = Wire(connect(plane.kubeconfig), silence_seconds=2.0)
        things = Informer(Api(wire), THINGS, Thing, clock=lambda: time.monotonic() * SILENCE_SECONDS)
        things.start()
        assert things.wait_until_synced(ENOUGH)
        assert len(things) == 50
        restore()
        again(partial(make, api, "new"))
        wait(things, "new", is_there)
        assert known(things) == {"old", "new"}
        things.stop()


def carry(plane: ControlPlane, source: str, target: str) -> None:
    """With both programs stopped."""
    plane.stop(API_SERVER)
    plane.stop(ETCD)
    shutil.rmtree(plane.folder / target, ignore_errors=True)
    shutil.copytree(plane.folder / source, plane.folder / target)
    plane.start(ETCD)
    plane.start(API_SERVER)


def test_a_server_that_hangs_is_given_up_and_caught_up_with(
    plane: ControlPlane, wire: Wire, api: Api, things: Informer[Thing]
) -> None:
    wire.silence_seconds = 2.0
    things.start()
    assert things.wait_until_synced(ENOUGH)
    watches = things.watches
    plane.process(API_SERVER).signal(signal.SIGSTOP)
    try:
        while things.watches == watches:  # the half-open one is given up
            threading.Event().wait(0.1)
    finally:
        plane.process(API_SERVER).signal(signal.SIGCONT)
    again(lambda: make(api, "after"))
    wait(things, "after", is_there)


def test_a_watch_over_tls_is_stopped_while_it_says_nothing(things: Informer[Thing]) -> None:
    things.start()
    assert things.wait_until_synced(ENOUGH)
    while not things.watches:
        threading.Event().wait(0.05)
    things.stop()
    assert not [each for each in threading.enumerate() if each.name.startswith("informer-things")]


def test_many_objects_come_in_pages(wire: Wire, api: Api, things: Informer[Thing]) -> None:
    for number in range(2 * PAGE_OBJECTS + 1):
        make(api, f"t{number}")
    things.start()
    assert things.wait_until_synced(ENOUGH)
    assert len(things) == 2 * PAGE_OBJECTS + 1
    assert len([each for each in wire.asked if "limit" in each]) == 3
    api.delete(THINGS, "t7", namespace=SPACE)
    wait(things, "t7", is_gone)
    things.stop()
    for name in known(things):
        api.delete(THINGS, name, namespace=SPACE)
