"""What the demo needs around it: a volume group or a directory, a driver, and a way out of all of it.

Nothing here is left behind: every process is ended by its id, and what the way back has missed is swept up at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from tests.rigs.sanity import driver as process
from tests.rigs.sanity.stores import mount_points
from ullage.csi_client import driver_at
from ullage.errors import GIB, UllageError
from ullage.pb.csi.v1 import csi_pb2 as pb

START_SECONDS, END_SECONDS, COMMAND_SECONDS = 120.0, 30.0, 60.0
"""In the VM everything takes ten times longer."""
DEVICE_SECONDS = 10.0
"""The kernel lets go of a loop device's file a moment after it was detached."""
CLASS = "demo"
GROUP = "ullagedemo"
DISK_BYTES = 2 * GIB
FILES = f"""\
deviceClasses:
  - name: {CLASS}
    type: file
    directory: %s
"""
LVM = f"""\
deviceClasses:
  - name: {CLASS}
    type: thick
    volumeGroups: [{GROUP}]
"""


class Interruption:
    """A signal is noted, and heeded between two steps: in the middle of one it could cost the way back."""

    def __init__(self) -> None:
        """Ask for the signals that end a program."""
        self._is_wished = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._noted)

    def heed(self) -> None:
        """Raise KeyboardInterrupt if a signal has come; called before whatever makes something new."""
        if self._is_wished:
            raise KeyboardInterrupt

    def _noted(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_wished:
            os.write(2, b"demo: interrupted; what was made is taken away again\n")  # print is not for signal handlers
        self._is_wished = True


@contextmanager
def storage(base: Path, interruption: Interruption) -> Iterator[Path]:
    """Storage of one class, and the configuration that names it; the kernel says which kind it can be."""
    has_lvm = any("device-mapper" in line for line in Path("/proc/misc").read_text(encoding="ascii").splitlines())
    print("storage: LVM on a loop device" if has_lvm else "storage: files (this kernel has no device-mapper)")
    config = base / "config.yaml"
    if has_lvm:
        with _volume_group(base, interruption):
            config.write_text(LVM, encoding="utf-8")
            yield config
    else:
        (base / "volumes").mkdir()
        config.write_text(FILES % (base / "volumes"), encoding="utf-8")
        yield config


@contextmanager
def driver(config: Path, base: Path, interruption: Interruption) -> Iterator[str]:
    """A driver of our own, ready to serve at this address."""
    address = f"unix://{base}/csi.sock"
    sockets = ("--csi-endpoint", address, "--socket", f"unix://{base}/agent.sock")
    argv = (*process.PROGRAM, "--config", str(config), *sockets, "--node-name", "demo", "--log-level", "warning")
    running = process.started(argv, sys.stderr.fileno())
    try:
        _wait_for(address, running, interruption)
        yield address
    finally:
        process.end(running, END_SECONDS)


def _wait_for(socket: str, running: subprocess.Popen[bytes], interruption: Interruption) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        interruption.heed()
        if running.poll() is not None:
            raise UllageError(f"the driver ended with {running.returncode} before it served")
        if time.monotonic() > deadline:
            raise UllageError(f"the driver does not serve {socket} after {START_SECONDS:.0f} s")
        with suppress(UllageError), driver_at(socket) as client:
            if client.identity.Probe(pb.ProbeRequest(), timeout=1.0).ready.value:
                return
        time.sleep(0.1)


@contextmanager
def _volume_group(base: Path, interruption: Interruption) -> Iterator[None]:
    """A volume group on a sparse file."""
    disk = base / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    device = _run("losetup", "--find", "--show", str(disk)).strip()
    try:
        interruption.heed()
        _run("vgcreate", "--yes", "--quiet", GROUP, device)
        try:
            yield
        finally:
            _unmount_all(base)  # a driver that died has left its mounts, and they hold the group
            _run("vgremove", "--force", "--yes", "--quiet", GROUP)
    finally:
        _run("losetup", "--detach", device)


def swept(base: Path) -> list[str]:
    """Take away what the steps' own way back has left; a sentence for each thing that will not go.

    After a run without accidents there is nothing to do. The directory is only removed when nothing is mounted in it.
    """
    _unmount_all(base)
    deadline = time.monotonic() + DEVICE_SECONDS
    while loops := _loops(base):
        for device in loops:
            with suppress(UllageError):
                _run("losetup", "--detach", device)
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    left = [f"still mounted: {place}" for place in mount_points(base)]
    left += [f"still attached: {device}" for device in loops]
    if left:
        return left
    shutil.rmtree(base)
    return []


def _unmount_all(base: Path) -> None:
    for place in reversed(mount_points(base)):
        with suppress(UllageError):
            _run("umount", str(place))


def _loops(base: Path) -> list[str]:
    lines = _run("losetup", "--noheadings", "--output", "NAME,BACK-FILE").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [pair[0] for pair in pairs if pair[-1].startswith(f"{base}/")]


def _run(*argv: str) -> str:
    """A program's output; in a session of its own, so that Ctrl-C does not reach it. Raises UllageError."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=COMMAND_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise UllageError(f"{' '.join(argv)} failed: {failure}") from failure
    if done.returncode != 0:
        raise UllageError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout
