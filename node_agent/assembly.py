"""The agent put together from its parts: for the command line, and for tests with doubles for the outermost parts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node_agent.agent import Agent
from node_agent.backends.file.backend import FileBackend
from node_agent.backends.lvm.backend import LvmBackend
from node_agent.backends.lvm.command import Lvm
from node_agent.backends.port import Backend
from node_agent.copying import copy
from node_agent.debts import Debts
from node_agent.fills import Fills
from node_agent.ground import Copier, Ground, Wiper
from node_agent.holds import Holds
from node_agent.locks import MOST_OPERATIONS, Operations
from node_agent.reporter import REFRESH_SECONDS, Reporter
from node_agent.stock import Stock
from node_agent.store_locks import STORE_PATIENCE_SECONDS, StoreLocks
from node_agent.tending import Tending
from node_agent.wipe import wipe
from ullage.run import Runner

UDEV_CONTROL = Path("/run/udev/control")
"""There while udevd runs: then LVM waits for it; without it, it would wait for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """An agent and the parts that a process starts, stops and measures."""

    agent: Agent
    stock: Stock
    operations: Operations
    reporter: Reporter
    holds: Holds
    fills: Fills
    tending: Tending

    def start(self) -> None:
        """Begin what goes on by itself: to look, and to give snapshots room."""
        self.reporter.start()
        self.tending.start()

    def stop(self, grace_seconds: float) -> bool:
        """Let what is under way end; False when something outlives the grace."""
        is_idle = self.operations.stop(grace_seconds)
        self.holds.let_go()
        self.tending.stop()
        self.reporter.stop()
        return is_idle


def backends(runner: Runner, lvm_prefix: Sequence[str] = (), debts: Debts | None = None) -> tuple[Backend, ...]:
    """Every kind of storage that this version serves; what they take and have to give back is noted in `debts`."""
    lvm = Lvm(runner=runner, prefix=tuple(lvm_prefix), has_udev=bool(lvm_prefix) or UDEV_CONTROL.exists())
    return (LvmBackend(lvm, debts), FileBackend(runner))


def assemble(  # noqa: PLR0913 - the outermost parts
    kinds: Sequence[Backend],
    *,
    wiper: Wiper | None = None,
    copier: Copier = copy,
    debts: Debts | None = None,
    refresh_seconds: float = REFRESH_SECONDS,
    store_patience_seconds: float = STORE_PATIENCE_SECONDS,
    most_operations: int = MOST_OPERATIONS,
) -> Assembly:
    """An agent over these backends; neither configured nor started. What it holds still is noted in `debts`."""
    stock = Stock()
    locks = StoreLocks(store_patience_seconds)
    operations = Operations(most_operations)
    fills = Fills()
    reporter = Reporter(stock, locks, kinds, refresh_seconds=refresh_seconds)
    holds = Holds(debts)
    ground = Ground(
        stock=stock,
        locks=locks,
        operations=operations,
        reporter=reporter,
        wiper=wiper or functools.partial(wipe, is_stopping=operations.is_stopping),
        copier=copier,
        fills=fills,
        holds=holds,
    )
    agent = Agent(kinds, ground)
    return Assembly(
        agent=agent,
        stock=stock,
        operations=operations,
        reporter=reporter,
        holds=holds,
        fills=fills,
        tending=Tending(agent.tend),
    )
