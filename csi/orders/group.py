"""What each message about groups of snapshots asks for, checked in CSI's order: missing, impossible, unknown.

The members' ids are checked by the method, after the group itself: of one that is not there, they do not matter.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from csi import parameters
from csi.orders import fields
from ullage.errors import InvalidRequestError
from ullage.model import GroupId, VolumeId
from ullage.names import group_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quoting import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A group that is to be."""

    group: GroupId
    sources: tuple[VolumeId, ...]

    @property
    def volume_id(self) -> VolumeId:
        """What is held while it is taken: its own id."""
        return VolumeId(self.group)


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A group, and whom the caller believes to be its members."""

    group: str
    members: tuple[str, ...]

    @property
    def volume_id(self) -> VolumeId:
        """What is held while it goes: its own id."""
        return VolumeId(self.group)


def take(request: pb.CreateVolumeGroupSnapshotRequest) -> Take:
    """Raises InvalidRequestError, NotFoundError (no volume has such an id)."""
    name = fields.named(request.name, "name")
    if not request.source_volume_ids:
        raise InvalidRequestError("source_volume_ids is missing: of what is the group to be?")
    times = Counter(fields.named(each, "source_volume_ids") for each in request.source_volume_ids)
    twice = sorted(quoted(each) for each, number in times.items() if number > 1)
    if twice:
        raise InvalidRequestError(f"source_volume_ids names {', '.join(twice)} more than once")
    parameters.check_snapshot_parameters(request.parameters)
    sources = tuple(fields.known(each, "source_volume_ids") for each in request.source_volume_ids)
    return Take(group=group_id(name), sources=sources)


def about(request: pb.DeleteVolumeGroupSnapshotRequest | pb.GetVolumeGroupSnapshotRequest) -> About:
    """Raises InvalidRequestError when there is no id; an impossible one is for the method to see."""
    return About(
        group=fields.named(request.group_snapshot_id, "group_snapshot_id"), members=tuple(request.snapshot_ids)
    )
