"""Block device events of this machine's kernel: as root, from a loop device that comes and goes."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue

import pytest

from node_agent.udev import BlockEvents, Event

SOON = 10.0


def test_attaching_and_detaching_a_loop_device_is_heard(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test attaches a loop device: run it as root")
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, 8 << 20)
    told: Queue[Event] = Queue()
    is_listening = threading.Event()
    events = BlockEvents(told.put, is_listening.set)
    events.start()
    try:
        assert is_listening.wait(SOON)
        attach = ["losetup", "--find", "--show", str(file)]
        path = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
        name = Path(path).name
        try:
            attached = next(event for event in iter(lambda: told.get(timeout=SOON), None) if event.device_name == name)
        finally:
            subprocess.run(["losetup", "--detach", path], check=True)
        detached = next(event for event in iter(lambda: told.get(timeout=SOON), None) if event.device_name == name)
    finally:
        events.stop()
    assert attached.action in {"add", "change"}
    assert attached.device_type == "disk"
    assert not attached.is_logical_volume
    assert detached.action in {"change", "remove"}
    assert detached.sequence_number > attached.sequence_number


def test_a_pods_network_is_not_the_one_in_which_udevd_speaks() -> None:
    asks = "from node_agent.udev import is_in_first_network; print(is_in_first_network())"
    argv = ["unshare", "--net", sys.executable, "-c", asks]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "False\n"
