"""What holds a thick volume where it is, and which device a snapshot's bytes may be read from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.backends.lvm.cow import reading, who_holds
from ullage.errors import MIB, DeviceError, InvalidRequestError, SnapshotOverflowedError
from ullage.model import (
    DeviceClassName,
    DeviceType,
    PoolName,
    Problem,
    StoreName,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)

ORIGIN = Volume(
    id=VolumeId("pvc-a"),
    pool=PoolName("vg0"),
    store=StoreName("vg0"),
    type=DeviceType.THICK,
    device_class=DeviceClassName("fast"),
    size_bytes=MIB,
    device_size_bytes=MIB,
    state=VolumeState.READY,
    wipe=Wipe.NONE,
    device_path="/dev/vg0/pvc-a",
)
SNAPSHOT = replace(ORIGIN, id=VolumeId("s-1"), kind=VolumeKind.SNAPSHOT, source=ORIGIN.id, dm_uuid="LVM-1")


def test_a_volume_is_held_by_its_own_snapshots_that_are_not_going_already() -> None:
    others = [
        replace(SNAPSHOT, id=VolumeId("s-2"), state=VolumeState.DELETING),
        replace(SNAPSHOT, id=VolumeId("s-3"), source=VolumeId("pvc-b")),
        replace(SNAPSHOT, id=VolumeId("pvc-c"), kind=VolumeKind.VOLUME),
        replace(SNAPSHOT, id=VolumeId("s-5"), store=StoreName("vg1")),
        replace(SNAPSHOT, id=VolumeId("s-6"), type=DeviceType.THIN),
    ]
    assert who_holds(ORIGIN, [ORIGIN, *others]) == ""
    assert who_holds(ORIGIN, [*others, SNAPSHOT, replace(SNAPSHOT, id=VolumeId("s-0"))]).endswith(
        "delete s-0, s-1 first"
    )


def test_what_is_copied_is_held_and_nobody_is_told_to_delete_what_they_do_not_know() -> None:
    frozen = replace(SNAPSHOT, id=VolumeId("f-1"), kind=VolumeKind.FROZEN)
    assert who_holds(ORIGIN, [frozen]) == "is being copied; ask again when that is done"


def test_what_has_overflowed_is_not_opened() -> None:
    lost = replace(SNAPSHOT, problem=Problem(reason="SnapshotOverflowed", message="it holds nothing any more"))
    with pytest.raises(SnapshotOverflowedError, match="s-1: it holds nothing"), reading(lost):
        pass


def test_a_volume_is_not_read_as_a_snapshot() -> None:
    with pytest.raises(InvalidRequestError, match="no thick snapshot"), reading(ORIGIN):
        pass


def test_another_device_in_its_place_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot be opened"), reading(replace(SNAPSHOT, device_path="/dev/no/such")):
        pass
    (file := tmp_path / "file").write_bytes(bytes(MIB))
    with pytest.raises(DeviceError), reading(replace(SNAPSHOT, device_path=str(file))):
        pass
