"""What if these Pods came: each is placed in its turn, as the extender would, on a cluster that stays as it is.

A Pod takes its room by what takes it in a real cluster, too: its claims show the node that was chosen for them, and
that is a promise. Of equally good nodes the first by name is taken, so that two runs say the same; kube-scheduler draws
lots, and has more to weigh than storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from scheduler_extender.decisions import Decisions
from scheduler_extender.demand import claim_of
from scheduler_extender.feeds import objects_in
from scheduler_extender.objects import SELECTED_NODE, Claim
from scheduler_extender.view import View
from scheduler_extender.wire import ClaimSource, ClaimTemplate, Meta, OwnerReference, Pod, PodSpec, PodVolume
from ullage.errors import ConfigError
from ullage.kube import meta as kube
from ullage.kube.meta import Key

NAMESPACE = "default"
"""Of what does not say its own, as kubectl has it."""

_Found = TypeVar("_Found")


class _PodTemplate(msgspec.Struct, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class _SetSpec(msgspec.Struct, frozen=True, rename="camel"):
    replicas: int = 1
    template: _PodTemplate = _PodTemplate()
    volume_claim_templates: tuple[ClaimTemplate, ...] = ()


class _StatefulSet(msgspec.Struct, frozen=True):
    metadata: Meta
    spec: _SetSpec = _SetSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A Pod that is to come, with those claims of its that come with it."""

    pod: Pod
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """Where a Pod went; without a node the reasons, and how many nodes gave each."""

    pod: Key
    node: str = ""
    reasons: tuple[tuple[str, int], ...] = ()


def plan(file: str) -> list[Planned]:
    """The Pods, PersistentVolumeClaims and StatefulSets of a file, in its order; raises ConfigError."""
    found: list[Planned] = []
    claims: list[Claim] = []
    for kind, name, raw in objects_in(file):
        if kind == "Pod":
            found.append(Planned(pod=_pod(_read(raw, Pod, name, file))))
        elif kind == "PersistentVolumeClaim":
            claims.append(_new(_read(raw, Claim, name, file)))
        elif kind == "StatefulSet":
            found.extend(_members(_read(raw, _StatefulSet, name, file)))
    if not found:
        raise ConfigError(f"{file}: there is no Pod and no StatefulSet in it", origin=file)
    return [Planned(pod=found[0].pod, claims=(*claims, *found[0].claims)), *found[1:]]


def place(view: View, plan: Iterable[Planned], nodes: Sequence[str] | None = None) -> Iterator[Landed]:
    """Place one after the other; the view is changed by it. `nodes` are the only ones to go to (all with storage)."""
    decisions = Decisions(view, clock=lambda: 0.0, patience_seconds=0)  # time stands still, nothing is undecided
    for each in plan:
        for claim in each.claims:
            if (claim.metadata.namespace, claim.metadata.name) not in view.claims:
                view.put(claim)
        names = list(nodes if nodes is not None else sorted(view.nodes))
        verdict = decisions.filter(each.pod, names)
        if not verdict.fitting:
            yield Landed(pod=each.pod.key, reasons=tuple(Counter(verdict.refused.values()).most_common()))
            continue
        scores = decisions.prioritize(each.pod, verdict.fitting)
        _, node = min(zip(scores, verdict.fitting, strict=True), key=lambda scored: (-scored[0], scored[1]))
        for name, template in each.pod.claims:
            _choose(view, claim_of(each.pod, name, template, view), node)
        yield Landed(pod=each.pod.key, node=node)


def _choose(view: View, claim: Claim | None, node: str) -> None:
    if claim is not None and not claim.spec.volume_name:
        annotations = {**claim.metadata.annotations, SELECTED_NODE: node}
        meta = msgspec.structs.replace(claim.metadata, annotations=annotations, uid=claim.metadata.uid or _uid(claim))
        view.put(Claim(metadata=meta, spec=claim.spec))


def _pod(found: Pod) -> Pod:
    """As the API server would have it: in a namespace, without a node, and somebody of its own."""
    meta = msgspec.structs.replace(found.metadata, namespace=found.metadata.namespace or NAMESPACE)
    meta = msgspec.structs.replace(meta, uid=f"planned {meta.namespace}/{meta.name}")
    return Pod(metadata=meta, spec=msgspec.structs.replace(found.spec, node_name=""))


def _new(found: Claim) -> Claim:
    """The same for a claim."""
    annotations = {key: value for key, value in found.metadata.annotations.items() if key != SELECTED_NODE}
    meta = msgspec.structs.replace(
        found.metadata, namespace=found.metadata.namespace or NAMESPACE, annotations=annotations
    )
    claim = Claim(metadata=meta, spec=msgspec.structs.replace(found.spec, volume_name=""))
    return Claim(metadata=msgspec.structs.replace(meta, uid=_uid(claim)), spec=claim.spec)


def _uid(claim: Claim) -> str:
    return f"planned {claim.metadata.namespace}/{claim.metadata.name}"


def _members(found: _StatefulSet) -> Iterator[Planned]:
    """Its Pods, and the claims that it makes for them."""
    name, namespace = found.metadata.name, found.metadata.namespace or NAMESPACE
    template = found.spec.template
    for ordinal in range(found.spec.replicas):
        claims = {
            each.metadata.name: _new(
                Claim(
                    metadata=kube.Meta(
                        name=f"{each.metadata.name}-{name}-{ordinal}",
                        namespace=namespace,
                        labels=each.metadata.labels,
                        annotations=each.metadata.annotations,
                    ),
                    spec=each.spec,
                )
            )
            for each in found.spec.volume_claim_templates
        }
        own = [
            PodVolume(name=volume, persistent_volume_claim=ClaimSource(claim_name=claim.metadata.name))
            for volume, claim in claims.items()
        ]
        others = (each for each in template.spec.volumes if each.name not in claims)
        meta = msgspec.structs.replace(
            template.metadata,
            name=f"{name}-{ordinal}",
            namespace=namespace,
            owner_references=(OwnerReference(kind="StatefulSet", name=name, controller=True),),
        )
        pod = Pod(metadata=meta, spec=PodSpec(volumes=(*own, *others)))
        yield Planned(pod=_pod(pod), claims=tuple(claims.values()))


def _read(raw: msgspec.Raw, kind: type[_Found], name: str, file: str) -> _Found:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: {name or 'an object without a name'}: {error}", origin=file) from error
