"""What a storage backend is: facts and single steps. Order, locks, retries and wiping belong to `node_agent.agent`.

The steps of a life, and the marks they leave on the device itself, so that a crash at any point is seen again:

    create ──(CREATING)── wipe ── settle ──(READY)          without a wipe `create` leaves it READY at once
    expand ──(GROWING)─── wipe the new part ── settle ──(READY)
    condemn ──(DELETING)── wipe ── remove

Every changing step is called with its store's lock held, is safe to repeat, and answers with the store's report taken
right after the change: nobody has to guess what it did. A changing step that raises has changed nothing, or has left a
state that repeating it brings to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ullage.model import DeviceClass, Orphan, Owner, Pool, PoolName, Problem, StoreName, Volume, VolumeId


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """All there is in one store at one moment. With a `problem` it says nothing about what exists."""

    name: StoreName
    pools: tuple[Pool, ...] = ()
    volumes: tuple[Volume, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVolume:
    """A volume as decided: `size_bytes` is what `ullage.capacity` rounded it to, `physical_volumes` where it goes."""

    id: VolumeId
    device_class: DeviceClass
    pool: Pool
    size_bytes: int
    physical_volumes: tuple[str, ...]
    owner: Owner
    needs_wipe: bool
    """Leave it CREATING: its bytes are not fit to be seen yet."""


class Backend(Protocol):
    """One kind of storage on this node, for the classes it was given."""

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        """Take these classes from now on (a reload). Those of another type are passed over."""

    def look(self) -> tuple[StoreReport, ...]:
        """Report every store that its classes name or match, each whole or with its problem. Changes nothing."""

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> StoreReport:
        """Make the thin pool that `device_class` asks for on demand; one that is there already is left as it is."""

    def reads_as_zeroes(self, pool: Pool) -> bool:
        """Whether a new volume's bytes are zeroes by the nature of the pool, so that no wipe is needed."""

    def create(self, new: NewVolume) -> StoreReport:
        """Make the volume, tagged with its owner, active, CREATING if it needs a wipe and READY otherwise.

        Raises InsufficientCapacityError when there is no room after all.
        """

    def expand(
        self, volume: Volume, size_bytes: int, physical_volumes: tuple[str, ...], *, needs_wipe: bool
    ) -> StoreReport:
        """Make the volume `size_bytes` (already rounded); GROWING, its old size kept, if the new part needs a wipe."""

    def settle(self, volume: Volume) -> StoreReport:
        """Drop the CREATING or GROWING mark: every byte is fit to be seen."""

    def condemn(self, volume: Volume) -> StoreReport:
        """Mark DELETING, after a fresh look that it is ours and nobody has it open.

        Raises NotFoundError when it is gone, NotOursError, VolumeInUseError.
        """

    def remove(self, volume: Volume) -> StoreReport:
        """Remove it, if a fresh look says that it carries our tag and this id and that nobody has it open.

        Raises NotFoundError when it is gone, NotOursError, VolumeInUseError.
        """

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> StoreReport:
        """Make these volumes' devices appear (after a boot)."""


def pool_of(report: StoreReport, name: PoolName) -> Pool | None:
    """The pool of that name in a report."""
    return next((pool for pool in report.pools if pool.name == name), None)
