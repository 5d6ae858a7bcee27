"""One thing that is held for a while, by a thread of its own: what hangs in the kernel hangs there alone.

Whoever wants it waits for as long as it likes and no longer; the thread lets go when it is told to, and at its deadline
at the latest. A grip that comes when nobody waits for it any more is given back at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ullage.errors import PreconditionError, UllageError

THAW_SECONDS = 10.0
"""How long letting go is waited for; it goes on by itself, and says how it ended."""

log = logging.getLogger(__name__)


class Worker:
    """Something done in a thread of its own: the caller waits for as long as it likes."""

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._work = work
        self._failure: BaseException | None = None
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def failure(self, timeout_seconds: float) -> BaseException | None:
        """What ended it, or that it has not ended in time; None when all went well."""
        if not self.ended.wait(timeout_seconds):
            return TimeoutError(f"not done within {timeout_seconds:g} s; it goes on")
        return self._failure

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as failure:  # noqa: BLE001 - the top of a thread; whoever waits gets it
            self._failure = failure
        finally:
            self.ended.set()


class Grip:
    """One volume held, by a thread that lets go when it is told to, and at the deadline."""

    def __init__(self, name: str, how: Callable[[], Iterator[None]], deadline: float) -> None:
        self._name, self._how, self._deadline = name, how, deadline
        self._taken, self._told = threading.Event(), threading.Event()
        self._is_overdue = False
        self._failure: BaseException | None = None
        self._worker: Worker | None = None

    def take(self) -> None:
        """Raises PreconditionError when it cannot be held, or not in time."""
        self._worker = Worker(f"hold-{self._name}", self._hold)
        self._taken.wait(max(0.0, self._deadline - time.monotonic()))
        self.check()

    def end(self) -> None:
        """Let go although whoever has it is not done."""
        self._is_overdue = True
        self.give_back()

    def give_back(self) -> None:
        """Let go; does not raise."""
        self._told.set()
        late = self._worker.failure(THAW_SECONDS) if self._worker is not None else None
        failure = late or self._failure
        if failure is not None and not isinstance(failure, UllageError):
            log.error("a hold did not end well", extra={"held": self._name, "why": str(failure)})

    def check(self) -> None:
        """See `Hold.check`."""
        if isinstance(self._failure, UllageError):
            raise self._failure
        is_ended = self._worker is not None and self._worker.ended.is_set()
        if (
            self._failure is not None
            or self._is_overdue
            or not self._taken.is_set()
            or (self._told.is_set() and not is_ended)
        ):
            why = f": {self._failure}" if self._failure else ""
            raise PreconditionError(f"{self._name} could not be held still for as long as was needed{why}")

    def _hold(self) -> None:
        """Late as it may come: once nobody waits for it any more it is given back at once."""
        try:
            with contextmanager(self._how)():
                self._taken.set()
                if not self._told.wait(max(0.0, self._deadline - time.monotonic())):
                    self._is_overdue = True
        except BaseException as failure:  # noqa: BLE001 - as in Worker; known before anybody is told that it was taken
            self._failure = failure
        finally:
            self._taken.set()
