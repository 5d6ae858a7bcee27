"""A real agent process that asks itself for one thing and dies in the middle of it.

  CONFIG SITE DEED AT END

AT counts the deed's inner steps from 0. END is `kill after` (SIGKILL), `exit after` (os._exit), or `kill during`: AT
then counts programs, and that one has been started and goes on without us. Exit code 3: nothing ended it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tests.contract.deeds import ALL
from tests.contract.faults import Disturbed, Fate, T, begun, kill_myself
from tests.contract.sites import SITES
from ullage.config import load
from ullage.run import ENVIRONMENT

EXITED, SURVIVED = 9, 3


def exit_at_once() -> NoReturn:
    os._exit(EXITED)


class DeathDuring:
    """Starts the program as `ullage.run` does, and dies while it runs."""

    def __init__(self, at: int) -> None:
        self._left, self.is_armed = at, False

    def __call__(self, step: str, act: Callable[[], T], /) -> T:
        if not self.is_armed or self._left > 0:
            self._left -= self.is_armed
            return act()
        pipe = subprocess.PIPE
        subprocess.Popen(
            shlex.split(step),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=ENVIRONMENT,
            start_new_session=True,
            restore_signals=False,
        )
        return kill_myself()


def main(config: Path, site: str, deed: str, at: int, end: str) -> int:
    fate, during = Fate(exit_at_once if end == "exit after" else kill_myself), DeathDuring(at)
    disturbed = Disturbed(change=during if end == "kill during" else fate, files=fate, wipes=fate)
    agent = begun(disturbed.assembly(), load(config).device_classes).agent
    if end == "kill during":
        during.is_armed = True
    else:
        fate.doom(at, is_after=True)
    ALL[deed].ask(agent, SITES[site])
    return SURVIVED
