"""What the processes with an agent in them share: options, metrics, and the order of beginning and end."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ullage.cli.output import DEFAULT_SOCKET
from ullage.cli.process import CALL_GRACE_SECONDS, Signals, add_process_options, begin, http_server
from ullage.config import load
from ullage.errors import ConfigError, UllageError
from ullage.model import DeviceClass, Problem

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from node_agent.assembly import Assembly
    from ullage.rpc import RpcServer

OPERATION_GRACE_SECONDS = 15.0
"""For operations to end, after the calls: less than Kubernetes' 30 s in all."""

log = logging.getLogger(__name__)


class Source(Protocol):
    """Where the classes come from, when it is not a file."""

    def last_known_classes(self) -> Sequence[DeviceClass]:
        """To begin with."""

    def start(self) -> None:
        """Follow them: the agent serves. Returns at once."""

    def stop(self) -> None:
        """End."""


class Announcement(Protocol):
    """Tells somebody else that the process serves."""

    def start(self) -> None:
        """From now on. Returns at once."""

    def stop(self) -> None:
        """Not any more."""

    def problem(self) -> Problem | None:
        """Why it is not known there."""


def add_daemon_options(parser: argparse.ArgumentParser, *, has_config: bool = True) -> None:
    """What every process with an agent in it can be told."""
    if has_config:
        parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the device classes (YAML)")
    parser.add_argument("--socket", default=DEFAULT_SOCKET, metavar="ADDRESS", help=f"the agent's ({DEFAULT_SOCKET})")
    parser.add_argument("--lvm-prefix", default="", metavar="WORDS", help="put before every lvm command (nothing)")
    add_process_options(parser)


class Daemon:
    """A process with an agent in it; `serve` is its life."""

    def __init__(self, options: argparse.Namespace, component: str) -> None:
        """Read the configuration, if a file is named; nothing is bound and no storage looked at. Raises ConfigError."""
        # Only those who serve pay for these imports.
        from node_agent.assembly import assemble, backends  # noqa: PLC0415
        from node_agent.debts import Debts  # noqa: PLC0415
        from ullage.metrics import CommandMetrics  # noqa: PLC0415
        from ullage.rpc import socket_path  # noqa: PLC0415
        from ullage.run import Subprocesses  # noqa: PLC0415

        self.registry = begin(options, component)
        self._options = options
        self._signals = Signals()
        self._path: Path | None = getattr(options, "config", None)
        self._classes = load(self._path).device_classes if self._path is not None else ()
        self._component = component
        self.runner = Subprocesses(CommandMetrics(self.registry).observe)
        debts = Debts(socket_path(options.socket).with_suffix(".debts"))
        self.assembly = assemble(backends(self.runner, shlex.split(options.lvm_prefix), debts), debts=debts)
        self.is_ready = False
        self._announcement: Announcement | None = None
        self._is_broken = False
        _measure(self.registry, self.assembly)

    def serve(
        self,
        servers: Sequence[RpcServer],
        under_way: Callable[[], int] = lambda: 0,
        source: Source | None = None,
        announcement: Announcement | None = None,
    ) -> int:
        """Serve until SIGTERM or SIGINT; 1 when an operation, or one of the calls `under_way`, outlives the grace.

        The sockets are bound before the first look at the storage: two agents on one node would finish each other's
        work.
        """
        from node_agent.udev import BlockEvents  # noqa: PLC0415

        assembly = self.assembly
        events = BlockEvents(assembly.reporter.heard, assembly.reporter.wish_everything)
        with ExitStack() as ends:
            if self._options.http:
                ends.enter_context(http_server(self._options.http, self.registry, self._problem))
            for server in servers:
                server.bind()
                ends.callback(server.stop, CALL_GRACE_SECONDS)
            events.start()
            ends.callback(events.stop)
            classes = self._classes if source is None else source.last_known_classes()
            assembly.agent.configure(classes)
            assembly.agent.recover()
            assembly.start()
            self.is_ready = True
            for server in servers:
                server.start()
            if source is not None:
                source.start()
                ends.callback(source.stop)
            if announcement is not None:
                self._announcement = announcement
                announcement.start()
                ends.callback(announcement.stop)
            log.info(
                "serving",
                extra={
                    "component": self._component,
                    "sockets": [server.address for server in servers],
                    "device_classes": len(classes),
                },
            )
            for _ in self._signals.hangups():
                if self._path is not None:
                    _reload(self._path, assembly.agent.configure)
            self.is_ready = False
            log.info("stopping", extra={"in_flight": assembly.operations.in_flight()})
        is_idle = assembly.stop(OPERATION_GRACE_SECONDS)
        if calls := under_way():
            # Python would wait for their threads. The programs they run go on by themselves, and the next process finds
            # what they came to.
            log.error("calls outlive the process", extra={"calls": calls})
            logging.shutdown()
            os._exit(1)
        return 0 if is_idle and not self._is_broken else 1

    def give_up(self) -> None:
        """End in good order, with 1: whoever started the process has to start it anew."""
        self._is_broken = True
        self._signals.end()

    def _problem(self) -> Problem | None:
        if not self.is_ready:
            return Problem(reason="Starting", message="the first look at the storage is not over")
        return None if self._announcement is None else self._announcement.problem()


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


def _reload(path: Path, configure: Callable[[Sequence[DeviceClass]], None]) -> None:
    try:
        config = load(path)
    except ConfigError as error:
        log.error("configuration not taken", extra={"why": str(error)})  # noqa: TRY400 - its sentence says it all
        return
    configure(config.device_classes)
    log.info("configuration taken", extra={"device_classes": len(config.device_classes)})
