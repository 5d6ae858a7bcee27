"""A real agent process that fills a copy and is killed at one of its steps.

  python -m tests.contract.filling_and_dying CONFIG COPY SOURCE SIZE_BYTES AT

AT counts the steps of files, programs and copies from 0. Exit code 3: nothing ended it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.contract.faults import Disturbed, Fate, begun, kill_myself
from tests.contract.sites import wanted
from ullage.config import load
from ullage.model import VolumeId

SURVIVED = 3


def main(config: str, copy: str, source: str, size_bytes: str, at: str) -> int:
    fate = Fate(kill_myself)
    disturbed = Disturbed(change=fate, files=fate, copies=fate)
    agent = begun(disturbed.assembly(), load(Path(config)).device_classes).agent
    fate.doom(int(at), is_after=True)
    agent.create(wanted(copy, int(size_bytes), source=VolumeId(source)))
    return SURVIVED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
