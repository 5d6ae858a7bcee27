"""Changed blocks as the agent is asked for them: what is refused, and asking again from where an answer ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent import changed_blocks
from node_agent.backends.port import Backend
from node_agent.ground import Ground
from tests.unit.test_lvm_thin_metadata import snapshot
from ullage.errors import (
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    PoolUnavailableError,
    UllageError,
    VolumeNotReadyError,
)
from ullage.model import ByteRange, PoolName, Volume, VolumeId, VolumeKind, VolumeState

SIZE_BYTES = 1000
BASE = replace(snapshot("s-base", SIZE_BYTES), taken_at=100)
TARGET = replace(snapshot("s-target", SIZE_BYTES), taken_at=200)


class Told:
    """A backend that tells these ranges of everything."""

    def __init__(self, ranges: list[ByteRange]) -> None:
        self._ranges = ranges

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:  # noqa: ARG002
        return iter(self._ranges)

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:  # noqa: ARG002
        return iter(self._ranges)


class Node:
    """What `changed_blocks` needs of a Ground."""

    def __init__(self, *volumes: Volume, ranges: list[ByteRange] | None = None, is_readable: bool = True) -> None:
        self._volumes = {each.id: each for each in volumes}
        self._backend, self._is_readable = Told(ranges or []), is_readable

    def get(self, volume_id: VolumeId) -> Volume:
        if volume_id not in self._volumes:
            raise NotFoundError("not there")
        return self._volumes[volume_id]

    def readable(self, volume: Volume) -> Backend:
        if not self._is_readable:
            raise PoolUnavailableError(volume.store)
        return cast("Backend", self._backend)


def changed(node: Node, start_bytes: int = 0, base: str = "s-base", target: str = "s-target") -> list[ByteRange]:
    answer = changed_blocks.changed(cast("Ground", node), VolumeId(base), VolumeId(target), start_bytes)
    return list(answer.ranges)


def refusal_of(ask: Callable[[], object]) -> type[UllageError] | None:
    try:
        ask()
    except UllageError as refused:
        return type(refused)
    return None


@pytest.mark.parametrize(
    ("base", "target", "expected"),
    [
        (BASE, TARGET, None),
        (BASE, replace(TARGET, taken_at=100), None),
        (BASE, replace(TARGET, taken_at=99), InvalidRequestError),
        (BASE, replace(TARGET, source=VolumeId("pvc-b")), InvalidRequestError),
        (replace(BASE, source=None), replace(TARGET, source=None), InvalidRequestError),
        (BASE, replace(TARGET, pool=PoolName("vg-0/other")), InvalidRequestError),
        (BASE, replace(TARGET, kind=VolumeKind.VOLUME), InvalidRequestError),
        (replace(BASE, kind=VolumeKind.FROZEN), TARGET, InvalidRequestError),
        (replace(BASE, state=VolumeState.DELETING), TARGET, VolumeNotReadyError),
        (BASE, replace(TARGET, state=VolumeState.CREATING), VolumeNotReadyError),
    ],
)
def test_two_snapshots_of_one_volume_in_their_order_are_compared(
    base: Volume, target: Volume, expected: type[UllageError] | None
) -> None:
    assert refusal_of(lambda: changed(Node(base, target))) is expected


def test_what_is_not_there_or_cannot_be_read_is_told_apart() -> None:
    assert refusal_of(lambda: changed(Node(BASE))) is NotFoundError
    assert refusal_of(lambda: changed(Node(BASE, TARGET, is_readable=False))) is PoolUnavailableError


@pytest.mark.parametrize("start_bytes", [-1, SIZE_BYTES + 1])
def test_a_start_outside_of_the_volume_is_out_of_range(start_bytes: int) -> None:
    node = Node(BASE, TARGET)
    assert refusal_of(lambda: changed(node, start_bytes)) is OutOfRangeError
    ask = lambda: changed_blocks.allocated(cast("Ground", node), BASE.id, start_bytes)  # noqa: E731
    assert refusal_of(ask) is OutOfRangeError


RANGES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=20)


@given(RANGES, st.data())
def test_an_answer_that_was_cut_off_anywhere_is_gone_on_with(
    pieces: list[tuple[int, int]], data: st.DataObject
) -> None:
    ranges, at = [], 0
    for gap, size in pieces:
        ranges.append(ByteRange(offset_bytes=at + gap, size_bytes=size))
        at += gap + size
    node = Node(BASE, TARGET, ranges=ranges)
    start = data.draw(st.integers(0, SIZE_BYTES))
    told = changed(node, start)
    assert _bytes(told) == [place for place in _bytes(ranges) if place >= start]
    if told:
        first = told[0]
        assert changed(node, first.offset_bytes + first.size_bytes) == told[1:]


def _bytes(ranges: list[ByteRange]) -> list[int]:
    return [place for each in ranges for place in range(each.offset_bytes, each.offset_bytes + each.size_bytes)]
