"""When the controller says no, and what an agent's no means to a caller: pure.

An agent tells its refusals in conditions, by reason; here they become the errors they were. What it tries again by
itself is never a refusal, and whatever reason is not known here is not one that its caller could act on.
"""

from __future__ import annotations

from collections.abc import Sequence

from ullage import errors
from ullage.errors import ConflictError, InsufficientCapacityError, UllageError, UnavailableError, VolumeNotReadyError
from ullage.kube.logical_volume import APPLIED, READY, LogicalVolume
from ullage.kube.meta import find
from ullage.model import CreateVolume, Problem, TakeGroup, TakeSnapshot, VolumeKind

REFUSALS: tuple[type[UllageError], ...] = (
    errors.InvalidRequestError,
    errors.UnknownDeviceClassError,
    errors.NotFoundError,
    errors.ConflictError,
    errors.OutOfRangeError,
    errors.InsufficientCapacityError,
    errors.NotOursError,
    errors.VolumeInUseError,
    errors.UnsupportedError,
    errors.NotOfferedError,
    errors.PreconditionError,
    errors.ForeignContentError,
    errors.SnapshotOverflowedError,
)
BY_REASON = {kind.reason: kind for kind in REFUSALS}
ELSEWHERE = frozenset({InsufficientCapacityError.reason, errors.UnknownDeviceClassError.reason})
"""Refusals of one node that say nothing about the others."""
LASTING = frozenset(
    each.reason
    for each in (errors.VolumeInUseError, errors.NotOursError, errors.PreconditionError, errors.ForeignContentError)
)
"""Why a condemned volume stays until a person does something; its agent goes on trying."""


def refused_as(problem: Problem) -> UllageError:
    """The error that an agent's refusal was."""
    return BY_REASON.get(problem.reason, UnavailableError)(problem.message or problem.reason)


def refusal(volume: LogicalVolume) -> Problem | None:
    """Why what was asked for last of a volume that is there is not done, for good; None: it is, or may still be."""
    return volume.problem(APPLIED) if volume.is_answered else None


def kept_by(volume: LogicalVolume) -> Problem | None:
    """Why a condemned volume is still there, when that is for people to change: as told since it was condemned."""
    told = find(volume.status.conditions, READY)
    if not volume.is_condemned or told is None:
        return None
    is_of_now = told.observed_generation >= volume.metadata.generation
    return volume.problem(READY) if is_of_now and told.reason in LASTING else None


def check_same(request: CreateVolume, found: LogicalVolume) -> None:
    """An order of this id must be of what is asked for, as far as it can be told before it is carried out.

    Raises ConflictError, VolumeNotReadyError (it is condemned: its end is to be waited for).
    """
    if found.is_condemned:
        raise VolumeNotReadyError(f"volume {found.id} is being deleted", volume_id=found.id)
    differences = []
    if found.spec.device_class != request.device_class:
        differences.append(f"its device class is {found.spec.device_class}, not {request.device_class}")
    if found.spec.kind is not VolumeKind.VOLUME:
        differences.append(f"it is a {found.spec.kind}")
    if found.source != request.source:
        differences.append(f"it began as {found.source or 'an empty volume'}, not as {request.source or 'one'}")
    size_bytes = found.status.size_bytes if found.is_ready else found.spec.size_bytes
    if found.is_ready and size_bytes < request.size_bytes:
        differences.append(f"it has {size_bytes} bytes, fewer than {request.size_bytes}")
    if request.limit_bytes and size_bytes > request.limit_bytes:
        differences.append(f"it has {size_bytes} bytes, more than the limit {request.limit_bytes}")
    if differences:
        raise ConflictError(f"volume {found.id} exists on {found.node}: {', '.join(differences)}", volume_id=found.id)


def check_same_snapshot(request: TakeSnapshot, found: LogicalVolume) -> None:
    """An order of this id must be of what is asked for; raises ConflictError, VolumeNotReadyError."""
    if found.spec.kind is not VolumeKind.SNAPSHOT or found.source != request.source:
        raise ConflictError(
            f"{found.id} exists, and is a {found.spec.kind} of {found.source or 'nothing'}, "
            f"not a snapshot of {request.source}",
            volume_id=found.id,
        )
    if found.is_condemned:
        raise VolumeNotReadyError(f"snapshot {found.id} is being deleted", volume_id=found.id)


def check_same_group(request: TakeGroup, members: Sequence[LogicalVolume]) -> None:
    """A group that exists must be of the volumes that are asked for; raises ConflictError, VolumeNotReadyError."""
    named = {source for each in members if each.spec.group for source in each.spec.group.sources}
    if named != set(request.sources):
        raise ConflictError(
            f"group {request.group_id} exists, with snapshots of {', '.join(sorted(named))}, "
            f"not of {', '.join(sorted(request.sources))}"
        )
    going = next((each for each in members if each.is_condemned), None)
    if going is not None:
        raise VolumeNotReadyError(f"group {request.group_id} is being deleted", volume_id=going.id)
