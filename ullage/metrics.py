"""What every process measures: which build it is, what it costs, and how the programs it runs behave.

The registry is an argument: two processes in one (`ullage standalone`), or two tests, have their own. Labels take few
values, all written in our code or in LVM's: never a volume's name.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import PurePath

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector

from ullage.errors import CommandError, CommandFailedError, CommandMissingError, CommandTimedOutError

COMMAND_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds. A report takes 0.05 on iron, a create on a busy disk some seconds, a discard of a large volume minutes."""
WRAPPERS = frozenset({"chroot", "env", "ionice", "nice", "nsenter", "sudo"})
"""Programs that run another; the other is what is measured."""
WORD = re.compile(r"[A-Za-z][A-Za-z_]{0,39}")
OTHER = "other"


def bounded(label: str) -> str:
    """The label if it is a word of letters, as all of ours are; what could hold an id or a number becomes `other`."""
    return label if WORD.fullmatch(label) else OTHER


def describe_process(registry: CollectorRegistry, *, component: str, version: str) -> None:
    """Say which build this is (`ullage_build_info`), and its memory, time and open files (`process_…`)."""
    info = Info("ullage_build", "The build that runs: always 1.", registry=registry)
    info.info({"component": component, "version": version, "python": platform.python_version()})
    ProcessCollector(registry=registry)


class CommandMetrics:
    """How long external programs take and how they fail. `on_end` is for `ullage.run.Subprocesses`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the two metrics."""
        self._seconds = Histogram(
            "ullage_command_seconds",
            "How long external programs ran, those that failed or were ended included.",
            ["command"],
            buckets=COMMAND_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "ullage_command_failures",
            "External programs that ended with another exit code than 0, ran into their time limit, or are missing.",
            ["command", "exit_code"],
            registry=registry,
        )

    def observe(self, argv: Sequence[str], seconds: float, failure: CommandError | None) -> None:
        """Count one run. A program that is not there took no time."""
        command = command_label(argv)
        if not isinstance(failure, CommandMissingError):
            self._seconds.labels(command).observe(seconds)
        if failure is not None:
            self._failures.labels(command, _exit_code_label(failure)).inc()


def command_label(argv: Sequence[str]) -> str:
    """What ran: LVM's verb (`lvcreate`), else the program's base name; also behind a program that runs another."""
    names = [PurePath(argument).name for argument in _unwrapped(argv)]
    if not names:
        return OTHER
    if names[0] == "lvm" and len(names) > 1 and WORD.fullmatch(names[1]):
        return names[1]
    return names[0]


def _unwrapped(argv: Sequence[str]) -> Sequence[str]:
    """The argument list of the program that a wrapper runs: what follows `--`, or begins with `lvm`."""
    if not argv or PurePath(argv[0]).name not in WRAPPERS:
        return argv
    for index, argument in enumerate(argv):
        if argument == "--":
            return _unwrapped(argv[index + 1 :]) or argv
        if PurePath(argument).name == "lvm":
            return argv[index:]
    return argv


def _exit_code_label(failure: CommandError) -> str:
    match failure:
        case CommandFailedError():
            return str(failure.exit_code)
        case CommandTimedOutError():
            return "timeout"
        case CommandMissingError():
            return "missing"
        case _:
            return OTHER
