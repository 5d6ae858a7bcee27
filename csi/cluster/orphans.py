"""Halves: volumes without objects, objects without volumes, PersistentVolumes without either.

They are told of (a metric, an event each, `ullage orphans`) and never deleted: every one of them may be the last trace
of somebody's data. A label says that one is known and is not to be told of again.

Objects and PersistentVolumes come and go one after the other, so what is found once may be on its way: the scanner
tells of what it finds twice in a row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from csi.cluster.repeat import Repeated
from csi.cluster.telling import Telling, reference
from csi.cluster.view import ClusterView
from ullage.kube.api import Api
from ullage.kube.foreign import ObjectReference, PersistentVolume
from ullage.kube.listing import everything
from ullage.kube.logical_volume import READY, LogicalVolume
from ullage.kube.meta import LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES, Meta
from ullage.kube.node_storage import ACKNOWLEDGED, NodeStorage, OrphanStatus
from ullage.model import OrphanKind, VolumeKind
from ullage.storage_classes import DRIVER

KNOWN = f"{DRIVER}/acknowledged"
"""A label's key: this LogicalVolume or PersistentVolume is known to be half of something."""
MISSING = "VolumeMissing"
"""The reason of a LogicalVolume that is not ready because its volume is not there."""
YOUNG = timedelta(minutes=10)
"""A LogicalVolume younger than this may still get its PersistentVolume."""
SCAN_SECONDS = 300.0

log = logging.getLogger(__name__)


class Half(StrEnum):
    """What is there of it, and what is not."""

    VOLUME_WITHOUT_OBJECT = "volume_without_object"
    HALF_A_VOLUME = "half_a_volume"
    """Its node cannot even read whose it is."""
    OBJECT_WITHOUT_VOLUME = "object_without_volume"
    OBJECT_WITHOUT_PV = "object_without_pv"
    """For information: somebody may have made it by hand, or kept it by deleting its PersistentVolume."""
    PV_WITHOUT_OBJECT = "pv_without_object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """One half. `about` is the object that tells of it, and that the label is put on."""

    kind: Half
    name: str
    """The volume's id, or the PersistentVolume's name."""
    node: str = ""
    device_class: str = ""
    size_bytes: int = 0
    claim: str = ""
    message: str
    is_known: bool
    about: ObjectReference
    label: str
    """The key that says that it is known."""


def orphans(
    storages: Iterable[NodeStorage],
    volumes: Iterable[LogicalVolume],
    persistent_volumes: Iterable[PersistentVolume],
    *,
    now: datetime | None = None,
) -> tuple[Orphan, ...]:
    """Every half, the acknowledged ones too; what is on its way out is none."""
    known = {each.metadata.name: each for each in volumes}
    ours = [each for each in persistent_volumes if each.spec.csi is not None and each.spec.csi.driver == DRIVER]
    handles = {each.spec.csi.volume_handle for each in ours if each.spec.csi is not None}
    young = (now or datetime.now(UTC)) - YOUNG
    found = [_stray(storage, each, known.get(each.name)) for storage in storages for each in storage.status.orphans]
    found += [_object(each, handles, young) for each in known.values() if not each.is_condemned]
    found += [_persistent(each, known) for each in ours if not each.metadata.deletion_timestamp]
    return tuple(
        sorted((each for each in found if each is not None), key=lambda each: (each.kind, each.node, each.name))
    )


class OrphanScanner:
    """One thread from `start` to `stop`, while this controller leads; may be started again."""

    def __init__(
        self,
        api: Api,
        view: ClusterView,
        events: Telling,
        *,
        scan_seconds: float = SCAN_SECONDS,
    ) -> None:
        """Nothing is looked at before `start`.

        PersistentVolumes are listed at each scan: nothing else here needs them, and a watch of all of a cluster's would
        cost more.
        """
        self._view = view
        self._events = events
        self._api = api
        self._before: frozenset[tuple[Half, str, str]] = frozenset()
        self._told: frozenset[tuple[Half, str, str]] = frozenset()
        self._counts: Counter[Half] | None = None
        self._loop = Repeated("orphans", scan_seconds, self.scan)

    @property
    def counts(self) -> Mapping[str, int] | None:
        """How many there are of each kind, acknowledged ones left out; None: not known (yet, or here)."""
        counts = self._counts
        return None if counts is None else {str(kind): counts[kind] for kind in Half}

    def start(self) -> None:
        """Begin to look."""
        self._before = frozenset()
        self._loop.start()

    def stop(self) -> None:
        """End after the scan under way; from then on this process knows of none."""
        self._loop.stop()
        self._counts = None

    def scan(self) -> None:
        """Look once; raises UllageError, and then nothing is known anew."""
        self._view.require_synced()
        # Before the volumes: each of these had its LogicalVolume when it was made.
        persistent_volumes = tuple(everything(self._api, PERSISTENT_VOLUMES, PersistentVolume))
        found = orphans(self._view.storages.all(), self._view.volumes.all(), persistent_volumes)
        open_ones = {(each.kind, each.node, each.name): each for each in found if not each.is_known}
        steady = open_ones.keys() & self._before
        for key in sorted(steady - self._told):
            orphan = open_ones[key]
            log.warning("orphan", extra={"kind": orphan.kind, "orphan": orphan.name, "node": orphan.node})
            self._events.tell(orphan.about, reason="Orphan", message=orphan.message, is_warning=True)
        self._told = frozenset(steady)
        self._before = frozenset(open_ones)
        self._counts = Counter(kind for kind, _, _ in steady)


def _stray(storage: NodeStorage, orphan: OrphanStatus, known: LogicalVolume | None) -> Orphan | None:
    """What an agent has found; None for one whose object has come since it reported."""
    node = storage.metadata.name
    is_whole = orphan.kind is OrphanKind.VOLUME_WITHOUT_RECORD and bool(orphan.device_class)
    if is_whole and known is not None and known.node == node:
        return None
    elsewhere = (
        f"; the object of this name is about node {known.node}" if known is not None and known.node != node else ""
    )
    label = ACKNOWLEDGED + orphan.name
    return Orphan(
        kind=Half.VOLUME_WITHOUT_OBJECT if is_whole else Half.HALF_A_VOLUME,
        name=orphan.name,
        node=node,
        device_class=orphan.device_class,
        size_bytes=orphan.size_bytes,
        claim=f"{orphan.claim_namespace}/{orphan.claim_name}" if orphan.claim_name else "",
        message=f"{orphan.name} on node {node}: {orphan.message}{elsewhere}",
        is_known=label in storage.metadata.labels,
        about=reference(NODE_STORAGES, storage),
        label=label,
    )


def _object(volume: LogicalVolume, handles: set[str], young: datetime) -> Orphan | None:
    problem = volume.problem(READY)
    if problem is not None and problem.reason == MISSING:
        kind, message = Half.OBJECT_WITHOUT_VOLUME, f"{volume.id} is not on node {volume.node}: {problem.message}"
    elif (
        volume.is_ready
        and volume.spec.kind is VolumeKind.VOLUME
        and volume.id not in handles
        and _made(volume.metadata) < young
    ):
        asked = f" ({volume.answer.message})" if volume.answer is not None else ""
        kind = Half.OBJECT_WITHOUT_PV
        message = f"{volume.id} on node {volume.node} belongs to no PersistentVolume{asked}"
    else:
        return None
    claim = volume.spec.claim_ref
    return Orphan(
        kind=kind,
        name=volume.id,
        node=volume.node,
        device_class=volume.spec.device_class,
        size_bytes=volume.status.size_bytes or volume.spec.size_bytes,
        claim=f"{claim.namespace}/{claim.name}" if claim else "",
        message=message,
        is_known=KNOWN in volume.metadata.labels,
        about=reference(LOGICAL_VOLUMES, volume),
        label=KNOWN,
    )


def _persistent(of: PersistentVolume, known: Mapping[str, LogicalVolume]) -> Orphan | None:
    handle = of.spec.csi.volume_handle if of.spec.csi is not None else ""
    if handle in known:
        return None
    claim = of.spec.claim_ref
    return Orphan(
        kind=Half.PV_WITHOUT_OBJECT,
        name=of.metadata.name,
        claim=f"{claim.namespace}/{claim.name}" if claim else "",
        message=f"PersistentVolume {of.metadata.name} stands for {handle}, and there is no such LogicalVolume",
        is_known=KNOWN in of.metadata.labels,
        about=reference(PERSISTENT_VOLUMES, of),
        label=KNOWN,
    )


def _made(meta: Meta) -> datetime:
    return datetime.fromisoformat(meta.creation_timestamp) if meta.creation_timestamp else datetime.now(UTC)
