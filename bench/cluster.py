"""Measure the driver in a cluster of real programs: what controller, agents and API server add to a carve.

  python -m bench.cluster                                     as root, anywhere; all of it
  python -m bench.cluster claims --rounds 5 --bursts 1        a first impression of one part

Parts: volumes (LogicalVolume → Ready, writes, who hears of it), claims (PersistentVolumeClaim → Bound beside a driver
that does nothing, writes), scale (a thousand nodes). Progress goes to standard error, the result to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import cluster_crowd, cluster_scale
from bench.cluster_claims import Alone, Claims, Together, Writes, alone, claims, lives, together
from bench.cluster_scale import Choice, Start
from bench.cluster_scene import IDLE, LATE, NODES, NOW, OURS, UNLIMITED, USUAL, Scene, scene
from bench.cluster_volumes import Burst, Delay, burst, called, ready, volumes
from bench.lvm_rig import BenchError, is_root
from tests.rigs.cluster.api import Refusal
from tests.rigs.host import RigError
from ullage.errors import UllageError

USUAL_BURSTS = 2
"""They take as long as the limit says."""


@dataclass(slots=True, kw_only=True)
class Found:
    """Everything that was measured."""

    load: list[float] = field(default_factory=list)
    """Of the machine when each part began: its programs that wanted a processor in the minute before."""
    delays: list[Delay] = field(default_factory=list)
    bursts: list[Burst] = field(default_factory=list)
    alone: list[Alone] = field(default_factory=list)
    together: list[Together] = field(default_factory=list)
    writes: list[Writes] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    rounds: int
    bursts: int
    burst: int
    nodes: int
    volumes: int


def of_volumes(size: Size, found: Found) -> None:
    """On one node; then two more come, to whom none of it matters."""
    with _small_cluster(found) as (there, endpoint), volumes(there) as made:
        found.delays.append(ready(there, made, rounds=size.rounds, say=_progress))
        found.delays.append(called(there, made, endpoint, rounds=size.rounds, say=_progress))
        for node in NODES[1:]:
            there.agent(node)
        found.bursts.append(burst(there, made, count=size.burst, say=_progress))


def of_claims(size: Size, found: Found) -> None:
    """On one node, with sidecars; the bursts once more with the limit that clusters usually have."""
    with _small_cluster(found) as (there, endpoint), _sidecars(there, endpoint) as asked:
        for mode in (NOW, LATE):
            found.alone.append(alone(there, asked, mode, rounds=size.rounds, say=_progress))
        for side in (OURS, IDLE):
            found.writes += lives(there, asked, side, one_by_one=size.rounds, at_once=size.burst, say=_progress)
        for mode in (NOW, LATE):
            found.together.append(together(asked, mode, UNLIMITED, size.bursts, size.burst, say=_progress))
    with _small_cluster(found, USUAL) as (there, endpoint), _sidecars(there, endpoint) as asked:
        for mode in (NOW, LATE):
            bursts = min(USUAL_BURSTS, size.bursts)
            found.together.append(together(asked, mode, USUAL, bursts, size.burst, say=_progress))


@contextmanager
def _sidecars(there: Scene, endpoint: str) -> Iterator[Claims]:
    there.provisioner(OURS, Path(endpoint.removeprefix("unix://")))
    there.provisioner(IDLE, there.idle_driver(NODES[0]))
    with claims(there) as asked:
        yield asked


@contextmanager
def _small_cluster(found: Found, limit: int = UNLIMITED) -> Iterator[tuple[Scene, str]]:
    found.load.append(os.getloadavg()[0])
    with _folder() as folder, scene(folder, requests_per_second=limit) as there:
        controller = there.controller()
        there.agent(NODES[0])
        yield there, controller.csi_endpoint


def at_scale(size: Size, found: Found) -> None:
    """Objects of many nodes, and one real agent."""
    of = (size.nodes, size.volumes)
    with _folder() as folder, scene(folder, only_api=True) as there:
        cluster_crowd.make_class(there)
        begun = time.monotonic()
        cluster_crowd.fill(there.plane.kubeconfig, size.nodes, size.volumes)
        _progress(f"{size.nodes} nodes, {size.volumes} volumes, in {time.monotonic() - begun:.0f} s")
        found.load.append(os.getloadavg()[0])
        agent = cluster_scale.settle_agent(there, size.volumes // size.nodes)
        controller = there.controller_of()
        for program, name in ((agent, "node"), (controller, "controller")):
            found.starts.append(cluster_scale.started(program, name, of=of, starts=3, say=_progress))
        with cluster_scale.choices(there, controller) as asked:
            found.choices.append(asked.made("any node", node=None, calls=size.rounds))
            found.choices.append(asked.made("one node", node=cluster_crowd.node_of(0), calls=size.rounds))
            found.choices.append(asked.refused(calls=size.rounds))


MEASURE: Mapping[str, Callable[[Size, Found], None]] = {"volumes": of_volumes, "claims": of_claims, "scale": at_scale}


@contextmanager
def _folder() -> Iterator[Path]:
    """A short path, for sockets and mounts; it stays when something of it is still mounted."""
    folder = Path(tempfile.mkdtemp(prefix="ullage-bench-"))
    yield folder
    shutil.rmtree(folder)


def table(found: Found) -> str:
    """For people."""
    lines = [f"load at the beginning of each part: {', '.join(f'{each:.1f}' for each in found.load)}"]
    if found.delays:
        lines += ["", f"{'one at a time':24} {'volumes':>7} {'whole ms':>9} {'carve ms':>9} {'beside':>8} {'p90':>8}"]
    lines += [
        f"{each.what:24} {each.volumes:7} {_ms(each.whole_seconds)} {_ms(each.carve_seconds)} "
        f"{_ms(each.beside_seconds, 8)} {_ms(each.p90_seconds, 8)}"
        for each in found.delays
    ]
    for one in found.bursts:
        heard = ", ".join(f"{node} {number:.0f}" for node, number in one.heard.items())
        lines += [
            "",
            f"{one.volumes} LogicalVolumes at once: the last Ready after {one.last_seconds:.2f} s",
            f"    a carve took {one.carve_seconds:.2f} s, several at a time",
            f"    events about them that came to the agents: {heard}",
            *_writes("    writes for each", one.each),
        ]
    if found.alone:
        lines += [
            "",
            f"{'claim → Bound':22} {'ours ms':>8} {'carve':>8} {'idle ms':>8} {'ratio':>6}  without the carve",
        ]
    lines += [
        f"{each.mode:22} {_ms(each.ours_seconds, 8)} {_ms(each.carve_seconds, 8)} {_ms(each.idle_seconds, 8)} "
        f"{each.ratio:6.2f} {each.ratio_without_carve:6.2f}"
        for each in found.alone
    ]
    if found.together:
        lines += ["", f"{'claims at once':22} {'claims':>6} {'limit/s':>8} {'ours s':>8} {'idle s':>8} {'ratio':>6}"]
    lines += [
        f"{many.mode:22} {many.claims:6} {many.requests_per_second:8} {many.ours_seconds:8.2f} "
        f"{many.idle_seconds:8.2f} {many.ratio:6.2f}"
        for many in found.together
    ]
    for life in found.writes:
        lines += ["", *_writes(f"writes for each claim's life, {life.driver}, {life.volumes} {life.how}", life.each)]
    if found.starts:
        columns = ("RSS MB", "PSS MB", "calm", "peak")
        names = " ".join(f"{name:>7}" for name in columns)
        lines += ["", f"{'start':12} {'nodes':>6} {'volumes':>7} {'ready s':>8} {'CPU s':>6} {names}"]
    lines += [
        f"{each.program:12} {each.nodes:6} {each.volumes:7} {each.seconds:8.2f} {each.cpu_seconds:6.2f} "
        f"{_mb(each.ready.rss_bytes)} {_mb(each.ready.pss_bytes)} {_mb(each.calm.rss_bytes)} {_mb(each.peak_bytes)}"
        for each in found.starts
    ]
    if found.choices:
        lines += ["", f"{'CreateVolume':22} {'calls':>6} {'chosen ms':>10} {'answered ms':>12} {'CPU ms':>7}"]
    lines += [
        f"{each.how:22} {each.calls:6} {_ms(each.chosen_seconds, 10)} {_ms(each.answered_seconds, 12)} "
        f"{_ms(each.cpu_seconds, 7)}"
        for each in found.choices
    ]
    return "\n".join(lines) + "\n"


def _writes(what: str, each: Mapping[str, float]) -> list[str]:
    lines = [f"{what}: {sum(each.values()):.2f}"]
    return lines + [f"        {count:6.2f}  {name}" for name, count in each.items()]


def _ms(seconds: float, width: int = 9) -> str:
    return f"{1000 * seconds:{width}.1f}"


def _mb(number: int) -> str:
    return f"{number / 1e6:7.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when it cannot be done here, or not to its end: what was found until then is printed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(MEASURE)} (all)")
    parser.add_argument("--rounds", type=int, default=20, help="of everything that is done one at a time (20)")
    parser.add_argument("--bursts", type=int, default=5, help="of each driver and mode (5)")
    parser.add_argument("--burst", type=int, default=50, help="claims or volumes at once (50)")
    parser.add_argument("--nodes", type=int, default=1000, help="of the large cluster (1000)")
    parser.add_argument("--volumes", type=int, default=20000, help="on all of them (20000)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print it (table)")
    options = parser.parse_args(arguments)
    parts = options.parts or tuple(MEASURE)
    if unknown := set(parts) - set(MEASURE):
        parser.error(f"no {', '.join(sorted(unknown))}; there are {', '.join(MEASURE)}")
    if not is_root():
        parser.error("mounts and loop devices need root")
    size = Size(
        rounds=options.rounds,
        bursts=options.bursts,
        burst=options.burst,
        nodes=options.nodes,
        volumes=options.volumes,
    )
    found, code = Found(), 0
    try:
        for part in parts:
            MEASURE[part](size, found)
    except (BenchError, RigError, Refusal, UllageError) as error:
        sys.stderr.write(f"{error.__context__ or ''}\n{error}\n")  # what ended it, and what its end ended with
        code = 2
    is_table = options.output == "table"
    sys.stdout.write(table(found) if is_table else json.dumps(asdict(found), indent=2) + "\n")
    return code


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
