"""Steps of the demo: a call with its seconds and the free space after it, and what is made with its way back.

Whatever a step makes is undone when its block ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from tests.rigs.demo.scene import CLASS, Interruption
from ullage.csi_client import Driver
from ullage.errors import MIB, human_bytes
from ullage.names import snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb

CALL_SECONDS = 120.0
"""In the VM everything takes ten times longer."""
COPY_SECONDS, PATIENCE_SECONDS, PAUSE_SECONDS = 600.0, 10.0, 0.2
"""Where bytes have to be copied, the driver is asked again and again, and says how far it is."""
ROOM_SECONDS = 3.0
"""The agent looks at a directory once it has been quiet for a moment; LVM's own report needs no such patience."""
GOES_ON = (grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED)

Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A volume that is to be, empty or with what its source has."""

    id: str
    size_bytes: int
    capability: pb.VolumeCapability
    source: pb.VolumeContentSource | None = None

    @property
    def sentence(self) -> str:
        """What is asked for, for a person."""
        origin = self.source.WhichOneof("type") if self.source else None
        what = {"snapshot": "restored from a snapshot", "volume": "clone", None: human_bytes(self.size_bytes)}[origin]
        return f"CreateVolume, {what}" if origin else f"CreateVolume {what}"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A volume, and where it is to be seen."""

    id: str
    staging: Path
    target: Path


class Steps:
    """What can be done to a driver, each thing told with its time."""

    def __init__(self, driver: Driver, base: Path, interruption: Interruption) -> None:
        """Paths are made below `base`."""
        self.controller, self.node = driver.controller, driver.node
        self._base = base
        self._interruption = interruption

    def step(self, what: str, call: Callable[[], Answer]) -> Answer:
        """One call, unless somebody has had enough."""
        self._interruption.heed()
        return self._timed(what, call)

    def free_bytes(self) -> int:
        """What GetCapacity says of all pools."""
        return int(self.controller.GetCapacity(pb.GetCapacityRequest(), timeout=CALL_SECONDS).available_capacity)

    @contextmanager
    def published(self, wanted: Wanted) -> Iterator[Shown]:
        """A volume made, staged and published; and unpublished, unstaged and deleted."""
        capability = wanted.capability
        volume = Shown(
            id=wanted.id,
            staging=self._base / f"staging-{wanted.id}",
            target=self._base / f"target-{wanted.id}",
        )
        kind = "a block volume" if capability.HasField("block") else capability.mount.fs_type
        create = pb.CreateVolumeRequest(
            name=wanted.id,
            capacity_range=pb.CapacityRange(required_bytes=wanted.size_bytes),
            volume_capabilities=[capability],
            parameters={"ullage.io/device-class": CLASS},
            volume_content_source=wanted.source,
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
        controller, node = self.controller, self.node
        with (
            self._done(
                (
                    wanted.sentence,
                    lambda: self._to_the_end(lambda limit: controller.CreateVolume(create, timeout=limit)),
                ),
                ("DeleteVolume", lambda: self._gone(lambda limit: controller.DeleteVolume(delete, timeout=limit))),
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
    def snapshot(self, name: str, volume: Shown) -> Iterator[pb.Snapshot]:
        """What the volume holds now, until the block ends."""
        create = pb.CreateSnapshotRequest(name=name, source_volume_id=volume.id)
        taken = pb.Snapshot(snapshot_id=snapshot_id(name))

        def take() -> None:
            made = self._to_the_end(lambda limit: self.controller.CreateSnapshot(create, timeout=limit))
            taken.CopyFrom(made.snapshot)

        def drop() -> None:
            request = pb.DeleteSnapshotRequest(snapshot_id=taken.snapshot_id)
            self._gone(lambda limit: self.controller.DeleteSnapshot(request, timeout=limit))

        with self._done(("CreateSnapshot", take), ("DeleteSnapshot", drop)):
            yield taken

    def _to_the_end(self, call: Callable[[float], Answer]) -> Answer:
        """Ask until it is done, and tell what the driver says meanwhile; an interruption ends the asking."""
        return self._asked(call, self._interruption.heed)

    def _gone(self, call: Callable[[float], Answer]) -> Answer:
        """The same on the way back, which nothing interrupts."""
        return self._asked(call, lambda: None)

    def _asked(self, call: Callable[[float], Answer], heed: Callable[[], None]) -> Answer:
        deadline, told = time.monotonic() + COPY_SECONDS, ""
        while True:
            try:
                return call(PATIENCE_SECONDS)
            except grpc.RpcError as refusal:
                if refusal.code() not in GOES_ON or time.monotonic() > deadline:
                    raise
                if refusal.details() not in (told, "Deadline Exceeded"):  # gRPC's own words, which say nothing
                    told = refusal.details() or ""
                    print(f"    {told}", flush=True)
            heed()
            time.sleep(PAUSE_SECONDS)

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
            self.step(*there)
            yield
        except BaseException:
            try:
                self._timed(*back, gives_room=gives_room)
            except grpc.RpcError as another:  # the first reason is the one to tell at the end
                print(f"{back[0]} failed, too: {another.details()}", flush=True)
            raise
        self._timed(*back, gives_room=gives_room)

    def _timed(self, what: str, call: Callable[[], Answer], *, gives_room: bool = False) -> Answer:
        before = self.free_bytes()
        started = time.monotonic()
        answer = call()
        seconds = time.monotonic() - started
        deadline = time.monotonic() + (ROOM_SECONDS if gives_room else 0)
        while (free := self.free_bytes()) <= before and time.monotonic() < deadline:
            time.sleep(0.05)
        print(f"{what:38} {seconds:7.3f} s   free: {free // MIB:,} MiB", flush=True)
        return answer
