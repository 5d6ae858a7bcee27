"""A piece of work that is done again and again while this controller leads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ullage.errors import UllageError

RETRY_SECONDS = 10.0

log = logging.getLogger(__name__)


class Repeated:
    """One thread from `start` to `stop`; may be started again.

    A round that fails is told in the log and comes again soon. A round asks `is_stopping` before each step that changes
    anything: by then another controller may lead.
    """

    def __init__(self, name: str, every_seconds: float, work: Callable[[], None]) -> None:
        """The first round begins at once."""
        self._name = name
        self._every_seconds = every_seconds
        self._work = work
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether the round under way is to end."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Begin, or begin again."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stopping,), name=self._name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have the next round begin now, or once the one under way has ended."""
        self._woken.set()

    def stop(self) -> None:
        """End after the step under way."""
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            pause_seconds = self._every_seconds
            self._woken.clear()
            if stopping.is_set():
                return
            try:
                self._work()
            except UllageError as failure:
                pause_seconds = min(pause_seconds, RETRY_SECONDS)
                log.warning("round not ended", extra={"loop": self._name, "why": str(failure)})
            except Exception:
                log.exception("round failed", extra={"loop": self._name})
            self._woken.wait(pause_seconds)
