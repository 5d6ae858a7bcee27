"""The thread that listens for block device events, over a monitor that does what each test says."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from node_agent.udev import BlockEvents, Event, Monitor

SOON = 10.0  # far above what anything here takes


class Script:
    """A monitor that answers each poll with the next line: an event, or an error that it raises; then nothing comes."""

    def __init__(self, *lines: Event | Exception) -> None:
        self._lines = iter(lines)

    def poll(self, timeout_seconds: float) -> Event | None:
        line = next(self._lines, None)
        if isinstance(line, Exception):
            raise line
        if line is None:
            time.sleep(min(timeout_seconds, 0.01))
        return line


class Heard:
    """What was told, in order."""

    def __init__(self) -> None:
        self.told: Queue[str] = Queue()

    def event(self, event: Event) -> None:
        self.told.put(event.device_name)

    def lost(self) -> None:
        self.told.put("lost")

    def next(self, count: int) -> list[str]:
        return [self.told.get(timeout=SOON) for _ in range(count)]


def changed(name: str) -> Event:
    return Event(device_name=name, action="change")


Start = Callable[..., BlockEvents]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def start(heard: Heard) -> Iterator[Start]:
    running: list[BlockEvents] = []

    def start(*monitors: Monitor | Exception, on_event: Callable[[Event], None] = heard.event) -> BlockEvents:
        """Listen to the monitors, one after the other; an exception is a listening that fails. Then the last again."""
        left = list(monitors)

        def listen() -> Monitor:
            monitor = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(monitor, Exception):
                raise monitor
            return monitor

        events = BlockEvents(
            on_event, heard.lost, listen=listen, first_delay_seconds=0.001, longest_delay_seconds=0.002
        )
        running.append(events)
        events.start()
        return events

    yield start
    for events in running:
        events.stop()
    assert "block-events" not in {thread.name for thread in threading.enumerate()}


def test_events_are_passed_on_in_order_once_listening(start: Start, heard: Heard) -> None:
    start(Script(changed("sda"), changed("dm-1"), changed("sda")))
    assert heard.next(4) == ["lost", "sda", "dm-1", "sda"]


def test_after_an_overflow_a_new_monitor_is_made_and_loss_told(start: Start, heard: Heard) -> None:
    overflow = OSError("Error while polling fd: 3")
    start(Script(changed("sda"), overflow), Script(overflow), Script(changed("sdb")))
    assert heard.next(5) == ["lost", "sda", "lost", "lost", "sdb"]


def test_loss_is_told_when_the_new_monitor_listens_already(heard: Heard) -> None:
    order: list[str] = []
    done = threading.Event()

    def listen() -> Monitor:
        order.append("listen")
        return Script(OSError())

    def on_lost() -> None:
        order.append("lost")
        if len(order) == 4:
            done.set()

    events = BlockEvents(heard.event, on_lost, listen=listen, first_delay_seconds=0.001)
    events.start()
    assert done.wait(SOON)
    events.stop()
    assert order[:4] == ["listen", "lost", "listen", "lost"]


def test_an_exception_out_of_a_callback_is_logged_and_the_next_event_told(
    start: Start, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def clumsy(event: Event) -> None:
        heard.event(event)
        raise RuntimeError(event.device_name)

    start(Script(changed("sda"), changed("sdb")), on_event=clumsy)
    assert heard.next(3) == ["lost", "sda", "sdb"]
    assert "sda" in caplog.text


def test_any_other_error_of_a_monitor_is_a_loss_too(start: Start, heard: Heard) -> None:
    start(Script(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")), Script(changed("sda")))
    assert heard.next(3) == ["lost", "lost", "sda"]


def test_where_nothing_can_be_listened_to_it_warns_once_and_keeps_trying(
    start: Start, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    forbidden = PermissionError(1, "Operation not permitted")
    start(forbidden, ImportError("No library named udev"), forbidden, Script(changed("sda")))
    assert heard.next(2) == ["lost", "sda"]
    assert [record.levelname for record in caplog.records if "cannot be had" in record.message] == [
        "WARNING",
        "DEBUG",
        "DEBUG",
    ]


def test_it_stops_at_once_during_a_long_wait(heard: Heard) -> None:
    tried = threading.Event()

    def listen() -> Monitor:
        tried.set()
        raise PermissionError

    events = BlockEvents(heard.event, heard.lost, listen=listen, first_delay_seconds=3600, longest_delay_seconds=3600)
    events.start()
    assert tried.wait(SOON)
    stopping = threading.Thread(target=events.stop, daemon=True)
    stopping.start()
    stopping.join(SOON)
    assert not stopping.is_alive()
    events.stop()


def test_stopping_what_was_never_started_is_nothing(heard: Heard) -> None:
    BlockEvents(heard.event, heard.lost, listen=Script).stop()


def test_no_event_is_told_after_stop(heard: Heard) -> None:
    class Endless:
        def poll(self, timeout_seconds: float) -> Event:
            time.sleep(min(timeout_seconds, 0.001))
            return changed("sda")

    events = BlockEvents(heard.event, heard.lost, listen=Endless)
    events.start()
    assert heard.next(3) == ["lost", "sda", "sda"]
    events.stop()
    told = heard.told.qsize()
    time.sleep(0.05)
    assert heard.told.qsize() == told


@pytest.mark.parametrize(
    ("uuid", "is_logical_volume"), [("LVM-abc", True), ("CRYPT-LUKS2-abc", False), ("", False), ("mpath-LVM-x", False)]
)
def test_a_logical_volume_is_told_by_its_device_mapper_uuid(uuid: str, *, is_logical_volume: bool) -> None:
    assert Event(device_name="dm-1", action="add", dm_uuid=uuid).is_logical_volume is is_logical_volume
