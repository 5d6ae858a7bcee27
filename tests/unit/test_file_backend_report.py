"""What a directory's entries and the loop devices mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace as with_fields

from node_agent.backends.file.directory import Entry, Image, Room
from node_agent.backends.file.loops import Loop
from node_agent.backends.file.records import Record
from node_agent.backends.file.report import EXTENT_BYTES, Scene
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Owner,
    StoreName,
    VolumeId,
    VolumeState,
    Wipe,
)

MIB = 1 << 20
CLASS = DeviceClass(name=DeviceClassName("files"), type=DeviceType.FILE, directory="/volumes")
RECORD = Record(
    id=VolumeId("a"),
    device_class=CLASS.name,
    size_bytes=16 * MIB,
    state=VolumeState.READY,
    wipe=Wipe.NONE,
    is_sparse=True,
    owner=Owner(),
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)
IMAGE = Image(size_bytes=16 * MIB, own_bytes=4 * MIB, device=1, inode=2)
LOOP = Loop(
    path="/dev/loop3",
    major=7,
    minor=3,
    size_bytes=16 * MIB,
    file_path="/volumes/a.img",
    file=(1, 2),
    is_whole=True,
    is_leaving=False,
    holders=(),
)
SCENE = Scene(
    name=StoreName("/volumes"),
    classes=(CLASS,),
    is_marked=True,
    room=Room(total_bytes=100 * MIB, available_bytes=50 * MIB),
    entries=(Entry(id=VolumeId("a"), record=RECORD, image=IMAGE),),
    loops=(LOOP,),
    users=lambda _: (),
)


def with_record(record: Record, image: Image | None = IMAGE) -> Scene:
    return replace(SCENE, entries=(Entry(id=record.id, record=record, image=image),))


def test_free_is_what_is_there_without_what_is_promised_and_reserved_in_whole_extents() -> None:
    assert SCENE.free_bytes == 36 * MIB  # 50 - 12 promised, down to 4 MiB
    assert replace(SCENE, classes=(replace(CLASS, reserve_bytes=10 * MIB),)).free_bytes == 28 * MIB


def test_a_volume_being_grown_is_promised_its_new_size_and_one_being_made_what_it_has() -> None:
    growing = with_fields(RECORD, state=VolumeState.GROWING, old_size_bytes=16 * MIB, size_bytes=32 * MIB)
    assert with_record(growing).free_bytes == 20 * MIB
    creating = with_fields(RECORD, state=VolumeState.CREATING)
    assert with_record(creating).free_bytes == with_record(RECORD).free_bytes
    assert with_record(creating, None).free_bytes == 48 * MIB


def test_a_volume_being_deleted_is_promised_nothing() -> None:
    assert with_record(with_fields(RECORD, state=VolumeState.DELETING)).free_bytes == 48 * MIB


@given(
    available=some.integers(0, 1 << 45),
    reserve=some.integers(0, 1 << 45),
    size=some.integers(1, 1 << 45),
    allocated=some.integers(0, 1 << 45),
)
def test_free_is_never_negative_and_never_more_than_there_is(
    available: int, reserve: int, size: int, allocated: int
) -> None:
    scene = replace(
        with_record(with_fields(RECORD, size_bytes=size), replace(IMAGE, own_bytes=allocated)),
        room=Room(total_bytes=1 << 46, available_bytes=available),
        classes=(replace(CLASS, reserve_bytes=reserve),),
    )
    assert 0 <= scene.free_bytes <= max(0, available - reserve)
    assert scene.free_bytes % EXTENT_BYTES == 0


def test_the_size_is_the_devices_and_not_the_files_or_the_records() -> None:
    (volume,) = replace(SCENE, loops=(replace(LOOP, size_bytes=12 * MIB),)).report().volumes
    assert (volume.size_bytes, volume.device_size_bytes) == (12 * MIB, 12 * MIB)


def test_a_device_on_part_of_an_image_is_not_the_volumes_device() -> None:
    (volume,) = replace(SCENE, loops=(replace(LOOP, is_whole=False),)).report().volumes
    assert (volume.is_active, volume.device_path) == (False, "")


def test_a_volume_is_open_when_any_device_on_its_image_is_used() -> None:
    other = replace(LOOP, path="/dev/loop4", minor=4, is_whole=False)
    used = replace(SCENE, loops=(LOOP, other), users=lambda loop: ("held",) if loop == other else ())
    (volume,) = used.report().volumes
    assert (volume.is_open, volume.device_path) == (True, "/dev/loop3")


def test_a_half_made_or_half_deleted_volume_without_an_image_is_no_orphan() -> None:
    for state in (VolumeState.CREATING, VolumeState.DELETING):
        report = with_record(with_fields(RECORD, state=state), None).report()
        assert report.orphans == ()
        assert (report.volumes[0].state, report.volumes[0].problem, report.volumes[0].size_bytes) == (state, None, 0)
