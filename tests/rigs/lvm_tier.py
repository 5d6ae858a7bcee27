"""The tests that need LVM, each shard in a virtual machine of its own, as many at once as the processors serve.

  python -m tests.rigs.lvm_tier                  all shards
  python -m tests.rigs.lvm_tier thick capacity   some of them
  python -m tests.rigs.lvm_tier --list           what there is

Each shard's output is shown as it comes, behind its name; its log and JUnit report are kept in test-results/. The last
line counts all of them. Exit code 0: every shard passed.
"""

from __future__ import annotations

import argparse
import io
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.rigs.host import RigError
from tests.rigs.vm.machine import GuestError, Machine, machines_at_once, run

GIB = 1 << 30
PYTEST = (".venv/bin/pytest", "-p", "no:cacheprovider", "--durations=5")
CPUS_EACH = 2
SHARD_SECONDS = 2400.0
"""A shard that is stuck is ended; the slowest takes a third of this on two processors under emulation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some tests and the disks they need."""

    name: str
    arguments: tuple[str, ...]
    disks: int = 6
    disk_bytes: int = GIB


GROUPS = "tests/contract/test_groups.py"
"""A shard of its own: many snapshots, and a new process for each of many deaths."""

COPIES = ("tests/contract/test_filling.py", "tests/contract/test_thick_snapshots.py")
"""Likewise, of thick volumes: a copy takes long, and dies at many steps."""

SHARDS = (
    Shard(name="csi-thick", arguments=("tests/csi", "--site", "thick")),
    Shard(
        name="thick",
        arguments=("tests/contract", "--site", "thick", *(f"--ignore={each}" for each in (GROUPS, *COPIES))),
    ),
    Shard(name="thick-copies", arguments=(*COPIES, "--site", "thick")),
    Shard(name="thin", arguments=("tests/contract", "--site", "thin", f"--ignore={GROUPS}")),
    Shard(name="groups", arguments=(GROUPS, "--site", "thin", "--site", "thick")),
    Shard(name="raid1-integrity", arguments=("tests/contract", "--site", "raid1-integrity")),
    Shard(name="layouts", arguments=("tests/contract", "--site", "striped", "--site", "raid1")),
    Shard(name="csi-thin", arguments=("tests/csi", "--site", "thin")),
    Shard(
        name="lvm",
        arguments=("tests/lvm", "tests/host/test_fs_growth.py", "tests/host/test_fs_copies.py"),
        disk_bytes=8 * GIB,
    ),
)


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
            sys.stdout.write(f"{shard.name:16} {' '.join(shard.arguments)}\n")
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
    return 0 if all(verdict.exit_code == 0 for verdict in verdicts) else 1


def _verdict(shard: Shard, results: Path) -> Verdict:
    folder = results / shard.name
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "junit.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    with (folder / "log").open("wb") as log, io.BufferedWriter(Prefixed(shard.name, log), 1) as output:
        try:
            result = run(
                Machine(disk_bytes=(shard.disk_bytes,) * shard.disks, cpus=CPUS_EACH, collect=folder),
                (*PYTEST, "--junit-xml=/results/junit.xml", *shard.arguments),
                timeout_seconds=SHARD_SECONDS,
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
    suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own pytest wrote it
    if suite is None:
        return (0, 1, 0)
    total, errors, failures, skipped = (
        int(suite.get(part, "0")) for part in ("tests", "errors", "failures", "skipped")
    )
    return (total - errors - failures - skipped, errors + failures, skipped)


if __name__ == "__main__":
    sys.exit(main())
