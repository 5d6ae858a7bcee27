"""The gRPC side of a process: a server on a unix socket, how long a call may wait, and what fits into an answer.

The socket exists from `bind` on and is its owner's only (mode 0600). It is also the lock that keeps a second process of
the same kind away: whoever finds somebody answering on it does not start.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ullage.errors import ConfigError

PATIENCE_SECONDS = 300.0
"""For callers without a deadline of their own."""
MARGIN_SECONDS = 0.2
MARGIN_SHARE = 0.02
"""Answered this much before the caller's deadline, so that the sentence still reaches it: gRPC sends time limits with
three digits, rounded up, so what the server sees can be 1 % too long."""
MOST_SENTENCE_BYTES = 1024
"""A status travels in HTTP/2 headers, with its details twice. A client that gets more than 8 KiB of them reports
RESOURCE_EXHAUSTED instead, which to a provisioner means "no space here, go elsewhere"."""


class RpcServer:
    """A gRPC server on one unix socket, with the standard health service beside what is added to `grpc`."""

    def __init__(
        self, address: str, *, workers: int, services: Sequence[str] = (), at_stop: Callable[[], None] = lambda: None
    ) -> None:
        """`address` is unix:///path. The health service answers for these `services` and for the whole.

        `workers` threads serve calls; `at_stop` ends those that would not end by themselves.
        """
        self.address = address
        self._path = socket_path(address)
        self._services = ("", *services)
        self._at_stop = at_stop
        self._health = health.HealthServicer()
        self.grpc = grpc.server(ThreadPoolExecutor(max_workers=workers, thread_name_prefix=f"rpc-{self._path.stem}"))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    def bind(self) -> None:
        """Make the socket; raises ConfigError when it cannot be made or another process answers on it.

        Comes before the first look at the storage: two agents on one node would finish each other's work.
        """
        try:
            _make_way(self._path)
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failure:
            raise ConfigError(f"the socket {self._path} cannot be made: {failure}") from failure
        mask = os.umask(0o177)  # from the socket's first moment nobody else may connect
        try:
            if self.grpc.add_insecure_port(f"unix://{self._path}") == 0:
                raise ConfigError(f"the socket {self._path} cannot be made")
        except RuntimeError as failure:
            raise ConfigError(f"the socket {self._path} cannot be made: {failure}") from failure
        finally:
            os.umask(mask)

    def start(self) -> None:
        """Serve what is asked from now on, and what was asked since `bind`."""
        self.grpc.start()
        self.set_serving(is_serving=True)

    def set_serving(self, *, is_serving: bool) -> None:
        """What the health service says."""
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            self._health.set(service, status)

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, let those under way end within the grace, remove the socket."""
        self.set_serving(is_serving=False)
        self._at_stop()
        self.grpc.stop(grace_seconds).wait()
        self._path.unlink(missing_ok=True)


def patience(context: grpc.ServicerContext) -> float:
    """The seconds that a call may take: a little less than its caller waits, and never longer than we do."""
    left = context.time_remaining()
    if left is None:
        return PATIENCE_SECONDS
    return min(PATIENCE_SECONDS, max(0.0, left * (1 - MARGIN_SHARE) - MARGIN_SECONDS))


def short(text: str, most_bytes: int = MOST_SENTENCE_BYTES) -> str:
    """`text` if it is short enough to be sent, else its beginning; what is no UTF-8 is replaced."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= most_bytes:
        return encoded.decode()
    return encoded[: most_bytes - 3].decode("utf-8", "ignore") + "…"


def socket_path(address: str) -> Path:
    """The path in unix:///path or unix:path; raises ConfigError."""
    path = address.removeprefix("unix:").removeprefix("//")
    if not address.startswith("unix:") or not path.startswith("/"):
        raise ConfigError(f"{address!r} is no socket address; write unix:///run/ullage/agent.sock")
    return Path(path)


def is_answered(path: Path) -> bool:
    """Whether a process that lives listens on the socket; raises OSError when there is none, or it is not ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - no keywords there
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # alive, and busy: its queue of callers is full
    return True


def _make_way(path: Path) -> None:
    """Remove a socket that a dead process left; raises ConfigError when something else is there, or alive."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is there and is no socket; it is not touched")
    if is_answered(path):
        raise ConfigError(f"another process is serving on {path}; end it first, or choose another --socket")
    path.unlink(missing_ok=True)
