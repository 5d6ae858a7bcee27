"""The HTTP server, over real sockets."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from ullage import connections
from ullage.connections import Connection
from ullage.errors import MIB, ConfigError
from ullage.model import Problem
from ullage.serve import IDLE_SECONDS, THREADS, HttpServer, Reply, Routes, _Server, standard_routes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Readiness:
    def __init__(self) -> None:
        self.problem: Problem | None = None

    def __call__(self) -> Problem | None:
        return self.problem


def broken() -> Reply:
    raise ValueError("out of luck")


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Any other WSGI application: says what it was asked for."""
    body = environ["wsgi.input"].read() + f" {environ['REQUEST_METHOD']} {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def ready() -> Readiness:
    return Readiness()


@pytest.fixture(scope="module")
def address(ready: Readiness) -> Iterator[str]:
    registry = CollectorRegistry()
    Gauge("ullage_example_bytes", "An example.", registry=registry).set(7)
    routes = {**standard_routes(registry, ready), "/broken": broken}
    with HttpServer("127.0.0.1:0", Routes(routes)) as server:
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        yield connection


def ask(
    client: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None
) -> tuple[int, http.client.HTTPMessage, str]:
    client.request(method, path, body)
    reply = client.getresponse()
    return reply.status, reply.headers, reply.read().decode()


def test_a_living_process_is_healthy(client: http.client.HTTPConnection) -> None:
    status, headers, body = ask(client, "/healthz")
    assert (status, body) == (200, "ok\n")
    assert headers["Content-Length"] == "3"
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Server"] == "ullage"
    assert "Transfer-Encoding" not in headers


def test_readiness_says_why_not(client: http.client.HTTPConnection, ready: Readiness) -> None:
    assert ask(client, "/readyz")[0] == 200
    ready.problem = Problem(reason="FirstReportMissing", message="no report of vg0 yet – 3 s")
    try:
        status, _, body = ask(client, "/readyz")
    finally:
        ready.problem = None
    assert (status, body) == (503, "FirstReportMissing: no report of vg0 yet – 3 s\n")
    assert ask(client, "/readyz")[0] == 200


def test_metrics_are_in_the_format_that_their_content_type_names(client: http.client.HTTPConnection) -> None:
    status, headers, body = ask(client, "/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert [family.name for family in text_string_to_metric_families(body)] == ["ullage_example_bytes"]


def test_a_query_does_not_change_the_path(client: http.client.HTTPConnection) -> None:
    assert ask(client, "/healthz?verbose")[0] == 200


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/nowhere", "/broken"])
def test_head_is_get_without_the_body(client: http.client.HTTPConnection, path: str) -> None:
    status, _, body = ask(client, path)
    assert ask(client, path, "HEAD")[2] == ""
    head_status, headers, _ = ask(client, path, "HEAD")
    assert (head_status, headers["Content-Length"]) == (status, str(len(body)))
    assert ask(client, "/healthz")[2] == "ok\n", "no stray body is left on the connection"


def test_an_unknown_path_is_answered_with_the_known_ones(client: http.client.HTTPConnection) -> None:
    status, _, body = ask(client, "/metric")
    assert (status, body) == (404, "nothing here; there is /broken, /healthz, /metrics, /readyz\n")


def test_a_wrong_method_is_answered_with_the_right_ones(client: http.client.HTTPConnection) -> None:
    status, headers, _ = ask(client, "/healthz", "POST", b"a body that nobody reads")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert ask(client, "/healthz")[0] == 200


def test_a_route_that_raises_is_a_500_and_a_traceback_in_the_log(
    client: http.client.HTTPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "ullage.serve"):
        status, _, body = ask(client, "/broken")
    assert (status, body) == (500, "failed; the reason is in the log\n")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "out of luck"
    assert ask(client, "/healthz")[0] == 200


def test_a_connection_is_reused_and_its_replies_never_wait_for_an_ack(client: http.client.HTTPConnection) -> None:
    """Head and body leave in two writes; only TCP_NODELAY keeps the second from waiting 40 ms for the first's ACK."""
    ask(client, "/healthz")
    assert client.sock is not None
    ours = client.sock.getsockname()
    ask(client, "/healthz")
    assert client.sock.getsockname() == ours
    (option,) = options_of_connection_from(ours)
    assert option != 0


def options_of_connection_from(client_address: object) -> Iterator[int]:
    """TCP_NODELAY of this process's end of the connection: the server is in this process."""
    for entry in Path("/proc/self/fd").iterdir():
        if not (os.path.lexists(entry) and str(entry.readlink()).startswith("socket:")):
            continue
        with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as copy:
            if copy.getpeername() == client_address:
                yield copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_silent_connections_do_not_keep_others_waiting(address: str, client: http.client.HTTPConnection) -> None:
    host, _, port = address.rpartition(":")
    with ExitStack() as silent:
        for _ in range(THREADS + 1):
            silent.enter_context(socket.create_connection((host, int(port))))
        assert ask(client, "/healthz")[0] == 200


def test_an_idle_connection_outlives_the_schedulers() -> None:
    assert IDLE_SECONDS > 90


def test_another_application_is_served_beside_the_routes(ready: Readiness) -> None:
    routes = Routes(standard_routes(CollectorRegistry(), ready), beside=application)
    with (
        HttpServer("127.0.0.1:0", routes) as server,
        closing(http.client.HTTPConnection(server.address, timeout=10)) as client,
    ):
        assert ask(client, "/filter", "POST", b"nodes")[2] == "nodes POST /filter"
        assert ask(client, "/healthz")[2] == "ok\n"
        assert ask(client, "/healthz", "POST", b"nodes")[0] == 405


def test_a_body_beyond_the_limit_is_refused() -> None:
    with (
        HttpServer("127.0.0.1:0", application, body_limit_bytes=10) as server,
        closing(http.client.HTTPConnection(server.address, timeout=10)) as client,
    ):
        assert ask(client, "/", "POST", b"ten bytes.")[0] == 200
        status, headers, body = ask(client, "/", "POST", b"ten bytes and more")
        assert (status, body) == (413, "the body has 18 bytes, 10 are the most\n")
        assert headers["Connection"] == "close"


def test_who_sends_far_too_much_reads_why_all_the_same() -> None:
    """A server that closes at once has its answer thrown away by the client's own kernel."""
    with HttpServer("127.0.0.1:0", application, body_limit_bytes=10) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n")
            for _ in range(8):
                client.sendall(b"x" * MIB)
            answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"the body has 8388608 bytes, 10 are the most\n")


class RecordedSocket(socket.socket):
    """Says what was given to the kernel in one go."""

    def __init__(self, of: socket.socket) -> None:
        super().__init__(of.family, of.type, of.proto, of.detach())
        self.writes: list[bytes] = []

    def sendall(self, content: ReadableBuffer, flags: int = 0) -> None:
        self.writes.append(bytes(content))
        super().sendall(content, flags)


def test_a_reply_leaves_in_one_write() -> None:
    """Head and body together: a client is woken once, and nothing waits for the acknowledgement of a first part."""
    near, far = socket.socketpair()
    with RecordedSocket(near) as ours, far:
        far.sendall(b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nnodes")
        Connection(_Server(("127.0.0.1", 0), application, 1), ours).communicate()
        (reply,) = ours.writes
    assert reply.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n")
    assert reply.endswith(b"\r\n\r\nnodes POST /a")


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    with HttpServer("127.0.0.1:0", application) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(b"POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
            assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.sendall(b"nodes")
            assert client.recv(1000).endswith(b"nodes POST /a")


def test_requests_that_come_together_are_all_answered() -> None:
    """What was read beyond the first is here already: no selector tells of it."""
    with HttpServer("127.0.0.1:0", application) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as client:
            one = b"POST /%d HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
            client.sendall(b"".join(one % number for number in range(20)))
            received = b""
            while b"POST /19" not in received:
                received += client.recv(1 << 16)
    assert received.count(b"HTTP/1.1 200 OK") == 20


def says_its_thread(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "16")])
    return [threading.current_thread().name[-16:].rjust(16).encode()]


def test_a_request_on_the_heels_of_a_reply_stays_with_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEELS_SECONDS", 10.0)
    with (
        HttpServer("127.0.0.1:0", says_its_thread) as server,
        closing(http.client.HTTPConnection(server.address, timeout=10)) as client,
    ):
        assert len({ask(client, "/")[2] for _ in range(8)}) == 1


def test_who_never_ceases_to_ask_does_not_keep_others_waiting() -> None:
    """As many as there are threads send everything at once; one more is answered before they have got half of it."""
    asked: list[str] = []

    def counts(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        time.sleep(0.002)
        asked.append(environ["PATH_INFO"])
        return says_its_thread(environ, start_response)

    many = 1000
    with HttpServer("127.0.0.1:0", counts) as server, ExitStack() as hot:
        host, _, port = server.address.rpartition(":")
        for _ in range(THREADS):
            busy = hot.enter_context(socket.create_connection((host, int(port)), timeout=10))
            busy.sendall(b"GET /busy HTTP/1.1\r\nHost: h\r\n\r\n" * many)
            assert busy.recv(4)
        with closing(http.client.HTTPConnection(server.address, timeout=10)) as client:
            assert ask(client, "/other")[0] == 200
        assert asked.count("/busy") < many * THREADS / 2


def test_a_body_that_nobody_read_is_never_taken_for_a_request(client: http.client.HTTPConnection) -> None:
    inner = b"GET /broken HTTP/1.1\r\nHost: h\r\n\r\n"
    client.request("GET", "/healthz", inner)
    assert client.getresponse().read() == b"ok\n"
    assert ask(client, "/healthz")[0] == 200
    client.request("GET", "/healthz", iter([inner]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    answer = client.getresponse()
    assert (answer.headers["Connection"], answer.read()) == ("close", b"ok\n")
    assert ask(client, "/healthz")[0] == 200


def test_a_connection_serves_many_requests(client: http.client.HTTPConnection) -> None:
    ask(client, "/healthz")
    assert client.sock is not None
    ours = client.sock.getsockname()
    assert {ask(client, "/healthz")[0] for _ in range(1000)} == {200}
    assert client.sock.getsockname() == ours


def test_a_request_that_does_not_come_in_time_frees_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that comes byte by byte: the limit is of the request, not of its pauses."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.3)
    with HttpServer("127.0.0.1:0", application, threads=1) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")
            is_ended = threading.Event()

            def drip() -> None:
                with suppress(OSError):
                    while not is_ended.wait(0.02):
                        slow.sendall(b"x")

            dripping = threading.Thread(target=drip)
            dripping.start()
            with closing(http.client.HTTPConnection(server.address, timeout=10)) as client:
                assert ask(client, "/")[0] == 200
            is_ended.set()
            dripping.join()


def test_what_the_server_says_of_an_application_goes_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def raises(_environ: WSGIEnvironment, _start_response: StartResponse) -> Iterable[bytes]:
        raise ValueError("not caught by the application")

    with (
        caplog.at_level(logging.ERROR, "ullage.serve"),
        HttpServer("127.0.0.1:0", raises) as server,
        closing(http.client.HTTPConnection(server.address, timeout=10)) as client,
    ):
        assert ask(client, "/")[0] == 500
    assert "not caught by the application" in caplog.text


def test_stopping_closes_idle_connections_and_joins_every_thread() -> None:
    before = set(threading.enumerate())
    server = HttpServer("127.0.0.1:0", application)
    server.start()
    assert f"http {server.address}" in {thread.name for thread in threading.enumerate()}
    with closing(http.client.HTTPConnection(server.address, timeout=10)) as client:
        assert ask(client, "/")[0] == 200
        assert client.sock is not None
        server.stop()
        assert client.sock.recv(1) == b""
    assert set(threading.enumerate()) == before
    server.stop()


def test_stopping_right_after_starting_is_clean() -> None:
    for _ in range(3):
        HttpServer("127.0.0.1:0", application).__enter__().stop()


def test_a_server_can_be_started_again() -> None:
    server = HttpServer("127.0.0.1:0", application)
    for _ in range(2):
        with server, closing(http.client.HTTPConnection(server.address, timeout=10)) as client:
            assert ask(client, "/")[0] == 200
        assert server.address == "127.0.0.1:0"


def test_starting_twice_is_a_mistake_of_ours() -> None:
    with HttpServer("127.0.0.1:0", application) as server, pytest.raises(RuntimeError):
        server.start()


def test_port_0_takes_a_free_port_on_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with HttpServer("[::1]:0", application) as server:
        assert server.address.startswith("[::1]:")
        port = int(server.address.rpartition(":")[2])
        assert port > 0
        with closing(http.client.HTTPConnection("::1", port, timeout=10)) as client:
            assert ask(client, "/")[0] == 200


def test_a_port_in_use_is_a_configuration_error_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = HttpServer(address, application)
        with pytest.raises(ConfigError, match=f"cannot listen on {address}: Address already in use"):
            server.start()
    with server:
        assert server.address == address


def test_a_socket_that_systemd_passed_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    with pytest.raises(ConfigError, match="LISTEN_PID"):
        HttpServer("127.0.0.1:0", application).start()


@pytest.mark.parametrize(
    "address", ["9252", ":9252", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "::1:9252", "h:65536"]
)
def test_what_is_no_address_is_refused_before_anything_is_bound(address: str) -> None:
    with pytest.raises(ConfigError, match="no address to listen on"):
        HttpServer(address, application)


def test_a_status_of_a_reply_is_its_own() -> None:
    teapot = Reply(status=HTTPStatus.IM_A_TEAPOT, body=b"")
    with (
        HttpServer("127.0.0.1:0", Routes({"/tea": lambda: teapot})) as server,
        closing(http.client.HTTPConnection(server.address, timeout=10)) as client,
    ):
        assert ask(client, "/tea")[0] == 418
