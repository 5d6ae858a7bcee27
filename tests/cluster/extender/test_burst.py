"""Two hundred Pods with volumes, all at once, onto twenty nodes that have room for exactly so many.

ULLAGE_FAULT_ROUNDS: how often what is left to chance is done. ULLAGE_FAULT_SEED: what chance is.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter

import pytest

from tests.cluster.extender.crowd import NODES, ROOMS, SECOND, Crowd, why_pending
from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.scene import WAIT_SECONDS, until
from tests.cluster.things import EVENTS, SELECTED_NODE
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.sidecars import PROVISIONER

ROUNDS = int(os.environ.get("ULLAGE_FAULT_ROUNDS", "1"))
SEED = int(os.environ.get("ULLAGE_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
ROOM, ROOM_OF_BOTH = 10 * NODES, 38 * NODES // 5
PATIENCE_SECONDS = 240.0
"""For a burst, on a machine that does other things besides."""
BESIDE_SECONDS = 60.0
"""What is only printed does not get longer: some of it never ends."""
AWAY_SECONDS = 2.0
REPLACED = 60
FEW = ROOM // 100
"""A claim can go just as its node was chosen, before anybody has seen that; its volume is made all the same."""
NUMBERS = re.compile(r"needs .*, .* free")
WHY = re.compile(rf"{NUMBERS.pattern}|not have enough free storage")
"""kube-scheduler's own check has no numbers, and is asked first; the extender has them for who asks it."""


def names(count: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_the_nodes_have_room_for_so_many_and_no_more(crowd: Crowd) -> None:
    assert [crowd.room(*each) for each in (("fast",), ("bulk",), ("fast", "bulk"))] == [ROOM, ROOM, ROOM_OF_BOTH]


def test_as_many_pods_as_there_is_room_for_all_get_it_and_no_volume_is_ordered_where_there_is_none(
    crowd: Crowd,
) -> None:
    outcome = crowd.measured(lambda: crowd.burst(names(ROOM)), ROOM, PATIENCE_SECONDS)
    print(f"\nwith the extender: {outcome}")
    assert (outcome.placed, outcome.refused) == (ROOM, 0), crowd.why_not()


@pytest.mark.parametrize(("storage_classes", "room"), [(["fast"], ROOM), (["fast", "bulk"], ROOM_OF_BOTH)])
def test_what_becomes_of_the_same_without_an_extender_is_told(
    crowd: Crowd, storage_classes: list[str], room: int
) -> None:
    crowd.ask_extender(is_asked=False)
    try:
        outcome = crowd.measured(lambda: crowd.burst(names(room), storage_classes), room, BESIDE_SECONDS)
    finally:
        crowd.ask_extender()
    print(f"\nwithout it, {' and '.join(storage_classes)}: {outcome} (of {room}, at most {BESIDE_SECONDS:.0f} s)")


def test_of_more_pods_than_there_is_room_for_the_rest_wait_with_numbers_and_nobody_makes_way(crowd: Crowd) -> None:
    """Two kube-schedulers bring them in turn; neither is told of the other."""
    more = 20

    def come() -> None:
        crowd.burst(names(ROOM // 2))
        crowd.burst(names(ROOM // 2 + more, "q"), schedulerName=SECOND)

    outcome = crowd.measured(come, ROOM, PATIENCE_SECONDS)
    assert (outcome.placed, outcome.refused) == (ROOM, 0), crowd.why_not()
    until(lambda: all(map(WHY.search, crowd.unscheduled().values())), crowd.unscheduled)
    waiting = crowd.unscheduled()
    assert len(waiting) == more
    explained = crowd.explained(next(iter(waiting)))
    assert NUMBERS.search(explained), explained
    assert f"0 of {NODES} nodes fit" in explained
    print(f"\n{next(iter(waiting.values()))}")
    assert len(crowd.scene.objects.items(PODS)) == ROOM + more
    told = Counter(each["reason"] for each in crowd.scene.objects.items(EVENTS))
    assert not told["Preempted"]
    gone = [pod["metadata"]["name"] for pod in crowd.placed()[::10]]
    assert len(gone) == more
    crowd.delete(*gone)
    crowd.wait_placed(ROOM, PATIENCE_SECONDS)
    assert crowd.unscheduled() == {}


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_pods_with_two_volumes_each_all_get_both_although_the_extender_dies_meanwhile(
    crowd: Crowd, round_: int
) -> None:
    dice = random.Random(SEED + round_)  # noqa: S311 - the same faults again with the same seed
    at = dice.randrange(ROOM_OF_BOTH // 10, ROOM_OF_BOTH // 2)

    def come() -> None:
        crowd.burst(names(ROOM_OF_BOTH), ["fast", "bulk"], schedulerName=SECOND)
        crowd.wait_placed(at, PATIENCE_SECONDS)
        crowd.extender.process.kill()
        time.sleep(AWAY_SECONDS)
        crowd.extender.process.start()

    outcome = crowd.measured(come, ROOM_OF_BOTH, PATIENCE_SECONDS)
    print(f"\nkilled after {at} of them: {outcome}")
    assert outcome.placed == ROOM_OF_BOTH, crowd.why_not()


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_while_pods_come_and_go_at_random_all_that_stay_are_placed(crowd: Crowd, round_: int) -> None:
    dice = random.Random(SEED + round_)  # noqa: S311 - the same again with the same seed

    def come() -> None:
        there = names(ROOM)
        crowd.burst(there)
        for number in range(REPLACED // 4):
            some = dice.sample(there, 4)
            crowd.delete(*some)
            instead = [f"{each}-{number}" for each in some]
            crowd.burst(instead)
            there = [each for each in there if each not in some] + instead

    outcome = crowd.measured(come, ROOM, PATIENCE_SECONDS)
    print(f"\n{REPLACED} of them replaced, seed {SEED}: {outcome}")
    assert outcome.placed == ROOM, crowd.why_not()
    assert outcome.refused <= FEW, crowd.why_not()
    assert [why_pending(pod) for pod in crowd.scene.objects.items(PODS) if not pod["spec"].get("nodeName")] == []


def test_a_claim_that_goes_before_it_is_ordered_keeps_nobody_waiting_for_its_room(crowd: Crowd) -> None:
    """That it will not be ordered is no news that kube-scheduler hears: it would look again after five minutes."""
    room = ROOMS[0][0]
    alone = {"kubernetes.io/hostname": "n00"}
    crowd.burst(names(room - 1), nodeSelector=alone)
    crowd.wait_placed(room - 1)
    refused = crowd.refused()
    provisioners = [each.process(PROVISIONER) for each in crowd.scene.sidecars]
    for each in provisioners:
        each.signal(signal.SIGSTOP)
    try:
        crowd.burst(["gone"], nodeSelector=alone)
        crowd.scene.objects.until(f"{CLAIMS}/gone-fast", _is_chosen, WAIT_SECONDS)
        crowd.delete("gone")
        crowd.scene.objects.until_gone(f"{CLAIMS}/gone-fast", WAIT_SECONDS)
        crowd.burst(["next"], nodeSelector=alone)
        crowd.scene.objects.until(f"{CLAIMS}/next-fast", _is_chosen, WAIT_SECONDS)
    finally:
        for each in provisioners:
            each.kill()  # what is started in its stead never hears of the claim
    crowd.wait_placed(room)
    assert crowd.refused() == refused


def _is_chosen(claim: Json) -> bool:
    return SELECTED_NODE in claim["metadata"].get("annotations", {})
