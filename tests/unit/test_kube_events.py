"""Events: who tells one is never held up, and what the API server sees of many is few."""

from __future__ import annotations

import threading

from tests.unit.kube_doubles import ApiServer, Fields
from ullage.errors import ApiForbiddenError
from ullage.kube.api import Api
from ullage.kube.events import (
    BURST,
    FORGET_SECONDS,
    MOST_KNOWN,
    MOST_NOTE_BYTES,
    SECONDS_PER_EVENT,
    SERIES_SECONDS,
    Events,
)
from ullage.kube.foreign import ObjectReference
from ullage.kube.meta import EVENTS

CLAIM = ObjectReference(api_version="v1", kind="PersistentVolumeClaim", namespace="db", name="pg-0", uid="u")
NODE = ObjectReference(api_version="v1", kind="Node", name="n1")


class Bench:
    """Events whose clock stands still, and whose turns are the test's."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.server = ApiServer()
        self.events = Events(Api(self.server), "ullage-node", "n1", clock=lambda: self.now)

    def turn(self, seconds: float = 0.0) -> None:
        """All that is due once so much time has passed."""
        self.now += seconds
        while self.events.turn() <= 0:
            pass

    def written(self) -> list[Fields]:
        return list(self.server.all(EVENTS).values())


def test_an_event_says_who_what_about_whom_and_since_when() -> None:
    bench = Bench()
    bench.events.tell(CLAIM, reason="Carved", message="1 GiB in vg0", action="Create")
    bench.turn()
    (event,) = bench.written()
    assert event["metadata"]["namespace"] == "db"
    assert event["regarding"] == {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": "db",
        "name": "pg-0",
        "uid": "u",
    }
    told = ("type", "reason", "action", "note", "reportingController", "reportingInstance", "series")
    assert [event[key] for key in told] == ["Normal", "Carved", "Create", "1 GiB in vg0", "ullage-node", "n1", None]
    assert event["eventTime"]


def test_one_on_an_object_without_a_namespace_is_kept_where_the_server_wants_it() -> None:
    bench = Bench()
    bench.events.tell(NODE, reason="PoolDegraded", message="", is_warning=True)
    bench.turn()
    (event,) = bench.written()
    assert (event["metadata"]["namespace"], event["type"], event["action"]) == ("default", "Warning", "PoolDegraded")


def test_the_same_told_again_is_counted_and_written_now_and_then() -> None:
    bench = Bench()
    for _ in range(5):
        bench.events.tell(CLAIM, reason="Refused", message="no room")
        bench.turn()
    assert len(bench.server.writes) == 1
    bench.turn(SERIES_SECONDS)
    assert [method for method, _ in bench.server.writes] == ["POST", "PATCH"]
    (event,) = bench.written()
    assert event["series"]["count"] == 5
    bench.turn(SERIES_SECONDS)
    assert len(bench.server.writes) == 2, "nothing new, nothing written"


def test_other_words_are_another_event() -> None:
    bench = Bench()
    bench.events.tell(CLAIM, reason="Refused", message="no room: 1 GiB")
    bench.events.tell(CLAIM, reason="Refused", message="no room: 2 GiB")
    bench.turn()
    assert {event["note"] for event in bench.written()} == {"no room: 1 GiB", "no room: 2 GiB"}


def test_the_same_of_a_newer_version_of_the_object_is_the_same() -> None:
    bench = Bench()
    for version in ("1", "2"):
        about = ObjectReference(kind="Node", name="n1", resource_version=version)
        bench.events.tell(about, reason="R", message="m")
    bench.turn()
    (event,) = bench.written()
    assert event["series"]["count"] == 2


def test_a_repetition_of_an_event_that_has_expired_is_written_anew() -> None:
    bench = Bench()
    bench.events.tell(CLAIM, reason="Refused", message="no room")
    bench.turn()
    (event,) = bench.written()
    bench.server.remove(EVENTS, event["metadata"]["name"], namespace="db")
    bench.events.tell(CLAIM, reason="Refused", message="no room")
    bench.turn(SERIES_SECONDS)
    (event,) = bench.written()
    assert event["series"]["count"] == 2


def test_a_flood_is_written_no_faster_than_it_may() -> None:
    bench = Bench()
    for number in range(2 * BURST):
        bench.events.tell(CLAIM, reason="Refused", message=f"{number}")
    bench.turn()
    assert len(bench.written()) == BURST
    bench.turn(3 * SECONDS_PER_EVENT)
    assert len(bench.written()) == BURST + 3


def test_no_more_events_wait_than_there_is_room_for() -> None:
    bench = Bench()
    for number in range(MOST_KNOWN + 10):
        bench.events.tell(CLAIM, reason="Refused", message=f"{number}")
    for _ in range(20):
        bench.turn(BURST * SECONDS_PER_EVENT)
    assert len(bench.written()) == MOST_KNOWN
    bench.events.tell(CLAIM, reason="Refused", message="later")
    bench.turn(SECONDS_PER_EVENT)
    assert "later" in {event["note"] for event in bench.written()}, "what is written makes room"


def test_they_wait_for_an_api_server_that_is_away_and_say_when_they_were_told() -> None:
    bench = Bench()
    bench.server.is_down = True
    bench.events.tell(CLAIM, reason="Carved", message="")
    assert bench.events.turn() <= 0
    assert bench.events.turn() > 0, "not at once again"
    bench.server.is_down = False
    bench.turn(60.0)
    assert len(bench.written()) == 1


def test_they_do_not_wait_for_ever() -> None:
    bench = Bench()
    bench.server.is_down = True
    bench.events.tell(CLAIM, reason="Carved", message="")
    bench.turn()
    bench.server.is_down = False
    bench.turn(FORGET_SECONDS)
    assert bench.written() == []


def test_a_refused_event_does_not_hold_up_the_next() -> None:
    bench = Bench()

    def refuse(_before: Fields | None, after: Fields) -> None:
        if after["note"] == "bad":
            raise ApiForbiddenError("no", code=403)

    bench.server.admit = refuse
    bench.events.tell(CLAIM, reason="R", message="bad")
    bench.events.tell(CLAIM, reason="R", message="good")
    bench.turn()
    assert [event["note"] for event in bench.written()] == ["good"]


def test_a_long_message_is_cut_to_what_the_server_takes_between_two_characters() -> None:
    bench = Bench()
    bench.events.tell(CLAIM, reason="R", message="é" * 2000)
    bench.turn()
    (event,) = bench.written()
    assert MOST_NOTE_BYTES - 2 <= len(event["note"].encode()) <= MOST_NOTE_BYTES


def test_telling_does_not_wait_for_the_server() -> None:
    bench = Bench()
    is_asked, goes_on = threading.Event(), threading.Event()

    def hang(_method: str, _path: str) -> None:
        is_asked.set()
        assert goes_on.wait(10)

    bench.server.before = hang
    bench.events.start()
    bench.events.tell(CLAIM, reason="R", message="1")
    assert is_asked.wait(10)
    bench.events.tell(CLAIM, reason="R", message="2")  # or this would never come back
    goes_on.set()
    bench.events.stop()
    assert {event["note"] for event in bench.written()} == {"1", "2"}
