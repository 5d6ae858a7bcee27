"""The parts of the rig of whole clusters that need no cluster: no root, no QEMU, no network but loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.cluster import kubelets
from tests.rigs.full import driver, network, pids
from tests.rigs.full.commands import Command, Server
from tests.rigs.full.node import stands_still
from tests.rigs.full.relay import Relay
from tests.rigs.host import RigError

MEETS_SECONDS = 30.0


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(("sleep", "1000")) as running:
        yield running
        running.kill()


@pytest.fixture
def commands() -> Iterator[tuple[str, int]]:
    """Where a server takes commands."""
    with Server(("127.0.0.1", 0), Command) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host, port = server.server_address[:2]
        yield str(host), port
        server.shutdown()
        thread.join()


def asked(address: tuple[str, int], *argv: str, text: str = "") -> dict[str, object]:
    with socket.create_connection(address, MEETS_SECONDS) as connection, connection.makefile("rb") as heard:
        connection.sendall(json.dumps({"argv": argv, "input": text}).encode() + b"\n")
        answer: dict[str, object] = json.loads(heard.readline())
        return answer


def test_a_process_is_known_by_its_file_until_it_ends(tmp_path: Path, program: subprocess.Popen[bytes]) -> None:
    file = tmp_path / "pid"
    assert pids.living(file) is None
    pids.write(file, program.pid)
    assert pids.living(file) == program.pid
    pids.end(file, signal.SIGTERM, MEETS_SECONDS)
    assert pids.living(file) is None
    assert program.wait() == -signal.SIGTERM


def test_a_later_process_of_the_same_number_is_another(tmp_path: Path, program: subprocess.Popen[bytes]) -> None:
    file = tmp_path / "pid"
    file.write_text(f"{program.pid} 1\n", encoding="ascii")
    assert pids.living(file) is None
    pids.end(file)
    assert program.poll() is None


def test_a_process_that_is_over_is_written_as_none(tmp_path: Path, program: subprocess.Popen[bytes]) -> None:
    file = tmp_path / "pid"
    pids.write(file, program.pid)
    program.kill()
    program.wait()
    pids.write(file, program.pid)
    assert not file.exists()


def test_a_command_is_answered_with_what_it_printed_and_how_it_ended(commands: tuple[str, int]) -> None:
    said = asked(commands, "sh", "-c", "cat; echo oh >&2; exit 3", text="given")
    assert said == {"exit_code": 3, "output": "given", "errors": "oh\n"}


def test_a_command_that_is_not_there_is_an_answer(commands: tuple[str, int]) -> None:
    assert asked(commands, "there-is-no-such-program")["exit_code"] == 127


def test_a_daemon_that_a_command_leaves_behind_holds_nobody_up(commands: tuple[str, int], tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    assert asked(commands, "sh", "-c", f"sleep 1000 & echo $! > {pid}; echo done")["output"] == "done\n"
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_command_whose_asker_hangs_up_is_killed(commands: tuple[str, int], tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "alive")
    with socket.create_connection(commands, MEETS_SECONDS) as connection:
        argv = ["sh", "-c", f"exec > {fifo}; echo began; sleep 1000"]
        connection.sendall(json.dumps({"argv": argv, "input": ""}).encode() + b"\n")
        with fifo.open(encoding="ascii") as heard:
            assert heard.readline() == "began\n"
            connection.close()
            assert heard.read() == ""


def test_the_relay_carries_both_ways_and_passes_the_end_on() -> None:
    relay = Relay()
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay.serve(server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", relay.port), MEETS_SECONDS) as client:
            far, _ = server.accept()
            with far:
                client.sendall(b"question")
                assert far.recv(100) == b"question"
                far.sendall(b"answer")
                assert client.recv(100) == b"answer"
                client.shutdown(socket.SHUT_WR)
                assert far.recv(100) == b""


def test_values_are_added_field_by_field_and_lists_are_taken_whole() -> None:
    rig = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert driver.merged(rig, {"a": {"c": [3]}, "e": 2}) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": 2}


def test_a_process_with_threads_does_not_leave_its_network() -> None:
    is_over = threading.Event()
    other = threading.Thread(target=is_over.wait)
    other.start()
    try:
        with pytest.raises(RigError, match="one thread"):
            network.enter(os.getpid())
    finally:
        is_over.set()
        other.join()


def test_controllers_that_look_after_nodes_run_only_where_nodes_have_kubelets() -> None:
    real = kubelets.Kubelets(address="10.80.0.1", nodes=["n1"])
    assert "-node-lifecycle-controller" in kubelets.controllers_flag(None)
    assert "-node-lifecycle-controller" not in kubelets.controllers_flag(real)
    assert kubelets.users(real)["system:node:n1"] == "system:nodes"
    assert not kubelets.users(None)


LOCKUP = "watchdog: BUG: soft lockup - CPU#{cpu} stuck for {seconds}s! [swapper/1:0]"


@pytest.mark.parametrize(
    ("seconds", "is_still"), [((), False), ((26,), False), ((26, 52, 78), False), ((26, 52, 78, 104), True)]
)
def test_a_machine_stands_still_whose_kernel_says_of_a_processor_that_it_is_stuck_for_long(
    seconds: tuple[int, ...], *, is_still: bool
) -> None:
    told = [f"[   {40 + each}.000000] {LOCKUP.format(cpu=each % 2, seconds=each)}" for each in seconds]
    console = "\r\n".join(["[    1.000000] Run /init as init process", *told, "[  200.000000] EXT4-fs: mounted"])
    assert stands_still(console.encode()) == is_still
