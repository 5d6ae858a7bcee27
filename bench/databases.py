"""PostgreSQL and Redis in a Pod on a volume of ours, beside the same servers on bare logical volumes of the same node.

  python -m bench.databases                    as root; a cluster of one VM node, made for it and ended with it, or the
                                               one that ULLAGE_FULL_CLUSTER=DIR names, as `make cluster-up` leaves it
  python -m bench.databases --rounds 40 -o json

Three servers of each kind run at once, and one at a time is asked: in a Pod, on a bare volume, and on a second bare
volume, whose ratio to the first is what the machine does to any ratio. Everything but where it runs is the same: the
image's programs and configuration, the volume group, the size, mkfs's arguments, the mount's options, and the client,
which is where its server is. A run is a fixed number of transactions, timed by the client itself. Progress goes to
standard error, the result to standard output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.databases_scene import BARE, Place, places
from tests.full.workloads import GROUP
from tests.rigs.host import RigError

PSQL = ("psql", "-U", "postgres", "-qX")
PGBENCH = ("pgbench", "-U", "postgres")
SCALE, CLIENTS = 2, 2
REDIS_CLIENTS, VALUE_BYTES = 8, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One thing that is measured: how it is got ready, what one run is, and the rate that its client tells."""

    name: str
    unit: str
    prepare: Sequence[Sequence[str]]
    before: Sequence[str]
    """Ahead of each run, and not timed: no run pays for what another has left to be written."""
    run: Sequence[str]
    rate: Callable[[str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Rates of one load at one place, and each round's ratio to the bare volume's rate of that round."""

    load: str
    unit: str
    place: str
    rates: list[float]
    ratios: list[float]


def loads(transactions: int, requests: int) -> list[Load]:
    """What is measured, with so much in each run."""
    return [
        Load(
            name="pgbench (TPC-B)",
            unit="transactions/s",
            prepare=[
                ("createdb", "-U", "postgres", "bench"),
                (*PGBENCH, "-i", "-q", "-s", str(SCALE), "bench"),
            ],
            before=(*PSQL, "-c", "checkpoint"),
            run=(*PGBENCH, "-n", "-c", str(CLIENTS), "-j", "1", "-t", str(transactions // CLIENTS), "bench"),
            rate=pgbench_rate,
        ),
        Load(
            name="redis SET, AOF fsync always",
            unit="requests/s",
            prepare=[],
            before=("sync", "-f", "/data"),
            run=(
                *("redis-benchmark", "-s", "/run/redis/socket", "--csv", "-t", "set", "-n", str(requests)),
                *("-c", str(REDIS_CLIENTS), "-d", str(VALUE_BYTES)),
            ),
            rate=redis_rate,
        ),
    ]


def pgbench_rate(said: str) -> float:
    """Transactions a second, connecting not counted."""
    line = next(line for line in said.splitlines() if line.startswith("tps = "))
    return float(line.split()[2])


def redis_rate(said: str) -> float:
    """Requests a second, from the table that --csv asks for."""
    return float(said.splitlines()[-1].split(",")[1].strip('"'))


def measure(there: Mapping[str, Place], wanted: Sequence[Load], rounds: int) -> list[Figure]:
    """So many rounds of each load, every place in turn; each round begins with another place."""
    figures = []
    for load in wanted:
        for place in there.values():
            for argv in load.prepare:
                place.run(*argv)
        rates: dict[str, list[float]] = {name: [] for name in there}
        for number in range(-1, rounds):
            shift = number % len(there)
            for name in (*tuple(there)[shift:], *tuple(there)[:shift]):
                there[name].run(*load.before)
                rate = load.rate(there[name].run(*load.run))
                if number >= 0:  # the first is to warm up
                    rates[name].append(rate)
            _progress(f"{load.name}: round {number + 1} of {rounds}")
        figures += [
            Figure(
                load=load.name,
                unit=load.unit,
                place=name,
                rates=found,
                ratios=[one / bare for one, bare in zip(found, rates[BARE], strict=True)],
            )
            for name, found in rates.items()
        ]
    return figures


def table(figures: Sequence[Figure]) -> str:
    """The result for people: medians, the ratio with the middle half of its rounds, and how far rates were apart."""
    lines = [
        f"{'load':28} {'where':12} {'median':>8} {'least':>8} {'most':>8}  {'ratio':>5}  {'middle half':11}  rounds"
    ]
    for each in figures:
        low, _, high = statistics.quantiles(each.ratios, n=4) if len(each.ratios) > 1 else (each.ratios[0],) * 3
        rates = " ".join(f"{rate:8.1f}" for rate in (statistics.median(each.rates), min(each.rates), max(each.rates)))
        ratio = f"{statistics.median(each.ratios):5.3f}  {low:5.3f}-{high:5.3f}"
        lines.append(f"{each.load:28} {each.place:12} {rates}  {ratio}  {len(each.rates):6}")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when it cannot be done here."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.databases", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20, help="of each load (20)")
    parser.add_argument("--transactions", type=int, default=400, help="of PostgreSQL in a run (400)")
    parser.add_argument("--requests", type=int, default=2000, help="of Redis in a run (2000)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print it (table)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="ullage-bench-") as folder, places(Path(folder), _progress) as there:
            figures = measure(there, loads(options.transactions, options.requests), options.rounds)
    except RigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    about = f"one VM node, volume group {GROUP}; rates by the clients' own clocks; ratio: of each round, to `{BARE}`\n"
    printed = about + table(figures) if options.output == "table" else json.dumps([asdict(each) for each in figures])
    sys.stdout.write(f"{printed}\n")
    return 0


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
