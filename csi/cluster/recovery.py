"""What `ullage recover` makes anew when the cluster's memory is lost and the disks are not. Pure.

Of every volume that an agent has found without an object: its LogicalVolume, from the marks on the disk, and then, for
one that has a claim, its PersistentVolume. Whatever could mean two things is refused with a sentence. The claims
themselves come from whoever wrote them first: a PersistentVolume names its claim without a uid, and waits for one of
that name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from csi.parameters import SIDECAR_KEYS
from ullage.errors import ConflictError, UllageError
from ullage.kube.foreign import Claim, PersistentVolume, StorageClass
from ullage.kube.logical_volume import (
    FINALIZER,
    RECOVERED,
    ClaimRef,
    Group,
    LogicalVolume,
    Spec,
    source_of,
)
from ullage.kube.meta import API_VERSION, LOGICAL_VOLUMES, Meta
from ullage.kube.node_storage import ACKNOWLEDGED, NodeStorage, OrphanStatus
from ullage.model import DeviceClass, DeviceClassName, GroupId, OrphanKind, VolumeId, VolumeKind
from ullage.names import check_volume_id, kind_of, member_id
from ullage.stock import why_unknown
from ullage.storage_classes import DRIVER, NODE_KEY, device_class_of

BLOCK, FILE_SYSTEM = "Block", "Filesystem"
FILE_SYSTEMS = frozenset({"ext4", "xfs", "btrfs"})
UNKNOWN_CONTENT = "unknown"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
"""Without this annotation kube-controller-manager looks for a plugin of its own to delete the volume with, and fails;
with it the deletion is external-provisioner's, which puts its finalizer on by itself once the volume is bound."""
ONE_NODE = "ReadWriteOnce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a person has decided: a StorageClass by device class, a volume mode by volume id."""

    storage_classes: Mapping[str, str]
    volume_modes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What there is."""

    storages: tuple[NodeStorage, ...]
    volumes: tuple[LogicalVolume, ...]
    persistent_volumes: tuple[PersistentVolume, ...]
    storage_classes: tuple[StorageClass, ...]
    classes: Mapping[DeviceClassName, DeviceClass]
    claims: Mapping[tuple[str, str], Claim]
    """Those of the volumes' claims that are there, by namespace and name."""
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistent:
    """A PersistentVolume to be made: `body` is all of it."""

    name: str
    claim: str
    storage_class: str
    mode: str
    body: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What is made of one volume: each of the two is None where it is there, or is not to be."""

    volume_id: VolumeId
    node: str
    kind: VolumeKind
    logical_volume: LogicalVolume | None
    persistent_volume: Persistent | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is left as it is, and why."""

    name: str
    node: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """By volume id."""

    rebuilt: tuple[Rebuilt, ...]
    refusals: tuple[Refusal, ...]


def plan(cluster: Cluster, choices: Choices) -> Plan:
    """Everything that can be made anew without a doubt, and the doubts."""
    found = [(storage, each) for storage in cluster.storages for each in storage.status.orphans]
    places = Counter(each.name for _, each in found)
    there = {each.id: each for each in cluster.volumes}
    rebuilt, refusals = [], []
    for storage, orphan in found:
        known = there.get(VolumeId(orphan.name))
        if ACKNOWLEDGED + orphan.name in storage.metadata.labels or (known is not None and known.node == storage.node):
            continue  # somebody wants it as it is, or its object has come since the report
        try:
            if places[orphan.name] > 1:
                raise ConflictError(f"there are {places[orphan.name]} of this id, and only one can be the volume")
            if known is not None:
                raise ConflictError(f"the LogicalVolume of this name is about node {known.node}")
            rebuilt.append(_rebuilt(_made(storage, orphan, cluster), orphan.content, cluster, choices))
        except UllageError as doubt:
            refusals.append(Refusal(name=orphan.name, node=storage.node, sentence=str(doubt)))
    for volume in cluster.volumes:
        # One that was made anew and has no PersistentVolume yet: an earlier run did not come to its end.
        if RECOVERED in volume.metadata.annotations and not volume.is_condemned:
            try:
                half = _rebuilt(volume, volume.metadata.annotations[RECOVERED], cluster, choices)
            except UllageError as doubt:
                refusals.append(Refusal(name=volume.id, node=volume.node, sentence=str(doubt)))
            else:
                rebuilt += [half] if half.persistent_volume is not None else []
    return Plan(
        rebuilt=tuple(sorted(rebuilt, key=lambda each: each.volume_id)),
        refusals=tuple(sorted(refusals, key=lambda each: (each.name, each.node))),
    )


def _made(storage: NodeStorage, orphan: OrphanStatus, cluster: Cluster) -> LogicalVolume:
    """The object for a volume on this node, from its marks; raises ConflictError, InvalidRequestError."""
    if orphan.kind is not OrphanKind.VOLUME_WITHOUT_RECORD or not orphan.device_class or not orphan.size_bytes:
        raise ConflictError(f"it is half of a volume, and its marks do not say all: {orphan.message}")
    if sentence := why_unknown(storage, cluster.now):
        raise ConflictError(f"what is known of its node is old: {sentence}")
    if orphan.device_class not in cluster.classes:
        raise ConflictError(f"there is no DeviceClass {orphan.device_class}; make it first")
    volume_id = check_volume_id(orphan.name)
    if kind_of(volume_id) is not orphan.volume_kind or orphan.volume_kind is VolumeKind.FROZEN:
        raise ConflictError(f"it is marked as a {orphan.volume_kind}, which cannot be made anew under this id")
    return LogicalVolume(
        api_version=API_VERSION,
        kind=LOGICAL_VOLUMES.kind,
        metadata=Meta(
            name=volume_id, finalizers=(FINALIZER,), annotations={RECOVERED: orphan.content or UNKNOWN_CONTENT}
        ),
        spec=Spec(
            node_name=storage.node,
            device_class=orphan.device_class,
            size_bytes=orphan.size_bytes,
            kind=orphan.volume_kind,
            source=source_of(VolumeId(orphan.source) if orphan.source else None),
            group=_group(storage, orphan, cluster) if orphan.group else None,
            claim_ref=ClaimRef(namespace=orphan.claim_namespace, name=orphan.claim_name, uid=orphan.claim_uid)
            if orphan.claim_name
            else None,
            persistent_volume=orphan.persistent_volume,
        ),
    )


def _group(storage: NodeStorage, orphan: OrphanStatus, cluster: Cluster) -> Group:
    """The group that a snapshot was taken in, with the volumes of all its members that are left."""
    if member_id(GroupId(orphan.group), VolumeId(orphan.source)) != orphan.name:
        raise ConflictError(f"its id is not that of {orphan.source} in the group {orphan.group}")
    for each in cluster.volumes:
        if each.spec.group is not None and each.spec.group.name == orphan.group:
            return each.spec.group
    sources = {each.source for each in storage.status.orphans if each.group == orphan.group}
    return Group(name=orphan.group, sources=tuple(sorted(sources)))


def _rebuilt(volume: LogicalVolume, content: str, cluster: Cluster, choices: Choices) -> Rebuilt:
    """What is still to be made of it; raises ConflictError."""
    is_there = bool(volume.metadata.uid)
    persistent_volume, note = None, ""
    if volume.spec.kind is VolumeKind.SNAPSHOT:
        note = "its VolumeSnapshotContent is to be made by hand"
    elif volume.spec.claim_ref is None or not volume.spec.persistent_volume:
        note = "its marks name no claim: no PersistentVolume"
    else:
        persistent_volume = _persistent_volume(volume, volume.spec.claim_ref, content, cluster, choices)
    return Rebuilt(
        volume_id=volume.id,
        node=volume.node,
        kind=volume.spec.kind,
        logical_volume=None if is_there else volume,
        persistent_volume=persistent_volume,
        note=note,
    )


def _persistent_volume(
    volume: LogicalVolume, named: ClaimRef, content: str, cluster: Cluster, choices: Choices
) -> Persistent | None:
    """None when it is there; raises ConflictError."""
    name = volume.spec.persistent_volume
    for each in cluster.persistent_volumes:
        source = each.spec.csi
        is_of_it = source is not None and source.driver == DRIVER and source.volume_handle == volume.id
        if is_of_it:
            return None
        if each.metadata.name == name:
            raise ConflictError(f"the PersistentVolume {name} is there, and stands for something else")
    claim = cluster.claims.get((named.namespace, named.name))
    if claim is not None and claim.spec.volume_name not in ("", name):
        raise ConflictError(
            f"its claim {named.namespace}/{named.name} has another volume by now, {claim.spec.volume_name}"
        )
    storage_class = _storage_class(volume, claim, cluster, choices)
    mode = _volume_mode(volume, claim, content, choices)
    fs_type = content if content in FILE_SYSTEMS else storage_class.parameters.get(f"{SIDECAR_KEYS}fstype", "")
    handle = {"driver": DRIVER, "volumeHandle": volume.id}
    expression = {"key": NODE_KEY, "operator": "In", "values": [volume.node]}
    body: dict[str, object] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: DRIVER}},
        "spec": {
            "capacity": {"storage": str(volume.status.size_bytes or volume.spec.size_bytes)},
            "accessModes": list(claim.spec.access_modes if claim is not None else ()) or [ONE_NODE],
            "persistentVolumeReclaimPolicy": storage_class.reclaim_policy or "Delete",
            "storageClassName": storage_class.metadata.name,
            "volumeMode": mode,
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": named.namespace,
                "name": named.name,
            },
            "csi": handle | ({"fsType": fs_type} if fs_type and mode == FILE_SYSTEM else {}),
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
            **({"mountOptions": list(storage_class.mount_options)} if storage_class.mount_options else {}),
        },
    }
    return Persistent(
        name=name,
        claim=f"{named.namespace}/{named.name}",
        storage_class=storage_class.metadata.name,
        mode=mode,
        body=body,
    )


def _storage_class(volume: LogicalVolume, claim: Claim | None, cluster: Cluster, choices: Choices) -> StorageClass:
    """The claim's own, or the one that was chosen, or the only one of its device class; raises ConflictError."""
    device_class = volume.spec.device_class
    fitting = {}
    for each in cluster.storage_classes:
        of = device_class_of(each, cluster.classes)
        if of is not None and of.name == device_class:
            fitting[each.metadata.name] = each
    chosen = (claim.spec.storage_class_name if claim is not None else "") or choices.storage_classes.get(device_class)
    names = ", ".join(sorted(fitting)) or "none"
    if chosen:
        if chosen not in fitting:
            raise ConflictError(f"{chosen} is no StorageClass of the device class {device_class}; there are: {names}")
        return fitting[chosen]
    if len(fitting) != 1:
        raise ConflictError(
            f"which StorageClass it has is not known; of the device class {device_class} there are: {names}; "
            f"--storage-class {device_class}=NAME says it"
        )
    return next(iter(fitting.values()))


def _volume_mode(volume: LogicalVolume, claim: Claim | None, content: str, choices: Choices) -> str:
    """What was said of it, or what its claim says, or what is plain from its content; raises ConflictError."""
    said = choices.volume_modes.get(volume.id) or (claim.spec.volume_mode if claim is not None else "")
    if said:
        return said
    if content in FILE_SYSTEMS:
        return FILE_SYSTEM
    found = "has no file system that we make" if content != UNKNOWN_CONTENT else "was not looked into"
    raise ConflictError(
        f"whether it is {BLOCK} or {FILE_SYSTEM} is not known: its device {found}; "
        f"--volume-mode {volume.id}={BLOCK} (or {FILE_SYSTEM}) says it"
    )
