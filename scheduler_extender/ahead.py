"""What requests go by, worked out ahead of them: of all nodes at once it takes longer than a reply may take.

After the first list nothing has been worked out, and after a change of a DeviceClass nothing of it holds any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from scheduler_extender.decisions import Decisions

LOOK_SECONDS = 0.1
SLICE_NODES = 50
"""So many take half a millisecond, and whoever asks meanwhile waits no longer for it."""
SLICE_SECONDS = 0.001


class Ahead:
    """From beginning to end of the context a thread sees to it."""

    def __init__(self, decisions: Decisions, is_loaded: Callable[[], bool]) -> None:
        """`is_loaded`: everything was listed; before that it would be work for nothing."""
        self._decisions = decisions
        self._is_loaded = is_loaded
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            while self._is_loaded() and self._decisions.work_ahead(SLICE_NODES):
                if self._stopping.wait(SLICE_SECONDS):
                    return
