"""What the agent shows of changes, its own and others', without its slow refresh: in the VM, on real LVM and udev.

No test says how soon: bench does. Each waits for what must show, and gives up after a time that no machine needs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pytest

from node_agent import reporter
from node_agent.assembly import Assembly, assemble, backends
from node_agent.reporter import MOST_SECONDS
from node_agent.udev import BlockEvents
from tests.contract.sites import DISKS, GROUP, LvmSite, run, wanted
from ullage.errors import MIB
from ullage.metrics import command_label
from ullage.model import DeleteVolume, Pool, PoolName, VolumeId, Wipe
from ullage.run import Finished, Subprocesses

A_DAY = 86400.0
GIVE_UP_SECONDS = 60.0
QUIET_SECONDS = 3.0
"""Nothing has run for so long: whatever was wished for has been done."""
SIZE_BYTES = 8 * MIB
BURST = 20


class Counting:
    """A Runner that counts what it runs, by verb."""

    def __init__(self) -> None:
        self.runs: Counter[str] = Counter()
        self._real = Subprocesses()

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        self.runs[command_label(argv)] += 1
        return self._real.look(argv, timeout_seconds=timeout_seconds, stdin=stdin, accepted=accepted, into=into)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        self.runs[command_label(argv)] += 1
        return self._real.change(argv, stdin=stdin, accepted=accepted)


@dataclass(frozen=True, kw_only=True)
class Node:
    """An agent that hears the kernel's events and refreshes once a day, over a group on all disks but the last."""

    assembly: Assembly
    counting: Counting

    def pool(self) -> Pool:
        return next(pool for pool in self.assembly.agent.pools() if pool.name == PoolName(GROUP))

    def ids(self) -> set[str]:
        return {volume.id for volume in self.assembly.agent.volumes()}

    def comes_to_show(self, what: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        version = -1
        while not what() and time.monotonic() < deadline:
            version = self.assembly.agent.wait_for_change(version, 1.0)
        return what()

    def at_rest(self) -> Counter[str]:
        """What has run, once nothing more comes."""
        while True:
            run("udevadm", "settle")
            before = self.counting.runs.copy()
            time.sleep(QUIET_SECONDS)
            if self.counting.runs == before:
                return before


@pytest.fixture
def node() -> Iterator[Node]:
    site = LvmSite("thick")
    site.set_up()
    run("vgreduce", "--quiet", GROUP, DISKS[-1])
    counting = Counting()
    assembly = assemble(backends(counting), refresh_seconds=A_DAY)
    events = BlockEvents(assembly.reporter.heard, assembly.reporter.wish_everything)
    try:
        events.start()
        assembly.agent.configure([site.device_class(Wipe.NONE)])
        assembly.agent.recover()
        assembly.reporter.start()
        node = Node(assembly=assembly, counting=counting)
        node.at_rest()
        yield node
    finally:
        events.stop()
        assembly.stop(GIVE_UP_SECONDS)
        site.tear_down()


def test_a_group_extended_and_reduced_by_hand_shows(node: Node) -> None:
    before = node.pool().total_bytes
    run("vgextend", GROUP, DISKS[-1])
    assert node.comes_to_show(lambda: node.pool().total_bytes > before)
    assert DISKS[-1] in {each.name for each in node.pool().physical_volumes}
    run("vgreduce", GROUP, DISKS[-1])
    assert node.comes_to_show(lambda: node.pool().total_bytes == before)


def test_room_taken_and_given_back_by_hand_shows(node: Node) -> None:
    free = node.pool().free_bytes
    run("lvcreate", "--yes", "--name", "theirs", "--size", "64m", GROUP)
    assert node.comes_to_show(lambda: node.pool().free_bytes == free - 64 * MIB)
    run("lvremove", "--yes", f"{GROUP}/theirs")
    assert node.comes_to_show(lambda: node.pool().free_bytes == free)


def test_a_volume_of_ours_removed_by_hand_goes(node: Node) -> None:
    node.assembly.agent.create(wanted("ours", SIZE_BYTES))
    node.at_rest()
    assert node.ids() == {"ours"}
    run("lvremove", "--yes", f"{GROUP}/ours")
    assert node.comes_to_show(lambda: not node.ids())


def test_a_change_by_hand_between_our_own_shows(node: Node) -> None:
    free = node.pool().free_bytes
    node.assembly.agent.create(wanted("before", SIZE_BYTES))
    run("lvcreate", "--yes", "--name", "theirs", "--size", "64m", GROUP)
    node.assembly.agent.create(wanted("after", SIZE_BYTES))
    assert node.comes_to_show(lambda: node.pool().free_bytes == free - 64 * MIB - 2 * SIZE_BYTES)


def test_a_burst_of_creates_costs_far_fewer_reports(node: Node) -> None:
    before = node.at_rest()
    started = time.monotonic()
    for number in range(BURST):
        node.assembly.agent.create(wanted(f"v{number}", SIZE_BYTES))
    seconds = time.monotonic() - started
    runs = node.at_rest() - before
    assert set(runs) == {"lvcreate", "fullreport"}
    assert runs["lvcreate"] == BURST
    # One for each time that the limit of patience was reached, however slow the machine; the rest is the beginning and
    # the end.
    assert runs["fullreport"] <= seconds / MOST_SECONDS + 2


def test_a_create_and_a_delete_cost_their_command_and_one_report(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # A busy machine hears of a command later than half a second after its end, and that would be another burst.
    monkeypatch.setattr(reporter, "QUIET_SECONDS", QUIET_SECONDS * 2 / 3)
    monkeypatch.setattr(reporter, "MOST_SECONDS", QUIET_SECONDS * 2)
    before = node.at_rest()
    node.assembly.agent.create(wanted("one", SIZE_BYTES))
    created = node.at_rest()
    node.assembly.agent.delete(DeleteVolume(volume_id=VolumeId("one")))
    assert created - before == {"lvcreate": 1, "fullreport": 1}
    assert node.at_rest() - created == {"lvremove": 1, "fullreport": 1}


def test_reading_runs_nothing(node: Node) -> None:
    node.assembly.agent.create(wanted("one", SIZE_BYTES))
    before = node.at_rest()
    for _ in range(BURST):
        node.assembly.agent.get(VolumeId("one"))
        node.assembly.agent.volumes()
        node.assembly.agent.pools()
    assert node.at_rest() == before
