"""What a node has left: its last report, less what has been ordered there since. Pure; who places volumes asks here.

A report and the orders come on different ways, and neither waits for the other. An order is in the report from the
revision on that its status names; until then it is taken off here, as its agent will take it: one after the other,
oldest first, each from the pool that has most room for it. What cannot be told for certain is told too low, never too
high: one that was carved a moment ago may be counted twice until its status has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from ullage.capacity import Allocation, allocate_snapshot, available_bytes, shortage, without
from ullage.errors import InsufficientCapacityError, OutOfRangeError
from ullage.kube.logical_volume import APPLIED, LogicalVolume, Phase
from ullage.kube.meta import find, timestamp
from ullage.kube.node_storage import READY, NodeStorage
from ullage.model import (
    CreateVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Layout,
    NodeName,
    Pool,
    PoolName,
    SnapshotPolicy,
    VolumeId,
    VolumeKind,
)
from ullage.names import kind_of
from ullage.placement import Demand, place

COPIED_WITHIN = frozenset({DeviceType.THIN, DeviceType.FILE})
"""Where a copy is in its source's pool; others are filled by bytes, wherever their class has room."""
STALE_SECONDS = 900.0
"""A report that has not been renewed for so long is of an agent that is not there: it would not carve either."""
TOLD_NODES = 3
"""So many nodes a refusal gives its reasons for; of the others only the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A node that a volume may be on: its pools with what is left in them, or why nothing is known of it."""

    node: NodeName
    pools: Mapping[PoolName, Pool]
    unknown: str = ""


class Report(Protocol):
    """What `pools_left` goes by: a NodeStorage, or what somebody has kept of one."""

    @property
    def node(self) -> NodeName:
        """Whose report it is."""

    @property
    def revision(self) -> int:
        """It grows with every report of the node."""

    @property
    def pools(self) -> Iterable[Pool]:
        """As they were."""


def pools_left(
    report: Report, volumes: Iterable[LogicalVolume], classes: Mapping[DeviceClassName, DeviceClass]
) -> dict[PoolName, Pool]:
    """The node's pools without what is ordered there and not in the report yet; condemned volumes count until gone.

    Volumes of other nodes are passed over. An order that does not fit leaves nothing in the pools that it may go to:
    either it or the report is out of date.
    """
    left = {pool.name: pool for pool in report.pools}
    here = [each for each in volumes if each.spec.node_name == report.node]
    news = [each for each in here if not is_reported(each, report.revision)]
    by_id = {each.id: each for each in here if news}
    for volume in sorted(news, key=_age):
        for wish in _unseen(volume, report.revision, left, classes, by_id):
            allocation = wish.allocation(left)
            taken = {allocation.pool: without(left[allocation.pool], allocation)} if allocation else wish.emptied(left)
            left |= taken
    return left


def is_reported(volume: LogicalVolume, revision: int) -> bool:
    """Whether its node's report of this revision has all of it: of nearly all volumes it has."""
    spec, status = volume.spec, volume.status
    is_there = status.phase is Phase.READY and status.revision <= revision
    return is_there and spec.size_bytes <= status.size_bytes


def why_unknown(storage: NodeStorage | None, now: datetime) -> str:
    """Why no order is to go by this report; nothing: it may."""
    if storage is None:
        return "its agent has not reported any storage"
    return why_unready(storage) or why_stale(observed_at(storage), now)


def why_unready(storage: NodeStorage) -> str:
    """What is wrong with a report however new it is; nothing: it was good when it was made."""
    ready = find(storage.status.conditions, READY)
    if ready is not None and not ready.is_true:
        return f"its agent is not ready: {ready.message or ready.reason}"
    if not storage.status.observed_at:
        return "its agent has not reported its storage yet"
    return ""


def why_stale(observed: datetime, now: datetime) -> str:
    """What is wrong with a report of that moment by now. The sentence stays true however long it is repeated."""
    if (now - observed).total_seconds() > STALE_SECONDS:
        return f"its agent was last heard of at {timestamp(observed)}"
    return ""


def observed_at(storage: NodeStorage) -> datetime:
    """When its report was last known to be true; there must be a report."""
    found = datetime.fromisoformat(storage.status.observed_at)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def choose(request: CreateVolume, device_class: DeviceClass, candidates: Sequence[Candidate]) -> NodeName:
    """The node for a new volume: of those that it fits, the one with most room for its class afterwards.

    Of equal ones the first. `request.pool` pins it to one pool. Raises InsufficientCapacityError, with each node's
    numbers, and OutOfRangeError when nothing but the limit is in the way.
    """
    fitting: list[tuple[int, NodeName]] = []
    refusals: list[str] = []
    above_limit: list[int] = []
    for candidate in candidates:
        if candidate.unknown:
            refusals.append(f"{candidate.node}: {candidate.unknown}")
            continue
        pools = {
            name: pool
            for name, pool in candidate.pools.items()
            if device_class.name in pool.classes and request.pool in (None, name)
        }
        demand = Demand(key="", size_bytes=request.size_bytes, layout=device_class.layout, pools=tuple(pools))
        placed = place([demand], pools)
        if placed is None:
            refusals.append(f"{candidate.node}: {_no_room(request, device_class, pools)}")
        elif request.limit_bytes and placed[""].size_bytes > request.limit_bytes:
            above_limit.append(placed[""].size_bytes)
        else:
            after = {**pools, placed[""].pool: without(pools[placed[""].pool], placed[""])}
            room = sum(available_bytes(pool, device_class.layout) for pool in after.values())
            fitting.append((room, candidate.node))
    if fitting:
        most = max(room for room, _ in fitting)
        return next(node for room, node in fitting if room == most)
    if above_limit:
        raise OutOfRangeError(
            f"{request.volume_id}: the smallest possible size is {min(above_limit)} bytes, "
            f"the limit is {request.limit_bytes}",
            size_bytes=min(above_limit),
            limit_bytes=request.limit_bytes,
        )
    more = len(refusals) - TOLD_NODES
    raise InsufficientCapacityError(
        f"No room for {request.volume_id}: {'; '.join(refusals[:TOLD_NODES]) or 'there is no node to put it on'}"
        f"{f'; and {more} more nodes' if more > 0 else ''}",
        device_class=device_class.name,
        wanted_bytes=request.size_bytes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What an agent will take, or has taken since its report; `pools` are those it may take it from."""

    size_bytes: int
    layout: Layout
    pools: tuple[PoolName, ...]
    snapshot: SnapshotPolicy | None = None

    def allocation(self, left: Mapping[PoolName, Pool]) -> Allocation | None:
        """As the agent will do it."""
        if self.snapshot is not None:
            found = (allocate_snapshot(left[name], self.snapshot, self.size_bytes) for name in self.pools)
            return next((each for each in found if each is not None), None)
        demand = Demand(key="", size_bytes=self.size_bytes, layout=self.layout, pools=self.pools)
        placed = place([demand], left)
        return placed[""] if placed is not None else None

    def emptied(self, left: Mapping[PoolName, Pool]) -> dict[PoolName, Pool]:
        """Its pools with nothing left in them."""
        return {
            name: replace(
                left[name],
                free_bytes=0,
                physical_volumes=tuple(replace(each, free_bytes=0) for each in left[name].physical_volumes),
                disks=(),
            )
            for name in self.pools
        }


def _unseen(
    volume: LogicalVolume,
    revision: int,
    left: Mapping[PoolName, Pool],
    classes: Mapping[DeviceClassName, DeviceClass],
    by_id: Mapping[VolumeId, LogicalVolume],
) -> Iterator[_Wish]:
    """What of a volume is not in the report."""
    spec, status = volume.spec, volume.status
    if status.phase is Phase.FAILED:
        return
    name = DeviceClassName(spec.device_class)
    device_class = classes.get(name)
    layout = device_class.layout if device_class is not None else Layout()
    policy = device_class.snapshots if device_class is not None else SnapshotPolicy()
    source = by_id.get(volume.source) if volume.source else None
    origin = left.get(source.pool) if source is not None and source.pool else None
    of_class = tuple(each.name for each in left.values() if name in each.classes)
    pools = of_class if volume.pool is None else tuple(each for each in left if each == volume.pool)
    if volume.is_ready and status.revision <= revision:
        is_refused = volume.is_answered and volume.problem(APPLIED) is not None
        if spec.kind is VolumeKind.VOLUME and spec.size_bytes > status.size_bytes and not is_refused:
            yield _Wish(size_bytes=spec.size_bytes - status.size_bytes, layout=layout, pools=pools)
        return
    size_bytes = max(spec.size_bytes, status.size_bytes)
    if spec.kind is not VolumeKind.VOLUME:
        where = (origin.name,) if origin is not None and not volume.pool else pools
        yield _Wish(size_bytes=size_bytes, layout=Layout(), pools=where, snapshot=policy)
        return
    if origin is not None and not volume.pool and origin.type in COPIED_WITHIN:
        pools = (origin.name,)
    yield _Wish(size_bytes=size_bytes, layout=layout, pools=pools)
    is_of_volume = source is not None and kind_of(source.id) is VolumeKind.VOLUME
    is_filling = not volume.is_ready and origin is not None and origin.type is DeviceType.THICK
    if source is not None and is_of_volume and origin is not None and is_filling:
        # It is filled from a snapshot that is taken of its source for this alone.
        yield _Wish(size_bytes=source.status.size_bytes, layout=Layout(), pools=(origin.name,), snapshot=policy)


def _no_room(request: CreateVolume, device_class: DeviceClass, pools: Mapping[PoolName, Pool]) -> str:
    if not pools:
        return f"it has no {f'pool {request.pool}' if request.pool else 'pool'} of device class {device_class.name}"
    return ", ".join(shortage(pool, device_class.layout, request.size_bytes) for pool in pools.values())


def _age(volume: LogicalVolume) -> tuple[str, str]:
    return volume.metadata.creation_timestamp, volume.id
