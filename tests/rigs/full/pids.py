"""Processes that are known by a file, to whoever started them and to others: never mistaken for a later one."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path


def write(file: Path, pid: int) -> None:
    """It is this process from now on, or none when that is over already."""
    file.unlink(missing_ok=True)
    beside = file.with_suffix(".new")
    with suppress(OSError):
        beside.write_text(f"{pid} {_began(pid)}\n", encoding="ascii")
        beside.rename(file)


def living(file: Path) -> int | None:
    """The process, if it goes on."""
    with suppress(OSError, ValueError):
        pid, began = map(int, file.read_text(encoding="ascii").split())
        if began == _began(pid):
            return pid
    return None


def end(file: Path, number: signal.Signals = signal.SIGKILL, seconds: float | None = None) -> None:
    """Signal it and wait until it is over, and kill it when that takes too long; nothing when it is over."""
    pid = living(file)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(process, number)
            if not select.select([process], [], [], seconds)[0]:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [])
        finally:
            os.close(process)


def _began(pid: int) -> int:
    """When, in ticks since this machine's boot; raises OSError for one that is over."""
    state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    if state in "ZX":
        raise ProcessLookupError(pid)
    return int(rest[18])
