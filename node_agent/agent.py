"""The agent: what is asked of a node's storage, checked, and done one operation per volume at a time.

Each operation looks, acts and looks again; a repetition after a crash at any point begins at the mark that the last one
left on the device (see `node_agent.backends.port`) and ends where it would have. The same code finishes what an earlier
process had begun (`recover`). No step knows of gRPC or of Kubernetes.

What is done, in which order, and what a repetition finds is read from top to bottom in `node_agent.creation`, `copies`,
`alteration` and `removal`, which begins with what must hold before anything is destroyed. All four stand on
`node_agent.ground`; what was begun ends in `node_agent.unfinished`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from functools import partial

from node_agent import alteration, changed_blocks, copies, creation, groups, removal, tending, unfinished
from node_agent.backends.port import Backend
from node_agent.examination import Examiner
from node_agent.ground import Ground
from node_agent.refusals import check_sizes
from ullage.errors import InvalidRequestError, NotFoundError, StillRunningError, UllageError
from ullage.model import (
    ChangedBlocks,
    CreateVolume,
    DeleteVolume,
    DeviceClass,
    Done,
    Examine,
    Examined,
    ExpandVolume,
    GroupId,
    ModifyVolume,
    Pool,
    PoolName,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
)
from ullage.names import check_owner, check_volume_id

LONGEST_WAIT_SECONDS = 3600.0
CALL_OFF_SECONDS = 5.0
"""How long a copy that nobody wants any more is waited for: it ends after its step, of a second at most as a rule."""

log = logging.getLogger(__name__)


class Agent:
    """One node's storage. Thread-safe; every method may be called by many at once."""

    def __init__(self, backends: Sequence[Backend], ground: Ground) -> None:
        """Configure it with `configure` before anything else."""
        self._backends = tuple(backends)
        self._ground = ground
        self._stock = ground.stock
        self._operations = ground.operations
        self._reporter = ground.reporter
        self._examiner = Examiner(ground)

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        """Take these device classes from now on, and look at what they name."""
        served = {each for backend in self._backends for each in backend.types}
        self._ground.classes = {each.name: each for each in classes if each.type in served}
        for backend in self._backends:
            backend.configure(classes)
        self._reporter.look_now()

    def recover(self) -> None:
        """After a start: thaw what an earlier process left frozen, bring up our devices, finish what it had begun."""
        self._ground.holds.thaw_left_over()
        self.bring_up()

    def bring_up(self) -> None:
        """Bring up our devices and finish what was begun, on whatever stores there are by now.

        What somebody is at already is left to them.
        """
        for report in self._stock.reports():
            asleep = [each for each in report.volumes if not each.is_active and each.kind is VolumeKind.VOLUME]
            backend = self._reporter.backend_of(report.name)
            if asleep and report.problem is None and backend is not None:
                try:
                    with self._ground.changing(report.name, "activation"):
                        backend.activate(report.name, asleep)
                        self._reporter.look_at_locked(report.name)
                except UllageError:
                    # One store that cannot be brought up must not keep the others, nor the agent, down.
                    log.exception("activation failed", extra={"store": report.name})
        volumes = self._stock.volumes().values()
        half_made = [each for each in volumes if each.group is not None and each.state is VolumeState.CREATING]
        for group in sorted({each.group for each in half_made if each.group is not None}):
            log.info("finishing what was begun", extra={"group_id": group})
            again = TakeGroup(group_id=group, sources=())
            self._resume(VolumeId(group), again, partial(groups.resume, self._ground, group))
        for volume in volumes:
            is_whole = volume.state is VolumeState.READY and volume.kind is not VolumeKind.FROZEN
            if not is_whole and volume not in half_made:
                log.info("finishing what was begun", extra={"volume_id": volume.id, "state": volume.state})
                self._resume(volume.id, volume, partial(unfinished.resume, self._ground, volume))

    def _resume(self, key: VolumeId, request: Hashable, work: Callable[[], object]) -> None:
        try:
            self._operations.run(key, request, work, patience_seconds=0)
        except StillRunningError:
            pass  # as it should be
        except UllageError:
            # Logged where it happened, or the bound on operations. Whoever asks again finishes it; the others go on,
            # and so does the agent.
            log.info("left for the next request", extra={"volume_id": key})

    def create(self, request: CreateVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Make a volume, or find the one that an equal request made.

        Raises InvalidRequestError, ConflictError, OutOfRangeError, InsufficientCapacityError, UnavailableError,
        PendingOperationError, StillRunningError.
        """
        check_volume_id(request.volume_id)
        check_owner(request.owner)
        check_sizes(request.size_bytes, request.limit_bytes)
        self._ground.device_class(request.device_class)
        return self._operations.run(
            request.volume_id,
            request,
            lambda: creation.create(self._ground, request),
            patience_seconds=patience_seconds,
        )

    def expand(self, request: ExpandVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Make a volume larger, or find that it is large enough; raises as `create`, and NotFoundError."""
        check_volume_id(request.volume_id)
        check_sizes(request.size_bytes, request.limit_bytes)
        return self._operations.run(
            request.volume_id,
            request,
            lambda: alteration.expand(self._ground, request),
            patience_seconds=patience_seconds,
        )

    def modify(self, request: ModifyVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Give a volume another wipe policy, or find that it has it; raises NotFoundError, and as `create`."""
        check_volume_id(request.volume_id)
        return self._operations.run(
            request.volume_id,
            request,
            lambda: alteration.modify(self._ground, request),
            patience_seconds=patience_seconds,
        )

    def delete(self, request: DeleteVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Make a volume be gone, or find that it is. One that is being filled is not filled any more.

        Raises NotOursError, VolumeInUseError, UnavailableError (it may be where we cannot look), and as `create`.
        """
        check_volume_id(request.volume_id)
        found = self._stock.find(request.volume_id)
        if found is not None and found.state is VolumeState.FILLING:
            self._operations.call_off(request.volume_id, request, min(patience_seconds, CALL_OFF_SECONDS))
        return self._operations.run(
            request.volume_id,
            request,
            lambda: removal.delete(self._ground, request),
            patience_seconds=patience_seconds,
            is_still_so=lambda: self._stock.find(request.volume_id) is None,
        )

    def snapshot(self, request: TakeSnapshot, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Keep what a volume holds at one moment, or find the snapshot that an equal request took.

        A mounted file system is at rest at that moment, as after an fsfreeze. Raises NotFoundError (no such volume),
        ConflictError, UnsupportedError, and as `create`.
        """
        check_volume_id(request.snapshot_id)
        check_volume_id(request.source)
        return self._operations.run(
            request.snapshot_id,
            request,
            lambda: copies.snapshot(self._ground, request),
            patience_seconds=patience_seconds,
        )

    def examine(
        self,
        request: Examine,
        *,
        alone: Callable[[], AbstractContextManager[None]],
        is_wanted: Callable[[], bool],
        patience_seconds: float = LONGEST_WAIT_SECONDS,
    ) -> Examined:
        """Read a volume that nobody has, to see whether anything was ever written to it. Changes nothing.

        `alone` is held while it is read, which ends when it `is_wanted` no longer. Raises NotFoundError, DeviceError,
        InvalidRequestError (no volume), VolumeNotReadyError, UnavailableError (also when it was stopped),
        PendingOperationError (also while another volume is read), and as `create`.
        """
        check_volume_id(request.volume_id)
        return self._examiner.examine(request, alone=alone, is_wanted=is_wanted, patience_seconds=patience_seconds)

    def tend(self) -> frozenset[VolumeId]:
        """Give thick snapshots that fill more room; the answer are those for which there is none."""
        return tending.tend(self._ground)

    def snapshot_group(
        self, request: TakeGroup, *, patience_seconds: float = LONGEST_WAIT_SECONDS
    ) -> tuple[Volume, ...]:
        """Keep what several volumes hold at one moment, or find what an equal request took; the answer is by id.

        All of them are kept from being written to meanwhile. Raises as `snapshot`, PreconditionError for a volume that
        cannot be held still, ConflictError for a group of other volumes.
        """
        check_volume_id(request.group_id)
        for source in request.sources:
            check_volume_id(source)
        if not request.sources or len(set(request.sources)) != len(request.sources):
            raise InvalidRequestError("a group is of one or more volumes, each of them once")
        request = TakeGroup(group_id=request.group_id, sources=tuple(sorted(request.sources)))
        return self._operations.run(
            VolumeId(request.group_id),
            request,
            lambda: groups.take(self._ground, request),
            patience_seconds=patience_seconds,
        )

    def delete_group(
        self, group_id: GroupId, snapshots: Sequence[VolumeId], *, patience_seconds: float = LONGEST_WAIT_SECONDS
    ) -> None:
        """Make every snapshot of a group be gone, or find that they are; `snapshots` must be of the group.

        Raises InvalidRequestError, and as `delete`.
        """
        check_volume_id(group_id)
        for each in snapshots:
            check_volume_id(each)
        request = groups.DeleteGroup(group_id=group_id, snapshots=tuple(sorted(snapshots)))
        self._operations.run(
            VolumeId(group_id), request, lambda: groups.delete(self._ground, request), patience_seconds=patience_seconds
        )

    def group(self, group_id: GroupId) -> tuple[Volume, ...]:
        """The snapshots of a group, by id; none when there is no such group. Raises UnavailableError."""
        check_volume_id(group_id)
        return groups.ready(self._ground, group_id)

    def allocated(self, snapshot_id: VolumeId, *, start_bytes: int = 0) -> ChangedBlocks:
        """Where a snapshot may be anything but zero, from `start_bytes` on: the end of a range goes on after it.

        Raises NotFoundError, InvalidRequestError (no snapshot), OutOfRangeError, VolumeNotReadyError, PreconditionError
        (it cannot be told of this kind of volume), UnavailableError, CommandError.
        """
        return changed_blocks.allocated(self._ground, snapshot_id, start_bytes)

    def changed(self, base_id: VolumeId, target_id: VolumeId, *, start_bytes: int = 0) -> ChangedBlocks:
        """Where a snapshot may differ from an earlier one of the same volume; as `allocated`.

        Up to the later one's size: what it has beyond the earlier one's end may be anything but zero in these ranges.
        Raises InvalidRequestError also for snapshots of two volumes, in two pools or in the wrong order.
        """
        return changed_blocks.changed(self._ground, base_id, target_id, start_bytes)

    def get(self, volume_id: VolumeId) -> Volume:
        """One volume, from memory; raises NotFoundError only when every store could be read."""
        return self._ground.get(volume_id)

    def is_busy(self, key: VolumeId) -> bool:
        """Whether an operation on this volume, or group, is under way."""
        return self._operations.is_running(key)

    def find(self, volume_id: VolumeId) -> Volume | None:
        """The volume as far as is known, whether every store could be read or not."""
        return self._stock.find(volume_id)

    def seek(self, volume_id: VolumeId, pool: PoolName | None) -> Volume:
        """One volume; of one that is not known everything is looked at afresh.

        Raises NotFoundError only when the pool that it was in (unless given, every store) could be read, and
        UnavailableError.
        """
        found = self._stock.find(check_volume_id(volume_id))
        if found is None:
            self._reporter.look_now()
            found = self._stock.find(volume_id)
        if found is None:
            self._ground.refuse_if_blind(f"volume {volume_id} cannot be told to be missing", pool)
            raise NotFoundError(f"volume {volume_id} is on none of this node's stores", volume_id=volume_id)
        return found

    def volumes(self) -> tuple[Volume, ...]:
        """Every volume, from memory, by id."""
        return tuple(volume for _, volume in sorted(self._stock.volumes().items()))

    def pools(self) -> tuple[Pool, ...]:
        """Every pool, from memory."""
        return tuple(pool for _, pool in sorted(self._stock.pools().items()))

    def classes(self) -> tuple[DeviceClass, ...]:
        """The device classes in force."""
        return tuple(self._ground.classes.values())

    def wait_for_change(self, version: int, timeout_seconds: float) -> int:
        """Block until there is something newer than `version` to see, or the time is up."""
        return self._stock.wait_for_change(version, timeout_seconds)
