"""With a writer at work, what is snapshot, restored and cloned is what was durable at that moment: no more, no less.

The driver is a real process, asked as kubelet and the sidecars ask it. The writer (tests.csi.writer) goes on all the
while, and over what it has written before; copies are mounted beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from grpc import StatusCode

from csi.fs import mount_table
from csi.fs.device import looked_up
from tests.contract.sites import Site
from tests.csi.drivers import SMALL_BYTES, XFS_BYTES, can_grow_ext4
from tests.csi.kubelet import LONG_SECONDS, MIB, READER, Kubelet, code_of, creation, mounted
from tests.csi.writer import SLOTS, Writer
from ullage.pb.csi.v1 import csi_pb2 as pb

SIZES = {"ext4": SMALL_BYTES, "xfs": XFS_BYTES, "btrfs": 256 * MIB, "block": SMALL_BYTES}
MORE_BYTES = 32 * MIB
SOURCE = "pvc-source"
_AGAIN = (StatusCode.ABORTED, StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE)
"""What the sidecars ask again after: it may be in progress, or its store busy for longer than a call waits."""

pytestmark = [
    pytest.mark.usefixtures("driver"),
    pytest.mark.only_on("file", "file-reflink", "thick", "thin"),
]
ON_FILES = ("file", "file-reflink")


def _kinds(*on_thin: str) -> pytest.MarkDecorator:
    """Every kind on files; on LVM, where one takes a minute under emulation, each on either thin or thick volumes."""
    return pytest.mark.parametrize(
        "kind",
        [
            pytest.param(kind, marks=pytest.mark.only_on(*ON_FILES, "thin" if kind in on_thin else "thick"))
            for kind in ("block", "ext4", "xfs", "btrfs")
        ],
    )


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What was durable before a call, and what was begun when it had answered."""

    durable: int
    begun: int


class Data:
    """One volume with a writer on it, and what is made of it."""

    def __init__(self, kubelet: Kubelet, folder: Path, kind: str) -> None:
        self.kubelet, self.folder, self.kind = kubelet, folder, kind
        self.client = kubelet.client
        self.client.create(SOURCE, SIZES[kind], fs_type=self.fs_type)
        self.writer = Writer(self.used(SOURCE), folder, is_direct=kind == "block")

    @property
    def fs_type(self) -> str:
        return "" if self.kind == "block" else self.kind

    def used(self, volume_id: str) -> Path:
        """Staged and published; where the ring is."""
        if self.kind == "block":
            self.kubelet.stage_block(volume_id)
            return self.kubelet.publish_block(volume_id, "pod")
        self.kubelet.stage(volume_id, mounted(self.kind))
        return self.kubelet.publish(volume_id, "pod", mounted(self.kind)) / "ring"

    def put_away(self, volume_id: str) -> None:
        """Unpublished, unstaged and deleted."""
        if self.kind == "block":
            self.kubelet.unpublish_block(volume_id, "pod")
            self.kubelet.unstage_block(volume_id)
        else:
            self.kubelet.unpublish(volume_id, "pod")
            self.kubelet.unstage(volume_id)
        self.client.delete(volume_id)

    def within(self, ask: Callable[[], object]) -> Bounds:
        """Ask as the sidecars do, until it is done."""
        durable = self.writer.durable
        _insistently(ask)
        return Bounds(durable=durable, begun=self.writer.begun)

    def snapshot(self, name: str) -> tuple[str, Bounds]:
        request = pb.CreateSnapshotRequest(source_volume_id=SOURCE, name=name)
        taken: list[pb.Snapshot] = []
        bounds = self.within(
            lambda: taken.append(self.client.controller.CreateSnapshot(request, timeout=LONG_SECONDS).snapshot)
        )
        assert taken[-1].ready_to_use
        return taken[-1].snapshot_id, bounds

    def copy(self, name: str, size_bytes: int, source: pb.VolumeContentSource) -> Bounds:
        """A volume of this name with that content."""
        request = creation(name, size_bytes, fs_type=self.fs_type)
        request.volume_content_source.CopyFrom(source)
        return self.within(lambda: self.client.controller.CreateVolume(request, timeout=LONG_SECONDS))

    def holds(self, path: Path, bounds: Bounds) -> int:
        """The newest record at this path, where all is as it was at one moment within the bounds."""
        return self.writer.checked(path, durable=bounds.durable, begun=bounds.begun)

    def works_by_itself(self, volume_id: str) -> None:
        """A copy is a volume as any other: a writer of its own writes there, and the source's goes on undisturbed."""
        place = self.kubelet.target(volume_id, "pod") / "ring"
        if self.kind == "block":
            place = self.kubelet.block_target(volume_id, "pod")
        writer = Writer(place, self.folder, is_direct=self.kind == "block")
        try:
            writer.wait_for(SLOTS + 1)
            writer.stop()
            writer.checked(place, durable=writer.durable, begun=writer.begun)
        finally:
            writer.kill()
        self.writer.wait_for(1)

    def total_bytes(self, volume_id: str) -> int:
        place = self.kubelet.target(volume_id, "pod")
        if self.kind == "block":
            place = self.kubelet.block_target(volume_id, "pod")
        return int(self.kubelet.stats(volume_id, place)["BYTES"].total)


@contextmanager
def _at_work(kubelet: Kubelet, folder: Path, kind: str) -> Iterator[Data]:
    """With the whole ring written, and nobody to disturb the writer."""
    data = Data(kubelet, folder, kind)
    try:
        data.writer.wait_for(SLOTS + 10)
        yield data
        data.writer.wait_for(1)
        data.writer.stop()
        data.holds(data.writer.path, Bounds(durable=data.writer.durable, begun=data.writer.begun))
        data.put_away(SOURCE)
    finally:
        data.writer.kill()


def _insistently(ask: Callable[[], object]) -> None:
    end = time.monotonic() + LONG_SECONDS
    while True:
        try:
            ask()
        except grpc.RpcError as refused:
            if refused.code() not in _AGAIN or time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


def _of_snapshot(snapshot_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


OF_SOURCE = pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=SOURCE))


@_kinds("block", "xfs")
def test_a_restored_snapshot_holds_what_was_durable_when_it_was_taken(
    site: Site, kubelet: Kubelet, folder: Path, kind: str
) -> None:
    """As large as its source, beside it; then larger, after all of the source has been written over."""
    _skip_what_is_refused(site, kind)
    with _at_work(kubelet, folder, kind) as data:
        snapshot, bounds = data.snapshot("s")
        data.copy("pvc-same", SIZES[kind], _of_snapshot(snapshot))
        ring = data.used("pvc-same")
        newest = data.holds(ring, bounds)
        data.writer.wait_for(SLOTS + 1)
        assert data.holds(ring, bounds) == newest, "the source's later writes do not show"
        if kind != "block":
            assert _device(kubelet, "pvc-same") != _device(kubelet, SOURCE)
        data.put_away("pvc-same")
        if kind != "ext4" or can_grow_ext4():
            data.copy("pvc-larger", SIZES[kind] + MORE_BYTES, _of_snapshot(snapshot))
            ring = data.used("pvc-larger")
            assert data.holds(ring, bounds) == newest
            assert data.total_bytes("pvc-larger") - data.total_bytes(SOURCE) > 0.8 * MORE_BYTES
            data.works_by_itself("pvc-larger")
            data.put_away("pvc-larger")
        data.client.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=snapshot), timeout=LONG_SECONDS)
    assert (site.truth().sizes, site.leftovers()) == ({}, [])


@_kinds("ext4", "btrfs")
def test_a_clone_of_what_is_being_written_is_one_moment_of_it(
    site: Site, kubelet: Kubelet, folder: Path, kind: str
) -> None:
    """For reading only first: its log is replayed all the same. Then as any other volume."""
    _skip_what_is_refused(site, kind)
    with _at_work(kubelet, folder, kind) as data:
        bounds = data.copy("pvc-clone", SIZES[kind], OF_SOURCE)
        if kind != "block":
            reader = mounted(kind, mode=READER)
            kubelet.stage("pvc-clone", reader)
            data.holds(kubelet.publish("pvc-clone", "pod", reader) / "ring", bounds)
            kubelet.unpublish("pvc-clone", "pod")
            kubelet.unstage("pvc-clone")
        ring = data.used("pvc-clone")
        newest = data.holds(ring, bounds)
        data.writer.wait_for(SLOTS + 1)
        assert data.holds(ring, bounds) == newest, "the source's later writes do not show"
        data.works_by_itself("pvc-clone")
        data.put_away("pvc-clone")
    assert (site.truth().sizes, site.leftovers()) == ({}, [])


@pytest.mark.only_on("file")
def test_a_device_in_use_that_cannot_be_held_is_refused_and_its_writer_undisturbed(
    kubelet: Kubelet, folder: Path
) -> None:
    with _at_work(kubelet, folder, "block") as data:
        for ask in (lambda: data.snapshot("s"), lambda: data.copy("pvc-clone", SIZES["block"], OF_SOURCE)):
            assert code_of(ask) is StatusCode.FAILED_PRECONDITION
        data.writer.wait_for(SLOTS + 1)
        listed = data.client.controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=LONG_SECONDS)
        assert (list(listed.entries), data.client.ids()) == ([], [SOURCE])


def _skip_what_is_refused(site: Site, kind: str) -> None:
    if site.name == "file" and kind != "ext4":
        pytest.skip(
            "files that share no blocks are copied while they are held still: a device cannot be, nor much, long"
        )


def _device(kubelet: Kubelet, volume_id: str) -> int:
    """The number of the device that is mounted at the volume's target."""
    (found,) = mount_table.at(kubelet.target(volume_id, "pod"))
    number = found.device_number()
    assert number == looked_up(found.source).number
    return number
