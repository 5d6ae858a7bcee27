"""Two volumes' lives in CSI calls: each call with its seconds, and the free space after it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from tests.rigs.demo.scene import CLASS, Interruption
from ullage.csi_client import Driver
from ullage.errors import MIB, UllageError, human_bytes
from ullage.pb.csi.v1 import csi_pb2 as pb

CALL_SECONDS = 120.0
"""In the VM everything takes ten times longer."""
ROOM_SECONDS = 3.0
"""The agent looks at a directory once it has been quiet for a moment; LVM's own report needs no such patience."""
VOLUME_BYTES, GROWN_BYTES, BLOCK_BYTES = 320 * MIB, 512 * MIB, 64 * MIB
# A mounted ext4 grows with CAP_SYS_RESOURCE only, which root lacks in some containers; xfs needs 300 MiB, and no more.
FS_TYPE = "xfs"
TEXT = "the free space left in a cask"

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class _Volume:
    """One volume, and where it is to be shown."""

    id: str
    capability: pb.VolumeCapability
    staging: Path
    target: Path


class Walk:
    """The calls, each way back included: whatever a step makes is undone when its block ends, however it ends."""

    def __init__(self, driver: Driver, base: Path, interruption: Interruption) -> None:
        self._controller, self._node = driver.controller, driver.node
        self._base = base
        self._interruption = interruption

    def all(self) -> None:
        self._step("GetCapacity", self._free_bytes)
        mode = pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER)
        mounted = pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume(fs_type=FS_TYPE), access_mode=mode)
        block = pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=mode)
        with self._published("demo-files", VOLUME_BYTES, mounted) as volume:
            self._use_files(volume)
            with self._published("demo-block", BLOCK_BYTES, block) as device:
                self._use_device(device)

    def _use_files(self, volume: _Volume) -> None:
        file = volume.target / "ullage"
        self._step("write a file", lambda: file.write_text(TEXT, encoding="utf-8"))
        self._show_room(volume)
        grow = pb.ControllerExpandVolumeRequest(
            volume_id=volume.id, capacity_range=pb.CapacityRange(required_bytes=GROWN_BYTES)
        )
        follow = pb.NodeExpandVolumeRequest(
            volume_id=volume.id, volume_path=str(volume.target), staging_target_path=str(volume.staging)
        )
        self._step(
            f"ControllerExpandVolume {human_bytes(GROWN_BYTES)}",
            lambda: self._controller.ControllerExpandVolume(grow, timeout=CALL_SECONDS),
        )
        before = _file_system_bytes(volume.target)
        self._step("NodeExpandVolume, mounted", lambda: self._node.NodeExpandVolume(follow, timeout=CALL_SECONDS))
        self._show_room(volume)
        if _file_system_bytes(volume.target) <= before:
            raise UllageError(f"the file system at {volume.target} did not grow from {before} bytes")
        self._expect("the file is still there, and says", file.read_text(encoding="utf-8"))

    def _use_device(self, volume: _Volume) -> None:
        def written() -> None:
            with volume.target.open("r+b") as device:
                device.write(TEXT.encode())
                device.flush()
                os.fsync(device.fileno())

        self._step("write to the device", written)
        with volume.target.open("rb") as device:
            self._expect("the device says", device.read(len(TEXT)).decode())

    def _show_room(self, volume: _Volume) -> None:
        wanted = pb.NodeGetVolumeStatsRequest(volume_id=volume.id, volume_path=str(volume.target))
        stats = self._step("NodeGetVolumeStats", lambda: self._node.NodeGetVolumeStats(wanted, timeout=CALL_SECONDS))
        room = next(each for each in stats.usage if each.unit == pb.VolumeUsage.BYTES)
        print(f"    {human_bytes(room.total)} in the file system, {human_bytes(room.available)} available")

    def _expect(self, what: str, found: str) -> None:
        print(f"    {what} {found!r}")
        if found != TEXT:
            raise UllageError(f"{found!r} was read, {TEXT!r} was written")

    @contextmanager
    def _published(self, volume_id: str, size_bytes: int, capability: pb.VolumeCapability) -> Iterator[_Volume]:
        """A volume made, staged and published; and unpublished, unstaged and deleted."""
        volume = _Volume(
            id=volume_id,
            capability=capability,
            staging=self._base / f"staging-{volume_id}",
            target=self._base / f"target-{volume_id}",
        )
        kind = "a block volume" if capability.HasField("block") else capability.mount.fs_type
        create = pb.CreateVolumeRequest(
            name=volume_id,
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
            volume_capabilities=[capability],
            parameters={"ullage.io/device-class": CLASS},
        )
        stage = pb.NodeStageVolumeRequest(
            volume_id=volume.id, staging_target_path=str(volume.staging), volume_capability=capability
        )
        publish = pb.NodePublishVolumeRequest(
            volume_id=volume.id,
            staging_target_path=str(volume.staging),
            target_path=str(volume.target),
            volume_capability=capability,
        )
        unpublish = pb.NodeUnpublishVolumeRequest(volume_id=volume.id, target_path=str(volume.target))
        unstage = pb.NodeUnstageVolumeRequest(volume_id=volume.id, staging_target_path=str(volume.staging))
        delete = pb.DeleteVolumeRequest(volume_id=volume.id)
        controller, node = self._controller, self._node
        with (
            self._done(
                (
                    f"CreateVolume {human_bytes(size_bytes)}",
                    lambda: controller.CreateVolume(create, timeout=CALL_SECONDS),
                ),
                ("DeleteVolume", lambda: controller.DeleteVolume(delete, timeout=CALL_SECONDS)),
                gives_room=True,
            ),
            self._done(
                (f"NodeStageVolume, {kind}", lambda: node.NodeStageVolume(stage, timeout=CALL_SECONDS)),
                ("NodeUnstageVolume", lambda: node.NodeUnstageVolume(unstage, timeout=CALL_SECONDS)),
            ),
            self._done(
                ("NodePublishVolume", lambda: node.NodePublishVolume(publish, timeout=CALL_SECONDS)),
                ("NodeUnpublishVolume", lambda: node.NodeUnpublishVolume(unpublish, timeout=CALL_SECONDS)),
            ),
        ):
            yield volume

    @contextmanager
    def _done(
        self,
        there: tuple[str, Callable[[], object]],
        back: tuple[str, Callable[[], object]],
        *,
        gives_room: bool = False,
    ) -> Iterator[None]:
        """A call, and at the end the one that undoes it: also after a refusal, which may have come half-way."""
        self._interruption.heed()
        try:
            self._step(*there)
            yield
        except BaseException:
            try:
                self._timed(*back, gives_room=gives_room)
            except grpc.RpcError as another:  # the first reason is the one to tell at the end
                print(f"{back[0]} failed, too: {another.details()}", flush=True)
            raise
        self._timed(*back, gives_room=gives_room)

    def _step(self, what: str, call: Callable[[], Answer]) -> Answer:
        self._interruption.heed()
        return self._timed(what, call)

    def _timed(self, what: str, call: Callable[[], Answer], *, gives_room: bool = False) -> Answer:
        before = self._free_bytes()
        started = time.monotonic()
        answer = call()
        seconds = time.monotonic() - started
        deadline = time.monotonic() + (ROOM_SECONDS if gives_room else 0)
        while (free := self._free_bytes()) <= before and time.monotonic() < deadline:
            time.sleep(0.05)
        print(f"{what:34} {seconds:7.3f} s   free: {free // MIB:,} MiB", flush=True)
        return answer

    def _free_bytes(self) -> int:
        return int(self._controller.GetCapacity(pb.GetCapacityRequest(), timeout=CALL_SECONDS).available_capacity)


def _file_system_bytes(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_blocks * status.f_frsize
