"""How much a volume costs, how much room a pool has, and whether one fits the other: pure arithmetic.

Controller, extender and agent all ask here, so that what one promises the other can keep. Two rules give exactness:

- A spread layout (striped, RAID) lies on exactly as many physical volumes as it has images, the ones with most room,
  and the agent names them to LVM. What those can hold does not depend on how LVM's allocator would have chosen; whether
  it depends on how fragmented they are is `_room`'s to say.
- A linear volume takes the one physical volume with most room, and goes on to the next only when it must: all of each
  but the last, of which the agent names to LVM only as many extents as are to be taken.

Costs that LVM adds by itself (RAID metadata, integrity metadata) follow lvm2 2.03's own formulas; the LVM contract
suite holds them against real volume groups, one extent less and one more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count

from ullage.errors import GIB, KIB, MIB, human_bytes
from ullage.model import DeviceType, Disk, Layout, PhysicalVolume, Pool, PoolName, Share, SnapshotPolicy

RAID_SUPERBLOCK_BYTES = 2 * 4096
"""dm-raid's own superblock and the write-intent bitmap's, at the start of every metadata image."""
RAID_REGION_BYTES = 2 * MIB
"""LVM's default `raid_region_size`: one bitmap bit covers this much."""
MOST_BITMAP_BYTES = (1 << 21) // 8
"""A bitmap has 2^21 bits at most: for volumes over 4 TiB LVM doubles the region until that is enough."""
INTEGRITY_STEP_BYTES = 500 * MIB
INTEGRITY_STEP_COST_BYTES = 4 * MIB
INTEGRITY_JOURNALS_BYTES = ((512 * MIB, 4 * MIB), (GIB, 8 * MIB), (4 * GIB, 32 * MIB), (None, 64 * MIB))
"""dm-integrity's metadata beside an image: 4 MiB for every begun 500 MiB of data, and a journal by the image's size (up
to this size, this much), as lvm2 2.03 computes them (lib/metadata/integrity_manip.c). It gives whole extents of that,
rounded down, and fails where that leaves none: see `_least_image_extents`."""

COW_CHUNK_BYTES = 64 * KIB
"""What a thick snapshot copies aside as one when its volume is first written there. The kernel keeps 32 bytes of memory
for each: LVM's own 4 KiB would be 8 GiB for a volume of 1 TiB that is written all over, these are 512 MiB."""
COW_EXCEPTION_BYTES = 16
"""What the snapshot's device keeps of each chunk, in chunks of their own (drivers/md/dm-snap-persistent.c)."""
COW_LEAST_BYTES = 16 * COW_CHUNK_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Where a volume goes: `taken` says how many bytes leave which physical volume (empty for thin and files)."""

    pool: PoolName
    size_bytes: int
    taken: tuple[Share, ...] = ()
    disk: str = ""

    @property
    def physical_volumes(self) -> tuple[str, ...]:
        """Names only, in the order LVM is to be told."""
        return tuple(share.physical_volume for share in self.taken)


def rounded_bytes(layout: Layout, extent_bytes: int, size_bytes: int, minimum_bytes: int = 0) -> int:
    """The size a volume will really have: whole extents in each data stripe, and what file system and layout need."""
    step = extent_bytes * layout.stripes
    least = _least_image_extents(layout, extent_bytes) * step
    return -(-max(size_bytes, minimum_bytes, least) // step) * step


def image_extents(layout: Layout, extent_bytes: int, data_extents: int) -> int:
    """Extents that one image of `data_extents` takes from its physical volume, with all that LVM puts beside it."""
    extents = data_extents
    data_bytes = data_extents * extent_bytes
    if layout.is_raid:
        # Exact but for images over 4 TiB in extents below 512 KiB: there LVM's larger regions may save some.
        bitmap_bytes = min(MOST_BITMAP_BYTES, -(-(data_bytes // RAID_REGION_BYTES) // 8))
        extents += -(-(RAID_SUPERBLOCK_BYTES + bitmap_bytes) // extent_bytes)
    if layout.integrity:
        extents += _integrity_bytes(data_bytes) // extent_bytes
    return extents


def cost_bytes(layout: Layout, extent_bytes: int, size_bytes: int) -> int:
    """Bytes that leave the volume group for a volume of `size_bytes` (rounded up first)."""
    size_bytes = rounded_bytes(layout, extent_bytes, size_bytes)
    return (
        layout.images
        * image_extents(layout, extent_bytes, size_bytes // (extent_bytes * layout.stripes))
        * extent_bytes
    )


def whole_cow_bytes(extent_bytes: int, size_bytes: int) -> int:
    """The most that a thick snapshot of a volume can ever need: LVM makes none larger.

    A header, every chunk, and the exceptions: one more chunk of these than are filled, for the kernel clears the next
    one as soon as one is full.
    """
    chunks = -(-size_bytes // COW_CHUNK_BYTES)
    exceptions = chunks // (COW_CHUNK_BYTES // COW_EXCEPTION_BYTES) + 1
    return _in_extents((1 + exceptions + chunks) * COW_CHUNK_BYTES, extent_bytes)


def cow_step_bytes(policy: SnapshotPolicy, extent_bytes: int, size_bytes: int) -> int:
    """What a thick snapshot of a volume gets at first, and again each time it grows."""
    whole = whole_cow_bytes(extent_bytes, size_bytes)
    step = max(COW_LEAST_BYTES, -(-whole * policy.size_percent // 100))
    return min(whole, _in_extents(step, extent_bytes))


def thin_free_bytes(pool: Pool) -> int:
    """What a thin pool may still promise: nothing past either guard, else ratio × usable size − promised."""
    thin = pool.thin
    if thin is None:
        return 0
    if thin.data_percent >= thin.data_guard_percent or thin.metadata_percent >= thin.metadata_guard_percent:
        return 0
    promised = int(Fraction(max(0, pool.total_bytes - pool.reserve_bytes)) * thin.overprovision_ratio)
    return _whole(max(0, promised - thin.virtual_bytes), pool.extent_bytes)


def largest_volume_bytes(pool: Pool, layout: Layout) -> int:
    """The largest volume of this layout that the pool takes now; 0 when it takes none."""
    if pool.problem is not None:
        return 0
    if pool.type is DeviceType.DISK:
        return max((disk.size_bytes for disk in pool.disks), default=0)
    if pool.type is not DeviceType.THICK or not layout.is_spread:
        return _whole(pool.free_bytes, pool.extent_bytes)
    rooms = sorted((_room(layout, volume) for volume in pool.physical_volumes), reverse=True)
    if len(rooms) < layout.images:
        return 0
    return _largest_on(layout, pool.extent_bytes, (rooms[layout.images - 1], pool.free_bytes // layout.images))


def available_bytes(pool: Pool, layout: Layout) -> int:
    """What volumes of this layout could take from the pool together, the largest one first, and so on."""
    if pool.type is DeviceType.DISK:
        return sum(disk.size_bytes for disk in pool.disks) if pool.problem is None else 0
    if pool.type is not DeviceType.THICK or not layout.is_spread:
        return largest_volume_bytes(pool, layout)  # one volume can have all of it
    available = 0
    while allocation := allocate(pool, layout, largest_volume_bytes(pool, layout)):
        available += allocation.size_bytes
        pool = without(pool, allocation)
    return available


def allocate(pool: Pool, layout: Layout, size_bytes: int) -> Allocation | None:
    """Where a volume of at least `size_bytes` goes in this pool, or None: it does not fit."""
    largest = largest_volume_bytes(pool, layout)
    if not largest or size_bytes > largest:
        return None
    if pool.type is DeviceType.DISK:
        disk = _smallest_disk(pool.disks, size_bytes)
        return Allocation(pool=pool.name, size_bytes=disk.size_bytes, disk=disk.name)
    size = rounded_bytes(layout, pool.extent_bytes, size_bytes)
    if pool.type is not DeviceType.THICK:
        return Allocation(pool=pool.name, size_bytes=size)
    most_room_first = sorted(pool.physical_volumes, key=lambda each: (-_room(layout, each), each.free_bytes, each.name))
    if layout.is_spread:
        share = cost_bytes(layout, pool.extent_bytes, size) // layout.images
        chosen = sorted(volume.name for volume in most_room_first[: layout.images])
        return Allocation(
            pool=pool.name,
            size_bytes=size,
            taken=tuple(Share(physical_volume=name, size_bytes=share) for name in chosen),
        )
    return Allocation(pool=pool.name, size_bytes=size, taken=tuple(_filled(most_room_first, size)))


def allocate_snapshot(pool: Pool, policy: SnapshotPolicy, size_bytes: int) -> Allocation | None:
    """Where a snapshot of a volume of `size_bytes` goes, or None; of a thick one `size_bytes` is the room it gets."""
    if pool.type is DeviceType.THICK:
        size_bytes = cow_step_bytes(policy, pool.extent_bytes, size_bytes)
    return allocate(pool, Layout(), size_bytes)


def allocate_growth(
    pool: Pool, layout: Layout, physical_volumes: Sequence[str], from_bytes: int, to_bytes: int
) -> Allocation | None:
    """Where a volume grows from `from_bytes` to at least `to_bytes`, or None.

    A spread volume grows only on the physical volumes it lies on: on others, two of its images could come to share one,
    and one lost disk would take both.
    """
    if pool.problem is not None:
        return None
    extent = pool.extent_bytes
    size = rounded_bytes(layout, extent, to_bytes)
    if size <= from_bytes:
        return Allocation(pool=pool.name, size_bytes=from_bytes)
    if pool.type is not DeviceType.THICK or not layout.is_spread:
        linear = allocate(pool, Layout(), size - from_bytes)
        return None if linear is None else replace(linear, size_bytes=size)
    if size > largest_growth_bytes(pool, layout, physical_volumes, from_bytes):
        return None
    share = (cost_bytes(layout, extent, size) - cost_bytes(layout, extent, from_bytes)) // layout.images
    taken = tuple(Share(physical_volume=name, size_bytes=share) for name in sorted(physical_volumes))
    return Allocation(pool=pool.name, size_bytes=size, taken=taken)


def largest_growth_bytes(pool: Pool, layout: Layout, physical_volumes: Sequence[str], from_bytes: int) -> int:
    """The size a volume of `from_bytes` could grow to at most, by the rule of `allocate_growth`."""
    if pool.problem is not None:
        return from_bytes
    if pool.type is not DeviceType.THICK or not layout.is_spread:
        return from_bytes + largest_volume_bytes(pool, Layout())
    extent = pool.extent_bytes
    share = cost_bytes(layout, extent, from_bytes) // layout.images
    # Integrity metadata may be in pieces once it has grown.
    grown = replace(layout, integrity=False)
    room = {volume.name: _room(grown, volume) for volume in pool.physical_volumes}
    free = min((room.get(name, 0) for name in physical_volumes), default=0)
    free = min(free, pool.free_bytes // layout.images) - _growth_slack_bytes(layout, extent, from_bytes)
    return max(from_bytes, _largest_on(layout, extent, (share + free,)))


def without(pool: Pool, allocation: Allocation) -> Pool:
    """The pool after a new volume has been allocated from it."""
    taken = {share.physical_volume: share.size_bytes for share in allocation.taken}
    cost = sum(taken.values()) if taken else allocation.size_bytes
    return replace(
        pool,
        free_bytes=max(0, pool.free_bytes - cost),
        physical_volumes=tuple(
            replace(volume, free_bytes=volume.free_bytes - taken.get(volume.name, 0))
            for volume in pool.physical_volumes
        ),
        thin=replace(pool.thin, virtual_bytes=pool.thin.virtual_bytes + allocation.size_bytes) if pool.thin else None,
        disks=tuple(disk for disk in pool.disks if disk.name != allocation.disk),
    )


def shortage(pool: Pool, layout: Layout, wanted_bytes: int) -> str:  # noqa: PLR0911 - a table of sentences
    """Why a volume does not fit this pool, with the numbers, for a person."""
    if pool.problem is not None:
        return f"{pool.name} is unavailable: {pool.problem.message}"
    wanted = human_bytes(wanted_bytes)
    if pool.type is DeviceType.DISK:
        largest = human_bytes(largest_volume_bytes(pool, layout))
        return f"{pool.name} has {len(pool.disks)} free disks, the largest {largest}, {wanted} wanted"
    if pool.thin is not None and pool.thin.data_percent >= pool.thin.data_guard_percent:
        return f"{pool.name} is {pool.thin.data_percent:.1f} % full, its guard is {pool.thin.data_guard_percent} %"
    if pool.thin is not None and pool.thin.metadata_percent >= pool.thin.metadata_guard_percent:
        return (
            f"{pool.name}'s metadata is {pool.thin.metadata_percent:.1f} % full, "
            f"its guard is {pool.thin.metadata_guard_percent} %"
        )
    free = f"{pool.name} has {human_bytes(pool.free_bytes)} free after reserve"
    if layout.is_spread and pool.type is DeviceType.THICK:
        if len(pool.physical_volumes) < layout.images:
            return (
                f"{pool.name} has {len(pool.physical_volumes)} physical volumes, "
                f"{layout.kind} with {layout.stripes} stripes and {layout.mirrors} mirrors needs {layout.images}"
            )
        largest = human_bytes(largest_volume_bytes(pool, layout))
        return f"{free}, on {len(pool.physical_volumes)} physical volumes: {largest} as {layout.kind}, {wanted} wanted"
    return f"{free}, {wanted} wanted"


def _room(layout: Layout, volume: PhysicalVolume) -> int:
    """What one physical volume has for an image of this layout.

    Stripes and mirrors may lie in any number of pieces. Two kinds want one free run that holds an image with all its
    metadata; on fragmented physical volumes that refuses some volumes that LVM would make.

    - Parity. From the second piece on, LVM no longer minds which image has been on which physical volume (its rule to
      cling counts data images only): images come to share disks, and one lost disk is then two lost images.
    - Integrity. LVM takes data and RAID metadata from the free runs as it likes, then wants the integrity metadata in
      one piece. When no run is left for that it fails and leaves a part behind.
    """
    return volume.run_bytes if layout.integrity or layout.parity else volume.free_bytes


def _integrity_bytes(data_bytes: int) -> int:
    steps = data_bytes // INTEGRITY_STEP_BYTES + 1
    journal = next(cost for up_to, cost in INTEGRITY_JOURNALS_BYTES if up_to is None or data_bytes <= up_to)
    return journal + steps * INTEGRITY_STEP_COST_BYTES


def _least_image_extents(layout: Layout, extent_bytes: int) -> int:
    """The smallest image that LVM makes: with integrity and extents over 8 MiB, one whose metadata fills an extent."""
    if not layout.integrity:
        return 1
    return next(extents for extents in count(1) if _integrity_bytes(extents * extent_bytes) >= extent_bytes)


def _growth_slack_bytes(layout: Layout, extent_bytes: int, from_bytes: int) -> int:
    """What an image's RAID metadata may still grow by although `image_extents` counts it as full-grown already.

    Past 4 TiB the size of a bitmap depends on how the volume came to its size. It is one extent in any case unless
    extents are below 512 KiB.
    """
    if not layout.is_raid or from_bytes <= MOST_BITMAP_BYTES * 8 * RAID_REGION_BYTES:
        return 0
    return -(-(RAID_SUPERBLOCK_BYTES + MOST_BITMAP_BYTES) // extent_bytes) * extent_bytes - extent_bytes


def _in_extents(size_bytes: int, extent_bytes: int) -> int:
    return -(-size_bytes // extent_bytes) * extent_bytes


def _whole(size_bytes: int, extent_bytes: int) -> int:
    return size_bytes // extent_bytes * extent_bytes


def _largest_on(layout: Layout, extent_bytes: int, rooms_bytes: Iterable[int]) -> int:
    """The largest volume each image of which, with its metadata, fits the smallest of the rooms."""
    room = max(0, min(rooms_bytes)) // extent_bytes
    fits, too_many = 0, room + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if image_extents(layout, extent_bytes, middle) <= room:
            fits = middle
        else:
            too_many = middle
    return fits * extent_bytes * layout.stripes if fits >= _least_image_extents(layout, extent_bytes) else 0


def _smallest_disk(disks: Iterable[Disk], size_bytes: int) -> Disk:
    return min((disk for disk in disks if disk.size_bytes >= size_bytes), key=lambda disk: (disk.size_bytes, disk.name))


def _filled(most_room_first: Iterable[PhysicalVolume], size_bytes: int) -> Iterable[Share]:
    for volume in most_room_first:
        taken = min(size_bytes, volume.free_bytes)
        if taken > 0:
            yield Share(physical_volume=volume.name, size_bytes=taken)
            size_bytes -= taken
