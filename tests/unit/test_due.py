"""What is due comes when it is due, once, at the earliest time that was asked for."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from csi.cluster.due import Due


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_what_is_asked_for_twice_comes_once_and_at_the_earlier_time() -> None:
    clock = Clock()
    due = Due(clock)
    due.put(["a"], 5)
    due.put(["a", "b"], 3)
    due.put(["a"], 4)
    due.put(["c"], 1)
    clock.seconds = 10
    assert [due.take() for _ in range(3)] == ["c", "a", "b"]
    threading.Timer(0.1, due.close).start()
    assert due.take() is None


def test_one_that_is_due_earlier_wakes_who_waits_for_a_later_one() -> None:
    due = Due()
    due.put(["late"], 3600)
    threading.Timer(0.1, due.put, args=(["soon"],)).start()
    assert due.take() == "soon"


def test_what_was_asked_for_before_it_opened_again_is_forgotten() -> None:
    due = Due()
    due.put(["a"])
    due.close()
    assert due.take() is None
    due.open()
    due.put(["b"])
    assert due.take() == "b"
