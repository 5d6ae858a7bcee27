"""A program on this machine that a test starts, waits for, stops, kills and starts again."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

from tests.rigs.host import RigError

START_SECONDS = 120.0
"""Many programs at once on few cores."""
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
ASK_SECONDS = 5.0
TAIL_LINES = 25
FIRST_PORT = 10000
LOCAL_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Process:
    """One program with its log, which all its lives share; every life is ready when `is_ready` says so."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        log: Path,
        is_ready: Callable[[], bool],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing runs yet. `environment` is added to the caller's."""
        self.name = log.stem
        self.log = log
        self._argv = [str(word) for word in argv]
        self._is_ready = is_ready
        self._environment = {**os.environ, **(environment or {})}
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the life that goes on; raises RigError when there is none."""
        return self._life().pid

    def start(self) -> None:
        """Start it and wait until it is ready; raises RigError, with the end of its log, when it does not become so."""
        self.begin()
        self.wait_until_ready()

    def begin(self) -> None:
        """Start it, without waiting for anything; raises RigError."""
        if self.is_alive():
            raise RigError(f"{self.name} runs already")
        self._running = spawned(self._argv, self.log, self._environment)

    def wait_until_ready(self) -> None:
        """Raises RigError, with the end of its log, when it ends before or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if not self.is_alive():
                raise RigError(f"{self.name} ended with {self._code()} before it was ready:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise RigError(f"{self.name} is not ready after {START_SECONDS:.0f} s:\n{self.tail()}")
            time.sleep(POLL_SECONDS)

    def is_alive(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def stop(self) -> int:
        """End it as an orderly shutdown does: its exit code. Raises RigError when it has to be killed."""
        life = self._life()
        life.terminate()
        try:
            return life.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RigError(f"{self.name} did not end {STOP_SECONDS:.0f} s after SIGTERM:\n{self.tail()}") from None

    def kill(self) -> None:
        """`kill -9`; nothing when it does not run."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def restart(self) -> None:
        """Stop it if it runs, and start it."""
        if self.is_alive():
            self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP and SIGCONT make a program hang, SIGHUP makes one read its configuration."""
        self._life().send_signal(number)

    def says(self, text: str) -> bool:
        """Whether it has logged this, in any of its lives."""
        return self.log.exists() and text in self.log.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no log)"
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def _life(self) -> subprocess.Popen[bytes]:
        if self._running is None or self._running.poll() is not None:
            raise RigError(f"{self.name} does not run (it ended with {self._code()}):\n{self.tail()}")
        return self._running

    def _code(self) -> int | None:
        return None if self._running is None else self._running.returncode


def spawned(
    argv: Sequence[str | Path], log: Path, environment: Mapping[str, str], *, outlives_us: bool = False
) -> subprocess.Popen[bytes]:
    """A program that runs, and dies with this process unless it outlives it; raises RigError when there is none."""
    bound = () if outlives_us else ("setpriv", "--pdeathsig", "KILL", "--")

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                (*bound, *map(str, argv)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    try:
        return _starter().submit(start).result()
    except FileNotFoundError as missing:
        raise RigError(f"{missing.filename} is missing: run tests/rigs/install.py") from missing


@cache
def _starter() -> ThreadPoolExecutor:
    """The thread that starts all programs, as old as the first and there until this process ends.

    The kernel kills them when the *thread* that has started them ends (PR_SET_PDEATHSIG), and a test that restarts a
    program in the background does so from a thread of its own.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback device that nothing listens on, each another one.

    From below those that the kernel gives to outgoing connections: a program that is started again needs its port, and
    while it was away a client's connection could have got it.
    """
    end = int(LOCAL_PORTS.read_text(encoding="ascii").split()[0])
    found: list[int] = []
    for port in random.sample(range(FIRST_PORT, end), end - FIRST_PORT):
        if len(found) == count:
            return found
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    raise RigError(f"no {count} free ports from {FIRST_PORT} to {end}")


def answers(path: Path) -> bool:
    """Whether something listens on the Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class Answers:
    """Whether something answers a GET with 200."""

    def __init__(self, url: str) -> None:
        """Over plain HTTP."""
        self._url = url

    def __call__(self) -> bool:
        try:
            with urllib.request.urlopen(self._url, timeout=ASK_SECONDS):  # noqa: S310 - http
                return True
        except OSError:
            return False
