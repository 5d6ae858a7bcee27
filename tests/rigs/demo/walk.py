"""The demo's story: a volume's life with its snapshot and its copies, and a block volume's beside it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.rigs.demo.scene import Interruption
from tests.rigs.demo.steps import CALL_SECONDS, Shown, Steps, Wanted
from ullage.csi_client import Driver
from ullage.errors import MIB, UllageError, human_bytes
from ullage.pb.csi.v1 import csi_pb2 as pb

VOLUME_BYTES, GROWN_BYTES, BLOCK_BYTES = 320 * MIB, 512 * MIB, 64 * MIB
# A mounted ext4 grows with CAP_SYS_RESOURCE only, which root lacks in some containers; xfs needs 300 MiB, and no more.
FS_TYPE = "xfs"
TEXT, LATER_TEXT = "the free space left in a cask", "the cask is full again"
MODE = pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER)
MOUNTED = pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume(fs_type=FS_TYPE), access_mode=MODE)
BLOCK = pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=MODE)


class Walk:
    """What is done, in order; each way back is the steps' own."""

    def __init__(self, driver: Driver, base: Path, interruption: Interruption) -> None:
        self._steps = Steps(driver, base, interruption)

    def all(self) -> None:
        self._steps.step("GetCapacity", self._steps.free_bytes)
        with self._steps.published(Wanted(id="demo-files", size_bytes=VOLUME_BYTES, capability=MOUNTED)) as volume:
            self._use_files(volume)
            self._copy(volume)
            self._grow(volume)
            with self._steps.published(Wanted(id="demo-block", size_bytes=BLOCK_BYTES, capability=BLOCK)) as device:
                self._use_device(device)

    def _use_files(self, volume: Shown) -> None:
        self._steps.step("write a file", lambda: _file(volume).write_text(TEXT, encoding="utf-8"))
        self._show_room(volume)

    def _copy(self, volume: Shown) -> None:
        """The snapshot keeps the first text; the volume goes on, and its copies are seen beside it."""
        with self._steps.snapshot("demo-snapshot", volume) as taken:
            self._steps.step("write something else", lambda: _file(volume).write_text(LATER_TEXT, encoding="utf-8"))
            snapshot = pb.VolumeContentSource.SnapshotSource(snapshot_id=taken.snapshot_id)
            restored = Wanted(
                id="demo-restored",
                size_bytes=taken.size_bytes,
                capability=MOUNTED,
                source=pb.VolumeContentSource(snapshot=snapshot),
            )
            with self._steps.published(restored) as copy:
                _expect("the restored volume says", _file(copy).read_text(encoding="utf-8"), TEXT)
                _expect("the volume beside it says", _file(volume).read_text(encoding="utf-8"), LATER_TEXT)
        cloned = Wanted(
            id="demo-clone",
            size_bytes=VOLUME_BYTES,
            capability=MOUNTED,
            source=pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume.id)),
        )
        with self._steps.published(cloned) as copy:
            _expect("the clone says", _file(copy).read_text(encoding="utf-8"), LATER_TEXT)
            self._steps.step("write to the clone", lambda: _file(copy).write_text(TEXT, encoding="utf-8"))
            _expect("the volume beside it still says", _file(volume).read_text(encoding="utf-8"), LATER_TEXT)

    def _grow(self, volume: Shown) -> None:
        controller, node = self._steps.controller, self._steps.node
        grow = pb.ControllerExpandVolumeRequest(
            volume_id=volume.id, capacity_range=pb.CapacityRange(required_bytes=GROWN_BYTES)
        )
        follow = pb.NodeExpandVolumeRequest(
            volume_id=volume.id, volume_path=str(volume.target), staging_target_path=str(volume.staging)
        )
        self._steps.step(
            f"ControllerExpandVolume {human_bytes(GROWN_BYTES)}",
            lambda: controller.ControllerExpandVolume(grow, timeout=CALL_SECONDS),
        )
        before = _file_system_bytes(volume.target)
        self._steps.step("NodeExpandVolume, mounted", lambda: node.NodeExpandVolume(follow, timeout=CALL_SECONDS))
        self._show_room(volume)
        if _file_system_bytes(volume.target) <= before:
            raise UllageError(f"the file system at {volume.target} did not grow from {before} bytes")
        _expect("the file is still there, and says", _file(volume).read_text(encoding="utf-8"), LATER_TEXT)

    def _use_device(self, volume: Shown) -> None:
        def written() -> None:
            with volume.target.open("r+b") as device:
                device.write(TEXT.encode())
                device.flush()
                os.fsync(device.fileno())

        self._steps.step("write to the device", written)
        with volume.target.open("rb") as device:
            _expect("the device says", device.read(len(TEXT)).decode(), TEXT)

    def _show_room(self, volume: Shown) -> None:
        node = self._steps.node
        wanted = pb.NodeGetVolumeStatsRequest(volume_id=volume.id, volume_path=str(volume.target))
        stats = self._steps.step("NodeGetVolumeStats", lambda: node.NodeGetVolumeStats(wanted, timeout=CALL_SECONDS))
        room = next(each for each in stats.usage if each.unit == pb.VolumeUsage.BYTES)
        print(f"    {human_bytes(room.total)} in the file system, {human_bytes(room.available)} available")


def _file(volume: Shown) -> Path:
    return volume.target / "ullage"


def _expect(what: str, found: str, written: str) -> None:
    print(f"    {what} {found!r}")
    if found != written:
        raise UllageError(f"{found!r} was read, {written!r} was written")


def _file_system_bytes(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_blocks * status.f_frsize
