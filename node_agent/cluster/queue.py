"""What is to be looked at again, and when: one entry for each key, and one worker for each key at a time.

What is asked for twice before a worker comes is done once; what is asked for while a worker is at it is done once more
afterwards. A key that fails comes back later and later, up to a bound, and never at the same moment as others.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

FIRST_SECONDS = 0.1
MOST_SECONDS = 30.0
JITTER = 0.2


class WorkQueue:
    """Thread-safe. A node has some hundreds of keys at most: they are gone through, not sorted."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(1 - JITTER, 1 + JITTER),  # noqa: S311 - spreads load, hides nothing
    ) -> None:
        """Empty, and open until `stop`."""
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._is_stopping = False

    def add(self, key: str, within_seconds: float = 0.0) -> None:
        """Have the key looked at within so many seconds; what is due earlier stays so."""
        with self._changed:
            due = self._clock() + within_seconds
            self._due[key] = min(due, self._due.get(key, due))
            self._changed.notify_all()

    def retry(self, key: str, most_seconds: float = MOST_SECONDS) -> None:
        """The key has failed: have it looked at again, later than the last time."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            seconds = min(most_seconds, FIRST_SECONDS * 2 ** min(failures - 1, 16))
        self.add(key, seconds * self._jitter())

    def settle(self, key: str) -> None:
        """The key has not failed: its next failure is its first."""
        with self._changed:
            self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """How often in a row it has failed."""
        with self._changed:
            return self._failures.get(key, 0)

    def hasten(self, within_seconds: float) -> None:
        """Have whatever waits looked at within so many seconds: what it failed for may be over."""
        with self._changed:
            bound = self._clock() + within_seconds
            self._due = {key: min(due, bound) for key, due in self._due.items()}
            self._changed.notify_all()

    def take(self) -> str | None:
        """The key that has been due for longest, once one is; it is the caller's until `done`. None: the end."""
        with self._changed:
            while not self._is_stopping:
                free = [(due, key) for key, due in self._due.items() if key not in self._busy]
                due, key = min(free, default=(None, ""))
                now = self._clock()
                if due is not None and due <= now:
                    del self._due[key]
                    self._busy.add(key)
                    return key
                self._changed.wait(None if due is None else due - now)
            return None

    def done(self, key: str) -> None:
        """The caller of `take` is done with it."""
        with self._changed:
            self._busy.discard(key)
            self._changed.notify_all()

    def stop(self) -> None:
        """End every `take`, now and from now on."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """How many keys wait or are worked on."""
        with self._changed:
            return len(self._due.keys() | self._busy)
