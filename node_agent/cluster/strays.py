"""What is on this node and in no object: told, with all that its mark says, and never deleted.

A volume is a stray only when it has had no object for a while, for objects come and go a moment before and after their
volumes; and only when all objects were listed. What the backends know to be half there is told at once.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable

from node_agent.backends.port import StoreReport
from ullage.errors import UllageError
from ullage.kube.node_storage import OrphanStatus
from ullage.model import Orphan, OrphanKind, Volume, VolumeId, VolumeKind, VolumeState

GRACE_SECONDS = 60.0

log = logging.getLogger(__name__)


class Strays:
    """Asked by one thread. A probe of a device that hangs keeps nobody but the next probe waiting."""

    def __init__(
        self,
        has_object: Callable[[VolumeId], bool],
        probe: Callable[[Volume], str],
        *,
        grace_seconds: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`has_object` of what is listed whole; `probe` says what is on a device, and may raise UllageError."""
        self._has_object = has_object
        self._probe = probe
        self._changed: Callable[[], None] = lambda: None
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._since: dict[VolumeId, float] = {}
        self._contents: dict[VolumeId, str] = {}
        self._asked: queue.SimpleQueue[Volume | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="orphan-probe", daemon=True)

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call `changed` when a probe has found what the last answer did not say."""
        self._changed = changed

    def start(self) -> None:
        """Begin to probe what is found."""
        self._thread.start()

    def stop(self) -> None:
        """End; a probe that hangs is not waited for."""
        self._asked.put(None)

    @property
    def is_undecided(self) -> bool:
        """Whether the answer will change by itself: there is something whose time is not up, or that is probed."""
        now = self._clock()
        return any(
            now < since + self._grace_seconds or volume_id not in self._contents
            for volume_id, since in self._since.items()
        )

    def among(self, reports: Iterable[StoreReport]) -> tuple[OrphanStatus, ...]:
        """The strays of these reports, by name."""
        reports = tuple(reports)
        now = self._clock()
        found = {
            volume.id: volume
            for report in reports
            for volume in report.volumes
            if volume.kind is not VolumeKind.FROZEN and not self._has_object(volume.id)
        }
        self._since = {volume_id: self._since.get(volume_id, now) for volume_id in found}
        self._contents = {volume_id: text for volume_id, text in self._contents.items() if volume_id in found}
        strays = [found[volume_id] for volume_id, since in self._since.items() if now >= since + self._grace_seconds]
        told = [self._told(volume) for volume in strays]
        told += [_half(orphan) for report in reports if report.problem is None for orphan in report.orphans]
        return tuple(sorted(told, key=lambda each: (each.name, each.kind)))

    def _told(self, volume: Volume) -> OrphanStatus:
        if volume.id not in self._contents:
            self._contents[volume.id] = ""
            if volume.kind is VolumeKind.VOLUME and volume.state is VolumeState.READY and volume.is_active:
                self._asked.put(volume)
        owner = volume.owner
        return OrphanStatus(
            name=volume.id,
            kind=OrphanKind.VOLUME_WITHOUT_RECORD,
            message=f"{volume.kind} {volume.id} in {volume.pool} has no LogicalVolume object of this node",
            pool=volume.pool,
            device_class=volume.device_class,
            size_bytes=volume.size_bytes,
            volume_kind=volume.kind,
            source=volume.source or "",
            group=volume.group or "",
            claim_namespace=owner.claim_namespace,
            claim_name=owner.claim_name,
            claim_uid=owner.claim_uid,
            persistent_volume=owner.pv_name,
            content=self._contents[volume.id],
        )

    def _run(self) -> None:
        while (volume := self._asked.get()) is not None:
            try:
                content = self._probe(volume)
            except UllageError as error:
                log.info("orphan not probed", extra={"volume_id": volume.id, "why": str(error)})
                continue
            if volume.id in self._contents:
                self._contents[volume.id] = content
                self._changed()


def _half(orphan: Orphan) -> OrphanStatus:
    return OrphanStatus(name=orphan.name, kind=orphan.kind, message=orphan.message)
