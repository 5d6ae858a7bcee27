"""The file backend never takes a volume from under its user. Every use here is real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.host.file_rig import MIB, Rig, ran
from ullage.errors import VolumeInUseError
from ullage.model import Volume, VolumeState


def refused(rig: Rig, volume: Volume, *words: str) -> None:
    """Neither step takes it, the sentence says why, and afterwards all is as before."""
    before = rig.record().read_bytes()
    for step in (rig.backend.condemn, rig.backend.remove):
        with pytest.raises(VolumeInUseError) as refusal:
            step(volume)
        for word in words:
            assert word in str(refusal.value)
    assert rig.record().read_bytes() == before
    assert rig.image().exists()
    now = rig.volume()
    assert (now.state, now.device_path, now.is_active) == (VolumeState.READY, volume.device_path, True)
    assert ran("losetup", "--list", "--noheadings", "--output", "AUTOCLEAR", now.device_path).strip() == "0"


@pytest.fixture
def volume(rig: Rig) -> Volume:
    """With a file system."""
    volume = rig.create(mib=16)
    ran("mkfs.ext4", "-q", volume.device_path)
    return volume


def test_a_mounted_volume_is_refused_with_the_mount_point(rig: Rig, root: Path, volume: Volume) -> None:
    place = root / "a place"
    place.mkdir()
    ran("mount", volume.device_path, str(place))
    assert rig.volume().is_open
    refused(rig, volume, f"mounted on {place}")
    ran("umount", str(place))
    assert not rig.volume().is_open
    rig.backend.condemn(volume)


def test_a_volume_mounted_in_another_namespace_is_refused(rig: Rig, root: Path, volume: Volume) -> None:
    place = root / "elsewhere"
    place.mkdir()
    script = 'mount --make-rprivate / && mount "$1" "$2" && echo mounted && exec cat'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, "sh", volume.device_path, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mounted\n"
        refused(rig, volume, "another namespace")
        assert other.stdin is not None
        other.stdin.close()
    rig.backend.condemn(volume)


def test_a_volume_that_some_process_has_open_is_refused_and_stays_open(rig: Rig, volume: Volume) -> None:
    descriptor = os.open(volume.device_path, os.O_RDWR)
    try:
        refused(rig, volume, "open in some process")
        os.pwrite(descriptor, b"still mine", 8 * MIB)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    assert rig.volume() == volume  # its last user is gone, and the device is not
    rig.backend.condemn(volume)
    rig.backend.remove(volume)
    assert rig.loops() == []


def test_a_published_block_device_is_refused_with_its_place(rig: Rig, root: Path, volume: Volume) -> None:
    place = root / "published"
    place.touch()
    ran("mount", "--bind", volume.device_path, str(place))
    assert rig.volume().is_open
    refused(rig, volume, f"published as {place}")


def test_an_image_that_another_hand_attached_in_part_is_refused(rig: Rig, volume: Volume) -> None:
    ran("losetup", "--find", "--offset", str(MIB), str(rig.image()))
    refused(rig, volume, "attached by somebody else")


def test_an_image_unlinked_under_a_mount_is_refused(rig: Rig, root: Path, volume: Volume) -> None:
    place = root / "mounted"
    place.mkdir()
    ran("mount", volume.device_path, str(place))
    rig.image().unlink()
    for step in (rig.backend.condemn, rig.backend.remove):
        with pytest.raises(VolumeInUseError):
            step(volume)
    assert rig.record().exists()
    ran("umount", str(place))
    rig.backend.remove(volume)
    assert rig.names() == {".ullage.json"}
    assert rig.loops() == []


def test_a_device_that_was_detached_under_its_user_is_made_to_stay(rig: Rig, root: Path, volume: Volume) -> None:
    place = root / "mounted"
    place.mkdir()
    ran("mount", volume.device_path, str(place))
    ran("losetup", "--detach", volume.device_path)
    rig.activate("a")
    ran("umount", str(place))
    assert rig.volume() == volume
