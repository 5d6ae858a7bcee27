"""The cluster's objects, as far as placement needs them.

Decoded from the API server's words or from `kubectl get -o json`; the same Structs either way.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from scheduler_extender.wire import ClaimSpec, Pod
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node, PersistentVolume, StorageClass
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import Key, Meta, Resource
from ullage.kube.node_storage import NodeStorage

SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""An annotation of a claim: where kube-scheduler wants its volume made. It goes when that cannot be."""

PODS = Resource(group="", version="v1", plural="pods", kind="Pod", is_namespaced=True)
STATEFUL_SETS = Resource(group="apps", version="v1", plural="statefulsets", kind="StatefulSet", is_namespaced=True)
CONTENTS = Resource(
    group="snapshot.storage.k8s.io", version="v1", plural="volumesnapshotcontents", kind="VolumeSnapshotContent"
)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """v1 PersistentVolumeClaim."""

    metadata: Meta
    spec: ClaimSpec = ClaimSpec()

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def selected_node(self) -> str:
        """Where its volume is to be made; empty: nobody has chosen."""
        return self.metadata.annotations.get(SELECTED_NODE, "")


class StatefulSetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """apps/v1 StatefulSetSpec."""

    replicas: int = 1


class StatefulSet(msgspec.Struct, frozen=True, kw_only=True):
    """apps/v1 StatefulSet: how many there will be."""

    metadata: Meta
    spec: StatefulSetSpec = StatefulSetSpec()


class SnapshotReference(msgspec.Struct, frozen=True, kw_only=True):
    """v1 ObjectReference, of a VolumeSnapshot."""

    namespace: str = ""
    name: str = ""


class ContentSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """snapshot.storage.k8s.io/v1 VolumeSnapshotContentSpec."""

    driver: str = ""
    volume_snapshot_ref: SnapshotReference = SnapshotReference()


class ContentStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """snapshot.storage.k8s.io/v1 VolumeSnapshotContentStatus."""

    snapshot_handle: str = ""


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """snapshot.storage.k8s.io/v1 VolumeSnapshotContent: which snapshot of ours a VolumeSnapshot is."""

    metadata: Meta
    spec: ContentSpec = ContentSpec()
    status: ContentStatus = ContentStatus()


Seen: TypeAlias = (
    Pod
    | Claim
    | PersistentVolume
    | StorageClass
    | Node
    | LogicalVolume
    | NodeStorage
    | DeviceClassObject
    | StatefulSet
    | Content
)
"""All that is looked at."""
