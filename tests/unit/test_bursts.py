"""Bursts, played through: however late a choice becomes visible, no room is given away twice, and none is left unused.

The player is kube-scheduler (it takes any node it is offered, or none), the API server (what was chosen is seen in any
order, later), external-provisioner and the agents. Requests that wait are woken by the next thing that becomes visible;
when nothing more can, their time is up.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_extender.objects import Claim
from scheduler_extender.offers import MOMENT_SECONDS, OFFERED_SECONDS
from scheduler_extender.wire import Pod
from tests.unit.placing_doubles import Scene, pod, thick
from ullage.errors import GIB
from ullage.kube.logical_volume import LogicalVolume, Phase


class Turns(threading.Condition):
    """A condition on which nobody sleeps: who waits has the next thing happen."""

    def __init__(self, happens: Callable[[], bool]) -> None:
        super().__init__(threading.RLock())
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        return self._happens()


class Burst:
    """So many Pods of one to three volumes onto a few nodes."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a player's dice
        self.scene = Scene(patience_seconds=1.0)
        self.scene.view.changed = Turns(self.happens)
        self.gib = {f"n{number}": self.dice.randrange(5, 40) for number in range(self.dice.randrange(1, 6))}
        for name, gib in self.gib.items():
            self.scene.node(name, thick("vg0", gib))
        self.wants: dict[str, list[int]] = {}
        self.pods: dict[str, Pod] = {}
        self.placed: dict[str, str] = {}
        """Pods by node, from the moment of the choice on, whoever knows of it."""
        self.invisible: list[Callable[[], object]] = []
        for number in range(self.dice.randrange(1, 25)):
            self.arrives(f"p{number}")

    def arrives(self, name: str) -> None:
        self.wants[name] = [self.dice.randrange(1, 12) for _ in range(self.dice.choice((1, 1, 1, 2, 3)))]
        self.pods[name] = self.scene.pod(name, *[f"{each}Gi" for each in self.wants[name]])

    def plays(self) -> None:
        """Until every Pod was tried, and once more each that has no node."""
        waiting = list(self.pods)
        for _ in range(3):
            self.dice.shuffle(waiting)
            for name in waiting:
                self.schedules(name)
                while self.invisible and self.dice.random() < 0.4:
                    self.happens()
                if not self.invisible and self.dice.random() < 0.1:
                    self.scene.decisions = self.scene.restarted()
                self.scene.clock.now += self.dice.random() / 10
            waiting = [name for name in waiting if name in self.pods and name not in self.placed]
        while self.happens():
            self.is_never_too_much()

    def schedules(self, name: str) -> None:
        """One cycle of kube-scheduler; sometimes another of its plugins says no afterwards, or the Pod is deleted."""
        names = self.dice.sample(sorted(self.gib), self.dice.randrange(1, len(self.gib) + 1))
        fitting = self.scene.fitting(self.pods[name], names)
        if not fitting or self.dice.random() < 0.15:
            return
        if self.dice.random() < 0.05:
            self.scene.view.drop(Pod, ("default", name))
            del self.pods[name]
            return
        self.placed[name] = node = self.dice.choice(fitting)
        self.is_never_too_much()
        for number, gib in enumerate(self.wants[name]):
            self.invisible.append(partial(self.is_seen, f"{name}-{number}", node, gib))

    def is_seen(self, claim: str, node: str, gib: int) -> None:
        """The choice; later the order, and the binding, in any order."""
        self.scene.choose(claim, node)
        self.invisible.append(lambda: self.scene.order(claim, node, gib * GIB))
        if self.dice.random() < 0.5:
            self.invisible.append(lambda: self.scene.bind(claim))

    def happens(self) -> bool:
        """One of the things that are not visible yet becomes so."""
        if not self.invisible:
            return False
        self.invisible.pop(self.dice.randrange(len(self.invisible)))()
        return True

    def is_never_too_much(self) -> None:
        for node, gib in self.gib.items():
            assert self.taken(node) <= gib, f"{node} has {gib} GiB: {self.placed}, {self.wants}"

    def taken(self, node: str) -> int:
        return sum(sum(self.wants[name]) for name, where in self.placed.items() if where == node)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(min_value=0, max_value=1 << 32))
def test_no_room_is_given_away_twice(seed: int) -> None:
    Burst(seed).plays()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(min_value=0, max_value=1 << 32))
def test_whoever_fits_is_placed_in_the_end(seed: int) -> None:
    burst = Burst(seed)
    burst.plays()
    burst.scene.clock.now += OFFERED_SECONDS
    for name in [name for name in burst.pods if name not in burst.placed]:
        burst.scene.clock.now += 2 * MOMENT_SECONDS
        fitting = burst.scene.fitting(burst.pods[name], sorted(burst.gib))
        room = [node for node in burst.gib if burst.gib[node] - burst.taken(node) >= sum(burst.wants[name])]
        assert fitting == room
        if fitting:
            burst.placed[name] = fitting[0]
            for number in range(len(burst.wants[name])):
                burst.scene.choose(f"{name}-{number}", fitting[0])


@pytest.mark.parametrize(("pods", "slots"), [(200, 200), (220, 200)])
def test_a_burst_onto_nodes_that_hold_just_so_many(pods: int, slots: int) -> None:
    """Twenty nodes; each Pod is seen to be placed only some Pods later."""
    scene = Scene(patience_seconds=1.0)
    late: list[tuple[str, str]] = []

    def happens() -> bool:
        if not late:
            return False
        scene.choose(*late.pop(0))
        return True

    scene.view.changed = Turns(happens)
    nodes = scene.nodes(*[slots // 20] * 20)
    dice = random.Random(1)  # noqa: S311 - a player's dice
    placed: dict[str, str] = {}
    for name in [f"p{number}" for number in range(pods)]:
        fitting = scene.fitting(scene.pod(name, "1Gi"), nodes)
        if not fitting:
            continue
        placed[name] = dice.choice(fitting)
        late.append((f"{name}-0", placed[name]))
        while len(late) > 12:
            happens()
    assert len(placed) == slots
    assert all(list(placed.values()).count(node) == slots // 20 for node in nodes)


def test_a_volume_that_is_carved_and_gone_again_leaves_its_room() -> None:
    """The whole way of one claim, twice."""
    scene = Scene()
    scene.nodes(10)
    for round_ in range(2):
        wanted = scene.pod(f"a{round_}", "10Gi")
        assert scene.fitting(wanted, ["n1"]) == ["n1"]
        scene.choose(f"a{round_}-0", "n1")
        scene.order(f"a{round_}-0", "n1", 10 * GIB)
        scene.bind(f"a{round_}-0")
        scene.order(f"a{round_}-0", "n1", 10 * GIB, phase=Phase.READY, revision=11 + round_)
        scene.node("n1", thick("vg0", 0), revision=11 + round_)
        assert scene.fitting(scene.pod("b", "1Gi"), ["n1"]) == []
        scene.view.drop(Claim, ("default", f"a{round_}-0"))
        scene.view.drop(LogicalVolume, ("", f"pvc-uid-of-a{round_}-0"))
        scene.node("n1", thick("vg0", 10), revision=20 + round_)
    assert scene.fitting(pod("b", "b-0"), ["n1"]) == ["n1"]
