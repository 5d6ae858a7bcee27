"""A door from this machine's loopback into the cluster's network, for a person's kubectl."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Listens from its making on; connects, to a port of loopback in the network the process is in, once it serves."""

    def __init__(self) -> None:
        """In the network where clients are; raises OSError."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def serve(self, port: int) -> None:
        """From now on, until the process ends."""
        threading.Thread(target=self._accept, args=(port,), name="relay", daemon=True).start()

    def _accept(self, port: int) -> None:
        while True:
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", port))
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=(one, other), name="relay", daemon=True).start()


def _copy(one: socket.socket, other: socket.socket) -> None:
    """All that comes from one to the other, and its end."""
    with suppress(OSError):
        while chunk := one.recv(1 << 16):
            other.sendall(chunk)
    with suppress(OSError):
        other.shutdown(socket.SHUT_WR)
