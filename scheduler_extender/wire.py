"""What kube-scheduler sends and reads: k8s.io/kube-scheduler/extender/v1, and of a Pod what placement needs.

The extender's own types have no JSON tags in Go, so their keys are Go's field names; what is inside of them is
Kubernetes' usual JSON. Structs name the fields that are used and no others.
"""

from __future__ import annotations

import msgspec

MOST_SCORE = 10
"""extenderv1.MaxExtenderPriority; the least is 0."""


class OwnerReference(msgspec.Struct, frozen=True, kw_only=True):
    """metav1.OwnerReference."""

    kind: str = ""
    name: str = ""
    controller: bool = False


class Meta(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """metav1.ObjectMeta, of a Pod or of a claim that is still a template."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    owner_references: tuple[OwnerReference, ...] = ()
    deletion_timestamp: str = ""


class DataSource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 TypedLocalObjectReference, or TypedObjectReference with its namespace."""

    api_group: str | None = None
    kind: str = ""
    name: str = ""
    namespace: str | None = None


class Requests(msgspec.Struct, frozen=True, kw_only=True):
    """v1 VolumeResourceRequirements: `requests.storage` is a quantity."""

    requests: dict[str, str] = msgspec.field(default_factory=dict)


class ClaimSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 PersistentVolumeClaimSpec. Without a class (None) it is the cluster's default class's; "" is none's."""

    storage_class_name: str | None = None
    volume_name: str = ""
    volume_mode: str = ""
    resources: Requests = Requests()
    data_source: DataSource | None = None
    data_source_ref: DataSource | None = None


class ClaimTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """v1 PersistentVolumeClaimTemplate."""

    metadata: Meta = Meta()
    spec: ClaimSpec = ClaimSpec()


class Ephemeral(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 EphemeralVolumeSource: its claim is named after Pod and volume, and is made after the Pod."""

    volume_claim_template: ClaimTemplate | None = None


class ClaimSource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 PersistentVolumeClaimVolumeSource."""

    claim_name: str = ""


class PodVolume(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 Volume, as far as it may be a claim."""

    name: str = ""
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: Ephemeral | None = None


class PodSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 PodSpec."""

    volumes: tuple[PodVolume, ...] = ()
    node_name: str = ""


class PodStatus(msgspec.Struct, frozen=True, kw_only=True):
    """v1 PodStatus."""

    phase: str = ""


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """v1 Pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def claims(self) -> tuple[tuple[str, ClaimTemplate | None], ...]:
        """The claims that it uses, by name; with their template those that are made for it (generic ephemeral)."""
        found: dict[str, ClaimTemplate | None] = {}
        for each in self.spec.volumes:
            if each.persistent_volume_claim is not None:
                found.setdefault(each.persistent_volume_claim.claim_name, None)
            elif each.ephemeral is not None and each.ephemeral.volume_claim_template is not None:
                found[f"{self.metadata.name}-{each.name}"] = each.ephemeral.volume_claim_template
        return tuple(found.items())
