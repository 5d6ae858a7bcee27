"""The tests that need LVM, each shard in a virtual machine of its own, as many at once as the processors serve.

csi-sanity on LVM is among them: one pool, the longest first, so that no processor waits for the others at the end.

  python -m tests.rigs.lvm_tier                  all shards
  python -m tests.rigs.lvm_tier thick lvm        some of them
  python -m tests.rigs.lvm_tier --list           what there is

Each shard's output is shown as it comes, behind its name; its log and JUnit report are kept in test-results/. At the
end a table, a line that counts all of them, and what failed with the end of its message. Exit code 0: every shard
passed. The environment's ULLAGE_* are the guests', too, such as ULLAGE_EACH=1 (tests/contract/sampling.py).
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.rigs.failures import failures, log_end
from tests.rigs.gotools import programs
from tests.rigs.host import RigError
from tests.rigs.sanity.cases import CASES, Case
from tests.rigs.vm.machine import GuestError, Machine, machines_at_once, run

GIB = 1 << 30
PYTEST = (".venv/bin/pytest", "-p", "no:cacheprovider", "--durations=5", "--junit-xml=/results/junit.xml")
SANITY = (".venv/bin/python", "-m", "tests.rigs.sanity", "--here")
SHARD_SECONDS = 3600.0
"""A shard that is stuck is ended. The slowest takes 15 min under emulation, and twice that on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some tests, and the machine they need.

    cpus: with one, a guest costs two thirds of what the same costs with two, whose memory QEMU has to keep in step.
    """

    name: str
    arguments: tuple[str, ...] = ()
    case: Case | None = None
    cpus: int = 1
    disks: int = 6
    disk_bytes: int = GIB

    def command(self) -> tuple[str, ...]:
        """What the guest runs: pytest with the arguments, or csi-sanity's case; raises RigError."""
        if self.case is None:
            return (*PYTEST, *self.arguments)
        program = programs.get("csi-sanity")
        return (*SANITY, self.case.name, "--csi-sanity", str(program), "--results", "/results")


GROUPS = "tests/contract/test_groups.py"
"""A shard of its own: many snapshots, and a new process for each of many deaths."""

COPIES = ("tests/contract/test_filling.py", "tests/contract/test_thick_snapshots.py")
"""Likewise, of thick volumes: a copy takes long, and dies at many steps."""

AT_ONCE = ("tests/contract/test_concurrency.py", "tests/csi/test_concurrency.py")
"""Many calls at once: on two processors, so that they are."""


def _without(*paths: str) -> tuple[str, ...]:
    return tuple(f"--ignore={path}" for path in paths)


SHARDS = (
    Shard(name="thin", arguments=("tests/contract", "--site", "thin", *_without(GROUPS))),
    Shard(name="thick-copies", arguments=(*COPIES, "--site", "thick")),
    Shard(name="thick", arguments=("tests/contract", "--site", "thick", *_without(GROUPS, *COPIES, *AT_ONCE))),
    Shard(name="csi-thick", arguments=("tests/csi", "--site", "thick", *_without(*AT_ONCE))),
    Shard(name="raid1-integrity", arguments=("tests/contract", "--site", "raid1-integrity"), cpus=2),
    Shard(
        name="lvm",
        arguments=("tests/lvm", "tests/host/test_fs_growth.py", "tests/host/test_fs_copies.py"),
        disk_bytes=8 * GIB,
        cpus=2,  # with one, the kernel was seen to stand still for ever as a group of raid volumes was removed
    ),
    Shard(name="groups", arguments=(GROUPS, "--site", "thin", "--site", "thick")),
    Shard(name="at-once", arguments=(*AT_ONCE, "--site", "thick"), cpus=2),
    Shard(name="layouts", arguments=("tests/contract", "--site", "striped", "--site", "raid1"), cpus=2),
    Shard(name="csi-thin", arguments=("tests/csi", "--site", "thin")),
    *(
        Shard(name=f"sanity-{case.name}", case=case, disks=2, disk_bytes=8 * GIB)
        for case in CASES
        if case.storage.is_lvm
    ),
)
"""The longest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a shard came out; `failed` counts errors, too, and a shard that gave no report as one."""

    shard: Shard
    exit_code: int
    passed: int
    failed: int
    skipped: int
    seconds: float


class Prefixed(io.RawIOBase):
    """Writes whole lines to standard output behind a name, and all of it to a log."""

    lock = threading.Lock()

    def __init__(self, name: str, log: io.BufferedWriter) -> None:
        """`log` stays the caller's to close."""
        super().__init__()
        self._prefix = f"{name:>15} | "
        self._log = log
        self._rest = b""

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, chunk: object) -> int:
        """Take some bytes."""
        block = bytes(chunk)  # type: ignore[call-overload] # any buffer, as io's signature says
        self._log.write(block)
        *lines, self._rest = (self._rest + block).split(b"\n")
        with self.lock:
            for line in lines:
                sys.stdout.write(f"{self._prefix}{line.decode(errors='replace')}\n")
            sys.stdout.flush()
        return len(block)


def main(words: Sequence[str] | None = None) -> int:
    """Run the shards asked for."""
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", nargs="*", metavar="SHARD", help="which (all)")
    parser.add_argument("--list", action="store_true", help="print their names and what they run")
    parser.add_argument("--results", type=Path, default=Path("test-results"), metavar="DIR", help="(test-results)")
    options = parser.parse_args(words)
    if options.list:
        for shard in SHARDS:
            sys.stdout.write(f"{shard.name:16} {' '.join(shard.arguments) or 'csi-sanity'}\n")
        return 0
    known = {shard.name: shard for shard in SHARDS}
    unknown = [name for name in options.shards if name not in known]
    if unknown:
        parser.error(f"no shard {', '.join(unknown)}; there are: {', '.join(known)}")
    chosen = [known[name] for name in options.shards] or list(SHARDS)
    with ThreadPoolExecutor(machines_at_once()) as pool:
        verdicts = list(pool.map(lambda shard: _verdict(shard, options.results), chosen))
    for verdict in verdicts:
        sys.stdout.write(
            f"{verdict.shard.name:16} exit {verdict.exit_code:<3} {verdict.passed:4} passed {verdict.failed:3} failed "
            f"{verdict.skipped:3} skipped  {verdict.seconds:6.0f} s\n"
        )
    passed, failed, skipped = (
        sum(getattr(each, part) for each in verdicts) for part in ("passed", "failed", "skipped")
    )
    sys.stdout.write(f"{passed} passed, {failed} failed, {skipped} skipped\n")
    for verdict in verdicts:
        if verdict.exit_code != 0:
            sys.stdout.writelines(f"{each}\n" for each in _why(options.results / verdict.shard.name))
    return 0 if all(verdict.exit_code == 0 for verdict in verdicts) else 1


def _why(folder: Path) -> list[str]:
    """Why a shard failed."""
    return list(failures(folder)) or [f"{folder.name}: no test failed; the end of its log:\n{log_end(folder)}"]


def _verdict(shard: Shard, results: Path) -> Verdict:
    folder = results / shard.name
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "junit.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    with (folder / "log").open("wb") as log, io.BufferedWriter(Prefixed(shard.name, log), 1) as output:
        try:
            result = run(
                Machine(disk_bytes=(shard.disk_bytes,) * shard.disks, cpus=shard.cpus, collect=folder),
                shard.command(),
                timeout_seconds=SHARD_SECONDS,
                env={name: word for name, word in os.environ.items() if name.startswith("ULLAGE_")},
                stdout=output,
                stderr=output,
            )
            exit_code = result.exit_code
        except (GuestError, RigError) as failure:
            output.write(f"{failure}\n".encode())
            exit_code = 125
    counts = _counts(report) if report.exists() else (0, 1, 0)
    return Verdict(
        shard=shard,
        exit_code=exit_code,
        passed=counts[0],
        failed=counts[1],
        skipped=counts[2],
        seconds=time.monotonic() - started,
    )


def _counts(report: Path) -> tuple[int, int, int]:
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own pytest or csi-sanity wrote it
    if suite is None:
        return (0, 1, 0)
    total, errors, failures, skipped, pending = (
        int(suite.get(part, "0")) for part in ("tests", "errors", "failures", "skipped", "disabled")
    )
    return (total - errors - failures - skipped - pending, errors + failures, skipped + pending)


if __name__ == "__main__":
    sys.exit(main())
