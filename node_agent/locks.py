"""Who may change what, and when: one operation per volume. One change per store: `node_agent.store_locks`.

A volume's operation runs in a thread of its own and keeps the volume until it ends, however long that takes: a changing
LVM command is never killed. Whoever asked may stop waiting before; the same request asked again joins the same
operation, or finds its result on the disk. A different request on that volume is refused meanwhile.

What a repetition finds only by looking at everything (that a volume is gone) may take as long as the operation did, and
its caller's patience may end again: such a result waits, for a while, for the next who asks for the same.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from ullage.errors import (
    PendingOperationError,
    StillRunningError,
    TooManyOperationsError,
    UnavailableError,
    VolumeInUseError,
    VolumeNotReadyError,
)
from ullage.model import VolumeId

MOST_OPERATIONS = 64
"""More than the volumes that one node's kubelet and sidecars work on at once; a bound, not a tuning knob."""
MOST_JOINING = 8
"""So many more callers may wait: each waits in a thread of the server, which must have some left for readers."""
KEPT_SECONDS = 120.0
"""How long a result waits for somebody: agents and sidecars ask again within 30 s or so."""

Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    request: Hashable
    future: Future[Any]  # Any: each operation has a result of its own
    started: float
    progress: str = ""
    is_called_off: bool = False
    callers: int = 0
    is_kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    request: Hashable
    result: Any  # as above
    at: float


class Operations:
    """The operations under way, by volume."""

    def __init__(self, most: int = MOST_OPERATIONS) -> None:
        """No thread is started before the first operation."""
        self._most = most
        self._listeners: tuple[Callable[[Hashable, BaseException | None, float], None], ...] = ()
        self._changed = threading.Condition()
        self._running: dict[VolumeId, _Running] = {}
        self._unheard: dict[VolumeId, _Ended] = {}
        self._waiting = 0
        self._is_stopping = False

    def run(
        self,
        volume_id: VolumeId,
        request: Hashable,
        work: Callable[[], Result],
        *,
        patience_seconds: float,
        is_still_so: Callable[[], bool] | None = None,
    ) -> Result:
        """Start `work`, or join it where the same request is under way, and answer with its result.

        With `is_still_so` the result of an earlier equal request that nobody has waited for is an answer, while that
        holds. Raises what `work` raises, PendingOperationError, TooManyOperationsError, and StillRunningError past
        `patience_seconds`.
        """
        running = self._heard_late(volume_id, request, is_still_so) or self._started(
            volume_id, request, work, is_kept=is_still_so is not None
        )
        try:
            result: Result = running.future.result(timeout=patience_seconds)
        except TimeoutError as failure:
            if running.future.done():  # the work raised it, or has ended at this very moment
                return cast("Result", running.future.result())
            raise self._still_running(volume_id, running) from failure
        finally:
            with self._changed:
                self._waiting -= 1
                now = self._running.get(volume_id)
                if now is not None and now.future is running.future:
                    self._running[volume_id] = replace(now, callers=now.callers - 1)
        return result

    def tell(self, on_end: Callable[[Hashable, BaseException | None, float], None]) -> None:
        """Call `on_end(request, failure, seconds)` at the end of each operation, too."""
        self._listeners = (*self._listeners, on_end)

    def note(self, volume_id: VolumeId, progress: str) -> None:
        """How far the operation on this volume is; whoever gives up waiting for it is told."""
        with self._changed:
            running = self._running.get(volume_id)
            if running is not None:
                self._running[volume_id] = replace(running, progress=progress)

    def call_off(self, volume_id: VolumeId, request: Hashable, patience_seconds: float) -> None:
        """Ask whatever else is under way on this volume to end at its next safe point, and wait for it a little."""
        with self._changed:
            running = self._running.get(volume_id)
            if running is not None and running.request != request:
                self._running[volume_id] = replace(running, is_called_off=True)
                self._changed.wait_for(
                    lambda: (now := self._running.get(volume_id)) is None or now.future is not running.future,
                    patience_seconds,
                )

    def is_called_off(self, volume_id: VolumeId) -> bool:
        """Whether the operation on this volume should end at its next safe point: nobody wants it, or we stop."""
        with self._changed:
            running = self._running.get(volume_id)
            return self._is_stopping or (running is not None and running.is_called_off)

    def is_running(self, volume_id: VolumeId) -> bool:
        """Whether something is under way on this volume."""
        with self._changed:
            return volume_id in self._running

    def in_flight(self) -> int:
        """How many operations are under way."""
        with self._changed:
            return len(self._running)

    def stop(self, grace_seconds: float) -> bool:
        """Take nothing new and wait for what is under way; False when something outlives the grace.

        What outlives it is left to end by itself (its LVM command runs in a session of its own): its marks on the disk
        are there for the next start. Whoever waits for it is answered now: the process ends with its last waiter.
        """
        deadline = time.monotonic() + grace_seconds
        with self._changed:
            self._is_stopping = True
            while self._running and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            for volume_id, running in self._running.items():
                log.error(
                    "operation outlives the process",
                    extra={"volume_id": volume_id, "operation": _name(running.request)},
                )
                running.future.set_exception(self._still_running(volume_id, running))
            return not self._running

    def is_stopping(self) -> bool:
        """Whether long work should end at its next safe point."""
        return self._is_stopping

    def _still_running(self, volume_id: VolumeId, running: _Running) -> StillRunningError:
        with self._changed:
            progress = self._running.get(volume_id, running).progress
        so_far = f"{time.monotonic() - running.started:.0f} s{f', {progress},' if progress else ''}"
        return StillRunningError(
            f"{_name(running.request)} of {volume_id} has been running for {so_far} and goes on; ask again",
            volume_id=volume_id,
        )

    def _heard_late(
        self, volume_id: VolumeId, request: Hashable, is_still_so: Callable[[], bool] | None
    ) -> _Running | None:
        """An operation that has ended as this request wants it, if nobody was there. Any other request forgets it."""
        with self._changed:
            ended = self._unheard.pop(volume_id, None)
            if ended is None or ended.request != request or is_still_so is None or not is_still_so():
                return None
            if time.monotonic() - ended.at > KEPT_SECONDS:
                return None
            found = _Running(request=request, future=Future(), started=ended.at)
            found.future.set_result(ended.result)
            self._waiting += 1
            return found

    def _started(self, volume_id: VolumeId, request: Hashable, work: Callable[[], Any], *, is_kept: bool) -> _Running:
        with self._changed:
            running = self._running.get(volume_id)
            if running is not None and running.request != request:
                raise PendingOperationError(
                    f"{_name(running.request)} of {volume_id} is under way; {_name(request)} has to wait for it",
                    volume_id=volume_id,
                )
            if running is None and self._is_stopping:
                raise UnavailableError("the agent is shutting down")
            if running is None and len(self._running) >= self._most:
                raise TooManyOperationsError(f"{self._most} operations are under way, the most at once; ask again")
            if self._waiting >= self._most + MOST_JOINING:
                raise TooManyOperationsError(f"{self._waiting} callers wait, the most at once; ask again")
            if running is None:
                running = _Running(request=request, future=Future(), started=time.monotonic(), is_kept=is_kept)
                thread = threading.Thread(
                    target=self._work,
                    args=(volume_id, running, work),
                    name=f"{_name(request)}-{volume_id}",
                    daemon=True,
                )
                try:
                    thread.start()  # before it is in the table: a thread that cannot be had keeps no volume
                except RuntimeError as failure:  # a limit of the system's, not ours
                    raise TooManyOperationsError(
                        f"no thread for {_name(request)} of {volume_id}: {failure}; ask again"
                    ) from failure
            self._running[volume_id] = replace(self._running.get(volume_id, running), callers=running.callers + 1)
            self._waiting += 1
            return running

    def _work(self, volume_id: VolumeId, running: _Running, work: Callable[[], Any]) -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - the top of a thread; whoever waits gets it
            failure = raised
        # Out of the table before the result is out: whoever has the result may ask for the next thing at once.
        with self._changed:
            ended = self._running.pop(volume_id)
            if ended.is_kept and ended.callers == 0 and failure is None:
                self._keep(volume_id, _Ended(request=ended.request, result=result, at=time.monotonic()))
            self._changed.notify_all()
        for listener in self._listeners:
            try:
                listener(running.request, failure, time.monotonic() - running.started)
            except Exception:  # what measures us must not keep the result from whoever waits for it
                log.exception("the end of an operation could not be told", extra={"volume_id": volume_id})
        with suppress(InvalidStateError):  # `stop` has answered already
            if failure is None:
                running.future.set_result(result)
            else:
                running.future.set_exception(failure)

    def _keep(self, volume_id: VolumeId, ended: _Ended) -> None:
        fresh = {key: each for key, each in self._unheard.items() if ended.at - each.at <= KEPT_SECONDS}
        self._unheard = {**fresh, volume_id: ended}


class Sources:
    """What copies by bytes are about to be made of, and what is going: never the same.

    Source and copy can be on different stores, whose locks nobody holds together. Once there is a copy, its FILLING
    mark says what it needs.
    """

    def __init__(self) -> None:
        """Nothing is kept, nothing goes."""
        self._guard = threading.Lock()
        self._kept: dict[VolumeId, set[VolumeId]] = {}
        self._going: set[VolumeId] = set()

    @contextmanager
    def kept(self, source: VolumeId, by: VolumeId) -> Iterator[None]:
        """Keep a volume from going while `by` comes to need it; raises VolumeNotReadyError when it is going."""
        with self._guard:
            if source in self._going:
                raise VolumeNotReadyError(f"{source} is being deleted", volume_id=source)
            self._kept.setdefault(source, set()).add(by)
        try:
            yield
        finally:
            with self._guard:
                self._kept[source].discard(by)
                if not self._kept[source]:
                    del self._kept[source]

    @contextmanager
    def going(self, volume_id: VolumeId) -> Iterator[None]:
        """Let nobody come to need this volume; raises VolumeInUseError when somebody does, or it is going already."""
        with self._guard:
            if volume_id in self._going:
                raise VolumeInUseError(f"{volume_id} is being deleted already", volume_id=volume_id)
            if volume_id in self._kept:
                by = ", ".join(sorted(self._kept[volume_id]))
                raise VolumeInUseError(f"{volume_id} is being copied to {by}", volume_id=volume_id)
            self._going.add(volume_id)
        try:
            yield
        finally:
            with self._guard:
                self._going.discard(volume_id)


def _name(request: Hashable) -> str:
    return type(request).__name__
