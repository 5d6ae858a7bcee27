"""Keeps the stock true: looks after our own changes, when the kernel says that block devices changed, and now and then.

Wishes are coalesced. A burst of changes on one store costs one look soon after it, a burst of events one look at
everything. Events are hints only: the slow refresh, jittered so that nodes do not all look at once, finds what no event
told.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from node_agent.backends.port import Backend
from node_agent.locks import StoreLocks
from node_agent.stock import Stock
from ullage.errors import StoreBusyError
from ullage.model import StoreName

QUIET_SECONDS = 0.5
"""A look waits until nothing has been wished for this long, so that one look serves a burst …"""
MOST_SECONDS = 2.0
"""… but no longer than this after the first wish."""
EVENT_SECONDS = 0.3
"""The same for kernel events; an LVM command causes several within some ten milliseconds."""
REFRESH_SECONDS = 300.0
JITTER = 0.2

log = logging.getLogger(__name__)


class Reporter:
    """One thread that looks; `look_now` may be called from any."""

    def __init__(
        self,
        stock: Stock,
        locks: StoreLocks,
        backends: Sequence[Backend],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked at before `look_now` or `start`."""
        self._stock = stock
        self._locks = locks
        self._backends = tuple(backends)
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._backend_of: dict[StoreName, Backend] = {}
        self._wishes: dict[StoreName, tuple[float, float]] = {}
        self._everything_due = clock() + self._jittered()
        self._wished = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to look by itself."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look under way, if any (a look has a time limit of its own)."""
        with self._wished:
            self._is_stopping = True
            self._wished.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def backend_of(self, store: StoreName) -> Backend | None:
        """Which backend reported this store."""
        return self._backend_of.get(store)

    def wish(self, store: StoreName) -> None:
        """Ask for a look at one store, soon: we have changed it."""
        with self._wished:
            now = self._clock()
            first, _ = self._wishes.get(store, (now, now))
            self._wishes[store] = (first, min(now + QUIET_SECONDS, first + MOST_SECONDS))
            self._wished.notify_all()

    def wish_everything(self) -> None:
        """Ask for a look at everything, soon: something outside of us may have changed."""
        with self._wished:
            self._everything_due = min(self._everything_due, self._clock() + EVENT_SECONDS)
            self._wished.notify_all()

    def look_now(self) -> None:
        """Look at everything and put it into the stock before returning; raises StoreBusyError."""
        for store in self._look_at_everything():
            self.look_at(store)

    def look_at(self, store: StoreName, patience_seconds: float | None = None) -> None:
        """Look at one store, with its lock held so that no change of ours overtakes the look; raises StoreBusyError."""
        backend = self._backend_of.get(store)
        if backend is None:
            return
        with self._locks.hold(store, "a report", patience_seconds):
            self.look_at_locked(store)

    def look_at_locked(self, store: StoreName) -> None:
        """The same for a caller that holds the store's lock already."""
        backend = self._backend_of.get(store)
        if backend is not None:
            with self._wished:
                self._wishes.pop(store, None)
            self._stock.put(backend.look_at(store))

    def _look_at_everything(self) -> list[StoreName]:
        """The stores whose look a change of ours has overtaken: they are to be looked at again."""
        with self._wished:
            self._everything_due = self._clock() + self._jittered()
            self._wishes.clear()
        seen: list[StoreName] = []
        overtaken: list[StoreName] = []
        for backend in self._backends:
            since = self._stock.changes()
            for report in backend.look():
                seen.append(report.name)
                self._backend_of = {**self._backend_of, report.name: backend}
                if report.problem is not None:
                    log.warning("store unreadable", extra={"store": report.name, "reason": report.problem.reason})
                if not self._stock.put(report, since):
                    overtaken.append(report.name)
        self._stock.keep_only(seen)
        return overtaken

    def _run(self) -> None:
        while True:
            with self._wished:
                if self._is_stopping:
                    return
                now = self._clock()
                due = min([self._everything_due, *(when for _, when in self._wishes.values())])
                if due > now:
                    self._wished.wait(due - now)
                    continue
                is_everything = self._everything_due <= now
                stores = [store for store, (_, when) in self._wishes.items() if when <= now]
            try:
                if is_everything:
                    for store in self._look_at_everything():
                        self.wish(store)
                else:
                    for store in stores:
                        self._look_if_free(store)
            except Exception:  # the top of a thread: without it the stock would stay as it is for ever
                log.exception("report failed")

    def _look_if_free(self, store: StoreName) -> None:
        """A store that is being changed is left to whoever changes it: a report is wished for after each change.

        One change that hangs must not keep the other stores from being looked at.
        """
        with self._wished:
            self._wishes.pop(store, None)
        try:
            self.look_at(store, patience_seconds=0)
        except StoreBusyError as busy:
            log.debug("report left to the change under way", extra={"store": store, "because": str(busy)})

    def _jittered(self) -> float:
        return self._refresh_seconds * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - spreads load, hides nothing
