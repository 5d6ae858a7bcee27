"""What every rig asks of the machine it runs on: a cache outside the tree, and a sentence when something is missing."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class RigError(Exception):
    """The rig lacks something it needs on the host; the sentence says what to do."""


def cache_directory() -> Path:
    """Where the rigs keep what is slow to make: $ULLAGE_CACHE, else ullage/ in the user's cache."""
    if chosen := os.environ.get("ULLAGE_CACHE"):
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "ullage"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file alone: of two rigs that start at once one builds, the other waits and finds it done."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
