"""The check of the data tests finds whatever can be wrong: else they would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.csi.writer import RECORD_BYTES, RING_BYTES, SLOTS, LostError, Writer, check, record

RUN, OTHER = b"this run........", b"another run....."
NUMBERS = st.integers(0, 3 * SLOTS)


def ring(last: int) -> bytearray:
    """What there is when this many records are durable, and none is under way."""
    held = bytearray(RING_BYTES)
    for number in range(max(1, last - SLOTS + 1), last + 1):
        put(held, number, record(RUN, number))
    return held


def put(held: bytearray, number: int, content: bytes) -> None:
    start = number % SLOTS * RECORD_BYTES
    held[start : start + len(content)] = content


@settings(max_examples=25)
@given(NUMBERS)
def test_every_moment_is_known_again(last: int) -> None:
    assert check(bytes(ring(last)), RUN, durable=last, begun=last) == last
    assert check(bytes(ring(last)), RUN, durable=max(0, last - 5), begun=last + 5) == last


@settings(max_examples=25)
@given(NUMBERS, st.integers(0, RECORD_BYTES))
def test_the_record_under_way_may_be_anything_and_no_other(last: int, done: int) -> None:
    held = ring(last)
    put(held, last + 1, record(RUN, last + 1)[:done])
    found = check(bytes(held), RUN, durable=last, begun=last + 1)
    assert found == (last + 1 if done == RECORD_BYTES else last)
    if last > SLOTS and 32 < done < RECORD_BYTES:
        with pytest.raises(LostError, match="no whole record"):
            check(bytes(held), RUN, durable=last, begun=last)


def _flipped(held: bytearray, number: int) -> None:
    held[number % SLOTS * RECORD_BYTES + RECORD_BYTES // 2] ^= 1


def _gone(held: bytearray, number: int) -> None:
    put(held, number, bytes(RECORD_BYTES))


def _older(held: bytearray, number: int) -> None:
    put(held, number, record(RUN, number - SLOTS) if number > SLOTS else bytes(RECORD_BYTES))


def _newer(held: bytearray, number: int) -> None:
    put(held, number, record(RUN, number + SLOTS))


def _anothers(held: bytearray, number: int) -> None:
    put(held, number, record(OTHER, number))


def _half(held: bytearray, number: int) -> None:
    put(held, number, record(RUN, number + SLOTS)[: RECORD_BYTES // 2])


def _elsewhere(held: bytearray, number: int) -> None:
    put(held, number, record(RUN, number - 1) if number > 1 else bytes(RECORD_BYTES))


HARM = (_flipped, _gone, _older, _newer, _anothers, _half, _elsewhere)


@pytest.mark.parametrize("harm", HARM)
@settings(max_examples=25)
@given(last=st.integers(1, 3 * SLOTS), back=st.integers(0, SLOTS - 2))
def test_one_record_that_is_not_as_it_was_is_found(
    harm: Callable[[bytearray, int], None], last: int, back: int
) -> None:
    number = max(1, last - back)
    held = ring(last)
    harm(held, number)
    with pytest.raises(LostError):
        check(bytes(held), RUN, durable=last, begun=last + 3)


def test_a_ring_that_is_cut_short_is_found() -> None:
    held = bytes(ring(2 * SLOTS))
    for size in (0, RECORD_BYTES, RING_BYTES - RECORD_BYTES, RING_BYTES - 1):
        with pytest.raises(LostError):
            check(held[:size], RUN, durable=2 * SLOTS, begun=2 * SLOTS)


def test_what_is_too_old_or_too_new_is_found() -> None:
    held = bytes(ring(200))
    for durable, begun in ((201, 300), (100, 199)):
        with pytest.raises(LostError, match="newest record is 200"):
            check(held, RUN, durable=durable, begun=begun)


def test_a_writer_says_what_it_does_and_does_what_it_says(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "ring", tmp_path)
    try:
        for _ in range(5):
            writer.wait_for(SLOTS // 3)
            with writer.paused():
                writer.checked(writer.path, durable=writer.durable, begun=writer.begun)
        writer.stop()
        assert writer.checked(writer.path, durable=writer.durable, begun=writer.begun) > SLOTS
    finally:
        writer.kill()


def test_a_writer_that_cannot_write_is_told(tmp_path: Path) -> None:
    (tmp_path / "ring").mkdir()
    writer = Writer(tmp_path / "ring", tmp_path)
    try:
        with pytest.raises(AssertionError, match="Is a directory"):
            writer.wait_for(1)
    finally:
        writer.kill()
