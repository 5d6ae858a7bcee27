"""The driver under test: `ullage standalone` on sockets of its own, for as long as a run takes."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.rigs.host import RigError

PROGRAM = (str(Path(sys.executable).with_name("ullage")), "standalone")
NODE = "sanity"
START_SECONDS = 120.0
"""Under emulation Python alone takes some ten of these."""
STOP_SECONDS = 60.0
LEAVE_SECONDS = 10.0
"""The same when the run is lost anyway."""


class DriverError(Exception):
    """The driver did not do what it is there for, apart from what csi-sanity asks of it."""


@contextmanager
def serving(config: Path, base: Path, log: Path) -> Iterator[str]:
    """The driver's CSI endpoint. Raises DriverError when it does not start, dies meanwhile, or does not end well."""
    path = base / "csi.sock"
    endpoint = f"unix://{path}"
    argv = (*PROGRAM, "--config", str(config), "--csi-endpoint", endpoint)
    more = ("--socket", f"unix://{base}/agent.sock", "--node-name", NODE)
    with log.open("wb") as output:
        process = started((*argv, *more), output.fileno())
        try:
            _await(path, process)
            yield endpoint
            if process.poll() is not None:
                raise DriverError(f"the driver died meanwhile, with {process.returncode}")
            _stop(process)
        finally:
            end(process)


def started(argv: tuple[str, ...], output: int) -> subprocess.Popen[bytes]:
    """A process that Ctrl-C does not reach, and that goes when this one is killed outright; raises RigError."""
    try:
        return subprocess.Popen(
            ("setpriv", "--pdeathsig", "KILL", "--", *argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except FileNotFoundError as missing:
        raise RigError("setpriv is missing: run tests/rigs/install.py") from missing


def end(process: subprocess.Popen[bytes], patience_seconds: float = LEAVE_SECONDS) -> None:
    """Ask it to end, and end it if it does not."""
    if process.poll() is not None:
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience_seconds)
    process.kill()
    process.wait()


def _await(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(path):
        if process.poll() is not None:
            raise DriverError(f"the driver ended with {process.returncode} before it served")
        if time.monotonic() > deadline:
            raise DriverError(f"the driver does not serve {path} after {START_SECONDS:.0f} s")
        time.sleep(0.1)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        code = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise DriverError(f"the driver did not end {STOP_SECONDS:.0f} s after SIGTERM") from None
    if code != 0:
        raise DriverError(f"the driver ended with {code} on SIGTERM")
