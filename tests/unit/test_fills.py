"""How many copies at once, how fast together, how far each; and what may not go meanwhile."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from node_agent.fills import Fill, Fills
from node_agent.locks import Operations, Sources
from node_agent.metrics import FillCollector
from ullage.errors import MIB, StillRunningError, VolumeInUseError, VolumeNotReadyError
from ullage.model import DeviceClassName, VolumeId

FAST, SLOW = DeviceClassName("fast"), DeviceClassName("slow")
A, B, C = VolumeId("pvc-a"), VolumeId("pvc-b"), VolumeId("pvc-c")
LONG_SECONDS = 10.0


@dataclass
class Clock:
    now: float = 50.0

    def __call__(self) -> float:
        return self.now


class StoppedError(Exception):
    pass


def of(left_bytes: int, name: DeviceClassName = FAST) -> Fill:
    return Fill(device_class=name, left_bytes=left_bytes)


def nobody(_most: int) -> None:
    raise AssertionError("there was room")


def test_one_more_than_the_most_waits_until_one_ends() -> None:
    fills, told, begun = Fills(most=1), threading.Event(), threading.Event()

    def second() -> None:
        with fills.turn(B, of(1), lambda most: told.set() if most == 1 else None):
            begun.set()

    thread = threading.Thread(target=second)
    with fills.turn(A, of(1), nobody):
        thread.start()
        assert told.wait(LONG_SECONDS)
        assert not begun.is_set()
        assert list(fills.under_way()) == [A]
    assert begun.wait(LONG_SECONDS)
    thread.join()
    assert fills.under_way() == {}


def test_whoever_waits_can_give_up() -> None:
    fills = Fills(most=1)

    def give_up(_most: int) -> None:
        raise StoppedError

    with fills.turn(A, of(1), nobody), pytest.raises(StoppedError), fills.turn(B, of(1), give_up):
        pass
    assert fills.under_way() == {}


def test_copies_of_a_class_keep_to_its_rate_together() -> None:
    clock = Clock()
    fills = Fills(clock=clock)
    assert [fills.pause_seconds(FAST, 4 * MIB, 2 * MIB) for _ in range(3)] == [2.0, 4.0, 6.0]
    assert fills.pause_seconds(SLOW, 4 * MIB, MIB) == 4.0, "another class's has a rate of its own"
    assert fills.pause_seconds(FAST, 4 * MIB, 0) == 0.0, "0 is no limit"
    clock.now += 100.0
    assert fills.pause_seconds(FAST, 4 * MIB, 2 * MIB) == 2.0, "what was not used is not saved up"


def test_what_is_left_and_what_was_copied_is_measured_by_class() -> None:
    fills, registry = Fills(), CollectorRegistry()
    registry.register(FillCollector(fills))

    def values(name: DeviceClassName) -> list[float | None]:
        names = ("ullage_copies_under_way", "ullage_copy_left_bytes", "ullage_copied_bytes_total")
        return [registry.get_sample_value(each, {"device_class": name}) for each in names]

    assert values(FAST) == [None, None, None]
    with fills.turn(A, of(10), nobody), fills.turn(B, of(20), nobody), fills.turn(C, of(5, SLOW), nobody):
        fills.reached(A, 4)
        fills.reached(B, 19)
        assert (values(FAST), values(SLOW)) == ([2, 23, 7], [1, 5, 0])
    assert (values(FAST), values(SLOW)) == ([0, 0, 7], [None, None, None])


def test_what_is_kept_does_not_go_and_what_goes_is_not_kept() -> None:
    sources = Sources()
    with (
        sources.kept(A, by=B),
        sources.kept(A, by=C),
        pytest.raises(VolumeInUseError, match="copied to pvc-b, pvc-c"),
        sources.going(A),
    ):
        pass
    with sources.going(A):
        with pytest.raises(VolumeNotReadyError, match="being deleted"), sources.kept(A, by=B):
            pass
        with pytest.raises(VolumeInUseError, match="already"), sources.going(A):
            pass
        with sources.kept(B, by=C):
            pass
    with sources.kept(A, by=B):
        pass


def test_an_operation_is_called_off_by_another_request_only() -> None:
    operations, is_called_off, go_on = Operations(), threading.Event(), threading.Event()

    def work() -> str:
        assert go_on.wait(LONG_SECONDS)
        while not operations.is_called_off(A):
            pass
        is_called_off.set()
        return "ended"

    with pytest.raises(StillRunningError):
        operations.run(A, "create", work, patience_seconds=0)
    operations.call_off(A, "create", LONG_SECONDS)
    assert not operations.is_called_off(A)
    go_on.set()
    operations.call_off(B, "delete", LONG_SECONDS)
    assert not operations.is_called_off(A)
    operations.call_off(A, "delete", LONG_SECONDS)
    assert is_called_off.is_set()
    assert operations.in_flight() == 0, "it was waited for"
    assert not operations.is_called_off(A)
