"""What the agent writes about an order: its status in one patch, its finalizer, and an event where it is news.

A status is written only when it says something else than the object does, and what the API server answers is known at
once: nobody waits for the watch to bring back what we have written.
"""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from node_agent.cluster import answers
from node_agent.cluster.revisions import Revisions
from ullage.errors import ApiNotFoundError, human_bytes
from ullage.kube.api import Api, PatchKind
from ullage.kube.foreign import ObjectReference
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import APPLIED, DEGRADED, FINALIZER, READY, RECOVERED, LogicalVolume, Status
from ullage.kube.meta import API_VERSION, CLAIMS, LOGICAL_VOLUMES
from ullage.model import Examined, NodeName, Problem, Volume

BY_GROUP = "group"
"""The index of orders by the group they are to be taken with."""

log = logging.getLogger(__name__)


class Events(Protocol):
    """Tells people; see `ullage.kube.events.Events`."""

    def tell(
        self, about: ObjectReference, *, reason: str, message: str, is_warning: bool = False, action: str = ""
    ) -> None:
        """Never raises, never waits."""


def groups_of(order: LogicalVolume) -> tuple[str, ...]:
    """Under which values of BY_GROUP an order is found."""
    return (order.spec.group.name,) if order.spec.group is not None else ()


class Told:
    """Thread-safe. Every method but `gone` raises ApiError and ApiUnavailableError, when it could not be written."""

    def __init__(
        self, api: Api, orders: Informer[LogicalVolume], events: Events, node: NodeName, revisions: Revisions
    ) -> None:
        """`orders` learns what is written; a volume is told with the revision of the reports that count it."""
        self._api = api
        self._orders = orders
        self._events = events
        self._node = node
        self._revisions = revisions

    def there(self, order: LogicalVolume, found: Volume, *, refusal: Problem | None = None) -> None:
        """The volume is there, after all that was done to it; with a `refusal`, but not as it was asked for last."""
        status = answers.there(order, found, self._revisions.now(), refusal=refusal)
        if status.revision != order.status.revision:
            self._revisions.promise(status.revision)
        if not self._written(order, status):
            return
        size = human_bytes(found.size_bytes)
        if not order.is_ready:
            how = "TakenOver" if RECOVERED in order.metadata.annotations else "Carved"
            self._event(order, how, f"{found.kind} of {size} ({found.size_bytes} bytes) in {found.pool}")
        elif found.size_bytes > order.status.size_bytes:
            before = human_bytes(order.status.size_bytes)
            self._event(order, "Grown", f"from {before} to {size} ({found.size_bytes} bytes) in {found.pool}")
        if refusal is not None and answers.is_news(order, status, APPLIED):
            self._event(order, refusal.reason, refusal.message, is_warning=True)
        if found.problem is not None and answers.is_news(order, status, DEGRADED):
            self._event(order, found.problem.reason, found.problem.message, is_warning=True)

    def examined(self, order: LogicalVolume, question: str, found: Examined) -> None:
        """What a question was answered with; whoever has asked tells people what comes of it."""
        self._written(order, answers.examined(order, question, found))

    def refused(self, order: LogicalVolume, why: Problem) -> None:
        """Nothing comes of it."""
        if self._written(order, answers.refused(order, why)):
            log.warning("order refused", extra={"volume_id": order.id, "reason": why.reason, "why": why.message})
            self._event(order, why.reason, why.message, is_warning=True)

    def delayed(self, order: LogicalVolume, why: Problem, kind: str = READY) -> None:
        """It is tried again."""
        status = answers.delayed(order, why, kind)
        if self._written(order, status) and answers.is_news(order, status, kind) and why.reason != "StillRunning":
            self._event(order, why.reason, why.message, is_warning=True)

    def missing(self, order: LogicalVolume, why: Problem) -> None:
        """A volume that was there is gone, and nobody has ordered that."""
        status = answers.missing(order, why)
        if self._written(order, status) and answers.is_news(order, status, READY):
            log.error("volume missing", extra={"volume_id": order.id, "pool": order.pool, "why": why.message})
            self._event(order, why.reason, f"{why.message}; it is not made again: it would be empty", is_warning=True)

    def mismatched(self, order: LogicalVolume, why: str) -> None:
        """Something else carries its id."""
        status = answers.mismatched(order, why)
        if self._written(order, status) and answers.is_news(order, status, DEGRADED):
            log.error("another volume", extra={"volume_id": order.id, "why": why})
            self._event(order, answers.MISMATCH, why, is_warning=True)

    def gone(self, order: LogicalVolume) -> None:
        """There is nothing of it any more: the object may go. Raises ApiError when it has changed meanwhile."""
        at = f"/metadata/finalizers/{order.metadata.finalizers.index(FINALIZER)}"
        steps = [
            {"op": "test", "path": "/metadata/uid", "value": order.metadata.uid},
            {"op": "test", "path": at, "value": FINALIZER},
            {"op": "remove", "path": at},
        ]
        try:
            self._api.patch(LOGICAL_VOLUMES, order.id, steps, kind=PatchKind.JSON)
        except ApiNotFoundError:
            return
        log.info("object let go", extra={"volume_id": order.id})

    def _written(self, order: LogicalVolume, status: Status) -> bool:
        """Whether there was anything to write."""
        status = answers.dated(order, status)
        if status == order.status:
            return False
        # What is as by default is left out of a Struct, and a patch keeps what it does not name.
        fields = {**msgspec.to_builtins(status), "phase": status.phase}
        body = {"metadata": {"uid": order.metadata.uid}, "status": fields}
        try:
            self._orders.learn(self._api.patch(LOGICAL_VOLUMES, order.id, body, subresource="status"))
        except ApiNotFoundError:
            return False  # the object has gone, and nobody waits for its status
        return True

    def _event(self, order: LogicalVolume, reason: str, message: str, *, is_warning: bool = False) -> None:
        """On the object, and on the claim that people look at."""
        text = f"{order.id} on {self._node}: {message}"
        about = ObjectReference(
            api_version=API_VERSION, kind=LOGICAL_VOLUMES.kind, name=order.id, uid=order.metadata.uid
        )
        self._events.tell(about, reason=reason, message=text, is_warning=is_warning, action="Reconcile")
        claim = order.spec.claim_ref
        if claim is not None:
            about = ObjectReference(
                api_version=CLAIMS.api_version,
                kind=CLAIMS.kind,
                namespace=claim.namespace,
                name=claim.name,
                uid=claim.uid,
            )
            self._events.tell(about, reason=reason, message=text, is_warning=is_warning, action="Reconcile")
