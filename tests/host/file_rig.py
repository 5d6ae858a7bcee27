"""A real directory of volumes for one test, and the ways to break it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from node_agent.backends.file import loops, uses
from node_agent.backends.file.backend import FileBackend
from node_agent.backends.file.files import DurableFiles, Files
from node_agent.backends.port import Backend, NewVolume, StoreReport
from ullage.capacity import Allocation
from ullage.model import DeviceClass, DeviceClassName, DeviceType, Owner, StoreName, Volume, VolumeId
from ullage.run import Finished, Runner, Subprocesses

MIB = 1 << 20
T = TypeVar("T")
OWNER = Owner(pv_name="pv-1", claim_namespace="default", claim_name="web-0", claim_uid="u-1")


def ran(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@dataclass
class Rig:
    """A backend over one directory; `reborn` is what a restart of the process leaves: the disk."""

    directory: Path
    is_sparse: bool = False
    reserve_bytes: int = 0
    runner: Runner = field(default_factory=Subprocesses)
    files: Files = field(default_factory=DurableFiles)
    backend: Backend = field(init=False)

    def __post_init__(self) -> None:
        self.backend = FileBackend(self.runner, self.files)
        self.backend.configure([self.device_class])

    @property
    def device_class(self) -> DeviceClass:
        return DeviceClass(
            name=DeviceClassName("files"),
            type=DeviceType.FILE,
            directory=str(self.directory),
            is_sparse=self.is_sparse,
            reserve_bytes=self.reserve_bytes,
        )

    def reborn(self, runner: Runner | None = None, files: Files | None = None) -> Rig:
        return Rig(
            self.directory,
            is_sparse=self.is_sparse,
            reserve_bytes=self.reserve_bytes,
            runner=runner or Subprocesses(),
            files=files or DurableFiles(),
        )

    def report(self) -> StoreReport:
        (report,) = self.backend.look()
        return report

    def volume(self, name: str = "a") -> Volume:
        return next(v for v in self.report().volumes if v.id == name)

    def create(self, name: str = "a", mib: int = 8, *, needs_wipe: bool = False) -> Volume:
        (pool,) = self.report().pools
        created = self.backend.create(
            NewVolume(
                id=VolumeId(name),
                device_class=self.device_class,
                pool=pool,
                allocation=Allocation(pool=pool.name, size_bytes=mib * MIB),
                owner=OWNER,
                needs_wipe=needs_wipe,
            )
        )
        assert created == self.volume(name)
        return created

    def expand(self, mib: int, name: str = "a", *, needs_wipe: bool = False) -> Volume:
        volume = self.volume(name)
        growth = Allocation(pool=volume.pool, size_bytes=mib * MIB)
        assert self.backend.expand(volume, growth, needs_wipe=needs_wipe) == self.volume(name)
        return self.volume(name)

    def activate(self, *names: str) -> None:
        self.backend.activate(StoreName(str(self.directory)), [self.volume(name) for name in names])

    def names(self) -> set[str]:
        return set(os.listdir(self.directory))  # noqa: PTH208 - names are what is compared

    def image(self, name: str = "a") -> Path:
        return self.directory / f"{name}.img"

    def record(self, name: str = "a") -> Path:
        return self.directory / f"{name}.json"

    def loops(self) -> list[str]:
        return [loop.path for loop in loops.attached() if loop.file_path.startswith(str(self.directory))]


def cleaned(root: Path) -> None:
    """Detach and unmount everything under a test's folder."""
    for loop in loops.attached():
        if loop.file_path.startswith(f"{root}/"):
            ran("losetup", "--detach", loop.path)  # one that is mounted goes with its mount
    for mount in reversed(uses.mounts()):
        if mount.place.startswith(f"{root}/"):
            _unmounted(mount.place)


def _unmounted(place: str) -> None:
    """The kernel lets go of a detached loop device's file a moment later."""
    for _ in range(50):
        if subprocess.run(["umount", place], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    ran("umount", place)


@dataclass
class Fate:
    """Counts changes, and ends the process with SIGKILL before or after the one it is told."""

    change: int
    is_after: bool
    seen: int = 0

    def suffered(self, act: Callable[[], T]) -> T:
        mine = self.seen == self.change
        self.seen += 1
        if mine and not self.is_after:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = act()
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


class MortalRunner:
    """A Runner whose process may die at any change."""

    def __init__(self, fate: Fate) -> None:
        self._fate, self._real = fate, Subprocesses()

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        return self._real.look(argv, timeout_seconds=timeout_seconds, stdin=stdin, accepted=accepted, into=into)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        return self._fate.suffered(lambda: self._real.change(argv, stdin=stdin, accepted=accepted))


class MortalFiles:
    """Files whose process may die at any change."""

    def __init__(self, fate: Fate) -> None:
        self._fate, self._real = fate, DurableFiles()

    def write(self, directory: int, name: str, content: bytes) -> None:
        self._fate.suffered(lambda: self._real.write(directory, name, content))

    def write_new(self, directory: int, name: str, content: bytes) -> None:
        self._fate.suffered(lambda: self._real.write_new(directory, name, content))

    def make(self, directory: int, name: str) -> None:
        self._fate.suffered(lambda: self._real.make(directory, name))

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        self._fate.suffered(lambda: self._real.lengthen(directory, name, size_bytes, is_sparse=is_sparse))

    def shorten(self, directory: int, name: str, size_bytes: int) -> None:
        self._fate.suffered(lambda: self._real.shorten(directory, name, size_bytes))

    def _half(self, directory: int) -> None:
        """A process that dies while it fills a file leaves it, without a name that means anything."""
        os.close(os.open(".ullage-half.tmp", os.O_CREAT, 0o400, dir_fd=directory))
        self._fate.suffered(lambda: os.unlink(".ullage-half.tmp", dir_fd=directory))

    def clone(self, directory: int, source: str, name: str, *, mode: int) -> None:
        self._half(directory)
        self._fate.suffered(lambda: self._real.clone(directory, source, name, mode=mode))

    def copy(self, directory: int, source: str, name: str, *, mode: int, go_on: Callable[[int], None]) -> None:
        self._half(directory)
        self._fate.suffered(lambda: self._real.copy(directory, source, name, mode=mode, go_on=go_on))

    def unlink(self, directory: int, name: str) -> None:
        self._fate.suffered(lambda: self._real.unlink(directory, name))


def killed_while(rig: Rig, step: Callable[[Rig], object], change: int, *, is_after: bool) -> bool:
    """Run the step in another process that dies at its nth change; False when it has fewer."""
    child = os.fork()
    if child == 0:
        exit_code = 1
        try:
            fate = Fate(change, is_after)
            step(rig.reborn(MortalRunner(fate), MortalFiles(fate)))
            exit_code = 0
        finally:
            os._exit(exit_code)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the step failed by itself: {status}"
    return status == signal.SIGKILL


Step = Callable[[Rig], object]


def deaths(root: Path, *, is_sparse: bool, is_after: bool, ready: Step, step: Step) -> list[Rig]:
    """One directory for each change of the step, every one left by a process that died there."""
    left: list[Rig] = []
    while True:
        directory = root / f"died-{len(left)}"
        directory.mkdir()
        rig = Rig(directory, is_sparse=is_sparse)
        ready(rig)
        if not killed_while(rig, step, len(left), is_after=is_after):
            break
        left.append(rig.reborn())
    assert len(left) >= 2
    return left


def gone(rig: Rig) -> None:
    """Delete it as the agent would, from whatever is there."""
    for volume in rig.report().volumes:
        rig.backend.condemn(volume)
        rig.backend.remove(volume)
    assert rig.names() <= {".ullage.json"}
    assert rig.loops() == []
    assert rig.report().orphans == ()
