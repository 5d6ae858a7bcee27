"""The one door to other programs.

Argument lists, never a shell; a fixed PATH; LC_ALL=C; nothing on standard input but what we send; no inherited
descriptors. `look` kills a program that outlives its limit, and its children with it. `change` never kills: a changing
LVM command that is killed can leave a device suspended and a udev cookie behind, so its caller waits for as long as it
takes (and whoever waits for the caller may give up instead, see `node_agent.locks`). Every program runs in a session of
its own, so that a signal to our process group does not reach it. What may say more than fits in memory says it `into` a
file instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO, BinaryIO, Protocol

from ullage.errors import CommandError, CommandFailedError, CommandMissingError, CommandTimedOutError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
KEPT_RUNS, KEPT_CHARACTERS = 32, 2000
"""For a look back. A report of 500 volumes has 300 kB: whole ones would be most of an agent's memory."""
DYING_SECONDS = 2.0
"""A killed program is gone at once, unless the kernel holds it: then nobody waits for it longer than this."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A program that has ended with exit code 0 (or another that the caller said it reads)."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float


class Runner(Protocol):
    """Runs programs; injected, so that a test can make any of them fail, hang, or be the last thing a process does."""

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        """Run a program that changes nothing; raises CommandTimedOutError (it was killed), CommandFailedError.

        Its standard output goes `into` that file, if given, and not into what is answered.
        """

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        """Run a program that changes something, to its end, however long; raises CommandFailedError."""


class Subprocesses:
    """The real Runner. `observe` is told how each run ended (for metrics); the last runs are kept for a look back."""

    def __init__(self, observe: Callable[[Sequence[str], float, CommandError | None], None] = lambda *_: None) -> None:
        """No state but the last runs."""
        self._observe = observe
        self._kept: deque[Finished] = deque(maxlen=KEPT_RUNS)
        self._lock = threading.Lock()

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        """See Runner."""
        return self._observed(argv, timeout_seconds, stdin, accepted, into)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        """See Runner."""
        return self._observed(argv, None, stdin, accepted, None)

    def flight_record(self) -> tuple[Finished, ...]:
        """The last runs that ended by themselves, oldest first."""
        with self._lock:
            return tuple(self._kept)

    def _observed(
        self,
        argv: Sequence[str],
        timeout_seconds: float | None,
        stdin: str,
        accepted: Sequence[int],
        into: BinaryIO | None,
    ) -> Finished:
        started = time.monotonic()
        try:
            finished = self._run(argv, timeout_seconds, stdin, accepted, into)
        except CommandError as failure:
            seconds = time.monotonic() - started
            log.warning("command failed", extra={"argv": tuple(argv), "why": str(failure), "seconds": seconds})
            self._observe(argv, seconds, failure)
            raise
        log.debug("command ended", extra={"argv": finished.argv, "seconds": finished.seconds})
        self._observe(argv, finished.seconds, None)
        return finished

    def _run(
        self,
        argv: Sequence[str],
        timeout_seconds: float | None,
        stdin: str,
        accepted: Sequence[int],
        into: BinaryIO | None,
    ) -> Finished:
        started = time.monotonic()
        try:
            process = subprocess.Popen(  # noqa: S603 - argument lists only; that is what this module is for
                [find(argv[0]), *argv[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if into is None else into,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
                # Ignored here, and so there: a changing command that outlives us must not end at its next word to us.
                restore_signals=timeout_seconds is not None,
            )
        except (OSError, ValueError) as failure:  # ValueError: an argument that cannot be one, such as "a\0b"
            raise CommandFailedError(argv=argv, exit_code=127, stderr=str(failure)) from failure
        try:
            stdout, stderr = process.communicate(stdin, timeout=timeout_seconds)
        except subprocess.TimeoutExpired as failure:
            end_session(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                _close(pipe)
            raise CommandTimedOutError(
                f"{' '.join(argv)} gave no answer in {timeout_seconds:g} s and was ended", argv=argv
            ) from failure
        finished = Finished(
            argv=tuple(argv),
            exit_code=process.returncode,
            stdout=stdout or "",
            stderr=stderr,
            seconds=time.monotonic() - started,
        )
        with self._lock:
            self._kept.append(_shortened(finished))
        if finished.exit_code not in accepted:
            raise CommandFailedError(argv=argv, exit_code=finished.exit_code, stderr=stderr)
        return finished


class Process(Protocol):
    """What `end_session` needs of a subprocess.Popen."""

    @property
    def pid(self) -> int:
        """Also the number of its session."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired."""


def end_session(process: Process) -> None:
    """Kill a looking program and its children (they hold its pipes), and see it off.

    One in state D, as lvm is behind a suspended device, heeds no signal: a thread waits for it instead of the caller.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its session has one process group, with its own number
    try:
        process.wait(DYING_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("command heeds no signal", extra={"pid": process.pid})
        threading.Thread(target=process.wait, name=f"reaper-{process.pid}", daemon=True).start()


def _close(pipe: IO[str] | None) -> None:
    """What is still in the buffer of a dead program's standard input has nowhere to go."""
    with contextlib.suppress(BrokenPipeError):
        if pipe is not None:
            pipe.close()


def _shortened(finished: Finished) -> Finished:
    return replace(finished, stdout=finished.stdout[:KEPT_CHARACTERS], stderr=finished.stderr[:KEPT_CHARACTERS])


def find(program: str) -> str:
    """The program's full path; raises CommandMissingError naming the Debian package to install."""
    path = shutil.which(program, path=PATH)
    if path is None:
        package = PACKAGES.get(program)
        hint = f"; install Debian's {package} or your distribution's like" if package else ""
        raise CommandMissingError(f"{program} is not in {PATH}{hint}", argv=(program,))
    return path


PACKAGES = {
    "blkid": "util-linux",
    "btrfs": "btrfs-progs",
    "dmsetup": "dmsetup",
    "e2fsck": "e2fsprogs",
    "losetup": "mount",
    "lvm": "lvm2",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mount": "mount",
    "nsenter": "util-linux",
    "resize2fs": "e2fsprogs",
    "thin_check": "thin-provisioning-tools",
    "thin_delta": "thin-provisioning-tools",
    "thin_dump": "thin-provisioning-tools",
    "umount": "mount",
    "wipefs": "util-linux",
    "xfs_growfs": "xfsprogs",
}
