"""What is not blank is refused by name over the socket, for a mount, and not one byte of it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from grpc import StatusCode

from csi.fs.probe import BLUESTORE
from tests.contract.sites import Site
from tests.csi.drivers import HereServed
from tests.csi.kubelet import MIB, Kubelet, mounted, ran, refusal_of
from tests.host.fs_rig import GIB, Disk
from tests.host.test_fs_foreign import FOREIGN
from tests.host.test_wipe import Loop

pytestmark = pytest.mark.only_on("file")
SEVERAL = (
    "crypto_LUKS at 0",
    "LVM2_member",
    "linux_raid_member 1.2",
    "gpt",
    "dos",
    "ext3",
    "swap",
)
WORDS = {"gpt": "gpt partition table", "dos": "dos partition table"}


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_foreign_content_is_refused_by_name_and_left_as_it_is(
    site: Site, services: HereServed, kubelet: Kubelet, fs_type: str
) -> None:
    for number, name in enumerate(SEVERAL):
        size, make = FOREIGN[name]
        size_bytes = -(-max(size, 320 * MIB) // site.step_bytes) * site.step_bytes
        disk = _disk(services, f"pvc-{number}", size_bytes)
        make(Loop(disk.path, disk.file, disk.size))
        _is_refused(kubelet, f"pvc-{number}", fs_type, disk, WORDS.get(name, name.split(maxsplit=1)[0]))
        services.client.delete(f"pvc-{number}")


@pytest.mark.parametrize("offset", [0, GIB])
def test_a_ceph_osd_is_refused_and_left_as_it_is(services: HereServed, kubelet: Kubelet, offset: int) -> None:
    disk = _disk(services, "pvc-a", GIB + 64 * MIB)
    disk.put(offset, BLUESTORE + b"0123\n")
    _is_refused(kubelet, "pvc-a", "ext4", disk, "bluestore" if offset == 0 else "BlueStore")
    # Given back and made again it is blank: the class says discard.
    services.client.delete("pvc-a")
    services.client.create("pvc-a", 64 * MIB)
    kubelet.stage("pvc-a")


def _disk(services: HereServed, volume_id: str, size_bytes: int) -> Disk:
    services.client.create(volume_id, size_bytes)
    volume = next(each for each in services.assembly.agent.volumes() if each.id == volume_id)
    backing = ran("losetup", "--noheadings", "--output", "BACK-FILE", volume.device_path).strip()
    return Disk(volume.device_path, Path(backing))


def _is_refused(kubelet: Kubelet, volume_id: str, fs_type: str, disk: Disk, word: str) -> None:
    os.sync()
    before = disk.digest()
    code, sentence = refusal_of(lambda: kubelet.stage(volume_id, mounted(fs_type)))
    assert (code, word in sentence) == (StatusCode.FAILED_PRECONDITION, True), sentence
    os.sync()
    assert disk.digest() == before
    assert kubelet.mounts() == ()
