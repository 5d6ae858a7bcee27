"""One event is one line, whatever its facts are."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import cast

import pytest

from ullage import logs
from ullage.errors import ConfigError

LOG = logging.getLogger("ullage.example")


@pytest.fixture(autouse=True)
def _untouched_logging() -> Iterator[None]:
    """Put the process's logging back as it was; pytest has handlers of its own there."""
    root = logging.getLogger()
    names = (*logs.ROOMS, "library")
    before = root.level, list(root.handlers), {name: logging.getLogger(name).level for name in names}
    root.handlers.clear()
    yield
    root.handlers[:] = before[1]
    root.setLevel(before[0])
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [cast("dict[str, object]", json.loads(line)) for line in capsys.readouterr().out.splitlines()]


def test_an_event_is_one_json_object_with_its_facts_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    before = datetime.now(UTC).timestamp()
    LOG.info("volume created", extra={"volume_id": "pvc-1", "size_bytes": 1 << 40, "seconds": 0.5, "is_thin": False})
    (line,) = lines(capsys)
    moment = str(line.pop("ts"))
    assert line == {
        "level": "info",
        "logger": "ullage.example",
        "message": "volume created",
        "volume_id": "pvc-1",
        "size_bytes": 1 << 40,
        "seconds": 0.5,
        "is_thin": False,
    }
    assert len(moment) == len("2026-11-20T09:30:00.123Z")
    assert moment.endswith("Z")
    assert abs(datetime.fromisoformat(moment).timestamp() - before) < 60


def test_a_traceback_is_one_field_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    LOG.error("it failed", exc_info=ValueError("two\nlines"), extra={"volume_id": "pvc-1"})
    (line,) = lines(capsys)
    assert line["level"] == "error"
    assert line["volume_id"] == "pvc-1"
    assert line["exception"] == "ValueError: two\nlines"


def test_a_traceback_names_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    try:
        int("x")
    except ValueError:
        LOG.exception("it failed")
    trace = str(lines(capsys)[0]["exception"])
    assert trace.startswith("Traceback (most recent call last):\n")
    assert "test_logs.py" in trace


def test_logging_an_exception_where_there_is_none_says_nothing_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    LOG.error("no exception", exc_info=(None, None, None))
    assert "exception" not in lines(capsys)[0]


def test_a_stack_is_one_field_of_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    LOG.info("who calls", stack_info=True)
    assert str(lines(capsys)[0]["stack"]).startswith("Stack")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Path("/dev/vg0"), "/dev/vg0"),
        (Fraction(3, 2), "3/2"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (b"\xff", "b'\\xff'"),
        (logs.Form.JSON, "json"),
        (("lvm", Path("/dev/vg0")), ["lvm", "/dev/vg0"]),
        ({("a", 1): Path("x")}, {"('a', 1)": "x"}),
        ("two\nlines\u2028three", "two\nlines\u2028three"),
        ("not utf-8: \udcff", "not utf-8: \udcff"),
        (None, None),
    ],
)
def test_any_fact_can_be_written(capsys: pytest.CaptureFixture[str], value: object, shown: object) -> None:
    logs.set_up("info", "json")
    LOG.info("a fact", extra={"fact": value})
    (line,) = lines(capsys)
    assert line["fact"] == shown


def test_a_fact_does_not_hide_a_field_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    LOG.info("a fact", extra={"ts": 1, "level": "raid1"})
    (line,) = lines(capsys)
    assert (line["level"], line["level_"], line["ts_"]) == ("info", "raid1", 1)


def test_a_librarys_arguments_are_put_into_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    logging.getLogger("library").info("got %d of %s", 2, "them")
    assert lines(capsys)[0]["message"] == "got 2 of them"


def test_debug_is_for_our_own_loggers_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("DEBUG", "json")
    logging.getLogger("library").debug("a body with a secret")
    logging.getLogger("node_agent.agent").debug("looked")
    assert [line["message"] for line in lines(capsys)] == ["looked"]


def test_a_high_level_silences_libraries_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("error", "json")
    logging.getLogger("library").warning("silenced")
    LOG.warning("silenced")
    assert lines(capsys) == []


def test_setting_up_twice_writes_every_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    logs.set_up("info", "json")
    LOG.info("once")
    assert len(lines(capsys)) == 1


def test_a_terminal_gets_the_human_form_and_a_pipe_json(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        monkeypatch.setattr(sys, "stdout", stream)
        logs.set_up("info", "auto")
        LOG.info("volume created", extra={"volume_id": "pvc-1", "why": "a b", "argv": ("lvm", "lvs"), "empty": ""})
    assert terminal.getvalue()[12:] == (
        ' INFO    ullage.example: volume created volume_id=pvc-1 why="a b" argv=["lvm", "lvs"] empty=""\n'
    )
    assert json.loads(pipe.getvalue())["why"] == "a b"


def test_the_human_form_has_the_traceback_below_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text")
    try:
        int("x")
    except ValueError:
        LOG.exception("it failed")
    first, second, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith("ullage.example: it failed")
    assert second == "Traceback (most recent call last):"
    assert last.startswith("ValueError: invalid literal")


@pytest.mark.parametrize(("level", "form"), [("loud", "json"), ("info", "xml")])
def test_an_unknown_level_or_form_is_refused_with_the_known_ones(level: str, form: str) -> None:
    with pytest.raises(ConfigError, match=r"none of (debug, info|auto, json)"):
        logs.set_up(level, form)
