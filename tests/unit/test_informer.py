"""What the informer knows after whatever the network and the API server did to it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.kube_doubles import ApiServer
from tests.unit.kube_wire import (
    ENOUGH,
    THINGS,
    Open,
    Silent,
    Step,
    Thing,
    Wire,
    bookmark,
    event,
    page,
    sizes,
    thing,
    wait,
)
from ullage.errors import ApiGoneError, ApiUnavailableError
from ullage.kube.api import PAGE_OBJECTS, Api
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import LogicalVolume, order
from ullage.kube.meta import LOGICAL_VOLUMES, Meta
from ullage.kube.pauses import LONGEST_PAUSE_SECONDS, STEADY_SECONDS, Pauses
from ullage.model import CreateVolume, DeviceClassName, NodeName, VolumeId


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def things(wire: Wire) -> Iterator[Informer[Thing]]:
    made = Informer(Api(wire), THINGS, Thing, indexes={"colour": lambda each: [each.colour]}, clock=lambda: wire.now)
    yield made
    made.stop()


def test_what_was_there_and_what_comes_and_goes_is_known(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1, size=1), thing("b", 2, size=2))]
    wire.watches = [
        [
            event("ADDED", thing("c", 11, size=3)),
            event("MODIFIED", thing("a", 12, size=9)),
            event("DELETED", thing("b", 13)),
            Open(""),
        ]
    ]
    things.start()
    wait(things, "b", None)
    assert sizes(things) == {"a": 9, "c": 3}
    assert (things.relists, things.events, things.watches, len(things)) == (1, 3, 1, 2)


def test_a_list_comes_in_pages_and_counts_when_it_is_whole(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [
        page(10, thing("a", 1), then="more"),
        ApiUnavailableError("it broke off"),
        page(20, thing("a", 1), then="again"),
        page(20, thing("b", 2)),
    ]
    things.start()
    assert things.wait_until_synced(ENOUGH)
    wire.wait_until_asked(5)
    assert [each.get("continue", "") for each in wire.asked] == ["", "more", "", "again", ""]
    assert {each.get("limit") for each in wire.asked[:4]} == {str(PAGE_OBJECTS)}
    assert wire.asked[4]["resourceVersion"] == "20"
    assert set(sizes(things)) == {"a", "b"}
    assert things.relists == 1


def test_a_list_without_items_is_a_list(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [b'{"metadata": {"resourceVersion": "7"}, "items": null}']
    things.start()
    assert things.wait_until_synced(ENOUGH)
    assert things.all() == ()


def test_a_continuation_that_is_too_old_begins_the_list_again(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1), then="more"), ApiGoneError("too old", code=410), page(20, thing("b", 2))]
    things.start()
    assert things.wait_until_synced(ENOUGH)
    assert set(sizes(things)) == {"b"}


def test_a_watch_goes_on_from_the_last_bookmark(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10)]
    wire.watches = [[bookmark(50), ApiUnavailableError("it broke off")]]
    things.start()
    wire.wait_until_asked(3)
    assert [each.get("resourceVersion") for each in wire.asked] == [None, "10", "50"]
    assert things.events == 0


def test_a_watch_asks_for_bookmarks_and_for_an_end_of_its_own(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10)]
    things.start()
    wire.wait_until_asked(2)
    assert wire.asked[1]["allowWatchBookmarks"] == "true"
    assert 240 <= int(wire.asked[1]["timeoutSeconds"]) <= 480


@pytest.mark.parametrize(
    "gone",
    [
        [ApiGoneError("too old resource version", code=410)],
        [event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})],
    ],
    ids=["by status", "by event"],
)
def test_what_went_while_the_history_was_forgotten_is_told_as_removed(
    gone: list[Step], wire: Wire, things: Informer[Thing]
) -> None:
    told: list[tuple[str | None, str | None]] = []
    is_told = threading.Event()

    def tell(before: Thing | None, after: Thing | None) -> None:
        told.append(
            (before.metadata.resource_version if before else None, after.metadata.resource_version if after else None)
        )
        if after is not None and after.metadata.name == "last":
            is_told.set()

    things.on_change(tell)
    wire.pages = [page(10, thing("a", 1), thing("b", 2), thing("c", 3)), page(99, thing("a", 1), thing("c", 80))]
    wire.watches = [gone, [event("ADDED", thing("last", 100)), Open("")]]
    things.start()
    assert is_told.wait(ENOUGH)
    assert told == [(None, "1"), (None, "2"), (None, "3"), ("3", "80"), ("2", None), (None, "100")]
    assert things.relists == 2


def test_another_failure_told_by_an_event_forgets_nothing(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10)]
    wire.watches = [[bookmark(20), event("ERROR", {"kind": "Status", "code": 500, "message": "etcd"})]]
    things.start()
    wire.wait_until_asked(3)
    assert wire.asked[2]["resourceVersion"] == "20"


def test_a_half_open_connection_is_given_up_and_goes_on_where_it_was(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1, size=1))]
    wire.watches = [[bookmark(20), Silent("")], [event("MODIFIED", thing("a", 21, size=2)), Open("")]]
    things.start()
    wait(things, "a", 2)
    assert wire.asked[2]["resourceVersion"] == "20"
    assert things.relists == 1


def test_a_watch_that_never_said_a_word_may_be_in_a_lost_history_and_is_followed_by_a_list(
    wire: Wire, things: Informer[Thing]
) -> None:
    wire.pages = [page(1000, thing("a", 900, size=1), thing("b", 950, size=1)), page(500, thing("a", 400, size=2))]
    wire.watches = [[Silent("")]]
    things.start()
    wait(things, "b", None)
    assert sizes(things) == {"a": 2}
    wire.wait_until_asked(4)
    assert wire.asked[3]["resourceVersion"] == "500"


def test_while_the_server_is_away_what_was_known_stays(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1, size=1))]
    wire.watches = [[ApiGoneError("too old", code=410)]]
    things.start()
    assert things.wait_until_synced(ENOUGH)
    wire.wait_until_asked(4)  # and none of the lists is answered
    wire.now += 3600
    assert things.is_synced
    assert sizes(things) == {"a": 1}
    assert things.seconds_since_heard >= 3600


@pytest.mark.parametrize("end", [[], [ApiGoneError("too old", code=410)]], ids=["well", "with 410"])
def test_a_server_that_ends_every_watch_at_once_is_not_asked_again_and_again(
    end: list[Step], wire: Wire, things: Informer[Thing]
) -> None:
    wire.pages = [page(10) for _ in range(100)]
    wire.watches = [list(end) for _ in range(100)]
    things.start()
    wire.wait_until_asked(3)
    threading.Event().wait(0.5)
    assert len(wire.asked) < 10


@given(st.lists(st.tuples(st.floats(0, 2 * STEADY_SECONDS), st.booleans()), max_size=60))
def test_pauses_grow_to_a_bound_and_only_what_lasted_and_ended_well_has_none(turns: list[tuple[float, bool]]) -> None:
    pauses = Pauses()
    for lasted_seconds, is_failure in turns:
        pause = pauses.after(lasted_seconds, is_failure=is_failure)
        assert pause <= LONGEST_PAUSE_SECONDS
        assert (pause == 0) == (lasted_seconds >= STEADY_SECONDS and not is_failure)


def test_a_server_that_is_away_for_an_hour_is_asked_some_hundred_times() -> None:
    pauses = Pauses()
    tries = itertools.takewhile(lambda sum_seconds: sum_seconds < 3600, itertools.accumulate(iter(pauses.after, None)))
    assert 450 <= len(list(tries)) <= 950


def test_one_object_that_cannot_be_understood_does_not_hide_the_others(
    wire: Wire, things: Informer[Thing], caplog: pytest.LogCaptureFixture
) -> None:
    wire.pages = [page(10, thing("a", 1, size=1), thing("odd", 2, size="large"), thing("b", 3, size=3))]
    wire.watches = [
        [
            event("MODIFIED", thing("b", 11, size=[])),
            event("ADDED", thing("c", 12, size=4)),
            event("MODIFIED", thing("odd", 13, size=5)),
            Open(""),
        ]
    ]
    things.start()
    wait(things, "odd", 5)
    assert sizes(things) == {"a": 1, "b": 3, "c": 4, "odd": 5}, "b stays as it was understood last"
    assert things.unreadable == 1
    assert [each.__dict__["object"] for each in caplog.records if each.levelname == "ERROR"] == ["/odd", "/b"]


def test_an_object_that_cannot_be_understood_any_more_is_not_gone(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10, thing("a", 1, size=1)), page(50, thing("a", 40, size="large")), page(60)]
    wire.watches = [[ApiGoneError("", code=410)], [event("ADDED", thing("z", 51)), ApiGoneError("", code=410)]]
    things.start()
    wait(things, "z", 0)
    assert sizes(things) == {"a": 1, "z": 0}
    wait(things, "a", None)
    assert things.unreadable == 0


def test_an_index_that_fails_hides_one_object_only(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    wire.pages = [page(10, thing("a", 1, size=1), thing("b", 2))]
    things = Informer(Api(wire), THINGS, Thing, indexes={"part": lambda each: [str(1 // each.size)]})
    things.start()
    assert things.wait_until_synced(ENOUGH)
    assert sizes(things) == {"a": 1}
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(ZeroDivisionError):
        things.learn(Thing(metadata=Meta(name="c", resource_version="11")))
    assert things.get("c") is None
    things.stop()


def test_nonsense_on_the_line_is_told_and_followed_by_a_list(
    wire: Wire, things: Informer[Thing], caplog: pytest.LogCaptureFixture
) -> None:
    wire.pages = [page(10, thing("a", 1, size=1)), page(20, thing("a", 15, size=2))]
    wire.watches = [[b"<html>"]]
    things.start()
    wait(things, "a", 2)
    assert "Traceback" in caplog.text


def test_selectors_reach_the_list_and_the_watch(wire: Wire) -> None:
    wire.pages = [page(10)]
    things = Informer(Api(wire), THINGS, Thing, field_selector="spec.nodeName=n1", label_selector="app=x")
    things.start()
    wire.wait_until_asked(2)
    for query in wire.asked:
        assert (query["fieldSelector"], query["labelSelector"]) == ("spec.nodeName=n1", "app=x")
    things.stop()


def test_stopping_does_not_wait_for_a_silent_server(wire: Wire, things: Informer[Thing]) -> None:
    wire.pages = [page(10)]
    things.start()
    wire.wait_until_asked(2)
    things.stop()
    assert wire.ended.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("informer-things")]


def test_it_can_be_stopped_before_it_has_begun(things: Informer[Thing]) -> None:
    things.stop()


def volume(name: str, node: str = "n1") -> LogicalVolume:
    request = CreateVolume(volume_id=VolumeId(name), device_class=DeviceClassName("fast"), size_bytes=1 << 30)
    return order(request, NodeName(node))


def test_of_many_pages_each_node_hears_only_of_its_own(wire: Wire) -> None:
    del wire
    server = ApiServer()
    for number in range(3 * PAGE_OBJECTS):
        server.put(LOGICAL_VOLUMES, volume(f"v{number}", f"n{number % 2}"))
    whole = Informer(Api(server), LOGICAL_VOLUMES, LogicalVolume)
    half = Informer(Api(server), LOGICAL_VOLUMES, LogicalVolume, field_selector="spec.nodeName=n1")
    for each in (whole, half):
        each.start()
        assert each.wait_until_synced(ENOUGH)
    assert (len(whole), len(half), len(server.reads)) == (3 * PAGE_OBJECTS, 3 * PAGE_OBJECTS // 2, 3 + 2)
    server.put(LOGICAL_VOLUMES, volume("other", "n0"))
    server.put(LOGICAL_VOLUMES, volume("mine", "n1"))
    assert half.wait("mine", lambda found: found is not None, ENOUGH) is not None
    assert (half.events, half.get("other")) == (1, None)
    for each in (whole, half):
        each.stop()


def test_a_server_that_breaks_forgets_and_goes_away_is_caught_up_with() -> None:
    server = ApiServer()
    volumes = Informer(Api(server), LOGICAL_VOLUMES, LogicalVolume)
    volumes.start()
    assert volumes.wait_until_synced(ENOUGH)
    for number in range(4):
        server.put(LOGICAL_VOLUMES, volume(f"v{number}"))
        if number:
            server.remove(LOGICAL_VOLUMES, f"v{number - 1}")
        [server.break_streams, server.compact, server.go_down, server.bookmark][number]()
        server.is_down = False
        server.put(LOGICAL_VOLUMES, volume(f"after-{number}"))
        assert volumes.wait(f"after-{number}", lambda found: found is not None, ENOUGH) is not None
        assert {each.metadata.name for each in volumes.all()} == set(server.all(LOGICAL_VOLUMES))
    volumes.stop()
