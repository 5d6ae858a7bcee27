"""What the controller knows of its cluster: three informers, and what CSI's nouns are in their objects.

Everything is answered from memory. Before all three have listed once nothing is: not to know is not to know it gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from ullage.errors import (
    ConfigError,
    InvalidRequestError,
    PreconditionError,
    SnapshotOverflowedError,
    UnavailableError,
    UnknownDeviceClassError,
    VolumeNotReadyError,
)
from ullage.kube.api import Api
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import DEGRADED, READY, LogicalVolume, Phase
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, find
from ullage.kube.node_storage import CAPACITY_KNOWN, NodeStorage
from ullage.model import DeviceClass, DeviceClassName, GroupId, NodeName, Pool, Problem, VolumeId, VolumeKind, Wipe
from ullage.ports import Provisioned, Snapshot
from ullage.stock import Candidate, pools_left, why_unknown

LOST = frozenset({SnapshotOverflowedError.reason})
"""Problems of a snapshot that nobody can mend: it does not hold any more what it was taken for."""

log = logging.getLogger(__name__)


class ClusterView:
    """Thread-safe. `volumes`, `storages` and `classes` are informers, for those who wait on them or add handlers."""

    def __init__(self, api: Api, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Nothing is read before `start`."""
        self.volumes: Informer[LogicalVolume] = Informer(
            api, LOGICAL_VOLUMES, LogicalVolume, indexes={"node": _nodes, "group": _groups}
        )
        self.storages: Informer[NodeStorage] = Informer(api, NODE_STORAGES, NodeStorage)
        self.classes: Informer[DeviceClassObject] = Informer(api, DEVICE_CLASSES, DeviceClassObject)
        self._informers = (self.volumes, self.storages, self.classes)
        self._clock = clock
        self._policies: dict[tuple[str, str], DeviceClass | ConfigError] = {}
        self.classes.on_change(_tell_unreadable)

    def start(self) -> None:
        """Begin to read."""
        for informer in self._informers:
            informer.start()

    def stop(self) -> None:
        """End."""
        for informer in self._informers:
            informer.stop()

    @property
    def is_synced(self) -> bool:
        """Whether everything was listed once."""
        return all(informer.is_synced for informer in self._informers)

    def wait_until_synced(self, timeout_seconds: float) -> bool:
        """Whether it is, at the latest after this time."""
        ends = time.monotonic() + timeout_seconds
        return all(each.wait_until_synced(max(0.0, ends - time.monotonic())) for each in self._informers)

    def require_synced(self) -> None:
        """Raise UnavailableError unless everything was listed once."""
        if not self.is_synced:
            missing = ", ".join(each.resource.plural for each in self._informers if not each.is_synced)
            raise UnavailableError(f"The API server has not told us yet of all {missing}")

    # Classes.

    def device_class(self, name: DeviceClassName | None) -> DeviceClass:
        """See `ullage.ports.Provisioner.device_class`; ConfigError for an object that says nothing sensible."""
        found = self._classes()
        known = ", ".join(sorted(found)) or "none"
        if name is not None:
            if name not in found:
                raise UnknownDeviceClassError(f"no DeviceClass {name!r} in this cluster; there are: {known}")
            policy = found[name]
            if isinstance(policy, ConfigError):
                raise policy
            return policy
        default = [each for each in found.values() if isinstance(each, DeviceClass)]
        default = [each for each in default if each.is_default or len(found) == 1]
        if len(default) != 1:
            what = "none is the default" if not default else f"{len(default)} are the default"
            raise InvalidRequestError(f"no device class is named, and {what}; there are: {known}")
        return default[0]

    def device_classes(self) -> dict[DeviceClassName, DeviceClass]:
        """All that can be read."""
        return {name: each for name, each in self._classes().items() if isinstance(each, DeviceClass)}

    def _classes(self) -> dict[DeviceClassName, DeviceClass | ConfigError]:
        """Each object is read once."""
        known, policies = self._policies, {}
        for each in self.classes.all():
            key = (each.metadata.name, each.metadata.resource_version)
            policies[key] = known[key] if key in known else _policy(each)
        self._policies = policies
        return {DeviceClassName(name): policy for (name, _), policy in policies.items()}

    # Room.

    def candidates(
        self, nodes: Sequence[NodeName], *, also: Mapping[VolumeId, LogicalVolume], without: Iterable[NodeName]
    ) -> list[Candidate]:
        """What the nodes have left (none named: all), `also` with orders that are on their way."""
        left_out = set(without)
        names = nodes or sorted(each.node for each in self.storages.all())
        classes = self.device_classes()
        return [self._candidate(node, classes, also) for node in names if node not in left_out]

    def pools(self, node: NodeName | None) -> list[Pool]:
        """What is left on a node, or on all, as far as it is known."""
        found = self.candidates((node,) if node else (), also={}, without=())
        return [pool for each in found if not each.unknown for pool in each.pools.values()]

    def _candidate(
        self, node: NodeName, classes: Mapping[DeviceClassName, DeviceClass], also: Mapping[VolumeId, LogicalVolume]
    ) -> Candidate:
        storage = self.storages.get(node)
        unknown = why_unknown(storage, self._clock())
        if storage is None or unknown:
            return Candidate(node=node, pools={}, unknown=unknown)
        ordered = {**also, **{each.id: each for each in self.volumes.by_index("node", node)}}
        return Candidate(node=node, pools=pools_left(storage, ordered.values(), classes))

    def is_unheard(self, volume: LogicalVolume) -> bool:
        """Whether its agent has not spoken of it yet, or not reported since: as far as is known here."""
        if volume.status.phase is Phase.PENDING:
            return True
        storage = self.storages.get(volume.node)
        return volume.is_ready and storage is not None and storage.status.revision < volume.status.revision

    def wait_answered(self, volume: LogicalVolume, deadline: float) -> None:
        """Wait for its agent's word on an order, which need not be known here yet."""
        self.volumes.wait(
            volume.id,
            lambda now: now is not None and now.status.phase is not Phase.PENDING,
            max(0.0, deadline - time.monotonic()),
        )

    def wait_reported(self, volume: LogicalVolume, deadline: float) -> None:
        """Wait for its node's next report, if the last one is older than what its agent has said of it."""
        self.storages.wait(
            volume.node,
            lambda now: now is None or now.status.revision >= volume.status.revision,
            max(0.0, deadline - time.monotonic()),
        )

    def require_nowhere(self, volume_id: VolumeId) -> None:
        """Say of a volume without an object that it is gone.

        Raises PreconditionError when a node has it all the same, UnavailableError while one may.
        """
        for storage in self.storages.all():
            if volume_id in storage.strays:
                raise PreconditionError(
                    f"{volume_id} has lost its object and is still on {storage.node}: `ullage recover` makes it anew",
                    volume_id=volume_id,
                    node=storage.node,
                )
            known = find(storage.status.conditions, CAPACITY_KNOWN)
            if not storage.status.observed_at or (known is not None and not known.is_true):
                why = known.message if known is not None and not known.is_true else "its agent has not reported it yet"
                raise UnavailableError(
                    f"{volume_id} has no object, and may be on {storage.node}, whose storage is not known: {why}",
                    volume_id=volume_id,
                    node=storage.node,
                )

    # Volumes and snapshots, as CSI knows them.

    def group(self, group: GroupId) -> tuple[LogicalVolume, ...]:
        """The members' objects, by id, in whichever state."""
        return tuple(sorted(self.volumes.by_index("group", group), key=lambda each: each.id))

    def listed(self, kind: VolumeKind) -> list[LogicalVolume]:
        """Nothing is said to exist before it does, or after it was condemned; by id."""
        found = (each for each in self.volumes.all() if each.spec.kind is kind)
        return sorted((each for each in found if each.is_ready and not each.is_condemned), key=lambda each: each.id)


def provisioned(volume: LogicalVolume) -> Provisioned:
    """A volume that is there; raises VolumeNotReadyError."""
    _require_whole(volume)
    return Provisioned(
        id=volume.id,
        node=volume.node,
        device_class=DeviceClassName(volume.spec.device_class),
        size_bytes=volume.status.size_bytes,
        wipe=volume.status.wipe or volume.spec.wipe or Wipe.NONE,
        source=volume.source,
        problem=_problem(volume),
    )


def taken(volume: LogicalVolume) -> Snapshot:
    """A snapshot that is there; raises VolumeNotReadyError."""
    _require_whole(volume)
    problem = _problem(volume)
    return Snapshot(
        id=volume.id,
        source=volume.source or VolumeId(""),
        node=volume.node,
        size_bytes=volume.status.size_bytes,
        taken_at=volume.status.taken_at,
        is_ready=problem is None or problem.reason not in LOST,
        group=GroupId(volume.spec.group.name) if volume.spec.group else None,
        problem=problem,
    )


def _require_whole(volume: LogicalVolume) -> None:
    if volume.is_condemned:
        raise VolumeNotReadyError(f"{volume.id} is being deleted", volume_id=volume.id)
    if not volume.is_ready:
        raise VolumeNotReadyError(f"{volume.id} is still {volume.status.phase}", volume_id=volume.id)


def _problem(volume: LogicalVolume) -> Problem | None:
    return volume.problem(READY) or volume.problem(DEGRADED)


def _nodes(volume: LogicalVolume) -> Iterable[str]:
    return (volume.spec.node_name,)


def _groups(volume: LogicalVolume) -> Iterable[str]:
    return (volume.spec.group.name,) if volume.spec.group else ()


def _policy(found: DeviceClassObject) -> DeviceClass | ConfigError:
    try:
        return found.device_class
    except ConfigError as error:
        return error


def _tell_unreadable(_before: DeviceClassObject | None, after: DeviceClassObject | None) -> None:
    policy = None if after is None else _policy(after)
    if isinstance(policy, ConfigError):
        log.error("device class not taken", extra={"why": str(policy)})
