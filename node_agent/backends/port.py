"""What a storage backend is: facts and single steps. Order, locks, retries and wiping belong to the agent's operations.

The steps of a life, and the marks they leave on the device itself, so that a crash at any point is seen again:

    create ──(CREATING)── wipe ── settle ──(READY)          without a wipe `create` leaves it READY at once
    create ──(FILLING)── copy ── settle ──(READY)          a copy by bytes, wherever `is_copied_by_bytes`
    expand ──(GROWING)─── wipe the new part ── settle ──(READY)
    condemn ──(DELETING)── wipe ── remove

Every changing step is called with its store's lock held and is safe to repeat. It answers with the volume as the kernel
shows it after the change; the numbers of the whole store come with the next report, which the agent asks for after each
change. A changing step that raises has changed nothing, or has left a state that repeating it brings to its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ullage.capacity import Allocation
from ullage.model import (
    ByteRange,
    DeviceClass,
    DeviceType,
    GroupId,
    Orphan,
    Owner,
    Pool,
    Problem,
    StoreName,
    Volume,
    VolumeId,
    VolumeKind,
    Wipe,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreReport:
    """All there is in one store at one moment. With a `problem` it says nothing about what exists."""

    name: StoreName
    pools: tuple[Pool, ...] = ()
    volumes: tuple[Volume, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    problem: Problem | None = None
    devices: tuple[str, ...] = ()
    """Paths of the block devices that the store lies on, where they are its alone: their events are about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVolume:
    """A volume as decided: how large and on which physical volumes is in `allocation`."""

    id: VolumeId
    device_class: DeviceClass
    pool: Pool
    allocation: Allocation
    owner: Owner
    needs_wipe: bool
    """Leave it CREATING: its bytes are not fit to be seen yet."""
    kind: VolumeKind = VolumeKind.VOLUME
    source: Volume | None = None
    """READY and not larger: what the new one begins with, as it is at one moment.

    A snapshot has its source's size and is in its pool. A volume has all of it at once, in the same pool (one that is
    to be larger has its source's size at first, and is CREATING); or, where `is_copied_by_bytes`, it has its own size
    and none of the content yet, and is FILLING.
    """
    taken_at: int = 0
    group: GroupId | None = None


class HeldStep(StrEnum):
    """What makes a snapshot one of the moment at which its source is held still: mounted and frozen, or not in use.

    CREATE: `create`, during the hold. RENEW: `renew`, during the hold, of one that was made before.
    """

    CREATE = "create"
    RENEW = "renew"


class Backend(Protocol):
    """One kind of storage on this node, for the classes it was given."""

    types: frozenset[DeviceType]
    """The types of device classes that it serves."""

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        """Take these classes from now on; called at start and at every reload, with the classes of all types."""

    def look(self) -> tuple[StoreReport, ...]:
        """Report every store that its classes name or match, each whole or with its problem. Changes nothing."""

    def look_at(self, store: StoreName) -> StoreReport:
        """Report one store. Changes nothing."""

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> None:
        """Make the thin pool that `device_class` asks for on demand; one that is there already is left as it is."""

    def needs_wipe(self, volume_type: DeviceType, wipe: Wipe) -> bool:
        """Whether, for volumes of this type, the policy takes any work: some kinds show no old bytes by nature."""

    def create(self, new: NewVolume) -> Volume:
        """Make the volume, tagged with its owner, active, CREATING if it needs a wipe and READY otherwise.

        Nobody can write to a snapshot; a thin one is never active, a thick one is while its source is. Raises
        InsufficientCapacityError when there is no room after all, UnsupportedError for a source that this kind of
        storage has no copies of.
        """

    def held_step(self, source: Volume, *, is_mounted: bool) -> HeldStep:
        """What a snapshot of this source takes during a hold; raises PreconditionError where there is no way."""

    def renew(self, snapshots: Sequence[Volume]) -> None:
        """Let these CREATING snapshots, all of one store, hold what their sources hold now. Takes moments.

        Nobody can write to the sources meanwhile. Raises NotOursError.
        """

    def is_copied_by_bytes(self, source: Volume) -> bool:
        """Whether a volume that begins as this source has to be filled: `create` cannot give it the content at once."""

    def reading(self, volume: Volume) -> AbstractContextManager[int]:
        """A descriptor that this snapshot's bytes can be read from; they stay the same. Raises DeviceError."""

    def image(self, volume: Volume) -> AbstractContextManager[int | None]:
        """A descriptor with the bytes of this volume's device that knows its holes; None where there is but the device.

        What the device's cache has not written yet is not in it. Raises NotFoundError, DeviceError.
        """

    def note_filled(self, volume: Volume, filled_bytes: int) -> Volume:
        """Keep on the device how far a FILLING volume is: what is noted there must be there for good already.

        Raises NotFoundError, NotOursError.
        """

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:
        """Where the snapshot may be anything but zero: ranges in ascending order, apart. Reads none of its bytes.

        Raises PreconditionError where that cannot be told exactly, and whatever it raises before it answers. No lock is
        held, neither then nor while the ranges are gone through.
        """

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:
        """Where two snapshots of one volume may differ, `base` the earlier; as `allocated`."""

    def expand(self, volume: Volume, growth: Allocation, *, needs_wipe: bool) -> Volume:
        """Make the volume as large as `growth` says; GROWING, its old size kept, if the new part needs a wipe.

        Of a thick snapshot, what grows is the room for what it keeps. Raises VolumeInUseError for a volume that has
        thick snapshots.
        """

    def settle(self, volume: Volume) -> Volume:
        """Drop the CREATING, FILLING or GROWING mark: every byte is fit to be seen."""

    def set_wipe(self, volume: Volume, wipe: Wipe) -> Volume:
        """Write another wipe policy on the volume, if it is ours at this very moment; its bytes stay as they are.

        Raises NotFoundError when it is gone, NotOursError.
        """

    def condemn(self, volume: Volume) -> Volume:
        """Mark DELETING, if it is ours at this very moment and nobody has it open.

        What a thick snapshot kept is then a volume of that size, to be wiped like any other. Raises NotFoundError when
        it is gone, NotOursError, VolumeInUseError.
        """

    def remove(self, volume: Volume) -> None:
        """Remove it, if at this very moment it carries our tag and this id and nobody has it open.

        Raises NotFoundError when it is gone, NotOursError, VolumeInUseError.
        """

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> None:
        """Make these volumes' devices appear (after a boot)."""
