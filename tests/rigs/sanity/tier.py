"""All runs, each a process of its own: those on files here, those on LVM in virtual machines of their own.

As many at once as the processors serve. What a run prints is shown as it comes, behind its name, and kept in its folder
of the results beside csi-sanity's JUnit report and log and the driver's log.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.rigs.sanity import report
from tests.rigs.sanity.cases import Case
from tests.rigs.vm.machine import machines_at_once

CPUS_EACH = 1
VM_SECONDS = 3900
"""The command in the guest; csi-sanity's own limit ends it before."""
SECONDS = 4500.0
"""A process that is still there then is ended: its own limits have failed."""
STOP_SECONDS = 60.0
RIG = ("-m", "tests.rigs.sanity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run came out. One that went wrong without a failed spec (an unexpected skip, a leftover) counts as one."""

    case: Case
    counts: report.Counts
    seconds: float


class Tier:
    """Runs cases; `stop` ends those that are under way, from any thread."""

    def __init__(self, program: Path, results: Path) -> None:
        """`program` is csi-sanity; every case has its own folder in `results`."""
        self._program = program
        self._results = results
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_stopping = False

    def run(self, cases: Sequence[Case]) -> list[Verdict]:
        """Run them all; an exception (Ctrl-C) ends those under way first."""
        with ThreadPoolExecutor(machines_at_once(), thread_name_prefix="case") as pool:
            try:
                return list(pool.map(self._verdict, cases))
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End what runs and begin nothing more."""
        with self._lock:
            self._is_stopping = True
            for process in self._processes:
                process.terminate()

    def _verdict(self, case: Case) -> Verdict:
        folder = self._results / f"sanity-{case.name}"
        folder.mkdir(parents=True, exist_ok=True)
        junit = folder / "junit.xml"
        junit.unlink(missing_ok=True)
        started_at = time.monotonic()
        code = self._run(case, folder)
        try:
            counts = report.counts(report.read(junit))
        except (OSError, ET.ParseError):
            counts = report.Counts(passed=0, failed=1, skipped=0)
        if code != 0 and counts.failed == 0:
            counts = report.Counts(passed=counts.passed, failed=1, skipped=counts.skipped)
        return Verdict(case=case, counts=counts, seconds=time.monotonic() - started_at)

    def _run(self, case: Case, folder: Path) -> int:
        with self._lock:
            if self._is_stopping:
                return 1
            # In a session of its own: Ctrl-C reaches this process only, which then ends it in order.
            process = subprocess.Popen(
                _argv(case, self._program, folder),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._processes.add(process)
        limit = threading.Timer(SECONDS, process.terminate)
        limit.start()
        try:
            _copy(process, case.name, folder / "log")
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return 1
        finally:
            limit.cancel()
            with self._lock:
                self._processes.discard(process)
            process.kill()
            process.wait()


def _argv(case: Case, program: Path, folder: Path) -> list[str]:
    python = sys.executable
    bound = ("setpriv", "--pdeathsig", "TERM", "--", python)
    here = [*RIG, "--here", case.name, "--csi-sanity", str(program), "--results"]
    if not case.storage.is_lvm:
        return [*bound, *here, str(folder)]
    machine = ["--smp", str(CPUS_EACH), "--disks", "2", "--disk-bytes", "8GiB", "--timeout", str(VM_SECONDS)]
    guest = ["-m", "tests.rigs.vm", *machine, "--collect", str(folder), "--", python, *here, "/results"]
    return [*bound, *guest]


def _copy(process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Show and keep what it prints, until it has closed its output."""
    if process.stdout is None:
        return
    with process.stdout as output, log.open("wb") as kept:
        for line in output:
            kept.write(line)
            sys.stdout.write(f"{name:>12} | {line.decode(errors='replace').rstrip()}\n")
            sys.stdout.flush()
