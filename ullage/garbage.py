"""Python's garbage collector, kept from stopping a process that holds very much for the time it takes to go through it.

It stops every thread while it looks for cycles, at every so many new objects: with a hundred thousand volumes in memory
for a second and more. So there is no search while all is read, and what has been there for a while is set aside, never
to be searched again. What becomes garbage there is freed all the same, by its count of references; only a cycle that
is given up later stays.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

ASIDE_SECONDS = 60.0
"""What changes in this time is searched: some thousands of objects, a millisecond or two."""
LOOK_SECONDS = 0.1


class SparedOf:
    """From beginning to end of the context this process is spared of long searches; one such at a time."""

    def __init__(self, is_loaded: Callable[[], bool]) -> None:
        """`is_loaded`: all that will stay is there."""
        self._is_loaded = is_loaded
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="garbage", daemon=True)

    def __enter__(self) -> Self:
        gc.disable()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        gc.unfreeze()
        gc.enable()

    def _run(self) -> None:
        while not self._is_loaded():
            if self._stopping.wait(LOOK_SECONDS):
                return
        gc.collect()
        gc.freeze()
        gc.enable()
        while not self._stopping.wait(ASIDE_SECONDS):
            gc.collect()  # first, or cycles that were given up since would stay for good
            gc.freeze()
