"""What the processes with an agent in them share: options, metrics, signals, and the order of beginning and end."""

from __future__ import annotations

import argparse
import logging
import os
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
from ullage.memory import share_arenas
from ullage.model import DeviceClass, Problem

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from node_agent.assembly import Assembly
    from ullage.rpc import RpcServer
    from ullage.serve import HttpServer

CALL_GRACE_SECONDS, OPERATION_GRACE_SECONDS = 5.0, 15.0
"""For calls to be answered (by each server), then for operations to end: less than Kubernetes' 30 s in all."""

log = logging.getLogger(__name__)


def add_daemon_options(parser: argparse.ArgumentParser) -> None:
    """What every process with an agent in it can be told."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the device classes (YAML)")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, metavar="ADDRESS", help=f"the agent's ({DEFAULT_SOCKET})")
    parser.add_argument("--http", metavar="HOST:PORT", help="serve /healthz, /readyz and /metrics here (nowhere)")
    parser.add_argument("--lvm-prefix", default="", metavar="WORDS", help="put before every lvm command (nothing)")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", default="auto", choices=["auto", "json", "text"])


class Daemon:
    """A process with an agent in it; `serve` is its life."""

    def __init__(self, options: argparse.Namespace, component: str) -> None:
        """Read the configuration; nothing is bound and no storage looked at. Raises ConfigError."""
        # Only those who serve pay for these imports.
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

        from node_agent.assembly import assemble, backends  # noqa: PLC0415
        from node_agent.debts import Debts  # noqa: PLC0415
        from ullage.metrics import CommandMetrics, describe_process  # noqa: PLC0415
        from ullage.rpc import socket_path  # noqa: PLC0415
        from ullage.run import Subprocesses  # noqa: PLC0415

        share_arenas()
        set_up(options.log_level, options.log_format)
        self._options = options
        self._signals = _Signals()
        self._config = load(options.config)
        self._component = component
        self.registry = CollectorRegistry()
        describe_process(self.registry, component=component, version=version("ullage"))
        self.runner = Subprocesses(CommandMetrics(self.registry).observe)
        debts = Debts(socket_path(options.socket).with_suffix(".debts"))
        self.assembly = assemble(backends(self.runner, shlex.split(options.lvm_prefix), debts), debts=debts)
        self.is_ready = False
        _measure(self.registry, self.assembly)

    def serve(self, servers: Sequence[RpcServer], under_way: Callable[[], int] = lambda: 0) -> int:
        """Serve until SIGTERM or SIGINT; 1 when an operation, or one of the calls `under_way`, outlives the grace.

        The sockets are bound before the first look at the storage: two agents on one node would finish each other's
        work.
        """
        from node_agent.udev import BlockEvents  # noqa: PLC0415

        assembly = self.assembly
        events = BlockEvents(assembly.reporter.heard, assembly.reporter.wish_everything)
        with ExitStack() as ends:
            if self._options.http:
                ends.enter_context(self._http())
            for server in servers:
                server.bind()
                ends.callback(server.stop, CALL_GRACE_SECONDS)
            events.start()
            ends.callback(events.stop)
            assembly.agent.configure(self._config.device_classes)
            assembly.agent.recover()
            assembly.start()
            self.is_ready = True
            for server in servers:
                server.start()
            log.info(
                "serving",
                extra={
                    "component": self._component,
                    "sockets": [server.address for server in servers],
                    "device_classes": len(self._config.device_classes),
                },
            )
            for _ in self._signals.hangups():
                _reload(self._options.config, assembly.agent.configure)
            self.is_ready = False
            log.info("stopping", extra={"in_flight": assembly.operations.in_flight()})
        is_idle = assembly.stop(OPERATION_GRACE_SECONDS)
        if calls := under_way():
            # Python would wait for their threads. The programs they run go on by themselves, and the next process finds
            # what they came to.
            log.error("calls outlive the process", extra={"calls": calls})
            logging.shutdown()
            os._exit(1)
        return 0 if is_idle else 1

    def _http(self) -> HttpServer:
        from ullage.serve import HttpServer, Routes, standard_routes  # noqa: PLC0415

        return HttpServer(self._options.http, Routes(standard_routes(self.registry, self._problem)))

    def _problem(self) -> Problem | None:
        starting = Problem(reason="Starting", message="the first look at the storage is not over")
        return None if self.is_ready else starting


def _measure(registry: CollectorRegistry, assembly: Assembly) -> None:
    from node_agent.metrics import FillCollector, HoldMetrics, OperationMetrics, StoreCollector  # noqa: PLC0415

    operations = OperationMetrics(registry, assembly.operations.in_flight)

    def on_end(request: Hashable, failure: BaseException | None, seconds: float) -> None:
        outcome = "ok" if failure is None else failure.reason if isinstance(failure, UllageError) else "Unforeseen"
        operations.observe(type(request).__name__, outcome, seconds)

    assembly.operations.tell(on_end)
    assembly.holds.tell(HoldMetrics(registry).observe)
    registry.register(StoreCollector(assembly.stock.reports, assembly.stock.ages_seconds))
    registry.register(FillCollector(assembly.fills))


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
