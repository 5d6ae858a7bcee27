"""kube-scheduler as the extender sees it: one kept connection, one request after the other. A process of its own.

It does as little as a client can: what is measured ends with the reply's last byte, and nothing is decoded before.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from bench.lvm_rig import BenchError

REPLY_SECONDS = 60.0
END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length:"
PIECE_BYTES = 1 << 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be sent: the bodies of each path in turn, until there were so many rounds, or for so long."""

    address: str
    paths: Sequence[str]
    bodies: Sequence[Sequence[bytes]]
    """For each round (over and over again), one for each path."""
    rounds: int
    most_seconds: float
    idle_seconds: float = 0.0
    """Before each round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """Seconds of each reply, by path."""

    seconds: Sequence[Sequence[float]]
    reply_bytes: int
    """Of the last one."""


class Connection:
    """To one server, for as long as it keeps it."""

    def __init__(self, address: str) -> None:
        """Connects."""
        host, _, port = address.rpartition(":")
        self._host = address
        self._socket = socket.create_connection((host, int(port)), timeout=REPLY_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def request(self, path: str, body: bytes) -> bytes:
        """The bytes of a POST, to be sent as they are."""
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: Go-http-client/1.1\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        return head.encode() + body

    def answered(self, request: bytes) -> bytes:
        """Send it; the reply's body. Raises BenchError when it is none of 200."""
        self._socket.sendall(request)
        got = b""
        while END_OF_HEAD not in got:
            got += self._piece()
        head, _, body = got.partition(END_OF_HEAD)
        length = next(int(line[len(LENGTH) :]) for line in head.lower().split(b"\r\n") if line.startswith(LENGTH))
        pieces, left = [body], length - len(body)
        while left > 0:
            pieces.append(self._piece())
            left -= len(pieces[-1])
        whole = b"".join(pieces)
        if int(head.split(b" ", 2)[1]) != HTTPStatus.OK:
            raise BenchError(f"the server answers {head.splitlines()[0].decode()}: {whole[:500].decode()}")
        return whole

    def close(self) -> None:
        """For good."""
        self._socket.close()

    def _piece(self) -> bytes:
        got = self._socket.recv(PIECE_BYTES)
        if not got:
            raise BenchError("the server closed the connection")
        return got


def send(order: Order) -> Took:
    """Do it over one connection; raises BenchError, OSError."""
    connection = Connection(order.address)
    try:
        return timed(order, connection.request, connection.answered)
    finally:
        connection.close()


def timed(order: Order, prepare: Callable[[str, bytes], T], answer: Callable[[T], bytes]) -> Took:
    """Do it by other means: `prepare` is not measured, `answer` is."""
    rounds = [[prepare(path, body) for path, body in zip(order.paths, bodies, strict=True)] for bodies in order.bodies]
    seconds: list[list[float]] = [[] for _ in order.paths]
    deadline = time.monotonic() + order.most_seconds
    reply = b""
    for number in range(order.rounds):
        if time.monotonic() > deadline:
            break
        if order.idle_seconds:
            time.sleep(order.idle_seconds)
        for which, request in enumerate(rounds[number % len(rounds)]):
            begun = time.perf_counter()
            reply = answer(request)
            seconds[which].append(time.perf_counter() - begun)
    return Took(seconds=seconds, reply_bytes=len(reply))
