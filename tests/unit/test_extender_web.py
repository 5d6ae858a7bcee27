"""The extender over a real socket: what kube-scheduler sends, what it reads, and what is said to everybody else."""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from scheduler_extender.metrics import RequestMetrics
from scheduler_extender.web import LARGE_BODY_BYTES, Explaining, application
from scheduler_extender.wire import Pod
from tests.unit.tls_keys import authority, signed
from ullage import connections
from ullage.connections import TlsFiles
from ullage.errors import InvalidRequestError, NotFoundError, UnavailableError
from ullage.model import Problem
from ullage.serve import HttpServer, Routes, standard_routes

POD = {"metadata": {"name": "db-0", "namespace": "shop", "uid": "u-1"}, "spec": {"volumes": []}}
FULL = "n-full"
FULL_BECAUSE = "nvme: needs 100 GiB, 80 GiB free, 12 GiB promised to default/db-3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    fitting: list[str]
    refused: dict[str, str]


@dataclass(slots=True, kw_only=True)
class Decider:
    """Takes every node but one; or fails."""

    failure: Exception | None = None
    pods: list[Pod] = field(default_factory=list)
    is_short_of_scores: bool = False

    def filter(self, pod: Pod, nodes: Sequence[str]) -> Said:
        self._asked(pod)
        return Said(
            fitting=[node for node in nodes if node != FULL],
            refused={node: FULL_BECAUSE for node in nodes if node == FULL},
        )

    def prioritize(self, pod: Pod, nodes: Sequence[str]) -> list[int]:
        self._asked(pod)
        return [len(node) % 11 for node in nodes][self.is_short_of_scores :]

    def preempt(self, pod: Pod, nodes: Iterable[str]) -> set[str]:
        self._asked(pod)
        return {node for node in nodes if node != FULL}

    def _asked(self, pod: Pod) -> None:
        self.pods.append(pod)
        if self.failure is not None:
            raise self.failure


def explain(namespace: str, name: str, *, as_json: bool) -> str:
    """Knows one Pod."""
    if (namespace, name) != ("shop", "db-0"):
        raise NotFoundError(f"there is no Pod {namespace}/{name} that waits for a node")
    return '{"pod":"db-0"}' if as_json else "db-0 fits nowhere\n"


@dataclass(slots=True, kw_only=True)
class Scene:
    """A server, and a connection to it that is used for everything."""

    decider: Decider
    registry: CollectorRegistry
    client: http.client.HTTPConnection
    problem: Problem | None = None

    def ask(self, path: str, body: object = None, method: str = "POST") -> tuple[int, Any]:
        """Status, and the body as JSON where it is."""
        status, headers, content = self.ask_raw(path, body, method)
        assert headers["Content-Length"] == str(len(content))
        assert "Transfer-Encoding" not in headers
        is_json = headers["Content-Type"] == "application/json"
        return status, msgspec.json.decode(content) if is_json else content.decode()

    def ask_raw(
        self, path: str, body: object = None, method: str = "POST"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        self.client.request(method, path, body if isinstance(body, bytes | None) else msgspec.json.encode(body))
        reply = self.client.getresponse()
        return reply.status, reply.headers, reply.read()


@contextmanager
def served(*, explaining: Explaining | None = explain, body_limit_bytes: int = 64 << 20) -> Iterator[Scene]:
    registry = CollectorRegistry()
    decider = Decider()
    scene: Scene
    app = application(decider, RequestMetrics(registry), problem=lambda: scene.problem, explain=explaining)
    routes = Routes(standard_routes(registry, lambda: scene.problem), beside=app)
    with (
        HttpServer("127.0.0.1:0", routes, body_limit_bytes=body_limit_bytes) as server,
        closing(http.client.HTTPConnection(server.address, timeout=60)) as client,
    ):
        scene = Scene(decider=decider, registry=registry, client=client)
        yield scene


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[Scene]:
    """To stop a server takes half a second."""
    with served() as made:
        yield made


@pytest.fixture
def scene(one_for_all: Scene) -> Scene:
    one_for_all.problem = one_for_all.decider.failure = None
    one_for_all.decider.is_short_of_scores = False
    one_for_all.decider.pods.clear()
    return one_for_all


def by_name(*names: str) -> dict[str, object]:
    return {"Pod": POD, "Nodes": None, "NodeNames": list(names)}


def node(name: str) -> dict[str, object]:
    return {"metadata": {"name": name, "labels": {"a": "b"}}, "spec": {"podCIDR": "10.0.0.0/24"}, "status": {"n": 1}}


def by_node(*names: str) -> dict[str, object]:
    return {"Pod": POD, "Nodes": {"metadata": {}, "items": [node(name) for name in names]}, "NodeNames": None}


# What kube-scheduler asks.


def test_names_are_answered_by_names(scene: Scene) -> None:
    status, said = scene.ask("/filter", by_name("n-1", FULL, "n-2"))
    assert status == 200
    assert said == {"NodeNames": ["n-1", "n-2"], "FailedAndUnresolvableNodes": {FULL: FULL_BECAUSE}}
    assert scene.decider.pods[0].key == ("shop", "db-0")


def test_no_node_at_all_is_an_empty_list_and_not_null(scene: Scene) -> None:
    """Of null kube-scheduler makes what Nodes says, which is nothing, without a reason."""
    assert scene.ask("/filter", by_name(FULL))[1]["NodeNames"] == []


def test_whole_nodes_are_answered_by_whole_nodes_as_they_came(scene: Scene) -> None:
    status, said = scene.ask("/filter", by_node("n-1", FULL, "n-2"))
    assert status == 200
    assert said == {
        "Nodes": {"items": [node("n-1"), node("n-2")]},
        "FailedAndUnresolvableNodes": {FULL: FULL_BECAUSE},
    }


def test_a_pod_is_read_as_kubernetes_writes_it(scene: Scene) -> None:
    template = {"metadata": {"creationTimestamp": None}, "spec": {"storageClassName": "fast", "resources": {}}}
    pod = {
        "metadata": {
            "name": "db-0",
            "namespace": "shop",
            "uid": "u-1",
            "creationTimestamp": None,
            "managedFields": [{"manager": "x", "fieldsV1": {"f:metadata": {}}}],
        },
        "spec": {
            "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "a-db-0"}},
                {"name": "b", "ephemeral": {"volumeClaimTemplate": template}},
                {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
            ],
            "containers": [{"name": "x", "resources": {}}],
        },
        "status": {"phase": "Pending"},
    }
    assert scene.ask("/filter", {"Pod": pod, "NodeNames": ["n-1"]})[0] == 200
    assert [name for name, _ in scene.decider.pods[0].claims] == ["a-db-0", "db-0-b"]


def test_every_node_gets_a_score_by_name(scene: Scene) -> None:
    expected = [{"Host": "n-1", "Score": 3}, {"Host": "n-22", "Score": 4}]
    assert scene.ask("/prioritize", by_name("n-1", "n-22")) == (200, expected)
    assert scene.ask("/prioritize", by_node("n-1", "n-22")) == (200, expected)


def test_victims_are_given_back_by_uid_for_the_nodes_that_are_kept(scene: Scene) -> None:
    victims = {"Pods": [{"UID": "v-1"}, {"UID": "v-2"}], "NumPDBViolations": 1}
    asked = {"Pod": POD, "NodeNameToVictims": None, "NodeNameToMetaVictims": {"n-1": victims, FULL: victims}}
    assert scene.ask("/preempt", asked) == (200, {"NodeNameToMetaVictims": {"n-1": victims}})


def test_victims_that_came_as_whole_pods_are_given_back_by_uid_too(scene: Scene) -> None:
    victims = {"Pods": [{"metadata": {"name": "v", "uid": "v-1"}, "spec": {}}], "NumPDBViolations": 0}
    asked = {"Pod": POD, "NodeNameToVictims": {"n-1": victims, "n-2": None}, "NodeNameToMetaVictims": None}
    assert scene.ask("/preempt", asked) == (
        200,
        {"NodeNameToMetaVictims": {"n-1": {"Pods": [{"UID": "v-1"}], "NumPDBViolations": 0}}},
    )


def test_five_thousand_names_are_answered_over_a_reused_connection(scene: Scene) -> None:
    names = [f"worker-{number:05}.zone-a.cluster.example" for number in range(5000)]
    for _ in range(3):
        assert scene.ask("/filter", by_name(*names))[1]["NodeNames"] == names
        assert len(scene.ask("/prioritize", by_name(*names))[1]) == 5000


def test_one_node_is_answered_many_times_over_one_connection(scene: Scene) -> None:
    scene.ask("/filter", by_name("n-1"))
    assert scene.client.sock is not None
    ours = scene.client.sock.getsockname()
    for _ in range(300):
        assert scene.ask("/filter", by_name("n-1"))[1]["NodeNames"] == ["n-1"]
    assert scene.client.sock.getsockname() == ours


def test_bodies_that_are_large_are_answered_at_the_same_time_all_the_same() -> None:
    padding = "x" * (LARGE_BODY_BYTES + 1)
    body = msgspec.json.encode({"Pod": POD, "NodeNames": ["n-1"], "Padding": padding})
    with served() as scene:
        statuses: list[int] = []

        def ask() -> None:
            with closing(http.client.HTTPConnection(scene.client.host, scene.client.port, timeout=60)) as client:
                client.request("POST", "/filter", body)
                statuses.append(client.getresponse().status)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert statuses == [200, 200, 200]


# What is said to a person.


def test_a_pod_is_explained_for_people_and_for_programs(scene: Scene) -> None:
    assert scene.ask("/explain?pod=shop/db-0", method="GET") == (200, "db-0 fits nowhere\n")
    assert scene.ask("/explain?pod=shop/db-0&output=json", method="GET") == (200, {"pod": "db-0"})


@pytest.mark.parametrize("query", ["", "?pod=db-0", "?pod=/db-0", "?pod=shop/", "?node=a"])
def test_which_pod_is_to_be_explained_has_to_be_said(scene: Scene, query: str) -> None:
    status, said = scene.ask(f"/explain{query}", method="GET")
    assert status == 400
    assert "/explain?pod=NAMESPACE/NAME" in said


def test_a_pod_that_is_not_known_is_not_found(scene: Scene) -> None:
    expected = (404, "there is no Pod shop/db-9 that waits for a node\n")
    assert scene.ask("/explain?pod=shop/db-9", method="GET") == expected


# The table of what goes wrong, row by row.


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/filter", b"", "Input data was truncated"),
        ("/filter", b"{", "Input data was truncated"),
        ("/filter", b"[]", "Expected `object`, got `array`"),
        ("/filter", b"{}", "missing required field `Pod`"),
        ("/filter", b'{"Pod": null, "NodeNames": []}', "Expected `object`, got `null` - at `$.Pod`"),
        ("/filter", b'{"Pod": {}}', "neither NodeNames nor Nodes"),
        ("/filter", b'{"pod": {}, "nodenames": []}', "missing required field `Pod`"),
        ("/filter", b'{"Pod": {}, "NodeNames": "n-1"}', "Expected `array | null`, got `str` - at `$.NodeNames`"),
        ("/filter", b'{"Pod": {}, "NodeNames": [1]}', "Expected `str`, got `int` - at `$.NodeNames[0]`"),
        ("/filter", b'{"Pod": {}, "NodeNames": ["\xff"]}', "can't decode byte 0xff"),
        ("/filter", b'{"Pod": {}, "x": ' + b"[" * 100_000, "recursion depth"),
        ("/filter", b'{"Pod": {}, "Nodes": {"items": [{}]}}', "missing required field `metadata`"),
        ("/filter", b'{"Pod": {}, "Nodes": {"items": [7]}}', "Expected `object`, got `int`"),
        ("/prioritize", b'{"Pod": {}}', "neither NodeNames nor Nodes"),
        ("/prioritize", b"nothing", "invalid character"),
        ("/preempt", b'{"NodeNameToMetaVictims": {}}', "missing required field `Pod`"),
        ("/preempt", b'{"Pod": {}, "NodeNameToMetaVictims": {"n": {"Pods": [{}]}}}', "missing required field `UID`"),
        (
            "/preempt",
            b'{"Pod": {}, "NodeNameToMetaVictims": {"n": {"NumPDBViolations": 99999999999999999999}}}',
            "at `$.NodeNameToMetaVictims[...].NumPDBViolations`",
        ),
    ],
)
def test_a_request_that_cannot_be_read_gets_400_and_the_place_in_it(
    scene: Scene, path: str, body: bytes, sentence: str
) -> None:
    status, said = scene.ask(path, body)
    assert status == 400
    assert sentence in said
    assert said.endswith("\n")
    assert scene.decider.pods == []
    assert scene.ask("/filter", by_name("n-1"))[0] == 200, "the connection is as good as before"


def test_a_request_that_makes_no_sense_gets_400(scene: Scene) -> None:
    scene.decider.failure = InvalidRequestError("spread.ullage.io/cap is 'some'")
    assert scene.ask("/filter", by_name("n-1")) == (400, "spread.ullage.io/cap is 'some'\n")


@pytest.mark.parametrize("path", ["/filter", "/prioritize", "/preempt", "/explain?pod=shop/db-0"])
def test_before_everything_is_known_nothing_is_decided(scene: Scene, path: str) -> None:
    scene.problem = Problem(reason="Starting", message="not all pods yet")
    method = "GET" if path.startswith("/explain") else "POST"
    assert scene.ask(path, by_name("n-1"), method) == (503, "Starting: not all pods yet\n")
    assert scene.ask("/readyz", method="GET") == (503, "Starting: not all pods yet\n")
    assert scene.ask("/healthz", method="GET") == (200, "ok\n")
    assert scene.decider.pods == []
    scene.problem = None
    assert scene.ask(path, by_name("n-1") | {"NodeNameToMetaVictims": {}}, method)[0] == 200


def test_what_cannot_be_known_now_gets_503(scene: Scene) -> None:
    scene.decider.failure = UnavailableError("not now")
    assert scene.ask("/filter", by_name("n-1")) == (503, "not now\n")


def test_a_mistake_of_ours_gets_500_and_its_traceback_is_in_the_log(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.decider.failure = KeyError("a secret")
    with caplog.at_level(logging.ERROR, "scheduler_extender.web"):
        assert scene.ask("/filter", by_name("n-1")) == (500, "failed; the reason is in the log\n")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is scene.decider.failure
    scene.decider.failure = None
    assert scene.ask("/filter", by_name("n-1"))[0] == 200


def test_scores_for_fewer_nodes_than_were_asked_about_are_never_sent(scene: Scene) -> None:
    scene.decider.is_short_of_scores = True
    assert scene.ask("/prioritize", by_name("n-1", "n-2"))[0] == 500


def test_a_body_without_a_length_gets_411(scene: Scene) -> None:
    scene.client.request("POST", "/filter", iter([b"{}"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    reply = scene.client.getresponse()
    assert (reply.status, reply.read().decode().partition(":")[0]) == (411, "the body needs a Content-Length")


def test_a_body_that_is_too_large_gets_413_and_the_numbers() -> None:
    with served(body_limit_bytes=1000) as scene:
        status, said = scene.ask("/filter", b"x" * 1001)
    assert (status, said) == (413, "the body has 1001 bytes, 1000 are the most\n")


def test_a_body_that_does_not_come_in_time_gets_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.2)
    with served() as scene:
        host, port = scene.client.host, scene.client.port
        with socket.create_connection((host, port), timeout=10) as client:
            client.sendall(b'POST /filter HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{"Pod":')
            answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"the body did not come in time\n")


def test_a_path_or_a_method_that_is_not_there_is_said_so(scene: Scene) -> None:
    status, said = scene.ask("/filters", b"{}")
    assert (status, said) == (404, "nothing here; there is /explain, /filter, /preempt, /prioritize\n")
    status, headers, content = scene.ask_raw("/filter", method="GET")
    assert (status, headers["Allow"], content) == (405, "POST", b"only POST\n")
    assert scene.ask_raw("/filter", method="OPTIONS")[0] == 405


def test_what_is_not_offered_is_not_there() -> None:
    with served(explaining=None) as scene:
        assert scene.ask("/explain?pod=a/b", method="GET")[0] == 404
        assert scene.ask("/mutate", b"{}")[0] == 404


# Whoever else sends something.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
pods = st.fixed_dictionaries(
    {},
    optional={
        "metadata": values | st.fixed_dictionaries({}, optional={"name": values, "labels": values, "uid": values}),
        "spec": values | st.fixed_dictionaries({}, optional={"volumes": values, "nodeName": values}),
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "Pod": values | pods,
        "Nodes": values | st.fixed_dictionaries({"items": values}),
        "NodeNames": values | st.lists(st.text(), max_size=4),
        "NodeNameToVictims": values | st.dictionaries(st.text(), values, max_size=2),
        "NodeNameToMetaVictims": values | st.dictionaries(st.text(), values, max_size=2),
    },
)
bodies = st.binary(max_size=60) | requests.map(lambda each: msgspec.json.encode(as_far_as_json_goes(each)))


def as_far_as_json_goes(value: object) -> object:
    """Without what has no form in JSON: lone surrogates, and numbers without end."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case int() if abs(value) >= 1 << 63:
            return 0
        case list():
            return [as_far_as_json_goes(each) for each in value]
        case Mapping():
            return {as_far_as_json_goes(key): as_far_as_json_goes(each) for key, each in value.items()}
        case _:
            return value


@settings(max_examples=100, deadline=None)
@given(path=st.sampled_from(["/filter", "/prioritize", "/preempt"]), body=bodies)
def test_whatever_is_sent_is_either_answered_or_refused_with_a_sentence(
    one_for_all: Scene, path: str, body: bytes
) -> None:
    status, said = one_for_all.ask(path, body)
    assert status in {200, 400}
    if status == 400:
        assert said.strip()
    elif path == "/filter":
        assert ("NodeNames" in said) != ("Nodes" in said)


# Certificates, and what is measured.


def test_with_an_authority_for_clients_only_those_it_has_signed_are_answered(tmp_path: Path) -> None:
    ours = authority(tmp_path, "ours")
    server_pair, client_pair = signed(tmp_path, "server", ours), signed(tmp_path, "client", ours)
    files = TlsFiles(certificate=server_pair.certificate, key=server_pair.key, client_authority=ours.certificate)
    registry = CollectorRegistry()
    app = application(
        Decider(),
        RequestMetrics(registry),
        problem=lambda: None,
        explain=explain,
        mutate=lambda body: body,
        needs_certificate=True,
    )
    routes = Routes(standard_routes(registry, lambda: None), beside=app)
    with HttpServer("127.0.0.1:0", routes, tls=files) as server:
        by_client: dict[bool, Callable[[str, str], int]] = {}
        for is_signed in (False, True):
            context = tls_context(ours.certificate)
            if is_signed:
                context.load_cert_chain(client_pair.certificate, client_pair.key)
            by_client[is_signed] = status_of(server.address, context)
        for method, path in (("POST", "/filter"), ("POST", "/prioritize"), ("GET", "/explain?pod=shop/db-0")):
            assert by_client[False](method, path) == 403
            assert by_client[True](method, path) == 200
        for method, path in (("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("POST", "/mutate")):
            assert by_client[False](method, path) == 200


def tls_context(trusted: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(trusted))


def status_of(address: str, context: ssl.SSLContext) -> Callable[[str, str], int]:
    def ask(method: str, path: str) -> int:
        with closing(http.client.HTTPSConnection(address, timeout=30, context=context)) as client:
            client.request(method, path, msgspec.json.encode(by_name("n-1")))
            return client.getresponse().status

    return ask


def test_what_is_asked_and_refused_is_counted() -> None:
    with served() as scene:
        scene.ask("/filter", by_name("n-1", FULL))
        scene.ask("/filter", by_name(FULL))
        scene.ask("/filter", b"{}")
        scene.ask("/prioritize", by_name("n-1"))
    sample = scene.registry.get_sample_value
    assert sample("ullage_extender_request_seconds_count", {"verb": "filter", "code": "200"}) == 2
    assert sample("ullage_extender_request_seconds_count", {"verb": "filter", "code": "400"}) == 1
    assert sample("ullage_extender_request_seconds_count", {"verb": "prioritize", "code": "200"}) == 1
    assert sample("ullage_extender_candidates_sum", {"verb": "filter"}) == 3
    assert sample("ullage_extender_refusals_total", {"reason": "promised"}) == 2
    assert sample("ullage_extender_unplaced_total") == 1
