"""What can happen to the programs of a cluster: they are killed, they hang, they forget.

A fault is over when every program is there again and serves; how the others take it is what a test is about.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from tests.cluster.scene import Cluster, until
from tests.rigs.cluster.control_plane import API_SERVER, ETCD
from tests.rigs.cluster.ours import Ours
from tests.rigs.cluster.process import Process

Fault: TypeAlias = Callable[[Cluster, int, random.Random], str]
"""Does it for the n-th time, and says what it was."""

MOST_AWAY_SECONDS = 3.0
MOST_HUNG_SECONDS = 12.0
ALL_AT_ONCE = 4
"""Every so many rounds all of several are killed, not one of them."""


def kill_controller(scene: Cluster, _number: int, dice: random.Random) -> str:
    """The only one; its sidecars end with it, as they are made, and come again."""
    return _killed(scene.controllers, dice)


def kill_agents(scene: Cluster, number: int, dice: random.Random) -> str:
    """One node's after the other's, and sometimes all of them."""
    agents = [node.agent for node in scene.nodes.values()]
    return _killed(agents if number % ALL_AT_ONCE == 0 else [agents[number % len(agents)]], dice)


def kill_api_server(scene: Cluster, _number: int, dice: random.Random) -> str:
    return _killed_and_started(scene, API_SERVER, dice)


def kill_etcd(scene: Cluster, _number: int, dice: random.Random) -> str:
    """Beneath an API server that goes on."""
    return _killed_and_started(scene, ETCD, dice)


def forget(scene: Cluster, number: int, dice: random.Random) -> str:
    """Every watch is answered with 410: what its reader has seen last is forgotten. Each of our processes hears it.

    Sometimes the API server hangs first, with all its connections open.
    """
    ours = processes(scene)
    before = [_times_forgotten(each) for each in ours]
    said = ""
    if number % ALL_AT_ONCE == 0:
        away_seconds = dice.uniform(1, MOST_HUNG_SECONDS)
        process = scene.plane.process(API_SERVER)
        process.signal(signal.SIGSTOP)
        time.sleep(away_seconds)
        process.signal(signal.SIGCONT)
        said = f"{API_SERVER} hung for {away_seconds:.1f} s; "
    scene.plane.kill(API_SERVER)
    scene.plane.compact()
    scene.plane.start(API_SERVER)
    until(
        lambda: all(_times_forgotten(each) > times for each, times in zip(ours, before, strict=True)),
        lambda: f"{before}, {list(map(_times_forgotten, ours))} times forgotten",
    )
    return f"{said}{API_SERVER} killed, history compacted"


def kill_one_of_two(scene: Cluster, number: int, dice: random.Random) -> str:
    """Of two controllers that both do everything at once."""
    both = number % ALL_AT_ONCE == 0
    return _killed(scene.controllers if both else [scene.controllers[number % len(scene.controllers)]], dice)


def processes(scene: Cluster) -> list[Process]:
    """Our own."""
    return [each.process for each in (*scene.controllers, *(node.agent for node in scene.nodes.values()))]


def _times_forgotten(process: Process) -> int:
    return process.log.read_text(encoding="utf-8").count("the history was forgotten")


def _killed(victims: Sequence[Ours], dice: random.Random) -> str:
    for each in victims:
        each.process.kill()
    away_seconds = _away(dice)
    with ThreadPoolExecutor() as together:
        list(together.map(lambda each: each.process.start(), victims))
    return f"{', '.join(each.process.name for each in victims)} killed, away for {away_seconds:.1f} s"


def _killed_and_started(scene: Cluster, name: str, dice: random.Random) -> str:
    scene.plane.kill(name)
    away_seconds = _away(dice)
    scene.plane.start(name)
    return f"{name} killed, away for {away_seconds:.1f} s"


def _away(dice: random.Random) -> float:
    """Half of the time it is back at once."""
    seconds = max(0.0, dice.uniform(-MOST_AWAY_SECONDS, MOST_AWAY_SECONDS))
    time.sleep(seconds)
    return seconds
