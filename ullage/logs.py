"""How a process writes its log: one event, one line, on standard output.

A call site says a constant message and puts the facts beside it, `log.info("volume created", extra={"volume_id": …})`,
so that lines can be counted by message and searched by field. As JSON a line is

    {"ts": "2026-11-20T09:30:00.123Z", "level": "info", "logger": "node_agent.agent", "message": …, facts …}

and plain ASCII, so that neither a line break nor a broken encoding in a fact can split or lose it. On a terminal the
same comes in a form for people.

The level asked for holds for our own loggers. Libraries stay at INFO or above: the Kubernetes client logs the bodies
of its replies at DEBUG, Secrets included.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from ullage.errors import ConfigError

ROOMS = ("ullage", "node_agent", "csi", "scheduler_extender")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
OWN_FIELDS = frozenset({"ts", "level", "logger", "message", "exception", "stack"})
RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
"""What every LogRecord has; the rest of its attributes came with `extra`."""


class Form(StrEnum):
    """How lines look. AUTO: TEXT when standard output is a terminal, else JSON."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


def set_up(level: str = "info", form: str = Form.AUTO) -> None:
    """Send all logging of this process to standard output from now on; raises ConfigError. May be called again."""
    if level.lower() not in LEVELS:
        raise ConfigError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    if form not in tuple(Form):
        raise ConfigError(f"log form {form!r} is none of {', '.join(Form)}")
    is_text = form == Form.TEXT or (form == Form.AUTO and sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    threshold = LEVELS[level.lower()]
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.INFO), force=True)
    for room in ROOMS:
        logging.getLogger(room).setLevel(threshold)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, the facts of `extra` beside our own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """See Formatter."""
        line: dict[str, object] = {
            "ts": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_facts(record))
        if trace := _trace(self, record):
            line["exception"] = trace
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """`09:30:00.123 INFO  node_agent.agent: volume created volume_id=pvc-1 size_bytes=4096`, UTC; tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        """See Formatter."""
        head = f"{_moment(record)[11:-1]} {record.levelname:<7} {record.name}: {record.getMessage()}"
        facts = (f"{name}={_shown(value)}" for name, value in _facts(record).items())
        return "\n".join(filter(None, (" ".join((head, *facts)), _trace(self, record), record.stack_info)))


def _moment(record: logging.LogRecord) -> str:
    """RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """What came with `extra`; a name that is one of our own gets an underscore behind it."""
    return {
        f"{name}_" if name in OWN_FIELDS else name: _plain(value)
        for name, value in vars(record).items()
        if name not in RECORD_ATTRIBUTES
    }


def _plain(value: object) -> object:
    """The value as JSON can say it; what JSON cannot say (NaN too) becomes its str."""
    match value:
        case float():
            return value if math.isfinite(value) else str(value)
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(name): _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return str(value)


def _shown(value: object) -> str:
    """A fact for a person: a plain word as it is, anything else quoted so that its end can be seen."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and value and not set(value) & set(' "='):
        return value
    return json.dumps(value)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
