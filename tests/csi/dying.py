"""A real driver process that kills itself with SIGKILL at one program that it runs.

  --die before "resize2fs" --config FILE --csi-endpoint unix:///path.sock
  --die after "mkfs.ext4" …

It is put together as `ullage standalone` is, around another runner.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from csi.calls import Calls
from tests.contract.faults import Disturbed, T, begun, kill_myself
from tests.csi.drivers import served
from ullage.config import load
from ullage.logs import Form, set_up


class Death:
    """Ends the process before or after the first changing program whose words contain `word`."""

    def __init__(self, when: str, word: str) -> None:
        self._is_before, self._word = when == "before", word

    def __call__(self, step: str, act: Callable[[], T], /) -> T:
        if self._word not in step:
            return act()
        if not self._is_before:
            act()
        return kill_myself()


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die", nargs=2, metavar=("WHEN", "WORD"), required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--csi-endpoint", required=True)
    options, _ = parser.parse_known_args(words)
    set_up("info", Form.JSON)
    disturbed = Disturbed(change=Death(*options.die))
    assembly = begun(disturbed.assembly(), load(options.config).device_classes)
    server = served(assembly, Calls(), disturbed, options.csi_endpoint)
    sys.stdout.write('"serving"\n')
    sys.stdout.flush()
    signal.pause()
    server.stop(0)
