"""Pools from volume groups: what the classes make of what LVM has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from node_agent.backends.lvm.report import ThinPool, VolumeGroup
from node_agent.backends.port import StoreReport
from ullage.capacity import thin_free_bytes
from ullage.errors import GIB, MIB, human_bytes
from ullage.model import (
    DeviceClass,
    DeviceType,
    Pool,
    PoolName,
    Problem,
    StoreName,
    ThinPoolPolicy,
    ThinUsage,
    Wipe,
)

METADATA_SHARE = 500
"""One byte of thin metadata for this many of data: more than lvmthin(7) estimates, so that metadata is not what fills
first."""
PHYSICAL_VOLUME_MISSING = "PhysicalVolumeMissing"
LEAST_METADATA_BYTES, MOST_METADATA_BYTES = 4 * MIB, 15 * GIB


def store_report(group: VolumeGroup, classes: Sequence[DeviceClass]) -> StoreReport:
    """A volume group as a store: its pools by the classes that name it, and all volumes of ours in it."""
    named = [device_class for device_class in classes if names(device_class, group.name)]
    thick = [device_class for device_class in named if device_class.type is DeviceType.THICK]
    pools = [_thick_pool(group, thick)] if thick else []
    by_thin_pool: dict[str, list[DeviceClass]] = {}
    for device_class in named:
        if device_class.type is DeviceType.THIN and device_class.thin_pool is not None:
            by_thin_pool.setdefault(device_class.thin_pool.name, []).append(device_class)
    pools += [_thin_pool(group, sharing, _reserve(thick)) for _, sharing in sorted(by_thin_pool.items())]
    problem = _group_problem(group)
    if problem is not None:
        pools = [replace(pool, problem=problem) for pool in pools]
    return StoreReport(
        name=group.name, pools=tuple(pools), volumes=group.volumes, orphans=group.orphans, devices=group.devices
    )


def names(device_class: DeviceClass, store: StoreName) -> bool:
    """Whether a class uses this volume group."""
    return any(fnmatchcase(store, pattern) for pattern in device_class.volume_groups)


def metadata_bytes(policy: ThinPoolPolicy, extent_bytes: int) -> int:
    """The metadata size of a thin pool that we make, in whole extents."""
    wanted = max(LEAST_METADATA_BYTES, min(MOST_METADATA_BYTES, policy.create_size_bytes // METADATA_SHARE))
    return -(-wanted // extent_bytes) * extent_bytes


def data_bytes(policy: ThinPoolPolicy, extent_bytes: int) -> int:
    """The data size of a thin pool that we make, in whole extents."""
    return -(-policy.create_size_bytes // extent_bytes) * extent_bytes


def _group_problem(group: VolumeGroup) -> Problem | None:
    if group.is_exported:
        return Problem(reason="VolumeGroupExported", message=f"{group.name} is exported; vgimport it")
    if group.missing_physical_volumes:
        return Problem(
            reason=PHYSICAL_VOLUME_MISSING,
            message=f"{group.missing_physical_volumes} of {group.name}'s physical volumes are missing; LVM makes "
            "and grows nothing until they are back (vgextend --restoremissing) or given up (vgreduce --removemissing)",
        )
    return None


def _thick_pool(group: VolumeGroup, classes: Sequence[DeviceClass]) -> Pool:
    reserve = _reserve(classes)
    free = sum(volume.free_bytes for volume in group.physical_volumes)
    return Pool(
        name=PoolName(group.name),
        store=group.name,
        type=DeviceType.THICK,
        classes=tuple(device_class.name for device_class in classes),
        total_bytes=group.total_bytes,
        free_bytes=max(0, free - reserve),
        reserve_bytes=reserve,
        extent_bytes=group.extent_bytes,
        physical_volumes=group.physical_volumes,
    )


def _thin_pool(group: VolumeGroup, classes: Sequence[DeviceClass], group_reserve_bytes: int) -> Pool:
    policies = [device_class.thin_pool for device_class in classes if device_class.thin_pool is not None]
    policy = policies[0]
    found = next((pool for pool in group.thin_pools if pool.name == policy.name), None)
    pool = Pool(
        name=PoolName(f"{group.name}/{policy.name}"),
        store=group.name,
        type=DeviceType.THIN,
        classes=tuple(device_class.name for device_class in classes),
        total_bytes=found.size_bytes if found else data_bytes(policy, group.extent_bytes),
        free_bytes=0,
        reserve_bytes=_reserve(classes),
        extent_bytes=group.extent_bytes,
        thin=ThinUsage(
            virtual_bytes=found.virtual_bytes if found else 0,
            data_percent=found.data_percent if found else 0.0,
            metadata_percent=found.metadata_percent if found else 0.0,
            overprovision_ratio=min(each.overprovision_ratio for each in policies),
            data_guard_percent=min(each.data_guard_percent for each in policies),
            metadata_guard_percent=min(each.metadata_guard_percent for each in policies),
        ),
        exists=found is not None,
        problem=_thin_pool_problem(found, classes) if found else _absence(group, policy, group_reserve_bytes),
    )
    return replace(pool, free_bytes=thin_free_bytes(pool))


def _thin_pool_problem(found: ThinPool, classes: Iterable[DeviceClass]) -> Problem | None:
    if found.health:
        return Problem(reason="ThinPoolUnhealthy", message=f"LVM calls the thin pool '{found.health}'")
    if not found.zeroes_new_blocks and any(device_class.wipe is not Wipe.NONE for device_class in classes):
        return Problem(
            reason="ThinPoolDoesNotZero",
            message="new blocks could show old bytes: `lvchange --zero y` the pool, or set `wipe: none` in its classes",
        )
    return None


def _absence(group: VolumeGroup, policy: ThinPoolPolicy, group_reserve_bytes: int) -> Problem | None:
    """A pool that is not there: a problem unless it is made on demand and there is room to make it."""
    if not policy.create_size_bytes:
        return Problem(
            reason="ThinPoolMissing",
            message=f"{group.name} has no thin pool {policy.name}; make it, or give its class a `createSize`",
        )
    # LVM keeps a spare metadata volume beside the pool's own, once in a volume group.
    wanted = data_bytes(policy, group.extent_bytes) + 2 * metadata_bytes(policy, group.extent_bytes)
    free = max(0, sum(volume.free_bytes for volume in group.physical_volumes) - group_reserve_bytes)
    if free < wanted:
        return Problem(
            reason="NoRoomForThinPool",
            message=f"{group.name} has {human_bytes(free)} free after reserve, "
            f"the pool {policy.name} needs {human_bytes(wanted)}",
        )
    return None


def _reserve(classes: Iterable[DeviceClass]) -> int:
    return max((device_class.reserve_bytes for device_class in classes), default=0)
