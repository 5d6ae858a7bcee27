"""When a thick snapshot is given more room, how much, and what the thread does with what cannot grow."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.tending import Tending, wanted_bytes
from ullage.capacity import cow_step_bytes, whole_cow_bytes
from ullage.errors import MIB
from ullage.model import (
    DeviceClassName,
    DeviceType,
    PoolName,
    Problem,
    Share,
    SnapshotPolicy,
    StoreName,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)

EXTENT, SIZE_BYTES = 4 * MIB, 400 * MIB
WHOLE_BYTES = 404 * MIB
TENTH = SnapshotPolicy(size_percent=10, grow_at_percent=70)
STEP_BYTES = 44 * MIB
LONG_SECONDS = 60.0


def snapshot(has_bytes: int, used_percent: float | None) -> Volume:
    return Volume(
        id=VolumeId("s-1"),
        kind=VolumeKind.SNAPSHOT,
        source=VolumeId("pvc-a"),
        pool=PoolName("vg0"),
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        device_class=DeviceClassName("fast"),
        size_bytes=SIZE_BYTES,
        device_size_bytes=SIZE_BYTES,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        device_path="/dev/vg0/s-1",
        taken=(Share(physical_volume="/dev/vda", size_bytes=has_bytes),),
        used_percent=used_percent,
    )


@pytest.mark.parametrize(
    ("has_bytes", "used_percent", "wanted"),
    [
        (STEP_BYTES, 0.0, STEP_BYTES),
        (STEP_BYTES, 69.99, STEP_BYTES),
        (STEP_BYTES, 70.0, 2 * STEP_BYTES),
        (STEP_BYTES, 100.0, 2 * STEP_BYTES),
        (9 * STEP_BYTES, 70.0, WHOLE_BYTES),
        (WHOLE_BYTES, 100.0, WHOLE_BYTES),
        (STEP_BYTES, None, STEP_BYTES),
    ],
)
def test_it_grows_by_its_step_when_its_class_says_so_and_never_past_all(
    has_bytes: int, used_percent: float | None, wanted: int
) -> None:
    assert wanted_bytes(snapshot(has_bytes, used_percent), TENTH, EXTENT) == wanted


def test_what_has_overflowed_is_given_nothing() -> None:
    lost = replace(snapshot(STEP_BYTES, 100.0), problem=Problem(reason="SnapshotOverflowed", message=""))
    assert wanted_bytes(lost, TENTH, EXTENT) == STEP_BYTES


@given(st.integers(1, 100), st.integers(1, 95), st.integers(1, 200))
def test_a_writer_that_fills_what_there_is_meets_all_the_room_in_the_end(percent: int, grow_at: int, size: int) -> None:
    policy = SnapshotPolicy(size_percent=percent, grow_at_percent=grow_at)
    volume = replace(snapshot(0, float(grow_at)), size_bytes=size * EXTENT)
    has_bytes, rounds = cow_step_bytes(policy, EXTENT, volume.size_bytes), 0
    while (more := wanted_bytes(_with(volume, has_bytes), policy, EXTENT)) > has_bytes:
        has_bytes, rounds = more, rounds + 1
    assert has_bytes == whole_cow_bytes(EXTENT, volume.size_bytes)
    assert rounds <= -(-100 // percent)


def test_the_thread_goes_on_after_a_failure_warns_once_of_each_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    times = []
    is_enough = threading.Event()

    def tend() -> frozenset[VolumeId]:
        times.append(1)
        if len(times) == 1:
            raise RuntimeError
        if len(times) == 4:
            is_enough.set()
        return frozenset({VolumeId("s-1")})

    tending = Tending(tend, poll_seconds=0.001)
    with caplog.at_level(logging.WARNING):
        tending.start()
        assert is_enough.wait(LONG_SECONDS)
        tending.stop()
    assert [record.message for record in caplog.records] == ["tending failed", "no room for a snapshot that fills"]


def test_a_thread_that_never_began_ends_at_once() -> None:
    Tending(frozenset).stop()


def _with(volume: Volume, has_bytes: int) -> Volume:
    return replace(volume, taken=(Share(physical_volume="/dev/vda", size_bytes=has_bytes),))
