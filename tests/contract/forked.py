"""Processes that need not import what they run: each is forked off one that has imported it all and does nothing else.

Under emulation a driver's imports take five seconds, a hundred times as long as a fork. What is forked is a process
like any other: it is killed, it dies, its memory and threads are its own. That a program also starts by itself is
proved where it is started by its name: by `test_process`, `test_standalone_cli` and csi-sanity.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ullage.cli import SUBCOMMANDS

_DYING = ("contract.dying", "contract.dying_group", "contract.filling_and_dying", "csi.dying")
_ON_DEMAND = ("csi.metrics", "node_agent.metrics", "node_agent.service", "node_agent.udev")
"""What `ullage standalone` imports only when it serves."""
_CONTEXT = multiprocessing.get_context("forkserver")
# `__main__` too, or each process would run pytest's main module anew.
_CONTEXT.set_forkserver_preload(
    [
        "__main__",
        *(f"ullage.cli.{name}" for name in SUBCOMMANDS),
        *(f"tests.{name}" for name in _DYING),
        *_ON_DEMAND,
    ]
)
_SET_PARENT_DEATH_SIGNAL = 1


class Forked:
    """A process that runs a program's main function; its exit code is what that returns, as `sys.exit` takes it."""

    def __init__(self, main: Callable[..., int | None], *arguments: object, log: Path | None = None) -> None:
        """`main` is a function of a module, with a name there; all that is printed is appended to `log`."""
        self._process = _CONTEXT.Process(target=_become, args=(main, arguments, log))
        self._process.start()

    def poll(self) -> int | None:
        """Its exit code, if it has ended: of `signal.Signals`, negated, if one of them ended it."""
        return self._process.exitcode

    def wait(self, timeout_seconds: float) -> int:
        """Its exit code; raises TimeoutExpired."""
        self._process.join(timeout_seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout_seconds)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Unless it is known to have ended."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)


def _become(main: Callable[..., int | None], arguments: tuple[object, ...], log: Path | None) -> None:
    # It goes with the process that forked it, and that one with ours, however that ends.
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if log is not None:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
    sys.exit(main(*arguments))
