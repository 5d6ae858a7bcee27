"""The real connection to a real HTTP server on loopback that behaves badly."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from kubernetes.client import Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader

from ullage.errors import ApiForbiddenError, ApiGoneError, ApiUnavailableError
from ullage.kube.connection import Connection, Lines, connect

ENOUGH = 10.0
PATH = "/apis/example.org/v1/things"

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.authorizations.append(self.headers.get("Authorization", ""))
        self.server.connections.add(self.client_address[1])
        self.server.answer(self)

    def begin(self, code: int = 200, length: int | None = None) -> None:
        """Without a length, in chunks."""
        self.send_response(code)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.flush()

    def chunk(self, piece: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.flush()

    def hang(self) -> None:
        """The client hears nothing, not even an end."""
        self.close_connection = True
        self.server.goes_on.wait(ENOUGH)

    def break_off(self) -> None:
        self.close_connection = True

    def say(self, code: int, body: bytes) -> None:
        self.begin(code, len(body))
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = lambda handler: handler.say(200, b"{}")
        self.authorizations: list[str] = []
        self.connections: set[int] = set()
        self.goes_on = threading.Event()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, name="server")
        thread.start()
        yield made
        made.goes_on.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def connection(server: Server, tmp_path: Path) -> Connection:
    return connect(kubeconfig(tmp_path, f"http://127.0.0.1:{server.server_port}", "secret"))


def kubeconfig(folder: Path, address: str, token: str) -> Path:
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def get(connection: Connection, timeout_seconds: float = ENOUGH) -> bytes:
    return connection.request("GET", PATH, {}, timeout_seconds=timeout_seconds)


def follow(connection: Connection, seen: list[bytes], silence_seconds: float = ENOUGH) -> None:
    """All lines that come."""
    with connection.lines(PATH, {"watch": "1"}, silence_seconds=silence_seconds) as lines:
        for line in lines:
            seen.append(line)  # noqa: PERF402 - what came before it breaks off counts


def test_the_token_is_sent_and_one_connection_serves_many_requests(server: Server, connection: Connection) -> None:
    for _ in range(3):
        assert get(connection) == b"{}"
    assert server.authorizations == ["Bearer secret"] * 3
    assert len(server.connections) == 1


def test_a_server_that_does_not_answer_is_not_waited_for(server: Server, connection: Connection) -> None:
    server.answer = Handler.hang
    with pytest.raises(ApiUnavailableError, match="no answer in time"):
        get(connection, 0.1)


def test_a_server_that_stops_in_the_middle_of_an_answer_is_not_waited_for(
    server: Server, connection: Connection
) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(length=100)
        handler.wfile.write(b"{")
        handler.hang()

    server.answer = answer
    with pytest.raises(ApiUnavailableError, match="no answer in time"):
        get(connection, 0.1)


def test_half_an_answer_is_none(server: Server, connection: Connection) -> None:
    def answer(handler: Handler) -> None:
        handler.begin(length=100)
        handler.wfile.write(b"{}")
        handler.break_off()

    server.answer = answer
    with pytest.raises(ApiUnavailableError):
        get(connection)


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with Server() as server:
        port = server.server_port
    with pytest.raises(ApiUnavailableError, match="cannot be reached"):
        get(connect(kubeconfig(tmp_path, f"http://127.0.0.1:{port}", "secret")))


@pytest.mark.parametrize("code", [429, 500, 503, 504])
def test_what_may_be_otherwise_next_time_is_unavailable(code: int, server: Server, connection: Connection) -> None:
    server.answer = lambda handler: handler.say(code, b'{"reason": "TooManyRequests", "message": "later"}')
    with pytest.raises(ApiUnavailableError, match="later") as raised:
        get(connection)
    assert raised.value.facts["code"] == code
    server.answer = lambda handler: handler.say(200, b"{}")
    assert get(connection) == b"{}"
    server.answer = lambda handler: handler.say(code, b"")
    with pytest.raises(ApiUnavailableError):
        follow(connection, [])


def test_lines_come_as_they_are_written_however_they_are_cut(server: Server, connection: Connection) -> None:
    is_read = threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin()
        handler.chunk(b"one\ntw")
        handler.chunk(b"o")
        assert is_read.wait(ENOUGH)
        handler.chunk(b"\n\nthree\n")
        handler.chunk(b"")

    server.answer = answer
    with connection.lines(PATH, {"watch": "1"}, silence_seconds=ENOUGH) as lines:
        assert next(lines) == b"one"
        is_read.set()
        assert list(lines) == [b"two", b"three"]
    server.answer = lambda handler: handler.say(200, b"{}")
    assert get(connection) == b"{}"
    assert len(server.connections) == 1, "a stream that came to its end leaves its connection to others"


def test_a_stream_that_falls_silent_is_given_up(server: Server, connection: Connection) -> None:
    def answer(handler: Handler) -> None:
        handler.begin()
        handler.chunk(b"one\n")
        handler.hang()

    server.answer = answer
    seen: list[bytes] = []
    with pytest.raises(ApiUnavailableError, match="no answer in time"):
        follow(connection, seen, silence_seconds=0.1)
    assert seen == [b"one"]
    server.answer = lambda handler: handler.say(200, b"{}")
    assert get(connection) == b"{}"


def test_a_stream_that_breaks_off_in_a_line_gives_whole_lines_only(server: Server, connection: Connection) -> None:
    def answer(handler: Handler) -> None:
        handler.begin()
        handler.chunk(b'one\n{"half": ')
        handler.break_off()

    server.answer = answer
    seen: list[bytes] = []
    with pytest.raises(ApiUnavailableError):
        follow(connection, seen)
    assert seen == [b"one"]


def test_a_watch_from_too_long_ago_is_gone(server: Server, connection: Connection) -> None:
    server.answer = lambda handler: handler.say(410, b'{"reason": "Expired", "message": "too old resource version"}')
    with pytest.raises(ApiGoneError, match="too old"):
        follow(connection, [])


def test_a_stream_is_ended_from_another_thread_while_it_is_waited_for(server: Server, connection: Connection) -> None:
    def answer(handler: Handler) -> None:
        handler.begin()
        handler.chunk(b"one\n")
        handler.hang()

    server.answer = answer
    ended: list[str] = []
    is_reading = threading.Event()
    streams: list[Lines] = []

    def read() -> None:
        try:
            with connection.lines(PATH, {}, silence_seconds=600) as lines:
                assert isinstance(lines, Lines)
                streams.append(lines)
                for _line in lines:
                    is_reading.set()
            ended.append("well")
        except ApiUnavailableError:
            ended.append("broken off")

    reader = threading.Thread(target=read, name="reader")
    reader.start()
    assert is_reading.wait(ENOUGH)
    streams[0].end()
    reader.join(ENOUGH)
    assert not reader.is_alive()
    assert ended
    streams[0].end()  # once more does no harm


def test_a_token_that_is_renewed_on_disk_is_used(server: Server, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        is_known = handler.headers["Authorization"].endswith(" new")
        handler.say(200 if is_known else 401, b"{}")

    server.answer = answer
    token, certificate = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("old", encoding="utf-8")
    certificate.write_text("not asked for", encoding="utf-8")
    environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.server_port)}
    loader = InClusterConfigLoader(str(token), str(certificate), environ=environ)  # type: ignore[no-untyped-call] # it has no types
    configuration = Configuration()
    loader.load_and_set(configuration)  # type: ignore[no-untyped-call] # the same
    loader.host = configuration.host = f"http://127.0.0.1:{server.server_port}"
    loader.ssl_ca_cert = configuration.ssl_ca_cert = None
    connection = Connection(configuration)
    with pytest.raises(ApiForbiddenError):
        get(connection)
    token.write_text("new", encoding="utf-8")
    loader.token_expires_at = dt.datetime.now() - dt.timedelta(seconds=1)  # noqa: DTZ005 - as its own
    assert get(connection) == b"{}"
    token.unlink()
    loader.token_expires_at = dt.datetime.now() - dt.timedelta(seconds=1)  # noqa: DTZ005 - the same
    with pytest.raises(ApiUnavailableError, match="token"):
        get(connection)
