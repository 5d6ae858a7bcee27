"""What an agent says of an order: which refusals are final, whether what is there is what was ordered, and the status.

Pure. A status is about the spec of `observedGeneration`, and that moves on with a final word only: the orderer waits
for it. What may be otherwise next time is told in the conditions, while `observedGeneration` stays.
"""

from __future__ import annotations

from msgspec.structs import replace

from ullage.errors import (
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    NotOfferedError,
    OutOfRangeError,
    PreconditionError,
    UllageError,
    UnsupportedError,
    VolumeInUseError,
)
from ullage.kube.logical_volume import (
    APPLIED,
    DEGRADED,
    READY,
    UNWRITTEN,
    LogicalVolume,
    Phase,
    Status,
    answer_to,
)
from ullage.kube.meta import Condition, condition, conditions_after, find
from ullage.model import Examined, Problem, Volume, VolumeKind, VolumeState

FINAL: tuple[type[UllageError], ...] = (
    InvalidRequestError,
    NotFoundError,
    ConflictError,
    OutOfRangeError,
    InsufficientCapacityError,
    UnsupportedError,
    PreconditionError,
    NotOfferedError,
)
"""Refusals that the orderer is to hear of: asked again, the answer would be the same until something else changes. All
others (busy, unreadable, still running, a command that failed) may be over in a moment, and are tried again here."""
FINAL_OF_CHANGE = (*FINAL, VolumeInUseError)
"""Of a volume that is there: how it is used is for people to change. A new one is in nobody's use but udev's."""

MISSING = "VolumeMissing"
MISMATCH = "SpecMismatch"


def is_final(error: UllageError, order: LogicalVolume) -> bool:
    """Whether this is the answer to the order as it is."""
    return isinstance(error, FINAL_OF_CHANGE if order.is_ready else FINAL)


def problem_of(error: UllageError) -> Problem:
    """As a condition tells it."""
    return Problem(reason=error.reason, message=str(error))


def mismatch(order: LogicalVolume, found: Volume) -> str:
    """How what carries the order's id is not what was ordered; empty when it is."""
    spec, claim = order.spec, order.spec.claim_ref
    differences = []
    if found.device_class != spec.device_class:
        differences.append(f"its device class is {found.device_class}, not {spec.device_class}")
    if found.kind is not spec.kind:
        differences.append(f"it is a {found.kind}, not a {spec.kind}")
    if found.source != order.source:
        differences.append(f"it began as {found.source or 'an empty volume'}, not as {order.source or 'one'}")
    if order.pool not in (None, found.pool):
        differences.append(f"it is in {found.pool}, not in {order.pool}")
    if claim is not None and claim.uid and found.owner.claim_uid not in ("", claim.uid):
        differences.append(f"it was made for the claim {found.owner.claim_uid}, not for {claim.uid}")
    if found.size_bytes < _least_bytes(order, found):
        differences.append(f"it has {found.size_bytes} bytes, fewer than {_least_bytes(order, found)}")
    return f"what is on this node as {order.id} is another volume: {', '.join(differences)}" if differences else ""


def not_its_own(order: LogicalVolume, found: Volume) -> str:
    """Why what carries the order's id was not made for it; empty when it was, or may have been.

    An order that was refused has nothing but what its attempt left, and that is not whole. A whole volume was there
    before, and has lost its own object: it may be full of somebody's bytes.
    """
    if why := mismatch(order, found):
        return why
    if order.status.phase is Phase.FAILED and found.state in (VolumeState.READY, VolumeState.GROWING):
        return f"{order.id} in {found.pool} is whole, and the order was refused"
    return ""


def _least_bytes(order: LogicalVolume, found: Volume) -> int:
    """What was told of it already, or, of one that has never been told of, what is asked for."""
    if order.is_ready:
        return order.status.size_bytes
    is_whole = found.state is VolumeState.READY and found.kind is VolumeKind.VOLUME
    return order.spec.size_bytes if is_whole else 0


def there(order: LogicalVolume, found: Volume, revision: int, *, refusal: Problem | None = None) -> Status:
    """Of a volume that is there. With a `refusal`, the change that was asked for last is not made, for good."""
    is_usable = found.state in (VolumeState.READY, VolumeState.GROWING)
    before = order.status
    facts = replace(
        before,
        phase=Phase.READY,
        pool=found.pool,
        size_bytes=found.size_bytes,
        wipe=found.wipe,
        taken_at=found.taken_at,
        observed_generation=order.metadata.generation,
    )
    is_counted = before.revision and (before.phase, before.pool, before.size_bytes) == (
        facts.phase,
        facts.pool,
        facts.size_bytes,
    )
    return _told(
        order,
        facts if is_counted else replace(facts, revision=revision),
        ready=None if is_usable else Problem(reason="VolumeNotReady", message=f"the volume is {found.state}"),
        applied=refusal,
        degraded=found.problem,
    )


def examined(order: LogicalVolume, question: str, found: Examined) -> Status:
    """Whether anything was ever written to it, as it was asked."""
    told = Condition(
        type=UNWRITTEN,
        status="True" if found.is_unwritten else "False",
        reason=found.reason,
        message=f"{answer_to(question)}{found.message}",
        observed_generation=order.metadata.generation,
    )
    kept = (each for each in order.status.conditions if each.type != UNWRITTEN)
    return replace(order.status, conditions=(*kept, told))


def refused(order: LogicalVolume, why: Problem, *, degraded: Problem | None = None) -> Status:
    """Of an order that comes to nothing."""
    facts = replace(order.status, phase=Phase.FAILED, observed_generation=order.metadata.generation)
    return _told(order, facts, ready=why, applied=why, degraded=degraded)


def delayed(order: LogicalVolume, why: Problem, kind: str = READY) -> Status:
    """Of an order, or a change (APPLIED), that is tried again. The sentence is renewed where it tells how far it is."""
    before = order.status.conditions
    known = find(before, kind)
    if known is not None and known.reason == why.reason and why.reason != "StillRunning":
        return order.status
    told = condition(kind, why, generation=order.metadata.generation)
    return replace(order.status, conditions=(*(each for each in before if each.type != kind), told))


def missing(order: LogicalVolume, why: Problem) -> Status:
    """Of a volume that was there and is not to be found, or not now; what was told of it stays told."""
    facts = replace(order.status, observed_generation=order.metadata.generation)
    return _told(order, facts, ready=why, applied=why, degraded=None)


def mismatched(order: LogicalVolume, why: str) -> Status:
    """Of an order whose id something else carries: that is left as it is, whatever the order says."""
    problem = Problem(reason=MISMATCH, message=why)
    if not order.is_ready:
        conflict = Problem(reason=ConflictError.reason, message=why)
        return refused(order, conflict, degraded=problem)
    facts = replace(order.status, observed_generation=order.metadata.generation)
    ready = find(order.status.conditions, READY)
    kept = None if ready is None or ready.is_true else Problem(reason=ready.reason, message=ready.message)
    return _told(order, facts, ready=kept, applied=problem, degraded=problem)


def refusal(order: LogicalVolume) -> Problem | None:
    """Why the change that was asked for last is not made, for good; None while there is none, or it is to be tried."""
    applied = order.problem(APPLIED)
    return applied if order.is_answered and applied is not None and applied.reason not in (MISSING, MISMATCH) else None


def is_news(order: LogicalVolume, status: Status, kind: str) -> bool:
    """Whether a condition says something else than it did: then people are told, once."""
    before, now = find(order.status.conditions, kind), find(status.conditions, kind)
    return now is not None and (before is None or (before.status, before.reason) != (now.status, now.reason))


def dated(order: LogicalVolume, status: Status) -> Status:
    """The status as it is written: conditions that have not changed keep their time."""
    return replace(status, conditions=conditions_after(order.status.conditions, status.conditions))


def _told(
    order: LogicalVolume, facts: Status, *, ready: Problem | None, applied: Problem | None, degraded: Problem | None
) -> Status:
    generation = order.metadata.generation
    return replace(
        facts,
        conditions=(
            condition(READY, ready, generation=generation),
            condition(APPLIED, applied, generation=generation),
            degraded_condition(degraded, generation),
            *((order.answer,) if order.answer is not None else ()),
        ),
    )


def degraded_condition(problem: Problem | None, generation: int) -> Condition:
    """True with a problem, unlike the others."""
    return Condition(
        type=DEGRADED,
        status="False" if problem is None else "True",
        reason="AsWanted" if problem is None else problem.reason,
        message="" if problem is None else problem.message,
        observed_generation=generation,
    )
