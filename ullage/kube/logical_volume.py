"""LogicalVolume: the order for one volume or snapshot on one node, and what has become of it.

The controller writes `spec`, the agent of `spec.nodeName` writes `status` and takes the finalizer off; nobody else
writes either. The object's name is the volume's id everywhere. A status is about the spec of `observedGeneration`:
the orderer waits until that is the generation it has written.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from ullage.kube.meta import API_VERSION, GROUP, LOGICAL_VOLUMES, Condition, Meta, find
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    GroupId,
    NodeName,
    Owner,
    PoolName,
    Problem,
    VolumeId,
    VolumeKind,
    Wipe,
)
from ullage.names import kind_of

FINALIZER = f"{GROUP}/logical-volume"
RECOVERED = f"{GROUP}/recovered"
"""An annotation: the object was made after its volume, which is to be found and never to be carved. Its value is what
the device was found to hold."""
ABANDONED = f"{GROUP}/abandoned"
"""An annotation: nobody seems to want the volume any more. It asks the agent whether anything was ever written to it;
the value is the moment of the question, and tells it from others. The condition UNWRITTEN is the answer."""
READY = "Ready"
"""Condition: the volume can be used."""
APPLIED = "Applied"
"""Condition: the spec of `observedGeneration` is what there is. False: what was asked for last could not be done."""
DEGRADED = "Degraded"
"""Condition: it can be used, and a person should look at it."""

UNWRITTEN = "Unwritten"
"""Condition, only while ABANDONED asks for it: True when every byte was read, and was zero, after the question."""


class Phase(StrEnum):
    """Where an order is. FAILED: nothing of it is there, and nothing will be; it is to be deleted."""

    PENDING = "Pending"
    READY = "Ready"
    FAILED = "Failed"


class Source(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the volume begins as; one of the two."""

    volume: str = ""
    """A volume of the same node."""
    snapshot: str = ""
    """A snapshot on the same node."""


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Of a snapshot that is taken with others at one moment: all of them name the same volumes."""

    name: str
    """The group's id."""
    sources: tuple[str, ...]
    """All the volumes of which snapshots are taken at that moment."""


class ClaimRef(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The claim that the volume is for."""

    namespace: str
    name: str
    uid: str = ""


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The order. Of these only `sizeBytes`, `limitBytes` and `wipe` ever change."""

    node_name: str
    """Where it is to be, and stays."""
    device_class: str
    """The DeviceClass that says where on the node, and how."""
    size_bytes: int
    """A snapshot has its source's size, whatever is said here."""
    limit_bytes: int = 0
    """The most it may come to once it is rounded up; 0: no limit."""
    kind: VolumeKind = VolumeKind.VOLUME
    """A volume, or what one was at a moment."""
    source: Source | None = None
    """What it begins as; without: empty."""
    group: Group | None = None
    """Of a snapshot that is taken with others."""
    wipe: Wipe | None = None
    """Instead of the class's."""
    claim_ref: ClaimRef | None = None
    persistent_volume: str = ""
    """The name of the PersistentVolume that is made of it."""


class Status(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What there is."""

    phase: Phase = Phase.PENDING
    """Failed: nothing of it is there, and nothing will be; it is to be deleted."""
    pool: str = ""
    """Where on its node it is: one of the pools in the node's NodeStorage."""
    size_bytes: int = 0
    """What may be used."""
    wipe: Wipe | None = None
    """The policy that holds: the order's, or its class's when it was made."""
    taken_at: int = 0
    """Of a snapshot: seconds since 1970 (UTC)."""
    revision: int = 0
    """The node's storage is described with this volume in it from this revision of its NodeStorage on."""
    observed_generation: int = 0
    """The generation of the spec that this is about."""
    conditions: tuple[Condition, ...] = ()


class LogicalVolume(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """ullage.io/v1alpha1 LogicalVolume."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta
    spec: Spec
    status: Status = Status()

    @property
    def id(self) -> VolumeId:
        """The volume's id."""
        return VolumeId(self.metadata.name)

    @property
    def node(self) -> NodeName:
        """Where it is."""
        return NodeName(self.spec.node_name)

    @property
    def source(self) -> VolumeId | None:
        """What it begins as."""
        found = self.spec.source
        return VolumeId(found.snapshot or found.volume) if found else None

    @property
    def pool(self) -> PoolName | None:
        """Where on its node it is, once it is."""
        return PoolName(self.status.pool) if self.status.pool else None

    @property
    def is_condemned(self) -> bool:
        """Whether it is to go."""
        return bool(self.metadata.deletion_timestamp)

    @property
    def is_ready(self) -> bool:
        """Whether it can be used."""
        return self.status.phase is Phase.READY

    @property
    def is_answered(self) -> bool:
        """Whether the agent has spoken about the spec as it is now."""
        return self.status.observed_generation >= self.metadata.generation and bool(self.status.conditions)

    @property
    def question(self) -> str:
        """The moment at which it was asked whether the volume was ever written to; empty: nobody asks."""
        return self.metadata.annotations.get(ABANDONED, "")

    @property
    def answer(self) -> Condition | None:
        """What the agent says to the question that there is now, and to no earlier one."""
        found = find(self.status.conditions, UNWRITTEN)
        is_about_it = found is not None and bool(self.question) and found.message.startswith(answer_to(self.question))
        return found if is_about_it else None

    def problem(self, condition: str) -> Problem | None:
        """Why one of READY and APPLIED does not hold, or why DEGRADED does; None when all is well."""
        found = find(self.status.conditions, condition)
        if found is None or found.status == ("False" if condition == DEGRADED else "True"):
            return None
        return Problem(reason=found.reason, message=found.message)


def answer_to(question: str) -> str:
    """How the message of an answer begins."""
    return f"asked {question}: "


def order(request: CreateVolume, node: NodeName, *, kind: VolumeKind = VolumeKind.VOLUME) -> LogicalVolume:
    """The object that asks `node` for a volume, to be created."""
    owner = request.owner
    return LogicalVolume(
        api_version=API_VERSION,
        kind=LOGICAL_VOLUMES.kind,
        metadata=Meta(name=request.volume_id, finalizers=(FINALIZER,)),
        spec=Spec(
            node_name=node,
            device_class=request.device_class,
            size_bytes=request.size_bytes,
            limit_bytes=request.limit_bytes,
            kind=kind,
            source=source_of(request.source),
            wipe=request.wipe,
            claim_ref=ClaimRef(namespace=owner.claim_namespace, name=owner.claim_name, uid=owner.claim_uid)
            if owner.claim_name
            else None,
            persistent_volume=owner.pv_name,
        ),
    )


def snapshot_order(
    snapshot_id: VolumeId, of: LogicalVolume, *, group: GroupId | None = None, sources: tuple[VolumeId, ...] = ()
) -> LogicalVolume:
    """The object that asks for a snapshot, where its volume is; one of a group names all the group's volumes."""
    return LogicalVolume(
        api_version=API_VERSION,
        kind=LOGICAL_VOLUMES.kind,
        metadata=Meta(name=snapshot_id, finalizers=(FINALIZER,)),
        spec=Spec(
            node_name=of.node,
            device_class=of.spec.device_class,
            size_bytes=of.status.size_bytes,
            kind=VolumeKind.SNAPSHOT,
            source=Source(volume=of.id),
            group=Group(name=group, sources=sources) if group else None,
        ),
    )


def request_of(volume: LogicalVolume) -> CreateVolume:
    """What its agent is asked for."""
    claim = volume.spec.claim_ref or ClaimRef(namespace="", name="")
    return CreateVolume(
        volume_id=volume.id,
        device_class=DeviceClassName(volume.spec.device_class),
        size_bytes=volume.spec.size_bytes,
        limit_bytes=volume.spec.limit_bytes,
        owner=Owner(
            pv_name=volume.spec.persistent_volume,
            claim_namespace=claim.namespace,
            claim_name=claim.name,
            claim_uid=claim.uid,
        ),
        wipe=volume.spec.wipe,
        source=volume.source,
    )


def source_of(source: VolumeId | None) -> Source | None:
    """As an object says it."""
    if source is None:
        return None
    return Source(snapshot=source) if kind_of(source) is VolumeKind.SNAPSHOT else Source(volume=source)
