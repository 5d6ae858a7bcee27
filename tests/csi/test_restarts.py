"""The driver ends, in good order or not, while volumes are in use: nothing is lost, nothing is doubled, all goes on."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.contract.faults import until
from tests.contract.sites import Site
from tests.csi import dying
from tests.csi.drivers import SMALL_BYTES, XFS_BYTES, Driver, can_grow_ext4
from tests.csi.kubelet import LONG_SECONDS, Kubelet, code_of, mounted, ran
from ullage.model import Wipe

pytestmark = pytest.mark.only_on("file", "thick")
KEPT = b"written before the driver died\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_mounted_volumes_outlive_the_driver_and_the_next_one_knows_them(
    site: Site, driver: Driver, kubelet: Kubelet, number: signal.Signals
) -> None:
    for volume_id in ("pvc-a", "pvc-b"):
        kubelet.client.create(volume_id, SMALL_BYTES)
    staging, target = kubelet.stage("pvc-a"), kubelet.publish("pvc-a", "pod")
    kubelet.stage_block("pvc-b")
    device = kubelet.publish_block("pvc-b", "pod")
    read_only = kubelet.publish_block("pvc-b", "reader", is_read_only=True)
    places = kubelet.places()
    with (target / "file").open("wb") as file:
        file.write(KEPT)
        assert driver.end(number) == (0 if number is signal.SIGTERM else -signal.SIGKILL)
        file.write(KEPT)  # the Pod goes on
        file.flush()
        os.fsync(file.fileno())
        assert kubelet.places() == places
        driver.start()
    assert kubelet.client.is_ready()
    assert kubelet.client.ids() == ["pvc-a", "pvc-b"]
    assert site.truth().sizes == {"pvc-a": SMALL_BYTES, "pvc-b": SMALL_BYTES}
    for _ in range(2):  # kubelet does it all again after its own restart
        kubelet.stage("pvc-a")
        kubelet.publish("pvc-a", "pod")
        kubelet.stage_block("pvc-b")
        kubelet.publish_block("pvc-b", "pod")
        kubelet.publish_block("pvc-b", "reader", is_read_only=True)
    assert kubelet.places() == places
    assert (target / "file").read_bytes() == 2 * KEPT
    assert kubelet.stats("pvc-a", target)["BYTES"].used > 0
    assert kubelet.stats("pvc-b", device)["BYTES"].total == SMALL_BYTES
    assert kubelet.stats("pvc-b", read_only)["BYTES"].total == SMALL_BYTES
    assert code_of(lambda: kubelet.client.delete("pvc-a")) is StatusCode.FAILED_PRECONDITION
    kubelet.unpublish("pvc-a", "pod")
    kubelet.unpublish_block("pvc-b", "pod")
    kubelet.unpublish_block("pvc-b", "reader")
    assert kubelet.places() == [str(staging)]
    kubelet.unstage("pvc-a")
    for volume_id in ("pvc-a", "pvc-b"):
        kubelet.client.delete(volume_id)
    assert (site.truth().sizes, site.leftovers(), kubelet.mounts()) == ({}, [], ())


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", pytest.param("btrfs", marks=pytest.mark.only_on("file"))])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("program", ["mkfs", "mount"])
def test_a_driver_killed_at_mkfs_or_mount_is_followed_by_one_that_stages(  # noqa: PLR0913, PLR0917 - a table
    site: Site, driver: Driver, kubelet: Kubelet, fs_type: str, program: str, when: str
) -> None:
    """After mkfs is between mkfs and mount; after mount is before the answer."""
    word = f"mkfs.{fs_type}" if program == "mkfs" else "mount -t"
    driver.end()
    driver.start("--die", when, word, program=dying.main)
    kubelet.client.create("pvc-a", XFS_BYTES, fs_type=fs_type)
    assert code_of(lambda: kubelet.stage("pvc-a", mounted(fs_type))) is StatusCode.UNAVAILABLE
    assert driver.died() == -signal.SIGKILL
    device = _device(site)
    made = _type(device) == fs_type
    assert made == ((program, when) != ("mkfs", "before"))
    assert len(kubelet.mounts()) == ((program, when) == ("mount", "after"))
    uuid = _uuid(device)
    driver.start()
    kubelet.stage("pvc-a", mounted(fs_type))
    assert len(kubelet.mounts()) == 1
    assert _type(device) == fs_type
    assert not made or _uuid(device) == uuid, "what was made is used, not made again"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_driver_killed_between_the_devices_growth_and_the_file_systems_is_followed_by_one_that_grows_it(
    driver: Driver, kubelet: Kubelet, when: str
) -> None:
    fs_type, program, size = ("ext4", "resize2fs", SMALL_BYTES) if can_grow_ext4() else ("xfs", "xfs_growfs", XFS_BYTES)
    kubelet.client.create("pvc-a", size, fs_type=fs_type)
    capability = mounted(fs_type)
    staging = kubelet.stage("pvc-a", capability)
    (staging / "file").write_bytes(KEPT)
    before = kubelet.stats("pvc-a", staging)["BYTES"].total
    driver.end()
    driver.start("--die", when, program, program=dying.main)
    assert kubelet.client.expand("pvc-a", 2 * size).node_expansion_required
    assert code_of(lambda: kubelet.expand("pvc-a", staging, 2 * size)) is StatusCode.UNAVAILABLE
    assert driver.died() == -signal.SIGKILL
    driver.start()
    assert (kubelet.stats("pvc-a", staging)["BYTES"].total > before) == (when == "after")
    assert kubelet.client.expand("pvc-a", 2 * size).capacity_bytes == 2 * size
    assert kubelet.expand("pvc-a", staging, 2 * size) == 2 * size
    assert kubelet.stats("pvc-a", staging)["BYTES"].total > before + size // 2
    assert (staging / "file").read_bytes() == KEPT


def test_what_was_never_grown_while_mounted_is_grown_at_the_next_stage(driver: Driver, kubelet: Kubelet) -> None:
    """The driver died after ControllerExpandVolume, and so did kubelet's memory of it."""
    kubelet.client.create("pvc-a", XFS_BYTES, fs_type="xfs")
    staging = kubelet.stage("pvc-a", mounted("xfs"))
    before = kubelet.stats("pvc-a", staging)["BYTES"].total
    kubelet.unstage("pvc-a")
    kubelet.client.expand("pvc-a", 2 * XFS_BYTES)
    driver.end(signal.SIGKILL)
    driver.start()
    kubelet.stage("pvc-a", mounted("xfs"))
    assert kubelet.stats("pvc-a", staging)["BYTES"].total > before + XFS_BYTES // 2


@pytest.mark.only_on("thick")  # a machine of our own, to which a slow mkfs can be given
def test_a_driver_that_ends_in_good_order_does_not_wait_for_an_mkfs_nor_break_it(
    driver: Driver, kubelet: Kubelet, folder: Path
) -> None:
    go_on, begun = folder / "go-on", folder / "begun"
    os.mkfifo(go_on)
    slow = Path("/usr/local/sbin/mkfs.ext4")  # before the real one on the driver's PATH
    slow.write_text(f'#!/bin/sh\ntouch {begun}\nread -r word < {go_on}\nexec /usr/sbin/mkfs.ext4 "$@"\n')
    slow.chmod(0o755)
    try:
        kubelet.client.create("pvc-a", SMALL_BYTES)
        with ThreadPoolExecutor(1) as pool:
            code = pool.submit(code_of, lambda: kubelet.stage("pvc-a"))
            until(begun.exists)
            assert driver.end() == 1, "what it leaves behind is told by its exit code"
            assert driver.says("calls outlive the process")
            assert code.result(LONG_SECONDS) in {StatusCode.UNAVAILABLE, StatusCode.CANCELLED}
    finally:
        slow.unlink()
    driver.start()
    go_on.write_text("on\n")
    until(lambda: _type("/dev/vgcontract/pvc-a") == "ext4")
    until(lambda: code_of(lambda: kubelet.stage("pvc-a")) is StatusCode.OK)
    assert len(kubelet.mounts()) == 1


def test_a_second_driver_on_the_same_socket_does_not_start(driver: Driver, kubelet: Kubelet, site: Site) -> None:
    second = Driver(site, driver.folder)
    with pytest.raises(AssertionError, match="another process is serving"):
        second.start()
    assert second.died() == 2
    assert kubelet.client.is_ready()


def test_the_wipe_policy_that_a_volume_was_changed_to_outlives_the_driver(
    site: Site, driver: Driver, kubelet: Kubelet
) -> None:
    volume = kubelet.client.create("pvc-a", SMALL_BYTES)
    kubelet.client.modify("pvc-a", wipe="zero")
    assert _policy(site) == "zero"
    driver.end(signal.SIGKILL)
    driver.start()
    kubelet.client.modify("pvc-a")  # nothing is named: nothing changes
    assert _policy(site) == "zero"
    assert kubelet.client.create("pvc-a", SMALL_BYTES) == volume
    assert _policy(site) == "zero"
    assert kubelet.client.create("pvc-a", SMALL_BYTES, mutable={"wipe": "signatures"}) == volume
    assert _policy(site) == "signatures"
    assert code_of(lambda: kubelet.client.modify("pvc-a", wipe="never")) is StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: kubelet.client.modify("pvc-a", wipes="zero")) is StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: kubelet.client.modify("pvc-x", wipe="zero")) is StatusCode.NOT_FOUND
    assert _policy(site) == "signatures"


def _policy(site: Site) -> str:
    """As it is kept with the only volume."""
    words = {tag.rpartition("=")[2] for tag in site.truth().tags["pvc-a"]}
    (policy,) = words & set(Wipe)
    return policy


def _device(site: Site) -> str:
    """Of the only volume."""
    if site.is_lvm:
        return "/dev/vgcontract/pvc-a"
    lines = ran("losetup", "--noheadings", "--output", "NAME,BACK-FILE").splitlines()
    return next(line.split()[0] for line in lines if line.endswith(f"{site.device_class().directory}/pvc-a.img"))


def _type(device: str) -> str:
    return ran("blkid", "-p", "-s", "TYPE", "-o", "value", device, is_checked=False).strip()


def _uuid(device: str) -> str:
    return ran("blkid", "-p", "-s", "UUID", "-o", "value", device, is_checked=False).strip()
