"""A real agent process that takes a group snapshot and is killed in the middle of it.

  SITE FOLDER AT before|after

AT counts, from 0, the programs that change something, the freezes and the thaws. Exit code 3: there is no such step.
"""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path

from node_agent.holds import FREEZE, Holds
from tests.contract.faults import Fate, kill_myself
from tests.contract.group_scene import TAKE, Scene
from tests.contract.sites import SITES

SURVIVED = 3


def main(site: str, folder: Path, at: int, when: str) -> int:
    fate = Fate(kill_myself)
    scene = Scene(SITES[site], folder)
    assembly = scene.begun(fate)

    def ioctl(descriptor: int, request: int, argument: int) -> object:
        step = "freeze" if request == FREEZE else "thaw"
        return fate(step, lambda: fcntl.ioctl(descriptor, request, argument))

    assembly.agent._ground.holds = Holds(scene.debts, ioctl)
    fate.doom(at, is_after=when == "after")
    assembly.agent.snapshot_group(TAKE)
    sys.stdout.write(f"{fate.steps}\n")
    return SURVIVED
