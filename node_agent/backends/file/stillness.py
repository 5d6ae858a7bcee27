"""Whether a volume keeps still while its image is copied byte by byte.

Nobody can be seen writing to a block device. So its users are looked for, the device is taken for ourselves where it
has none, and afterwards the image's own times tell: they move with every write that reaches it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from node_agent.backends.file import uses
from node_agent.backends.file.directory import Entry
from node_agent.backends.file.loops import Loop
from node_agent.backends.file.moves import Moves
from ullage.errors import DeviceError, PreconditionError

TICK_SECONDS = 0.02
"""Longer than a file system's clock stands still: two writes within one tick may leave the same time on a file."""
ADVICE = "in a directory on xfs or btrfs it could be copied at once, whoever uses it"


@contextmanager
def still(moves: Moves, entry: Entry) -> Iterator[bool]:
    """Keep a volume as it is for the body; says whether it is mounted, so that the caller has to hold it at rest.

    Raises PreconditionError when it is in use otherwise or, at the end, when it was written to; DeviceError.
    """
    found = moves.devices(entry)
    with ExitStack() as held:
        is_mounted = _taken(held, entry, found)
        before = _flushed(moves, entry, found)
        time.sleep(TICK_SECONDS)
        yield is_mounted
        if _flushed(moves, entry, found) != before:
            raise PreconditionError(f"{entry.id} was written to while it was copied; {ADVICE}")


def flush(entry: Entry, found: tuple[Loop, ...]) -> None:
    """What was written to the volume's devices is in its image, at the latest now; raises DeviceError."""
    for loop in found:
        try:
            descriptor = os.open(loop.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as failure:
            raise DeviceError(f"{loop.path}, the device of {entry.id}, cannot be flushed: {failure}") from failure


def _taken(held: ExitStack, entry: Entry, found: tuple[Loop, ...]) -> bool:
    """Whether it is mounted; if not, nobody can mount it until the end."""
    seen = uses.mounts()
    if any(uses.mount_points(loop, seen) for loop in found):
        return True
    for loop in found:
        users = uses.visible(loop, seen)
        if users:
            raise PreconditionError(f"{entry.id} is in use as a raw device ({', '.join(users)}): {ADVICE}")
        try:
            held.enter_context(uses.claimed(loop))
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise DeviceError(f"{loop.path}, the device of {entry.id}, cannot be opened: {failure}") from failure
            who = "a mount in another namespace, swap or an exclusive opener"
            raise PreconditionError(f"{entry.id} is in use by {who}: {ADVICE}") from failure
    return False


def _flushed(moves: Moves, entry: Entry, found: tuple[Loop, ...]) -> tuple[int, int]:
    """The image's times, when all that was written is in it."""
    flush(entry, found)
    return moves.image_times(entry)
