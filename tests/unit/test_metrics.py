"""What is counted of external programs, and that labels stay few."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ullage.errors import (
    CommandError,
    CommandFailedError,
    CommandMissingError,
    CommandTimedOutError,
    UnreadableReportError,
)
from ullage.metrics import CommandMetrics, bounded, command_label, describe_process
from ullage.run import Finished, Subprocesses


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def finished(*argv: str, exit_code: int = 0, seconds: float = 0.2) -> Finished:
    return Finished(argv=argv, exit_code=exit_code, stdout="", stderr="", seconds=seconds)


@pytest.mark.parametrize(
    ("argv", "label"),
    [
        (("lvm", "lvcreate", "--yes"), "lvcreate"),
        (("/usr/sbin/lvm", "vgs"), "vgs"),
        (("lvm", "fullreport", "--config", "devices/scan_lvs=0"), "fullreport"),
        (("nsenter", "--mount=/proc/1/ns/mnt", "--", "lvm", "lvcreate"), "lvcreate"),
        (("nsenter", "-t", "1", "-m", "lvm", "lvextend", "--", "vg0/pvc-1"), "lvextend"),
        (("/usr/bin/nsenter", "-t", "1", "--", "ionice", "-c3", "--", "/sbin/lvm", "lvremove"), "lvremove"),
        (("nsenter", "-t", "1", "-m", "--", "/sbin/blkid", "-p", "--", "/dev/x"), "blkid"),
        (("nsenter", "-t", "1"), "nsenter"),
        (("nsenter", "--"), "nsenter"),
        (("/sbin/mkfs.ext4", "/dev/vg0/pvc-1"), "mkfs.ext4"),
        (("blkid", "-p", "--", "/dev/lvm", "lvcreate"), "blkid"),
        (("lvm", "--version"), "lvm"),
        (("lvm",), "lvm"),
        ((), "other"),
    ],
)
def test_a_command_is_named_by_what_really_runs(argv: tuple[str, ...], label: str) -> None:
    assert command_label(argv) == label


@given(st.lists(st.text()))
def test_every_argument_list_has_a_name(argv: list[str]) -> None:
    assert isinstance(command_label(argv), str)


def test_a_success_is_timed_and_no_failure(registry: CollectorRegistry) -> None:
    CommandMetrics(registry).observe(("lvm", "lvs"), 0.2, None)
    assert registry.get_sample_value("ullage_command_seconds_sum", {"command": "lvs"}) == 0.2
    assert registry.get_sample_value("ullage_command_seconds_bucket", {"command": "lvs", "le": "0.25"}) == 1
    assert registry.get_sample_value("ullage_command_failures_total", {"command": "lvs", "exit_code": "0"}) is None


@pytest.mark.parametrize("exit_code", [5, -9])
def test_a_failure_is_timed_and_counted_by_its_exit_code(registry: CollectorRegistry, exit_code: int) -> None:
    CommandMetrics(registry).observe(
        ("lvm", "lvcreate"), 0.1, CommandFailedError(argv=("lvm",), exit_code=exit_code, stderr="")
    )
    labels = {"command": "lvcreate", "exit_code": str(exit_code)}
    assert registry.get_sample_value("ullage_command_failures_total", labels) == 1
    assert registry.get_sample_value("ullage_command_seconds_count", {"command": "lvcreate"}) == 1


@pytest.mark.parametrize(
    ("failure", "exit_code", "timed"),
    [
        (CommandFailedError(argv=("lvm", "lvs"), exit_code=5, stderr=""), "5", 1),
        (CommandTimedOutError("late", argv=("lvm", "lvs")), "timeout", 1),
        (CommandMissingError("gone", argv=("lvm",)), "missing", None),
        (UnreadableReportError("half", argv=("lvm", "lvs")), "other", 1),
    ],
)
def test_a_command_that_did_not_end_by_itself_is_counted_too(
    registry: CollectorRegistry, failure: CommandError, exit_code: str, timed: int | None
) -> None:
    CommandMetrics(registry).observe(("lvm", "lvs"), 60.0, failure)
    labels = {"command": "lvs", "exit_code": exit_code}
    assert registry.get_sample_value("ullage_command_failures_total", labels) == 1
    assert registry.get_sample_value("ullage_command_seconds_count", {"command": "lvs"}) == timed


def test_it_hears_of_real_programs(registry: CollectorRegistry) -> None:
    Subprocesses(CommandMetrics(registry).observe).look(["true"], timeout_seconds=10)
    assert registry.get_sample_value("ullage_command_seconds_count", {"command": "true"}) == 1


def test_two_registries_do_not_share_a_count() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    for registry in (first, second):
        describe_process(registry, component="agent", version="0.1.0")
    CommandMetrics(first).observe(("lvm", "lvs"), 0.1, None)
    CommandMetrics(second)
    assert first.get_sample_value("ullage_command_seconds_count", {"command": "lvs"}) == 1
    assert second.get_sample_value("ullage_command_seconds_count", {"command": "lvs"}) is None


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("ok", "ok"),
        ("InsufficientCapacity", "InsufficientCapacity"),
        ("delete_snapshot", "delete_snapshot"),
        ("pvc-0f2e4c1a", "other"),
        ("vg0", "other"),
        ("a" * 41, "other"),
        ("", "other"),
        ("ok\n", "other"),
    ],
)
def test_a_label_that_could_hold_an_id_becomes_other(label: str, shown: str) -> None:
    assert bounded(label) == shown
