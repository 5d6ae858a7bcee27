"""LogicalVolume objects of this node, made true: what is ordered is carved, what is condemned goes, and it is told.

Nothing is remembered between two looks at an object. Each look compares the order with what is on the disks and does
the next thing through the agent, whose operations may be repeated after a crash at any point; then the status says, in
one write, what is there. A process that dies between the two finds the volume under its id, and only tells.

What is never done:
- a volume that was Ready once, or whose object was made anew (`RECOVERED`), is not made again when it is gone: it
  would be empty, and nobody would know
- what carries the id and is not what was ordered is not touched (`answers.mismatch`)
- the finalizer does not go before the agent has said that the volume is gone, after a look at where it was
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from node_agent.cluster import answers
from node_agent.cluster.questions import Alone, Examines, Questions
from node_agent.cluster.telling import BY_GROUP, Told
from ullage.errors import (
    InvalidRequestError,
    NotFoundError,
    PendingOperationError,
    UllageError,
    UnavailableError,
    VolumeNotReadyError,
)
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import APPLIED, FINALIZER, READY, RECOVERED, LogicalVolume, Phase, request_of
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClass,
    Done,
    ExpandVolume,
    GroupId,
    ModifyVolume,
    NodeName,
    Pool,
    PoolName,
    Problem,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.names import is_group_id, kind_of, member_id

PATIENCE_SECONDS = 2.0
"""How long an operation is waited for; of what takes longer the end is told (`reconciler.Reconciler.ended`)."""
LASTING_FAILURES = 2
"""A delay is told when it has happened so often in a row; most are over by then."""

log = logging.getLogger(__name__)


class Storage(Examines, Protocol):
    """The agent, as far as objects need it; see `node_agent.agent.Agent`."""

    def create(self, request: CreateVolume, *, patience_seconds: float) -> Done: ...  # noqa: D102
    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Done: ...  # noqa: D102
    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Done: ...  # noqa: D102
    def delete(self, request: DeleteVolume, *, patience_seconds: float) -> Done: ...  # noqa: D102
    def snapshot(self, request: TakeSnapshot, *, patience_seconds: float) -> Done: ...  # noqa: D102
    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> tuple[Volume, ...]: ...  # noqa: D102
    def is_busy(self, key: VolumeId) -> bool: ...  # noqa: D102
    def find(self, volume_id: VolumeId) -> Volume | None: ...  # noqa: D102
    def seek(self, volume_id: VolumeId, pool: PoolName | None) -> Volume: ...  # noqa: D102
    def volumes(self) -> tuple[Volume, ...]: ...  # noqa: D102
    def pools(self) -> tuple[Pool, ...]: ...  # noqa: D102
    def classes(self) -> tuple[DeviceClass, ...]: ...  # noqa: D102
    def wait_for_change(self, version: int, timeout_seconds: float) -> int: ...  # noqa: D102


class Deeds:
    """What is done about one object at a time; of two objects, by several threads at once."""

    def __init__(
        self,
        *,
        node: NodeName,
        storage: Storage,
        orders: Informer[LogicalVolume],
        told: Told,
        alone: Alone,
    ) -> None:
        """`told` writes what comes of it."""
        self._node = node
        self._storage = storage
        self._orders = orders
        self._told = told
        self._alone = alone
        self._questions = Questions(storage, orders, told, alone, PATIENCE_SECONDS)

    def do(self, key: str, failures: int) -> str | None:
        """Do the next thing for one object, or one group, that has failed so often in a row.

        The answer is what is to be looked at instead, if anything. Raises what is to be tried again later.
        """
        if is_group_id(key):
            self._do_group(GroupId(key), failures)
            return None
        order = self._orders.get(key)
        if order is None or order.node != self._node:
            return None
        is_pending = order.status.phase is Phase.PENDING
        if is_pending and RECOVERED in order.metadata.annotations and not order.is_condemned:
            self._take_over(order, failures)
            return None
        if order.spec.group is not None and is_group_id(order.spec.group.name) and (is_pending or order.is_condemned):
            return order.spec.group.name
        if order.is_condemned:
            self._remove(order, failures)
        elif order.is_ready:
            self._keep(order, failures)
        elif is_pending:
            self._make(order, failures)
        return None

    def _make(self, order: LogicalVolume, failures: int) -> None:
        """Carve what was never there, or find it carved."""
        found = self._storage.find(order.id)
        if found is not None and (why := answers.mismatch(order, found)):
            self._told.mismatched(order, why)
            return
        try:
            with self._alone(order.id, "create"):
                made = self._made(order)
        except UllageError as error:
            if not answers.is_final(error, order):
                self._delay(order, error, failures)
                raise
            self._told.refused(order, answers.problem_of(error))
            return
        self._told.there(order, made)

    def _take_over(self, order: LogicalVolume, failures: int) -> None:
        """Find what an object was made anew for. Nothing is ever carved for it: that would be empty."""
        found = self._sought(order, failures, self._told.refused)
        if found is not None:
            self._told.there(order, found)

    def _sought(
        self, order: LogicalVolume, failures: int, absent: Callable[[LogicalVolume, Problem], None]
    ) -> Volume | None:
        """The volume, if it is there and what was ordered; else that is told, by `absent` when it is gone.

        Raises UnavailableError when it cannot be said.
        """
        try:
            found = self._storage.seek(order.id, order.pool)
        except NotFoundError as error:
            absent(order, Problem(reason=answers.MISSING, message=str(error)))
            return None
        except UnavailableError as error:
            self._delay(order, error, failures)
            raise
        if why := answers.mismatch(order, found):
            self._told.mismatched(order, why)
            return None
        return found

    def _made(self, order: LogicalVolume) -> Volume:
        spec = order.spec
        if spec.kind is VolumeKind.FROZEN or kind_of(order.id) is not spec.kind or spec.group is not None:
            raise InvalidRequestError(f"{order.id} cannot be the id of a {spec.kind}{' of a group' * bool(spec.group)}")
        if spec.kind is VolumeKind.VOLUME:
            done = self._storage.create(request_of(order), patience_seconds=PATIENCE_SECONDS)
        else:
            if order.source is None:
                raise InvalidRequestError(f"{order.id} is to be a snapshot, and of no volume")
            request = TakeSnapshot(snapshot_id=order.id, source=order.source)
            done = self._storage.snapshot(request, patience_seconds=PATIENCE_SECONDS)
        return _whole(done)

    def _keep(self, order: LogicalVolume, failures: int) -> None:
        """See that a volume that was told of is there, as it was told and as it is wanted by now."""
        found = self._sought(order, failures, self._told.missing)
        if found is None:
            return
        refusal = answers.refusal(order)
        if refusal is None:
            try:
                found = self._as_wanted(order, found)
            except UllageError as error:
                if not answers.is_final(error, order):
                    self._delay(order, error, failures, APPLIED)
                    raise
                refusal = answers.problem_of(error)
                found = self._storage.find(order.id) or found
        self._told.there(order, found, refusal=refusal)
        self._questions.answer(order)

    def _as_wanted(self, order: LogicalVolume, found: Volume) -> Volume:
        """The volume with what the order changes of it."""
        spec = order.spec
        if spec.kind is not VolumeKind.VOLUME or found.state not in (VolumeState.READY, VolumeState.GROWING):
            return found
        if spec.wipe not in (None, found.wipe) and spec.wipe is not None:
            change = ModifyVolume(volume_id=order.id, wipe=spec.wipe)
            with self._alone(order.id, "modify"):
                found = _whole(self._storage.modify(change, patience_seconds=PATIENCE_SECONDS))
        if spec.size_bytes > found.size_bytes:
            growth = ExpandVolume(volume_id=order.id, size_bytes=spec.size_bytes, limit_bytes=spec.limit_bytes)
            with self._alone(order.id, "expand"):
                found = _whole(self._storage.expand(growth, patience_seconds=PATIENCE_SECONDS))
        return found

    def _remove(self, order: LogicalVolume, failures: int) -> None:
        """Make a volume be gone, and then its object."""
        if FINALIZER not in order.metadata.finalizers:
            return
        found = self._storage.find(order.id)
        why = answers.not_its_own(order, found) if found is not None else ""
        if why and (order.is_ready or order.pool is not None):
            self._told.mismatched(order, f"{why}; it is not deleted for this object")
            return
        if why:
            # It was never this object's: the object goes, and what is there is told of as an orphan.
            log.warning("object goes, volume stays", extra={"volume_id": order.id, "why": why})
        else:
            try:
                self._refuse_if_unknown(order, found)
                with self._alone(order.id, "delete"):
                    request = DeleteVolume(volume_id=order.id, pool=order.pool)
                    self._storage.delete(request, patience_seconds=PATIENCE_SECONDS)
            except UllageError as error:
                if not _is_nothing_to_lose(order, found, error):
                    self._delay(order, error, failures)
                    raise
                log.warning("object goes unseen", extra={"volume_id": order.id, "why": str(error)})
        self._told.gone(order)

    def _refuse_if_unknown(self, order: LogicalVolume, found: Volume | None) -> None:
        """A volume that nobody can have looked for is not said to be gone: no class here names where it would be."""
        if found is None and order.pool is None:
            known = {each.name for each in self._storage.classes()}
            if order.spec.device_class not in known:
                raise UnavailableError(
                    f"device class {order.spec.device_class} is unknown on {self._node}: whether {order.id} is on one "
                    f"of its pools cannot be told; there are: {', '.join(sorted(known)) or 'none'}"
                )

    def _do_group(self, group: GroupId, failures: int) -> None:
        """What takes a group, and what ends a member of it, come one after the other: none is taken that was let go."""
        members = self._orders.by_index(BY_GROUP, group)
        condemned = [each for each in members if each.is_condemned]
        if condemned and self._storage.is_busy(VolumeId(group)):
            raise PendingOperationError(f"group {group} is still being taken")
        for order in condemned:
            self._remove(order, failures)
        self._take_group(group, members, failures)

    def _take_group(self, group: GroupId, members: Sequence[LogicalVolume], failures: int) -> None:
        """Take all snapshots of a group, or refuse all; nothing before every member's object is there."""
        pending = [each for each in members if not each.is_condemned and each.status.phase is Phase.PENDING]
        if not pending:
            return
        failed = next((each for each in members if each.status.phase is Phase.FAILED), None)
        try:
            if failed is not None:
                raise InvalidRequestError(f"{failed.id} of the same group was refused")
            sources = _sources(group, members)
            if sources is None or any(each.is_condemned for each in members):
                return
            with self._alone(VolumeId(group), "snapshot"):
                request = TakeGroup(group_id=group, sources=sources)
                taken = self._storage.snapshot_group(request, patience_seconds=PATIENCE_SECONDS)
            by_id = {volume.id: volume for volume in taken}
            if absent := [each.id for each in pending if each.id not in by_id]:
                raise VolumeNotReadyError(f"group {group} has not {', '.join(absent)}")
        except UllageError as error:
            is_final = answers.is_final(error, pending[0])
            why = failed.problem(READY) if failed is not None else None
            for order in pending:
                if is_final:
                    self._told.refused(order, why or answers.problem_of(error))
                else:
                    self._delay(order, error, failures)
            if not is_final:
                raise
            return
        for order in pending:
            self._told.there(order, by_id[order.id])

    def _delay(self, order: LogicalVolume, error: UllageError, failures: int, kind: str = READY) -> None:
        """Tell of a delay that lasts."""
        if failures + 1 >= LASTING_FAILURES:
            self._told.delayed(order, answers.problem_of(error), kind)


def _whole(done: Done) -> Volume:
    if done.volume is None:
        raise VolumeNotReadyError("the volume was removed while it was being made")
    return done.volume


def _sources(group: GroupId, members: Sequence[LogicalVolume]) -> tuple[VolumeId, ...] | None:
    """The volumes of a group, once all its members are ordered, and alike; raises InvalidRequestError."""
    named = {tuple(map(VolumeId, each.spec.group.sources)) for each in members if each.spec.group is not None}
    if len(named) != 1:
        raise InvalidRequestError(f"the members of {group} name different volumes")
    (sources,) = named
    wanted = {member_id(group, source): source for source in sources}
    for each in members:
        if each.spec.kind is not VolumeKind.SNAPSHOT or each.source is None or wanted.get(each.id) != each.source:
            raise InvalidRequestError(f"{each.id} is no snapshot of a volume of {group}")
    return sources if len(members) == len(wanted) else None


def _is_nothing_to_lose(order: LogicalVolume, found: Volume | None, error: UllageError) -> bool:
    """Whether the object of an order that was refused may go although not everything can be looked at now.

    Nobody was ever given this volume. If an attempt has left something of it where we cannot look, that is an orphan,
    and told of when it can be seen.
    """
    is_blind = isinstance(error, UnavailableError)
    return order.status.phase is Phase.FAILED and order.pool is None and found is None and is_blind
