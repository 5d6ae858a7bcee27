"""Measure the CSI driver: what it adds to the bare commands, requests a second, memory, one slow mkfs beside others.

  python -m bench.csi --host                                  as root, anywhere: rates and memory, on files
  python -m bench.csi /dev/vda /dev/vdb                       as root, in the VM, on blank disks: ratios, on LVM

Progress goes to standard error, the result to standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from bench import csi_rates
from bench.csi_pairs import BARE_STEPS, CONFIGURATION, Pair, Pairs
from bench.csi_rates import READS, WITH_ALL, Beside, Crowd, Rate, Station
from bench.driver import Driver, client_of
from bench.lvm_rig import BenchError, is_root, volume_group

INFORMATION_ROUNDS = 5
"""For the class that wipes: no aim is set for it."""
PODS = 110
"""kubelet's default for one node."""


def pairs(disks: Sequence[str], *, rounds: int, http_port: int) -> list[Pair]:
    """The driver beside the bare commands."""
    with _folder() as folder, volume_group(disks):
        driver = Driver(folder, CONFIGURATION, http_port, log_level="debug")
        try:
            with client_of(driver.endpoint) as client:
                measured = Pairs(driver, client, folder, _progress)
                return [
                    measured.measure("thick", "ext4", rounds),
                    measured.measure("thick", "xfs", rounds),
                    measured.measure("thick-default", "ext4", min(rounds, INFORMATION_ROUNDS)),
                ]
        finally:
            driver.stop()


def on_files(
    *, volumes: int, seconds: float, beside_rounds: int, http_port: int
) -> tuple[list[Rate], list[Station], list[Beside]]:
    """Rates, memory, and the slow mkfs."""
    rates: list[Rate] = []
    stations: list[Station] = []
    with _folder() as folder:
        (folder / "volumes").mkdir()
        os.mkfifo(csi_rates.pipe(folder))
        driver = Driver(folder, csi_rates.configuration(folder), http_port)
        there = Crowd(volumes=volumes, mounted=min(PODS, volumes))
        try:
            stations.append(Station(moment="idle", memory=driver.memory()))
            found = _beside(driver, folder, beside_rounds)
            stations.append(Station(moment="after the volumes at once", memory=driver.memory()))
            csi_rates.fill(driver, folder, range(1), mounted=True)
            few = [name for name in READS if name != WITH_ALL]
            rates += csi_rates.rates(driver, folder, few, Crowd(volumes=1, mounted=1), seconds)
            csi_rates.fill(driver, folder, range(1, there.mounted), mounted=True)
            csi_rates.fill(driver, folder, range(there.mounted, volumes), mounted=False)
            stations.append(Station(moment=f"{volumes} volumes", memory=driver.memory()))
            rates += csi_rates.rates(driver, folder, list(READS), there, seconds)
            stations.append(Station(moment=f"{volumes} volumes, after the calls", memory=driver.memory()))
        finally:
            with contextlib.suppress(Exception):
                _progress("taking the volumes away")
                csi_rates.empty(driver, folder, range(volumes))
            driver.stop()
            _clear(folder)
    return rates, stations, found


def _beside(driver: Driver, folder: Path, rounds: int) -> list[Beside]:
    found = []
    csi_rates.beside(driver, folder, others=29, is_one_slow=False, round_name="warm")
    for number in range(rounds):
        for is_one_slow in (False, True) if number % 2 else (True, False):
            name = f"beside-{number}-{'slow' if is_one_slow else 'all'}"
            found.append(csi_rates.beside(driver, folder, others=29, is_one_slow=is_one_slow, round_name=name))
            _progress(f"{name}: the last after {found[-1].last_seconds:.2f} s")
    return found


def _clear(folder: Path) -> None:
    """What a benchmark that broke off has left: mounts and loop devices below the folder."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed([each for each in mounts if each.startswith(f"{folder}/")]):
        subprocess.run(["umount", place], check=False)  # noqa: S603, S607 - places of our own
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if file.read_text().startswith(f"{folder}/"):
                subprocess.run(["losetup", "--detach", f"/dev/{file.parts[3]}"], check=False)  # noqa: S603, S607


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ullage-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def pairs_table(found: Sequence[Pair]) -> str:
    """For people."""
    lines = [f"{'class':14} {'fs':5} {'ratio':>6} {'from':>5} {'to':>5}"]
    for each in found:
        bare = ", ".join(f"{step} {each.bare_seconds[step]:.2f}" for step in BARE_STEPS)
        driver = ", ".join(f"{step} {seconds:.2f}" for step, seconds in each.driver_seconds.items())
        lines += [
            f"{each.device_class:14} {each.fs_type:5} {each.ratio:6.2f} {each.least_ratio:5.2f} {each.most_ratio:5.2f}",
            f"    seconds: driver: {driver}; bare: {bare}",
            f"    programs: {_counts(each.programs)}; afterwards: {_counts(each.after)}",
        ]
    return "\n".join(lines) + "\n"


def files_table(rates: Sequence[Rate], stations: Sequence[Station], slow: Sequence[Beside]) -> str:
    """For people."""
    lines = [f"{'call':20} {'volumes':>7} {'mounted':>7} {'clients':>7} {'per s':>7} {'p50 ms':>7} {'p99 ms':>7}"]
    lines += [
        f"{each.name:20} {each.there.volumes:7} {each.there.mounted:7} {each.clients:7} {each.per_second:7.0f} "
        f"{1000 * each.p50_seconds:7.2f} {1000 * each.p99_seconds:7.2f}"
        for each in rates
    ]
    lines += ["", f"{'memory':32} {'RSS MB':>7} {'PSS MB':>7} threads"]
    lines += [
        f"{each.moment:32} {each.memory.rss_bytes / 1e6:7.1f} {each.memory.pss_bytes / 1e6:7.1f} "
        f"{each.memory.threads:7}"
        for each in stations
    ]
    lines += ["", "30 volumes at once, the 29 that are not held"]
    for is_one_slow, words in ((False, "all alike"), (True, "one mkfs held")):
        same = [each for each in slow if each.is_one_slow is is_one_slow]
        if same:
            last = statistics.median(each.last_seconds for each in same)
            half = statistics.median(each.median_seconds for each in same)
            lines.append(f"  {words:14} last after {last:.2f} s, half after {half:.2f} s (medians of {len(same)})")
    return "\n".join(lines) + "\n"


def _counts(programs: dict[str, float]) -> str:
    return ", ".join(f"{name} {count:.3g}" for name, count in programs.items()) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when it cannot be done here."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.csi", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("disks", nargs="*", default=["/dev/vda"], metavar="DISK", help="blank disks (/dev/vda)")
    parser.add_argument("--host", action="store_true", help="rates and memory, on files of this machine")
    parser.add_argument("--rounds", type=int, default=10, help="pairs of each class and file system (10)")
    parser.add_argument("--volumes", type=int, default=500, help="on files (500)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of asking, for each rate (3)")
    parser.add_argument("--beside", type=int, default=5, help="rounds of 30 volumes at once, of each sort (5)")
    parser.add_argument("--http-port", type=int, default=9253, help="of the driver's metrics, on the loopback (9253)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print it (table)")
    options = parser.parse_args(arguments)
    if not is_root():
        parser.error("mounts, loop devices and LVM need root")
    is_table = options.output == "table"
    try:
        if options.host:
            rates, stations, slow = on_files(
                volumes=options.volumes,
                seconds=options.seconds,
                beside_rounds=options.beside,
                http_port=options.http_port,
            )
            everything: dict[str, Sequence[Rate | Station | Beside | Pair]] = {
                "rates": rates,
                "memory": stations,
                "beside": slow,
            }
            printed = files_table(rates, stations, slow)
        else:
            found = pairs(options.disks, rounds=options.rounds, http_port=options.http_port)
            everything = {"pairs": found}
            printed = pairs_table(found)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    plain = {name: [asdict(each) for each in values] for name, values in everything.items()}
    sys.stdout.write(printed if is_table else json.dumps(plain, indent=2) + "\n")
    return 0


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
