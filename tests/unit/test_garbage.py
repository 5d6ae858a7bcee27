"""The garbage collector beside much that stays."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from ullage import garbage
from ullage.garbage import SparedOf

ENOUGH = 10.0


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + ENOUGH
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_nothing_is_searched_while_all_is_read_and_what_was_read_never_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "ASIDE_SECONDS", 0.01)
    is_loaded = False
    with SparedOf(lambda: is_loaded):
        assert not gc.isenabled()
        held = [[number] for number in range(1000)]
        is_loaded = True
        wait_until(gc.isenabled)
        aside = gc.get_freeze_count()
        assert aside > len(held)
        held += [[number] for number in range(1000)]
        wait_until(lambda: gc.get_freeze_count() > aside + 1000)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_who_ends_before_all_is_read_leaves_things_as_they_were() -> None:
    with SparedOf(lambda: False):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
