"""csi-sanity, the Kubernetes project's own client, against `ullage standalone` on every kind of storage.

  python -m tests.rigs.sanity                          all cases; those on LVM in virtual machines
  python -m tests.rigs.sanity file-mount thin-mount    some of them
  python -m tests.rigs.sanity --list                   what there is
  python -m tests.rigs.sanity --here file-mount        one, in this process and on this machine

Needs root (loop devices and mounts). Logs and JUnit reports are kept in test-results/sanity-CASE/. At the end a table,
a line that counts all specs, and the end of the log of each case that failed. Exit code 0: every spec passed but those
that are expected to be skipped, and nothing was left behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.rigs.failures import log_end
from tests.rigs.gotools import programs
from tests.rigs.host import RigError
from tests.rigs.sanity import one
from tests.rigs.sanity.cases import BY_NAME, CASES, Case
from tests.rigs.sanity.tier import Tier

INTERRUPTED = 130
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(words: Sequence[str] | None = None) -> int:
    """Run the cases asked for."""
    parser = _parser()
    options = parser.parse_args(words)
    if options.list:
        for case in CASES:
            print(f"{case.name:12} {'in the VM' if case.storage.is_lvm else 'on this machine'}")
        return 0
    unknown = [name for name in options.cases if name not in BY_NAME]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are: {', '.join(BY_NAME)}")
    chosen = [BY_NAME[name] for name in options.cases] or list(CASES)
    if options.here and len(options.cases) != 1:
        parser.error("--here takes one case")
    if os.geteuid() != 0:
        sys.stderr.write("sanity: loop devices and mounts need root; run `sudo make sanity`\n")
        return 2
    for number in ENDING_SIGNALS:
        signal.signal(number, _stop)
    try:
        program = options.csi_sanity or programs.get("csi-sanity")
        if options.here:
            return one.run(chosen[0], program, options.results)
        return _run(chosen, program, options.results)
    except RigError as failure:
        sys.stderr.write(f"sanity: {failure}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("sanity: interrupted; nothing is left behind\n")
        return INTERRUPTED


def _run(cases: Sequence[Case], program: Path, results: Path) -> int:
    verdicts = Tier(program, results.absolute()).run(cases)
    for verdict in verdicts:
        counts = verdict.counts
        print(
            f"{verdict.case.name:12} {counts.passed:4} passed {counts.failed:3} failed {counts.skipped:3} skipped  "
            f"{verdict.seconds:6.0f} s"
        )
    passed, failed, skipped = (
        sum(getattr(verdict.counts, part) for verdict in verdicts) for part in ("passed", "failed", "skipped")
    )
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    for verdict in verdicts:
        if verdict.counts.failed:
            print(f"{verdict.case.name}, the end of its log:\n{log_end(results / f'sanity-{verdict.case.name}')}")
    return 1 if failed else 0


def _stop(_number: int, _frame: FrameType | None) -> None:
    # A second Ctrl-C must not interrupt the cleaning up after the first: every step of that has its time limit.
    for each in ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.rigs.sanity",
        description=about,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help="which (all)")
    add("--list", action="store_true", help="print their names")
    add("--here", action="store_true", help="run one case in this process: inside the VM, or to look closer")
    add("--csi-sanity", type=Path, metavar="PROGRAM", help="(built from tests/rigs/gotools)")
    add("--results", type=Path, default=Path("test-results"), metavar="DIR", help="(test-results)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
