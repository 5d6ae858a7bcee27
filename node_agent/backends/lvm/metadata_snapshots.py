"""A thin pool's metadata held still for whoever reads it: the kernel's metadata snapshot, taken and given back.

There is one for each pool, and anybody may take and release it. It is taken by one of us at a time and never from
somebody else, and it is released only while it is the one that was taken. The kernel commits before it takes it: what
was there before is in it.

It outlives its taker, and a reboot too: it is part of the metadata. So it is noted before it is taken (`debts`), and
what a dead process has left is released by the next, as soon as the pool is there. Such a note goes with a reboot, and
a tag on the pool does not: one that is held, with our tag, and owed by nobody of this boot, is what a power cut has
left of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from node_agent.backends.lvm import tags
from node_agent.backends.lvm.command import LOOK_SECONDS, Lvm, mapped
from node_agent.debts import Debts
from node_agent.store_locks import STORE_PATIENCE_SECONDS, StoreLocks
from ullage.errors import CommandFailedError, StoreBusyError, UllageError, UnavailableError
from ullage.model import PoolName, StoreName

DEBT = "metadata-snapshot"
NONE_HELD = "-"
ROOT_FIELD = 6
"""Of a thin pool's status: start, length, `thin-pool`, transaction, metadata used, data used, held root, mode …"""
HELD_ALREADY = "Device or resource busy"
"""dmsetup's English for what the kernel answers when there is one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owed:
    """A metadata snapshot that is ours: the one at that root, or whichever there is if it was not seen yet."""

    root: str | None
    paid: Callable[[], None]


class MetadataSnapshots:
    """Thread-safe."""

    def __init__(
        self,
        lvm: Lvm,
        debts: Debts,
        devices: Callable[[StoreName], Sequence[str]],
        *,
        patience_seconds: float = STORE_PATIENCE_SECONDS,
    ) -> None:
        """Nothing is looked at, no note read, before `take_over`. `devices` are what a group's commands may read."""
        self._lvm, self._debts, self._devices = lvm, debts, devices
        self._pools = StoreLocks(patience_seconds)
        self._owed: dict[PoolName, _Owed] = {}

    @contextmanager
    def taken(self, pool: PoolName, purpose: str, *, devices: Sequence[str]) -> Iterator[str]:
        """The path of a device on which `pool` has a metadata snapshot of ours, for as long as it is needed.

        A pool that is not active is activated. Raises StoreBusyError, UnavailableError (somebody else has taken one, or
        the pool is in no state to give any), CommandError.
        """
        with self._pools.hold(StoreName(pool), purpose):
            root = self._root_once_active(pool, devices)
            if pool in self._owed:  # it could not be released the last time
                self._release(pool)
                root = self._root(pool)
            if root != NONE_HELD:
                if not self._is_marked(pool):
                    raise _held_by_another(pool, root)
                self._owe(pool, root)
                self._release(pool)
            self._owe(pool, None)
            try:
                self._mark(pool, "--addtag")
                self._reserve(pool)
                self._owe(pool, self._root(pool))
                yield f"/dev/mapper/{mapped(pool)}_tmeta"
            finally:
                self._try_to_release(pool)

    def take_over(self) -> None:
        """Make the debts of a dead process ours. To be called before the first is taken."""
        for debt in self._debts.left(DEBT):
            pool = PoolName(debt.facts.get("pool", ""))
            before = self._owed.get(pool)  # it died between two notes of one debt: the later one knows the root
            self._owe(pool, debt.facts.get("root") or (before.root if before else None))

    def release_left_over(self) -> None:
        """Release what is owed and not in use, as far as the pools are there to release it."""
        for pool in tuple(self._owed):
            try:
                with self._pools.hold(StoreName(pool), "release of a metadata snapshot", 0):
                    self._try_to_release(pool)
            except StoreBusyError:
                continue  # it is in use, and released after that

    def recover(self, marked: Iterable[PoolName]) -> None:
        """Release what a power cut has left, of the pools that a report has found marked."""
        for pool in marked:
            if pool in self._owed:
                continue
            try:
                with self._pools.hold(StoreName(pool), "release of a metadata snapshot", 0):
                    if pool not in self._owed and self._is_marked(pool):  # the report may be older than the lock
                        log.info("a metadata snapshot was left by a power cut", extra={"pool": pool})
                        self._owe(pool, None)
                        self._try_to_release(pool)
            except StoreBusyError:
                continue  # it is in use
            except UllageError as failure:
                log.warning("metadata snapshot not released", extra={"pool": pool, "why": str(failure)})

    def _root_once_active(self, pool: PoolName, devices: Sequence[str]) -> str:
        """As `_root`, of a pool that may have no device yet: after a boot those of its volumes bring it, if any do."""
        try:
            return _root(pool, self._status(pool))
        except CommandFailedError:
            self._lvm.change("lvchange", "--activate", "y", pool, devices=devices)
            return self._root(pool)

    def _reserve(self, pool: PoolName) -> None:
        try:
            self._lvm.tell_pool(pool, "reserve_metadata_snap")
        except CommandFailedError as failure:
            if HELD_ALREADY not in failure.stderr:
                raise
            self._mark(pool, "--deltag")
            self._owed.pop(pool).paid()
            raise _held_by_another(pool, self._root(pool)) from failure

    def _try_to_release(self, pool: PoolName) -> None:
        try:
            self._release(pool)
        except UllageError as failure:
            # Still owed: whoever takes the next one, or the next start, tries again.
            log.warning("metadata snapshot not released", extra={"pool": pool, "why": str(failure)})

    def _release(self, pool: PoolName) -> None:
        """Release it if it is still there and still ours; nothing when none is owed."""
        owed = self._owed.get(pool)
        if owed is None:
            return
        root = self._root(pool)
        if root != NONE_HELD and owed.root in (None, root):
            self._lvm.tell_pool(pool, "release_metadata_snap")
        self._mark(pool, "--deltag")
        del self._owed[pool]
        owed.paid()

    def _mark(self, pool: PoolName, change: str) -> None:
        """Put the tag on, or take it off; nothing happens where that is so already."""
        self._lvm.change("lvchange", change, tags.METADATA_SNAPSHOT, pool, devices=self._devices_of(pool))

    def _is_marked(self, pool: PoolName) -> bool:
        said = self._lvm.look("lvs", "--noheadings", "-o", "lv_tags", pool, devices=self._devices_of(pool))
        return tags.METADATA_SNAPSHOT in said.strip().split(",")

    def _devices_of(self, pool: PoolName) -> Sequence[str]:
        return self._devices(StoreName(pool.partition("/")[0]))

    def _owe(self, pool: PoolName, root: str | None) -> None:
        facts = {"pool": pool, **({"root": root} if root else {})}
        try:
            paid = self._debts.owe(DEBT, facts)
        except OSError as failure:
            raise UnavailableError(f"a metadata snapshot of {pool} cannot be noted: {failure}") from failure
        before = self._owed.get(pool)
        self._owed[pool] = _Owed(root=root, paid=paid)
        if before is not None:
            before.paid()

    def _root(self, pool: PoolName) -> str:
        """Where the pool's metadata snapshot begins, or NONE_HELD; raises UnavailableError."""
        try:
            status = self._status(pool)
        except CommandFailedError as failure:
            raise UnavailableError(f"the thin pool {pool} is not active: {failure.stderr.strip()}") from failure
        return _root(pool, status)

    def _status(self, pool: PoolName) -> str:
        argv = (*self._lvm.prefix, "dmsetup", "status", "--noflush", f"{mapped(pool)}-tpool")
        return self._lvm.runner.look(argv, timeout_seconds=LOOK_SECONDS).stdout


def _root(pool: PoolName, status: str) -> str:
    fields = status.split()
    if len(fields) <= ROOT_FIELD or fields[2] != "thin-pool":  # `thin-pool Fail` and the like
        raise UnavailableError(f"the thin pool {pool} tells no state of its metadata: {status.strip()!r}")
    return fields[ROOT_FIELD]


def _held_by_another(pool: PoolName, root: str) -> UnavailableError:
    return UnavailableError(
        f"the metadata snapshot of {pool} is held by another (its root is block {root}), and there can be only one; "
        f"if nobody uses it: dmsetup message {mapped(pool)}-tpool 0 release_metadata_snap"
    )
