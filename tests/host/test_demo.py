"""`make demo` promises to leave nothing behind: also when it is interrupted, and when its driver dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.file_rig import ran

STEPS = (
    "storage",
    "CreateVolume",
    "NodeStageVolume",
    "NodePublishVolume",
    "CreateSnapshot",
    "CreateVolume, restored",
    "CreateVolume, clone",
    "NodeExpandVolume",
)


def walked(root: Path, until: str, number: int, *, is_for_driver: bool = False) -> tuple[int, str]:
    """Exit code and last line of a demo that gets a signal, or whose driver gets it, after it has said `until`."""
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.rigs.demo"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(root), "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        assert any(line.startswith(until) for line in iter(process.stdout.readline, ""))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]) if is_for_driver else process.pid, number)
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    return process.returncode, rest.splitlines()[-1]


def assert_nothing_is_left(root: Path) -> None:
    assert list(root.iterdir()) == []
    assert f"{root}/" not in ran("findmnt", "--noheadings", "--raw", "--output", "TARGET")
    assert f"{root}/" not in ran("losetup", "--noheadings", "--output", "BACK-FILE")


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_demo_leaves_nothing_behind(root: Path, step: str) -> None:
    assert walked(root, step, signal.SIGINT) == (130, "demo: nothing is left behind")
    assert_nothing_is_left(root)


def test_a_demo_whose_driver_dies_fails_and_leaves_nothing_behind(root: Path) -> None:
    assert walked(root, "NodePublishVolume", signal.SIGKILL, is_for_driver=True) == (1, "demo: nothing is left behind")
    assert_nothing_is_left(root)
