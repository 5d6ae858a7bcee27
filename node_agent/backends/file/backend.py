"""The file backend: every directory that a class of type `file` names is a store with one pool.

Volumes are files on loop devices, for trials, kind clusters and machines with no device-mapper; the contract is the
port's. What is known is on the disk: the only thing remembered is each directory's marker, so that an unmounted file
system is not taken for a directory whose volumes are gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime

from node_agent.backends.file import snapshots
from node_agent.backends.file.derivation import HELD_SECONDS
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.files import DurableFiles, Files
from node_agent.backends.file.loops import Loops
from node_agent.backends.file.store import Store, Tools
from node_agent.backends.port import HeldStep, NewVolume, StoreReport
from ullage.capacity import Allocation
from ullage.errors import PoolUnavailableError, PreconditionError, UnsupportedError
from ullage.model import ByteRange, DeviceClass, DeviceType, Pool, Problem, StoreName, Volume, Wipe
from ullage.run import Runner

DURABLE = DurableFiles()


def utc_now() -> datetime:
    """The time for the records."""
    return datetime.now(UTC)


class FileBackend:
    """Implements `Backend`."""

    types = frozenset({DeviceType.FILE})

    def __init__(
        self,
        runner: Runner,
        files: Files = DURABLE,
        now: Callable[[], datetime] = utc_now,
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        """`now` is aware UTC, for the records; `held_seconds`: see `derivation`."""
        self._tools = Tools(files=files, loops=Loops(runner), now=now, held_seconds=held_seconds)
        self._stores: dict[StoreName, Store] = {}

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        """See the port. A directory that stays configured keeps its remembered marker."""
        of_store: dict[StoreName, list[DeviceClass]] = {}
        for device_class in classes:
            if device_class.type is DeviceType.FILE:
                of_store.setdefault(StoreName(os.path.normpath(device_class.directory)), []).append(device_class)
        known = {name: store.known_uuid for name, store in self._stores.items()}
        self._stores = {
            name: Store(name, tuple(users), self._tools, known_uuid=known.get(name, ""))
            for name, users in of_store.items()
        }

    def look(self) -> tuple[StoreReport, ...]:
        """See the port."""
        return tuple(self.look_at(name) for name in self._stores)

    def look_at(self, store: StoreName) -> StoreReport:
        """See the port. Of two paths to one directory the first has it."""
        taken: dict[tuple[int, int], StoreName] = {}
        for name, found in self._stores.items():
            if name == store:
                return found.look(taken)
            with suppress(OSError):
                there = os.stat(name)  # noqa: PTH116 - a store's name
                taken[there.st_dev, there.st_ino] = name
        problem = Problem(reason=PoolUnavailableError.reason, message=f"no device class names {store}")
        return StoreReport(name=store, problem=problem)

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> None:  # noqa: ARG002 - the port's shape
        """See the port. A directory's pool exists once it has its marker; every other change makes it as well."""
        self._store(pool.store).make_pool()

    def needs_wipe(self, volume_type: DeviceType, wipe: Wipe) -> bool:  # noqa: ARG002 - the port's shape
        """See the port. A new file shows nothing but zeroes, whatever was on its blocks."""
        return False

    def create(self, new: NewVolume) -> Volume:
        """See the port."""
        return self._store(new.pool.store).create(new)

    def held_step(self, source: Volume, *, is_mounted: bool) -> HeldStep:
        """See the port. Whoever copies bytes takes an unused device for itself, and so does the hold."""
        if not is_mounted and not self._store(source.store).can_clone():
            raise PreconditionError(
                f"{source.id} is not mounted, and is copied byte by byte: a group with it needs a directory on xfs or "
                "btrfs",
                volume_id=source.id,
            )
        return HeldStep.CREATE

    def renew(self, snapshots: Sequence[Volume]) -> None:
        """See the port. They are made during the hold."""
        raise UnsupportedError(f"snapshots of files are never renewed ({', '.join(each.id for each in snapshots)})")

    def is_copied_by_bytes(self, source: Volume) -> bool:
        """See the port. Files that can share their blocks need no copying."""
        return not self._store(source.store).can_clone()

    @contextmanager
    def reading(self, volume: Volume) -> Iterator[int]:
        """See the port."""
        with snapshots.reading(self._store(volume.store).found, volume.id) as (descriptor,):
            yield descriptor

    @contextmanager
    def image(self, volume: Volume) -> Iterator[int]:
        """See the port."""
        with ExitStack() as held:
            directory = held.enter_context(self._store(volume.store).found())
            with faults_told(directory.path):  # and not what the body raises
                descriptor = held.enter_context(directory.reading(volume.id))
            yield descriptor

    def note_filled(self, volume: Volume, filled_bytes: int) -> Volume:
        """See the port."""
        return self._store(volume.store).note_filled(volume.id, filled_bytes)

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:
        """See the port."""
        return snapshots.allocated(self._store(snapshot.store).found, snapshot.id)

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:
        """See the port."""
        if base.store != target.store:
            raise PreconditionError(f"{base.id} is in {base.store}, {target.id} in {target.store}: they share nothing")
        return snapshots.changed(self._store(base.store).found, base.id, target.id)

    def expand(self, volume: Volume, growth: Allocation, *, needs_wipe: bool) -> Volume:
        """See the port."""
        return self._store(volume.store).expand(volume.id, growth.size_bytes, needs_wipe=needs_wipe)

    def settle(self, volume: Volume) -> Volume:
        """See the port."""
        return self._store(volume.store).settle(volume.id)

    def set_wipe(self, volume: Volume, wipe: Wipe) -> Volume:
        """See the port."""
        return self._store(volume.store).set_wipe(volume.id, wipe)

    def condemn(self, volume: Volume) -> Volume:
        """See the port."""
        return self._store(volume.store).condemn(volume.id)

    def remove(self, volume: Volume) -> None:
        """See the port."""
        self._store(volume.store).remove(volume.id)

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> None:
        """See the port."""
        self._store(store).activate([volume.id for volume in volumes])

    def _store(self, name: StoreName) -> Store:
        store = self._stores.get(name)
        if store is None:
            raise PoolUnavailableError(f"no device class names {name}")
        return store
