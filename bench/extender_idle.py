"""An extender that takes every node and prefers none, at once: what asking one costs kube-scheduler, whatever it says.

  python -m bench.extender_idle ADDRESS

It serves with our own HTTP server, reads nothing of the cluster, and decodes nothing but names.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec

from ullage.serve import HttpServer, Routes, health


class Asked(msgspec.Struct, rename="pascal"):
    """Of ExtenderArgs."""

    node_names: list[str]


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Filter takes every node, prioritize gives each the same."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    names = msgspec.json.decode(body, type=Asked).node_names
    is_filter = environ["PATH_INFO"] == "/filter"
    reply = msgspec.json.encode({"NodeNames": names} if is_filter else [{"Host": name, "Score": 0} for name in names])
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(reply)))])
    return [reply]


def main(address: str) -> int:
    """Serve until SIGTERM."""
    with HttpServer(address, Routes({"/healthz": health}, answer)):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main(*sys.argv[1:]))
