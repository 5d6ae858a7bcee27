"""Two nodes and a controller over the API server in memory.

The agents keep their word as the real one does, without storage: each answers the orders for its node.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from csi.cluster.provisioner import ClusterProvisioner
from csi.cluster.view import ClusterView
from tests.unit.kube_doubles import ApiServer, Change
from ullage.errors import GIB, MIB, UllageError
from ullage.kube.api import Api
from ullage.kube.logical_volume import APPLIED, READY, LogicalVolume, Phase, Status
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, Condition, Meta, condition, timestamp
from ullage.kube.node_storage import NodeStorage, OrphanStatus, PoolStatus, StorageStatus
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    DeviceType,
    NodeName,
    OrphanKind,
    Problem,
    VolumeId,
    VolumeKind,
    Wipe,
)
from ullage.ports import Provisioned

EXTENT = 4 * MIB
TAKEN_AT = 1_800_000_000
POOL = "/srv/ullage"
A, B = NodeName("node-a"), NodeName("node-b")
FAST = DeviceClassName("fast")
V, W = VolumeId("pvc-v"), VolumeId("pvc-w")
LONG = 20.0
"""More than anything here takes: a test that waits for it has failed."""


def volume_of(server: ApiServer, name: str) -> LogicalVolume | None:
    """An object as the server has it now."""
    found = server.find(LOGICAL_VOLUMES, name)
    return None if found is None else msgspec.convert(found, LogicalVolume)


def put_class(server: ApiServer, name: str, **spec: object) -> None:
    """A DeviceClass of files."""
    fields = {"type": "file", "directory": POOL, **spec}
    server.put(DEVICE_CLASSES, {"metadata": {"name": name}, "spec": fields})


class ScriptedAgent:
    """One pool of files on one node. `refuse` says what is wrong with an order; asleep it answers nobody."""

    def __init__(
        self, server: ApiServer, node: str, *, total_bytes: int = 10 * GIB, classes: tuple[str, ...] = ("fast",)
    ) -> None:
        self.node = node
        self.total_bytes = total_bytes
        self.kept: dict[str, int] = {}
        self.in_use: set[str] = set()
        self.orphans: tuple[str, ...] = ()
        self.refuse: Callable[[LogicalVolume], Problem | None] = lambda _volume: None
        self.answered = 0
        self._server = server
        self._classes = classes
        self._is_asleep = False
        self._revision = 1
        self._guard = threading.RLock()
        server.watch_all(self._seen)
        self.report()

    def sleep(self) -> None:
        self._is_asleep = True

    def wake(self) -> None:
        self._is_asleep = False
        self.look()

    def report(self, *, observed_at: datetime | None = None, conditions: tuple[Condition, ...] = ()) -> None:
        """Publish what there is."""
        pool = PoolStatus(
            name=POOL,
            store=POOL,
            type=DeviceType.FILE,
            classes=self._classes,
            total_bytes=self.total_bytes,
            free_bytes=self.total_bytes - sum(self.kept.values()),
            extent_bytes=EXTENT,
        )
        orphans = tuple(
            OrphanStatus(name=each, kind=OrphanKind.VOLUME_WITHOUT_RECORD, message="it has no object")
            for each in self.orphans
        )
        status = StorageStatus(
            revision=self._revision,
            observed_at=timestamp(observed_at or datetime.now(UTC)),
            pools=(pool,),
            orphans=orphans,
            conditions=conditions,
        )
        self._server.put(NODE_STORAGES, NodeStorage(metadata=Meta(name=self.node), status=status))

    def look(self) -> None:
        """Answer every order that has no answer yet."""
        with self._guard:
            if self._is_asleep:
                return
            found = [msgspec.convert(each, LogicalVolume) for each in self._server.all(LOGICAL_VOLUMES).values()]
            here = {each.metadata.name: each for each in found if each.spec.node_name == self.node}
            for volume in here.values():
                self._answer(volume, here)

    def _seen(self, change: Change) -> None:
        if change.collection == LOGICAL_VOLUMES.path():
            self.look()

    def _answer(self, volume: LogicalVolume, here: Mapping[str, LogicalVolume]) -> None:
        if volume.is_condemned:
            self._remove(volume)
        elif volume.status.phase is Phase.PENDING:
            group = volume.spec.group
            if group is None or len([each for each in here.values() if each.spec.group == group]) == len(group.sources):
                self._make(volume)
        elif volume.is_ready and not volume.is_answered:
            self._change(volume)

    def _make(self, volume: LogicalVolume) -> None:
        size_bytes = -(-volume.spec.size_bytes // EXTENT) * EXTENT
        problem = self.refuse(volume) or self._no_room(size_bytes)
        generation = volume.metadata.generation
        if problem is not None:
            told = (
                condition(READY, problem, generation=generation),
                condition(APPLIED, problem, generation=generation),
            )
            self._tell(volume, Status(phase=Phase.FAILED, observed_generation=generation, conditions=told))
            return
        self.kept[volume.id] = size_bytes
        self._revision += 1
        self._tell(
            volume,
            Status(
                phase=Phase.READY,
                pool=POOL,
                size_bytes=size_bytes,
                wipe=volume.spec.wipe or Wipe.DISCARD,
                taken_at=TAKEN_AT if volume.spec.kind is VolumeKind.SNAPSHOT else 0,
                revision=self._revision,
                observed_generation=generation,
                conditions=(condition(READY, None), condition(APPLIED, None)),
            ),
        )
        self.report()

    def _change(self, volume: LogicalVolume) -> None:
        size_bytes = max(volume.status.size_bytes, -(-volume.spec.size_bytes // EXTENT) * EXTENT)
        problem = self.refuse(volume) or self._no_room(size_bytes - volume.status.size_bytes)
        wipe = volume.spec.wipe or volume.status.wipe
        if problem is not None:
            size_bytes, wipe = volume.status.size_bytes, volume.status.wipe
        self.kept[volume.id] = size_bytes
        self._revision += 1
        self._tell(
            volume,
            msgspec.structs.replace(
                volume.status,
                size_bytes=size_bytes,
                wipe=wipe,
                revision=self._revision,
                observed_generation=volume.metadata.generation,
                conditions=(condition(READY, None), condition(APPLIED, problem)),
            ),
        )
        self.report()

    def _remove(self, volume: LogicalVolume) -> None:
        if volume.id in self.in_use:
            problem = Problem(reason="VolumeInUse", message=f"{volume.id} is mounted")
            if volume.problem(READY) != problem:
                told = condition(READY, problem, generation=volume.metadata.generation)
                self._tell(volume, msgspec.structs.replace(volume.status, conditions=(told,)))
            return
        if self.kept.pop(volume.id, None) is not None:
            self._revision += 1
            self.report()
        self._server.remove(LOGICAL_VOLUMES, volume.id)

    def _no_room(self, size_bytes: int) -> Problem | None:
        free = self.total_bytes - sum(self.kept.values())
        if size_bytes <= free:
            return None
        return Problem(reason="InsufficientCapacity", message=f"{free} bytes free, {size_bytes} wanted")

    def _tell(self, volume: LogicalVolume, status: Status) -> None:
        self.answered += 1
        self._server.put_status(LOGICAL_VOLUMES, volume.id, status)


class Scene:
    """A cluster with two nodes and one class."""

    def __init__(self) -> None:
        self.server = ApiServer()
        put_class(self.server, FAST)
        self.a = ScriptedAgent(self.server, A)
        self.b = ScriptedAgent(self.server, B)
        self.views: list[ClusterView] = []
        self.controller = self.another()

    def another(self) -> ClusterProvisioner:
        """One more controller over the same API."""
        api = Api(self.server)
        view = ClusterView(api)
        view.start()
        assert view.wait_until_synced(LONG)
        self.views.append(view)
        return ClusterProvisioner(api, view)

    def stop(self) -> None:
        for view in self.views:
            view.stop()

    def create(
        self,
        volume_id: str = V,
        *nodes: NodeName,
        patience_seconds: float = LONG,
        **asked: Any,  # noqa: ANN401 - any field of a request
    ) -> Provisioned:
        return self.controller.create(request(volume_id, **asked), nodes, patience_seconds=patience_seconds)

    def seen(self, holds: Callable[[ClusterProvisioner], bool]) -> None:
        """Wait until the controller's memory is so far."""
        ends = datetime.now(UTC) + timedelta(seconds=LONG)
        while not holds(self.controller):
            assert datetime.now(UTC) < ends
            threading.Event().wait(0.005)


def request(volume_id: str = V, **asked: Any) -> CreateVolume:  # noqa: ANN401 - any of its fields
    wanted = CreateVolume(volume_id=VolumeId(volume_id), device_class=FAST, size_bytes=GIB)
    return replace(wanted, **asked)


def refused_by(action: Callable[[], object]) -> UllageError:
    with pytest.raises(UllageError) as refusal:
        action()
    return refusal.value


def deaf_threads(controller: ClusterProvisioner) -> set[threading.Thread]:
    """Those that read for this controller."""
    view = controller._view
    informers = (view.volumes, view.storages, view.classes)
    return {each._reader._thread for each in informers}
