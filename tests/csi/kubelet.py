"""What kubelet and the sidecars do with a driver, in their order and with their paths, over its socket.

The paths are those of kubelet's csi_util.go and csi_block.go. What kubelet asks of a driver's work is asserted where
kubelet would stumble over it: a directory it cannot remove, a mount it would delete the files of.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from csi.fs import mount_table, readonly_loops
from csi.fs.mount_table import Mount
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.storage_classes import CLASS_KEY

LONG_SECONDS = 600.0
"""For an answer. kubelet gives up after two minutes and asks again; what it asks for here must be done in the end."""
MIB = 1 << 20
Mode = pb.VolumeCapability.AccessMode
RWO, RWOP, READER = Mode.SINGLE_NODE_MULTI_WRITER, Mode.SINGLE_NODE_SINGLE_WRITER, Mode.SINGLE_NODE_READER_ONLY
"""What the sidecars and kubelet make of ReadWriteOnce, of ReadWriteOncePod, and of a read-only claim."""


class Client:
    """All services on one socket."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self.identity = csi_pb2_grpc.IdentityStub(self._channel)
        self.controller = csi_pb2_grpc.ControllerStub(self._channel)
        self.group = csi_pb2_grpc.GroupControllerStub(self._channel)
        self.metadata = csi_pb2_grpc.SnapshotMetadataStub(self._channel)
        self.node = csi_pb2_grpc.NodeStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def create(self, name: str, size_bytes: int, limit_bytes: int = 0, **more: Any) -> pb.Volume:  # noqa: ANN401
        """As external-provisioner does; `more` is that of `creation`."""
        request = creation(name, size_bytes, limit_bytes, **more)
        answer: pb.CreateVolumeResponse = self.controller.CreateVolume(request, timeout=LONG_SECONDS)
        return answer.volume

    def delete(self, volume_id: str) -> None:
        self.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=LONG_SECONDS)

    def snapshot(self, name: str, source: str) -> pb.Snapshot:
        """As csi-snapshotter does."""
        request = pb.CreateSnapshotRequest(
            name=name, source_volume_id=source, parameters={"csi.storage.k8s.io/volumesnapshot/name": name}
        )
        answer: pb.CreateSnapshotResponse = self.controller.CreateSnapshot(request, timeout=LONG_SECONDS)
        return answer.snapshot

    def delete_snapshot(self, snapshot_id: str) -> None:
        self.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=snapshot_id), timeout=LONG_SECONDS)

    def get_snapshot(self, snapshot_id: str) -> pb.Snapshot:
        request = pb.GetSnapshotRequest(snapshot_id=snapshot_id)
        answer: pb.GetSnapshotResponse = self.controller.GetSnapshot(request, timeout=LONG_SECONDS)
        return answer.snapshot

    def snapshots(self, **which: str) -> list[pb.Snapshot]:
        """`which` is `snapshot_id` or `source_volume_id`."""
        answer = self.controller.ListSnapshots(pb.ListSnapshotsRequest(**which), timeout=LONG_SECONDS)  # type: ignore[arg-type]
        return [entry.snapshot for entry in answer.entries]

    def snapshot_group(self, name: str, *sources: str) -> pb.VolumeGroupSnapshot:
        request = pb.CreateVolumeGroupSnapshotRequest(name=name, source_volume_ids=sources)
        answer: pb.CreateVolumeGroupSnapshotResponse = self.group.CreateVolumeGroupSnapshot(
            request, timeout=LONG_SECONDS
        )
        return answer.group_snapshot

    def get_group(self, group: str, *members: str) -> pb.VolumeGroupSnapshot:
        request = pb.GetVolumeGroupSnapshotRequest(group_snapshot_id=group, snapshot_ids=members)
        answer: pb.GetVolumeGroupSnapshotResponse = self.group.GetVolumeGroupSnapshot(request, timeout=LONG_SECONDS)
        return answer.group_snapshot

    def delete_group(self, group: str, *members: str) -> None:
        request = pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group, snapshot_ids=members)
        self.group.DeleteVolumeGroupSnapshot(request, timeout=LONG_SECONDS)

    def allocated(self, of: str, starting_offset: int = 0, max_results: int = 0) -> list[tuple[int, int]]:
        """All ranges of the stream, as offsets and sizes."""
        request = pb.GetMetadataAllocatedRequest(
            snapshot_id=of, starting_offset=starting_offset, max_results=max_results
        )
        answers = self.metadata.GetMetadataAllocated(request, timeout=LONG_SECONDS)
        return [(each.byte_offset, each.size_bytes) for answer in answers for each in answer.block_metadata]

    def changed(self, base: str, target: str, starting_offset: int = 0) -> list[tuple[int, int]]:
        """The same."""
        request = pb.GetMetadataDeltaRequest(
            base_snapshot_id=base, target_snapshot_id=target, starting_offset=starting_offset
        )
        answers = self.metadata.GetMetadataDelta(request, timeout=LONG_SECONDS)
        return [(each.byte_offset, each.size_bytes) for answer in answers for each in answer.block_metadata]

    def expand(self, volume_id: str, size_bytes: int) -> pb.ControllerExpandVolumeResponse:
        request = pb.ControllerExpandVolumeRequest(
            volume_id=volume_id, capacity_range=pb.CapacityRange(required_bytes=size_bytes)
        )
        answer: pb.ControllerExpandVolumeResponse = self.controller.ControllerExpandVolume(
            request, timeout=LONG_SECONDS
        )
        return answer

    def modify(self, volume_id: str, **parameters: str) -> None:
        request = pb.ControllerModifyVolumeRequest(volume_id=volume_id, mutable_parameters=parameters)
        self.controller.ControllerModifyVolume(request, timeout=LONG_SECONDS)

    def ids(self) -> list[str]:
        return [entry.volume.volume_id for entry in self.controller.ListVolumes(pb.ListVolumesRequest()).entries]

    def capacity(self, **parameters: str) -> pb.GetCapacityResponse:
        answer: pb.GetCapacityResponse = self.controller.GetCapacity(pb.GetCapacityRequest(parameters=parameters))
        return answer

    def is_ready(self) -> bool:
        return bool(self.identity.Probe(pb.ProbeRequest(), timeout=LONG_SECONDS).ready.value)


def creation(  # noqa: PLR0913 - what a request may hold
    name: str,
    size_bytes: int,
    limit_bytes: int = 0,
    *,
    fs_type: str = "",
    device_class: str = "main",
    mutable: dict[str, str] | None = None,
    nodes: tuple[str, ...] = (),
    source: pb.VolumeContentSource | None = None,
) -> pb.CreateVolumeRequest:
    """The message of external-provisioner with --strict-topology and --extra-create-metadata."""
    topologies = [pb.Topology(segments={"ullage.io/node": node}) for node in nodes]
    return pb.CreateVolumeRequest(
        name=name,
        capacity_range=pb.CapacityRange(required_bytes=size_bytes, limit_bytes=limit_bytes),
        volume_capabilities=[mounted(fs_type)],
        parameters={CLASS_KEY: device_class, "csi.storage.k8s.io/pv/name": name},
        mutable_parameters=mutable or {},
        volume_content_source=source,
        accessibility_requirements=(
            pb.TopologyRequirement(requisite=topologies, preferred=topologies) if topologies else None
        ),
    )


def of_snapshot(snapshot_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


def of_volume(volume_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume_id))


def mounted(fs_type: str = "", *flags: str, mode: int = RWO) -> pb.VolumeCapability:
    volume = pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags)
    return pb.VolumeCapability(mount=volume, access_mode=Mode(mode=mode))  # type: ignore[arg-type] # any number


def block(mode: int = RWO) -> pb.VolumeCapability:
    return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=Mode(mode=mode))  # type: ignore[arg-type]


def code_of(ask: Callable[[], object]) -> grpc.StatusCode:
    """The code of an answer."""
    return refusal_of(ask)[0]


def refusal_of(ask: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """The code and the sentence of an answer."""
    try:
        ask()
    except grpc.RpcError as refused:
        return refused.code(), str(refused.details())
    return grpc.StatusCode.OK, ""


@dataclass
class Kubelet:
    """One node's kubelet; `root` is its --root-dir."""

    root: Path
    client: Client
    _locks: dict[Path, str] = field(default_factory=dict)

    # File systems: csi_attacher.go (MountDevice), csi_mounter.go (SetUpAt, TearDownAt).

    def staging(self, volume_id: str) -> Path:
        digest = hashlib.sha256(volume_id.encode()).hexdigest()
        return self.root / "plugins/kubernetes.io/csi/ullage.io" / digest / "globalmount"

    def target(self, volume_id: str, pod: str) -> Path:
        return self.root / f"pods/{pod}/volumes/kubernetes.io~csi/{volume_id}/mount"

    def stage(self, volume_id: str, capability: pb.VolumeCapability | None = None) -> Path:
        place = self.staging(volume_id)
        place.mkdir(mode=0o750, parents=True, exist_ok=True)
        (place.parent / "vol_data.json").write_text("{}")
        self._stage(volume_id, place, capability or mounted())
        return place

    def publish(
        self,
        volume_id: str,
        pod: str,
        capability: pb.VolumeCapability | None = None,
        *,
        is_read_only: bool = False,
    ) -> Path:
        place = self.target(volume_id, pod)
        place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        (place.parent / "vol_data.json").write_text("{}")
        self._publish(volume_id, self.staging(volume_id), place, capability or mounted(), is_read_only=is_read_only)
        return place

    def unpublish(self, volume_id: str, pod: str) -> None:
        place = self.target(volume_id, pod)
        self._unpublish(volume_id, place)
        (place.parent / "vol_data.json").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            place.parent.rmdir()  # it must be empty: kubelet does not look into a volume

    def unstage(self, volume_id: str) -> None:
        place = self.staging(volume_id)
        self._unstage(volume_id, place)
        assert mount_table.read().at(place) == (), "kubelet deletes what is in here now"
        shutil.rmtree(place.parent, ignore_errors=True)

    # Devices: csi_block.go (SetUpDevice, MapPodDevice, UnmapPodDevice, TearDownDevice), operation_generator.go.

    def block_staging(self, volume_id: str) -> Path:
        return self.root / "plugins/kubernetes.io/csi/volumeDevices/staging" / volume_id

    def block_target(self, volume_id: str, pod: str) -> Path:
        return self.root / "plugins/kubernetes.io/csi/volumeDevices/publish" / volume_id / pod

    def block_lock(self, volume_id: str, pod: str) -> Path:
        """Kubelet's own bind mount, on which it has a loop device attached as a lock."""
        return self.root / "plugins/kubernetes.io/csi/volumeDevices" / volume_id / "dev" / pod

    def stage_block(self, volume_id: str, mode: int = RWO) -> None:
        place = self.block_staging(volume_id)
        place.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._stage(volume_id, place, block(mode))

    def publish_block(self, volume_id: str, pod: str, mode: int = RWO, *, is_read_only: bool = False) -> Path:
        place = self.block_target(volume_id, pod)
        place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._publish(volume_id, self.block_staging(volume_id), place, block(mode), is_read_only=is_read_only)
        return place

    def map_block(self, volume_id: str, pod: str) -> Path:
        """What follows NodePublishVolume: the bind mount, the lock, the Pod's link."""
        source, place = self.block_target(volume_id, pod), self.block_lock(volume_id, pod)
        place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        place.touch()
        ran("mount", "--bind", str(source), str(place))
        self._locks[place] = ran("losetup", "--find", "--show", str(place)).strip()
        link = self._link(volume_id, pod)
        link.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        link.symlink_to(place)
        return link

    def unlock_block(self, volume_id: str, pod: str) -> None:
        """UnmapBlockVolume."""
        place = self.block_lock(volume_id, pod)
        self._link(volume_id, pod).unlink(missing_ok=True)
        ran("losetup", "--detach", self._locks.pop(place))
        ran("umount", str(place))
        place.unlink()

    def unpublish_block(self, volume_id: str, pod: str) -> None:
        self._unpublish(volume_id, self.block_target(volume_id, pod))

    def unstage_block(self, volume_id: str) -> None:
        place = self.block_staging(volume_id)
        self._unstage(volume_id, place)
        with suppress(FileNotFoundError):
            place.rmdir()

    # Both.

    def stats(self, volume_id: str, path: Path) -> dict[str, pb.VolumeUsage]:
        request = pb.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=str(path))
        usage = self.client.node.NodeGetVolumeStats(request, timeout=LONG_SECONDS).usage
        return {pb.VolumeUsage.Unit.Name(each.unit): each for each in usage}

    def expand(self, volume_id: str, path: Path, size_bytes: int = 0) -> int:
        request = pb.NodeExpandVolumeRequest(
            volume_id=volume_id,
            volume_path=str(path),
            staging_target_path=str(self.staging(volume_id)),
            capacity_range=pb.CapacityRange(required_bytes=size_bytes),
        )
        return int(self.client.node.NodeExpandVolume(request, timeout=LONG_SECONDS).capacity_bytes)

    def mounts(self) -> tuple[Mount, ...]:
        return mount_table.read().below(self.root)

    def places(self) -> list[str]:
        """Where something is mounted, once for each mount there."""
        return sorted(mount.place for mount in self.mounts())

    def clean(self) -> None:
        """Leave nothing mounted or attached, whatever a test has come to."""
        for lock in self._locks.values():
            ran("losetup", "--detach", lock, is_checked=False)
        published = {mount.node_number() for mount in self.mounts()}
        for mount in sorted(self.mounts(), key=lambda mount: mount.id, reverse=True):
            ran("umount", mount.place)
        for loop in readonly_loops.all_of_ours():
            if loop.number in published:
                ran("losetup", "--detach", loop.path)

    def _stage(self, volume_id: str, place: Path, capability: pb.VolumeCapability) -> None:
        request = pb.NodeStageVolumeRequest(
            volume_id=volume_id, staging_target_path=str(place), volume_capability=capability
        )
        self.client.node.NodeStageVolume(request, timeout=LONG_SECONDS)

    def _publish(
        self, volume_id: str, staging: Path, place: Path, capability: pb.VolumeCapability, *, is_read_only: bool
    ) -> None:
        request = pb.NodePublishVolumeRequest(
            volume_id=volume_id,
            staging_target_path=str(staging),
            target_path=str(place),
            volume_capability=capability,
            readonly=is_read_only,
        )
        self.client.node.NodePublishVolume(request, timeout=LONG_SECONDS)

    def _unpublish(self, volume_id: str, place: Path) -> None:
        request = pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=str(place))
        self.client.node.NodeUnpublishVolume(request, timeout=LONG_SECONDS)
        assert not place.exists()
        assert not place.is_symlink()

    def _unstage(self, volume_id: str, place: Path) -> None:
        request = pb.NodeUnstageVolumeRequest(volume_id=volume_id, staging_target_path=str(place))
        self.client.node.NodeUnstageVolume(request, timeout=LONG_SECONDS)

    def _link(self, volume_id: str, pod: str) -> Path:
        return self.root / f"pods/{pod}/volumeDevices/kubernetes.io~csi/{volume_id}"


def ran(*argv: str, is_checked: bool = True) -> str:
    """A program of the test's own."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert not is_checked or done.returncode == 0, f"{argv}: {done.returncode}: {done.stderr}"
    return done.stdout
