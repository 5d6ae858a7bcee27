"""A real agent process that fills a copy and is killed at one of its steps.

  CONFIG COPY SOURCE SIZE_BYTES AT

AT counts the steps of files, programs and copies from 0. Exit code 3: nothing ended it.
"""

from __future__ import annotations

from pathlib import Path

from tests.contract.faults import Disturbed, Fate, begun, kill_myself
from tests.contract.sites import wanted
from ullage.config import load
from ullage.model import VolumeId

SURVIVED = 3


def main(config: Path, copy: VolumeId, source: VolumeId, size_bytes: int, at: int) -> int:
    fate = Fate(kill_myself)
    disturbed = Disturbed(change=fate, files=fate, copies=fate)
    agent = begun(disturbed.assembly(), load(config).device_classes).agent
    fate.doom(at, is_after=True)
    agent.create(wanted(copy, size_bytes, source=source))
    return SURVIVED
