"""Which devices LVM may read, from a made-up /sys/class/block."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_agent.backends.lvm.devices import candidates


class Sysfs:
    """Devices as files: `add("loop0", loop/backing_file="/x")`; partitions lie in their disk's directory."""

    def __init__(self, root: Path) -> None:
        self.block = root / "class/block"
        self._devices = root / "devices"
        self.block.mkdir(parents=True)

    def add(self, name: str, size: str = "2048", disk: str = "", **attributes: str) -> None:
        place = self._devices / disk / name
        for attribute, value in {"size": size, **attributes}.items():
            path = place / attribute
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n", encoding="utf-8")
        (self.block / name).symlink_to(place)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path / "sys")


def test_disks_and_partitions_are_candidates_by_name(sysfs: Sysfs) -> None:
    sysfs.add("vdb")
    sysfs.add("nvme0n1")
    sysfs.add("nvme0n1p1", disk="nvme0n1")
    sysfs.add("md0")
    sysfs.add("cciss!c0d0")
    assert candidates((), sysfs.block) == ("/dev/cciss/c0d0", "/dev/md0", "/dev/nvme0n1", "/dev/nvme0n1p1", "/dev/vdb")


@pytest.mark.parametrize("name", ["ram0", "zram0", "sr0", "fd0", "nbd3"])
def test_kinds_that_may_block_a_reader_are_left_out(sysfs: Sysfs, name: str) -> None:
    sysfs.add(name)
    assert candidates((), sysfs.block) == ()


@pytest.mark.parametrize("size", ["0", ""])
def test_a_device_without_a_size_is_left_out(sysfs: Sysfs, size: str) -> None:
    sysfs.add("loop0", size=size)
    assert candidates((), sysfs.block) == ()


def test_a_device_that_goes_while_we_look_is_left_out(sysfs: Sysfs) -> None:
    (sysfs.block / "vdb").symlink_to(sysfs.block / "nowhere")
    assert candidates((), sysfs.block) == ()


def test_a_logical_volume_is_never_looked_into(sysfs: Sysfs) -> None:
    """A guest's volume group in one of our volumes belongs to the guest."""
    sysfs.add("dm-0", **{"dm/uuid": "LVM-2kqz5fOqvU1xbd8eHhAtyYYYY", "dm/suspended": "0"})
    assert candidates((), sysfs.block) == ()


def test_other_mapped_devices_are_candidates_unless_suspended(sysfs: Sysfs) -> None:
    """A reader of a suspended device hangs for good."""
    sysfs.add("dm-0", **{"dm/uuid": "mpath-3600508b", "dm/suspended": "0"})
    sysfs.add("dm-1", **{"dm/uuid": "CRYPT-LUKS2-x", "dm/suspended": "1"})
    assert candidates((), sysfs.block) == ("/dev/dm-0",)


def test_a_loop_device_over_a_volume_of_ours_is_left_out(sysfs: Sysfs) -> None:
    sysfs.add("loop0", **{"loop/backing_file": "/data/ullage/pvc-1.img"})
    sysfs.add("loop1", **{"loop/backing_file": "/data/ullage-of-another/disk.img"})
    sysfs.add("loop2", **{"loop/backing_file": "/data/ullage/pvc-2.img (deleted)"})
    for directory in ("/data/ullage", "/data/ullage/"):
        assert candidates(["/elsewhere", directory], sysfs.block) == ("/dev/loop1",)


def test_a_partition_of_such_a_loop_device_is_left_out(sysfs: Sysfs) -> None:
    sysfs.add("loop0", **{"loop/backing_file": "/data/ullage/pvc-1.img"})
    sysfs.add("loop0p1", disk="loop0")
    assert candidates(["/data/ullage"], sysfs.block) == ()


def test_a_directory_behind_a_link_is_known_by_its_real_name(sysfs: Sysfs, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    sysfs.add("loop0", **{"loop/backing_file": f"{tmp_path}/data/pvc-1.img"})
    assert candidates([f"{tmp_path}/link"], sysfs.block) == ()
