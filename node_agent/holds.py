"""Volumes kept from being written to for a moment, so that what is made of them then is of one moment.

A mounted file system is frozen (FIFREEZE): everything acknowledged is on its device, and whoever writes waits. A volume
that nobody uses is opened for ourselves alone, so that nobody mounts it meanwhile. What is written to past a file
system (a published block device, a device that another is stacked on, one that is open and mounted nowhere that we see)
cannot be held, and is refused. Not seen is who opens the device of a file volume without claiming it or being shown it.

Whatever happens, a freeze ends. Each has a thread of its own, which thaws when it is told to, and at the hold's
deadline at the latest. Each is noted before it is made (`node_agent.debts`), and what a process that died has left
frozen is thawed by the next. A freeze of somebody else's is left alone; only where a process dies between its note and
its own freeze can the next one not tell them apart.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from node_agent import mounts
from node_agent.debts import Debts
from node_agent.grips import THAW_SECONDS, Grip, Worker
from node_agent.mounts import Mount
from ullage.errors import DeviceError, PreconditionError
from ullage.model import Volume

FROZEN = "frozen"
"""The kind of debt."""
FREEZE, THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW of <linux/fs.h>
Ioctl = Callable[[int, int, int], object]
_FEW = 3

log = logging.getLogger(__name__)


class Hold:
    """Some volumes being held, or having been."""

    def __init__(self, grips: Sequence[Grip]) -> None:
        self._grips = tuple(grips)

    def check(self) -> None:
        """Raise PreconditionError when a volume could be written to before the hold was given back.

        Asked during a hold it tells whether all are held yet; only asked after it, whether they were until its end.
        """
        for grip in self._grips:
            grip.check()


class Holds:
    """Thread-safe. Keeps the holds of this process, and ends those of the last."""

    def __init__(self, debts: Debts | None = None, ioctl: Ioctl = fcntl.ioctl) -> None:
        """Without `debts` nothing is noted, and what this process leaves frozen by its death stays so."""
        self._debts = debts or Debts()
        self._ioctl = ioctl
        self._guard = threading.Lock()
        self._grips: set[Grip] = set()
        self._on_end: Callable[[float], None] = lambda _: None

    def tell(self, on_end: Callable[[float], None]) -> None:
        """Call `on_end(seconds)` after each hold."""
        self._on_end = on_end

    @contextmanager
    def still(self, volumes: Sequence[Volume], limit_seconds: float) -> Iterator[Hold]:
        """Keep every volume from being written to, for `limit_seconds` at most; see `Hold.check`.

        Whether they are open must be freshly known. Raises PreconditionError for one that cannot be held.
        """
        deadline = time.monotonic() + limit_seconds
        table = mounts.read()
        grips = [
            Grip(f"{volume.id} ({why})", how, deadline)
            for volume in sorted(volumes, key=lambda each: each.id)
            if volume.is_active
            for why, how in [self._way(volume, table)]
        ]
        with self._held(grips, [volume.id for volume in volumes]) as hold:
            yield hold

    @contextmanager
    def at_rest(self, volume: Volume, limit_seconds: float) -> Iterator[Hold]:
        """Freeze the volume's file system where it has one mounted; anything else is left as it is."""
        mounted = _mounts_of(volume, mounts.read()) if volume.is_active else ()
        with self.still([volume] if mounted else [], limit_seconds) as hold:
            yield hold

    def check_holdable(self, volumes: Sequence[Volume]) -> None:
        """Raise PreconditionError for the first that `still` would refuse, as far as it can be told by looking."""
        table = mounts.read()
        for volume in volumes:
            if volume.is_active:
                self._way(volume, table)

    def is_mounted(self, volume: Volume) -> bool:
        """Whether a file system on it is mounted where we see it."""
        return bool(_mounts_of(volume, mounts.read()))

    def let_go(self) -> None:
        """Give everything back now: the process ends."""
        with self._guard:
            grips = tuple(self._grips)
        for grip in grips:
            grip.end()

    def thaw_left_over(self) -> None:
        """Thaw what a process that died has left frozen; to be done before anything touches those devices."""
        for debt in self._debts.left(FROZEN):
            facts = debt.facts
            failure = Worker(f"thaw-{facts.get('volume', '')}", partial(_thaw_left, facts)).failure(THAW_SECONDS)
            if failure is not None:
                self._debts.owe(FROZEN, facts)  # for the next start
                log.error("a file system may still be frozen", extra={**facts, "why": str(failure)})

    @contextmanager
    def _held(self, grips: Sequence[Grip], names: Sequence[str]) -> Iterator[Hold]:
        began = time.monotonic()
        with ExitStack() as given_back:  # the last first, and all of them even if one fails
            for grip in grips:
                with self._guard:
                    self._grips.add(grip)
                given_back.callback(self._give_back, grip)
                grip.take()
            yield Hold(grips)
        seconds = time.monotonic() - began
        self._on_end(seconds)
        log.info("held still", extra={"volumes": sorted(names), "seconds": round(seconds, 3)})

    def _give_back(self, grip: Grip) -> None:
        grip.give_back()
        with self._guard:
            self._grips.discard(grip)

    def _way(self, volume: Volume, table: Sequence[Mount]) -> tuple[str, Callable[[], Iterator[None]]]:
        """How to hold it; raises PreconditionError."""
        published = _published(volume, table)
        if published:
            raise _cannot(volume, f"its device is published at {', '.join(published[:_FEW])}")
        mounted = _mounts_of(volume, table)
        holders = _holders(volume)
        if holders:
            raise _cannot(volume, f"{', '.join(holders[:_FEW])} lies on it")
        if mounted:
            return "frozen", lambda: self._frozen(volume, mounted)
        if volume.is_open:
            raise _cannot(volume, "it is open, and not as a file system that is mounted where we see it")
        return "claimed", lambda: _claimed(volume)

    def _frozen(self, volume: Volume, mounted: Sequence[Mount]) -> Iterator[None]:
        descriptor, place = _opened(volume, mounted)
        try:
            facts = {"volume": volume.id, "device": f"{volume.device_major}:{volume.device_minor}"}
            paid = self._debts.owe(FROZEN, facts)
            try:
                self._ioctl(descriptor, FREEZE, 0)
            except OSError as failure:
                paid()
                if failure.errno == errno.EBUSY:
                    raise _cannot(volume, f"the file system at {place} is frozen by somebody else") from failure
                if failure.errno == errno.EOPNOTSUPP and mounted[0].is_read_only:
                    yield
                    return
                raise _cannot(volume, f"{place} cannot be frozen: {failure.strerror}") from failure
            try:
                yield
            finally:
                self._thaw(volume, descriptor, place)
                paid()
        finally:
            os.close(descriptor)

    def _thaw(self, volume: Volume, descriptor: int, place: str) -> None:
        try:
            self._ioctl(descriptor, THAW, 0)
        except OSError as failure:
            if failure.errno == errno.EINVAL:
                raise PreconditionError(f"{place} ({volume.id}) was thawed by somebody else during a hold") from failure
            log.error("not thawed", extra={"path": place, "volume_id": volume.id, "why": str(failure)})  # noqa: TRY400
            raise DeviceError(f"{place} ({volume.id}) cannot be thawed: {failure.strerror}") from failure


@contextmanager
def _claim(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _claimed(volume: Volume) -> Iterator[None]:
    """Nobody else mounts it, stacks a device on it, or claims it; and nobody is shown it meanwhile."""
    try:
        with _claim(volume.device_path) as descriptor:
            os.fsync(descriptor)  # what an earlier user wrote and the kernel has not yet
            yield
    except OSError as failure:
        if failure.errno != errno.EBUSY:
            raise DeviceError(f"{volume.device_path} cannot be opened: {failure.strerror}") from failure
        raise _cannot(volume, "somebody has it for himself, and not as a mount that we see") from failure
    published = _published(volume, mounts.read())
    if published:
        raise _cannot(volume, f"its device was published at {', '.join(published[:_FEW])} meanwhile")


def _cannot(volume: Volume, why: str) -> PreconditionError:
    return PreconditionError(f"volume {volume.id} cannot be held still: {why}", volume_id=volume.id)


def _opened(volume: Volume, mounted: Sequence[Mount]) -> tuple[int, str]:
    """A directory of the file system: one mount can be hidden under another, or be a file's."""
    for mount in mounted:
        try:
            descriptor = os.open(mount.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        if mounts.mount_id(descriptor) == mount.id:
            return descriptor, mount.place
        os.close(descriptor)
    raise _cannot(volume, f"none of its mounts can be reached ({', '.join(each.place for each in mounted[:_FEW])})")


def _thaw_left(facts: dict[str, str]) -> None:
    """Raises OSError, ValueError."""
    major, minor = map(int, facts["device"].split(":"))
    mounted = [each for each in mounts.read() if each.device_number() == os.makedev(major, minor) and not each.is_node]
    for mount in mounted:
        try:
            descriptor = os.open(mount.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            continue
        try:
            if mounts.mount_id(descriptor) == mount.id:
                _thaw_again(descriptor, facts, mount.place)
                return
        finally:
            os.close(descriptor)
    log.warning("nothing is mounted any more of what may have been left frozen", extra=facts)


def _thaw_again(descriptor: int, facts: dict[str, str], place: str) -> None:
    try:
        fcntl.ioctl(descriptor, THAW, 0)
    except OSError as failure:
        if failure.errno != errno.EINVAL:  # it had not come to it, or is thawed already
            raise
        return
    log.warning("thawed what an earlier process had left frozen", extra={**facts, "path": place})


def _number(volume: Volume) -> int:
    return os.makedev(max(0, volume.device_major), max(0, volume.device_minor))


def _mounts_of(volume: Volume, table: Sequence[Mount]) -> tuple[Mount, ...]:
    number = _number(volume)
    return tuple(mount for mount in table if not mount.is_node and mount.device_number() == number)


def _published(volume: Volume, table: Sequence[Mount]) -> tuple[str, ...]:
    number = _number(volume)
    return tuple(mount.place for mount in table if mount.node_number() == number)


def _holders(volume: Volume) -> tuple[str, ...]:
    """Devices on top of it, as sysfs tells them."""
    try:
        return tuple(
            sorted(os.listdir(Path(f"/sys/dev/block/{volume.device_major}:{volume.device_minor}/holders")))  # noqa: PTH208
        )
    except OSError:
        return ()
