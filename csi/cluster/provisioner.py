"""Volumes of a cluster, ordered as LogicalVolume objects from the agents of its nodes.

    look for the object ── none: choose a node by what is left, write the order ── wait for the agent's word
                                                                                    Ready:  the volume
                                                                                    Failed: take the object back;
                                                                                            no room: the next node

The object is the only memory. A call that runs out of time leaves it, and a repetition goes on with it, on its node,
whichever node is named then. An error that the provisioner of Kubernetes takes for final (see `csi.status`) is raised
only when there is no object any more, or it is another request's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from csi.cluster.changes import Changes
from csi.cluster.orders import Orders
from csi.cluster.refusals import ELSEWHERE, check_same, refused_as
from csi.cluster.snapshots import Snapshots
from csi.cluster.view import ClusterView, provisioned, taken
from ullage.errors import (
    InsufficientCapacityError,
    NotFoundError,
    PreconditionError,
    UllageError,
    VolumeNotReadyError,
)
from ullage.kube.api import Api
from ullage.kube.logical_volume import READY, LogicalVolume, Phase, order
from ullage.model import (
    ChangedBlocks,
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    ExpandVolume,
    GroupId,
    ModifyVolume,
    NodeName,
    Pool,
    Problem,
    TakeGroup,
    TakeSnapshot,
    VolumeId,
    VolumeKind,
)
from ullage.names import kind_of
from ullage.ports import Provisioned, Snapshot
from ullage.stock import COPIED_WITHIN, choose

UNHEARD_SECONDS = 0.5
"""So often it is looked whether an order is still what is waited for."""

log = logging.getLogger(__name__)


class ClusterProvisioner:
    """Implements `ullage.ports.Provisioner`."""

    def __init__(self, api: Api, view: ClusterView) -> None:
        """The view is started and stopped by others."""
        self._view = view
        self._orders = Orders(api, view.volumes)
        self._changes = Changes(self._orders, view)
        self._snapshots = Snapshots(self._orders, view)
        self._choosing = threading.Lock()
        self._on_their_way: dict[VolumeId, LogicalVolume] = {}
        """Orders that have been decided on, and are not yet in memory as objects."""

    def create(self, request: CreateVolume, nodes: Sequence[NodeName], *, patience_seconds: float) -> Provisioned:
        """See the port."""
        deadline = time.monotonic() + patience_seconds
        self._view.require_synced()
        refusals: dict[NodeName, UllageError] = {}
        found = self._orders.find(request.volume_id)
        if found is not None and found.status.phase is Phase.FAILED and not found.is_condemned:
            self._orders.withdraw(found, deadline)  # its caller has not lived to do it
            found = None
        while True:
            if found is None:
                found = self._ordered(request, nodes, refusals, deadline)
            check_same(request, found)
            found = self._orders.settled(found, deadline)
            if found.is_ready:
                check_same(request, found)
                return provisioned(found)
            why = found.problem(READY) or Problem(reason="", message=f"{found.node} refused {found.id}")
            self._orders.withdraw(found, deadline)
            log.info(
                "order refused",
                extra={"volume_id": found.id, "node": found.node, "reason": why.reason, "why": why.message},
            )
            if why.reason not in ELSEWHERE:
                raise refused_as(why)
            refusals[found.node] = InsufficientCapacityError(f"No room for {found.id}: {found.node}: {why.message}")
            found = None

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Provisioned:
        """See the port."""
        return provisioned(self._changes.expand(request, time.monotonic() + patience_seconds))

    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Provisioned:
        """See the port."""
        return provisioned(self._changes.modify(request, time.monotonic() + patience_seconds))

    def delete(self, volume_id: VolumeId, *, patience_seconds: float) -> None:
        """See the port. PreconditionError when the volume is on a node, and its object is lost."""
        deadline = time.monotonic() + patience_seconds
        self._view.require_synced()
        if kind_of(volume_id) is not VolumeKind.VOLUME:
            return
        found = self._orders.seek(volume_id)
        if found is None:
            self._view.require_nowhere(volume_id)
        elif found.spec.kind is VolumeKind.VOLUME:
            self._orders.withdraw(found, deadline)

    def get(self, volume_id: VolumeId) -> Provisioned:
        """See the port."""
        return provisioned(self._known(volume_id, VolumeKind.VOLUME))

    def volumes(self) -> Sequence[Provisioned]:
        """See the port."""
        self._view.require_synced()
        return tuple(map(provisioned, self._view.listed(VolumeKind.VOLUME)))

    def snapshot(self, request: TakeSnapshot, nodes: Sequence[NodeName], *, patience_seconds: float) -> Snapshot:
        """See the port."""
        return self._snapshots.take(request, nodes, time.monotonic() + patience_seconds)

    def delete_snapshot(self, snapshot_id: VolumeId, *, patience_seconds: float) -> None:
        """See the port. PreconditionError as for `delete`."""
        self._snapshots.delete(snapshot_id, time.monotonic() + patience_seconds)

    def get_snapshot(self, snapshot_id: VolumeId) -> Snapshot:
        """See the port."""
        return taken(self._known(snapshot_id, VolumeKind.SNAPSHOT))

    def snapshots(self) -> Sequence[Snapshot]:
        """See the port."""
        self._view.require_synced()
        return tuple(map(taken, self._view.listed(VolumeKind.SNAPSHOT)))

    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> Sequence[Snapshot]:
        """See the port."""
        return self._snapshots.take_group(request, time.monotonic() + patience_seconds)

    def delete_group(self, group: GroupId, snapshots: Sequence[VolumeId], *, patience_seconds: float) -> None:
        """See the port."""
        self._snapshots.delete_group(group, snapshots, time.monotonic() + patience_seconds)

    def group(self, group: GroupId) -> Sequence[Snapshot]:
        """See the port. One that is still being taken, or is going, is none."""
        return self._snapshots.group(group)

    def allocated(self, snapshot_id: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        """See the port: always PreconditionError, which says where it can be told."""
        del start_bytes
        raise self._told_elsewhere(snapshot_id)

    def changed(self, base: VolumeId, target: VolumeId, *, start_bytes: int) -> ChangedBlocks:
        """See the port: as `allocated`."""
        del base, start_bytes
        raise self._told_elsewhere(target)

    def pools(self, node: NodeName | None) -> Sequence[Pool]:
        """See the port. What is ordered there already is taken off."""
        self._view.require_synced()
        return self._view.pools(node)

    def device_class(self, name: DeviceClassName | None) -> DeviceClass:
        """See the port. ConfigError for an object that nobody can follow."""
        self._view.require_synced()
        return self._view.device_class(name)

    def _ordered(
        self,
        request: CreateVolume,
        nodes: Sequence[NodeName],
        refusals: Mapping[NodeName, UllageError],
        deadline: float,
    ) -> LogicalVolume:
        """The order, written, on the node that was chosen for it; or the one that is there, which nobody had seen."""
        try:
            wanted = self._decided_for_certain(request, nodes, refusals, deadline)
        except UllageError:
            found = self._orders.read(request.volume_id)
            if found is None:
                raise
            return found
        try:
            return self._orders.place(wanted)
        finally:
            with self._choosing:
                del self._on_their_way[wanted.id]

    def _decided_for_certain(
        self,
        request: CreateVolume,
        nodes: Sequence[NodeName],
        refusals: Mapping[NodeName, UllageError],
        deadline: float,
    ) -> LogicalVolume:
        """See `_decided`. It is not refused while that may be an error.

        An order that was carved a moment ago can be in its node's report, and not be known here as carved: it is
        counted twice, and the last room of a node is not seen. Its agent's word is waited for then.
        """
        is_certain = False
        while True:
            try:
                return self._decided(request, nodes, refusals)
            except InsufficientCapacityError:
                if is_certain or time.monotonic() >= deadline:
                    raise
            unheard = self._unheard(nodes)
            is_certain = unheard is None  # as of now: what was decided may be older, so it is decided again
            ends = min(deadline, time.monotonic() + UNHEARD_SECONDS)  # its write may fail, and then nobody speaks of it
            if unheard is not None and unheard.is_ready:
                self._view.wait_reported(unheard, ends)
            elif unheard is not None:
                self._view.wait_answered(unheard, ends)

    def _unheard(self, nodes: Sequence[NodeName]) -> LogicalVolume | None:
        """An order on these nodes that may be counted twice, the oldest one."""
        with self._choosing:
            coming = [each for each in self._on_their_way.values() if each.node in nodes]
        found = {each.id: each for each in coming}
        found |= {each.id: each for node in nodes for each in self._view.volumes.by_index("node", node)}
        unheard = (each for each in found.values() if not each.is_condemned and self._view.is_unheard(each))
        return min(unheard, key=lambda each: (each.metadata.creation_timestamp, each.id), default=None)

    def _decided(
        self, request: CreateVolume, nodes: Sequence[NodeName], refusals: Mapping[NodeName, UllageError]
    ) -> LogicalVolume:
        """The order, on its way: whoever chooses next counts it."""
        device_class = self._view.device_class(request.device_class)
        pinned = request
        if request.source is not None:
            source = self._source(request.source)
            if nodes and source.node not in nodes:
                raise InsufficientCapacityError(
                    f"{request.volume_id} is wanted on {', '.join(nodes[:3])}; "
                    f"{source.id}, which it begins as, is on {source.node} only",
                    node=source.node,
                )
            nodes = (source.node,)
            pinned = replace(request, pool=source.pool) if self._is_copied_within(source) else request
        with self._choosing:
            candidates = self._view.candidates(nodes, also=self._on_their_way, without=refusals)
            if not candidates and refusals:
                raise list(refusals.values())[-1]
            wanted = order(request, choose(pinned, device_class, candidates))
            self._on_their_way[wanted.id] = wanted
        return wanted

    def _source(self, source: VolumeId) -> LogicalVolume:
        """What a copy begins as; raises NotFoundError, VolumeNotReadyError."""
        found = self._orders.seek(source)
        if found is None or found.spec.kind is not kind_of(source):
            raise NotFoundError(f"no {kind_of(source)} has the id {source}", volume_id=source)
        if found.is_condemned or not found.is_ready:
            state = "being deleted" if found.is_condemned else "not ready yet"
            raise VolumeNotReadyError(f"{source} is {state}", volume_id=source)
        return found

    def _is_copied_within(self, source: LogicalVolume) -> bool:
        storage = self._view.storages.get(source.node)
        pools = storage.pools if storage is not None else ()
        return any(pool.name == source.pool and pool.type in COPIED_WITHIN for pool in pools)

    def _known(self, volume_id: VolumeId, kind: VolumeKind) -> LogicalVolume:
        """From memory; raises NotFoundError, UnavailableError."""
        self._view.require_synced()
        found = self._orders.find(volume_id)
        if found is None or found.spec.kind is not kind:
            raise NotFoundError(f"no {kind} has the id {volume_id}", volume_id=volume_id)
        return found

    def _told_elsewhere(self, snapshot_id: VolumeId) -> PreconditionError:
        node = self._known(snapshot_id, VolumeKind.SNAPSHOT).node
        return PreconditionError(
            f"The blocks of {snapshot_id} are told by the node that has it: ask the driver's socket on {node}",
            node=node,
        )
