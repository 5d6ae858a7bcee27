"""What this node has: the last report of every store, kept true between reports by what we did ourselves.

Reads are answered from here and start no process. A store that cannot be read keeps what was last known of it, marked
with the problem: its volumes are not gone, and its pools take nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

from node_agent.backends.port import StoreReport
from ullage.capacity import thin_free_bytes
from ullage.model import DeviceType, PhysicalVolume, Pool, PoolName, StoreName, Volume, VolumeId


class Stock:
    """Thread-safe. Reports are immutable and replaced whole."""

    def __init__(self) -> None:
        """Empty: nothing has been looked at."""
        self._changed = threading.Condition()
        self._reports: dict[StoreName, StoreReport] = {}
        self._times: dict[StoreName, float] = {}
        self._changes: dict[StoreName, int] = {}
        self._version = 0

    def reports(self) -> tuple[StoreReport, ...]:
        """Every store, by name."""
        with self._changed:
            return tuple(report for _, report in sorted(self._reports.items()))

    def pools(self) -> dict[PoolName, Pool]:
        """Every pool, by name."""
        return {pool.name: pool for report in self.reports() for pool in report.pools}

    def volumes(self) -> dict[VolumeId, Volume]:
        """Every volume, by id."""
        return {volume.id: volume for report in self.reports() for volume in report.volumes}

    def find(self, volume_id: VolumeId) -> Volume | None:
        """The volume, as far as we know."""
        return next((each for report in self.reports() for each in report.volumes if each.id == volume_id), None)

    def report(self, store: StoreName) -> StoreReport | None:
        """One store's report."""
        with self._changed:
            return self._reports.get(store)

    def ages_seconds(self) -> dict[StoreName, float]:
        """Seconds since each store was last read whole."""
        with self._changed:
            return {store: time.monotonic() - when for store, when in self._times.items()}

    def changes(self) -> Mapping[StoreName, int]:
        """A mark to take before a look: how many changes of ours each store has seen."""
        with self._changed:
            return dict(self._changes)

    def put(self, report: StoreReport, since: Mapping[StoreName, int] | None = None) -> bool:
        """Take a report. With `since`, refuse one that a change of ours has overtaken (the look is to be repeated)."""
        with self._changed:
            changes = self._changes.get(report.name, 0)
            if since is not None and since.get(report.name, 0) != changes:
                return False
            before = self._reports.get(report.name)
            if report.problem is None:
                self._times[report.name] = time.monotonic()
            elif before is not None:
                report = replace(
                    before,
                    problem=report.problem,
                    pools=tuple(replace(pool, problem=report.problem) for pool in before.pools),
                )
            if report != before:
                self._reports[report.name] = report
                self._notify()
            return True

    def keep_only(self, stores: Iterable[StoreName]) -> None:
        """Forget stores that no class names any more and that hold nothing of ours."""
        kept = set(stores)
        with self._changed:
            for name in self._reports.keys() - kept:
                if not self._reports[name].volumes:
                    del self._reports[name]
                    self._notify()

    def apply(self, store: StoreName, before: Volume | None, after: Volume | None) -> None:
        """Make a change of ours visible before the next report: the volume, and its pool's numbers.

        The numbers change by what the report does not know yet: a look beside the change may have seen it already.
        """
        with self._changed:
            self._changes[store] = self._changes.get(store, 0) + 1
            report = self._reports.get(store)
            if report is None:
                return
            ids = {volume.id for volume in (before, after) if volume is not None}
            known = next((volume for volume in report.volumes if volume.id in ids), None)
            volumes = [volume for volume in report.volumes if volume is not known]
            if after is not None:
                volumes.append(after)
            pools = tuple(_adjusted(pool, known, after) for pool in report.pools)
            self._reports[store] = replace(report, volumes=tuple(volumes), pools=pools)
            self._notify()

    def wait_for_change(self, version: int, timeout_seconds: float) -> int:
        """Block until the stock is newer than `version` or the time is up; answers with the version there is."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout_seconds)
            return self._version

    def _notify(self) -> None:
        self._version += 1
        self._changed.notify_all()


def _adjusted(pool: Pool, before: Volume | None, after: Volume | None) -> Pool:
    """A pool's numbers after a volume of its store has come, changed or gone."""
    if pool.type is DeviceType.THICK:
        delta: dict[str, int] = {}
        for volume, sign in ((before, -1), (after, 1)):
            for share in volume.taken if volume else ():
                delta[share.physical_volume] = delta.get(share.physical_volume, 0) + sign * share.size_bytes
        frees = tuple(_with_less(each, delta.get(each.name, 0)) for each in pool.physical_volumes)
        return replace(
            pool, physical_volumes=frees, free_bytes=max(0, sum(each.free_bytes for each in frees) - pool.reserve_bytes)
        )
    grown = _size_in(pool, after) - _size_in(pool, before)
    if pool.thin is None:
        # What a deleted file gives back is for the next report to say: behind a reserve it may be nothing.
        return replace(pool, free_bytes=max(0, pool.free_bytes - max(0, grown)))
    promised = replace(pool, thin=replace(pool.thin, virtual_bytes=pool.thin.virtual_bytes + grown))
    return replace(promised, free_bytes=thin_free_bytes(promised))


def _with_less(volume: PhysicalVolume, taken_bytes: int) -> PhysicalVolume:
    """What is given back may be anywhere: until the next report it counts as scattered."""
    return replace(
        volume,
        free_bytes=volume.free_bytes - taken_bytes,
        scattered_bytes=volume.scattered_bytes + max(0, -taken_bytes),
    )


def _size_in(pool: Pool, volume: Volume | None) -> int:
    return volume.device_size_bytes if volume is not None and volume.pool == pool.name else 0
