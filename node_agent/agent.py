"""The agent: what is done to storage, in which order, and what a repetition finds.

Each operation looks, acts and looks again; a repetition after a crash at any point begins at the mark that the last one
left on the device (see `node_agent.backends.port`) and ends where it would have. The same code finishes what an earlier
process had begun (`recover`). No step knows of gRPC or of Kubernetes.

What must hold before anything is destroyed, and who checks it:
- the volume is known, and in the pool that the request names      → `_delete`
- its store is readable: a missing group never means "gone"        → `_delete`
- it carries our tag and this id, and nobody has it open, now      → the backend, under LVM's or the kernel's own lock
- nobody mounts or claims it while it is wiped                     → the wiper, by opening it exclusively
- in a volume in use only what nobody can use yet is wiped         → the mark of its growth, put on before it grows
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from node_agent.backends.port import Backend, NewVolume
from node_agent.locks import Operations, StoreLocks
from node_agent.refusals import (
    check_limit,
    check_same,
    check_same_snapshot,
    check_sizes,
    no_room,
    no_room_for_copy,
    no_room_to_grow,
)
from node_agent.reporter import Reporter
from node_agent.stock import Stock
from node_agent.wipe import Moment
from ullage.capacity import Allocation, allocate, allocate_growth, rounded_bytes
from ullage.errors import (
    InvalidRequestError,
    NotFoundError,
    NotOursError,
    OutOfRangeError,
    PoolUnavailableError,
    StillRunningError,
    UllageError,
    UnavailableError,
    UnknownDeviceClassError,
    VolumeNotReadyError,
    human_bytes,
)
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClass,
    DeviceClassName,
    Done,
    ExpandVolume,
    ModifyVolume,
    Owner,
    Pool,
    PoolName,
    StoreName,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.names import check_owner, check_volume_id
from ullage.placement import Demand, place

LONGEST_WAIT_SECONDS = 3600.0

log = logging.getLogger(__name__)


class Wiper(Protocol):
    """Makes bytes unfit to be seen; see `node_agent.wipe`."""

    def __call__(  # noqa: PLR0913 - one job with many facts
        self,
        device_path: str,
        policy: Wipe,
        *,
        moment: Moment,
        start_bytes: int,
        end_bytes: int,
        progress: Callable[[int], None],
    ) -> None:
        """Wipe [start, end) as the policy asks; raises VolumeInUseError, DeviceError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What is to be made of a source."""

    id: VolumeId
    kind: VolumeKind
    device_class: DeviceClass
    size_bytes: int
    limit_bytes: int = 0
    owner: Owner


class Agent:
    """One node's storage. Thread-safe; every method may be called by many at once."""

    def __init__(  # noqa: PLR0913 - everything it stands on, wired in one place
        self,
        *,
        backends: Sequence[Backend],
        stock: Stock,
        locks: StoreLocks,
        operations: Operations,
        reporter: Reporter,
        wiper: Wiper,
    ) -> None:
        """Configure it with `configure` before anything else."""
        self._backends = tuple(backends)
        self._stock = stock
        self._locks = locks
        self._operations = operations
        self._reporter = reporter
        self._wipe = wiper
        self._classes: dict[DeviceClassName, DeviceClass] = {}

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        """Take these device classes from now on, and look at what they name."""
        served = {each for backend in self._backends for each in backend.types}
        self._classes = {each.name: each for each in classes if each.type in served}
        for backend in self._backends:
            backend.configure(classes)
        self._reporter.look_now()

    def recover(self) -> None:
        """After a start: bring up the devices of our volumes and finish what an earlier process had begun."""
        for report in self._stock.reports():
            asleep = [each for each in report.volumes if not each.is_active and each.kind is VolumeKind.VOLUME]
            backend = self._reporter.backend_of(report.name)
            if asleep and report.problem is None and backend is not None:
                try:
                    with self._changing(report.name, "activation"):
                        backend.activate(report.name, asleep)
                        self._reporter.look_at_locked(report.name)
                except UllageError:
                    # One store that cannot be brought up must not keep the others, nor the agent, down.
                    log.exception("activation failed", extra={"store": report.name})
        for volume in self._stock.volumes().values():
            if volume.state is not VolumeState.READY:
                log.info("finishing what was begun", extra={"volume_id": volume.id, "state": volume.state})
                try:
                    self._operations.run(volume.id, volume, self._resume(volume), patience_seconds=0)
                except StillRunningError:
                    pass  # as it should be
                except UllageError:
                    # Logged where it happened, or the bound on operations. Whoever asks again finishes it; the others
                    # go on, and so does the agent.
                    log.info("left for the next request", extra={"volume_id": volume.id})

    def create(self, request: CreateVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Make a volume, or find the one that an equal request made.

        Raises InvalidRequestError, ConflictError, OutOfRangeError, InsufficientCapacityError, UnavailableError,
        PendingOperationError, StillRunningError.
        """
        check_volume_id(request.volume_id)
        check_owner(request.owner)
        check_sizes(request.size_bytes, request.limit_bytes)
        self._class(request.device_class)
        return self._operations.run(
            request.volume_id, request, lambda: self._create(request), patience_seconds=patience_seconds
        )

    def expand(self, request: ExpandVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Make a volume larger, or find that it is large enough; raises as `create`, and NotFoundError."""
        check_volume_id(request.volume_id)
        check_sizes(request.size_bytes, request.limit_bytes)
        return self._operations.run(
            request.volume_id, request, lambda: self._expand(request), patience_seconds=patience_seconds
        )

    def modify(self, request: ModifyVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Give a volume another wipe policy, or find that it has it; raises NotFoundError, and as `create`."""
        check_volume_id(request.volume_id)
        return self._operations.run(
            request.volume_id, request, lambda: self._modify(request), patience_seconds=patience_seconds
        )

    def delete(self, request: DeleteVolume, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Make a volume be gone, or find that it is.

        Raises NotOursError, VolumeInUseError, UnavailableError (it may be where we cannot look), and as `create`.
        """
        check_volume_id(request.volume_id)
        return self._operations.run(
            request.volume_id, request, lambda: self._delete(request), patience_seconds=patience_seconds
        )

    def snapshot(self, request: TakeSnapshot, *, patience_seconds: float = LONGEST_WAIT_SECONDS) -> Done:
        """Keep what a volume holds at one moment, or find the snapshot that an equal request took.

        A mounted file system is at rest at that moment, as after an fsfreeze. Raises NotFoundError (no such volume),
        ConflictError, UnsupportedError, and as `create`.
        """
        check_volume_id(request.snapshot_id)
        check_volume_id(request.source)
        return self._operations.run(
            request.snapshot_id, request, lambda: self._snapshot(request), patience_seconds=patience_seconds
        )

    def get(self, volume_id: VolumeId) -> Volume:
        """One volume, from memory; raises NotFoundError only when every store could be read."""
        check_volume_id(volume_id)
        found = self._stock.find(volume_id)
        if found is None:
            self._refuse_if_blind(f"volume {volume_id} is on none of the readable stores")
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
        return tuple(self._classes.values())

    def wait_for_change(self, version: int, timeout_seconds: float) -> int:
        """Block until there is something newer than `version` to see, or the time is up."""
        return self._stock.wait_for_change(version, timeout_seconds)

    def _create(self, request: CreateVolume) -> Done:
        found = self._stock.find(request.volume_id)
        if found is not None and self._is_half_made(found):
            self._destroy(found)
            found = None
        is_new = found is None
        if found is None:
            found, is_new = self._copy(request, request.source) if request.source else self._carve(request)
        check_same(request, found)
        return Done(volume=self._finish(found), is_new=is_new)

    def _carve(self, request: CreateVolume) -> tuple[Volume, bool]:
        device_class = self._class(request.device_class)
        device_class = replace(device_class, wipe=request.wipe or device_class.wipe)
        while True:
            chosen = self._choose(request, device_class)
            backend = self._backend(chosen.store)
            with self._changing(chosen.store, f"create of {request.volume_id}"):
                pool = self._stock.pools().get(chosen.name)
                if pool is not None and not pool.exists:
                    backend.make_pool(pool, device_class)
                    self._reporter.look_at_locked(pool.store)
                    pool = self._stock.pools().get(chosen.name)
                allocation = allocate(pool, device_class.layout, request.size_bytes) if pool else None
                if pool is None or allocation is None:
                    continue  # another took the room between the choice and the lock: choose again
                new = NewVolume(
                    id=request.volume_id,
                    device_class=device_class,
                    pool=pool,
                    allocation=allocation,
                    owner=request.owner,
                    needs_wipe=backend.needs_wipe(pool.type, device_class.wipe),
                )
                try:
                    volume = backend.create(new)
                except UllageError:
                    # The disk knows better than the report or the failed command: what is there is gone on with.
                    self._reporter.look_at_locked(pool.store)
                    found = self._stock.find(request.volume_id)
                    if found is None or self._is_half_made(found):
                        raise
                    return found, False
                self._stock.apply(pool.store, None, volume)
            self._reporter.wish(pool.store)
            log.info(
                "volume carved",
                extra={"volume_id": volume.id, "pool": pool.name, "size_bytes": volume.device_size_bytes},
            )
            return volume, True

    def _copy(self, request: CreateVolume, source: VolumeId) -> tuple[Volume, bool]:
        begun_as = self._source(source)
        if request.size_bytes < begun_as.size_bytes:
            raise OutOfRangeError(
                f"{source} has {begun_as.size_bytes} bytes; a volume that begins with them cannot have fewer "
                f"({request.size_bytes} are wanted)",
                size_bytes=begun_as.size_bytes,
            )
        if request.pool not in (None, begun_as.pool):
            raise InvalidRequestError(f"{source} is in {begun_as.pool}, and no copy of it can be in {request.pool}")
        device_class = self._class(request.device_class)
        wish = _Wish(
            id=request.volume_id,
            kind=VolumeKind.VOLUME,
            device_class=replace(device_class, wipe=request.wipe or device_class.wipe),
            size_bytes=request.size_bytes,
            limit_bytes=request.limit_bytes,
            owner=request.owner,
        )
        return self._derive(wish, begun_as)

    def _snapshot(self, request: TakeSnapshot) -> Done:
        found = self._stock.find(request.snapshot_id)
        if found is not None:
            check_same_snapshot(request, found)
            return Done(volume=found, is_new=False)
        source = self._source(request.source)
        if source.kind is VolumeKind.SNAPSHOT:
            raise InvalidRequestError(f"{source.id} is a snapshot itself; snapshots are taken of volumes")
        wish = _Wish(
            id=request.snapshot_id,
            kind=VolumeKind.SNAPSHOT,
            device_class=replace(self._class(source.device_class), wipe=source.wipe),
            size_bytes=source.size_bytes,
            owner=source.owner,
        )
        volume, is_new = self._derive(wish, source)
        return Done(volume=volume, is_new=is_new)

    def _source(self, volume_id: VolumeId) -> Volume:
        """What is to be copied; raises NotFoundError, VolumeNotReadyError, PoolUnavailableError."""
        source = self.get(volume_id)
        self._readable(source)
        if source.state is not VolumeState.READY:
            raise VolumeNotReadyError(f"volume {source.id} is still {source.state}", volume_id=source.id)
        return source

    def _derive(self, wish: _Wish, source: Volume) -> tuple[Volume, bool]:
        """Make what begins as the source is at one moment, in its pool: no bytes are moved."""
        backend = self._backend(source.store)
        with self._changing(source.store, f"copy of {source.id} to {wish.id}"):
            source = self._source(source.id)  # nobody else changes it any more
            pool = self._stock.pools()[source.pool]
            if wish.device_class.name not in pool.classes:
                raise InvalidRequestError(
                    f"{source.id} is in {pool.name}, which is none of device class {wish.device_class.name}'s pools"
                )
            check_limit(rounded_bytes(source.layout, pool.extent_bytes, wish.size_bytes), wish.limit_bytes, pool)
            allocation = allocate(pool, source.layout, wish.size_bytes)
            if allocation is None:
                self._reporter.look_at_locked(source.store)
                pool = self._stock.pools()[source.pool]
                allocation = allocate(pool, source.layout, wish.size_bytes)
            if allocation is None:
                raise no_room_for_copy(source, pool, wish.size_bytes)
            new = NewVolume(
                id=wish.id,
                kind=wish.kind,
                source=source,
                taken_at=int(time.time()) if wish.kind is VolumeKind.SNAPSHOT else 0,
                device_class=wish.device_class,
                pool=pool,
                allocation=allocation,
                owner=wish.owner,
                needs_wipe=False,
            )
            try:
                volume = backend.create(new)
                if volume.device_size_bytes < allocation.size_bytes:
                    volume = backend.expand(volume, allocation, needs_wipe=False)
            except UllageError:
                self._reporter.look_at_locked(pool.store)
                found = self._stock.find(wish.id)
                if found is None or self._is_half_made(found):
                    raise
                return found, False
            self._stock.apply(pool.store, None, volume)
        self._reporter.wish(pool.store)
        log.info("volume derived", extra={"volume_id": volume.id, "kind": volume.kind, "source": source.id})
        return volume, True

    def _choose(self, request: CreateVolume, device_class: DeviceClass) -> Pool:
        """The pool for a new volume; before a refusal everything is looked at afresh."""
        for is_last in (False, True):
            pools = {
                name: pool
                for name, pool in self._stock.pools().items()
                if device_class.name in pool.classes and request.pool in (None, name)
            }
            demand = Demand(
                key="",
                size_bytes=request.size_bytes,
                layout=device_class.layout,
                pools=tuple(pools),
            )
            placed = place([demand], pools)
            if placed is not None:
                chosen = pools[placed[""].pool]
                check_limit(placed[""].size_bytes, request.limit_bytes, chosen)
                return chosen
            if is_last:
                break
            self._reporter.look_now()
        raise no_room(request, device_class, tuple(pools.values()), self._problems())

    def _finish(self, volume: Volume) -> Volume:
        """Wipe what a CREATING or GROWING volume must not show, and make it READY."""
        if volume.state is VolumeState.READY:
            return volume
        backend = self._readable(volume)
        volume = self._awake(backend, volume)
        start = 0 if volume.state is VolumeState.CREATING else volume.size_bytes
        if start < volume.device_size_bytes and backend.needs_wipe(volume.type, volume.wipe):
            self._wipe_part(volume, Moment.CREATE if start == 0 else Moment.GROW, start)
        with self._changing(volume.store, f"settling of {volume.id}"):
            settled = backend.settle(volume)
            self._stock.apply(volume.store, volume, settled)
        self._reporter.wish(volume.store)
        return settled

    def _expand(self, request: ExpandVolume) -> Done:
        volume = self.get(request.volume_id)
        _refuse_unfinished(volume)
        if volume.kind is VolumeKind.SNAPSHOT:
            raise InvalidRequestError(f"{volume.id} is a snapshot: it has its size for good")
        check_limit(volume.size_bytes, request.limit_bytes, volume)
        if volume.size_bytes >= request.size_bytes and volume.state is VolumeState.READY:
            return Done(volume=volume, is_new=False)
        if volume.device_size_bytes < request.size_bytes:
            volume = self._grow(request, volume)
        return Done(volume=self._finish(volume), is_new=True)

    def _grow(self, request: ExpandVolume, volume: Volume) -> Volume:
        backend = self._readable(volume)
        with self._changing(volume.store, f"expand of {volume.id}"):
            growth = self._growth(request, volume)
            if growth is None:
                self._reporter.look_at_locked(volume.store)
                volume = self.get(volume.id)
                growth = self._growth(request, volume)
            if growth is None:
                raise no_room_to_grow(request, volume, self._stock.pools()[volume.pool])
            needs_wipe = backend.needs_wipe(volume.type, volume.wipe)
            grown = backend.expand(volume, growth, needs_wipe=needs_wipe)
            self._stock.apply(volume.store, volume, grown)
        self._reporter.wish(volume.store)
        log.info("volume grown", extra={"volume_id": volume.id, "size_bytes": grown.device_size_bytes})
        return grown

    def _growth(self, request: ExpandVolume, volume: Volume) -> Allocation | None:
        pool = self._stock.pools().get(volume.pool)
        if pool is None:
            raise PoolUnavailableError(f"no device class on this node names {volume.pool}", pool=volume.pool)
        check_limit(rounded_bytes(volume.layout, pool.extent_bytes, request.size_bytes), request.limit_bytes, volume)
        names = tuple(share.physical_volume for share in volume.taken)
        return allocate_growth(pool, volume.layout, names, volume.device_size_bytes, request.size_bytes)

    def _modify(self, request: ModifyVolume) -> Done:
        volume = self.get(request.volume_id)
        _refuse_unfinished(volume)
        if volume.wipe is request.wipe:
            return Done(volume=volume, is_new=False)
        backend = self._readable(volume)
        with self._changing(volume.store, f"modify of {volume.id}"):
            modified = backend.set_wipe(volume, request.wipe)
            self._stock.apply(volume.store, volume, modified)
        self._reporter.wish(volume.store)
        log.info("volume modified", extra={"volume_id": volume.id, "wipe": modified.wipe})
        return Done(volume=modified, is_new=True)

    def _delete(self, request: DeleteVolume) -> Done:
        volume = self._stock.find(request.volume_id)
        if volume is None:
            # "Already gone" is an answer with consequences: it is given on a fresh look at everything only.
            self._reporter.look_now()
            volume = self._stock.find(request.volume_id)
        if volume is None:
            self._refuse_if_blind(f"volume {request.volume_id} cannot be told to be gone", request.pool)
            return Done(volume=None, is_new=False)
        if request.pool not in (None, volume.pool):
            raise NotOursError(f"volume {volume.id} is in {volume.pool}, not in {request.pool}", volume_id=volume.id)
        self._destroy(volume)
        return Done(volume=volume, is_new=True)

    def _destroy(self, volume: Volume) -> None:
        backend = self._readable(volume)
        # An earlier removal may have died half-way: then nothing is left of it to wipe.
        if backend.needs_wipe(volume.type, volume.wipe) and volume.device_size_bytes > 0:
            with self._changing(volume.store, f"delete of {volume.id}"):
                condemned = backend.condemn(volume)
                self._stock.apply(volume.store, volume, condemned)
            volume = self._awake(backend, condemned)
            self._wipe_part(volume, Moment.DELETE, 0)
        with self._changing(volume.store, f"delete of {volume.id}"):
            with suppress(NotFoundError):  # a fresh look says that it is gone: that is what was asked for
                backend.remove(volume)
            self._stock.apply(volume.store, volume, None)
        self._reporter.wish(volume.store)
        log.info("volume removed", extra={"volume_id": volume.id, "pool": volume.pool})

    def _resume(self, volume: Volume) -> Callable[[], Done]:
        def work() -> Done:
            try:
                if volume.state is VolumeState.DELETING or self._is_half_made(volume):
                    self._destroy(volume)
                    return Done(volume=None, is_new=True)
                return Done(volume=self._finish(volume), is_new=True)
            except UllageError as failure:  # nobody waits for it
                log.warning("not finished", extra={"volume_id": volume.id, "why": str(failure)})
                raise

        return work

    def _is_half_made(self, volume: Volume) -> bool:
        """Whether its creation died before it was what its class asks for: it is removed and begun again.

        It has no device yet, or LVM had not come to its integrity (which is added when all the rest is there), or it
        had its source's content and not yet its own size.
        """
        device_class = self._classes.get(volume.device_class)
        lacks_integrity = device_class is not None and device_class.layout.integrity > volume.layout.integrity
        return volume.state is VolumeState.CREATING and (
            volume.device_size_bytes == 0 or lacks_integrity or volume.source is not None
        )

    def _wipe_part(self, volume: Volume, moment: Moment, start_bytes: int) -> None:
        whole = human_bytes(volume.device_size_bytes - start_bytes)
        self._wipe(
            volume.device_path,
            volume.wipe,
            moment=moment,
            start_bytes=start_bytes,
            end_bytes=volume.device_size_bytes,
            progress=lambda done: self._operations.note(volume.id, f"{human_bytes(done)} of {whole} wiped"),
        )

    def _awake(self, backend: Backend, volume: Volume) -> Volume:
        """The volume with its device there to be written to."""
        if volume.is_active:
            return volume
        with self._changing(volume.store, f"activation of {volume.id}"):
            backend.activate(volume.store, [volume])
            self._reporter.look_at_locked(volume.store)
        return self.get(volume.id)

    @contextmanager
    def _changing(self, store: StoreName, purpose: str) -> Iterator[None]:
        """Hold a store for a change. After a failed one look at once: it may have done more than it said.

        Without that look a retry could begin at a mark that is no longer there, and wipe what is in use by then.
        """
        with self._locks.hold(store, purpose):
            try:
                yield
            except UllageError:
                self._reporter.look_at_locked(store)
                raise

    def _class(self, name: DeviceClassName) -> DeviceClass:
        found = self._classes.get(name)
        if found is None:
            known = ", ".join(sorted(self._classes)) or "none"
            raise UnknownDeviceClassError(f"no device class {name!r} on this node; there are: {known}")
        return found

    def _backend(self, store: StoreName) -> Backend:
        backend = self._reporter.backend_of(store)
        if backend is None:
            raise PoolUnavailableError(f"{store} is not a store of this node", store=store)
        return backend

    def _readable(self, volume: Volume) -> Backend:
        """The volume's backend, if its store can be trusted now; raises PoolUnavailableError."""
        report = self._stock.report(volume.store)
        if report is None or report.problem is not None:
            why = report.problem.message if report and report.problem else "it has not been read yet"
            raise PoolUnavailableError(f"volume {volume.id} is on {volume.store}: {why}", store=volume.store)
        return self._backend(volume.store)

    def _problems(self, pool: PoolName | None = None) -> list[str]:
        """Why some store (that of `pool`, if given) cannot be read now; nothing when all can be."""
        reports = self._stock.reports()
        if pool is not None:
            reports = tuple(report for report in reports if f"{pool}/".startswith(f"{report.name}/"))
            if not reports:
                return [f"{pool} is none of this node's pools"]
        return [report.problem.message for report in reports if report.problem is not None]

    def _refuse_if_blind(self, what: str, pool: PoolName | None = None) -> None:
        """Raise UnavailableError when the volume may be where we cannot look."""
        problems = self._problems(pool)
        if problems:
            raise UnavailableError(f"{what}, but not every store can be read: {'; '.join(problems)}")


def _refuse_unfinished(volume: Volume) -> None:
    if volume.state in (VolumeState.CREATING, VolumeState.DELETING):
        raise VolumeNotReadyError(f"volume {volume.id} is still {volume.state}", volume_id=volume.id)
