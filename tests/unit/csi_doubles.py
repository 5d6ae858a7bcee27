"""A caller of CSI's RPCs without a wire, what it asks for, and a Provisioner that has what a test puts there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NoReturn, cast

import grpc

from csi.capabilities import Mode
from ullage.errors import ConflictError, InvalidRequestError, NotFoundError, OutOfRangeError
from ullage.model import (
    ByteRange,
    ChangedBlocks,
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    ExpandVolume,
    GroupId,
    ModifyVolume,
    NodeName,
    Pool,
    TakeGroup,
    TakeSnapshot,
    VolumeId,
    Wipe,
)
from ullage.names import member_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.ports import Provisioned, Snapshot

HERE = NodeName("node-1")
FAST = DeviceClassName("fast")
TAKEN_AT = 1_800_000_000

RWO = Mode.SINGLE_NODE_MULTI_WRITER
ROX = Mode.MULTI_NODE_READER_ONLY


class RefusedError(Exception):
    """What `abort` raises, as gRPC's own does: nothing after it runs."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


class Caller:
    """A ServicerContext as far as an RPC knows it."""

    def __init__(self, waits_seconds: float | None = None) -> None:
        self._waits_seconds = waits_seconds

    def time_remaining(self) -> float | None:
        return self._waits_seconds

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise RefusedError(code, details)


class Shelf:
    """A Provisioner of one node and one class, without limits. `asked` is every change, as it was asked for."""

    def __init__(self, *kept: Provisioned | Snapshot) -> None:
        self.kept = {each.id: each for each in kept}
        self.asked: list[object] = []
        self.blocks: Iterable[ByteRange] = ()
        """Of every snapshot."""

    def create(self, request: CreateVolume, nodes: Sequence[NodeName], *, patience_seconds: float) -> Provisioned:
        del patience_seconds
        self.asked.append((request, tuple(nodes)))
        made = volume(request.volume_id, request.size_bytes, request.source, request.wipe or Wipe.DISCARD)
        found = self.kept.setdefault(made.id, made)
        assert isinstance(found, Provisioned)
        if found.source != request.source:
            raise ConflictError("it began as something else")
        return found

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Provisioned:
        raise NotImplementedError

    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Provisioned:
        raise NotImplementedError

    def delete(self, volume_id: VolumeId, *, patience_seconds: float) -> None:
        del patience_seconds
        self.asked.append(("delete", volume_id))
        if isinstance(self.kept.get(volume_id), Provisioned):
            del self.kept[volume_id]

    def get(self, volume_id: VolumeId) -> Provisioned:
        found = self.kept.get(volume_id)
        if not isinstance(found, Provisioned):
            raise NotFoundError(f"no volume {volume_id}")
        return found

    def volumes(self) -> Sequence[Provisioned]:
        return [each for each in self.kept.values() if isinstance(each, Provisioned)]

    def snapshot(self, request: TakeSnapshot, nodes: Sequence[NodeName], *, patience_seconds: float) -> Snapshot:
        del patience_seconds
        self.asked.append((request, tuple(nodes)))
        found = self.kept.setdefault(
            request.snapshot_id,
            taken(request.snapshot_id, request.source, self.get(request.source).size_bytes),
        )
        assert isinstance(found, Snapshot)
        if found.source != request.source:
            raise ConflictError("it is of another volume")
        return found

    def delete_snapshot(self, snapshot_id: VolumeId, *, patience_seconds: float) -> None:
        del patience_seconds
        self.asked.append(("delete snapshot", snapshot_id))
        found = self.kept.get(snapshot_id)
        if isinstance(found, Snapshot):
            if found.group:
                raise InvalidRequestError(f"it is of {found.group}")
            del self.kept[snapshot_id]

    def get_snapshot(self, snapshot_id: VolumeId) -> Snapshot:
        found = self.kept.get(snapshot_id)
        if not isinstance(found, Snapshot):
            raise NotFoundError(f"no snapshot {snapshot_id}")
        return found

    def snapshots(self) -> Sequence[Snapshot]:
        return [each for each in self.kept.values() if isinstance(each, Snapshot)]

    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> Sequence[Snapshot]:
        del patience_seconds
        self.asked.append(request)
        found = self.group(request.group_id)
        if found and {each.source for each in found} != set(request.sources):
            raise ConflictError("it is of other volumes")
        for source in request.sources:
            member = taken(member_id(request.group_id, source), source, self.get(source).size_bytes)
            self.kept.setdefault(member.id, replace(member, group=request.group_id))
        return self.group(request.group_id)

    def delete_group(self, group: GroupId, snapshots: Sequence[VolumeId], *, patience_seconds: float) -> None:
        del patience_seconds
        self.asked.append(("delete group", group, tuple(snapshots)))
        there = {each.id for each in self.group(group)}
        if not there <= set(snapshots):
            raise InvalidRequestError(f"{group} has other members")
        for each in there:
            del self.kept[each]

    def group(self, group: GroupId) -> Sequence[Snapshot]:
        return sorted((each for each in self.snapshots() if each.group == group), key=lambda each: each.id)

    def allocated(self, snapshot_id: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        self.asked.append(("allocated", snapshot_id, start_bytes))
        size_bytes = self.get_snapshot(snapshot_id).size_bytes
        if start_bytes > size_bytes:
            raise OutOfRangeError(f"{start_bytes} is behind the end")
        return ChangedBlocks(volume_size_bytes=size_bytes, ranges=iter(self.blocks))

    def changed(self, base: VolumeId, target: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        self.asked.append(("changed", base, start_bytes))
        if self.get_snapshot(base).source != self.get_snapshot(target).source:
            raise InvalidRequestError("they are of two volumes")
        return self.allocated(target, start_bytes=start_bytes)

    def pools(self, node: NodeName | None) -> Sequence[Pool]:
        del node
        return ()

    def device_class(self, name: DeviceClassName | None) -> DeviceClass:
        return DeviceClass(name=name or FAST, type=DeviceType.THIN)


def volume(volume_id: str, size_bytes: int, source: VolumeId | None = None, wipe: Wipe = Wipe.DISCARD) -> Provisioned:
    return Provisioned(
        id=VolumeId(volume_id), node=HERE, device_class=FAST, size_bytes=size_bytes, wipe=wipe, source=source
    )


def taken(snapshot_id: VolumeId, source: str, size_bytes: int) -> Snapshot:
    return Snapshot(id=snapshot_id, source=VolumeId(source), node=HERE, size_bytes=size_bytes, taken_at=TAKEN_AT)


def snapshot_source(snapshot_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_id))


def volume_source(volume_id: str) -> pb.VolumeContentSource:
    return pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=volume_id))


def caller(waits_seconds: float | None = None) -> grpc.ServicerContext:
    return cast("grpc.ServicerContext", Caller(waits_seconds))


def mounted(fs_type: str = "", *flags: str, mode: pb.VolumeCapability.AccessMode.Mode = RWO) -> pb.VolumeCapability:
    mount = pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags)
    return pb.VolumeCapability(mount=mount, access_mode=Mode(mode=mode))


def block(mode: pb.VolumeCapability.AccessMode.Mode = RWO) -> pb.VolumeCapability:
    return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=Mode(mode=mode))
