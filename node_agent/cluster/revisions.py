"""NodeStorage's revisions: the stock's versions, counted from where no earlier process has been.

A LogicalVolume is told with the revision of now, after the operation; a report read later has a revision as large, and
counts it. Whoever reads both knows what is still to be subtracted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

VERSIONS_PER_MS = 1000
"""A process would have to change its stock as often as this in each millisecond to pass the next one's beginning."""


class Revisions:
    """Thread-safe. Nothing is to be told before `settle`."""

    def __init__(self, version: Callable[[], int], now: Callable[[], float] = time.time) -> None:
        """`version` is the stock's; `now` seconds since 1970, in case it was never published on this node."""
        self._version = version
        self._guard = threading.Lock()
        self._base = int(now() * 1000) * VERSIONS_PER_MS
        self._promised = 0

    def settle(self, told: int) -> None:
        """Go on behind what was told by somebody: a clock may have been set back."""
        with self._guard:
            if told >= self._base + self._version():
                self._base = told + 1

    def now(self) -> int:
        """Of a report that is read after this."""
        with self._guard:
            return self._base + self._version()

    def promise(self, revision: int) -> None:
        """A volume is told with this revision: such a report has to come even if it says nothing else that is new."""
        with self._guard:
            self._promised = max(self._promised, revision)

    @property
    def promised(self) -> int:
        """The largest revision that a volume was told with."""
        with self._guard:
            return self._promised
