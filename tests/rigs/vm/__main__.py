"""Run a command, or a shell, in a throw-away virtual machine with blank disks and Debian's kernel.

The guest's root is this machine's own file system, read through and never written: the same programs, the same tree,
the same .venv, with device-mapper and disks of its own. What it writes is in its memory and gone at the end, except
/results with --collect. The files here should stay as they are meanwhile: the guest may not notice a change.

  python -m tests.rigs.vm                                      a shell, one disk (/dev/vda); `exit` ends it
  python -m tests.rigs.vm --disks 3 -- vgcreate vg /dev/vda    one command; quote a script: -- sh -c '...'
  python -m tests.rigs.vm --collect test-results -- .venv/bin/pytest --junit-xml=/results/lvm.xml tests/contract

The exit code is the command's own; 124: its time was over; 125: the guest could not boot or died (its console is
printed); 126: the rig lacks something (the message says what to install).
"""

import argparse
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType

from tests.rigs.host import RigError
from tests.rigs.vm import machine

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
RIG_LACKS_SOMETHING = 126
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def bytes_of(text: str) -> int:
    """A size like 2GiB, 512M or 1048576, always in powers of 1024."""
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:iB|B)?", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it like 2GiB, 512MiB or 1048576")
    return int(found[1]) * UNITS[found[2]]


def assignment(text: str) -> tuple[str, str]:
    """KEY=VALUE, split."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE")
    return name, value


def forward(text: str) -> tuple[int, int]:
    """HOST:GUEST, two ports."""
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOSTPORT:GUESTPORT")
    return int(found[1]), int(found[2])


def _parser() -> argparse.ArgumentParser:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.rigs.vm",
        usage="%(prog)s [OPTION...] [-- COMMAND...]",
        description=about,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--disks", type=int, default=1, metavar="N", help="blank disks: /dev/vda, /dev/vdb… (1)")
    add("--disk-bytes", type=bytes_of, default=2 << 30, metavar="SIZE", help="of each, sparse: 100GiB is fine (2GiB)")
    add("--smp", type=int, default=4, metavar="N", help="virtual CPUs (4)")
    add("--memory", type=bytes_of, default=2 << 30, metavar="SIZE", help="and half of it is room for files (2GiB)")
    add("--timeout", type=float, default=3600.0, metavar="SECONDS", help="for COMMAND, booting not counted (3600)")
    add("--collect", type=Path, metavar="DIR", help="host directory that the guest sees as /results, and may write")
    add("--env", type=assignment, action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    add("--net", action="store_true", help="eth0 on QEMU's user network; the host's loopback is 10.0.2.2")
    add("--forward", type=forward, action="append", default=[], metavar="HOST:GUEST", help="TCP port; means --net")
    add("command", nargs="*", metavar="COMMAND", help="without one: a shell")
    return parser


def _stop(number: int, _frame: FrameType | None) -> None:
    # An impatient second Ctrl-C must not interrupt the cleaning up after the first: it takes milliseconds.
    for each in ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """Run what the command line asks for; the exit code is described above."""
    options = _parser().parse_args()
    if not 0 <= options.disks <= machine.DISKS_AT_MOST:
        _parser().error(f"--disks goes from 0 to {machine.DISKS_AT_MOST}")
    for number in ENDING_SIGNALS:
        signal.signal(number, _stop)
    wanted = machine.Machine(
        disk_bytes=(options.disk_bytes,) * options.disks,
        cpus=options.smp,
        memory_bytes=options.memory,
        collect=options.collect,
        network=options.net,
        forwards=tuple(options.forward),
    )
    try:
        result = machine.run(wanted, options.command, timeout_seconds=options.timeout, env=dict(options.env))
    except machine.GuestError as failure:
        sys.stderr.write(f"vm: {failure} The end of its console:\n{failure.console}\n")
        return machine.NO_GUEST
    except RigError as failure:
        sys.stderr.write(f"vm: {failure}\n")
        return RIG_LACKS_SOMETHING
    except BrokenPipeError:
        # Whoever read our output has gone (| head): end as any program does then, without a second try at the flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    if result.is_timed_out:
        sys.stderr.write(f"vm: the command was ended by its time limit of {options.timeout:.0f} s\n")
    sys.stderr.write(f"vm: exit {result.exit_code}, ready in {result.seconds_to_ready:.1f} s, {result.seconds:.1f} s\n")
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
