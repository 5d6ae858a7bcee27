"""On files, on this machine: how many requests a second, how much memory, and what one slow mkfs costs the others.

Clients are processes of their own, so that one Python is not measured by the speed of another one's threads; on a
machine whose processors they have to share with the driver, eight of them measure that, too.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.driver import Client, Driver, client_of, staging_of, target_of
from bench.lvm_rig import BenchError, Memory
from ullage.errors import MIB
from ullage.pb.csi.v1 import csi_pb2 as pb

SIZE_BYTES = 16 * MIB
MANY = 8
START_SECONDS = 1.5
"""For the slowest client to have begun."""
HELD_SECONDS = 60.0
"""For the slow mkfs to have begun."""
READS: dict[str, Callable[[Client, str, str], object]] = {
    "Probe": lambda client, _volume, _place: client.identity.Probe(pb.ProbeRequest()),
    "GetCapacity": lambda client, _volume, _place: client.controller.GetCapacity(
        pb.GetCapacityRequest(
            parameters={"ullage.io/device-class": "file"},
            accessible_topology=pb.Topology(segments={"ullage.io/node": "bench"}),
        )
    ),
    "NodeGetVolumeStats": lambda client, volume, place: client.node.NodeGetVolumeStats(
        pb.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=place)
    ),
    "ListVolumes": lambda client, _volume, _place: client.controller.ListVolumes(pb.ListVolumesRequest()),
}
WITH_ALL = "ListVolumes"
"""Grows with the volumes: it is asked for when all of them are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What else is there."""

    volumes: int
    mounted: int
    """Of these; each is two mounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of one call, by so many clients."""

    name: str
    clients: int
    there: Crowd
    per_second: float
    p50_seconds: float
    p99_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Memory beside so many volumes."""

    moment: str
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Volumes brought all at once, in seconds: the one that came last, and half of them. All but one that was held."""

    is_one_slow: bool
    others: int
    last_seconds: float
    median_seconds: float


def configuration(folder: Path) -> str:
    """A class of files, and one whose mkfs reads a list of bad blocks from a pipe: it waits for a writer."""
    return f"""
deviceClasses:
  - {{name: file, type: file, directory: {folder}/volumes, sparse: true}}
  - {{name: slow, type: file, directory: {folder}/volumes, sparse: true, mkfsOptions: {{ext4: ["-l", {pipe(folder)}]}}}}
"""


def pipe(folder: Path) -> Path:
    """What the slow mkfs reads."""
    return folder / "pipe"


def fill(driver: Driver, folder: Path, numbers: range, *, mounted: bool) -> None:
    """Make these volumes, eight at a time, and mount them if so."""

    def one(number: int) -> None:
        with client_of(driver.endpoint) as client:
            if mounted:
                client.bring(volume_of(number), "file", SIZE_BYTES, folder)
            else:
                client.create(volume_of(number), "file", SIZE_BYTES)

    with ThreadPoolExecutor(MANY) as threads:
        list(threads.map(one, numbers))


def empty(driver: Driver, folder: Path, numbers: range) -> None:
    """Take these volumes away."""

    def one(number: int) -> None:
        with client_of(driver.endpoint) as client:
            client.take_away(volume_of(number), folder)

    with ThreadPoolExecutor(MANY) as threads:
        list(threads.map(one, numbers))


def volume_of(number: int) -> str:
    """Its id."""
    return f"pvc-{number:08d}-0000-4000-8000-000000000000"


def rates(driver: Driver, folder: Path, names: Sequence[str], there: Crowd, seconds: float) -> list[Rate]:
    """Each of these calls, by one client and by MANY."""
    found = []
    volume = volume_of(there.mounted - 1)  # the last of the mount table
    place = str(target_of(folder, volume))
    with ProcessPoolExecutor(MANY, multiprocessing.get_context("spawn")) as processes:
        for name in names:
            for clients in (1, MANY):
                begin = time.monotonic() + START_SECONDS
                question = _Question(name=name, volume=volume, place=place, begin=begin, end=begin + seconds)
                asked = [processes.submit(_asked, driver.endpoint, question) for _ in range(clients)]
                spent = sorted(each for future in asked for each in future.result())
                found.append(
                    Rate(
                        name=name,
                        clients=clients,
                        there=there,
                        per_second=len(spent) / seconds,
                        p50_seconds=statistics.median(spent),
                        p99_seconds=spent[len(spent) * 99 // 100],
                    )
                )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What one client asks, again and again. Moments are the kernel's monotonic clock's: the same in all processes."""

    name: str
    volume: str
    place: str
    begin: float
    end: float


def _asked(endpoint: str, question: _Question) -> list[float]:
    """Seconds of each call."""
    with client_of(endpoint) as client:
        ask = READS[question.name]
        ask(client, question.volume, question.place)
        if time.monotonic() > question.begin:
            raise BenchError("the clients take too long to begin")
        time.sleep(question.begin - time.monotonic())
        spent: list[float] = []
        before = time.monotonic()
        while before < question.end:
            ask(client, question.volume, question.place)
            after = time.monotonic()
            spent.append(after - before)
            before = after
        return spent


def beside(driver: Driver, folder: Path, *, others: int, is_one_slow: bool, round_name: str) -> Beside:
    """Create and stage one volume, whose mkfs is held if so, and all at once the others."""
    names = [f"{round_name}-{number}" for number in range(others)]
    one = f"{round_name}-one"
    with client_of(driver.endpoint) as client, ThreadPoolExecutor(others + 1) as threads:
        first = threads.submit(_created_and_staged, client, one, "slow" if is_one_slow else "file", folder)
        if is_one_slow:
            _wait_until_held(pipe(folder))
        begun = time.monotonic()
        began = [threads.submit(_created_and_staged, client, name, "file", folder) for name in names]
        try:
            seconds = [each.result() - begun for each in began]
        finally:
            if is_one_slow:
                pipe(folder).write_bytes(b"")
        first.result()
        for name in (*names, one):
            client.take_away(name, folder)
    return Beside(
        is_one_slow=is_one_slow, others=others, last_seconds=max(seconds), median_seconds=statistics.median(seconds)
    )


def _created_and_staged(client: Client, volume_id: str, device_class: str, folder: Path) -> float:
    client.create(volume_id, device_class, SIZE_BYTES)
    client.stage(volume_id, staging_of(folder, volume_id))
    return time.monotonic()


def _wait_until_held(what_it_reads: Path) -> None:
    """Until there is a program with this path among its arguments."""
    deadline = time.monotonic() + HELD_SECONDS
    wanted = os.fsencode(what_it_reads)
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if wanted in process.read_bytes().split(b"\0"):
                    return
        time.sleep(0.01)
    raise BenchError("the slow mkfs does not begin")
