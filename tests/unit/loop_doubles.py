"""A small cluster for the controller's loops: objects as they would be, and who listens to what they tell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec

from tests.unit.kube_doubles import ApiServer
from ullage.errors import GIB, MIB
from ullage.kube.api import Api
from ullage.kube.foreign import (
    Claim,
    ClaimSpec,
    CsiSource,
    Node,
    ObjectReference,
    PersistentVolume,
    PersistentVolumeSpec,
    StorageClass,
)
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import READY, ClaimRef, LogicalVolume, Phase, Status, order
from ullage.kube.meta import (
    CLAIMS,
    LOGICAL_VOLUMES,
    NODES,
    PERSISTENT_VOLUMES,
    Condition,
    Meta,
    timestamp,
)
from ullage.kube.node_storage import NodeStorage, OrphanStatus, StorageStatus, pool_status
from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    NodeName,
    OrphanKind,
    Pool,
    PoolName,
    StoreName,
    VolumeId,
)
from ullage.storage_classes import CLASS_KEY, DRIVER

ENOUGH_SECONDS = 10.0
FAST = DeviceClassName("fast")
CLASSES: Mapping[DeviceClassName, DeviceClass] = {FAST: DeviceClass(name=FAST, type=DeviceType.FILE)}
NOW = datetime.now(UTC)
LONG_AGO = timestamp(NOW - timedelta(hours=1))


@dataclass
class Heard:
    """Implements `csi.cluster.telling.Telling`."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    _told: threading.Condition = field(default_factory=threading.Condition)

    def tell(
        self, about: ObjectReference, *, reason: str, message: str, is_warning: bool = False, action: str = ""
    ) -> None:
        del message, is_warning, action
        with self._told:
            self.events.append((about.kind, about.name, reason))
            self._told.notify_all()

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Block until it holds; a test that would wait long fails."""
        with self._told:
            assert self._told.wait_for(holds, ENOUGH_SECONDS), self.events


def pool(free_bytes: int = 10 * GIB, name: str = "files", device_class: DeviceClassName = FAST) -> Pool:
    return Pool(
        name=PoolName(name),
        store=StoreName(name),
        type=DeviceType.FILE,
        classes=(device_class,),
        total_bytes=100 * GIB,
        free_bytes=free_bytes,
        extent_bytes=MIB,
    )


def storage(
    node: str = "n1", *pools: Pool, orphans: tuple[OrphanStatus, ...] = (), labels: dict[str, str] | None = None
) -> NodeStorage:
    return NodeStorage(
        metadata=Meta(name=node, labels=labels or {}),
        status=StorageStatus(
            revision=10,
            observed_at=timestamp(NOW),
            pools=tuple(pool_status(each, each.free_bytes) for each in pools),
            orphans=orphans,
        ),
    )


def stray(name: str, **fields: object) -> OrphanStatus:
    """A volume with whole marks, of the claim `db/data`."""
    whole = OrphanStatus(
        name=name,
        kind=OrphanKind.VOLUME_WITHOUT_RECORD,
        message="it has no LogicalVolume",
        pool="files",
        device_class=FAST,
        size_bytes=GIB,
        claim_namespace="db",
        claim_name="data",
        persistent_volume=name,
        content="ext4",
    )
    return msgspec.structs.replace(whole, **fields)


def volume(name: str, node: str = "n1", *, claim: str = "data", why_not_ready: str = "") -> LogicalVolume:
    request = CreateVolume(volume_id=VolumeId(name), device_class=FAST, size_bytes=GIB)
    made = order(request, NodeName(node))
    ready = Condition(type=READY, status="False" if why_not_ready else "True", reason=why_not_ready or "AsWanted")
    return msgspec.structs.replace(
        made,
        metadata=msgspec.structs.replace(made.metadata, creation_timestamp=LONG_AGO),
        spec=msgspec.structs.replace(made.spec, claim_ref=ClaimRef(namespace="db", name=claim), persistent_volume=name),
        status=Status(phase=Phase.READY, pool="files", size_bytes=GIB, revision=5, conditions=(ready,)),
    )


def persistent(
    name: str, handle: str = "", *, claim_uid: str = "", labels: dict[str, str] | None = None
) -> PersistentVolume:
    return PersistentVolume(
        metadata=Meta(name=name, labels=labels or {}),
        spec=PersistentVolumeSpec(
            csi=CsiSource(driver=DRIVER, volume_handle=handle or name),
            claim_ref=ObjectReference(namespace="db", name="data", uid=claim_uid),
        ),
    )


def storage_class(name: str = "fast", device_class: str = FAST, **fields: object) -> StorageClass:
    made = StorageClass(
        metadata=Meta(name=name),
        provisioner=DRIVER,
        parameters={CLASS_KEY: device_class},
        volume_binding_mode="WaitForFirstConsumer",
        reclaim_policy="Delete",
    )
    return msgspec.structs.replace(made, **fields)


def node(name: str) -> Node:
    return Node(metadata=Meta(name=name))


def claim(volume_name: str, *, annotations: dict[str, str] | None = None, **fields: object) -> Claim:
    made = Claim(
        metadata=Meta(name="data", namespace="db", uid="claim-uid", annotations=annotations or {}),
        spec=ClaimSpec(volume_name=volume_name, storage_class_name="fast"),
    )
    return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, **fields))


def bound_claim(server: ApiServer, name: str, *, annotations: dict[str, str] | None = None) -> None:
    """The claim `db/data` with the PersistentVolume and the LogicalVolume of this name behind it."""
    server.put(CLAIMS, claim(name, annotations=annotations), namespace="db")
    server.put(PERSISTENT_VOLUMES, persistent(name, claim_uid="claim-uid"))
    server.put(LOGICAL_VOLUMES, volume(name))


class Reads(Protocol):
    """An informer, or several."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait_until_synced(self, timeout_seconds: float) -> bool: ...


@contextmanager
def running(*readers: Reads) -> Iterator[None]:
    for each in readers:
        each.start()
    for each in readers:
        assert each.wait_until_synced(ENOUGH_SECONDS)
    yield
    for each in readers:
        each.stop()


def nodes_of(server: ApiServer) -> Informer[Node]:
    return Informer(Api(server), NODES, Node)
