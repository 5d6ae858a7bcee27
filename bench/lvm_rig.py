"""What the benchmarks of the agent stand on: a volume group, a real agent over it, and LVM called without the agent.

Both sides run `lvm` behind the same script, which notes the whole argument list before it becomes `lvm`: the count of
processes does not rest on the agent's own word, and the bare command has the arguments that the agent really used.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ullage.run import ENVIRONMENT

GROUP = "vgbench"
PIECE, END = "\x1f", "\x1e"
"""After each argument, and the last argument of each list, in the notes."""
NOTING = f"""#!/bin/sh
notes=$1
shift
printf '%s{PIECE}' "$@" '{END}' >> "$notes"
exec "$@"
"""
"""One printf, so one write: several may note at once."""
QUIET_SECONDS = 2.2
"""Nothing begun for this long: longer than the agent puts off a look."""
START_SECONDS, REST_SECONDS = 120.0, 300.0
"""How long the agent may take to come up, and LVM to come to rest."""
CONFIGURATION = f"""
deviceClasses:
  - {{name: thick, type: thick, volumeGroups: [{GROUP}], wipe: none}}
  - {{name: thick-discard, type: thick, volumeGroups: [{GROUP}], wipe: discard}}
  - {{name: thick-zero, type: thick, volumeGroups: [{GROUP}], wipe: zero}}
  - name: thin
    type: thin
    volumeGroups: [{GROUP}]
    thinPool: {{name: pool0, overprovisionRatio: 8, createSize: 1Gi}}
"""


class BenchError(Exception):
    """The benchmark cannot go on; the sentence says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Of one process, from the kernel."""

    rss_bytes: int
    pss_bytes: int
    threads: int


class Notes:
    """The argument lists that ran behind the noting script."""

    def __init__(self, folder: Path, name: str) -> None:
        """Nothing has run yet."""
        self._script = folder / "noting.sh"
        self._script.write_text(NOTING)
        self._file = folder / name
        self._file.touch()

    @property
    def prefix(self) -> tuple[str, ...]:
        """What is put before `lvm`. With `env`, the agent's metrics see that another program follows."""
        return ("env", "sh", str(self._script), str(self._file))

    def all(self) -> list[list[str]]:
        """Every argument list so far, without `lvm` itself: the verb comes first."""
        lists = self._file.read_text().split(END + PIECE)[:-1]
        return [each.split(PIECE)[1:-1] for each in lists]


class Bare:
    """LVM without the agent, told what the agent told it, for a volume of another name and other tags."""

    def __init__(self, folder: Path) -> None:
        """See Notes."""
        self._notes = Notes(folder, "bare")

    def seconds(self, argv: Sequence[str], volume_id: str, instead_of: str) -> float:
        """Run it as the agent did, but on `volume_id`, which the agent does not take for its own."""
        own = [word.replace(instead_of, volume_id).replace("ullage.io/", "bareone.io/") for word in argv]
        started = time.monotonic()
        done = subprocess.run(  # noqa: S603 - the command under test
            [*self._notes.prefix, "lvm", *own], env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - started
        if done.returncode != 0:
            raise BenchError(f"lvm {shlex.join(own)}: {done.stderr}")
        return seconds


class AgentProcess:
    """`ullage agent`, started from the command line as a unit file would."""

    def __init__(self, folder: Path, http_port: int) -> None:
        """Start it and wait until it is ready."""
        self.notes = Notes(folder, "agent")
        self.address = f"unix://{folder}/agent.sock"
        self._http = f"http://127.0.0.1:{http_port}"
        config = folder / "config.yaml"
        config.write_text(CONFIGURATION)
        self._log = (folder / "agent.log").open("w")
        self._process = subprocess.Popen(  # noqa: S603 - the program under test
            [
                *(sys.executable, "-m", "ullage.cli", "agent", "--config", str(config), "--socket", self.address),
                *("--http", f"127.0.0.1:{http_port}", "--lvm-prefix", shlex.join(self.notes.prefix)),
                *("--log-format", "json"),
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self._await_readiness(Path(self._log.name))

    def stop(self) -> None:
        """End it as systemd does."""
        self._process.terminate()
        self._process.wait()
        self._log.close()

    def memory(self) -> Memory:
        """What it costs now."""
        return memory_of(self._process.pid)

    def counted(self) -> int:
        """How many LVM commands the agent itself says it has run."""
        families = text_string_to_metric_families(self._asked("/metrics"))
        samples = (sample for family in families for sample in family.samples)
        return sum(
            int(sample.value)
            for sample in samples
            if sample.name == "ullage_command_seconds_count" and _is_lvm(sample.labels["command"])
        )

    def settled(self) -> list[list[str]]:
        """Wait until LVM is at rest, and answer with everything the agent has run so far.

        Raises BenchError when it does not come to rest, or when the agent's own count is another.
        """
        deadline = time.monotonic() + REST_SECONDS
        while time.monotonic() < deadline:
            subprocess.run(["udevadm", "settle"], check=False)  # noqa: S607 - as the agent finds it
            before = self.notes.all()
            time.sleep(QUIET_SECONDS)
            after = self.notes.all()
            counted = self.counted()
            if len(after) == len(before) == counted:
                return after
        raise BenchError(f"LVM does not come to rest: {len(after)} commands were noted, the agent counts {counted}")

    def _asked(self, path: str) -> str:
        with urllib.request.urlopen(f"{self._http}{path}", timeout=30) as reply:  # noqa: S310 - always http
            text: str = reply.read().decode()
        return text

    def _await_readiness(self, log: Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                self._asked("/readyz")
                return
            time.sleep(0.2)
        raise BenchError(f"the agent does not come up:\n{log.read_text()}")


@contextlib.contextmanager
def volume_group(disks: Sequence[str]) -> Iterator[None]:
    """GROUP on these disks; LVM itself refuses disks that are not blank (nobody answers its question with yes)."""
    ran("vgcreate", GROUP, *disks)
    try:
        yield
    finally:
        ran("vgremove", "--force", "--yes", GROUP)
        ran("pvremove", *disks)


def ran(*argv: str) -> None:
    """Run a program as ours are run; raises BenchError with what it said when it fails."""
    done = subprocess.run(  # noqa: S603 - argument lists of this file
        argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"{shlex.join(argv)}: {done.stderr}")


def memory_of(pid: int) -> Memory:
    """What this process costs now."""
    process = Path("/proc") / str(pid)
    status = _kernel_table(process / "status")
    return Memory(
        rss_bytes=status["VmRSS"] << 10,
        pss_bytes=_kernel_table(process / "smaps_rollup")["Pss"] << 10,
        threads=status["Threads"],
    )


def cpu_seconds_of(pid: int) -> float:
    """What the process has had of the processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_lvm(command: str) -> bool:
    return command.startswith(("lv", "vg", "pv", "fullreport"))


def _kernel_table(path: Path) -> dict[str, int]:
    """`Name:  123 kB` lines; only those whose value is a number."""
    table: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdecimal():
            table[name] = int(words[0])
    return table


def is_root() -> bool:
    """Whether LVM can be used at all."""
    return os.geteuid() == 0
