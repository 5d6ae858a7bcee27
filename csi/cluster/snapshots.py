"""Snapshots of a cluster's volumes, single ones and groups: ordered as volumes are, where their volumes are."""

from __future__ import annotations

from collections.abc import Sequence

from csi.cluster.orders import Orders
from csi.cluster.refusals import check_same_group, check_same_snapshot, refused_as
from csi.cluster.view import ClusterView, taken
from ullage.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    PreconditionError,
    VolumeNotReadyError,
)
from ullage.kube.logical_volume import READY, LogicalVolume, Phase, snapshot_order
from ullage.model import GroupId, NodeName, Problem, TakeGroup, TakeSnapshot, VolumeId, VolumeKind
from ullage.names import kind_of, member_id
from ullage.ports import Snapshot


class Snapshots:
    """See `ullage.ports.Provisioner`; deadlines are moments of `time.monotonic`."""

    def __init__(self, orders: Orders, view: ClusterView) -> None:
        """Both are shared with whoever orders volumes."""
        self._orders = orders
        self._view = view

    def take(self, request: TakeSnapshot, nodes: Sequence[NodeName], deadline: float) -> Snapshot:
        """See the port."""
        self._view.require_synced()
        found = self._orders.seek(request.snapshot_id)
        if found is not None and found.status.phase is Phase.FAILED and not found.is_condemned:
            self._orders.withdraw(found, deadline)  # its caller has not lived to do it
            found = None
        if found is None:
            source = self._source(request.source)
            self._check_place(request, source, nodes)
            found = self._orders.place(snapshot_order(request.snapshot_id, source))
        check_same_snapshot(request, found)
        self._check_place(request, found, nodes)
        found = self._orders.settled(found, deadline)
        if not found.is_ready:
            self._orders.withdraw(found, deadline)
            raise refused_as(_why(found))
        return taken(found)

    def delete(self, snapshot_id: VolumeId, deadline: float) -> None:
        """See the port."""
        self._view.require_synced()
        if kind_of(snapshot_id) is not VolumeKind.SNAPSHOT:
            return
        found = self._orders.seek(snapshot_id)
        if found is None:
            self._view.require_nowhere(snapshot_id)
        elif found.spec.kind is VolumeKind.SNAPSHOT:
            if found.spec.group is not None:
                raise InvalidRequestError(
                    f"{snapshot_id} is of the group {found.spec.group.name}, and goes with all of it only"
                )
            self._orders.withdraw(found, deadline)

    def take_group(self, request: TakeGroup, deadline: float) -> Sequence[Snapshot]:
        """See the port. The agent takes the group once all its members are ordered: all of them, or none."""
        self._view.require_synced()
        members = self._members(request.group_id)
        if members:
            check_same_group(request, members)
        if any(each.status.phase is Phase.FAILED for each in members):
            self._withdraw(members, deadline)  # its caller has not lived to do it
            members = ()
        if len(members) < len(request.sources):
            if any(each.is_ready for each in members):
                raise ConflictError(f"group {request.group_id} exists, and has lost some of its members")
            members = self._order_group(request)
        members = tuple(self._orders.settled(each, deadline) for each in members)
        failed = [each for each in members if not each.is_ready]
        if failed:
            self._withdraw(members, deadline)
            raise refused_as(_why(failed[0]))
        return tuple(taken(each) for each in sorted(members, key=lambda each: each.id))

    def delete_group(self, group: GroupId, snapshots: Sequence[VolumeId], deadline: float) -> None:
        """See the port."""
        self._view.require_synced()
        members = {each.id: each for each in self._members(group)}
        for snapshot_id in snapshots:
            if snapshot_id in members or kind_of(snapshot_id) is not VolumeKind.SNAPSHOT:
                continue
            found = self._orders.seek(snapshot_id)
            if found is None:
                self._view.require_nowhere(snapshot_id)
            elif found.spec.group is not None and found.spec.group.name == group:
                members[snapshot_id] = found
            elif members:
                raise InvalidRequestError(f"{snapshot_id} is no snapshot of group {group}")
        if not members.keys() <= set(snapshots):
            unnamed = ", ".join(sorted(members.keys() - set(snapshots)))
            raise InvalidRequestError(f"group {group} has members that are not named: {unnamed}")
        self._withdraw(tuple(members.values()), deadline)

    def group(self, group: GroupId) -> Sequence[Snapshot]:
        """See the port."""
        self._view.require_synced()
        members = self._members(group)
        if any(each.is_condemned or not each.is_ready for each in members):
            return ()
        return tuple(map(taken, members))

    def _members(self, group: GroupId) -> tuple[LogicalVolume, ...]:
        return self._view.group(group)

    def _order_group(self, request: TakeGroup) -> tuple[LogicalVolume, ...]:
        """Every member's order, on the one node of all their volumes; those that are there already are kept."""
        sources = [self._source(each) for each in sorted(request.sources)]
        nodes = sorted({each.node for each in sources})
        if len(nodes) > 1:
            where = ", ".join(f"{each.id} is on {each.node}" for each in sources)
            raise PreconditionError(f"volumes of several nodes cannot be held still together: {where}")
        names = tuple(each.id for each in sources)
        members = []
        for source in sources:
            member = member_id(request.group_id, source.id)
            wanted = snapshot_order(member, source, group=request.group_id, sources=names)
            members.append(self._orders.find(member) or self._orders.place(wanted))
        check_same_group(request, members)
        return tuple(members)

    def _withdraw(self, members: Sequence[LogicalVolume], deadline: float) -> None:
        """All of them at once."""
        for each in members:
            self._orders.condemn(each)
        for each in members:
            self._orders.gone(each, deadline)

    def _source(self, source: VolumeId) -> LogicalVolume:
        """The volume, as it is; raises NotFoundError, InvalidRequestError, VolumeNotReadyError."""
        found = self._orders.seek(source)
        if found is None:
            raise NotFoundError(f"no volume has the id {source}", volume_id=source)
        if found.spec.kind is not VolumeKind.VOLUME:
            raise InvalidRequestError(f"{source} is a snapshot itself; snapshots are taken of volumes")
        if found.is_condemned or not found.is_ready:
            state = "being deleted" if found.is_condemned else "not ready yet"
            raise VolumeNotReadyError(f"volume {source} is {state}", volume_id=source)
        return found

    def _check_place(self, request: TakeSnapshot, where: LogicalVolume, nodes: Sequence[NodeName]) -> None:
        if nodes and where.node not in nodes:
            raise InvalidRequestError(
                f"a snapshot of {request.source} is wanted on {', '.join(nodes)}; it can be on {where.node} only"
            )


def _why(failed: LogicalVolume) -> Problem:
    return failed.problem(READY) or Problem(reason="", message=f"{failed.node} refused {failed.id}")
