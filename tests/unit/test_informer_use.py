"""What those who use an informer are told: handlers, waits, indexes, and what they have written themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest

from tests.unit.kube_wire import ENOUGH, THINGS, Open, Thing, Wire, event, page, thing, wait
from ullage.errors import ApiError, ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.informer import Informer


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def things(wire: Wire) -> Iterator[Informer[Thing]]:
    made = Informer(Api(wire), THINGS, Thing, indexes={"colour": lambda each: [each.colour]}, clock=lambda: wire.now)
    yield made
    made.stop()


def held(goes_on: threading.Event) -> None:
    assert goes_on.wait(ENOUGH)


def test_a_handler_that_fails_keeps_nobody_from_hearing(
    wire: Wire, things: Informer[Thing], caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []
    is_heard = threading.Event()

    def fail(_before: Thing | None, _after: Thing | None) -> None:
        raise RuntimeError("a handler of little worth")

    def hear(_before: Thing | None, after: Thing | None) -> None:
        assert after is not None
        heard.append(after.metadata.name)
        if after.metadata.name == "b":
            is_heard.set()

    things.on_change(fail)
    things.on_change(hear)
    wire.pages = [page(10, thing("a", 1))]
    wire.watches = [[event("ADDED", thing("b", 11)), Open("")]]
    things.start()
    assert is_heard.wait(ENOUGH)
    assert heard == ["a", "b"]
    assert "a handler of little worth" in caplog.text


def test_a_handler_that_takes_its_time_does_not_keep_the_watch_waiting(wire: Wire, things: Informer[Thing]) -> None:
    goes_on = threading.Event()
    things.on_change(lambda _before, _after: held(goes_on))
    wire.pages = [page(10, thing("a", 1, size=1))]
    wire.watches = [[event("MODIFIED", thing("a", 11, size=2)), Open("")]]
    things.start()
    wait(things, "a", 2)
    goes_on.set()


def test_handlers_hear_of_what_was_learned_but_not_on_the_learners_thread(wire: Wire, things: Informer[Thing]) -> None:
    told: list[tuple[int | None, int | None, str]] = []
    is_told = threading.Event()

    def tell(before: Thing | None, after: Thing | None) -> None:
        told.append((before.size if before else None, after.size if after else None, threading.current_thread().name))
        if after is not None and after.size == 3:
            is_told.set()

    things.on_change(tell)
    wire.pages = [page(10, thing("a", 1, size=1))]
    goes_on = threading.Event()
    late, same, new = (event("MODIFIED", thing("a", version, size=version - 10)) for version in (11, 12, 13))
    wire.watches = [[goes_on.wait, late, same, new, Open("")]]
    things.start()
    assert things.wait_until_synced(ENOUGH)
    learned = things.learn(msgspec.json.encode(thing("a", 12, size=2)))
    assert learned.size == 2
    assert things.get("a") == learned, "known at once"
    goes_on.set()
    assert is_told.wait(ENOUGH)
    name = "informer-things-handlers"
    assert told == [(None, 1, name), (1, 2, name), (2, 3, name)], "not what it had learned before, nor twice"


def test_an_answer_of_another_kind_is_not_learned(things: Informer[Thing]) -> None:
    with pytest.raises(ApiError, match="no Thing"):
        things.learn(b'{"kind": "Status", "status": "Success"}')


def test_only_changes_of_its_own_object_wake_who_waits(wire: Wire, things: Informer[Thing]) -> None:
    asked: list[int | None] = []
    is_waiting = threading.Event()

    def until(found: Thing | None) -> bool:
        asked.append(found.size if found else None)
        is_waiting.set()
        return found is not None and found.size == 3

    wire.pages = [page(10, thing("a", 1, size=1))]
    others = [event("ADDED", thing(f"o{number}", 20 + number)) for number in range(20)]
    mine = [event("MODIFIED", thing("a", 100, size=3))]
    # Whoever was woken by one of the others has time to look before the next comes.
    slowly = [step for each in others for step in (each, partial(threading.Event().wait, 0.005))]
    wire.watches = [[is_waiting.wait, *slowly, *mine, Open("")]]
    things.start()
    found = things.wait("a", until, ENOUGH)
    assert found is not None
    assert (asked, found.size) == ([1, 3], 3)


def test_who_waits_in_vain_gets_what_there_is(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1, size=1))]
    things.start()
    assert things.wait_until_synced(ENOUGH)
    found = things.wait("a", lambda _: False, 0.01)
    assert found is not None
    assert things.wait("b", lambda _: False, 0.01) is None


def test_nothing_is_said_to_be_gone_before_it_was_looked_for(things: Informer[Thing]) -> None:
    things.start()
    with pytest.raises(ApiUnavailableError, match="could not be listed"):
        things.wait("a", lambda found: found is None, 0.01)


def test_objects_move_in_the_indexes(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1, colour="red"), thing("b", 2, colour="red"))]
    wire.watches = [[event("MODIFIED", thing("a", 11, colour="blue")), event("DELETED", thing("b", 12)), Open("")]]
    things.start()
    wait(things, "b", None)
    assert things.by_index("colour", "red") == ()
    assert [each.metadata.name for each in things.by_index("colour", "blue")] == ["a"]
