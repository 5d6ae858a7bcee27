"""What LVM was about to tell a thin pool when it died: brought to an end before anything is removed from that pool.

LVM notes in its own metadata what it tells a pool next (`delete 5`, `create_snap 6 1`), under the number of a
transaction; it tells the pool, which keeps the number, and then writes its metadata without the note. When it dies
before that, the note stays. The next activation compares the numbers and tells the pool what it has not heard.

lvcreate ends a note that is left before it makes one of its own. lvremove does not (lvm2 2.03.16): its `delete` joins
what is left under the old number, the pool has that number already, and so LVM takes it for told. The logical volume
is gone then and its thin device is not: nobody knows it, its blocks are taken for ever, and when LVM gives its id out
again, the pool refuses (`already contain thin device with device_id`).

So before the first removal from a pool, and before the first after a change that failed, LVM's metadata are read; and
where a note is left, lvcreate ends it: with a snapshot of the volume that is to go, which goes first.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from node_agent.backends.lvm import tags
from node_agent.backends.lvm.command import Lvm
from ullage.errors import CommandFailedError, PoolUnavailableError, UllageError
from ullage.model import PoolName, StoreName, Volume, VolumeId, VolumeKind, VolumeState

MESSAGE = re.compile(r"message\d+ \{")
PREFIX = "ending-"

log = logging.getLogger(__name__)


class PoolMessages:
    """To be used by whoever holds the store's lock."""

    def __init__(self, lvm: Lvm, devices: Callable[[StoreName], Sequence[str]]) -> None:
        """Nothing is looked at before the first removal. `devices` are what a group's commands may read."""
        self._lvm, self._devices = lvm, devices
        self._ended: set[PoolName] = set()
        """The pools that nothing is left for, as far as we have a hand in it."""

    @contextmanager
    def ended(self, pool: PoolName, going: Volume) -> Iterator[None]:
        """Nothing is left to be told to the pool when a thin volume is removed from it.

        Raises PoolUnavailableError when LVM cannot end what it has begun, CommandError.
        """
        if pool not in self._ended:
            if self._is_left(pool):
                log.warning("LVM died over a change of a thin pool, which is ended now", extra={"pool": pool})
                self._end(pool, going)
            self._ended.add(pool)
        with self.doubted(pool):
            yield

    @contextmanager
    def doubted(self, pool: PoolName) -> Iterator[None]:
        """A change of a pool that may leave something to be told to it if it fails."""
        try:
            yield
        except UllageError:
            self._ended.discard(pool)
            raise

    def _end(self, pool: PoolName, going: Volume) -> None:
        """Have LVM end it, whatever else becomes of the snapshot. If we die over it, the next start removes that."""
        name = VolumeId(f"{PREFIX}{secrets.token_hex(4)}")
        label = tags.Label(
            volume_id=name,
            kind=VolumeKind.SNAPSHOT,
            source=going.id,
            device_class=going.device_class,
            wipe=going.wipe,
            owner=going.owner,
            state=VolumeState.DELETING,
        )
        marks = (word for tag in tags.written(label) for word in ("--addtag", tag))
        devices = self._devices(going.store)
        try:
            self._lvm.change(
                *("lvcreate", "--yes", "--name", name, "--snapshot", "--permission", "r"),
                *("--setactivationskip", "n", "--activate", "y"),  # without one it ends nothing in a pool at rest
                *marks,
                f"{going.store}/{going.id}",
                devices=devices,
            )
            self._lvm.change("lvremove", "--yes", f"{going.store}/{name}", devices=devices)
        except UllageError as failure:
            if self._is_left(pool):
                raise PoolUnavailableError(
                    f"LVM died over a change of the thin pool {pool} and cannot end it; a removal would leave the "
                    f"volume's blocks taken for ever: {failure}",
                    store=going.store,
                ) from failure
            log.warning("LVM's change of a thin pool is ended", extra={"pool": pool, "but": str(failure)})

    def _is_left(self, pool: PoolName) -> bool:
        """Whether LVM's metadata have a note for this pool, on any of the group's devices."""
        group, _, name = pool.partition("/")
        is_told = False
        for device in self._devices(StoreName(group)):
            try:
                text = self._lvm.metadata_on(device)
            except CommandFailedError:
                continue  # a physical volume may be without a copy
            if name in noted(text):
                return True
            is_told = True
        if not is_told:
            log.warning("no device of a volume group shows LVM's metadata", extra={"store": group})
        return False


def noted(metadata: str) -> frozenset[str]:
    """The thin pools that something is noted for in a volume group's metadata, as LVM writes them."""
    pools: set[str] = set()
    within: list[str] = []
    for line in metadata.splitlines():
        word = line.strip()
        if word == "}":
            del within[-1:]
        elif word.endswith("{"):
            if MESSAGE.fullmatch(word) and len(within) > 2:  # noqa: PLR2004 - … logical_volumes, the pool, its segment
                pools.add(within[-2])
            within.append(word.removesuffix("{").strip())
    return frozenset(pools)
