"""Ways for a process, a program or a device to fail: doubles around the real ones.

Every double hands each step, by name and as a function, to an `Around`: it may let it happen, fail it before or after
it has happened, hold it up, or end the process there. A step of a program is its argument list, shell-quoted.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol, TypeVar, cast

from grpc import StatusCode

from node_agent.assembly import UDEV_CONTROL, Assembly, assemble
from node_agent.backends.file.backend import FileBackend
from node_agent.backends.file.files import DurableFiles, _written_aside
from node_agent.backends.lvm.backend import LvmBackend
from node_agent.backends.lvm.command import Lvm
from node_agent.backends.port import Backend, HeldStep, NewVolume, StoreReport
from node_agent.copying import Course, copy
from node_agent.locks import MOST_OPERATIONS
from node_agent.status import code_of
from node_agent.wipe import Moment, wipe
from ullage.capacity import Allocation
from ullage.errors import MIB, CommandFailedError, UllageError
from ullage.model import ByteRange, DeviceClass, DeviceType, Pool, StoreName, Volume, Wipe
from ullage.run import ENVIRONMENT, Finished, Runner, Subprocesses

T = TypeVar("T")
LONG_SECONDS = 600.0
"""Longer than anything here takes on the slowest machine: a wait that ends by it has failed.

A volume is made in seconds under emulation, and ten times as slowly beside other emulated machines.
"""


class Around(Protocol):
    """What happens to a step."""

    def __call__(self, step: str, act: Callable[[], T], /) -> T: ...


def undisturbed(_step: str, act: Callable[[], T]) -> T:
    return act()


class Death(BaseException):
    """The process ends here. Nothing of ours catches it, and no step of that process comes after it."""


def unwind() -> NoReturn:
    raise Death


def kill_myself() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def be_killed() -> NoReturn:
    raise CommandFailedError(argv=("a program",), exit_code=-signal.SIGKILL, stderr="")


class Fate:
    """Counts the steps once told to, and ends the process before or after the one that is doomed.

    With an `end` that is not final only that step fails, and the process goes on.
    """

    def __init__(self, end: Callable[[], NoReturn] = unwind, *, is_final: bool = True) -> None:
        self.steps: list[str] = []
        self._end, self._is_final = end, is_final
        self._at, self._is_after = -1, False
        self._is_counting = self._is_dead = False

    def count(self) -> None:
        self._is_counting = True

    def doom(self, at: int, *, is_after: bool) -> None:
        self._at, self._is_after = at, is_after
        self.count()

    def __call__(self, step: str, act: Callable[[], T], /) -> T:
        if self._is_dead:
            raise Death  # what a dead process would still have done while it unwinds
        if not self._is_counting:
            return act()
        is_mine = len(self.steps) == self._at
        self.steps.append(step)
        if is_mine and not self._is_after:
            self._die()
        try:
            return act()
        finally:
            if is_mine:
                self._die()

    def _die(self) -> NoReturn:
        self._is_dead = self._is_final
        self._end()


@dataclass
class Stall:
    """Holds up the first steps that contain all of `words`, until `release`."""

    words: tuple[str, ...] = ()
    times: int = 1 << 30
    entered: threading.Event = field(default_factory=threading.Event)
    count: int = 0
    _released: threading.Event = field(default_factory=threading.Event)

    def __call__(self, step: str, act: Callable[[], T], /) -> T:
        if all(word in step for word in self.words) and self.count < self.times:
            self.count += 1
            self.entered.set()
            assert self._released.wait(LONG_SECONDS)
        return act()

    def wait(self) -> None:
        assert self.entered.wait(LONG_SECONDS)

    def release(self) -> None:
        self._released.set()


@dataclass
class KilledHalfway:
    """Really starts a program and kills it with SIGKILL as soon as `is_half_done`, or lets it end before that."""

    words: tuple[str, ...]
    is_half_done: Callable[[], bool]
    times: int = 1
    exit_codes: list[int] = field(default_factory=list)

    def __call__(self, step: str, act: Callable[[], T], /) -> T:
        if len(self.exit_codes) >= self.times or not all(word in step for word in self.words):
            return act()
        argv = shlex.split(step)
        quiet = subprocess.DEVNULL
        with subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet, env=ENVIRONMENT) as process:
            while process.poll() is None and not self.is_half_done():
                pass
            process.kill()
        self.exit_codes.append(process.returncode)
        raise CommandFailedError(argv=argv, exit_code=-signal.SIGKILL, stderr="")


@dataclass
class Hanging:
    """Looking programs whose argument list contains all of `words` really hang, and are given little time."""

    words: tuple[str, ...]
    is_on: bool = False
    count: int = 0

    def __call__(self, step: str, act: Callable[[], T], /) -> T:
        if not self.is_on or not all(word in step for word in self.words):
            return act()
        self.count += 1
        return cast("T", Subprocesses().look(HANGING, timeout_seconds=0.1))


HANGING = ("sleep", "86399")


def has_device(name: str) -> bool:
    """Whether the kernel has a device-mapper device of this name (LVM doubles the hyphens of its names)."""
    for block in Path("/sys/class/block").glob("dm-*"):
        try:
            if (block / "dm/name").read_text().strip() == name:
                return True
        except OSError:
            continue
    return False


class Programs:
    """A Runner."""

    def __init__(self, change: Around = undisturbed, look: Around = undisturbed, real: Runner | None = None) -> None:
        self._change, self._look = change, look
        self._real = real or Subprocesses()

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        return self._look(
            shlex.join(argv),
            lambda: self._real.look(argv, timeout_seconds=timeout_seconds, stdin=stdin, accepted=accepted, into=into),
        )

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        return self._change(shlex.join(argv), lambda: self._real.change(argv, stdin=stdin, accepted=accepted))


class OurFiles:
    """The file backend's Files."""

    def __init__(self, around: Around) -> None:
        self._around, self._real = around, DurableFiles()

    def write(self, directory: int, name: str, content: bytes) -> None:
        self._aside(directory, name, content)
        self._around(f"write {name}", lambda: self._real.write(directory, name, content))

    def write_new(self, directory: int, name: str, content: bytes) -> None:
        self._aside(directory, name, content)
        self._around(f"write new {name}", lambda: self._real.write_new(directory, name, content))

    def _aside(self, directory: int, name: str, content: bytes) -> None:
        """A process that really dies here leaves its temporary file."""
        with _written_aside(directory, content):
            self._around(f"write aside {name}", lambda: None)

    def make(self, directory: int, name: str) -> None:
        self._around(f"make {name}", lambda: self._real.make(directory, name))

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        self._around(f"lengthen {name}", lambda: self._real.lengthen(directory, name, size_bytes, is_sparse=is_sparse))

    def shorten(self, directory: int, name: str, size_bytes: int) -> None:
        self._around(f"shorten {name}", lambda: self._real.shorten(directory, name, size_bytes))

    def clone(self, directory: int, source: str, name: str, *, mode: int) -> None:
        self._aside(directory, name, b"")
        self._around(f"clone {name}", lambda: self._real.clone(directory, source, name, mode=mode))

    def copy(self, directory: int, source: str, name: str, *, mode: int, go_on: Callable[[int], None]) -> None:
        self._aside(directory, name, b"")
        self._around(f"copy {name}", lambda: self._real.copy(directory, source, name, mode=mode, go_on=go_on))

    def unlink(self, directory: int, name: str) -> None:
        self._around(f"unlink {name}", lambda: self._real.unlink(directory, name))


class Steps:
    """A Backend. Files are wiped, too, where the policy says so: nothing needs it, and the order of steps is tested."""

    def __init__(self, real: Backend, around: Around = undisturbed, around_looks: Around = undisturbed) -> None:
        self._real, self._around, self._around_looks = real, around, around_looks
        self.types = real.types

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        self._real.configure(classes)

    def look(self) -> tuple[StoreReport, ...]:
        return self._real.look()

    def look_at(self, store: StoreName) -> StoreReport:
        return self._around_looks(f"look at {store}", lambda: self._real.look_at(store))

    def needs_wipe(self, volume_type: DeviceType, wipe: Wipe) -> bool:
        is_file = volume_type is DeviceType.FILE and wipe is not Wipe.NONE
        return is_file or self._real.needs_wipe(volume_type, wipe)

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> None:
        self._around(f"make pool {pool.name}", lambda: self._real.make_pool(pool, device_class))

    def create(self, new: NewVolume) -> Volume:
        return self._around(f"create {new.id}", lambda: self._real.create(new))

    def expand(self, volume: Volume, growth: Allocation, *, needs_wipe: bool) -> Volume:
        return self._around(f"expand {volume.id}", lambda: self._real.expand(volume, growth, needs_wipe=needs_wipe))

    def held_step(self, source: Volume, *, is_mounted: bool) -> HeldStep:
        return self._real.held_step(source, is_mounted=is_mounted)

    def renew(self, snapshots: Sequence[Volume]) -> None:
        self._around(f"renew {', '.join(each.id for each in snapshots)}", lambda: self._real.renew(snapshots))

    def is_copied_by_bytes(self, source: Volume) -> bool:
        return self._real.is_copied_by_bytes(source)

    def reading(self, volume: Volume) -> AbstractContextManager[int]:
        return self._real.reading(volume)

    def image(self, volume: Volume) -> AbstractContextManager[int | None]:
        return self._real.image(volume)

    def note_filled(self, volume: Volume, filled_bytes: int) -> Volume:
        step = f"note {filled_bytes} bytes of {volume.id}"
        return self._around(step, lambda: self._real.note_filled(volume, filled_bytes))

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:
        return self._real.allocated(snapshot)

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:
        return self._real.changed(base, target)

    def settle(self, volume: Volume) -> Volume:
        return self._around(f"settle {volume.id}", lambda: self._real.settle(volume))

    def set_wipe(self, volume: Volume, wipe: Wipe) -> Volume:
        return self._around(f"set wipe of {volume.id}", lambda: self._real.set_wipe(volume, wipe))

    def condemn(self, volume: Volume) -> Volume:
        return self._around(f"condemn {volume.id}", lambda: self._real.condemn(volume))

    def remove(self, volume: Volume) -> None:
        self._around(f"remove {volume.id}", lambda: self._real.remove(volume))

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> None:
        self._around(f"activate {store}", lambda: self._real.activate(store, volumes))


class Wipes:
    """A Wiper that works in two halves, so that it can be ended in the middle."""

    def __init__(self, around: Around = undisturbed) -> None:
        self._around = around

    def __call__(  # noqa: PLR0913 - a Wiper
        self,
        device_path: str,
        policy: Wipe,
        *,
        moment: Moment,
        start_bytes: int,
        end_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        middle = (start_bytes + end_bytes) // 2 // 4096 * 4096
        first = functools.partial(wipe, device_path, policy, moment=moment, start_bytes=start_bytes, end_bytes=middle)
        self._around(f"half a wipe of {device_path}", first)
        whole = functools.partial(
            wipe, device_path, policy, moment=moment, start_bytes=start_bytes, end_bytes=end_bytes, progress=progress
        )
        self._around(f"wipe of {device_path}", whole)


@dataclass
class Copies:
    """A Copier that has a checkpoint every few steps, and tells where it began and how far it is before each next."""

    around: Around = undisturbed
    starts: list[int] = field(default_factory=list)

    def __call__(  # noqa: PLR0913 - a Copier
        self, source: int, device_path: str, course: Course, *, start_bytes: int, end_bytes: int, is_blank: bool
    ) -> None:
        self.starts.append(start_bytes)
        watched = _Watched(course, self.around)
        copy(
            source,
            device_path,
            watched,
            start_bytes=start_bytes,
            end_bytes=end_bytes,
            is_blank=is_blank,
            checkpoint_bytes=CHECKPOINT_BYTES,
        )


CHECKPOINT_BYTES = 8 * MIB


@dataclass(frozen=True)
class _Watched:
    """A Course."""

    real: Course
    around: Around

    def reached(self, offset_bytes: int) -> None:
        self.around(f"copied up to {offset_bytes}", lambda: self.real.reached(offset_bytes))

    def durable(self, offset_bytes: int) -> None:
        self.real.durable(offset_bytes)

    def pause_seconds(self, moved_bytes: int) -> float:
        return self.real.pause_seconds(moved_bytes)

    def is_stopping(self) -> bool:
        return self.real.is_stopping()


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """What happens to each kind of step of an agent."""

    change: Around = undisturbed
    look: Around = undisturbed
    files: Around = undisturbed
    port: Around = undisturbed
    reports: Around = undisturbed
    wipes: Around = undisturbed
    copies: Around | Copies = undisturbed

    def assembly(
        self, *, store_patience_seconds: float = LONG_SECONDS, most_operations: int = MOST_OPERATIONS
    ) -> Assembly:
        """An agent, not configured, that is disturbed so."""
        runner = Programs(self.change, self.look)
        kinds = (
            Steps(LvmBackend(Lvm(runner=runner, has_udev=UDEV_CONTROL.exists())), self.port, self.reports),
            Steps(FileBackend(runner, OurFiles(self.files)), self.port, self.reports),
        )
        return assemble(
            kinds,
            wiper=Wipes(self.wipes),
            copier=self.copies if isinstance(self.copies, Copies) else Copies(self.copies),
            store_patience_seconds=store_patience_seconds,
            most_operations=most_operations,
        )


def begun(assembly: Assembly, classes: Sequence[DeviceClass]) -> Assembly:
    """After a start of the process, with everything ended that an earlier one had begun."""
    assembly.agent.configure(list(classes))
    assembly.agent.recover()
    idle(assembly)
    return assembly


def code_from(ask: Callable[[], object]) -> StatusCode:
    """What a caller over gRPC is told: OK, or the code of what is raised."""
    try:
        ask()
    except UllageError as refused:
        return code_of(refused)
    return StatusCode.OK


def idle(assembly: Assembly) -> None:
    """Wait for the operations under way."""
    operations = assembly.operations
    with operations._changed:
        assert operations._changed.wait_for(lambda: not operations._running, LONG_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    """Poll what tells nobody when it changes."""
    pause = threading.Event()
    for _ in range(int(LONG_SECONDS / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it never came")
