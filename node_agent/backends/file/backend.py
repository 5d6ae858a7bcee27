"""The file backend: every directory that a class of type `file` names is a store with one pool.

Volumes are files on loop devices, for trials, kind clusters and machines with no device-mapper; the contract is the
port's. What is known is on the disk: the only thing remembered is each directory's marker, so that an unmounted file
system is not taken for a directory whose volumes are gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime

from node_agent.backends.file.files import Files
from node_agent.backends.file.loops import Loops
from node_agent.backends.file.store import Store, Tools
from node_agent.backends.port import NewVolume, StoreReport
from ullage.errors import PoolUnavailableError
from ullage.model import DeviceClass, DeviceType, Pool, StoreName, Volume
from ullage.run import Runner


class FileBackend:
    """Implements `Backend`."""

    def __init__(self, runner: Runner, files: Files, now: Callable[[], datetime]) -> None:
        """`now` is aware UTC, for the records."""
        self._tools = Tools(files=files, loops=Loops(runner), now=now)
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
        taken: dict[tuple[int, int], StoreName] = {}
        return tuple(store.look(taken) for store in self._stores.values())

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> StoreReport:  # noqa: ARG002 - the port's shape
        """See the port. A directory's pool exists once it has its marker; `create` makes it as well."""
        return self._store(pool.store).make_pool()

    def reads_as_zeroes(self, pool: Pool) -> bool:  # noqa: ARG002 - the port's shape
        """See the port. A new file has nothing but zeroes."""
        return True

    def create(self, new: NewVolume) -> StoreReport:
        """See the port."""
        return self._store(new.pool.store).create(new)

    def expand(
        self,
        volume: Volume,
        size_bytes: int,
        physical_volumes: tuple[str, ...],  # noqa: ARG002 - the port's shape
        *,
        needs_wipe: bool,
    ) -> StoreReport:
        """See the port."""
        return self._store(volume.store).expand(volume.id, size_bytes, needs_wipe=needs_wipe)

    def settle(self, volume: Volume) -> StoreReport:
        """See the port."""
        return self._store(volume.store).settle(volume.id)

    def condemn(self, volume: Volume) -> StoreReport:
        """See the port."""
        return self._store(volume.store).condemn(volume.id)

    def remove(self, volume: Volume) -> StoreReport:
        """See the port."""
        return self._store(volume.store).remove(volume.id)

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> StoreReport:
        """See the port."""
        return self._store(store).activate([volume.id for volume in volumes])

    def _store(self, name: StoreName) -> Store:
        store = self._stores.get(name)
        if store is None:
            raise PoolUnavailableError(f"no device class names {name}")
        return store
