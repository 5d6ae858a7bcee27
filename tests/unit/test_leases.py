"""At most one leads: two candidates, each with its own clock, over an API server in memory."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest

from tests.unit.kube_doubles import ApiServer, Fields
from ullage.errors import ApiForbiddenError, ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.leases import DEADLINE_SECONDS, DURATION_SECONDS, RETRY_SECONDS, Lease
from ullage.kube.meta import LEASES

NAMESPACE = "ullage"
ENOUGH = 10.0


class Candidate:
    """A lease whose turns are the test's, on a machine whose clock has nothing to do with the others'."""

    def __init__(self, server: ApiServer, identity: str, now: float) -> None:
        self.now = now
        self.lease = Lease(Api(server), "ullage", namespace=NAMESPACE, identity=identity, clock=lambda: self.now)

    def turn(self, seconds: float = 0.0) -> bool:
        """Whether it leads after this time and one more try."""
        self.now += seconds
        with suppress(ApiUnavailableError):
            self.lease.turn()
        return self.lease.is_leader


def record(server: ApiServer) -> Fields:
    found = server.find(LEASES, "ullage", namespace=NAMESPACE)
    assert found is not None
    spec: Fields = found["spec"]
    return spec


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def one(server: ApiServer) -> Candidate:
    return Candidate(server, "one", 1000.0)


@pytest.fixture
def two(server: ApiServer) -> Candidate:
    return Candidate(server, "two", 5_000_000.0)


def test_the_first_leads_and_the_second_waits(server: ApiServer, one: Candidate, two: Candidate) -> None:
    assert one.turn()
    assert not two.turn()
    assert record(server)["holderIdentity"] == "one"
    assert record(server)["leaseTransitions"] == 0


def test_who_renews_is_not_replaced_however_long_it_takes(one: Candidate, two: Candidate) -> None:
    one.turn()
    for _ in range(50):
        assert not two.turn(RETRY_SECONDS)
        assert one.turn(RETRY_SECONDS)


def test_who_shows_no_sign_of_life_is_replaced_and_not_before(
    server: ApiServer, one: Candidate, two: Candidate
) -> None:
    one.turn()
    assert not two.turn(), "it has just been seen for the first time, however old it says it is"
    assert not two.turn(DURATION_SECONDS)
    assert two.turn(1.0)
    assert record(server)["holderIdentity"] == "two"
    assert record(server)["leaseTransitions"] == 1


def test_what_another_machines_clock_says_does_not_count(server: ApiServer, one: Candidate, two: Candidate) -> None:
    one.turn()
    found = server.find(LEASES, "ullage", namespace=NAMESPACE)
    assert found is not None
    found["spec"]["renewTime"] = "1970-01-01T00:00:00.000000Z"
    server.put(LEASES, found, namespace=NAMESPACE)
    assert not two.turn()
    assert not two.turn(DURATION_SECONDS)


def test_who_cannot_renew_stops_leading_before_another_may_begin(
    server: ApiServer, one: Candidate, two: Candidate
) -> None:
    one.turn()
    two.turn()
    server.is_down = True
    assert one.turn(DEADLINE_SECONDS - 1)
    assert not one.turn(1)
    server.is_down = False
    assert not two.turn(DEADLINE_SECONDS), "one has stopped, and two does not lead yet"
    assert one.turn(), "nobody has taken it meanwhile"


def test_time_spent_on_a_renewal_is_not_won(server: ApiServer, one: Candidate) -> None:
    one.turn()

    def slow(_method: str, _path: str) -> None:
        one.now += 4

    server.before = slow
    assert one.turn()
    one.now += DEADLINE_SECONDS - 4
    assert not one.lease.is_leader


def test_who_was_replaced_sees_it_at_its_next_try(server: ApiServer, one: Candidate, two: Candidate) -> None:
    one.turn()
    two.turn()
    assert two.turn(DURATION_SECONDS + 1)
    assert not one.turn()
    assert record(server)["holderIdentity"] == "two"


def test_a_free_lease_is_taken_by_one_of_two_who_have_seen_it_free(
    server: ApiServer, one: Candidate, two: Candidate
) -> None:
    has_two_turned = False

    def race(method: str, _path: str) -> None:
        nonlocal has_two_turned
        if method == "POST" and not has_two_turned:
            has_two_turned = True
            assert two.turn()

    server.before = race
    assert not one.turn()
    assert record(server)["holderIdentity"] == "two"


def test_an_expired_lease_is_taken_by_one_of_two_who_have_seen_it_expire(server: ApiServer, one: Candidate) -> None:
    one.turn()
    two, three = Candidate(server, "two", 0.0), Candidate(server, "three", 0.0)
    two.turn()
    three.turn()
    has_three_turned = False

    def race(method: str, _path: str) -> None:
        nonlocal has_three_turned
        if method == "PATCH" and not has_three_turned:
            has_three_turned = True
            assert three.turn(DURATION_SECONDS + 1)

    server.before = race
    assert not two.turn(DURATION_SECONDS + 1)
    assert record(server)["holderIdentity"] == "three"


def test_a_renewal_whose_answer_was_lost_is_our_own(server: ApiServer, one: Candidate) -> None:
    one.turn()
    Candidate(server, "one", 0.0).turn()  # what came through, and was not heard of
    assert one.turn()
    assert record(server)["leaseTransitions"] == 0


def test_whose_lease_was_deleted_leads_no_more_if_another_makes_it(
    server: ApiServer, one: Candidate, two: Candidate
) -> None:
    one.turn()
    server.remove(LEASES, "ullage", namespace=NAMESPACE)
    assert two.turn()
    assert not one.turn()


def test_whose_lease_was_deleted_leads_no_more_if_another_is_faster_to_make_it_again(
    server: ApiServer, one: Candidate, two: Candidate
) -> None:
    one.turn()
    server.remove(LEASES, "ullage", namespace=NAMESPACE)

    def race(method: str, _path: str) -> None:
        if method == "POST" and not server.all(LEASES):
            server.before = lambda _method, _path: None
            assert two.turn()

    server.before = race
    assert not one.turn()
    assert two.lease.is_leader


def test_what_others_have_written_on_it_stays(server: ApiServer, one: Candidate) -> None:
    one.turn()
    found = server.find(LEASES, "ullage", namespace=NAMESPACE)
    assert found is not None
    found["metadata"]["labels"] = {"by": "another"}
    server.put(LEASES, found, namespace=NAMESPACE)
    assert one.turn()
    after = server.find(LEASES, "ullage", namespace=NAMESPACE)
    assert after is not None
    assert after["metadata"]["labels"] == {"by": "another"}


class Follower:
    """A lease with its threads, and what it has called."""

    def __init__(self, server: ApiServer, identity: str, *, is_failing: bool = False) -> None:
        self.leading, self.lost = threading.Event(), threading.Event()
        self.calls: list[str] = []
        self.is_failing = is_failing
        self.lease = Lease(
            Api(server),
            "ullage",
            namespace=NAMESPACE,
            identity=identity,
            on_leading=self._on_leading,
            on_lost=self._on_lost,
            retry_seconds=0.02,
        )

    def _on_leading(self) -> None:
        self.calls.append("leading")
        self.leading.set()
        if self.is_failing:
            raise RuntimeError("a loop does not start")

    def _on_lost(self) -> None:
        self.calls.append("lost")
        self.lost.set()


def test_who_goes_on_leading_is_told_once(server: ApiServer) -> None:
    one = Follower(server, "one")
    one.lease.start()
    server.wait_until(lambda: len(server.writes) >= 10)
    assert one.leading.wait(ENOUGH)
    assert one.calls == ["leading"]
    one.lease.stop()
    assert one.calls == ["leading", "lost"]


def test_who_stops_is_told_first_and_then_followed_at_once(server: ApiServer) -> None:
    one, two = Follower(server, "one"), Follower(server, "two")
    one.lease.start()
    assert one.leading.wait(ENOUGH)
    two.lease.start()
    one.lease.stop()
    assert one.calls == ["leading", "lost"]
    assert two.leading.wait(ENOUGH)
    two.lease.stop()
    assert record(server)["holderIdentity"] == ""


def test_who_never_led_releases_nothing(server: ApiServer) -> None:
    one, two = Follower(server, "one"), Follower(server, "two")
    one.lease.start()
    assert one.leading.wait(ENOUGH)
    two.lease.start()
    two.lease.stop()
    assert two.calls == []
    assert record(server)["holderIdentity"] == "one"
    one.lease.stop()


def test_who_is_replaced_is_told(server: ApiServer) -> None:
    one = Follower(server, "one")
    one.lease.start()
    assert one.leading.wait(ENOUGH)
    found = server.find(LEASES, "ullage", namespace=NAMESPACE)
    assert found is not None
    server.put(LEASES, found | {"spec": found["spec"] | {"holderIdentity": "two"}}, namespace=NAMESPACE)
    assert one.lost.wait(ENOUGH)
    assert not one.lease.is_leader
    one.lease.stop()
    assert record(server)["holderIdentity"] == "two", "it is not ours to release"


def test_a_callback_that_fails_ends_nothing(server: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    one = Follower(server, "one", is_failing=True)
    one.lease.start()
    assert one.leading.wait(ENOUGH)
    one.lease.stop()
    assert one.calls == ["leading", "lost"]
    assert "a loop does not start" in caplog.text


def test_a_refusal_is_told_and_tried_again(server: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    is_refused = threading.Event()

    def refuse(_before: Fields | None, _after: Fields) -> None:
        if not is_refused.is_set():
            is_refused.set()
            raise ApiForbiddenError("leases is forbidden", code=403)

    server.admit = refuse
    one = Follower(server, "one")
    one.lease.start()
    assert one.leading.wait(ENOUGH)
    one.lease.stop()
    assert "refused" in caplog.text
