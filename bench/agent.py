"""Measure what the node agent adds to LVM: time, LVM processes, memory, and how they grow with the volumes.

  python -m bench.agent /dev/vda /dev/vdb                     as root, in the VM, on blank disks
  python -m bench.agent --rounds 5 --volumes 50 -o json /dev/vda

Each step is done through the agent and with the bare command in turn, first the one and then the other, so that a noisy
machine hits both. Before each, LVM is at rest. Progress goes to standard error, the result to standard output.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

from bench.lvm_rig import AgentProcess, Bare, BenchError, Memory, is_root, volume_group
from ullage.agent_client import agent_at
from ullage.errors import MIB
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1.agent_pb2_grpc import AgentStub

STEPS = ("create", "expand", "delete")
VERBS = {"create": "lvcreate", "expand": "lvextend", "delete": "lvremove"}
"""What each step is compared with, however many other commands the agent needs."""
STEP_SECONDS = 120.0
SIZES = {"thick": 64 * MIB, "thin": 64 * MIB, "thick-discard": 16 * MIB, "thick-zero": 16 * MIB}
SMALL_BYTES = 4 * MIB
INFORMATION_ROUNDS = 5
"""For the classes that wipe: no aim is set for them."""
STATIONS = (10, 100, 250, 500)
SAMPLES = 11
"""Pairs at each station."""
READS = 20
BURST = 20
MOST_REFUSALS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A step both ways: medians of the seconds, and of the ratio of two calls that belong together.

    With the LVM commands that the agent ran for one call: in all, and by verb.
    """

    device_class: str
    step: str
    agent_seconds: float
    bare_seconds: float
    ratio: float
    processes: float
    most_processes: int
    verbs: dict[str, float]
    refusals: int
    """Calls that had to be repeated, in all rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Creating a thin volume beside so many others; medians in seconds."""

    volumes: int
    agent_seconds: float
    bare_seconds: float
    ratio: float
    processes: float
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A question answered from memory."""

    name: str
    volumes: int
    seconds: float
    processes: int


@dataclass(slots=True, kw_only=True)
class Result:
    """All of it."""

    idle: Memory
    pairs: list[Pair] = field(default_factory=list)
    stations: list[Station] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    burst_verbs: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Samples:
    """One step of one class, while it is measured."""

    agent: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    runs: list[Counter[str]] = field(default_factory=list)
    refusals: int = 0

    def ratio(self) -> float:
        """The median of each pair's own: what slows the machine for a while slows both sides of a pair."""
        return statistics.median(agent / bare for agent, bare in zip(self.agent, self.bare, strict=True))

    def processes(self) -> float:
        return statistics.mean(run.total() for run in self.runs)


class Benchmark:
    """A run over one volume group."""

    def __init__(self, agent: AgentProcess, stub: AgentStub, bare: Bare) -> None:
        """The agent serves and has nothing to do."""
        self._agent = agent
        self._stub = stub
        self._bare = bare
        self._seen = len(agent.settled())
        self._last: dict[tuple[str, str], list[str]] = {}

    def pairs(self, device_class: str, rounds: int) -> list[Pair]:
        """Create, expand and delete, `rounds` times, the two ways in turn."""
        samples = {step: _Samples() for step in STEPS}
        self._round(device_class, "warm", {step: _Samples() for step in STEPS}, is_agent_first=True)
        for number in range(rounds):
            self._round(device_class, f"{number}", samples, is_agent_first=number % 2 == 0)
            _progress(f"{device_class}: round {number + 1} of {rounds}")
        found = [_pair(device_class, step, samples[step]) for step in STEPS]
        for pair in found:
            _progress(_line(pair))
        return found

    def stations(self, most: int) -> list[Station]:
        """Fill the thin pool, and stop at each station to measure."""
        found = []
        there = 0
        for station in sorted({*(each for each in STATIONS if each < most), most}):
            for number in range(there, station):
                self._create("thin", f"fill-{number}", SMALL_BYTES)
                if number % 50 == 0:
                    _progress(f"fill: {number} volumes")
            self._settle()
            memory = self._agent.memory()
            samples = _Samples()
            for number in range(SAMPLES):
                self._both("create", "small", f"{station}-{number}", samples, is_agent_first=number % 2 == 0)
            there = station + 2 * SAMPLES
            found.append(
                Station(
                    volumes=station,
                    agent_seconds=statistics.median(samples.agent),
                    bare_seconds=statistics.median(samples.bare),
                    ratio=samples.ratio(),
                    processes=samples.processes(),
                    memory=memory,
                )
            )
            _progress(f"station of {station}: ratio {samples.ratio():.2f}")
        return found

    def reads(self) -> list[Read]:
        """Get, list and pools, over what there is."""
        volumes = self._stub.ListVolumes(pb.ListVolumesRequest()).volumes
        one = pb.GetVolumeRequest(volume_id=volumes[-1].volume_id)
        return [
            self._read("get", len(volumes), lambda: self._stub.GetVolume(one)),
            self._read("list", len(volumes), lambda: self._stub.ListVolumes(pb.ListVolumesRequest())),
            self._read("pools", len(volumes), lambda: self._stub.ListPools(pb.ListPoolsRequest())),
        ]

    def burst(self) -> dict[str, int]:
        """BURST creates one right after the other: the commands that ran for them all, by verb."""
        for number in range(BURST):
            self._create("thin", f"burst-{number}", SMALL_BYTES)
        return dict(Counter(argv[0] for argv in self._settle()))

    def _round(self, device_class: str, name: str, samples: dict[str, _Samples], *, is_agent_first: bool) -> None:
        for step in STEPS:
            self._both(step, device_class, f"{device_class}-{name}", samples[step], is_agent_first=is_agent_first)

    def _both(self, step: str, device_class: str, name: str, samples: _Samples, *, is_agent_first: bool) -> None:
        if is_agent_first:
            self._through_agent(step, device_class, name, samples)
            self._without(step, device_class, name, samples)
        else:
            self._without(step, device_class, name, samples)
            self._through_agent(step, device_class, name, samples)

    def _through_agent(self, step: str, device_class: str, name: str, samples: _Samples) -> None:
        volume_id = f"a-{name}"
        started = time.monotonic()
        match step:
            case "create" if device_class == "small":
                self._create("thin", name, SMALL_BYTES)
            case "create":
                self._create(device_class, name, SIZES[device_class])
            case "expand":
                request = pb.ExpandVolumeRequest(volume_id=volume_id, size_bytes=2 * SIZES[device_class])
                self._stub.ExpandVolume(request, timeout=STEP_SECONDS)
            case _:
                samples.refusals += self._delete(volume_id)
        samples.agent.append(time.monotonic() - started)
        runs = self._settle()
        samples.runs.append(Counter(argv[0] for argv in runs))
        compared = next(argv for argv in runs if argv[0] == VERBS[step] and "thin-pool" not in argv)
        self._last[step, device_class] = [word.replace(name, "NAME") for word in compared]

    def _without(self, step: str, device_class: str, name: str, samples: _Samples) -> None:
        argv = [word.replace("NAME", name) for word in self._last[step, device_class]]
        samples.bare.append(self._bare.seconds(argv, f"b-{name}", f"a-{name}"))
        self._settle()

    def _settle(self) -> list[list[str]]:
        """What the agent has run since LVM was at rest the last time, until it is again."""
        runs = self._agent.settled()
        new = runs[self._seen :]
        self._seen = len(runs)
        return new

    def _create(self, device_class: str, name: str, size_bytes: int) -> None:
        owner = pb.Owner(pv_name=f"pv-{name}", claim_namespace="default", claim_name=f"data-{name}", claim_uid="u-1")
        request = pb.CreateVolumeRequest(
            volume_id=f"a-{name}", device_class=device_class, size_bytes=size_bytes, owner=owner
        )
        self._stub.CreateVolume(request, timeout=STEP_SECONDS)

    def _delete(self, volume_id: str) -> int:
        """Delete, again and again as a sidecar does; how often it was refused because somebody had the device open."""
        refusals = 0
        while True:
            try:
                self._stub.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=STEP_SECONDS)
            except grpc.RpcError as failure:
                if failure.code() is not grpc.StatusCode.FAILED_PRECONDITION or refusals == MOST_REFUSALS:
                    raise
                refusals += 1
            else:
                return refusals

    def _read(self, name: str, volumes: int, ask: Callable[[], object]) -> Read:
        seconds = []
        for _ in range(READS):
            started = time.monotonic()
            ask()
            seconds.append(time.monotonic() - started)
        return Read(name=name, volumes=volumes, seconds=statistics.median(seconds), processes=len(self._settle()))


def _pair(device_class: str, step: str, samples: _Samples) -> Pair:
    verbs: Counter[str] = sum(samples.runs, Counter())
    return Pair(
        device_class=device_class,
        step=step,
        agent_seconds=statistics.median(samples.agent),
        bare_seconds=statistics.median(samples.bare),
        ratio=samples.ratio(),
        processes=samples.processes(),
        most_processes=max(run.total() for run in samples.runs),
        verbs={verb: count / len(samples.runs) for verb, count in sorted(verbs.items())},
        refusals=samples.refusals,
    )


def measure(disks: Sequence[str], *, rounds: int, volumes: int, http_port: int) -> Result:
    """Everything, on these disks."""
    with tempfile.TemporaryDirectory(prefix="ullage-bench-") as name, volume_group(disks):
        folder = Path(name)
        agent = AgentProcess(folder, http_port)
        try:
            agent.settled()
            result = Result(idle=agent.memory())
            with agent_at(agent.address) as stub:
                benchmark = Benchmark(agent, stub, Bare(folder))
                if rounds:
                    for device_class in ("thick", "thin"):
                        result.pairs += benchmark.pairs(device_class, rounds)
                    for device_class in ("thick-discard", "thick-zero"):
                        result.pairs += benchmark.pairs(device_class, min(rounds, INFORMATION_ROUNDS))
                result.burst_verbs = benchmark.burst()
                result.stations = benchmark.stations(volumes)
                result.reads = benchmark.reads()
        finally:
            agent.stop()
    return result


def table(result: Result) -> str:
    """The result for people."""
    lines = [f"{'class':14} {'step':7} {'agent s':>8} {'bare s':>8} {'ratio':>6} {'LVM':>5} {'most':>5}  of which"]
    lines += [_line(pair) for pair in result.pairs]
    lines += [
        "",
        f"{'volumes':>7} {'agent s':>8} {'bare s':>8} {'ratio':>6} {'LVM':>5} {'RSS MB':>7} {'PSS MB':>7} threads",
    ]
    lines += [
        f"{each.volumes:7} {each.agent_seconds:8.3f} {each.bare_seconds:8.3f} {each.ratio:6.2f} {each.processes:5.2f} "
        f"{_mega(each.memory.rss_bytes)} {_mega(each.memory.pss_bytes)} {each.memory.threads:7}"
        for each in result.stations
    ]
    idle = result.idle
    lines += [
        f"idle: RSS {_mega(idle.rss_bytes).strip()} MB, PSS {_mega(idle.pss_bytes).strip()} MB, {idle.threads} threads"
    ]
    lines += ["", f"{'read':7} {'volumes':>7} {'ms':>7} LVM"]
    lines += [f"{each.name:7} {each.volumes:7} {1000 * each.seconds:7.2f} {each.processes:3}" for each in result.reads]
    lines += ["", f"{BURST} creates in a row: " + ", ".join(f"{v} {n}" for v, n in sorted(result.burst_verbs.items()))]
    return "\n".join(lines) + "\n"


def _line(pair: Pair) -> str:
    verbs = ", ".join(f"{verb} {count:.3g}" for verb, count in pair.verbs.items())
    if pair.refusals:
        verbs += f"; {pair.refusals} calls refused"
    return (
        f"{pair.device_class:14} {pair.step:7} {pair.agent_seconds:8.3f} {pair.bare_seconds:8.3f} "
        f"{pair.ratio:6.2f} {pair.processes:5.2f} {pair.most_processes:5}  {verbs}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when it cannot be done here."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.agent", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("disks", nargs="*", default=["/dev/vda"], metavar="DISK", help="blank disks (/dev/vda)")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of each step; 0: only the growth (20)")
    parser.add_argument("--volumes", type=int, default=500, help="how far to fill (500)")
    parser.add_argument("--http-port", type=int, default=9252, help="of the agent's metrics, on the loopback (9252)")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table", help="how to print it (table)")
    options = parser.parse_args(arguments)
    if not is_root():
        parser.error("LVM needs root")
    try:
        result = measure(options.disks, rounds=options.rounds, volumes=options.volumes, http_port=options.http_port)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(table(result) if options.output == "table" else json.dumps(asdict(result), indent=2) + "\n")
    return 0


def _mega(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:7.1f}"


def _progress(sentence: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
