"""Volumes that were ordered for a claim that is gone, and that nobody was ever told of: they go, if nothing is lost.

external-provisioner remembers only in its own memory which volumes are being made, and ends whenever its driver's
socket does. A claim that is ordered, and deleted before it is back, leaves a LogicalVolume that nobody will ever ask to
delete. From here it cannot be told apart from one that was kept on purpose (reclaimPolicy Retain, its PersistentVolume
and its claim removed by hand): so nothing goes for being alone. What goes is

- an order that was refused, and not for what is there under its id: there is nothing of it
- a volume of which its agent says, asked just now, that nobody has it and that every byte of it reads as zero

and only while the API server itself says that there is neither its PersistentVolume nor its claim. Everything else
stays, and is told of as an orphan.

    alone for long enough ── ask (annotation) ── the agent reads ── Unwritten=True: looked at again, and deleted
                                                                └── Unwritten=False: kept, and told

An answer counts for the leader that has asked, and for the object exactly as it was read: the deletion names its uid
and its resource version. The agent still refuses to remove what somebody has open.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Any, Self, TypeVar

import msgspec

from csi.cluster.orphans import KNOWN
from csi.cluster.repeat import Repeated
from csi.cluster.telling import Telling, reference
from csi.cluster.view import ClusterView
from ullage.errors import ApiConflictError, ApiNotFoundError, ConflictError, UllageError
from ullage.kube.api import Api
from ullage.kube.foreign import Claim, PersistentVolume
from ullage.kube.listing import everything
from ullage.kube.logical_volume import ABANDONED, DEGRADED, READY, RECOVERED, LogicalVolume, Phase
from ullage.kube.meta import CLAIMS, LOGICAL_VOLUMES, PERSISTENT_VOLUMES, Resource, micro_timestamp
from ullage.model import VolumeId, VolumeKind
from ullage.storage_classes import DRIVER

GRACE_SECONDS = 300.0
"""A volume younger than this may still get its PersistentVolume: external-provisioner tries for minutes."""

_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")

log = logging.getLogger(__name__)

Found = TypeVar("Found")
KINDS = (LogicalVolume, PersistentVolume, Claim)
_DECODERS: Mapping[type, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind) for kind in KINDS}


class Step(Enum):
    """What is to be done about one volume."""

    LEAVE = auto()
    """It is not abandoned, or not yet."""
    WAIT = auto()
    """For its agent."""
    ASK = auto()
    """Whether anything was ever written to it."""
    KEEP = auto()
    """It may hold something."""
    REMOVE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Others:
    """What else there is: names and handles of PersistentVolumes, and what other LogicalVolumes begin as."""

    names: frozenset[str] = frozenset()
    handles: frozenset[str] = frozenset()
    sources: frozenset[VolumeId] = frozenset()

    @classmethod
    def of(cls, persistent_volumes: Iterable[PersistentVolume], volumes: Iterable[LogicalVolume]) -> Self:
        """From all there are."""
        names, handles = set(), set()
        for each in persistent_volumes:
            names.add(each.metadata.name)
            if each.spec.csi is not None and each.spec.csi.driver == DRIVER:
                handles.add(each.spec.csi.volume_handle)
        sources = {each.source for each in volumes if each.source is not None}
        return cls(names=frozenset(names), handles=frozenset(handles), sources=frozenset(sources))


def is_alone(volume: LogicalVolume, others: Others, before: datetime) -> bool:
    """Whether it was ordered for a claim, before this moment, and nothing that is known has to do with it."""
    meta, claim = volume.metadata, volume.spec.claim_ref
    return (
        volume.spec.kind is VolumeKind.VOLUME
        and claim is not None
        and bool(claim.namespace and claim.name and volume.spec.persistent_volume)
        and not volume.is_condemned
        and KNOWN not in meta.labels
        and RECOVERED not in meta.annotations
        and bool(meta.creation_timestamp)
        and datetime.fromisoformat(meta.creation_timestamp) < before
        and volume.spec.persistent_volume not in others.names
        and volume.id not in others.handles
        and volume.id not in others.sources
    )


def is_claimed(volume: LogicalVolume, claim: Claim | None) -> bool:
    """Whether the claim of the name that it was ordered for is that very claim, as far as can be told."""
    named = _UID.search(volume.spec.persistent_volume)
    own = volume.spec.claim_ref.uid if volume.spec.claim_ref is not None else ""
    uids = {uid for uid in (own, named[0] if named else "") if uid}
    return claim is not None and (not uids or not claim.metadata.uid or claim.metadata.uid in uids)


def judge(volume: LogicalVolume, *, is_named: bool, claim: Claim | None, asked: str) -> Step:
    """What is to be done about a volume that is alone, of which the API server says this just now.

    `is_named`: its PersistentVolume is there. `asked` is this leader's own question, empty before there is one.
    """
    if is_named or is_claimed(volume, claim) or volume.is_condemned:
        return Step.LEAVE
    if volume.status.phase is Phase.FAILED:
        return Step.REMOVE if _is_nothing(volume) else Step.LEAVE
    if not volume.is_ready or not volume.is_answered or volume.problem(READY) or volume.problem(DEGRADED):
        return Step.WAIT
    return _judge_answer(volume, asked)


def _is_nothing(volume: LogicalVolume) -> bool:
    """Whether there is nothing of an order that was refused: not if it was for something that has its id."""
    why = volume.problem(READY)
    is_taken = why is None or why.reason == ConflictError.reason or volume.problem(DEGRADED) is not None
    return volume.is_answered and volume.pool is None and not is_taken


def _judge_answer(volume: LogicalVolume, asked: str) -> Step:
    answer = volume.answer
    if answer is not None and not answer.is_true:
        return Step.KEEP
    if not asked or volume.question != asked:
        return Step.ASK
    if answer is None:
        return Step.WAIT
    return Step.REMOVE if answer.observed_generation == volume.metadata.generation else Step.ASK


@dataclass(slots=True)
class _Term:
    """What one leader has said: its questions, and of which volumes it has told, by the objects' uids."""

    asked: dict[str, str] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


class AbandonedVolumes:
    """One thread from `start` to `stop`, while this controller leads; may be started again."""

    def __init__(  # noqa: PLR0913 - what it decides by, and what it may do
        self,
        api: Api,
        view: ClusterView,
        events: Telling,
        *,
        grace_seconds: float = GRACE_SECONDS,
        is_leader: Callable[[], bool],
        observe: Callable[[str], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Nothing is looked at before `start`; `observe(outcome)` hears of each volume that is removed, or kept.

        PersistentVolumes are listed at each look, as by `OrphanScanner`: twice in a grace, and when an answer comes.
        """
        self._api = api
        self._view = view
        self._events = events
        self._grace = timedelta(seconds=grace_seconds)
        self._is_leader = is_leader
        self._observe = observe
        self._clock = clock
        self._term = _Term()
        self._loop = Repeated("abandoned", grace_seconds / 2, self.check)
        view.volumes.on_change(self._heard)

    def start(self) -> None:
        """Begin to look; what an earlier leader has asked is asked anew."""
        self._term = _Term()
        self._loop.start()

    def stop(self) -> None:
        """End after the step under way."""
        self._loop.stop()

    def check(self) -> None:
        """Look once, and do what is due; raises UllageError, and what is left comes with the next look."""
        self._view.require_synced()
        persistent_volumes = tuple(everything(self._api, PERSISTENT_VOLUMES, PersistentVolume))
        # After them: each of these had its LogicalVolume when it was made.
        volumes = self._view.volumes.all()
        others, before = Others.of(persistent_volumes, volumes), self._clock() - self._grace
        for volume in volumes:
            try:
                if is_alone(volume, others, before):
                    self._settle(volume, others, before)
                elif volume.question and not volume.is_condemned:
                    self._withdraw(volume)
            except (ApiNotFoundError, ApiConflictError) as news:  # it has changed: the next look is at what it is now
                log.info("abandoned volume has changed", extra={"volume_id": volume.id, "why": str(news)})
            except UllageError as failure:
                log.warning("abandoned volume not settled", extra={"volume_id": volume.id, "why": str(failure)})
        uids = {each.metadata.uid for each in volumes}
        self._term.asked = {uid: each for uid, each in self._term.asked.items() if uid in uids}
        self._term.told &= uids

    def _settle(self, seen: LogicalVolume, others: Others, before: datetime) -> None:
        asked = self._term.asked.get(seen.metadata.uid, "")
        step = judge(seen, is_named=False, claim=None, asked=asked)
        if step in (Step.ASK, Step.REMOVE):
            volume = self._get(LOGICAL_VOLUMES, LogicalVolume, seen.id)
            if volume is None or volume.metadata.uid != seen.metadata.uid or not is_alone(volume, others, before):
                return
            step = self._step_now(volume, asked)
            if step is Step.ASK:
                self._ask(volume)
            elif step is Step.REMOVE:
                self._remove(volume)
            elif step is Step.LEAVE and volume.question:
                self._withdraw(volume)
        if step is Step.KEEP:
            self._keep(seen)

    def _step_now(self, volume: LogicalVolume, asked: str) -> Step:
        """The same by what the API server says of its PersistentVolume and its claim, now.

        It has just shown the LogicalVolume, which proves that it is the right one that speaks.
        """
        named = volume.spec.claim_ref
        if named is None:
            return Step.LEAVE
        is_named = self._get(PERSISTENT_VOLUMES, PersistentVolume, volume.spec.persistent_volume) is not None
        claim = self._get(CLAIMS, Claim, named.name, namespace=named.namespace)
        return judge(volume, is_named=is_named, claim=claim, asked=asked)

    def _ask(self, volume: LogicalVolume) -> None:
        question = micro_timestamp(self._clock())
        self._annotate(volume, question)
        self._term.asked[volume.metadata.uid] = question
        log.info("abandoned volume asked about", extra={"volume_id": volume.id, "node": volume.node})

    def _withdraw(self, volume: LogicalVolume) -> None:
        self._annotate(volume, None)
        self._term.asked.pop(volume.metadata.uid, None)
        log.info("volume is not abandoned", extra={"volume_id": volume.id, "node": volume.node})

    def _annotate(self, volume: LogicalVolume, question: str | None) -> None:
        if self._may_act():
            meta = volume.metadata
            fields = {
                "uid": meta.uid, "resourceVersion": meta.resource_version, "annotations": {ABANDONED: question}
            }  # fmt: skip
            self._view.volumes.learn(self._api.patch(LOGICAL_VOLUMES, volume.id, {"metadata": fields}))

    def _remove(self, volume: LogicalVolume) -> None:
        """Have it deleted, if it is still the very object that was judged."""
        if not self._may_act():
            return
        meta, answer = volume.metadata, volume.answer
        self._api.delete(LOGICAL_VOLUMES, volume.id, uid=meta.uid, resource_version=meta.resource_version)
        why = "it was refused, and nothing of it is there" if answer is None else f"nothing is lost ({answer.message})"
        log.warning("abandoned volume removed", extra={"volume_id": volume.id, "node": volume.node, "why": why})
        self._events.tell(
            reference(LOGICAL_VOLUMES, volume), reason="AbandonedRemoved", message=f"{_whose(volume)}: {why}"
        )
        self._observe("removed")

    def _keep(self, volume: LogicalVolume) -> None:
        """Tell once that it stays, if it was this leader that asked."""
        meta, answer = volume.metadata, volume.answer
        if answer is None or meta.uid in self._term.told or self._term.asked.get(meta.uid) != volume.question:
            return
        self._term.told.add(meta.uid)
        why = f"it may hold something, and stays ({answer.message})"
        log.warning("abandoned volume kept", extra={"volume_id": volume.id, "node": volume.node, "why": why})
        about = reference(LOGICAL_VOLUMES, volume)
        self._events.tell(about, reason="AbandonedKept", message=f"{_whose(volume)}: {why}", is_warning=True)
        self._observe("kept")

    def _may_act(self) -> bool:
        """Whether it still leads; asked before each write."""
        return not self._loop.is_stopping and self._is_leader()

    def _heard(self, before: LogicalVolume | None, after: LogicalVolume | None) -> None:
        """An answer is acted upon at once: the longer it waits, the less it proves."""
        if after is not None and after.answer is not None and (before is None or before.answer != after.answer):
            self._loop.wake()

    def _get(self, resource: Resource, kind: type[Found], name: str, *, namespace: str = "") -> Found | None:
        """One object, from the API server itself; None: it says that there is none."""
        try:
            found: Found = _DECODERS[kind].decode(self._api.get(resource, name, namespace=namespace))
        except ApiNotFoundError:
            return None
        return found


def _whose(volume: LogicalVolume) -> str:
    claim = volume.spec.claim_ref
    of = f"{claim.namespace}/{claim.name}" if claim is not None else "nobody"
    return f"{volume.id} on node {volume.node} was ordered for {of}; that claim and its PersistentVolume are not there"
