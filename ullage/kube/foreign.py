"""Kubernetes' own kinds, as far as we read or write them."""

from __future__ import annotations

import msgspec

from ullage.kube.meta import Meta


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """v1 Node: its name, labels and uid."""

    metadata: Meta


class StorageClass(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """storage.k8s.io/v1 StorageClass."""

    metadata: Meta
    provisioner: str = ""
    parameters: dict[str, str] = msgspec.field(default_factory=dict)
    volume_binding_mode: str = ""
    reclaim_policy: str = ""
    mount_options: tuple[str, ...] = ()


class LabelSelector(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """metav1.LabelSelector, of labels that must match."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)


class StorageCapacity(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """storage.k8s.io/v1 CSIStorageCapacity; the sizes are quantities."""

    api_version: str = ""
    kind: str = ""
    metadata: Meta
    storage_class_name: str
    node_topology: LabelSelector | None = None
    capacity: str = ""
    maximum_volume_size: str = ""


class ObjectReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """v1 ObjectReference."""

    api_version: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""


class CsiSource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """v1 CSIPersistentVolumeSource."""

    driver: str = ""
    volume_handle: str = ""
    fs_type: str = ""
    volume_attributes: dict[str, str] = msgspec.field(default_factory=dict)


class PersistentVolumeSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """v1 PersistentVolumeSpec."""

    csi: CsiSource | None = None
    claim_ref: ObjectReference | None = None
    storage_class_name: str = ""
    volume_mode: str = ""
    persistent_volume_reclaim_policy: str = ""


class PersistentVolume(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """v1 PersistentVolume."""

    metadata: Meta
    spec: PersistentVolumeSpec = PersistentVolumeSpec()


class ClaimSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """v1 PersistentVolumeClaimSpec."""

    volume_name: str = ""
    storage_class_name: str = ""
    volume_mode: str = ""
    access_modes: tuple[str, ...] = ()


class Claim(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """v1 PersistentVolumeClaim."""

    metadata: Meta
    spec: ClaimSpec = ClaimSpec()
