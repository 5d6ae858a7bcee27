"""Events on Kubernetes objects: what `kubectl describe` shows to whoever asks why.

Whoever tells one goes on at once: nothing is raised, nothing waits for the API server. One thread writes, no faster
than a bucket of tokens allows. The same told again (on the same object, in the same words) is counted in a series on
the event that is there, which is written now and then, not each time. While the API server is away events wait, with
the time at which they were told, but not for ever and not in any number: an event is news, not a record.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ullage.errors import ApiExistsError, ApiNotFoundError, ApiUnavailableError, UllageError
from ullage.kube.api import Api
from ullage.kube.foreign import ObjectReference
from ullage.kube.meta import EVENTS, Meta, micro_timestamp
from ullage.kube.pauses import Pauses

CLUSTER_SCOPED_NAMESPACE = "default"
"""Where the API server wants events on objects that have no namespace."""
MOST_NOTE_BYTES, MOST_WORD_BYTES, MOST_NAME_CHARACTERS = 1024, 128, 200
"""The API server's limits of `note`, and of `reason`, `action` and `reportingInstance`; room for a name's suffix."""
MOST_KNOWN = 500
"""Events that wait, or may still be repeated; what is new beyond is dropped."""
SERIES_SECONDS = 60.0
"""A repetition is written at the earliest so long after the event was written last."""
FORGET_SECONDS = 600.0
"""What was not told again for so long is over, and no more news if it is still not written."""
BURST, SECONDS_PER_EVENT = 25, 1.0
"""So many at once; then one in a second, from each process."""
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


class Series(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How often, once it is more than once."""

    count: int
    last_observed_time: str


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """events.k8s.io/v1 Event."""

    api_version: str = EVENTS.api_version
    kind: str = EVENTS.kind
    metadata: Meta
    event_time: str
    type: str
    reason: str
    action: str
    note: str
    regarding: ObjectReference
    reporting_controller: str
    reporting_instance: str
    series: Series | None = None


@dataclass(slots=True)
class _Told:
    """An event, and how often it was told and written; owned by the lock."""

    event: Event
    told_at: float
    last_time: str
    count: int = 1
    written_count: int = 0
    due_at: float = 0.0

    def current(self) -> Event:
        """As it is to be written."""
        if self.count == 1:
            return self.event
        series = Series(count=self.count, last_observed_time=self.last_time)
        return msgspec.structs.replace(self.event, series=series)


class Events:
    """Thread-safe."""

    def __init__(self, api: Api, component: str, instance: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`component` is the kind of process that tells, `instance` which one of them: its Pod or node."""
        self._api = api
        self._component = component
        self._instance = shortened(instance, MOST_WORD_BYTES) or component
        self._clock = clock
        self._known: dict[tuple[ObjectReference, str, str, str, bool], _Told] = {}
        self._changed = threading.Condition()
        self._tokens, self._tokens_at = float(BURST), clock()
        self._resume_at = clock()
        self._pauses = Pauses()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def tell(
        self, about: ObjectReference, *, reason: str, message: str, is_warning: bool = False, action: str = ""
    ) -> None:
        """Have an event written. `reason` and `action` (if there is none, the same) are one word in CamelCase."""
        about = msgspec.structs.replace(about, resource_version="")  # of another version of it, it is the same news
        reason, note = shortened(reason, MOST_WORD_BYTES), shortened(message, MOST_NOTE_BYTES)
        action = shortened(action, MOST_WORD_BYTES) or reason
        key = (about, reason, action, note, is_warning)
        time_now = micro_timestamp()
        with self._changed:
            now = self._clock()
            known = self._known.get(key)
            if known is not None:
                known.count += 1
                known.told_at, known.last_time = now, time_now
            elif self._has_room(now):
                name = f"{about.name[:MOST_NAME_CHARACTERS].rstrip('.-')}.{uuid.uuid4().hex[:16]}"
                event = Event(
                    metadata=Meta(name=name, namespace=about.namespace or CLUSTER_SCOPED_NAMESPACE),
                    event_time=time_now,
                    type="Warning" if is_warning else "Normal",
                    reason=reason,
                    action=action,
                    note=note,
                    regarding=about,
                    reporting_controller=self._component,
                    reporting_instance=self._instance,
                )
                self._known[key] = _Told(event=event, told_at=now, last_time=time_now)
            else:
                log.warning("an event was dropped", extra={"reason": reason, "note": note})
            self._changed.notify_all()

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is new is tried once more."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def turn(self) -> float:
        """Write what is due, one event at most; in how many seconds there may be more to do."""
        with self._changed:
            now = self._clock()
            self._forget(now)
            seconds = max(self._resume_at - now, self._seconds_to_token(now))
            due = [each for each in self._known.values() if each.written_count < each.count]
            told = min(due, key=lambda each: each.due_at, default=None)
            if told is None:
                return FORGET_SECONDS
            if max(seconds, told.due_at - now) > 0:
                return max(seconds, told.due_at - now)
            self._tokens -= 1
            event, is_new = told.current(), not told.written_count
            told.written_count, told.due_at = told.count, now + SERIES_SECONDS
        if not self._is_written(event, is_new=is_new):
            with self._changed:
                told.written_count, told.due_at = 0 if is_new else 1, now
        return 0.0

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                seconds = self.turn()
            except Exception:
                log.exception("writing events failed")  # the thread's top
                seconds = SECONDS_PER_EVENT
            with self._changed:
                if seconds > 0 and not self._is_stopping:
                    self._changed.wait(seconds)
        with self._changed:
            last = [each.current() for each in self._known.values() if not each.written_count]
        for event in last[:BURST]:
            if not self._is_written(event, is_new=True):
                return

    def _is_written(self, event: Event, *, is_new: bool) -> bool:
        """Whether it needs no more trying."""
        namespace = event.metadata.namespace
        try:
            if is_new:
                self._api.create(EVENTS, event, namespace=namespace)
            else:
                self._api.patch(EVENTS, event.metadata.name, {"series": event.series}, namespace=namespace)
        except ApiUnavailableError as error:
            log.debug("events cannot be written now", extra={"because": str(error)})
            self._resume_at = self._clock() + self._pauses.after()
            return False
        except ApiExistsError:
            pass  # it was written, and the answer was lost
        except ApiNotFoundError as error:
            if not is_new:  # the API server keeps events for an hour
                return self._is_written(event, is_new=True)
            log.warning("an event was refused", extra={"reason": event.reason, "because": str(error)})
        except UllageError as error:
            log.warning("an event was refused", extra={"reason": event.reason, "because": str(error)})
        self._pauses = Pauses()
        return True

    def _has_room(self, now: float) -> bool:
        """If need be by forgetting what has been written and is not repeated."""
        self._forget(now)
        if len(self._known) >= MOST_KNOWN:
            over = next((key for key, each in self._known.items() if each.written_count == each.count), None)
            if over is None:
                return False
            del self._known[over]
        return True

    def _forget(self, now: float) -> None:
        for key in [key for key, each in self._known.items() if each.told_at + FORGET_SECONDS <= now]:
            del self._known[key]

    def _seconds_to_token(self, now: float) -> float:
        self._tokens = min(float(BURST), self._tokens + (now - self._tokens_at) / SECONDS_PER_EVENT)
        self._tokens_at = now
        return (1 - self._tokens) * SECONDS_PER_EVENT if self._tokens < 1 else 0.0


def shortened(text: str, most_bytes: int) -> str:
    """Its beginning, whole characters only; a sentence that was cut says so."""
    raw = text.encode(errors="replace")
    if len(raw) <= most_bytes:
        return raw.decode()
    return raw[: most_bytes - 3].decode(errors="ignore") + "…"
