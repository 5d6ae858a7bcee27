"""Serve this node's storage on a unix socket.

  ullage agent --config /etc/ullage/config.yaml
  ullage agent --config config.yaml --socket unix:///tmp/agent.sock --http 127.0.0.1:9252 --log-level debug
  ullage agent --config config.yaml --lvm-prefix 'nsenter --target 1 --mount --uts --ipc --net --'

SIGHUP reads the configuration file again; a file that cannot be used leaves the old one in force, and says why.
SIGTERM ends it: operations under way get the grace to finish. LVM commands are never killed.
"""

from __future__ import annotations

import argparse
import logging
import queue
import shlex
import signal
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.cli.output import DEFAULT_SOCKET
from ullage.config import load
from ullage.errors import ConfigError, UllageError
from ullage.logs import set_up
from ullage.model import DeviceClass, Problem

if TYPE_CHECKING:
    from node_agent.assembly import Assembly
    from ullage.serve import HttpServer

CALL_GRACE_SECONDS, OPERATION_GRACE_SECONDS = 5.0, 20.0
"""For calls to be answered, then for operations to end: together less than the 30 s before Kubernetes sends SIGKILL."""

log = logging.getLogger(__name__)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the device classes (YAML)")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, metavar="ADDRESS", help=f"where ({DEFAULT_SOCKET})")
    parser.add_argument("--http", metavar="HOST:PORT", help="serve /healthz, /readyz and /metrics here (nowhere)")
    parser.add_argument("--lvm-prefix", default="", metavar="WORDS", help="put before every lvm command (nothing)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="auto", choices=["auto", "json", "text"])


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 1 when an operation outlives the grace."""
    # Only this subcommand pays for these imports.
    from node_agent.assembly import assemble, backends  # noqa: PLC0415
    from node_agent.service import AgentServer  # noqa: PLC0415
    from node_agent.udev import BlockEvents  # noqa: PLC0415
    from ullage.run import Subprocesses  # noqa: PLC0415

    set_up(options.log_level, options.log_format)
    config = load(options.config)
    metrics = _Metrics()
    assembly = assemble(backends(Subprocesses(metrics.commands.observe), shlex.split(options.lvm_prefix)))
    metrics.follow(assembly)
    events = BlockEvents(assembly.reporter.heard, assembly.reporter.wish_everything)
    server = AgentServer(assembly.agent, options.socket)
    signals = _Signals()
    with ExitStack() as ends:
        if options.http:
            ends.enter_context(metrics.served_at(options.http))
        server.bind()
        ends.callback(server.stop, CALL_GRACE_SECONDS)
        events.start()
        ends.callback(events.stop)
        assembly.agent.configure(config.device_classes)
        assembly.agent.recover()
        assembly.reporter.start()
        server.start()
        metrics.is_ready = True
        log.info("agent serving", extra={"socket": options.socket, "device_classes": len(config.device_classes)})
        for _ in signals.hangups():
            _reload(options.config, assembly.agent.configure)
        log.info("agent stopping", extra={"in_flight": assembly.operations.in_flight()})
    return 0 if assembly.stop(OPERATION_GRACE_SECONDS) else 1


class _Metrics:
    """What the agent measures, and whether it is ready to be asked."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

        from ullage.metrics import CommandMetrics, describe_process  # noqa: PLC0415

        self._registry = CollectorRegistry()
        describe_process(self._registry, component="agent", version=version("ullage"))
        self.commands = CommandMetrics(self._registry)
        self.is_ready = False

    def follow(self, assembly: Assembly) -> None:
        from node_agent.metrics import OperationMetrics, StoreCollector  # noqa: PLC0415

        operations = OperationMetrics(self._registry, assembly.operations.in_flight)

        def on_end(request: Hashable, failure: BaseException | None, seconds: float) -> None:
            outcome = "ok" if failure is None else failure.reason if isinstance(failure, UllageError) else "Unforeseen"
            operations.observe(type(request).__name__, outcome, seconds)

        assembly.operations.tell(on_end)
        self._registry.register(StoreCollector(assembly.stock.reports, assembly.stock.ages_seconds))

    def served_at(self, address: str) -> HttpServer:
        from ullage.serve import HttpServer, Routes, standard_routes  # noqa: PLC0415

        return HttpServer(address, Routes(standard_routes(self._registry, self._problem)))

    def _problem(self) -> Problem | None:
        starting = Problem(reason="Starting", message="the first look at the storage is not over")
        return None if self.is_ready else starting


class _Signals:
    """SIGTERM and SIGINT end the process in good order, SIGHUP makes it read its configuration again."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._received.put(number))

    def hangups(self) -> Iterator[None]:
        """Yield at each SIGHUP, end at the first SIGTERM or SIGINT."""
        while self._received.get() == signal.SIGHUP:
            yield


def _reload(path: Path, configure: Callable[[Sequence[DeviceClass]], None]) -> None:
    try:
        config = load(path)
    except ConfigError as error:
        log.error("configuration not taken", extra={"why": str(error)})  # noqa: TRY400 - its sentence says it all
        return
    configure(config.device_classes)
    log.info("configuration taken", extra={"device_classes": len(config.device_classes)})
