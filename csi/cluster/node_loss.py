"""What becomes of a node's volumes when the node is gone for good. Off unless a delay is given.

A node is lost when its Node object, and its NodeStorage with it, has been gone for longer than the delay: never because
it is not ready, and not while its agent still reports. The delay counts from when this controller first saw it gone; a
restart, or another leader, begins anew. A node that comes back stops it. When a good part of all nodes seems to vanish
at once, it is more likely that we see badly: then nothing is done, and that is said loudly.

For each volume on a lost node, in this order:

1. its claim is deleted, if the claim or its StorageClass has opted in and if it is bound to this very volume, so that a
   StatefulSet makes itself a new one elsewhere;
2. its LogicalVolume is released: the finalizer is taken off, then the object is deleted. In that order no agent is ever
   asked to remove the volume: if the disks come back their volumes are orphans, and `ullage recover` finds them.

Before every one of these steps the API server itself is asked for the Node, and only its answer that there is none
counts; that it has just shown us the LogicalVolume proves that it is the right one that speaks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from csi.cluster.telling import Telling, reference
from csi.cluster.view import ClusterView
from ullage.errors import ApiNotFoundError, UllageError, UnavailableError
from ullage.kube.api import Api
from ullage.kube.foreign import Claim, Node, ObjectReference, PersistentVolume, StorageClass
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import FINALIZER, LogicalVolume
from ullage.kube.meta import (
    CLAIMS,
    LOGICAL_VOLUMES,
    NODES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    Resource,
)
from ullage.model import VolumeKind
from ullage.storage_classes import DRIVER

ON_NODE_LOSS = f"{DRIVER}/on-node-loss"
"""An annotation of a claim, or of a StorageClass for all of its claims; the claim's own word counts first."""
DELETE_CLAIM = "delete-claim"

MOST_PART = 3
"""Nothing is done while more than one in so many nodes is gone …"""
FEW_NODES = 2
"""… and more than these."""

log = logging.getLogger(__name__)

Found = TypeVar("Found")
KINDS = (LogicalVolume, PersistentVolume, Claim, StorageClass)
_DECODERS: Mapping[type, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in KINDS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be done now. `since` is what to remember: when each of the nodes that are gone was first missed."""

    since: Mapping[str, float]
    due: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    """Nodes for which the time is up, and which are too many to be believed."""


def judge(
    wanted: AbstractSet[str], present: AbstractSet[str], since: Mapping[str, float], *, now: float, delay_seconds: float
) -> Verdict:
    """Which of the nodes that volumes are on (`wanted`) are lost, given those that can be seen (`present`)."""
    gone = {node: since.get(node, now) for node in sorted(wanted - present)}
    due = tuple(node for node, first in gone.items() if now - first > delay_seconds)
    if len(gone) > FEW_NODES and len(gone) * MOST_PART > len(wanted | present):
        return Verdict(since=gone, held=due)
    return Verdict(since=gone, due=due)


class NodeLoss:
    """What one controller has seen of the nodes since it began to lead. One thread's."""

    def __init__(  # noqa: PLR0913 - what it decides by, and what it may do
        self,
        api: Api,
        view: ClusterView,
        nodes: Informer[Node],
        events: Telling,
        *,
        delay_seconds: float,
        may_act: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`may_act` says whether it still leads; it is asked before each step."""
        self._api = api
        self._view = view
        self._nodes = nodes
        self._events = events
        self._delay_seconds = delay_seconds
        self._may_act = may_act
        self._clock = clock
        self._last = Verdict(since=MappingProxyType({}))

    @property
    def gone(self) -> int:
        """How many nodes with volumes are gone, lost for good or not yet."""
        return len(self._last.since)

    def check(self) -> None:
        """Look once, and do what is due."""
        if not (self._nodes.is_synced and self._view.is_synced):
            return
        wanted = {str(each.node) for each in self._view.volumes.all()}
        present = {each.metadata.name for seen in (self._nodes.all(), self._view.storages.all()) for each in seen}
        verdict = judge(wanted, present, self._last.since, now=self._clock(), delay_seconds=self._delay_seconds)
        self._tell(verdict, len(wanted | present))
        self._last = verdict
        for node in verdict.due:
            for volume in self._view.volumes.by_index("node", node):
                try:
                    self._give_up(volume)
                except UllageError as failure:  # it comes again with the next round
                    log.warning("volume of a lost node kept", extra={"volume_id": volume.id, "why": str(failure)})

    def _tell(self, verdict: Verdict, nodes: int) -> None:
        for node in verdict.since.keys() - self._last.since.keys():
            log.warning("node gone", extra={"node": node, "delay_seconds": self._delay_seconds})
            message = f"its volumes are given up if it is not back within {self._delay_seconds:.0f} seconds"
            self._tell_of_node(node, "NodeGone", message, is_warning=True)
        for node in self._last.since.keys() - verdict.since.keys():
            if self._view.volumes.by_index("node", node):
                log.info("node is back", extra={"node": node})
                self._tell_of_node(node, "NodeBack", "its volumes stay as they are")
        if verdict.held and verdict.held != self._last.held:
            gone = len(verdict.since)
            log.error("so many nodes gone that none is believed to be", extra={"gone": gone, "nodes": nodes})
            message = f"{gone} of {nodes} nodes are gone, which is not believed: no volume of theirs is given up"
            for node in verdict.held:
                self._tell_of_node(node, "NodeLossHeld", message, is_warning=True)

    def _tell_of_node(self, node: str, reason: str, message: str, *, is_warning: bool = False) -> None:
        about = ObjectReference(api_version=NODES.api_version, kind=NODES.kind, name=node, uid=node)
        self._events.tell(about, reason=reason, message=message, is_warning=is_warning)

    def _give_up(self, seen: LogicalVolume) -> None:
        """Steps 1 and 2 for one volume; raises UllageError, with whatever is left to be done by the next round."""
        try:
            volume = self._get(LOGICAL_VOLUMES, LogicalVolume, seen.metadata.name)
        except ApiNotFoundError:
            return
        if volume.metadata.uid != seen.metadata.uid or volume.node != seen.node:
            return  # another one of its name by now
        self._prove_lost(volume)
        claim = self._claim_to_delete(volume)
        if claim is not None:
            self._prove_lost(volume)
            with_namespace = claim.metadata.namespace
            self._api.delete(CLAIMS, claim.metadata.name, namespace=with_namespace, uid=claim.metadata.uid)
            log.warning("claim deleted", extra={"namespace": with_namespace, "claim": claim.metadata.name})
            message = f"its volume {volume.id} was on node {volume.node}, which is lost; the claim asked for this"
            self._events.tell(reference(CLAIMS, claim), reason="NodeLost", message=message, is_warning=True)
        self._prove_lost(volume)
        self._release(volume)

    def _release(self, volume: LogicalVolume) -> None:
        meta = volume.metadata
        kept = [each for each in meta.finalizers if each != FINALIZER]
        if len(kept) != len(meta.finalizers):
            # With uid and version: of another object, or one that was changed meanwhile, nothing is taken off.
            body = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": kept}}
            self._api.patch(LOGICAL_VOLUMES, meta.name, body)
        with suppress(ApiNotFoundError):  # it was condemned before, and waited for its finalizer only
            self._api.delete(LOGICAL_VOLUMES, meta.name, uid=meta.uid)
        log.warning("volume given up", extra={"volume_id": volume.id, "node": volume.node})
        message = f"node {volume.node} is lost, and {volume.id} with it"
        self._events.tell(reference(LOGICAL_VOLUMES, volume), reason="NodeLost", message=message, is_warning=True)

    def _prove_lost(self, volume: LogicalVolume) -> None:
        """Raise UnavailableError unless the API server says, now, that there is no such node."""
        if not self._may_act():
            raise UnavailableError("another controller may lead by now")
        try:
            self._api.get(NODES, volume.node)
        except ApiNotFoundError:
            return
        raise UnavailableError(f"node {volume.node} is there, although it was not seen")

    def _claim_to_delete(self, volume: LogicalVolume) -> Claim | None:
        """The claim that is bound to this volume and no other, when it may be deleted and is not yet."""
        named = volume.spec.claim_ref
        if volume.spec.kind is not VolumeKind.VOLUME or named is None or not volume.spec.persistent_volume:
            return None
        try:
            bound = self._get(PERSISTENT_VOLUMES, PersistentVolume, volume.spec.persistent_volume)
            claim = self._get(CLAIMS, Claim, named.name, namespace=named.namespace)
        except ApiNotFoundError:
            return None
        source, holder = bound.spec.csi, bound.spec.claim_ref
        is_ours = source is not None and source.driver == DRIVER and source.volume_handle == volume.id
        is_bound = holder is not None and holder.uid == claim.metadata.uid
        is_bound = is_bound and claim.spec.volume_name == bound.metadata.name
        if not (is_ours and is_bound) or claim.metadata.deletion_timestamp:
            return None
        return claim if self._has_opted_in(claim) else None

    def _has_opted_in(self, claim: Claim) -> bool:
        wish = claim.metadata.annotations.get(ON_NODE_LOSS)
        if wish is None and claim.spec.storage_class_name:
            try:
                storage_class = self._get(STORAGE_CLASSES, StorageClass, claim.spec.storage_class_name)
            except ApiNotFoundError:
                return False
            wish = storage_class.metadata.annotations.get(ON_NODE_LOSS)
        return wish == DELETE_CLAIM

    def _get(self, resource: Resource, kind: type[Found], name: str, *, namespace: str = "") -> Found:
        found: Found = _DECODERS[kind].decode(self._api.get(resource, name, namespace=namespace))
        return found
