"""What the API server has of one kind of object, in memory: a list in pages, then a watch that goes on where it ended.

One thread reads. Whatever goes wrong, the memory stays as it was, the reader waits (longer each time, never the same
time on two machines) and goes on from the last resource version it has heard; when the server has forgotten that
version (410: it keeps the past in memory, and so after its restart has none), all is listed anew, and what is no longer
there is told as removed. `is_synced` stays true through all of this: how old the memory may be is
`seconds_since_heard`.

Every read has an end: a server that is there sends a bookmark every minute, so a stream that has said nothing for
SILENCE_SECONDS is half-open and given up. If it had said nothing from its beginning, its resource version may be one of
a history that the server has lost (an etcd restored from a backup): such a watch is silent for ever, and all is listed.

A second thread tells the handlers, so that a slow one does not keep the watch waiting, and none of them ever runs
inside of `learn`, under its caller's locks. No page is decoded in one piece: what is too large for one turn of the
interpreter's lock would stop every other thread.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic

import msgspec

from ullage.errors import ApiError, ApiGoneError, ApiUnavailableError, UllageError
from ullage.kube.api import Api
from ullage.kube.cache import Cache, Key, T, key_of
from ullage.kube.connection import Endable, Refused, refusal
from ullage.kube.meta import Meta, Resource
from ullage.kube.pauses import Pauses

SILENCE_SECONDS = 90.0
"""A bookmark comes every 60 s (the API server's `defaultBookmarkFrequency`), or a second or two later. To be wrong
costs one reconnect, so one bookmark that is missing is enough."""
WATCH_SECONDS = (240, 480)
"""A watch's length is drawn from these, so that agents that were started together do not come back together."""
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


class _Head(msgspec.Struct, frozen=True):
    """Who an object is, when the rest of it cannot be understood."""

    metadata: Meta


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Informer(Generic[T]):
    """Thread-safe. `T` is a Struct with `metadata`; nothing is read before `start`."""

    def __init__(  # noqa: PLR0913 - as a list has parts
        self,
        api: Api,
        resource: Resource,
        kind: type[T],
        *,
        namespace: str = "",
        field_selector: str = "",
        label_selector: str = "",
        indexes: Mapping[str, Callable[[T], Iterable[str]]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`indexes` say under which values an object is found with `by_index`; they must be pure."""
        self.resource = resource
        self.relists = self.events = self.watches = 0
        self._api = api
        self._namespace = namespace
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        self._selectors = {key: value for key, value in selectors.items() if value}
        self._decoder = msgspec.json.Decoder(kind)
        self._clock = clock
        self._cache: Cache[T] = Cache(indexes or {}, self._note)
        self._since = ""
        """Where the next watch goes on; empty: nowhere, there must be a list first."""
        self._unreadable: dict[Key, str] = {}
        """What could not be understood, with its version."""
        self._handlers: list[Callable[[T | None, T | None], None]] = []
        self._untold: queue.SimpleQueue[tuple[T | None, T | None] | None] = queue.SimpleQueue()
        self._heard_at = clock()
        self._opened_at: float | None = None
        self._stream: object = None
        self._synced = threading.Event()
        self._stopping = threading.Event()
        name = f"informer-{resource.plural}"
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._teller = threading.Thread(target=self._tell, name=f"{name}-handlers", daemon=True)

    def on_change(self, handler: Callable[[T | None, T | None], None]) -> None:
        """Have every change told, in order, as what was there and what is; to be called before `start`.

        Changes wait, in any number, for a handler that takes its time.
        An object that has made way for another of its name is told as one that went and one that came.
        """
        self._handlers.append(handler)

    def start(self) -> None:
        """Begin to read."""
        self._teller.start()
        self._reader.start()

    def stop(self) -> None:
        """End. A request under way is not waited for beyond STOP_SECONDS; changes not yet told are not told."""
        self._stopping.set()
        self._untold.put(None)
        stream = self._stream
        if isinstance(stream, Endable):
            stream.end()
        for thread in (self._reader, self._teller):
            if thread.is_alive():
                thread.join(STOP_SECONDS)

    @property
    def is_synced(self) -> bool:
        """Whether all was listed once. Handlers may still have to be told of some of it."""
        return self._synced.is_set()

    def wait_until_synced(self, timeout_seconds: float) -> bool:
        """Whether it is, at the latest after this time."""
        return self._synced.wait(timeout_seconds)

    @property
    def seconds_since_heard(self) -> float:
        """For how long the API server has said nothing, not even a bookmark."""
        return self._clock() - self._heard_at

    @property
    def unreadable(self) -> int:
        """How many objects could not be understood as they are now."""
        return len(self._unreadable)

    def __len__(self) -> int:
        return len(self._cache)

    def __bool__(self) -> bool:
        """It is one, however little it knows."""
        return True

    def get(self, name: str, namespace: str = "") -> T | None:
        """The object as last seen. None before `is_synced` says nothing."""
        return self._cache.get((namespace, name))

    def all(self) -> tuple[T, ...]:
        """Every object."""
        return self._cache.all()

    def by_index(self, index: str, value: str) -> tuple[T, ...]:
        """The objects under this value."""
        return self._cache.by_index(index, value)

    def learn(self, written: bytes | T) -> T:
        """Put the API server's answer to a write of our own here at once, and hand it back; handlers are told.

        It must be an object that the selectors match. Raises ApiError when it is none of this kind.
        """
        if isinstance(written, bytes):
            try:
                written = self._decoder.decode(written)
            except msgspec.DecodeError as error:
                raise ApiError(f"the answer is no {self.resource.kind}: {error}") from error
        self._cache.learn(written)
        return written

    def wait(
        self, name: str, until: Callable[[T | None], bool], timeout_seconds: float, namespace: str = ""
    ) -> T | None:
        """The object as last seen, once `until` holds of it or the time is up; only its own changes wake this.

        Raises ApiUnavailableError when nothing was listed yet by then: not to know an object is not to know it gone.
        """
        deadline = time.monotonic() + timeout_seconds
        if not self._synced.wait(timeout_seconds):
            raise ApiUnavailableError(f"{self.resource.plural} could not be listed in {timeout_seconds:g} s")
        return self._cache.wait((namespace, name), until, deadline - time.monotonic())

    def _read(self) -> None:
        pauses = Pauses()
        was_forgotten = False
        while not self._stopping.is_set():
            self._opened_at = None
            is_failure = True
            is_again, was_forgotten = was_forgotten, False
            try:
                if not self._since:
                    self._list()
                self._watch()
                is_failure = False
            except ApiGoneError as gone:
                self._since = ""
                log.info("the history was forgotten", extra={"resource": self.resource.plural, "because": str(gone)})
                was_forgotten = True
                if not is_again:
                    continue  # the server is there, and answers: only if it does so again, it must be spared
            except UllageError as error:
                self._tell_failure(pauses, error)
            except Exception:
                self._since = ""  # the thread's top; what was half done is done by a list
                if not self._stopping.is_set():
                    log.exception("the API server's words failed us", extra={"resource": self.resource.plural})
            lasted_seconds = 0.0 if self._opened_at is None else self._clock() - self._opened_at
            self._stopping.wait(pauses.after(lasted_seconds, is_failure=is_failure))

    def _tell_failure(self, pauses: Pauses, error: UllageError) -> None:
        if not self._stopping.is_set():
            level = logging.DEBUG if pauses.failures else logging.WARNING
            log.log(
                level, "the API server is not heard", extra={"resource": self.resource.plural, "because": str(error)}
            )

    def _list(self) -> None:
        listed: set[Key] = set()
        after = ""
        while not self._stopping.is_set():
            text = self._api.page(self.resource, namespace=self._namespace, selectors=self._selectors, after=after)
            page = msgspec.json.decode(text, type=_Page)
            self._heard_at = self._clock()
            version = page.metadata.resource_version
            is_truth = self._cache.is_behind(version)
            understood = (self._understood(raw, listed) for raw in page.items or ())
            self._cache.put([found for found in understood if found is not None], is_truth=is_truth)
            after = page.metadata.continue_
            if not after:
                self._cache.end_list(version, listed, is_truth=is_truth)
                self._unreadable = {key: seen for key, seen in self._unreadable.items() if key in listed}
                self._since = version
                self.relists += 1
                self._synced.set()
                return

    def _watch(self) -> None:
        is_heard = False
        self.watches += 1
        try:
            with self._api.watch(
                self.resource,
                namespace=self._namespace,
                selectors=self._selectors,
                since=self._since,
                seconds=random.randint(*WATCH_SECONDS),  # noqa: S311 - spreads load, hides nothing
                silence_seconds=SILENCE_SECONDS,
            ) as lines:
                self._opened_at = self._clock()
                self._stream = lines
                for line in lines if not self._stopping.is_set() else ():
                    is_heard = True
                    self._heard_at = self._clock()
                    self._take(msgspec.json.decode(line, type=_Line))
                    if self._stopping.is_set():
                        return
        except ApiUnavailableError:
            if not is_heard and self._opened_at and self._clock() - self._opened_at >= SILENCE_SECONDS - 1:
                self._since = ""
            raise
        finally:
            self._stream = None

    def _take(self, line: _Line) -> None:
        """One event."""
        if line.type == "ERROR":
            code = msgspec.json.decode(line.object, type=Refused).code
            raise refusal("WATCH", self.resource.path(namespace=self._namespace), code, bytes(line.object))
        head = msgspec.json.decode(line.object, type=_Head).metadata
        if line.type == "DELETED":
            self._unreadable.pop((head.namespace, head.name), None)
            self._cache.watched(head.resource_version, deleted=(head.namespace, head.name))
        else:
            found = None if line.type == "BOOKMARK" else self._understood(line.object, set())
            self._cache.watched(head.resource_version, found=found)
        self._since = head.resource_version
        self.events += line.type != "BOOKMARK"

    def _understood(self, raw: msgspec.Raw, seen: set[Key]) -> T | None:
        """None of one that is not as our Structs say, another version's perhaps: the others must not suffer for it.

        Of that one what was known stays: who does not see an object could take it for deleted.
        """
        try:
            found = self._cache.check(self._decoder.decode(raw))
        except Exception as error:
            head = msgspec.json.decode(raw, type=_Head).metadata
            key = (head.namespace, head.name)
            seen.add(key)
            if self._unreadable.get(key) != head.resource_version:
                self._unreadable[key] = head.resource_version
                facts = {"resource": self.resource.plural, "object": "/".join(key), "because": str(error)}
                log.exception("an object cannot be understood", extra=facts)
            return None
        seen.add(key := key_of(found))
        self._unreadable.pop(key, None)
        return found

    def _note(self, before: T | None, after: T | None) -> None:
        if self._handlers:
            self._untold.put((before, after))

    def _tell(self) -> None:
        while (change := self._untold.get()) is not None and not self._stopping.is_set():
            for handler in self._handlers:
                try:
                    handler(*change)
                except Exception:
                    log.exception("a handler failed", extra={"resource": self.resource.plural})
