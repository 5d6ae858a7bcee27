"""A connection as our HTTP server serves it, where cheroot's own would hurt.

- A reply is one write: cheroot sends its head and its body apart, which wakes a client twice.
- A request has `REQUEST_SECONDS` to come, and as long to be taken: kube-scheduler gives up earlier. Between requests a
  connection may be silent for as long as the server allows.
- A body beyond the limit is answered with a sentence, and the answer arrives: a server that closes while the client
  still sends has it thrown away.
- The TLS handshake is made by the thread that serves the connection. cheroot makes it while it accepts, where one
  client that says nothing keeps all others from being accepted.
- A request that follows a reply at once is served by the same thread: by way of cheroot's selector it would be handed
  from thread to thread twice, and kube-scheduler's prioritize follows its filter.
- Buffers are those of Python's `io`, in C; cheroot's are in Python, and copy what they are given.
"""

from __future__ import annotations

import io
import logging
import os
import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from cheroot.server import HTTPConnection, HTTPRequest, HTTPServer
from cheroot.ssl import Adapter

from ullage.errors import KIB, ConfigError

REQUEST_SECONDS = 10.0
LINGER_SECONDS = 2.0
"""For what a client still sends after it was refused."""
HEELS_SECONDS = 0.002
"""So long a thread waits for what follows at once: kube-scheduler takes half as long to read 500 names."""
JOINED_BYTES = 64 * KIB
"""What is longer is not copied behind its head, and sent in two writes."""
BUFFER_BYTES = 32 * KIB
"""More than a TLS record has (16 KiB): so nothing is left deciphered in a socket, where no selector sees it."""
VERIFIED = "SUCCESS"
"""`SSL_CLIENT_VERIFY` of a client whose certificate our authority has signed; without one it is NONE."""
ONLY_HTTPS = b"only HTTPS is spoken here\n"

log = logging.getLogger(__name__)


class Request(HTTPRequest):
    """One request."""

    def parse_request(self) -> None:
        """Read the head. What cheroot refuses as too large is refused with the numbers, and its body not left lying."""
        super().parse_request()
        if not self.ready:
            self.conn.is_refused = True

    def send_headers(self) -> None:
        """Begin the answer. What was not read of the body would be taken for the next request: read it, or be the last.

        cheroot reads it, but not one in chunks; and one that did not come in time is not waited for again.
        """
        is_unread = not self.rfile.closed if self.chunked_read else self.rfile.remaining > 0
        if is_unread and (self.chunked_read or self.close_connection or self.conn.is_late):
            self.close_connection = self.conn.is_refused = True
        super().send_headers()

    def simple_response(self, status: str, msg: str = "") -> None:
        """Say what cheroot refuses."""
        if str(status).startswith(str(HTTPStatus.REQUEST_ENTITY_TOO_LARGE.value)):
            length = self.inheaders.get(b"Content-Length", b"").decode("latin-1")
            msg = f"the body has {length} bytes, {self.server.max_request_body_size} are the most\n"
        super().simple_response(status, msg)


class Connection(HTTPConnection):
    """One connection, over TLS if the socket is so."""

    RequestHandlerClass = Request

    def __init__(self, server: HTTPServer, sock: socket.socket, _makefile: object = None) -> None:
        """As cheroot makes one; its files are our own."""
        super().__init__(server, sock, lambda *_: None)
        self.wfile = Writer(sock)
        self._input = Input(sock, self.wfile)
        self.rfile = Reader(self._input)
        self.is_refused = False
        self._is_shaken = not isinstance(sock, ssl.SSLSocket)

    def communicate(self) -> bool:
        """Serve a request, and what follows on its heels; whether there may be another one."""
        self._input.until = time.monotonic() + REQUEST_SECONDS
        self.socket.settimeout(REQUEST_SECONDS)
        if not self._is_shaken and not self._shake_hands():
            return False
        keeps = self._served()
        while keeps and self._goes_on():
            self._input.until = time.monotonic() + REQUEST_SECONDS
            keeps = self._served()
        return keeps

    def _served(self) -> bool:
        """Serve one request; whether there may be another one."""
        keeps = bool(super().communicate())  # type: ignore[no-untyped-call]  # cheroot's stub leaves it open
        try:
            self.socket.settimeout(REQUEST_SECONDS)
            self.wfile.flush()
        except OSError:
            return False
        if self.is_refused:
            self._linger()
        return keeps

    @property
    def is_late(self) -> bool:
        """Whether the request took longer to come than it may."""
        return time.monotonic() >= self._input.until

    def _goes_on(self) -> bool:
        """Whether the next request comes at once, as long as nobody waits for this thread."""
        if not (self.server.ready and self.server.requests.idle):
            return False
        coming = select.poll()
        coming.register(self.socket, select.POLLIN)
        return self.rfile.has_data() or bool(coming.poll(HEELS_SECONDS * 1000))

    def _shake_hands(self) -> bool:
        try:
            self.socket.do_handshake()
        except OSError as failure:  # ssl.SSLError is one
            _tell_of_no_tls(self.socket, self.remote_addr, failure)
            return False
        self._is_shaken = True
        verified = VERIFIED if self.socket.getpeercert() else "NONE"
        self.ssl_env = {"wsgi.url_scheme": "https", "HTTPS": "on", "SSL_CLIENT_VERIFY": verified}
        return True

    def _linger(self) -> None:
        """Let the client read why before it learns that nobody reads on (RFC 9112, 9.6)."""
        until = time.monotonic() + LINGER_SECONDS
        try:
            if isinstance(self.socket, ssl.SSLSocket):
                self.socket.settimeout(LINGER_SECONDS)
            else:
                self.socket.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(BUFFER_BYTES):
                    return
        except OSError:
            return


class Writer:
    """What is to be sent: kept until `flush`, so that a reply leaves whole."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._kept: list[bytes] = []

    def write(self, content: bytes) -> int:
        """Keep it."""
        self._kept.append(content)
        return len(content)

    def flush(self) -> None:
        """Send all of it; raises OSError."""
        kept, self._kept = self._kept, []
        if len(kept) > 1 and sum(map(len, kept)) <= JOINED_BYTES:
            kept = [b"".join(kept)]
        for each in kept:
            self._socket.sendall(each)


class Input(io.RawIOBase):
    """What the client sends, until a moment; whatever is kept for it is sent first (`100 Continue`)."""

    def __init__(self, sock: socket.socket, output: Writer) -> None:
        self.until = 0.0
        self.is_asked_in_passing = False
        self._socket = sock
        self._output = output

    def readable(self) -> bool:
        """See io.RawIOBase."""
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override] # what io.BufferedReader passes
        """See io.RawIOBase; raises TimeoutError past the moment. None: nothing was tried."""
        if self.is_asked_in_passing:
            return None
        self._output.flush()
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")  # cheroot's word for it, too
        self._socket.settimeout(left)
        return self._socket.recv_into(buffer)


class Reader(io.BufferedReader):
    """Input, buffered."""

    raw: Input

    def __init__(self, raw: Input) -> None:
        super().__init__(raw, BUFFER_BYTES)

    def has_data(self) -> bool:
        """Whether something is here already, which a selector would not tell of."""
        self.raw.is_asked_in_passing = True
        try:
            return bool(self.peek(1))
        finally:
            self.raw.is_asked_in_passing = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: our certificate (with those between it and its authority) and key, and who signs our clients'."""

    certificate: Path
    key: Path
    client_authority: Path | None = None
    """Clients need not show a certificate; one that is shown must be signed by this."""


class Tls(Adapter):
    """TLS 1.2 or later, with files that may be replaced while it is used: the next connection has the new ones."""

    def __init__(self, files: TlsFiles) -> None:
        """Read them; raises ConfigError."""
        self._files = files
        self._state = _state(files)
        self.context = _context(files)

    def bind(self, sock: socket.socket) -> socket.socket:
        """See Adapter."""
        return sock

    def wrap(self, sock: socket.socket) -> tuple[ssl.SSLSocket, dict[str, str]]:
        """See Adapter. Nothing is said to the client yet."""
        state = _state(self._files)
        if state != self._state:
            self._state = state
            try:
                self.context = _context(self._files)
                log.info("certificate taken", extra={"file": str(self._files.certificate)})
            except ConfigError as failure:  # half of it is written, perhaps: the other half changes the state again
                log.warning("certificate not taken; the one before is used", extra={"why": str(failure)})
        return self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False), {}

    def makefile(self, _sock: socket.socket, _mode: str = "r", _bufsize: int = -1) -> None:
        """See Adapter; `Connection` has its own."""

    def get_environ(self) -> dict[str, str]:
        """See Adapter; `Connection` knows it after the handshake."""
        return {}


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.key)
    except OSError as failure:  # ssl.SSLError is one
        raise ConfigError(
            f"no TLS with the certificate {files.certificate} and the key {files.key}: {failure.strerror or failure}"
        ) from failure
    if files.client_authority is not None:
        try:
            context.load_verify_locations(files.client_authority)
        except OSError as failure:
            raise ConfigError(
                f"{files.client_authority} has no certificate of an authority: {failure.strerror or failure}"
            ) from failure
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _state(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file is written or replaced, also behind a link as Kubernetes replaces those of a Secret."""
    return tuple(_mark(path) for path in (files.certificate, files.key, files.client_authority) if path is not None)


def _mark(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _tell_of_no_tls(sock: ssl.SSLSocket, client: object, failure: OSError) -> None:
    """A client that went away is nobody's business; one that we refuse is its owner's, who may look here."""
    is_refused = isinstance(failure, ssl.SSLError) and not isinstance(failure, ssl.SSLEOFError | ssl.SSLZeroReturnError)
    level = logging.WARNING if is_refused else logging.DEBUG
    log.log(level, "no TLS with a client", extra={"client": str(client), "why": str(failure)})
    if isinstance(failure, ssl.SSLError) and failure.reason == "HTTP_REQUEST":
        head = f"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {len(ONLY_HTTPS)}\r\n\r\n"
        with suppress(OSError):
            os.write(sock.fileno(), head.encode() + ONLY_HTTPS)
