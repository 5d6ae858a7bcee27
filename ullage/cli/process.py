"""What every process that serves shares: options, logging, metrics, health, and signals."""

from __future__ import annotations

import argparse
import queue
import signal
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from ullage.logs import set_up
from ullage.memory import share_arenas
from ullage.model import Problem

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ullage.serve import HttpServer

CALL_GRACE_SECONDS = 5.0
"""For calls to be answered, by each server; all graces together are less than Kubernetes' 30 s."""


def add_process_options(parser: argparse.ArgumentParser) -> None:
    """What every process can be told."""
    parser.add_argument("--http", metavar="HOST:PORT", help="serve /healthz, /readyz and /metrics here (nowhere)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="auto", choices=["auto", "json", "text"])


def begin(options: argparse.Namespace, component: str) -> CollectorRegistry:
    """Set up memory and logging; the registry says which process this is."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415 - only those who serve pay for these imports

    from ullage.metrics import describe_process  # noqa: PLC0415

    share_arenas()
    set_up(options.log_level, options.log_format)
    registry = CollectorRegistry()
    describe_process(registry, component=component, version=version("ullage"))
    return registry


def http_server(address: str, registry: CollectorRegistry, problem: Callable[[], Problem | None]) -> HttpServer:
    """Health, readiness (while there is no `problem`) and metrics; raises ConfigError."""
    from ullage.serve import HttpServer, Routes, standard_routes  # noqa: PLC0415

    return HttpServer(address, Routes(standard_routes(registry, problem)))


class Signals:
    """SIGTERM and SIGINT end the process in good order, SIGHUP makes it read its configuration again."""

    def __init__(self) -> None:
        """From now on they are heard."""
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._received.put(number))

    def end(self) -> None:
        """As if SIGTERM had been received."""
        self._received.put(signal.SIGTERM)

    def hangups(self) -> Iterator[None]:
        """Yield at each SIGHUP, end at the first SIGTERM or SIGINT."""
        while self._received.get() == signal.SIGHUP:
            yield


def seconds(text: str) -> float:
    """A number of seconds, 0 included, for argparse."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return found


def some_seconds(text: str) -> float:
    """The same without 0."""
    found = seconds(text)
    if not found:
        raise argparse.ArgumentTypeError("0 seconds are no time to wait")
    return found
