"""Measure what it saves a backup to be told what has changed: that time beside the time of reading everything.

  python -m bench.changed_blocks /dev/vda /dev/vdb            as root, in the VM, on blank disks

A thin volume is written from end to end, and after a first snapshot a share of it again, in places all over it. Then,
in turn: the agent is asked what has changed between that and a second snapshot, to its last range; and the second
snapshot is read whole, past the page cache. Progress goes to standard error, the result to standard output.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from bench.lvm_rig import GROUP, BenchError, is_root, ran, volume_group
from node_agent.agent import Agent
from node_agent.assembly import assemble, backends
from node_agent.debts import Debts
from ullage.errors import GIB, KIB, MIB, human_bytes
from ullage.model import CreateVolume, DeviceClass, DeviceClassName, DeviceType, TakeSnapshot, ThinPoolPolicy, VolumeId
from ullage.names import snapshot_id
from ullage.run import Subprocesses

CHUNK_BYTES = 64 * KIB
BLOCK_BYTES = 4 * MIB
THIN = DeviceClassName("thin")
VOLUME, BASE, TARGET = VolumeId("bench"), snapshot_id("base"), snapshot_id("target")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Medians in seconds; `ratio` is the median of the ratios of two that were measured one after the other."""

    volume_bytes: int
    changed_bytes: int
    ranges: int
    told_seconds: float
    read_seconds: float
    ratio: float
    rounds: int


def measured(agent: Agent, size_bytes: int, percent: int, rounds: int) -> Result:
    """All of it, on a node that has nothing yet."""
    volume = agent.create(CreateVolume(volume_id=VOLUME, device_class=THIN, size_bytes=size_bytes)).volume
    if volume is None:
        raise BenchError("no volume was made")
    _say(f"writing {human_bytes(size_bytes)}")
    _write(volume.device_path, range(0, size_bytes, BLOCK_BYTES), BLOCK_BYTES)
    agent.snapshot(TakeSnapshot(snapshot_id=BASE, source=VOLUME))
    chunks = size_bytes // CHUNK_BYTES
    some = sorted(random.Random(1).sample(range(chunks), chunks * percent // 100))  # noqa: S311 - the same each time
    _write(volume.device_path, [chunk * CHUNK_BYTES for chunk in some], CHUNK_BYTES)
    agent.snapshot(TakeSnapshot(snapshot_id=TARGET, source=VOLUME))
    ranges = list(agent.changed(BASE, TARGET).ranges)
    told, read = [], []
    with _active(f"{GROUP}/{TARGET}") as device_path:
        for number in range(rounds):
            _say(f"round {number + 1} of {rounds}")
            started = time.monotonic()
            for _each in agent.changed(BASE, TARGET).ranges:
                pass
            told.append(time.monotonic() - started)
            read.append(_read_seconds(device_path, size_bytes))
    return Result(
        volume_bytes=size_bytes,
        changed_bytes=sum(each.size_bytes for each in ranges),
        ranges=len(ranges),
        told_seconds=statistics.median(told),
        read_seconds=statistics.median(read),
        ratio=statistics.median(one / other for one, other in zip(told, read, strict=True)),
        rounds=rounds,
    )


def _write(device_path: str, offsets: Sequence[int], size_bytes: int) -> None:
    """Something at each of these places, past the page cache."""
    descriptor = os.open(device_path, os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, size_bytes) as block:
            block.write(os.urandom(size_bytes))
            for offset in offsets:
                os.pwrite(descriptor, block, offset)
    finally:
        os.close(descriptor)


def _read_seconds(device_path: str, size_bytes: int) -> float:
    descriptor = os.open(device_path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK_BYTES) as block:
            started = time.monotonic()
            for offset in range(0, size_bytes, BLOCK_BYTES):
                if os.preadv(descriptor, [block], offset) != BLOCK_BYTES:
                    raise BenchError(f"{device_path} ends at {offset}")
            return time.monotonic() - started
    finally:
        os.close(descriptor)


@contextmanager
def _active(name: str) -> Iterator[str]:
    ran("lvchange", "--activate", "y", "--ignoreactivationskip", name)
    try:
        yield f"/dev/{name}"
    finally:
        ran("lvchange", "--activate", "n", name)


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")


def main(words: Sequence[str] | None = None) -> int:
    """Measure on the disks that the command line names."""
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("disks", nargs="+", metavar="DISK", help="blank, together a third larger than the volume")
    parser.add_argument("--gib", type=int, default=10, help="of the volume (10)")
    parser.add_argument("--percent", type=int, default=1, help="of it that is written again (1)")
    parser.add_argument("--rounds", type=int, default=5, help="(5)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args(words)
    if not is_root():
        parser.error("LVM needs root")
    size_bytes = options.gib * GIB
    policy = ThinPoolPolicy(name="pool0", overprovision_ratio=Fraction(4), create_size_bytes=size_bytes * 5 // 4)
    thin = DeviceClass(name=THIN, type=DeviceType.THIN, volume_groups=(GROUP,), thin_pool=policy)
    with volume_group(options.disks), tempfile.TemporaryDirectory() as notes:
        assembly = assemble(backends(Subprocesses(), debts=Debts(Path(notes))))
        assembly.agent.configure([thin])
        result = measured(assembly.agent, size_bytes, options.percent, options.rounds)
        assembly.stop(60)
    if options.output == "json":
        sys.stdout.write(f"{json.dumps(asdict(result))}\n")
    else:
        sys.stdout.write(
            f"{human_bytes(result.volume_bytes)}, of which {human_bytes(result.changed_bytes)} changed "
            f"in {result.ranges} ranges\n"
            f"told in {result.told_seconds:.3f} s, read in {result.read_seconds:.3f} s, "
            f"ratio {result.ratio:.4f} (medians of {result.rounds})\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
