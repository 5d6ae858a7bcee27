"""What kube-scheduler sends and reads: k8s.io/kube-scheduler/extender/v1, and of a Pod what placement needs.

The extender's own types have no JSON tags in Go, so their keys are Go's field names; what is inside of them is
Kubernetes' usual JSON. Structs name the fields that are used and no others.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from ullage.errors import InvalidRequestError

Decoded = TypeVar("Decoded")
Int64 = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
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


class NodeHead(msgspec.Struct, frozen=True, kw_only=True):
    """v1 Node, of which the rest is passed on as it came."""

    metadata: Meta


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """v1 NodeList: every Node as its own JSON."""

    items: list[msgspec.Raw] | None = None


class ExtenderArgs(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What filter and prioritize are asked: `NodeNames` of an extender with `nodeCacheCapable`, else `Nodes`."""

    pod: Pod
    nodes: NodeList | None = None
    node_names: list[str] | None = None


class FilterResult(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """ExtenderFilterResult. What was asked by names is answered by names: without a list, no node would pass."""

    nodes: NodeList | msgspec.UnsetType = msgspec.UNSET
    node_names: list[str] | msgspec.UnsetType = msgspec.UNSET
    failed_and_unresolvable_nodes: dict[str, str]
    """With reasons. Unresolvable: evicting Pods frees no disk, so these are no candidates for preemption."""


class HostPriority(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", gc=False):
    """How good a node is, 0 to `MOST_SCORE`."""

    host: str
    score: int


class MetaPod(msgspec.Struct, frozen=True, kw_only=True):
    """A victim, by uid alone."""

    uid: str = msgspec.field(name="UID")


class MetaVictims(msgspec.Struct, frozen=True, kw_only=True):
    """Who would be evicted from a node."""

    pods: list[MetaPod] | None = msgspec.field(name="Pods", default=None)
    broken_budgets: Int64 = msgspec.field(name="NumPDBViolations", default=0)


class VictimHead(msgspec.Struct, frozen=True, kw_only=True):
    """A victim, as a whole v1 Pod."""

    metadata: Meta


class Victims(msgspec.Struct, frozen=True, kw_only=True):
    """Who would be evicted from a node, as whole Pods."""

    pods: list[VictimHead] | None = msgspec.field(name="Pods", default=None)
    broken_budgets: Int64 = msgspec.field(name="NumPDBViolations", default=0)

    def by_uid(self) -> MetaVictims:
        """The form of the answer."""
        pods = [MetaPod(uid=each.metadata.uid) for each in self.pods or ()]
        return MetaVictims(pods=pods, broken_budgets=self.broken_budgets)


class PreemptionArgs(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """ExtenderPreemptionArgs: by uid of an extender with `nodeCacheCapable`, else with whole Pods."""

    pod: Pod
    node_name_to_victims: dict[str, Victims | None] | None = None
    node_name_to_meta_victims: dict[str, MetaVictims | None] | None = None

    @property
    def victims(self) -> dict[str, MetaVictims]:
        """By node, however they were told."""
        found = {node: each.by_uid() for node, each in (self.node_name_to_victims or {}).items() if each is not None}
        found.update((node, each) for node, each in (self.node_name_to_meta_victims or {}).items() if each is not None)
        return found


class PreemptionResult(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """ExtenderPreemptionResult, always by uid. A node that is kept keeps its victims."""

    node_name_to_meta_victims: dict[str, MetaVictims]


def decoded(decoder: msgspec.json.Decoder[Decoded], body: bytes | msgspec.Raw) -> Decoded:
    """What a body says; raises InvalidRequestError with the place in it that is wrong."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as failure:
        raise InvalidRequestError(f"the body cannot be read: {failure}") from failure
