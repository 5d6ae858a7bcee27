"""The HTTP side of a process: health, readiness, metrics, and any WSGI application beside them.

Of cheroot, whose defaults are changed where they would hurt (what of a single connection is, is in `connections.py`):

- an idle connection is kept 120 s: kube-scheduler keeps its own for 90 s and does not send a POST again when the server
  closes the connection at that moment;
- TCP_NODELAY is on and every reply has a Content-Length: a reply that leaves in two writes would otherwise take 40 ms
  on a reused connection (delayed ACK);
- a connection takes a thread only once there is something to read: Go's client dials more than it uses, and a few
  silent connections would hold every thread for those 120 s;
- a listening socket passed by systemd is refused, not taken: cheroot takes the first one blindly, whatever it is for;
- its messages go to our log.

Routes answer from memory and at once. A route that raises is a 500 with the traceback in the log.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import cheroot.wsgi
from cheroot.server import HTTPConnection
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ullage.connections import Connection, Tls, TlsFiles
from ullage.errors import MIB, ConfigError
from ullage.model import Problem

TEXT = "text/plain; charset=utf-8"
IDLE_SECONDS = 120
STOP_SECONDS = 5
"""A stopping server gives requests under way this long before it closes their connections."""
THREADS = 4
BACKLOG = 128
KEPT_CONNECTIONS = 100
"""Idle connections beyond this many are closed after their reply, which says so."""
HEAD_LIMIT_BYTES = 64 << 10
MAX_PORT = 65535

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a route answers."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes
    content_type: str = TEXT


Route = Callable[[], Reply]
"""Answers GET on one path; HEAD is answered from it."""


def health() -> Reply:
    """The process lives: it got as far as answering."""
    return Reply(body=b"ok\n")


def readiness(problem: Callable[[], Problem | None]) -> Route:
    """A route that says 200 while there is no problem, else 503 with its sentence."""

    def reply() -> Reply:
        found = problem()
        if found is None:
            return Reply(body=b"ok\n")
        return Reply(status=HTTPStatus.SERVICE_UNAVAILABLE, body=f"{found.reason}: {found.message}\n".encode())

    return reply


def exposition(registry: CollectorRegistry) -> Route:
    """A route that shows the registry in Prometheus' text format."""
    return lambda: Reply(body=generate_latest(_WithoutCreated(registry)), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def standard_routes(registry: CollectorRegistry, problem: Callable[[], Problem | None]) -> dict[str, Route]:
    """What each of our processes serves."""
    return {"/healthz": health, "/readyz": readiness(problem), "/metrics": exposition(registry)}


class _WithoutCreated(Collector):
    """A registry without the `…_created` series, which the text format shows as one more gauge for each label set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            if metric.type in ("counter", "histogram", "summary"):
                metric.samples = [sample for sample in metric.samples if sample.name != f"{metric.name}_created"]
            yield metric


class Routes:
    """A WSGI application of fixed paths. `beside` gets every other path as it came; without it they are 404."""

    def __init__(self, routes: Mapping[str, Route], beside: WSGIApplication | None = None) -> None:
        """Take the routes as they are now."""
        self._routes = dict(routes)
        self._beside = beside

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """See PEP 3333."""
        route = self._routes.get(environ["PATH_INFO"])
        if route is None and self._beside is not None:
            return self._beside(environ, start_response)
        method = environ["REQUEST_METHOD"]
        reply = self._reply(route, method, environ["PATH_INFO"])
        headers = [("Content-Type", reply.content_type), ("Content-Length", str(len(reply.body)))]
        if reply.status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", "GET, HEAD"))
        start_response(f"{reply.status.value} {reply.status.phrase}", headers)
        return [] if method == "HEAD" else [reply.body]

    def _reply(self, route: Route | None, method: str, path: str) -> Reply:
        if route is None:
            paths = ", ".join(sorted(self._routes))
            return Reply(status=HTTPStatus.NOT_FOUND, body=f"nothing here; there is {paths}\n".encode())
        if method not in ("GET", "HEAD"):
            return Reply(status=HTTPStatus.METHOD_NOT_ALLOWED, body=b"only GET and HEAD\n")
        try:
            return route()
        except Exception:
            log.exception("http route failed", extra={"path": path})
            return Reply(status=HTTPStatus.INTERNAL_SERVER_ERROR, body=b"failed; the reason is in the log\n")


class HttpServer:
    """Serves a WSGI application on one address from `start` to `stop`; port 0 takes a free one, see `address`."""

    def __init__(
        self,
        address: str,
        application: WSGIApplication,
        *,
        threads: int = THREADS,
        body_limit_bytes: int = 64 * MIB,
        tls: TlsFiles | None = None,
    ) -> None:
        """`address` is `127.0.0.1:9252` or `[::1]:9252`; raises ConfigError. Nothing is bound yet."""
        self._configured = _host_and_port(address)
        self._tls = None if tls is None else Tls(tls)
        self._application = application
        self._threads = threads
        self._body_limit_bytes = body_limit_bytes
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, with the real port; before `start`, where it will."""
        host, port = self._configured if self._server is None else self._server.bound
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Listen; when this returns, connections are accepted. Raises ConfigError if the address cannot be had."""
        if self._server is not None:
            raise RuntimeError("already started")
        if "LISTEN_PID" in os.environ:
            raise ConfigError(
                f"{self.address} is not served: systemd passed a socket (LISTEN_FDS), and the HTTP server would take "
                "it for its own; whoever uses that socket must unset LISTEN_PID first"
            )
        server = _Server(self._configured, self._application, self._threads)
        server.max_request_body_size = self._body_limit_bytes
        server.ssl_adapter = self._tls
        try:
            server.prepare()
        except OSError as failure:
            why = server.bind_failure or failure
            raise ConfigError(f"cannot listen on {self.address}: {why.strerror or why}") from failure
        self._server = server
        self._thread = threading.Thread(target=_serve, args=(server,), name=f"http {self.address}", daemon=True)
        self._thread.start()
        log.info("http server started", extra={"address": self.address})

    def stop(self) -> None:
        """Let requests under way end, close every connection, join the threads. May be called twice.

        An application that never answers keeps it waiting: Python cannot end its thread.
        """
        server, thread, address = self._server, self._thread, self.address
        if server is None or thread is None:
            return
        server.stop()
        thread.join()
        self._server = self._thread = None
        log.info("http server stopped", extra={"address": address})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Server(cheroot.wsgi.Server):
    """cheroot, logging to us, and leaving neither a socket nor a thread behind."""

    max_request_header_size = HEAD_LIMIT_BYTES
    keep_alive_conn_limit = KEPT_CONNECTIONS
    nodelay = True
    ConnectionClass = Connection

    def __init__(self, address: tuple[str, int], application: WSGIApplication, threads: int) -> None:
        super().__init__(
            address,
            application,
            numthreads=threads,
            server_name="ullage",
            request_queue_size=BACKLOG,
            timeout=IDLE_SECONDS,
            shutdown_timeout=STOP_SECONDS,
        )
        self.bind_failure: OSError | None = None

    @property
    def bound(self) -> tuple[str, int]:
        """The address, with the port that the kernel chose."""
        host, port = self.bind_addr
        return str(host), int(port)

    def bind(self, family: int, type: int, proto: int = 0) -> None:  # noqa: A002 - cheroot's name
        """Bind; cheroot leaves the socket open when that fails, and keeps only the text of the reason."""
        sock: socket.socket = self.prepare_socket(self.bind_addr, family, type, proto, self.nodelay, None)
        try:
            sock.bind(self.bind_addr)
        except OSError as failure:
            self.bind_failure = failure
            sock.close()
            raise
        self.socket = sock
        self.bind_addr = sock.getsockname()[:2]

    def process_conn(self, conn: HTTPConnection) -> None:
        """Give a connection to a thread, a new one only when its first bytes are there."""
        if conn.last_used is None:
            self.put_conn(conn)
        else:
            super().process_conn(conn)

    def _serve_unservicable(self) -> None:
        """Nothing: cheroot's thread for connections that its queue refuses. The queue has no bound, it refuses none."""

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:  # noqa: FBT001, FBT002 - cheroot's signature
        """Log what cheroot says; below WARNING that is about clients that went away."""
        log.log(
            level if level >= logging.WARNING else logging.DEBUG,
            "http server reports",
            extra={"report": msg},
            exc_info=traceback,
        )


def _serve(server: _Server) -> None:
    """The thread. An application that raises SystemExit ends cheroot: then at least the log says so."""
    try:
        server.serve()
    except BaseException:
        log.exception("http server died")


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > MAX_PORT:
        raise ConfigError(
            f"{address!r} is no address to listen on: it is host:port with a port up to {MAX_PORT}, such as "
            "127.0.0.1:9252, [::1]:9252, or 0.0.0.0:9252 for all interfaces"
        )
    return host, int(port)
