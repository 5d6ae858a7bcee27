"""The door to other programs, with real small ones behind it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import CommandError, CommandFailedError, CommandMissingError, CommandTimedOutError
from ullage.run import KEPT_CHARACTERS, KEPT_RUNS, PACKAGES, PATH, Subprocesses, end_session, find

LONG_SECONDS = 60.0
"""More than any of these programs takes: reaching it would be a hang."""
SOON_SECONDS = 0.2


class Observed:
    """Keeps what `observe` is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[tuple[str, ...], type[CommandError] | None]] = []

    def __call__(self, argv: Sequence[str], seconds: float, failure: CommandError | None) -> None:
        assert seconds >= 0
        self.heard.append((tuple(argv), None if failure is None else type(failure)))


class Stubborn:
    """A process that no signal ends before `relents` is set, as one that waits for a dead disk does."""

    def __init__(self) -> None:
        self.pid = 2**22 + 1  # more than the kernel gives out: nobody is hit
        self.relents = threading.Event()

    def wait(self, timeout: float | None = None) -> int:
        if not self.relents.wait(0 if timeout else LONG_SECONDS):
            raise subprocess.TimeoutExpired("stubborn", timeout or 0)
        return -signal.SIGKILL


@pytest.fixture
def run() -> Subprocesses:
    return Subprocesses()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def printed(run: Subprocesses, *argv: str, stdin: str = "") -> str:
    return run.look(argv, timeout_seconds=LONG_SECONDS, stdin=stdin).stdout


def in_thread(work: Callable[[], object]) -> queue.SimpleQueue[object]:
    """Start `work`; its result or exception arrives in the queue."""
    ended: queue.SimpleQueue[object] = queue.SimpleQueue()

    def outcome() -> None:
        try:
            ended.put(work())
        except CommandError as failure:
            ended.put(failure)

    threading.Thread(target=outcome, daemon=True).start()
    return ended


@pytest.mark.parametrize(
    "argument",
    ["", " ", "a b", "'", '"', "$HOME", "`id`", "$(id)", "*", "a;b", "a|b", "a\\b", "a\nb", "größe", "--", "~", "%s"],
)
def test_an_argument_reaches_the_program_unchanged(run: Subprocesses, argument: str) -> None:
    assert printed(run, "printf", "%s.", argument, "last") == f"{argument}.last."


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20), max_size=4))
@settings(max_examples=25, deadline=None)
def test_any_list_of_arguments_reaches_the_program_as_it_is(arguments: list[str]) -> None:
    expected = "".join(f"{each}\0" for each in ["first", *arguments])
    assert printed(Subprocesses(), "printf", r"%s\0", "first", *arguments) == expected


def test_what_is_said_into_a_file_is_in_the_file_alone(run: Subprocesses) -> None:
    with tempfile.TemporaryFile() as file:
        finished = run.look(["echo", "it is"], timeout_seconds=LONG_SECONDS, into=file)
        file.seek(0)
        assert (finished.stdout, file.read()) == ("", b"it is\n")


def test_the_environment_is_exactly_ours(run: Subprocesses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVM_SYSTEM_DIR", "elsewhere")
    monkeypatch.setenv("PATH", "nowhere")
    assert sorted(printed(run, "env").splitlines()) == ["LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1", f"PATH={PATH}"]


def test_standard_input_is_what_we_send_and_then_its_end(run: Subprocesses) -> None:
    assert printed(run, "cat", stdin="a\nb") == "a\nb"
    assert printed(run, "cat") == ""


def test_a_program_that_reads_nothing_is_no_error(run: Subprocesses) -> None:
    assert run.change(["true"], stdin="x" * (1 << 20)).exit_code == 0


def test_no_descriptor_of_ours_is_inherited(run: Subprocesses) -> None:
    ours = os.pipe()
    try:
        for end in ours:
            os.set_inheritable(end, True)  # noqa: FBT003 - no keywords there
        # The fourth is the directory that ls itself reads.
        assert printed(run, "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]
    finally:
        for end in ours:
            os.close(end)


def test_a_program_has_a_session_of_its_own(run: Subprocesses) -> None:
    fields = printed(run, "cat", "/proc/self/stat").split()
    pid, group, session = fields[0], fields[4], fields[5]
    assert pid == group == session
    assert int(session) != os.getsid(0)


def test_what_a_program_says_is_kept_apart(run: Subprocesses) -> None:
    finished = run.change(["sh", "-c", "echo out; echo err >&2"])
    assert (finished.exit_code, finished.stdout, finished.stderr) == (0, "out\n", "err\n")
    assert finished.argv == ("sh", "-c", "echo out; echo err >&2")


@pytest.mark.parametrize("code", [1, 5, 127, 255])
def test_a_failure_carries_argv_exit_code_and_what_was_said(run: Subprocesses, code: int) -> None:
    with pytest.raises(CommandFailedError, match=rf"exited with {code}: no luck$") as raised:
        run.change(["sh", "-c", f"echo no luck >&2; exit {code}"])
    assert (raised.value.exit_code, raised.value.stderr) == (code, "no luck\n")
    assert raised.value.argv == ("sh", "-c", f"echo no luck >&2; exit {code}")


def test_a_silent_failure_is_said_to_be_one(run: Subprocesses) -> None:
    with pytest.raises(CommandFailedError, match=r"false exited with 1: \(it said nothing\)"):
        run.look(["false"], timeout_seconds=LONG_SECONDS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_signal_is_a_negative_exit_code(run: Subprocesses, number: signal.Signals) -> None:
    with pytest.raises(CommandFailedError) as raised:
        run.change(["sh", "-c", f"ulimit -c 0; kill -{number.value} $$"])
    assert raised.value.exit_code == -number


def test_codes_that_the_caller_reads_are_no_failure(run: Subprocesses) -> None:
    assert run.change(["sh", "-c", "exit 5"], accepted=(0, 5)).exit_code == 5
    assert run.look(["sh", "-c", "exit 5"], timeout_seconds=LONG_SECONDS, accepted=(5,)).exit_code == 5
    with pytest.raises(CommandFailedError):
        run.change(["true"], accepted=(5,))


def test_a_looking_program_is_killed_past_its_limit(run: Subprocesses) -> None:
    with pytest.raises(CommandTimedOutError, match=r"sleep 1000 gave no answer in 0\.2 s and was ended") as raised:
        run.look(["sleep", "1000"], timeout_seconds=SOON_SECONDS)
    assert raised.value.argv == ("sleep", "1000")


def test_its_children_that_hold_its_output_are_killed_with_it(run: Subprocesses, fifo: Path) -> None:
    """They all hold the fifo's end: it is at its end only when the last of them is dead."""
    everyone = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 3>{fifo}; (trap '' TERM; sleep 1000) & sleep 1000 & echo up >&3; sleep 1000"
    with pytest.raises(CommandTimedOutError):
        run.look(["sh", "-c", script], timeout_seconds=SOON_SECONDS * 5)
    os.set_blocking(everyone, True)
    with os.fdopen(everyone, "rb") as reader:
        assert in_thread(reader.read).get(timeout=LONG_SECONDS) == b"up\n"


def test_a_daemon_that_left_the_session_does_not_hold_up_the_answer(run: Subprocesses, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(CommandTimedOutError):
        run.look(["sh", "-c", f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 1000' & sleep 1000"], timeout_seconds=1)
    os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGKILL)


def test_a_program_that_no_signal_ends_is_left_behind_and_awaited_elsewhere() -> None:
    """As lvm is in state D behind a suspended device: whoever looked is free to say that it got no answer."""
    stubborn = Stubborn()
    end_session(stubborn)
    (reaper,) = (thread for thread in threading.enumerate() if thread.name == f"reaper-{stubborn.pid}")
    assert reaper.daemon
    stubborn.relents.set()
    reaper.join()


def test_no_dead_program_is_left_unburied(run: Subprocesses) -> None:
    with pytest.raises(CommandTimedOutError):
        run.look(["sleep", "1000"], timeout_seconds=SOON_SECONDS)
    states = [stat.rpartition(")")[2].split()[:2] for stat in stats()]
    assert not [state for state, parent in states if state == "Z" and int(parent) == os.getpid()]


def stats() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            yield path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has just ended


def test_a_changing_program_is_never_killed(run: Subprocesses, fifo: Path) -> None:
    """It goes on while others beside it are killed, and ends by itself."""
    ended = in_thread(lambda: run.change(["sh", "-c", f"read line < {fifo}; echo $line"]))
    with fifo.open("w", encoding="ascii") as door:  # opens when the program has opened its end
        for _ in range(3):
            with pytest.raises(CommandTimedOutError):
                run.look(["sleep", "1000"], timeout_seconds=SOON_SECONDS)
        assert ended.empty()
        door.write("done\n")
    finished = ended.get(timeout=LONG_SECONDS)
    assert getattr(finished, "stdout", finished) == "done\n"


def test_output_that_is_no_text_does_not_raise(run: Subprocesses) -> None:
    assert printed(run, "printf", r"\377a\200") == "\ufffda\ufffd"
    with pytest.raises(CommandFailedError, match="\ufffd"):
        run.change(["sh", "-c", r"printf '\377' >&2; exit 1"])


def test_much_output_on_both_sides_does_not_block(run: Subprocesses) -> None:
    size = 1 << 22
    script = "head -c $1 /dev/zero >&2; head -c $1 /dev/zero; cat"
    finished = run.change(["sh", "-c", script, "sh", str(size)], stdin="x" * size)
    assert (len(finished.stdout), len(finished.stderr)) == (2 * size, size)


@pytest.mark.parametrize(("program", "package"), sorted(PACKAGES.items()))
def test_a_missing_program_names_its_package(
    program: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ullage.run.PATH", str(tmp_path))
    with pytest.raises(CommandMissingError, match=f"{program} is not in .*; install Debian's {package} or"):
        find(program)


def test_a_missing_program_without_a_package_says_where_it_was_looked_for(run: Subprocesses) -> None:
    with pytest.raises(CommandMissingError, match=re.escape(f"no-such-program is not in {PATH}")) as raised:
        run.change(["no-such-program", "--help"])
    assert raised.value.argv == ("no-such-program",)


def test_a_program_is_not_taken_from_the_callers_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    intruder = tmp_path / "lvm-of-ours"
    intruder.write_text("#!/bin/sh\n", encoding="ascii")
    intruder.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandMissingError):
        find("lvm-of-ours")


@pytest.mark.parametrize("argument", ["x" * (1 << 22), "a\0b", "\ud800"])
def test_arguments_that_no_program_can_be_given_are_a_failed_command(run: Subprocesses, argument: str) -> None:
    with pytest.raises(CommandFailedError) as raised:
        run.change(["true", argument])
    assert raised.value.exit_code == 127


def test_the_observer_hears_how_each_run_ended(tmp_path: Path) -> None:
    observed = Observed()
    run = Subprocesses(observed)
    run.change(["true"])
    run.change(["sh", "-c", "exit 5"], accepted=(5,))
    for argv in (["false"], ["sleep", "1000"], ["no-such-program"], [str(tmp_path)]):
        with pytest.raises(CommandError):
            run.look(argv, timeout_seconds=SOON_SECONDS)
    assert observed.heard == [
        (("true",), None),
        (("sh", "-c", "exit 5"), None),
        (("false",), CommandFailedError),
        (("sleep", "1000"), CommandTimedOutError),
        (("no-such-program",), CommandMissingError),
        ((str(tmp_path),), CommandMissingError),
    ]


def test_the_last_runs_are_kept_oldest_first(run: Subprocesses) -> None:
    for number in range(KEPT_RUNS + 2):
        run.look(["true", str(number)], timeout_seconds=LONG_SECONDS)
    with pytest.raises(CommandFailedError):
        run.change(["false"])
    kept = run.flight_record()
    assert [each.argv for each in kept] == [("true", str(n)) for n in range(3, KEPT_RUNS + 2)] + [("false",)]
    assert kept[-1].exit_code == 1


def test_a_long_report_is_not_kept_whole(run: Subprocesses) -> None:
    whole = run.look(["head", "-c", str(10 * KEPT_CHARACTERS), "/dev/zero"], timeout_seconds=LONG_SECONDS)
    assert len(whole.stdout) == 10 * KEPT_CHARACTERS
    assert [len(each.stdout) for each in run.flight_record()] == [KEPT_CHARACTERS]


def test_programs_run_side_by_side(run: Subprocesses, fifo: Path) -> None:
    """One that waits for the other: run one after the other, neither would end."""
    reader = in_thread(lambda: run.change(["cat", str(fifo)]))
    run.change(["sh", "-c", f"echo hello > {fifo}"])
    assert getattr(reader.get(timeout=LONG_SECONDS), "stdout", None) == "hello\n"
