"""The writer of the full tier: what it finds in a ring, whatever was cut off, lost or mixed up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.full import writer
from tests.full.writer import RECORD_BYTES, SLOTS, LostError, newest, record

LONG_SECONDS = 60.0


def ring(last: int) -> bytearray:
    """After this record was written."""
    made = bytearray(RECORD_BYTES * SLOTS)
    for number in range(max(1, last - SLOTS + 1), last + 1):
        put(made, number, record(number))
    return made


def put(made: bytearray, number: int, content: bytes) -> None:
    slot = number % SLOTS
    made[slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES] = content


@given(last=st.integers(0, 3 * SLOTS))
def test_a_whole_ring_has_its_newest_record(last: int) -> None:
    assert newest(bytes(ring(last))) == last


@given(last=st.integers(0, 3 * SLOTS), kept=st.integers(0, RECORD_BYTES))
def test_a_record_that_was_cut_off_is_not_there_and_no_loss(last: int, kept: int) -> None:
    made = ring(last)
    old = made[(last + 1) % SLOTS * RECORD_BYTES :][:RECORD_BYTES]
    put(made, last + 1, record(last + 1)[:kept] + bytes(old[kept:]))
    assert newest(bytes(made)) == (last + 1 if kept == RECORD_BYTES else last)


@given(last=st.integers(SLOTS, 3 * SLOTS), back=st.integers(1, SLOTS - 2))
def test_an_older_record_in_a_slot_is_a_loss(last: int, back: int) -> None:
    made = ring(last)
    lost = last - back
    put(made, lost, record(lost - SLOTS) if lost > SLOTS else bytes(RECORD_BYTES))
    with pytest.raises(LostError, match=f"slot {lost % SLOTS} "):
        newest(bytes(made))


@given(last=st.integers(SLOTS, 3 * SLOTS), back=st.integers(0, SLOTS - 2), at=st.integers(0, RECORD_BYTES - 1))
def test_one_wrong_byte_is_a_loss_or_makes_its_record_the_one_under_way(last: int, back: int, at: int) -> None:
    made = ring(last)
    made[(last - back) % SLOTS * RECORD_BYTES + at] ^= 1
    if back == 0:
        assert newest(bytes(made)) == last - 1
    else:
        with pytest.raises(LostError, match="no whole record"):
            newest(bytes(made))


def test_the_program_goes_on_where_it_was_and_ends_when_it_is_told_to(tmp_path: Path) -> None:
    place = tmp_path / "ring"
    first = said(place)
    second = said(place)
    assert first[0] == "begins after 0"
    before = int(second[0].removeprefix("begins after "))
    assert before >= int(first[1].removeprefix("durable "))
    assert int(second[1].removeprefix("durable ")) > before
    checked = subprocess.run([sys.executable, writer.__file__, "check", place], capture_output=True, check=True)
    assert int(checked.stdout) == newest(place.read_bytes())


def test_the_program_does_not_go_on_over_what_is_not_its_own(tmp_path: Path) -> None:
    place = tmp_path / "ring"
    made = ring(10)
    put(made, 5, b"x" * RECORD_BYTES)
    place.write_bytes(made)
    done = subprocess.run([sys.executable, writer.__file__, "write", place], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"LostError: slot 5 has no whole record instead of 5" in done.stderr


def said(place: Path) -> list[str]:
    """What a writer prints until it is ended, after its first durable record was told."""
    argv = [sys.executable, writer.__file__, "write", str(place)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        lines = [running.stdout.readline().strip(), running.stdout.readline().strip()]
        time.sleep(0.3)
        running.terminate()
        lines += running.stdout.read().splitlines()
        assert running.wait(LONG_SECONDS) == 0
    return lines
