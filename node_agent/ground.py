"""What every operation stands on: what is known of the storage, and the one way to change it.

A store is changed with its lock held, and looked at after a change that failed. A store that cannot be read is never
taken for an empty one: nothing on it is changed, and nothing that may be on it is said to be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from node_agent.backends.port import Backend
from node_agent.copying import Course
from node_agent.fills import Fills
from node_agent.holds import Holds
from node_agent.locks import Operations, Sources
from node_agent.reporter import Reporter
from node_agent.stock import Stock
from node_agent.store_locks import StoreLocks
from node_agent.wipe import Moment
from ullage.errors import (
    NotFoundError,
    PoolUnavailableError,
    UllageError,
    UnavailableError,
    UnknownDeviceClassError,
    human_bytes,
)
from ullage.model import DeviceClass, DeviceClassName, PoolName, StoreName, Volume, VolumeId, Wipe
from ullage.names import check_volume_id


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


class Copier(Protocol):
    """Copies a snapshot's bytes into a device; see `node_agent.copying`."""

    def __call__(  # noqa: PLR0913 - one job with many facts
        self, source: int, device_path: str, course: Course, *, start_bytes: int, end_bytes: int, is_blank: bool
    ) -> None:
        """Copy [start, end); raises VolumeInUseError, DeviceError, UnavailableError."""


class Ground:
    """Thread-safe. It keeps nothing of its own but the classes in force."""

    def __init__(  # noqa: PLR0913 - what everything stands on
        self,
        *,
        stock: Stock,
        locks: StoreLocks,
        operations: Operations,
        reporter: Reporter,
        wiper: Wiper,
        copier: Copier,
        fills: Fills,
        holds: Holds,
    ) -> None:
        """Without a class until `Agent.configure`, which replaces them whole."""
        self.stock = stock
        self.operations = operations
        self.reporter = reporter
        self.copy = copier
        self.fills = fills
        self.holds = holds
        self.sources = Sources()
        self.classes: dict[DeviceClassName, DeviceClass] = {}
        self._locks = locks
        self._wipe = wiper

    def get(self, volume_id: VolumeId) -> Volume:
        """One volume, from memory; raises NotFoundError only when every store could be read."""
        check_volume_id(volume_id)
        found = self.stock.find(volume_id)
        if found is None:
            self.refuse_if_blind(f"volume {volume_id} is on none of the readable stores")
            raise NotFoundError(f"volume {volume_id} is on none of this node's stores", volume_id=volume_id)
        return found

    def device_class(self, name: DeviceClassName) -> DeviceClass:
        """The class in force; raises UnknownDeviceClassError."""
        found = self.classes.get(name)
        if found is None:
            known = ", ".join(sorted(self.classes)) or "none"
            raise UnknownDeviceClassError(f"no device class {name!r} on this node; there are: {known}")
        return found

    def backend(self, store: StoreName) -> Backend:
        """Whose store it is; raises PoolUnavailableError."""
        backend = self.reporter.backend_of(store)
        if backend is None:
            raise PoolUnavailableError(f"{store} is not a store of this node", store=store)
        return backend

    def readable(self, volume: Volume) -> Backend:
        """The volume's backend, if its store can be trusted now; raises PoolUnavailableError."""
        report = self.stock.report(volume.store)
        if report is None or report.problem is not None:
            why = report.problem.message if report and report.problem else "it has not been read yet"
            raise PoolUnavailableError(f"volume {volume.id} is on {volume.store}: {why}", store=volume.store)
        return self.backend(volume.store)

    @contextmanager
    def changing(self, store: StoreName, purpose: str, patience_seconds: float | None = None) -> Iterator[None]:
        """Hold a store for a change. After a failed one look at once: it may have done more than it said.

        Without that look a retry could begin at a mark that is no longer there, and wipe what is in use by then.
        """
        with self._locks.hold(store, purpose, patience_seconds):
            try:
                yield
            except UllageError:
                self.reporter.look_at_locked(store)
                raise

    def awake(self, backend: Backend, volume: Volume) -> Volume:
        """The volume with its device there to be written to."""
        if volume.is_active:
            return volume
        with self.changing(volume.store, f"activation of {volume.id}"):
            backend.activate(volume.store, [volume])
            self.reporter.look_at_locked(volume.store)
        return self.get(volume.id)

    def wipe_part(self, volume: Volume, moment: Moment, start_bytes: int) -> None:
        """Wipe from `start_bytes` to the end; whoever gives up waiting for it is told how far it is."""
        whole = human_bytes(volume.device_size_bytes - start_bytes)
        self._wipe(
            volume.device_path,
            volume.wipe,
            moment=moment,
            start_bytes=start_bytes,
            end_bytes=volume.device_size_bytes,
            progress=lambda done: self.operations.note(volume.id, f"{human_bytes(done)} of {whole} wiped"),
        )

    def note(self, volume_id: VolumeId, progress: str) -> None:
        """Tell whoever gives up waiting for the operation on this volume how far it is."""
        self.operations.note(volume_id, progress)

    def is_called_off(self, volume_id: VolumeId) -> bool:
        """Whether the operation on this volume is to end at its next safe point."""
        return self.operations.is_called_off(volume_id)

    def problems(self, pool: PoolName | None = None) -> list[str]:
        """Why some store (that of `pool`, if given) cannot be read now; nothing when all can be.

        Without any class nobody has looked anywhere.
        """
        reports = self.stock.reports()
        if not self.classes and not reports:
            return ["no device class is known on this node"]
        if pool is not None:
            reports = tuple(report for report in reports if f"{pool}/".startswith(f"{report.name}/"))
            if not reports:
                return [f"{pool} is none of this node's pools"]
        return [report.problem.message for report in reports if report.problem is not None]

    def refuse_if_blind(self, what: str, pool: PoolName | None = None) -> None:
        """Raise UnavailableError when the volume may be where we cannot look."""
        problems = self.problems(pool)
        if problems:
            raise UnavailableError(f"{what}, but not every store can be read: {'; '.join(problems)}")
