"""Keeps the stock true: looks after our own changes, when the kernel says that block devices changed, and now and then.

An event is answered by any look at its store that began after it came, so what our own change stirs up is answered by
the one look that this change asks for anyway, and what somebody else does is never missed. An event that cannot be told
to be one store's asks for a look at everything. Events are hints only: the slow refresh, jittered so that nodes do not
all look at once, finds what no event told.
"""

from __future__ import annotations

import logging
import os.path
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_agent.backends.port import Backend, StoreReport
from node_agent.stock import Stock
from node_agent.store_locks import StoreLocks
from ullage.errors import StoreBusyError
from ullage.model import StoreName

if TYPE_CHECKING:
    from node_agent.udev import Event  # at run time it needs libudev

QUIET_SECONDS = 0.5
"""A look waits until nothing has been wished for this long, so that one look serves a burst: the events of an LVM
command come until some ten milliseconds after its end …"""
MOST_SECONDS = 1.5
"""… but no longer than this after the first wish."""
QUEUE_SECONDS = 1.0
"""How long a look waits for a store that is being changed all the time, or by something that hangs."""
REFRESH_SECONDS = 300.0
JITTER = 0.2

EVERYTHING = None

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wish:
    """When a look was first wished for, and when it is due."""

    first: float
    due: float


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
        self._devices_of: dict[StoreName, frozenset[str]] = {}
        """Kernel names of what each store lies on, as of its last report."""
        self._store_with: dict[str, StoreName] = {}
        """Where a logical volume is, by its device's kernel name, as its own events said."""
        self._wishes: dict[StoreName | None, _Wish] = {}
        self._refresh_due = clock() + self._jittered()
        self._looking = threading.Lock()
        self._looks_begun = 0
        self._last_look: tuple[int, Sequence[StoreName]] = (0, ())
        """Which of the looks at everything ended last, and the stores in which a change of ours overtook it."""
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

    def wish(self, store: StoreName | None) -> None:
        """Ask for a look at one store, soon."""
        with self._wished:
            now = self._clock()
            earlier = self._wishes.get(store)
            first = earlier.first if earlier else now
            self._wishes[store] = _Wish(first, min(now + QUIET_SECONDS, first + MOST_SECONDS))
            self._wished.notify_all()

    def wish_everything(self) -> None:
        """Ask for a look at everything, soon: something outside of us may have changed."""
        self.wish(EVERYTHING)

    def heard(self, event: Event) -> None:
        """Ask for a look at what a block device's event may be about."""
        if event.device_name.startswith("dm-") and event.action == "add":
            return  # it is empty yet; a "change" follows when it gets its table
        self.wish(self._store_of(event))

    def look_now(self) -> None:
        """Look at everything and put it into the stock before returning; raises StoreBusyError.

        Many at once take one look, that began after the last of them had come: each is an LVM process, or more.
        """
        for store in self._look_with_others():
            self.look_at(store)

    def look_at(self, store: StoreName) -> None:
        """Look at one store, with its lock held so that no change of ours overtakes the look; raises StoreBusyError."""
        with self._locks.hold(store, "a report"):
            self.look_at_locked(store)

    def look_at_locked(self, store: StoreName) -> None:
        """The same for a caller that holds the store's lock already."""
        with self._wished:
            self._wishes.pop(store, None)
        backend = self._backend_of.get(store)
        if backend is not None:
            report = backend.look_at(store)
            self._learn(report, backend)
            self._stock.put(report)

    def look_at_what_is_due(self) -> None:
        """Look at what was wished for and has been quiet for long enough, and at everything when that is due."""
        with self._wished:
            now = self._clock()
            due = [store for store, wish in self._wishes.items() if wish.due <= now and store is not EVERYTHING]
            everything = self._wishes.get(EVERYTHING)
            is_everything = self._refresh_due <= now or (everything is not None and everything.due <= now)
        if is_everything:
            for store in self._look_with_others():
                self.wish(store)
        else:
            for store in due:
                self._look_if_free(store)

    def _run(self) -> None:
        while self._sleep_until_due():
            try:
                self.look_at_what_is_due()
            except Exception:
                # The thread's top. Whatever could not be looked at is looked at again with the next wish or refresh.
                log.exception("looking at the storage failed")

    def _sleep_until_due(self) -> bool:
        """False when it is time to end."""
        with self._wished:
            while not self._is_stopping and (left := self._seconds_left()) > 0:
                self._wished.wait(left)
            return not self._is_stopping

    def _seconds_left(self) -> float:
        with self._wished:
            return min([self._refresh_due, *(wish.due for wish in self._wishes.values())]) - self._clock()

    def _store_of(self, event: Event) -> StoreName | None:
        """The store that an event is about, or EVERYTHING."""
        store = StoreName(event.volume_group)
        if store in self._backend_of:
            self._store_with[event.device_name] = store
            return store
        if event.action == "remove":
            # Of a logical volume it comes twice, the second time without names. Otherwise a disk has gone.
            return self._store_with.pop(event.device_name, EVERYTHING)
        return next((name for name, devices in self._devices_of.items() if event.device_name in devices), EVERYTHING)

    def _learn(self, report: StoreReport, backend: Backend) -> None:
        self._tell(report)
        devices = frozenset(os.path.basename(os.path.realpath(path)) for path in report.devices)  # noqa: PTH119
        with self._wished:
            before = self._devices_of.get(report.name, frozenset())
            self._devices_of = {**self._devices_of, report.name: devices}
            self._backend_of = {**self._backend_of, report.name: backend}
            if before - devices:
                self.wish_everything()  # what has left this store may be in one that nobody has looked at

    def _tell(self, report: StoreReport) -> None:
        """Log that a store cannot be read, or can again: when that changes, and not at each look."""
        known = self._stock.report(report.name)
        before = known.problem if known is not None else None
        if report.problem is None:
            if before is not None:
                log.info("store readable again", extra={"store": report.name})
        elif before is None or before.reason != report.problem.reason:
            facts = {"reason": report.problem.reason, "why": report.problem.message}
            log.warning("store unreadable", extra={"store": report.name, **facts})

    def _look_with_others(self) -> Sequence[StoreName]:
        """As `_look_at_everything`, by a look that began after this was called, whoever took it."""
        begun = self._looks_begun
        with self._looking:
            number, overtaken = self._last_look
            if number <= begun:
                self._looks_begun += 1
                overtaken = self._look_at_everything()
                self._last_look = (self._looks_begun, overtaken)
            return overtaken

    def _look_at_everything(self) -> list[StoreName]:
        """The stores whose look a change of ours has overtaken: they are to be looked at again."""
        with self._wished:
            self._refresh_due = self._clock() + self._jittered()
            self._wishes.clear()
        seen: list[StoreName] = []
        overtaken: list[StoreName] = []
        for backend in self._backends:
            since = self._stock.changes()
            for report in backend.look():
                seen.append(report.name)
                self._learn(report, backend)
                if not self._stock.put(report, since):
                    overtaken.append(report.name)
        self._stock.keep_only(seen)
        return overtaken

    def _look_if_free(self, store: StoreName) -> None:
        """Look at a store that was wished for; one that is being changed is not quiet, and its look waits on.

        A stream of changes puts it off for MOST_SECONDS, then it is the next after the one under way, but does not wait
        for long: one change that hangs must not keep the other stores waiting.
        """
        with self._wished:
            wish = self._wishes.get(store)
            is_overdue = wish is not None and wish.first + MOST_SECONDS <= self._clock()
        try:
            with self._locks.hold(store, "a report", QUEUE_SECONDS if is_overdue else 0, is_next=True):
                if store in self._wishes:  # else whoever held it has looked meanwhile
                    self.look_at_locked(store)
        except StoreBusyError as busy:
            log.debug("report postponed", extra={"store": store, "because": str(busy)})
            if is_overdue:
                with self._wished:
                    self._wishes.pop(store, None)
            self.wish(store)

    def _jittered(self) -> float:
        return self._refresh_seconds * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - spreads load, hides nothing
