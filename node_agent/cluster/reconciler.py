"""Who looks at which object when: some workers over one queue, woken by the objects, the agent and the stock.

No polling: an object that comes is looked at now, an operation that outlived its worker's patience when it ends, a
volume whenever what is on the disks changes. What has failed comes back later and later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable

from node_agent.cluster.deeds import Deeds, Storage
from node_agent.cluster.queue import WorkQueue
from ullage.errors import ApiError, ApiUnavailableError, PendingOperationError, StillRunningError, UllageError
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import READY, LogicalVolume
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    Examine,
    ExpandVolume,
    ModifyVolume,
    TakeGroup,
    TakeSnapshot,
    Volume,
)

WORKERS = 8
MOST_API_SECONDS = 5.0
"""The longest pause while the API server does not answer: nothing else keeps what is to be written."""
SOON_SECONDS = 1.0
"""A change of the stock has objects looked at within this: by then its burst is over."""
JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class Reconciler:
    """Workers, and a thread that watches the stock."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        deeds: Deeds,
        orders: Informer[LogicalVolume],
        storage: Storage,
        *,
        observe: Callable[[str], None] = lambda _: None,
        queue: WorkQueue | None = None,
        workers: int = WORKERS,
    ) -> None:
        """Nothing happens before `start`; `observe(outcome)` is told how each look at an object ended."""
        self._deeds = deeds
        self._orders = orders
        self._storage = storage
        self._observe = observe
        self._queue = WorkQueue() if queue is None else queue  # an empty one is false
        self._awaited: set[str] = set()
        """Keys whose operation goes on without a worker; each is put in and taken out by whoever has the key."""
        self._is_stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"reconciler-{number}", daemon=True) for number in range(workers)
        ]
        self._threads.append(threading.Thread(target=self._watch_stock, name="reconciler-stock", daemon=True))

    def start(self) -> None:
        """Begin. Everything that came before is in the queue."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after what is under way, but not after an API server that does not answer."""
        self._is_stopping.set()
        self._queue.stop()
        ends = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, ends - time.monotonic()))

    def waiting(self) -> int:
        """How many objects are to be looked at."""
        return len(self._queue)

    def changed(self, before: LogicalVolume | None, after: LogicalVolume | None) -> None:
        """An object has come or changed. What we have written ourselves is no reason to look again."""
        if after is not None and (
            before is None
            or before.metadata.uid != after.metadata.uid
            or before.metadata.generation != after.metadata.generation
            or before.is_condemned != after.is_condemned
            or before.question != after.question
        ):
            self._queue.add(after.id)

    def ended(self, request: Hashable, failure: BaseException | None, _seconds: float) -> None:
        """An operation of the agent's has ended: whoever has stopped waiting for it goes on, unless it has failed."""
        key = _key_of(request)
        if key in self._awaited and failure is None:
            self._queue.add(key)

    def _work(self) -> None:
        while (key := self._queue.take()) is not None:
            try:
                self._once(key)
            finally:
                self._queue.done(key)

    def _once(self, key: str) -> None:
        outcome = "ok"
        self._awaited.discard(key)
        try:
            instead = self._deeds.do(key, self._queue.failures(key))
            self._queue.settle(key)
            if instead is not None:
                self._queue.add(instead)
        except (ApiError, ApiUnavailableError) as error:
            outcome = error.reason
            log.warning("object not written", extra={"volume_id": key, "reason": error.reason, "why": str(error)})
            self._queue.retry(key, MOST_API_SECONDS)
        except UllageError as error:
            outcome = error.reason
            is_awaited = isinstance(error, StillRunningError | PendingOperationError)
            if is_awaited:
                self._awaited.add(key)
            level = logging.DEBUG if is_awaited else logging.INFO
            log.log(level, "object is tried again", extra={"volume_id": key, "reason": outcome, "why": str(error)})
            self._queue.retry(key)
        except Exception:  # the thread's top
            outcome = "Unforeseen"
            log.exception("object could not be looked at", extra={"volume_id": key})
            self._queue.retry(key)
        self._observe(outcome)

    def _watch_stock(self) -> None:
        """Have looked at what changes without an order: a volume that is missing, back, ill, or not in use any more."""
        version, seen = -1, _Seen(self._storage)
        while not self._is_stopping.is_set():
            before, version = version, self._storage.wait_for_change(version, SOON_SECONDS)
            try:
                if version != before:
                    seen = self._compared(seen)
            except Exception:  # the thread's top
                log.exception("the stock could not be compared with the objects")

    def _compared(self, before: _Seen) -> _Seen:
        now = _Seen(self._storage)
        for order in self._orders.all():
            has_changed = now.volumes.get(order.id) != before.volumes.get(order.id)
            is_news = order.id not in now.volumes and order.problem(READY) is None  # it came and went between two looks
            if (order.is_ready and (has_changed or is_news)) or (order.is_condemned and has_changed):
                self._queue.add(order.id, SOON_SECONDS)
        if now.usable_pools - before.usable_pools:
            self._queue.hasten(SOON_SECONDS)
        return now


class _Seen:
    """The stock at one moment."""

    def __init__(self, storage: Storage) -> None:
        self.volumes = {volume.id: volume for volume in storage.volumes()}
        self.usable_pools = {pool.name for pool in storage.pools() if pool.problem is None}


def _key_of(request: Hashable) -> str:
    """Whose object has waited for an operation; empty when none can have."""
    match request:
        case CreateVolume() | ExpandVolume() | ModifyVolume() | DeleteVolume() | Examine():
            return request.volume_id
        case TakeSnapshot():
            return request.snapshot_id
        case TakeGroup():
            return request.group_id
        case Volume():
            return request.id
        case _:
            return ""
