"""As kubelet does it: staged, published, asked again and again, and taken away, from a real driver over its socket."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from grpc import StatusCode

from csi.fs import readonly_loops
from tests.contract.sites import Site
from tests.csi.drivers import SMALL_BYTES, XFS_BYTES, Driver, can_grow_ext4
from tests.csi.kubelet import READER, RWO, RWOP, Kubelet, block, code_of, mounted, ran, refusal_of
from ullage.errors import MIB

REFUSED = StatusCode.FAILED_PRECONDITION
EVERYWHERE = pytest.mark.only_on("file", "thick", "thin")

pytestmark = [pytest.mark.usefixtures("driver"), pytest.mark.only_on("file", "thick")]


@EVERYWHERE
def test_a_volume_lives_through_everything_a_kubelet_asks_twice(site: Site, kubelet: Kubelet) -> None:
    volume = kubelet.client.create("pvc-a", SMALL_BYTES)
    assert (volume.volume_id, volume.capacity_bytes) == ("pvc-a", SMALL_BYTES)
    assert dict(volume.accessible_topology[0].segments) == {"ullage.io/node": "here"}
    kubelet.unpublish("pvc-a", "never")
    kubelet.unstage("pvc-a")
    staging = kubelet.stage("pvc-a")
    target = kubelet.publish("pvc-a", "pod-a")
    (target / "file").write_text("kept")
    for _ in range(10):
        kubelet.stage("pvc-a")
        kubelet.publish("pvc-a", "pod-a")
    assert kubelet.places() == sorted([str(staging), str(target)])
    usage = kubelet.stats("pvc-a", target)
    assert 0 < usage["BYTES"].available <= usage["BYTES"].total <= SMALL_BYTES
    assert usage["INODES"].used >= 1

    other = kubelet.publish("pvc-a", "pod-b")
    assert (other / "file").read_text() == "kept"
    kubelet.unpublish("pvc-a", "pod-a")
    assert code_of(lambda: kubelet.client.delete("pvc-a")) is REFUSED
    kubelet.unpublish("pvc-a", "pod-a")
    kubelet.unpublish("pvc-a", "pod-b")
    kubelet.unpublish("pvc-a", "pod-b")
    assert code_of(lambda: kubelet.client.delete("pvc-a")) is REFUSED
    assert site.truth().sizes == {"pvc-a": SMALL_BYTES}
    assert (staging / "file").read_text() == "kept"

    assert kubelet.client.expand("pvc-a", 2 * SMALL_BYTES).node_expansion_required
    if can_grow_ext4():
        for _ in range(2):
            assert kubelet.expand("pvc-a", staging, 2 * SMALL_BYTES) == 2 * SMALL_BYTES
        assert kubelet.stats("pvc-a", staging)["BYTES"].total > SMALL_BYTES
    kubelet.unstage("pvc-a")
    kubelet.unstage("pvc-a")
    assert kubelet.mounts() == ()
    kubelet.client.delete("pvc-a")
    kubelet.client.delete("pvc-a")
    assert site.truth().sizes == {}
    assert site.leftovers() == []


@EVERYWHERE
def test_a_block_volume_lives_through_the_same_and_kubelets_lock(site: Site, kubelet: Kubelet) -> None:
    kubelet.client.create("pvc-a", SMALL_BYTES)
    kubelet.unpublish_block("pvc-a", "never")
    kubelet.unstage_block("pvc-a")
    kubelet.stage_block("pvc-a")
    for _ in range(10):
        target = kubelet.publish_block("pvc-a", "pod-a")
    assert kubelet.places() == [str(target)]
    link = kubelet.map_block("pvc-a", "pod-a")
    with link.open("r+b", buffering=0) as device:
        assert device.write(b"kept" * 1024) == 4096
        os.fsync(device.fileno())
    usage = kubelet.stats("pvc-a", target)
    assert {unit: each.total for unit, each in usage.items()} == {"BYTES": SMALL_BYTES}
    assert kubelet.client.expand("pvc-a", 2 * SMALL_BYTES).capacity_bytes == 2 * SMALL_BYTES
    assert kubelet.expand("pvc-a", target, 2 * SMALL_BYTES) == 2 * SMALL_BYTES
    assert kubelet.stats("pvc-a", target)["BYTES"].total == 2 * SMALL_BYTES
    read_only = kubelet.publish_block("pvc-a", "pod-b", is_read_only=True)
    kubelet.publish_block("pvc-a", "pod-b", is_read_only=True)
    with read_only.open("rb", buffering=0) as device:
        assert device.read(4) == b"kept"
    with pytest.raises(OSError, match="not permitted"), read_only.open("r+b", buffering=0) as device:
        device.write(b"never")
    kubelet.unpublish_block("pvc-a", "pod-b")
    assert not [loop for loop in readonly_loops.all_of_ours() if _backs(site, loop.path)]

    # kubelet crashed between its loop device and NodeUnpublishVolume's answer: the device is held open.
    kubelet.unpublish_block("pvc-a", "pod-a")
    kubelet.unstage_block("pvc-a")
    code, sentence = refusal_of(lambda: kubelet.client.delete("pvc-a"))
    assert (code, site.truth().sizes) == (REFUSED, {"pvc-a": 2 * SMALL_BYTES}), sentence
    kubelet.unlock_block("pvc-a", "pod-a")
    kubelet.client.delete("pvc-a")
    assert (site.truth().sizes, site.leftovers()) == ({}, [])


def _backs(site: Site, path: str) -> bool:
    return site.is_lvm and bool(path)


@EVERYWHERE
def test_read_write_once_is_for_all_pods_of_a_node_and_once_pod_is_for_one(kubelet: Kubelet) -> None:
    for volume_id in ("pvc-a", "pvc-b"):
        kubelet.client.create(volume_id, SMALL_BYTES)
    kubelet.stage("pvc-a", mounted(mode=RWO))
    assert kubelet.publish("pvc-a", "pod-a", mounted(mode=RWO)).is_mount()
    assert kubelet.publish("pvc-a", "pod-b", mounted(mode=RWO)).is_mount()
    kubelet.unpublish("pvc-a", "pod-b")
    second = kubelet.target("pvc-a", "pod-b")
    code, sentence = refusal_of(lambda: kubelet.publish("pvc-a", "pod-b", mounted(mode=RWOP)))
    assert code is REFUSED
    assert str(kubelet.target("pvc-a", "pod-a")) in sentence
    assert not second.exists()
    kubelet.unpublish("pvc-a", "pod-a")
    for _ in range(2):
        assert kubelet.publish("pvc-a", "pod-b", mounted(mode=RWOP)).is_mount()

    kubelet.stage_block("pvc-b", RWOP)
    kubelet.publish_block("pvc-b", "pod-a", RWOP)
    kubelet.publish_block("pvc-b", "pod-a", RWOP)
    assert code_of(lambda: kubelet.publish_block("pvc-b", "pod-b", RWOP)) is REFUSED
    assert code_of(lambda: kubelet.publish_block("pvc-b", "pod-b", RWOP, is_read_only=True)) is REFUSED
    assert not kubelet.block_target("pvc-b", "pod-b").exists()
    assert len(kubelet.mounts()) == 3


def test_what_is_asked_for_otherwise_at_the_same_place_is_refused(kubelet: Kubelet) -> None:
    kubelet.client.create("pvc-a", SMALL_BYTES)
    kubelet.client.create("pvc-b", SMALL_BYTES)
    assert code_of(lambda: kubelet.publish("pvc-a", "pod-a")) is REFUSED
    assert not kubelet.target("pvc-a", "pod-a").exists()
    kubelet.stage("pvc-a", mounted("ext4", "noatime"))
    places = kubelet.places()
    conflict = StatusCode.ALREADY_EXISTS
    assert code_of(lambda: kubelet.stage("pvc-a", mounted("ext4"))) is conflict
    assert code_of(lambda: kubelet.stage("pvc-a", mounted("xfs", "noatime"))) is conflict
    assert code_of(lambda: kubelet.stage("pvc-a", mounted("ext4", "noatime", mode=READER))) is conflict
    assert code_of(lambda: kubelet.publish("pvc-a", "pod-a", mounted("ext4"))) is conflict
    kubelet.publish("pvc-a", "pod-a", mounted("ext4", "noatime"))
    options = mounted("ext4", "noatime")
    assert code_of(lambda: kubelet.publish("pvc-a", "pod-a", options, is_read_only=True)) is conflict
    assert kubelet.places() == sorted([*places, str(kubelet.target("pvc-a", "pod-a"))])
    kubelet.stage("pvc-b")
    request = kubelet.target("pvc-a", "pod-a")
    assert code_of(
        lambda: kubelet._publish("pvc-b", kubelet.staging("pvc-b"), request, mounted(), is_read_only=False)
    ) is (conflict)


def test_one_volume_is_a_file_system_or_a_device_and_never_both(kubelet: Kubelet) -> None:
    """Bytes that are no signature make no device blank while somebody has it as a device."""
    kubelet.client.create("pvc-a", SMALL_BYTES)
    kubelet.stage_block("pvc-a")
    target = kubelet.publish_block("pvc-a", "pod-a")
    with target.open("r+b", buffering=0) as device:
        device.seek(8 * MIB)
        device.write(b"a database's row" * 256)
        os.fsync(device.fileno())
    assert code_of(lambda: kubelet.stage("pvc-a")) is REFUSED
    with target.open("rb", buffering=0) as device:
        device.seek(8 * MIB)
        assert device.read(16) == b"a database's row"
    kubelet.unpublish_block("pvc-a", "pod-a")
    kubelet.client.create("pvc-b", SMALL_BYTES)
    staging = kubelet.stage("pvc-b")
    assert code_of(lambda: kubelet._stage("pvc-b", staging, block())) is StatusCode.ALREADY_EXISTS
    assert code_of(lambda: kubelet.publish_block("pvc-b", "pod-b")) is REFUSED
    assert not kubelet.block_target("pvc-b", "pod-b").exists()


def test_a_volume_is_only_found_where_it_is(kubelet: Kubelet) -> None:
    """Stats and growth name the volume and the path: another volume's mount is not an answer."""
    missing = StatusCode.NOT_FOUND
    for volume_id in ("pvc-a", "pvc-b"):
        kubelet.client.create(volume_id, SMALL_BYTES)
        kubelet.stage(volume_id)
    for volume_id in ("pvc-c", "pvc-d"):
        kubelet.client.create(volume_id, SMALL_BYTES)
        kubelet.stage_block(volume_id)
        kubelet.publish_block(volume_id, "pod", is_read_only=volume_id == "pvc-d")
    a, b = kubelet.staging("pvc-a"), kubelet.staging("pvc-b")
    c, d = kubelet.block_target("pvc-c", "pod"), kubelet.block_target("pvc-d", "pod")
    assert [kubelet.stats(each, path)["BYTES"].total > 0 for each, path in (("pvc-b", b), ("pvc-c", c), ("pvc-d", d))]
    elsewhere = (b, c, d, kubelet.root, Path("/"), Path("some/path"), kubelet.root / "nothing", Path("/proc"))
    for path in (*elsewhere, a / "lost+found"):
        assert code_of(lambda path=path: kubelet.stats("pvc-a", path)) is missing, path  # type: ignore[misc]
        assert code_of(lambda path=path: kubelet.expand("pvc-a", path)) is missing, path  # type: ignore[misc]
    assert code_of(lambda: kubelet.stats("pvc-d", c)) is missing
    assert code_of(lambda: kubelet.expand("pvc-c", d)) is missing
    for unknown in ("pvc-x", "no id/../at all"):
        assert code_of(lambda unknown=unknown: kubelet.stats(unknown, a)) is missing  # type: ignore[misc]
        assert code_of(lambda unknown=unknown: kubelet.expand(unknown, a)) is missing  # type: ignore[misc]
    assert code_of(lambda: kubelet.expand("pvc-a", a, 2 * SMALL_BYTES)) is StatusCode.OUT_OF_RANGE


@EVERYWHERE
def test_a_busy_mount_is_told_and_goes_when_it_is_free(kubelet: Kubelet) -> None:
    kubelet.client.create("pvc-a", SMALL_BYTES)
    staging = kubelet.stage("pvc-a")
    target = kubelet.publish("pvc-a", "pod-a")
    with (target / "file").open("w"):
        code, sentence = refusal_of(lambda: kubelet.unpublish("pvc-a", "pod-a"))
        assert (code, target.is_mount()) == (REFUSED, True)
        assert "busy" in sentence
    kubelet.unpublish("pvc-a", "pod-a")
    with subprocess.Popen(["sleep", "600"], cwd=staging) as sleeper:
        try:
            assert code_of(lambda: kubelet.unstage("pvc-a")) is REFUSED
            assert staging.is_mount()
        finally:
            sleeper.kill()
    kubelet.unstage("pvc-a")
    assert kubelet.mounts() == ()


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_file_system_that_was_shut_down_is_an_error_and_can_be_taken_away_and_staged_again(
    kubelet: Kubelet, fs_type: str
) -> None:
    kubelet.client.create("pvc-a", XFS_BYTES, fs_type=fs_type)
    capability = mounted(fs_type)
    staging = kubelet.stage("pvc-a", capability)
    target = kubelet.publish("pvc-a", "pod-a", capability)
    (target / "file").write_text("kept")
    os.sync()
    ran("xfs_io", "-x", "-c", "shutdown", str(staging))  # XFS_IOC_GOINGDOWN, of which ext4 knows the like
    # It may still know its numbers.
    assert code_of(lambda: kubelet.stats("pvc-a", target)) in (StatusCode.UNAVAILABLE, StatusCode.OK)
    kubelet.unpublish("pvc-a", "pod-a")
    kubelet.unstage("pvc-a")
    kubelet.stage("pvc-a", capability)
    target = kubelet.publish("pvc-a", "pod-a", capability)
    assert (target / "file").read_text() == "kept"


@pytest.mark.only_on("thick")
def test_a_device_that_answers_every_read_with_an_error_is_never_formatted_and_its_mount_goes(
    site: Site, kubelet: Kubelet
) -> None:
    """dm-error under the volume, as when a disk dies."""
    kubelet.client.create("pvc-a", SMALL_BYTES)
    kubelet.stage("pvc-a")
    target = kubelet.publish("pvc-a", "pod-a")
    (target / "file").write_text("kept")
    os.sync()
    name = "vgcontract-pvc--a"
    table = ran("dmsetup", "table", name)
    _load(name, f"0 {SMALL_BYTES // 512} error\n")
    try:
        ran("sh", "-c", "echo 3 > /proc/sys/vm/drop_caches")
        with pytest.raises(OSError, match="Input/output"):
            (target / "file").read_bytes()
        kubelet.unpublish("pvc-a", "pod-a")
        kubelet.unstage("pvc-a")
        assert code_of(lambda: kubelet.stage("pvc-a")) is StatusCode.UNAVAILABLE
    finally:
        _load(name, table)
    kubelet.stage("pvc-a")
    target = kubelet.publish("pvc-a", "pod-a")
    assert target.is_mount()
    assert site.truth().sizes == {"pvc-a": SMALL_BYTES}


def _load(name: str, table: str) -> None:
    ran("dmsetup", "suspend", "--noflush", "--nolockfs", name)
    subprocess.run(["dmsetup", "load", name], input=table, text=True, check=True)
    ran("dmsetup", "resume", name)


def test_a_read_only_claim_is_read_only_and_a_blank_volume_is_not_formatted_for_it(kubelet: Kubelet) -> None:
    kubelet.client.create("pvc-a", SMALL_BYTES)
    assert code_of(lambda: kubelet.stage("pvc-a", mounted(mode=READER))) is REFUSED
    assert kubelet.mounts() == ()
    kubelet.stage("pvc-a")
    writable = kubelet.publish("pvc-a", "pod-a")
    (writable / "file").write_text("kept")
    read_only = kubelet.publish("pvc-a", "pod-b", is_read_only=True)
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "file").write_text("never")
    (writable / "file").write_text("more")
    assert (read_only / "file").read_text() == "more"


def test_files_that_somebody_put_beneath_a_mount_are_never_deleted(kubelet: Kubelet) -> None:
    kubelet.client.create("pvc-a", SMALL_BYTES)
    target = kubelet.target("pvc-a", "pod-a")
    target.mkdir(parents=True)
    (target / "file").write_text("a Pod without its volume wrote this")
    assert code_of(lambda: kubelet.unpublish("pvc-a", "pod-a")) is REFUSED
    assert (target / "file").exists()


@pytest.fixture
def driver_log(driver: Driver) -> Path:
    return driver.log


def test_every_refusal_is_a_line_in_the_log_and_none_is_unforeseen(kubelet: Kubelet, driver_log: Path) -> None:
    assert code_of(lambda: kubelet.stage("pvc-nowhere")) is StatusCode.NOT_FOUND
    said = driver_log.read_text()
    assert '"rpc refused"' in said
    assert "pvc-nowhere" in said
    assert "rpc failed" not in said
