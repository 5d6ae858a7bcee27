"""The extender's own HTTP server with nothing behind it: what comes goes back as it came. What transport costs.

python -m bench.extender_echo ADDRESS
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from ullage.serve import HttpServer, Routes, health


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The body."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def main(address: str) -> int:
    """Serve until SIGTERM."""
    with HttpServer(address, Routes({"/healthz": health}, echo)):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main(*sys.argv[1:]))
