"""What every Kubernetes object has, as far as we read it, and where the kinds we use are found.

Structs name the fields we use and no others: a list of 5,000 Nodes costs 3 MiB that way (everything: 374).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

import msgspec

from ullage.model import Problem

GROUP = "ullage.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Key: TypeAlias = tuple[str, str]
"""Namespace (empty where there is none) and name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of object, as the API server's paths call it."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = False

    @property
    def api_version(self) -> str:
        """As objects of this kind say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """Of one object, or without a name of all (of one namespace, or without one of all)."""
        root = f"/apis/{self.group}" if self.group else "/api"
        parts = [root, self.version, *(("namespaces", namespace) if namespace else ()), self.plural, name, subresource]
        return "/".join(part for part in parts if part)


LOGICAL_VOLUMES = Resource(group=GROUP, version=VERSION, plural="logicalvolumes", kind="LogicalVolume")
NODE_STORAGES = Resource(group=GROUP, version=VERSION, plural="nodestorages", kind="NodeStorage")
DEVICE_CLASSES = Resource(group=GROUP, version=VERSION, plural="deviceclasses", kind="DeviceClass")
NODES = Resource(group="", version="v1", plural="nodes", kind="Node")
PERSISTENT_VOLUMES = Resource(group="", version="v1", plural="persistentvolumes", kind="PersistentVolume")
CLAIMS = Resource(
    group="", version="v1", plural="persistentvolumeclaims", kind="PersistentVolumeClaim", is_namespaced=True
)
STORAGE_CLASSES = Resource(group="storage.k8s.io", version="v1", plural="storageclasses", kind="StorageClass")
STORAGE_CAPACITIES = Resource(
    group="storage.k8s.io", version="v1", plural="csistoragecapacities", kind="CSIStorageCapacity", is_namespaced=True
)
DEFINITIONS = Resource(
    group="apiextensions.k8s.io", version="v1", plural="customresourcedefinitions", kind="CustomResourceDefinition"
)
EVENTS = Resource(group="events.k8s.io", version="v1", plural="events", kind="Event", is_namespaced=True)
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", is_namespaced=True)


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """metav1.OwnerReference."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """metav1.ObjectMeta."""

    name: str = ""
    namespace: str = ""
    generate_name: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


class KubeObject(Protocol):
    """Any object: a Struct with at least this."""

    @property
    def metadata(self) -> Meta:
        """Who it is."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """metav1.Condition: a statement about the object, as of a generation of its spec."""

    type: str
    status: str
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0

    @property
    def is_true(self) -> bool:
        """Unknown is not true."""
        return self.status == "True"


def condition(kind: str, problem: Problem | None, *, good: str = "AsWanted", generation: int = 0) -> Condition:
    """True without a problem; with one False, for its reason."""
    return Condition(
        type=kind,
        status="True" if problem is None else "False",
        reason=good if problem is None else problem.reason,
        message="" if problem is None else problem.message,
        observed_generation=generation,
    )


def conditions_after(
    before: Iterable[Condition], now: Iterable[Condition], *, moment: str | None = None
) -> tuple[Condition, ...]:
    """The conditions of `now`; one whose status has not changed keeps the time of its last transition."""
    known = {each.type: each for each in before}
    moment = moment or timestamp()
    return tuple(
        msgspec.structs.replace(
            each,
            last_transition_time=known[each.type].last_transition_time
            if each.type in known and known[each.type].status == each.status
            else moment,
        )
        for each in now
    )


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of this type."""
    return next((each for each in conditions if each.type == kind), None)


def timestamp(moment: datetime | None = None) -> str:
    """metav1.Time: whole seconds, UTC."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp(moment: datetime | None = None) -> str:
    """metav1.MicroTime."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
