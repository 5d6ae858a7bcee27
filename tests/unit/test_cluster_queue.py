"""The work queue: once for each key, never two at a time, later and later after failures."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from node_agent.cluster.queue import FIRST_SECONDS, MOST_SECONDS, WorkQueue


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(clock=clock, jitter=lambda: 1.0)


def waits_until(queue: WorkQueue, key: str) -> float:
    return queue._due[key]


def test_what_is_asked_for_twice_is_done_once(queue: WorkQueue) -> None:
    queue.add("a")
    queue.add("a")
    assert queue.take() == "a"
    queue.done("a")
    assert len(queue) == 0


def test_what_has_waited_longest_comes_first(queue: WorkQueue, clock: Clock) -> None:
    queue.add("b")
    clock.now += 1
    queue.add("a")
    assert [queue.take(), queue.take()] == ["b", "a"]


def test_a_key_that_somebody_is_at_is_nobody_elses_and_comes_again_afterwards(queue: WorkQueue, clock: Clock) -> None:
    queue.add("a")
    assert queue.take() == "a"
    queue.add("a")
    clock.now += 1
    queue.add("b")
    assert queue.take() == "b"
    queue.done("a")
    assert queue.take() == "a"


def test_a_failure_comes_back_later_each_time_up_to_a_bound_and_the_first_one_anew_after_a_success(
    queue: WorkQueue, clock: Clock
) -> None:
    pauses = []
    for _ in range(12):
        queue.retry("a")
        pauses.append(waits_until(queue, "a") - clock.now)
        clock.now = waits_until(queue, "a")
        assert queue.take() == "a"
        queue.done("a")
    assert pauses[:3] == pytest.approx([FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS])
    assert pauses[-1] == pytest.approx(MOST_SECONDS)
    assert queue.failures("a") == 12
    queue.settle("a")
    queue.retry("a")
    assert waits_until(queue, "a") - clock.now == pytest.approx(FIRST_SECONDS)


def test_the_bound_may_be_lower(queue: WorkQueue, clock: Clock) -> None:
    for _ in range(12):
        queue.retry("a", 5.0)
        clock.now = waits_until(queue, "a")
        assert queue.take() == "a"
        queue.done("a")
    queue.retry("a", 5.0)
    assert waits_until(queue, "a") - clock.now == pytest.approx(5.0)


def test_a_change_does_not_wait_for_a_retry(queue: WorkQueue) -> None:
    for _ in range(9):
        queue.retry("a")
    queue.add("a")
    assert queue.take() == "a"


def test_what_is_due_sooner_stays_so(queue: WorkQueue, clock: Clock) -> None:
    queue.add("a", 1.0)
    queue.add("a", 5.0)
    assert waits_until(queue, "a") == clock.now + 1.0
    queue.hasten(3.0)
    assert waits_until(queue, "a") == clock.now + 1.0


def test_what_waits_long_can_be_hastened(queue: WorkQueue, clock: Clock) -> None:
    queue.add("a", 30.0)
    queue.hasten(1.0)
    assert waits_until(queue, "a") == clock.now + 1.0


def test_the_end_wakes_whoever_waits() -> None:
    queue = WorkQueue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.take()))
    worker.start()
    queue.stop()
    worker.join(10)
    assert got == [None]
    queue.add("a")
    assert queue.take() is None


def test_whoever_waits_gets_what_comes() -> None:
    queue = WorkQueue()
    got: list[str | None] = []
    worker = threading.Thread(target=lambda: got.append(queue.take()))
    worker.start()
    queue.add("late", 0.01)
    worker.join(10)
    assert got == ["late"]
