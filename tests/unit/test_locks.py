"""One operation per volume, one change per store: with real threads, and events instead of clocks."""

from __future__ import annotations

import functools
import logging
import queue
import re
import threading
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

import pytest

from node_agent.locks import Operations
from node_agent.store_locks import StoreLocks
from ullage.errors import (
    NotFoundError,
    PendingOperationError,
    StillRunningError,
    StoreBusyError,
    TooManyOperationsError,
    UnavailableError,
)
from ullage.model import StoreName, VolumeId

LONG_SECONDS = 60.0
"""Reaching it would be a hang."""
ONE, OTHER = VolumeId("pvc-1"), VolumeId("pvc-2")
VG0, VG1 = StoreName("vg0"), StoreName("vg1")


@dataclass(frozen=True)
class Create:
    """A request that tells when it is compared: the moment at which it joins."""

    size_bytes: int = 1
    compared: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0), hash=False, compare=False)

    def __eq__(self, other: object) -> bool:
        self.compared.release()
        return isinstance(other, Create) and other.size_bytes == self.size_bytes

    def __hash__(self) -> int:
        return hash(self.size_bytes)


@dataclass(frozen=True)
class Delete:
    pass


class Gate:
    """Work that begins, waits until it is let through, and then answers or raises."""

    def __init__(self, outcome: object = "result") -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.times = 0
        self.outcome = outcome

    def __call__(self) -> object:
        self.times += 1
        self.begun.set()
        assert self.opened.wait(LONG_SECONDS)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Ends:
    """What `tell` is given: keeps the ends, or raises at each."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.heard: list[tuple[Hashable, BaseException | None]] = []
        self._failure = failure

    def __call__(self, request: Hashable, failure: BaseException | None, seconds: float) -> None:
        assert seconds >= 0
        self.heard.append((request, failure))
        if self._failure is not None:
            raise self._failure


@pytest.fixture
def operations() -> Operations:
    return Operations()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Opened at the end, whatever came before."""
    gate = Gate()
    yield gate
    gate.opened.set()


def in_thread(work: Callable[[], object]) -> queue.SimpleQueue[object]:
    """Start `work`; its result or exception arrives in the queue."""
    ended: queue.SimpleQueue[object] = queue.SimpleQueue()

    def outcome() -> None:
        try:
            ended.put(work())
        except BaseException as failure:  # noqa: BLE001 - to be looked at by the test
            ended.put(failure)

    threading.Thread(target=outcome, daemon=True).start()
    return ended


def asked(
    operations: Operations,
    work: Callable[[], object],
    request: Hashable = None,
    volume_id: VolumeId = ONE,
    patience_seconds: float = LONG_SECONDS,
) -> object:
    return operations.run(volume_id, request or Create(), work, patience_seconds=patience_seconds)


def begun(
    operations: Operations, gate: Gate, request: Hashable = None, volume_id: VolumeId = ONE
) -> queue.SimpleQueue[object]:
    """Ask for the work of `gate` and go on when it has begun."""
    ended = in_thread(lambda: asked(operations, gate, request, volume_id))
    assert gate.begun.wait(LONG_SECONDS)
    return ended


def raising(failure: BaseException) -> Callable[[], object]:
    gate = Gate(failure)
    gate.opened.set()
    return gate


def test_work_is_done_and_answered_with(operations: Operations) -> None:
    assert asked(operations, lambda: 42) == 42
    assert operations.in_flight() == 0


@pytest.mark.parametrize("failure", [NotFoundError("gone"), ValueError("odd"), TimeoutError("late"), SystemExit(3)])
def test_what_the_work_raises_is_raised(operations: Operations, failure: BaseException) -> None:
    """Its own TimeoutError, too, is not taken for the end of our patience."""
    with pytest.raises(type(failure)) as raised:
        asked(operations, raising(failure))
    assert raised.value is failure
    assert operations.in_flight() == 0


def test_the_same_request_joins_what_is_under_way(operations: Operations, gate: Gate) -> None:
    request = Create()
    first = begun(operations, gate, request)
    joined = [in_thread(lambda: asked(operations, gate, Create())) for _ in range(5)]
    for _ in joined:
        assert request.compared.acquire(timeout=LONG_SECONDS)
    gate.opened.set()
    assert [each.get(timeout=LONG_SECONDS) for each in (first, *joined)] == ["result"] * 6
    assert gate.times == 1


def test_whoever_has_joined_gets_the_failure_too(operations: Operations, gate: Gate) -> None:
    gate.outcome = NotFoundError("gone")
    request = Create()
    first = begun(operations, gate, request)
    joined = in_thread(lambda: asked(operations, gate, Create()))
    assert request.compared.acquire(timeout=LONG_SECONDS)
    gate.opened.set()
    assert first.get(timeout=LONG_SECONDS) is gate.outcome
    assert joined.get(timeout=LONG_SECONDS) is gate.outcome


@pytest.mark.parametrize("request_", [Delete(), Create(size_bytes=2)], ids=["delete", "other size"])
def test_a_different_request_on_the_same_volume_is_refused(
    operations: Operations, gate: Gate, request_: Hashable
) -> None:
    begun(operations, gate)
    with pytest.raises(
        PendingOperationError, match=r"^Create of pvc-1 is under way; \w+ has to wait for it$"
    ) as raised:
        asked(operations, raising(AssertionError("ran")), request_)
    assert raised.value.facts == {"volume_id": ONE}


def test_other_volumes_are_not_kept_waiting(operations: Operations, gate: Gate) -> None:
    begun(operations, gate)
    assert asked(operations, lambda: "at once", volume_id=OTHER) == "at once"
    assert operations.in_flight() == 1


def test_past_its_patience_a_caller_is_told_and_the_work_goes_on(operations: Operations, gate: Gate) -> None:
    first = begun(operations, gate)
    with pytest.raises(StillRunningError, match=r"Create of pvc-1 has been running for \d+ s and goes on; ask again"):
        asked(operations, gate, patience_seconds=0)
    assert operations.in_flight() == 1
    gate.opened.set()
    assert first.get(timeout=LONG_SECONDS) == "result"
    assert gate.times == 1


def test_whoever_has_the_result_may_ask_for_the_next_thing_at_once(operations: Operations) -> None:
    for size in range(200):
        asked(operations, lambda: None, Create(size))
        asked(operations, lambda: None, Delete())


def test_a_repetition_after_the_end_works_anew(operations: Operations, gate: Gate) -> None:
    gate.opened.set()
    asked(operations, gate)
    asked(operations, gate)
    assert gate.times == 2


def unheard(operations: Operations, gate: Gate) -> None:
    """Something is deleted, and nobody has the patience to hear that it is."""
    ended = threading.Event()
    operations.tell(lambda *_: ended.set())
    with pytest.raises(StillRunningError):
        operations.run(ONE, Delete(), gate, patience_seconds=0, is_still_so=lambda: True)
    gate.opened.set()
    assert ended.wait(LONG_SECONDS)


def test_a_result_that_nobody_has_waited_for_is_an_answer_to_the_next_once(operations: Operations, gate: Gate) -> None:
    unheard(operations, gate)
    for times in (1, 2):
        found = operations.run(ONE, Delete(), gate, patience_seconds=LONG_SECONDS, is_still_so=lambda: True)
        assert (found, gate.times) == ("result", times)


def test_a_result_that_does_not_hold_any_more_is_no_answer(operations: Operations, gate: Gate) -> None:
    unheard(operations, gate)
    operations.run(ONE, Delete(), gate, patience_seconds=LONG_SECONDS, is_still_so=lambda: False)
    assert gate.times == 2


def test_a_result_that_nobody_has_waited_for_is_forgotten_with_the_next_other_request(
    operations: Operations, gate: Gate
) -> None:
    unheard(operations, gate)
    made = operations.run(ONE, Create(), lambda: "made", patience_seconds=LONG_SECONDS, is_still_so=lambda: True)
    assert made == "made"
    operations.run(ONE, Delete(), gate, patience_seconds=LONG_SECONDS, is_still_so=lambda: True)
    assert gate.times == 2


def test_a_result_that_somebody_has_is_not_given_again(operations: Operations, gate: Gate) -> None:
    gate.opened.set()
    for times in (1, 2):
        operations.run(ONE, Delete(), gate, patience_seconds=LONG_SECONDS, is_still_so=lambda: True)
        assert gate.times == times


def test_the_bound_on_operations_holds(gate: Gate) -> None:
    operations = Operations(most=2)
    first, second = begun(operations, gate), begun(operations, beside(gate), volume_id=OTHER)
    with pytest.raises(TooManyOperationsError, match="2 operations are under way, the most at once; ask again"):
        asked(operations, lambda: None, volume_id=VolumeId("pvc-3"))
    with pytest.raises(StillRunningError):  # joining costs nothing
        asked(operations, gate, patience_seconds=0)
    gate.opened.set()
    for each in (first, second):
        assert each.get(timeout=LONG_SECONDS) == "result"
    assert asked(operations, lambda: "room again", volume_id=VolumeId("pvc-3")) == "room again"


def beside(gate: Gate) -> Gate:
    """Another piece of work that is let through together with `gate`."""
    other = Gate(gate.outcome)
    other.opened = gate.opened
    return other


def test_a_stop_takes_nothing_new_and_waits_for_the_rest(operations: Operations, gate: Gate) -> None:
    first = begun(operations, gate)
    stopped = in_thread(lambda: operations.stop(LONG_SECONDS))
    while not operations.is_stopping():
        assert stopped.empty()
    with pytest.raises(UnavailableError, match="shutting down"):
        asked(operations, lambda: None, volume_id=OTHER)
    with pytest.raises(StillRunningError):  # who asks for what is under way may still wait for it
        asked(operations, gate, patience_seconds=0)
    assert stopped.empty()
    gate.opened.set()
    assert stopped.get(timeout=LONG_SECONDS) is True
    assert first.get(timeout=LONG_SECONDS) == "result"


def test_a_stop_without_work_is_over_at_once(operations: Operations) -> None:
    assert operations.stop(LONG_SECONDS)
    assert not Operations().is_stopping()


def test_a_stop_names_what_outlives_its_grace(
    operations: Operations, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    first = begun(operations, gate)
    with caplog.at_level(logging.ERROR, "node_agent.locks"):
        assert not operations.stop(grace_seconds=0)
    (record,) = caplog.records
    assert (record.__dict__["volume_id"], record.__dict__["operation"]) == (ONE, "Create")
    assert isinstance(first.get(timeout=LONG_SECONDS), StillRunningError)  # it is answered: the process ends with it
    gate.opened.set()


def test_the_end_of_each_operation_is_told(operations: Operations) -> None:
    ends, others, failure = Ends(), Ends(), ValueError("odd")
    operations.tell(ends)
    operations.tell(others)
    asked(operations, lambda: None, Create())
    with pytest.raises(ValueError, match="odd"):
        asked(operations, raising(failure), Delete())
    assert ends.heard == others.heard == [(Create(), None), (Delete(), failure)]


def test_what_is_under_way_is_known_by_its_key(operations: Operations, gate: Gate) -> None:
    first = begun(operations, gate)
    assert operations.is_running(ONE)
    assert not operations.is_running(OTHER)
    gate.opened.set()
    first.get(timeout=LONG_SECONDS)
    assert not operations.is_running(ONE)


@pytest.mark.parametrize("outcome", ["result", NotFoundError("gone")], ids=["result", "failure"])
def test_a_listener_that_fails_does_not_keep_the_outcome_back(
    operations: Operations, caplog: pytest.LogCaptureFixture, outcome: object
) -> None:
    operations.tell(Ends(RuntimeError("no metrics today")))
    gate = Gate(outcome)
    gate.opened.set()
    with caplog.at_level(logging.ERROR, "node_agent.locks"):
        assert in_thread(lambda: asked(operations, gate)).get(timeout=LONG_SECONDS) is outcome
    assert "no metrics today" in caplog.text


def test_a_volume_is_not_kept_when_the_system_gives_no_thread(operations: Operations) -> None:
    before = threading.stack_size(1 << 46)  # more address space than there is: no thread can start
    try:
        with pytest.raises(TooManyOperationsError, match=r"no thread for Create of pvc-1: .*; ask again"):
            asked(operations, lambda: None)
    finally:
        threading.stack_size(before)
    assert operations.in_flight() == 0
    assert asked(operations, lambda: "done") == "done"


def test_operations_have_threads_with_names(operations: Operations) -> None:
    assert asked(operations, lambda: threading.current_thread().name) == "Create-pvc-1"


def test_a_busy_store_says_who_has_it_and_who_waits() -> None:
    locks = StoreLocks(patience_seconds=0)
    expected = re.compile(r"^vg0 has been busy with create of pvc-1 for \d+ s; delete of pvc-2 has to wait$")
    with (
        locks.hold(VG0, "create of pvc-1"),
        pytest.raises(StoreBusyError, match=expected) as raised,
        locks.hold(VG0, "delete of pvc-2"),
    ):
        raise AssertionError("two hold one store")
    assert raised.value.facts == {"store": VG0}


def test_a_store_is_free_again_after_a_failure() -> None:
    locks = StoreLocks(patience_seconds=0)
    for _ in range(2):
        with pytest.raises(ValueError, match="odd"), locks.hold(VG0, "create"):
            raise ValueError("odd")


def test_stores_do_not_wait_for_each_other() -> None:
    locks = StoreLocks(patience_seconds=0)
    with locks.hold(VG0, "create"), locks.hold(VG1, "create"):
        pass


def test_whoever_waits_for_a_store_gets_it_and_nobody_beside() -> None:
    """Many threads, many times: no two inside at once, and none left behind."""
    locks = StoreLocks(patience_seconds=LONG_SECONDS)
    inside = {VG0: 0, VG1: 0}
    seen: list[int] = []

    def work(store: StoreName) -> None:
        for _ in range(50):
            with locks.hold(store, "a change"):
                inside[store] += 1
                seen.append(inside[store])
                inside[store] -= 1

    ended = [in_thread(functools.partial(work, store)) for store in (VG0, VG1) * 8]
    assert [each.get(timeout=LONG_SECONDS) for each in ended] == [None] * 16
    assert seen == [1] * (16 * 50)


def test_who_has_waited_longest_for_a_store_is_next_but_for_a_look_that_is_overdue() -> None:
    locks = StoreLocks()
    served: list[str] = []

    def wait_as(name: str, *, is_next: bool = False) -> threading.Thread:
        def take() -> None:
            with locks.hold(VG0, name, LONG_SECONDS, is_next=is_next):
                served.append(name)

        line = len(locks._lines[VG0].turns)
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        while len(locks._lines[VG0].turns) == line:
            pass
        return thread

    with locks.hold(VG0, "the first"):
        waiting = [wait_as(f"change {number}") for number in range(5)]
        with pytest.raises(StoreBusyError, match="busy with the first"), locks.hold(VG0, "in a hurry", 0):
            pass
        waiting.append(wait_as("a look", is_next=True))
    with locks.hold(VG0, "who comes now", LONG_SECONDS):
        served.append("who comes now")
    for thread in waiting:
        thread.join(LONG_SECONDS)
    assert served == ["a look", *(f"change {number}" for number in range(5)), "who comes now"]


def test_many_callers_on_many_volumes_all_get_their_answer() -> None:
    operations = Operations(most=64)
    start = threading.Barrier(48)

    def ask(number: int) -> object:
        volume_id = VolumeId(f"pvc-{number % 12}")
        start.wait(LONG_SECONDS)
        return operations.run(volume_id, Create(), lambda: volume_id, patience_seconds=LONG_SECONDS)

    ended = [in_thread(functools.partial(ask, number)) for number in range(48)]
    assert [each.get(timeout=LONG_SECONDS) for each in ended] == [f"pvc-{n % 12}" for n in range(48)]
    assert operations.in_flight() == 0


def test_who_gives_up_waiting_is_told_how_far_it_is(operations: Operations, gate: Gate) -> None:
    begun(operations, gate)
    operations.note(ONE, "3.0 GiB of 4.0 GiB wiped")
    operations.note(OTHER, "nobody's")
    with pytest.raises(StillRunningError, match=r"running for \d+ s, 3.0 GiB of 4.0 GiB wiped, and goes on"):
        asked(operations, gate, patience_seconds=0)
    gate.opened.set()
