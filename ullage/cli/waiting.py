"""Waiting for what takes its time: the driver answers soon, with how far it is, and is asked the same again.

A call that is given up ends nothing: the driver goes on, and whoever repeats the command waits for the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import TypeVar

from ullage.csi_client import Driver, driver_at
from ullage.rpc_client import NO_ANSWER, CallFailedError

STEP_SECONDS = 10.0
"""How long the driver may keep us before it tells how far it is."""
PAUSE_SECONDS = 0.5
"""Between two questions; a driver that is at it may answer at once."""
GOES_ON = frozenset({"ABORTED", "DEADLINE_EXCEEDED"})
"""The codes of CSI that mean: it is in progress, ask again."""

Answer = TypeVar("Answer")


def until_done(options: argparse.Namespace, call: Callable[[Driver, float], Answer]) -> Answer:
    """The answer of `call(driver, timeout_seconds)`, asked for again while the driver says that it is under way.

    Each new sentence of the driver's goes to standard error. Raises CallFailedError, with the last sentence once
    `--timeout` is over.
    """
    deadline = time.monotonic() + options.timeout
    told = ""
    while True:
        left = deadline - time.monotonic()
        try:
            with driver_at(options.csi_endpoint) as driver:
                return call(driver, min(STEP_SECONDS, max(left, PAUSE_SECONDS)))
        except CallFailedError as refusal:
            if refusal.code not in GOES_ON:
                raise
            failure = refusal
        if deadline - time.monotonic() <= PAUSE_SECONDS:
            raise CallFailedError(
                f"{failure} (that was after {options.timeout:g} s; the same command again goes on waiting)",
                code=failure.code,
            ) from failure
        if str(failure) not in (told, NO_ANSWER):
            told = str(failure)
            sys.stderr.write(f"{told}\n")
            sys.stderr.flush()
        time.sleep(PAUSE_SECONDS)
