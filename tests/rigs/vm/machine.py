"""One throw-away virtual machine that runs one command on the host's own files.

`run` blocks from boot to exit and leaves nothing behind: QEMU dies with it (also when the rig itself is killed), the
disks are files without a name, the rest is in one temporary directory. It uses no fixed name, port or path, so several
may run at once, each in its own thread or process.

Between guest and rig there are three one-way pipes through virtio-serial: what the command prints (stdout, stderr) and
what the guest's init says about it ("ready", then "exit N").
"""

import contextlib
import os
import re
import selectors
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.rigs.vm import kernel, qemu

TIMED_OUT = 124
NO_GUEST = 125
BOOT_SECONDS = 180.0  # 5 s alone on four cores; the rest is for several on a busy machine of two
DISKS_AT_MOST = 20  # PCI slots
CONSOLE_TAIL_LINES = 40


def machines_at_once() -> int:
    """How many to run beside each other: a guest keeps one processor busy, and one of two seldom a second."""
    return len(os.sched_getaffinity(0))


class GuestError(Exception):
    """The guest did not come up, or died under the command; `console` is the end of what its kernel printed."""

    def __init__(self, sentence: str, console: str) -> None:
        super().__init__(sentence)
        self.console = console


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the guest has. Disks are /dev/vda, /dev/vdb…: blank, sparse, serial ullage-0, ullage-1 and so on.

    kept: further disks behind these, which outlive the machine, each as QEMU's `-drive` is told of it (`volatile.py`).
    collect: host directory the guest sees as /results; the only thing on the host it can write.
    network: give it eth0 on QEMU's user network; the host's loopback is 10.0.2.2 there.
    forwards: (port on the host's loopback, port in the guest); means network.
    """

    disk_bytes: tuple[int, ...] = ()
    kept: tuple[str, ...] = ()
    cpus: int = 4
    memory_bytes: int = 2 << 30
    collect: Path | None = None
    network: bool = False
    forwards: tuple[tuple[int, int], ...] = ()


class Plug:
    """What a machine's power can be cut by, from another thread than the one that runs it."""

    def __init__(self) -> None:
        """No machine has it yet."""
        self._qemu: subprocess.Popen[bytes] | None = None

    def put_in(self, running: subprocess.Popen[bytes]) -> None:
        """From now on it is this machine's."""
        self._qemu = running

    def pull(self) -> None:
        """SIGKILL: nothing is shut down, nothing is flushed. `run` raises GuestError then."""
        if self._qemu is not None:
            self._qemu.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How it ended. exit_code is the command's own, or TIMED_OUT when its time was over."""

    exit_code: int
    is_timed_out: bool
    seconds_to_ready: float
    seconds: float


@dataclass(slots=True, kw_only=True)
class _Progress:
    """What the control pipe has said so far."""

    started_at: float = field(default_factory=time.monotonic)
    heard: bytes = b""
    ready_at: float | None = None
    exit_code: int | None = None
    is_timed_out: bool = False

    def hear(self, chunk: bytes) -> None:
        self.heard += chunk
        if self.ready_at is None and b"ready\n" in self.heard:
            self.ready_at = time.monotonic()
        if found := re.search(rb"^exit (\d+)\n", self.heard, re.MULTILINE):
            self.exit_code = int(found[1])

    def seconds_left(self, timeout_seconds: float) -> float:
        if self.ready_at is None:
            return self.started_at + BOOT_SECONDS - time.monotonic()
        return self.ready_at + timeout_seconds - time.monotonic()


def run(  # noqa: PLR0913 - what a process is given, all by name
    machine: Machine,
    command: Sequence[str],
    *,
    timeout_seconds: float = 3600.0,
    env: Mapping[str, str] | None = None,
    tree: Path | None = None,
    stdout: BinaryIO | None = None,
    stderr: BinaryIO | None = None,
    plug: Plug | None = None,
) -> Result:
    """Boot, run `command` as root in `tree` (default: the current directory), and end.

    timeout_seconds is the command's own time, from the moment it starts; booting has BOOT_SECONDS. What the command
    prints is copied at once to `stdout` and `stderr` (default: this process's own). An empty command is a shell on
    this process's terminal, without a time limit. Raises GuestError and RigError.
    """
    interactive = not command
    sinks = {"stdout": stdout or sys.stdout.buffer, "stderr": stderr or sys.stderr.buffer}
    booted = kernel.get()
    with tempfile.TemporaryDirectory(prefix="ullage-vm-") as scratch, contextlib.ExitStack() as cleanup:
        directory = Path(scratch)
        qemu.write_job(directory, _job(machine, command, env or {}, (tree or Path.cwd()).absolute()), booted)
        disks = [cleanup.enter_context(_disk(size_bytes)) for size_bytes in machine.disk_bytes]
        pipes = {port: os.pipe() for port in qemu.PORTS}
        readers = {port: cleanup.enter_context(os.fdopen(pipe[0], "rb", buffering=0)) for port, pipe in pipes.items()}
        writers = {port: pipe[1] for port, pipe in pipes.items()}
        guest = _guest(machine, directory, disks, writers, interactive=interactive)
        # When the rig is killed outright, QEMU goes too.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *qemu.argv(guest, booted)]
        progress = _Progress()
        try:
            if interactive:
                cleanup.enter_context(_terminal_kept())
            running = subprocess.Popen(
                argv,
                pass_fds=(*disks, *writers.values()),
                stdin=None if interactive else subprocess.DEVNULL,
                # In a session of its own Ctrl-C reaches the rig only, which then ends QEMU.
                start_new_session=not interactive,
            )
        finally:
            for writer in writers.values():
                os.close(writer)
        if plug is not None:
            plug.put_in(running)
        try:
            _follow(readers, sinks, progress, None if interactive else timeout_seconds, running)
        finally:
            running.kill()
            running.wait()
        return _result(progress, directory / "console")


def _result(progress: _Progress, console: Path) -> Result:
    ended_at = time.monotonic()
    if progress.ready_at is None:
        late = ended_at - progress.started_at >= BOOT_SECONDS
        sentence = f"did not come up within {BOOT_SECONDS:.0f} s" if late else "ended while booting"
        raise GuestError(f"The guest {sentence}.", _tail(console))
    if progress.exit_code is None:
        raise GuestError("The guest died while the command ran.", _tail(console))
    return Result(
        exit_code=progress.exit_code,
        is_timed_out=progress.is_timed_out,
        seconds_to_ready=progress.ready_at - progress.started_at,
        seconds=ended_at - progress.started_at,
    )


def _tail(console: Path) -> str:
    if not console.exists():
        return "(QEMU did not start; its own message is above)"
    return "\n".join(console.read_text(errors="replace").splitlines()[-CONSOLE_TAIL_LINES:])


def _follow(
    readers: Mapping[str, BinaryIO],
    sinks: Mapping[str, BinaryIO],
    progress: _Progress,
    timeout_seconds: float | None,
    running: subprocess.Popen[bytes],
) -> None:
    """Copy what comes until QEMU has closed every pipe, which it does when it dies; end it when the job is done."""
    with selectors.DefaultSelector() as selector:
        for port, reader in readers.items():
            selector.register(reader, selectors.EVENT_READ, port)
        while selector.get_map():
            left = progress.seconds_left(float("inf") if timeout_seconds is None else timeout_seconds)
            if left <= 0 and progress.exit_code is None:
                if progress.ready_at is not None:
                    progress.exit_code = TIMED_OUT
                    progress.is_timed_out = True
                running.kill()
            waiting = None if left == float("inf") or left <= 0 else left
            for key, _ in selector.select(waiting):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.data == "control":
                    progress.hear(chunk)
                    if progress.exit_code is not None:
                        running.kill()
                else:
                    sinks[key.data].write(chunk)
                    sinks[key.data].flush()


@contextlib.contextmanager
def _disk(size_bytes: int) -> Iterator[int]:
    """Yield the descriptor of a sparse file that has no name: it is gone with its last user, however that ends."""
    with tempfile.TemporaryFile(prefix="ullage-vm-disk-") as blank:
        blank.truncate(size_bytes)
        yield blank.fileno()


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Put the terminal back as it was: QEMU sets it raw and is killed."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _job(machine: Machine, command: Sequence[str], env: Mapping[str, str], tree: Path) -> qemu.Job:
    return qemu.Job(
        command=command,
        tree=tree,
        environment=env,
        has_results=machine.collect is not None,
        address=qemu.Address() if machine.network or machine.forwards else None,
    )


def _guest(
    machine: Machine, directory: Path, disks: Sequence[int], writers: Mapping[str, int], *, interactive: bool
) -> qemu.Guest:
    drives = (*(qemu.of_file(f"/dev/fd/{disk}") for disk in disks), *machine.kept)
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in machine.forwards)
    return qemu.Guest(
        directory=directory,
        cpus=machine.cpus,
        memory_bytes=machine.memory_bytes,
        disks=[qemu.Disk(drive=drive, serial=f"ullage-{number}") for number, drive in enumerate(drives)],
        ports={port: f"/dev/fd/{writer}" for port, writer in writers.items()},
        network=f"user{forwards}" if machine.network or machine.forwards else "",
        collect=machine.collect,
        is_interactive=interactive,
    )
