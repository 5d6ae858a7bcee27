"""What every RPC has: checked arguments, one change at a time for a volume, a code, a log line, a count."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc
import pytest
from prometheus_client import CollectorRegistry

from csi.calls import Calls, rpc, stream
from csi.metrics import CallMetrics, describe_busy
from csi.orders.about import About
from tests.unit.csi_doubles import RefusedError, caller
from ullage.errors import InvalidRequestError, NotFoundError, PendingOperationError, VolumeInUseError
from ullage.model import VolumeId
from ullage.rpc import MOST_SENTENCE_BYTES, PATIENCE_SECONDS

Code = grpc.StatusCode
FACTS = ("rpc", "volume_id", "reason", "why")
ONE, OTHER = VolumeId("pvc-1"), VolumeId("pvc-2")


def nothing(_volume_id: VolumeId) -> None:
    """What a call does when a test is not about it."""


def checked(message: str) -> About:
    """The message is the volume's id; without one it is refused, and `broken` breaks the check itself."""
    if not message:
        raise InvalidRequestError("volume_id is missing")
    if message == "broken":
        raise ZeroDivisionError("in the check")
    return About(volume_id=VolumeId(message))


@dataclass
class Served:
    """A service of two RPCs that do what a test says, and all that was observed of them."""

    does: Callable[[VolumeId], None] = nothing
    patience: list[float] = field(default_factory=list)
    observed: list[tuple[str, str]] = field(default_factory=list)
    calls: Calls = field(init=False)

    def __post_init__(self) -> None:
        self.calls = Calls(lambda name, code, _seconds: self.observed.append((name, code)))

    @rpc(checked, is_change=True)
    def Change(self, order: About, patience: float) -> str:  # noqa: N802 - as RPCs are called
        self.patience.append(patience)
        self.does(order.volume_id)
        return f"changed {order.volume_id}"

    @rpc(checked)
    def Look(self, order: About, _patience: float) -> str:  # noqa: N802
        self.does(order.volume_id)
        return f"looked at {order.volume_id}"

    def refusal(self, call: Callable[..., object], message: str) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(RefusedError) as refused:
            call(message, caller())
        return refused.value.code, refused.value.sentence


def raising(error: BaseException) -> Callable[[VolumeId], None]:
    def fail(_volume_id: VolumeId) -> None:
        raise error

    return fail


def line(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """The one line of a call: its message, level and facts."""
    (record,) = caplog.records
    said = vars(record)
    assert isinstance(said["seconds"], float)
    facts: dict[str, object] = {name: said[name] for name in FACTS if name in said}
    return {"message": record.getMessage(), "level": record.levelname, **facts}


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="csi")
    return caplog


def test_a_message_is_checked_before_its_volume_is_held_or_anything_done() -> None:
    touched: list[VolumeId] = []
    served = Served(touched.append)
    with served.calls.alone(VolumeId(""), "Change"):
        assert served.refusal(served.Change, "") == (Code.INVALID_ARGUMENT, "volume_id is missing")
    assert touched == []


def test_a_second_change_is_told_what_the_first_one_is_and_how_long_it_has_been_at_it() -> None:
    served = Served()
    with served.calls.alone(ONE, "NodeStageVolume"):
        name, since = served.calls._busy[ONE]
        served.calls._busy[ONE] = (name, since - 90)
        code, sentence = served.refusal(served.Change, ONE)
    assert code is Code.ABORTED
    told = re.fullmatch(
        r"NodeStageVolume of pvc-1 has been under way for (\d+) s; Change has to wait for it: ask again", sentence
    )
    assert told is not None, sentence
    assert int(told[1]) >= 90
    assert served.patience == [], "the second change did nothing"


def test_a_change_that_is_refused_does_not_free_the_volume_for_a_third() -> None:
    served = Served()
    with served.calls.alone(ONE, "NodeStageVolume"):
        for _ in range(2):
            assert served.refusal(served.Change, ONE)[0] is Code.ABORTED
        assert served.calls.under_way() == 1


def test_a_change_holds_its_own_volume_only_and_keeps_no_look_waiting() -> None:
    served = Served()
    with served.calls.alone(ONE, "NodeStageVolume"):
        assert served.Look(ONE, caller()) == "looked at pvc-1"
        assert served.Change(OTHER, caller()) == "changed pvc-2"


def test_a_volume_is_held_while_it_is_changed_and_not_while_it_is_looked_at() -> None:
    served = Served()
    held: list[int] = []
    served.does = lambda _: held.append(served.calls.under_way())
    served.Change(ONE, caller())
    served.Look(ONE, caller())
    assert held == [1, 0]
    assert served.calls.under_way() == 0


@pytest.mark.parametrize(
    ("error", "surfaces"),
    [
        (VolumeInUseError("mounted"), RefusedError),
        (ValueError("unforeseen"), RefusedError),
        (SystemExit(1), SystemExit),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
def test_however_a_change_ends_the_next_one_is_let_in(error: BaseException, surfaces: type[BaseException]) -> None:
    served = Served(raising(error))
    with pytest.raises(surfaces):
        served.Change(ONE, caller())
    assert served.calls.under_way() == 0
    served.does = nothing
    assert served.Change(ONE, caller()) == "changed pvc-1"


def test_what_went_wrong_inside_is_not_taken_for_the_lock() -> None:
    """A change that meets another operation further down has freed its own volume by then."""
    served = Served(raising(PendingOperationError("a create is under way")))
    assert served.refusal(served.Change, ONE) == (Code.ABORTED, "a create is under way")
    assert served.calls.under_way() == 0


@pytest.mark.parametrize("message", [ONE, "broken"])
def test_what_nobody_foresaw_is_internal_with_its_type_and_logged_with_its_traceback(
    message: str, log: pytest.LogCaptureFixture
) -> None:
    served = Served(raising(ZeroDivisionError("in the check")))
    assert served.refusal(served.Change, message) == (Code.INTERNAL, "ZeroDivisionError: in the check")
    assert (line(log)["message"], line(log)["level"]) == ("rpc failed", "ERROR")
    trace = log.records[0].exc_info
    assert trace is not None
    assert trace[0] is ZeroDivisionError
    assert served.observed == [("Change", "INTERNAL")]


@pytest.mark.parametrize(
    ("name", "message", "error", "code"),
    [
        ("Change", "pvc-1", None, Code.OK),
        ("Look", "pvc-1", None, Code.OK),
        ("Change", "", None, Code.INVALID_ARGUMENT),
        ("Look", "pvc-1", NotFoundError("nowhere"), Code.NOT_FOUND),
        ("Change", "pvc-1", VolumeInUseError("mounted"), Code.FAILED_PRECONDITION),
        ("Look", "pvc-1", KeyError("x"), Code.INTERNAL),
    ],
)
def test_each_call_is_observed_once_by_how_it_ended(
    name: str, message: str, error: Exception | None, code: grpc.StatusCode
) -> None:
    served = Served(raising(error) if error else nothing)
    call: Callable[..., object] = getattr(served, name)
    if code is Code.OK:
        call(message, caller())
    else:
        assert served.refusal(call, message)[0] is code
    assert served.observed == [(name, code.name)]


def test_a_call_that_is_kept_away_is_observed_too() -> None:
    served = Served()
    with served.calls.alone(ONE, "NodeStageVolume"):
        served.refusal(served.Change, ONE)
    assert served.observed == [("Change", "ABORTED")]


@pytest.mark.parametrize(("name", "level"), [("Change", "INFO"), ("Look", "DEBUG")])
def test_a_call_is_one_line_with_its_volume_louder_when_the_world_changed(
    name: str, level: str, log: pytest.LogCaptureFixture
) -> None:
    served = Served()
    getattr(served, name)(ONE, caller())
    assert line(log) == {"message": "rpc served", "level": level, "rpc": name, "volume_id": ONE}


def test_a_refusal_is_one_line_with_the_reason_and_the_whole_sentence(log: pytest.LogCaptureFixture) -> None:
    sentence = "open " * 1000
    served = Served(raising(VolumeInUseError(sentence)))
    _, told = served.refusal(served.Change, ONE)
    assert line(log) == {
        "message": "rpc refused",
        "level": "WARNING",
        "rpc": "Change",
        "volume_id": ONE,
        "reason": "VolumeInUse",
        "why": sentence,
    }
    assert len(told.encode()) <= MOST_SENTENCE_BYTES, "longer ones arrive as RESOURCE_EXHAUSTED"


def test_a_refusal_before_there_is_an_order_is_a_line_without_a_volume(log: pytest.LogCaptureFixture) -> None:
    served = Served()
    served.refusal(served.Change, "")
    assert "volume_id" not in line(log)


def test_a_method_is_told_a_little_less_than_its_caller_waits() -> None:
    served = Served()
    for waits_seconds in (None, 10.0, 0.0):
        served.Change(ONE, caller(waits_seconds))
    forever, ten, none = served.patience
    assert forever == PATIENCE_SECONDS
    assert 0 < ten < 10
    assert none == 0


# Streams.


class Streaming:
    """A service of one stream, that counts, fails where a test says, and knows whether it was closed."""

    def __init__(self, fails_at: int = -1, error: Exception | None = None) -> None:
        self.observed: list[tuple[str, str]] = []
        self.calls = Calls(lambda name, code, _seconds: self.observed.append((name, code)))
        self.fails_at, self.error, self.is_closed = fails_at, error, False

    @stream(checked)
    def Count(self, order: About) -> Iterator[str]:  # noqa: N802 - as RPCs are called
        try:
            for number in range(3):
                if number == self.fails_at and self.error is not None:
                    raise self.error
                yield f"{order.volume_id} {number}"
        finally:
            self.is_closed = True


def test_a_stream_that_ends_is_one_line_and_one_observation(log: pytest.LogCaptureFixture) -> None:
    served = Streaming()
    with served.calls.alone(ONE, "NodeStageVolume"):
        assert list(served.Count(ONE, caller())) == ["pvc-1 0", "pvc-1 1", "pvc-1 2"]
    assert line(log) == {"message": "rpc served", "level": "DEBUG", "rpc": "Count", "volume_id": ONE}
    assert served.observed == [("Count", "OK")]


@pytest.mark.parametrize(
    ("message", "fails_at", "error", "code"),
    [
        ("", -1, None, Code.INVALID_ARGUMENT),
        ("pvc-1", 0, NotFoundError("nowhere"), Code.NOT_FOUND),
        ("pvc-1", 2, VolumeInUseError("mounted"), Code.FAILED_PRECONDITION),
        ("pvc-1", 2, ZeroDivisionError("in the middle"), Code.INTERNAL),
    ],
)
def test_a_stream_that_fails_ends_with_a_code_wherever_it_was(
    message: str, fails_at: int, error: Exception | None, code: grpc.StatusCode, log: pytest.LogCaptureFixture
) -> None:
    served = Streaming(fails_at, error)
    got: list[str] = []
    with pytest.raises(RefusedError) as refused:
        got.extend(served.Count(message, caller()))
    assert refused.value.code is code
    assert len(got) <= max(0, fails_at)
    assert served.observed == [("Count", code.name)]
    assert line(log)["message"] == ("rpc failed" if code is Code.INTERNAL else "rpc refused")


def test_a_stream_whose_caller_goes_away_is_closed_where_it_stands(log: pytest.LogCaptureFixture) -> None:
    served = Streaming()
    answers = served.Count(ONE, caller())
    assert next(answers) == "pvc-1 0"
    assert not served.is_closed
    del answers  # what gRPC does with it
    assert served.is_closed
    assert line(log) == {"message": "rpc cancelled", "level": "DEBUG", "rpc": "Count", "volume_id": ONE}
    assert served.observed == [("Count", "CANCELLED")]


def test_what_is_observed_can_be_scraped() -> None:
    registry = CollectorRegistry()
    calls = Calls(CallMetrics(registry).observe)
    describe_busy(registry, calls.under_way)
    served = Served()
    served.calls = calls
    served.Change(ONE, caller())
    served.refusal(served.Change, "")
    with calls.alone(OTHER, "Change"):
        assert registry.get_sample_value("ullage_csi_busy_volumes") == 1
    assert registry.get_sample_value("ullage_csi_busy_volumes") == 0
    for code in ("OK", "INVALID_ARGUMENT"):
        labels = {"rpc": "Change", "code": code}
        assert registry.get_sample_value("ullage_csi_call_seconds_count", labels) == 1
