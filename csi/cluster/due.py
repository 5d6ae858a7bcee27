"""What is to be done when: names with a time each, and one thread that takes them as they fall due."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable


class Due:
    """Thread-safe. A name that is asked for twice is done once, at the earlier of the two times."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[str, float] = {}
        self._changed = threading.Condition()
        self._woken_at = math.inf
        """When whoever waits wakes by itself: what is due later need not wake it."""
        self._is_closed = False

    def put(self, names: Iterable[str], after_seconds: float = 0.0) -> None:
        """Have these done, at the latest that long from now."""
        with self._changed:
            at = self._clock() + after_seconds
            for name in names:
                self._times[name] = min(at, self._times.get(name, at))
            if at < self._woken_at:
                self._changed.notify_all()

    def take(self) -> str | None:
        """The name that is due first, once it is due; None when it is closed."""
        with self._changed:
            while not self._is_closed:
                first = min(self._times, key=lambda name: self._times[name], default=None)
                self._woken_at = math.inf if first is None else self._times[first]
                wait_seconds = None if first is None else self._woken_at - self._clock()
                if first is not None and wait_seconds is not None and wait_seconds <= 0:
                    del self._times[first]
                    return first
                self._changed.wait(wait_seconds)
            return None

    def open(self) -> None:
        """Forget everything, and begin again."""
        with self._changed:
            self._is_closed = False
            self._times.clear()

    def close(self) -> None:
        """Whoever waits is told that nothing comes any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
