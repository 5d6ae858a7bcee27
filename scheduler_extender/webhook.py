"""The webhook: it marks Pods that kube-scheduler is to ask us about, so that it asks about no others.

The mark is a resource that no node has and kube-scheduler is told to ignore (`managedResources`). It is set when in
doubt, for it costs one question more; and a Pod that was not marked, since this was down, goes where kube-scheduler's
own check of capacity sends it. So nothing here refuses a Pod: whatever is not understood is let pass as it came.
"""

from __future__ import annotations

import base64
import logging

import msgspec

from scheduler_extender.demand import storage_class_of
from scheduler_extender.view import View
from scheduler_extender.wire import ClaimSpec, PodVolume, decoded
from ullage.storage_classes import DRIVER

RESOURCE = f"{DRIVER}/capacity"
ONE = "1"
REVIEW = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
Quantities = dict[str, msgspec.Raw]

log = logging.getLogger(__name__)


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """v1 ResourceRequirements."""

    requests: Quantities | None = None
    limits: Quantities | None = None

    @property
    def is_marked(self) -> bool:
        """Either is enough for kube-scheduler."""
        return RESOURCE in (self.requests or {}) or RESOURCE in (self.limits or {})


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """v1 Container."""

    resources: Resources | None = None


class NewPodSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """v1 PodSpec, before anybody has scheduled it."""

    volumes: tuple[PodVolume, ...] | None = None
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] | None = None
    node_name: str = ""

    @property
    def is_marked(self) -> bool:
        """Whether one of its containers has the resource."""
        every = (*self.containers, *(self.init_containers or ()))
        return any(each.resources is not None and each.resources.is_marked for each in every)


class NewPod(msgspec.Struct, frozen=True, kw_only=True):
    """v1 Pod, as it is about to be made. Its namespace may be known to the request alone."""

    spec: NewPodSpec


class AdmissionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """admission.k8s.io/v1 AdmissionRequest."""

    uid: str
    namespace: str = ""
    object: msgspec.Raw = msgspec.Raw(b"null")


class AdmissionReview(msgspec.Struct, frozen=True, kw_only=True):
    """admission.k8s.io/v1 AdmissionReview, as it is asked."""

    request: AdmissionRequest


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """An operation of a JSON patch (RFC 6902)."""

    op: str = "add"
    path: str
    value: str | dict[str, str] | dict[str, dict[str, str]]


class Webhook:
    """Answers AdmissionReviews of Pods that are created."""

    def __init__(self, view: View) -> None:
        """Whose claims are ours, the view says."""
        self._view = view
        self._reviews = msgspec.json.Decoder(AdmissionReview)
        self._pods = msgspec.json.Decoder(NewPod)

    def answer(self, body: bytes) -> bytes:
        """An AdmissionReview with what is to be added; raises InvalidRequestError when it is not one that asks."""
        request = decoded(self._reviews, body).request
        response: dict[str, object] = {"uid": request.uid, "allowed": True}
        try:
            patch = self._patch(request)
        except Exception as failure:  # a Pod is never kept from being made, whatever it is
            log.warning("pod not understood, and let pass", extra={"uid": request.uid}, exc_info=failure)
            patch = []
        if patch:
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(msgspec.json.encode(patch)).decode()}
        return msgspec.json.encode({**REVIEW, "response": response})

    def _patch(self, request: AdmissionRequest) -> list[Added]:
        spec = decoded(self._pods, request.object).spec
        if spec.node_name or spec.is_marked or not spec.containers:
            return []
        with self._view.changed:
            is_wanted = any(self._may_be_ours(volume, request.namespace) for volume in spec.volumes or ())
        return mark(spec.containers[0].resources) if is_wanted else []

    def _may_be_ours(self, volume: PodVolume, namespace: str) -> bool:
        """Whether it is a claim of ours, or one of which that is not known yet."""
        spec: ClaimSpec | None = None
        if volume.persistent_volume_claim is not None:
            claim = self._view.claims.get((namespace, volume.persistent_volume_claim.claim_name))
            if claim is None:
                return True
            spec = claim.spec
        elif volume.ephemeral is not None and volume.ephemeral.volume_claim_template is not None:
            spec = volume.ephemeral.volume_claim_template.spec
        if spec is None or spec.storage_class_name == "":
            return False
        name = storage_class_of(spec, self._view)
        return name not in self._view.storage_classes or self._view.is_ours(name)


def mark(resources: Resources | None) -> list[Added]:
    """What gives the first container the resource. Of one that no node has, requests and limits must be the same."""
    at = "/spec/containers/0/resources"
    if resources is None:
        return [Added(path=at, value={"requests": {RESOURCE: ONE}, "limits": {RESOURCE: ONE}})]
    key = RESOURCE.replace("~", "~0").replace("/", "~1")
    return [
        Added(path=f"{at}/{part}", value={RESOURCE: ONE})
        if there is None
        else Added(path=f"{at}/{part}/{key}", value=ONE)
        for part, there in (("requests", resources.requests), ("limits", resources.limits))
    ]
