"""When the reporter looks: time is an argument, and nothing is real but the reporter, the stock and the locks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from node_agent.backends.port import HeldStep, NewVolume, StoreReport
from node_agent.reporter import MOST_SECONDS, QUIET_SECONDS, Reporter
from node_agent.stock import Stock
from node_agent.store_locks import StoreLocks
from node_agent.udev import Event
from ullage.capacity import Allocation
from ullage.model import ByteRange, DeviceClass, DeviceType, Pool, Problem, StoreName, Volume, Wipe

FAST, SLOW = StoreName("fast"), StoreName("slow")
EVERYTHING = StoreName("everything")
A_DAY = 86400.0
LONG_SECONDS = 60.0
"""Reaching it would be a hang."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Looked:
    """A backend of two stores that notes what is looked at, and lets something happen during a look."""

    types = frozenset({DeviceType.THICK})

    def __init__(self) -> None:
        self.looks: list[StoreName] = []
        self.during: Callable[[], None] = lambda: None
        self.reports = {
            FAST: StoreReport(name=FAST, devices=("/dev/vda", "/dev/vdb")),
            SLOW: StoreReport(name=SLOW, devices=("/dev/vdc",)),
        }

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        raise NotImplementedError

    def look(self) -> tuple[StoreReport, ...]:
        self.looks.append(EVERYTHING)
        self._meanwhile()
        return tuple(self.reports.values())

    def look_at(self, store: StoreName) -> StoreReport:
        self.looks.append(store)
        self._meanwhile()
        return self.reports[store]

    def _meanwhile(self) -> None:
        during, self.during = self.during, lambda: None
        during()

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> None:
        raise NotImplementedError

    def needs_wipe(self, volume_type: DeviceType, wipe: Wipe) -> bool:
        raise NotImplementedError

    def create(self, new: NewVolume) -> Volume:
        raise NotImplementedError

    def expand(self, volume: Volume, growth: Allocation, *, needs_wipe: bool) -> Volume:
        raise NotImplementedError

    def held_step(self, source: Volume, *, is_mounted: bool) -> HeldStep:
        raise NotImplementedError

    def renew(self, snapshots: Sequence[Volume]) -> None:
        raise NotImplementedError

    def is_copied_by_bytes(self, source: Volume) -> bool:
        raise NotImplementedError

    def reading(self, volume: Volume) -> AbstractContextManager[int]:
        raise NotImplementedError

    def image(self, volume: Volume) -> AbstractContextManager[int | None]:
        raise NotImplementedError

    def note_filled(self, volume: Volume, filled_bytes: int) -> Volume:
        raise NotImplementedError

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:
        raise NotImplementedError

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:
        raise NotImplementedError

    def settle(self, volume: Volume) -> Volume:
        raise NotImplementedError

    def set_wipe(self, volume: Volume, wipe: Wipe) -> Volume:
        raise NotImplementedError

    def condemn(self, volume: Volume) -> Volume:
        raise NotImplementedError

    def remove(self, volume: Volume) -> None:
        raise NotImplementedError

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> None:
        raise NotImplementedError


class Bench:
    """A reporter that has looked at everything once, with its parts."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.backend = Looked()
        self.stock = Stock()
        self.locks = StoreLocks(patience_seconds=0)
        self.reporter = Reporter(self.stock, self.locks, [self.backend], refresh_seconds=A_DAY, clock=self.clock)
        self.reporter.look_now()
        self.backend.looks.clear()

    def after(self, seconds: float) -> list[StoreName]:
        """Let time pass, let the reporter do what is due; what it looked at."""
        self.clock.now += seconds
        self.backend.looks.clear()
        self.reporter.look_at_what_is_due()
        return list(self.backend.looks)

    def changes(self, device: str, group: str = "", action: str = "change") -> None:
        self.reporter.heard(Event(device_name=device, action=action, volume_group=group))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_an_lvm_command_of_ours_stirs_up_is_answered_by_the_one_look_it_asks_for(bench: Bench) -> None:
    bench.changes("dm-3", action="add")
    bench.clock.now += 0.2
    bench.changes("dm-3", FAST)
    bench.reporter.wish(FAST)
    bench.clock.now += 0.1
    bench.changes("vda")
    bench.changes("vdb")
    bench.changes("dm-3", FAST)
    assert bench.after(QUIET_SECONDS) == [FAST]
    assert bench.after(A_DAY / 2) == []


def test_a_removed_logical_volume_is_its_stores_affair_though_its_last_event_names_nothing(bench: Bench) -> None:
    bench.changes("dm-3", FAST, action="remove")
    bench.changes("dm-3", action="remove")
    assert bench.after(QUIET_SECONDS) == [FAST]
    bench.changes("dm-3", action="remove")
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]


def test_an_event_during_a_look_is_answered_by_another(bench: Bench) -> None:
    bench.changes("vda")
    bench.backend.during = lambda: bench.changes("vda")
    assert bench.after(QUIET_SECONDS) == [FAST]
    assert bench.after(QUIET_SECONDS) == [FAST]
    assert bench.after(QUIET_SECONDS) == []


def test_an_event_during_a_look_at_everything_is_answered_by_another(bench: Bench) -> None:
    bench.reporter.wish_everything()
    bench.backend.during = lambda: bench.changes("vdc")
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]
    assert bench.after(QUIET_SECONDS) == [SLOW]


def test_a_look_at_everything_answers_for_every_store(bench: Bench) -> None:
    bench.reporter.wish(FAST)
    bench.reporter.wish(SLOW)
    bench.changes("vdz")
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]
    assert bench.after(MOST_SECONDS) == []


@pytest.mark.parametrize("action", ["add", "remove", "change"])
def test_a_disk_of_no_store_asks_for_a_look_at_everything(bench: Bench, action: str) -> None:
    bench.changes("vdz", action=action)
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]


def test_a_disk_of_a_store_that_has_gone_asks_for_a_look_at_everything(bench: Bench) -> None:
    bench.changes("vda", action="remove")
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]


def test_a_group_that_is_no_store_of_ours_yet_asks_for_a_look_at_everything(bench: Bench) -> None:
    bench.changes("dm-7", "new")
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]


def test_a_disk_that_has_left_its_store_is_looked_for_everywhere(bench: Bench) -> None:
    bench.backend.reports[FAST] = replace(bench.backend.reports[FAST], devices=("/dev/vda",))
    bench.changes("vdb")
    assert bench.after(QUIET_SECONDS) == [FAST]
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]
    bench.changes("vdb")
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]


def test_a_store_that_cannot_be_read_has_no_devices_of_its_own(bench: Bench) -> None:
    bench.backend.reports[SLOW] = StoreReport(name=SLOW, problem=Problem(reason="Gone", message="gone"))
    bench.reporter.look_now()
    bench.changes("vdc")
    assert bench.after(MOST_SECONDS) == [EVERYTHING]


def test_that_a_store_cannot_be_read_is_told_once_and_so_is_that_it_can_be_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    readable = bench.backend.reports[SLOW]
    for reason in ("Gone", "Gone", "Refused"):
        bench.backend.reports[SLOW] = StoreReport(name=SLOW, problem=Problem(reason=reason, message=reason.lower()))
        bench.reporter.look_now()
        bench.reporter.look_at(SLOW)
    bench.backend.reports[SLOW] = readable
    bench.reporter.look_at(SLOW)
    bench.reporter.look_now()
    told = [(each.getMessage(), vars(each).get("why", "")) for each in caplog.records]
    wanted = [("store unreadable", "gone"), ("store unreadable", "refused"), ("store readable again", "")]
    assert told == wanted


def test_a_stream_of_events_does_not_put_a_look_off_for_ever(bench: Bench) -> None:
    for _ in range(int(MOST_SECONDS / 0.25)):
        bench.changes("vda")
        assert bench.after(0) == []
        bench.clock.now += 0.25
    assert bench.after(0) == [FAST]


def test_a_look_waits_for_the_change_under_way_and_comes_after_its_last_event(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.changes("dm-3", FAST)
    with bench.locks.hold(FAST, "a change"):
        assert bench.after(QUIET_SECONDS) == []
    assert not caplog.records  # it has not even tried
    bench.clock.now += 0.1
    bench.reporter.wish(FAST)
    bench.changes("vda")
    assert bench.after(QUIET_SECONDS) == [FAST]
    assert bench.after(A_DAY / 2) == []


def test_a_store_held_for_long_is_looked_at_when_it_is_free(bench: Bench) -> None:
    bench.reporter.wish(FAST)
    with bench.locks.hold(FAST, "a long change"):
        for _ in range(10):
            assert bench.after(QUIET_SECONDS) == []
    assert bench.after(MOST_SECONDS) == [FAST]


def test_a_look_that_the_holder_of_a_store_took_meanwhile_is_not_taken_again(bench: Bench) -> None:
    bench.reporter.wish(FAST)
    bench.reporter.wish(SLOW)
    bench.backend.during = lambda: bench.reporter.look_at_locked(SLOW)
    assert bench.after(QUIET_SECONDS) == [FAST, SLOW]


def test_a_look_at_everything_that_a_change_of_ours_overtook_is_repeated_for_that_store(bench: Bench) -> None:
    bench.backend.during = lambda: bench.stock.apply(SLOW, None, None)
    bench.reporter.wish_everything()
    assert bench.after(QUIET_SECONDS) == [EVERYTHING]
    assert bench.after(QUIET_SECONDS) == [SLOW]


class Door:
    """A lock that tells who has come to it."""

    def __init__(self) -> None:
        self.came = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.came.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_many_who_want_a_look_at_everything_share_one_that_began_after_they_came(bench: Bench) -> None:
    door, free = Door(), threading.Event()
    bench.reporter._looking = door  # type: ignore[assignment]  # a lock, as far as it is used
    bench.backend.during = lambda: assert_set(free)
    with ThreadPoolExecutor() as callers:
        first = callers.submit(bench.reporter.look_now)
        assert door.came.acquire(timeout=LONG_SECONDS)
        while not bench.backend.looks:
            pass
        others = [callers.submit(bench.reporter.look_now) for _ in range(4)]
        for _ in others:
            assert door.came.acquire(timeout=LONG_SECONDS)
        assert not any(each.done() for each in (first, *others))
        free.set()
        for each in (first, *others):
            each.result(LONG_SECONDS)
    assert bench.backend.looks == [EVERYTHING, EVERYTHING]
    bench.reporter.look_now()
    assert bench.backend.looks == [EVERYTHING] * 3


def assert_set(event: threading.Event) -> None:
    assert event.wait(LONG_SECONDS)


def test_without_any_event_everything_is_looked_at_now_and_then(bench: Bench) -> None:
    assert bench.after(A_DAY / 2) == []
    assert bench.after(A_DAY) == [EVERYTHING]
    assert bench.after(A_DAY / 2) == []
