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
import shlex
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from tests.rigs.host import RigError
from tests.rigs.vm import accelerator, kernel

GUEST_SCRIPT = Path(__file__).with_name("guest.sh")
GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check tsc=reliable"
    # What guards a machine against its users costs an emulated one dear. Above all: with programs at random addresses
    # QEMU translates each of them anew each time it is started, which makes `lvs` half as dear again.
    " norandmaps nosmap init_on_alloc=0 apparmor=0 transparent_hugepage=never no5lvl"
)

TIMED_OUT = 124
NO_GUEST = 125
# Without the user's start-up files: a version manager in them can take ten seconds under emulation.
SHELL = ("/bin/bash", "--noprofile", "--norc")
BOOT_SECONDS = 180.0  # 5 s alone on four cores; the rest is for several on a busy machine of two
DISKS_AT_MOST = 20  # PCI slots
CONSOLE_TAIL_LINES = 40
PORTS = ("control", "stdout", "stderr")  # numbered from 1 in the guest: /dev/vport0p1…


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

    collect: host directory the guest sees as /results; the only thing on the host it can write.
    network: give it eth0 on QEMU's user network; the host's loopback is 10.0.2.2 there.
    forwards: (port on the host's loopback, port in the guest); means network.
    """

    disk_bytes: tuple[int, ...] = ()
    cpus: int = 4
    memory_bytes: int = 2 << 30
    collect: Path | None = None
    network: bool = False
    forwards: tuple[tuple[int, int], ...] = ()


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
) -> Result:
    """Boot, run `command` as root in `tree` (default: the current directory), and end.

    timeout_seconds is the command's own time, from the moment it starts; booting has BOOT_SECONDS. What the command
    prints is copied at once to `stdout` and `stderr` (default: this process's own). An empty command is a shell on
    this process's terminal, without a time limit. Raises GuestError and RigError.
    """
    interactive = not command
    sinks = {"stdout": stdout or sys.stdout.buffer, "stderr": stderr or sys.stderr.buffer}
    if shutil.which("qemu-system-x86_64") is None:
        raise RigError("qemu-system-x86_64 is missing: run tests/rigs/install.py")
    booted = kernel.get()
    with tempfile.TemporaryDirectory(prefix="ullage-vm-") as scratch, contextlib.ExitStack() as cleanup:
        directory = Path(scratch)
        shutil.copy(GUEST_SCRIPT, directory / "guest.sh")
        job = _job(machine, command, env or {}, (tree or Path.cwd()).absolute(), booted)
        (directory / "job.sh").write_text(job)
        disks = [cleanup.enter_context(_disk(size_bytes)) for size_bytes in machine.disk_bytes]
        pipes = {port: os.pipe() for port in PORTS}
        readers = {port: cleanup.enter_context(os.fdopen(pipe[0], "rb", buffering=0)) for port, pipe in pipes.items()}
        writers = {port: pipe[1] for port, pipe in pipes.items()}
        argv = _qemu(machine, booted, directory, disks, writers, interactive=interactive)
        progress = _Progress()
        try:
            if interactive:
                cleanup.enter_context(_terminal_kept())
            qemu = subprocess.Popen(
                argv,
                pass_fds=(*disks, *writers.values()),
                stdin=None if interactive else subprocess.DEVNULL,
                # In a session of its own Ctrl-C reaches the rig only, which then ends QEMU.
                start_new_session=not interactive,
            )
        finally:
            for writer in writers.values():
                os.close(writer)
        try:
            _follow(readers, sinks, progress, None if interactive else timeout_seconds, qemu)
        finally:
            qemu.kill()
            qemu.wait()
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
    qemu: subprocess.Popen[bytes],
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
                qemu.kill()
            waiting = None if left == float("inf") or left <= 0 else left
            for key, _ in selector.select(waiting):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.data == "control":
                    progress.hear(chunk)
                    if progress.exit_code is not None:
                        qemu.kill()
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


def _job(machine: Machine, command: Sequence[str], env: Mapping[str, str], tree: Path, booted: kernel.Kernel) -> str:
    """What the guest's scripts read: plain variables, and the command as a shell function."""
    size = shutil.get_terminal_size()
    variables = {
        "rig_tree": str(tree),
        "rig_modules": str(booted.modules),
        "rig_results": _yes(machine.collect is not None),
        "rig_network": _yes(machine.network or bool(machine.forwards)),
        "rig_interactive": _yes(not command),
        "rig_rows": str(size.lines),
        "rig_columns": str(size.columns),
    }
    environment = {"PATH": GUEST_PATH, "HOME": str(Path.home()), "USER": "root", "LC_ALL": "C.UTF-8", **env}
    if not command:
        environment = {"TERM": os.environ.get("TERM", "linux"), "PS1": r"\h:\w# ", **environment}
    words = [
        "env",
        "-i",
        *(f"{name}={value}" for name, value in environment.items()),
        *(command or SHELL),
    ]
    lines = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*lines, f"rig_command() {{ cd {shlex.quote(str(tree))} && exec {shlex.join(words)}; }}", ""])


def _yes(statement: bool) -> str:  # noqa: FBT001 - its only argument
    return "yes" if statement else "no"


def _qemu(  # noqa: PLR0913 - the parts of one command line
    machine: Machine,
    booted: kernel.Kernel,
    directory: Path,
    disks: Sequence[int],
    writers: Mapping[str, int],
    *,
    interactive: bool,
) -> list[str]:
    argv = [
        *("setpriv", "--pdeathsig", "KILL", "--"),  # when the rig is killed outright, QEMU goes too
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"),
        *accelerator.choose(booted),
        *("-smp", str(machine.cpus), "-m", f"{machine.memory_bytes >> 20}M"),
        *("-kernel", str(booted.image), "-initrd", str(booted.initramfs)),
        *("-append", f"{KERNEL_ARGUMENTS} ullage.job={directory}"),
        *("-chardev", f"file,id=console,path={_escaped(directory / 'console')}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci,max_ports=8"),
    ]
    for number, port in enumerate(PORTS, start=1):
        argv += ["-chardev", f"file,id={port},path=/dev/fd/{writers[port]}"]
        argv += ["-device", f"virtserialport,chardev={port},nr={number}"]
    if interactive:
        argv += ["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal,nr=0"]
    argv += _share("root", Path("/"), ",multidevs=remap,readonly=on")
    if machine.collect is not None:
        machine.collect.mkdir(parents=True, exist_ok=True)
        argv += _share("results", machine.collect.absolute(), "")
    for number, disk in enumerate(disks):
        # The disks live as long as the machine: no flush need reach the host's own disk.
        options = "format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap"
        argv += ["-drive", f"if=none,id=disk{number},file=/dev/fd/{disk},{options}"]
        argv += ["-device", f"virtio-blk-pci,drive=disk{number},serial=ullage-{number}"]
    if machine.network or machine.forwards:
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for host, guest in machine.forwards)
        argv += ["-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
    return argv


def _escaped(path: Path) -> str:
    """A comma ends a value in QEMU's options, two are one."""
    return str(path).replace(",", ",,")


def _share(tag: str, path: Path, options: str) -> list[str]:
    share = f"local,id={tag},path={_escaped(path)},security_model=none{options}"
    return ["-fsdev", share, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
