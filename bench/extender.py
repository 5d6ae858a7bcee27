"""Measure the extender: what a decision costs in the process, on the wire, and kube-scheduler's Pods per second.

  python -m bench.extender                                 all of it; the first time it builds the Kubernetes programs
  python -m bench.extender handler wire --candidates 500   a first impression of two parts

Parts: handler (in this process, without a socket), wire (`ullage extender` and a client, each a process of its own),
scheduler (the real kube-scheduler on nodes that are objects alone, with the extender and without). Progress goes to
standard error, the result to standard output.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from bench import extender_program, extender_scheduler, extender_series
from bench.extender_client import send
from bench.extender_handler import Handler
from bench.extender_objects import Size
from bench.extender_program import Beside, Cluster, Extender
from bench.extender_scheduler import Pace
from bench.extender_series import LATE_SECONDS, Found, Verb
from bench.lvm_rig import BenchError, Memory
from tests.rigs.cluster.api import Refusal
from tests.rigs.host import RigError
from ullage.errors import UllageError

HANDLER, WIRE, ECHO, SCHEDULER = "handler", "wire", "echo", "scheduler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of `ullage extender`, in memory."""

    when: str
    memory: Memory
    peak_bytes: int


@dataclass(slots=True, kw_only=True)
class Result:
    """Everything that was measured."""

    load: dict[str, float] = field(default_factory=dict)
    """Of the machine when each part began: its programs that wanted a processor in the minute before."""
    series: list[Found] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    ready_seconds: float = 0.0
    paces: list[Pace] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much is measured."""

    size: Size
    candidates: Sequence[int]
    rounds: int
    sizes: Sequence[int]
    pods: int
    starts: int


def of_handler(amount: Amount, result: Result) -> None:
    """In this process."""
    with _folder() as folder, Cluster(folder, amount.size) as cluster, Handler(cluster) as handler:
        for series in extender_series.all_series(amount.candidates):
            found = extender_series.found(HANDLER, series, cluster, rounds=amount.rounds, address="", ask=handler.ask)
            result.series.append(found)
            _progress(_line(found))


def of_wire(amount: Amount, result: Result) -> None:
    """The program, and beside it a server of the same kind with nothing behind it; each series with both in turn."""
    with (
        _folder() as folder,
        Cluster(folder, amount.size) as cluster,
        Beside(extender_program.ECHO, folder / "echo.log") as echo,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as client,
    ):
        begun = time.monotonic()
        with Extender(folder / "extender.log", ["--kubeconfig", str(cluster.kubeconfig)]) as extender:
            result.ready_seconds = time.monotonic() - begun
            result.costs.append(_cost("ready", extender))
            for series in extender_series.all_series(amount.candidates):
                for where, address in ((ECHO, echo.address), (WIRE, extender.address)):
                    if where == ECHO and series.claims > 1:
                        continue  # bytes as many as before
                    found = extender_series.found(
                        where,
                        series,
                        cluster,
                        rounds=amount.rounds,
                        address=address,
                        ask=lambda order: client.submit(send, order).result(),
                    )
                    result.series.append(found)
                    _progress(_line(found))
            result.costs.append(_cost("at the end", extender))


def of_scheduler(amount: Amount, result: Result) -> None:
    """On more and more nodes."""
    with _folder() as folder, extender_scheduler.bench(folder, _progress) as bench:
        for nodes in amount.sizes:
            bench.grow(nodes)
            for case, sides in extender_scheduler.cases(nodes):
                result.paces += bench.paces(case, sides, pods=amount.pods, rounds=amount.starts)


MEASURE: Mapping[str, Callable[[Amount, Result], None]] = {
    HANDLER: of_handler,
    WIRE: of_wire,
    SCHEDULER: of_scheduler,
}


def table(result: Result) -> str:
    """For people."""
    lines = [f"load: {', '.join(f'{part} {load:.1f}' for part, load in result.load.items())}"]
    for where in (HANDLER, WIRE, ECHO):
        own = [each for each in result.series if each.where == where]
        if own:
            lines += ["", _head(where), *(_line(each, _transport(result, each)) for each in own), _late(own)]
    if result.costs:
        lines += ["", f"memory, ready after {result.ready_seconds:.1f} s:"]
    lines += [
        f"    {each.when:12} RSS {_mb(each.memory.rss_bytes)} PSS {_mb(each.memory.pss_bytes)} "
        f"most {_mb(each.peak_bytes)} MB, {each.memory.threads} threads"
        for each in result.costs
    ]
    if result.paces:
        columns = f"{'Pods/s':>8} {'ms each':>8} {'÷ off':>6} {'answering ms':>13} {'CPU ms':>7}"
        lines += ["", f"{'scheduler':>9} {'Pods':>10} {'own check':>10} {'extender':>16} {columns}"]
    lines += [
        f"{each.case.nodes:9} {'one claim' if each.case.with_claims else 'unrelated':>10} "
        f"{('yes' if each.case.is_checked else 'no') if each.case.with_claims else '-':>10} {each.side:>16} "
        f"{each.per_second:8.1f} {1000 * each.decision_seconds:8.2f} {each.ratio:6.2f} "
        f"{1000 * each.answering_seconds:13.2f} {1000 * each.extender_cpu_seconds:7.2f}"
        for each in result.paces
    ]
    return "\n".join(lines) + "\n"


def _head(where: str) -> str:
    verb = f"{'p50':>8} {'p99':>8} {'slowest':>8} {'late':>4}"
    transport = f" {'÷ echo':>7}" if where == WIRE else ""
    what = f"{where:8} {'state':18} {'claims':>6} {'nodes':>9} {'calls':>6}"
    return f"{what}  {'filter ms':31}  prioritize ms\n{'':{len(what)}}  {verb}  {verb}{transport}"


def _line(found: Found, transport: Found | None = None) -> str:
    series = found.series
    nodes = f"{series.candidates}{' whole' if series.is_full else ''}"
    ratio = f" {found.filter.p50 / transport.filter.p50:7.2f}" if transport is not None else ""
    relisted = f"  {found.relisted} relisted" if found.relisted else ""
    return (
        f"{found.where:8} {series.state:18} {series.claims:6} {nodes:>9} {found.filter.calls:6}  "
        f"{_verb(found.filter)}  {_verb(found.prioritize)}{ratio}{relisted}"
    )


def _transport(result: Result, of: Found) -> Found | None:
    """The same series with nothing behind the server."""
    if of.where != WIRE:
        return None
    same = (of.series.state, of.series.candidates, of.series.is_full)
    return next(
        (
            each
            for each in result.series
            if each.where == ECHO and (each.series.state, each.series.candidates, each.series.is_full) == same
        ),
        None,
    )


def _late(found: Sequence[Found]) -> str:
    verbs = [verb for each in found for verb in (each.filter, each.prioritize) if verb is not None]
    slowest = max(verb.slowest for verb in verbs)
    late, calls = sum(verb.late for verb in verbs), sum(verb.calls for verb in verbs)
    return f"slowest of all {1000 * slowest:.1f} ms; {late} of {calls} took {1000 * LATE_SECONDS:.0f} ms or longer"


def _verb(verb: Verb | None) -> str:
    if verb is None:
        return " " * 31
    return f"{1000 * verb.p50:8.3f} {1000 * verb.p99:8.3f} {1000 * verb.slowest:8.2f} {verb.late:4}"


def _cost(when: str, extender: Extender) -> Cost:
    return Cost(when=when, memory=extender.memory, peak_bytes=extender.peak_bytes)


def _mb(number: int) -> str:
    return f"{number / 1e6:.1f}"


@contextmanager
def _folder() -> Iterator[Path]:
    """A short path, for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ullage-bench-"))
    yield folder
    shutil.rmtree(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when it cannot be done here, or not to its end: what was found until then is printed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.extender", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = partial(parser.add_argument, type=int, nargs="+")
    number = partial(parser.add_argument, type=int)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(MEASURE)} (all)")
    number("--nodes", default=15_000, help="of the cluster that is asked about (15000)")
    number("--volumes", default=100_000, help="on all of them (100000)")
    numbers("--candidates", default=[500, 5_000, 15_000], help="nodes in one request (500 5000 15000)")
    number("--rounds", default=500, help="back to back, at 500 candidates; fewer at more (500)")
    numbers("--sizes", default=[100, 1_000, 5_000], help="nodes of the scheduler's cluster (100 1000 5000)")
    number("--pods", default=1_000, help="to be scheduled at each start of it (1000)")
    number("--starts", default=3, help="of the scheduler with the extender, and as many without (3)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print it (table)")
    options = parser.parse_args(arguments)
    parts = options.parts or tuple(MEASURE)
    if unknown := set(parts) - set(MEASURE):
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(MEASURE)}")
    amount = Amount(
        size=Size(nodes=options.nodes, volumes=options.volumes),
        candidates=options.candidates,
        rounds=options.rounds,
        sizes=options.sizes,
        pods=options.pods,
        starts=options.starts,
    )
    result, code = Result(), 0
    try:
        for part in parts:
            result.load[part] = os.getloadavg()[0]
            MEASURE[part](amount, result)
    except (BenchError, RigError, Refusal, UllageError, OSError) as error:
        sys.stderr.write(f"{error.__context__ or ''}\n{error}\n")  # what ended it, and what its end ended with
        code = 2
    is_table = options.output == "table"
    sys.stdout.write(table(result) if is_table else json.dumps(asdict(result), indent=2) + "\n")
    return code


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
