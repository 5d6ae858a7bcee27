"""Reads one kind of object from the API server: a list in pages, then a watch that goes on where it ended.

One thread reads, and hands what it reads to a `Store`: to the `Cache` of an informer, or to whoever keeps less than
whole objects. Whatever goes wrong, the store stays as it was, the reader waits (longer each time, never the same time
on two machines) and goes on from the last resource version it has heard; when the server has forgotten that version
(410: it keeps the past in memory, and so after its restart has none), all is listed anew, and what is no longer there
is gone. `is_synced` stays true through all of this: how old the store may be is `seconds_since_heard`.

Every read has an end: a server that is there sends a bookmark every minute, so a stream that has said nothing for
SILENCE_SECONDS is half-open and given up. If it had said nothing from its beginning, its resource version may be one of
a history that the server has lost (an etcd restored from a backup): such a watch is silent for ever, and all is listed.

No page is decoded in one piece: what is too large for one turn of the interpreter's lock would stop every other thread.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import msgspec

from ullage.errors import ApiGoneError, ApiNotFoundError, ApiUnavailableError, UllageError
from ullage.kube.api import Api
from ullage.kube.connection import REFUSALS, Endable, refusal
from ullage.kube.meta import Key, Resource
from ullage.kube.pauses import Pauses

SILENCE_SECONDS = 90.0
"""A bookmark comes every 60 s (the API server's `defaultBookmarkFrequency`), or a second or two later. To be wrong
costs one reconnect, so one bookmark that is missing is enough."""
WATCH_SECONDS = (240, 480)
"""A watch's length is drawn from these, so that agents that were started together do not come back together."""
STOP_SECONDS = 5.0
SLICE_OBJECTS, SLICE_SECONDS = 25, 0.00005
"""Between so many objects of a page whoever waits for the interpreter gets it, and not only after its 5 ms."""

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)
log = logging.getLogger(__name__)


class Store(Protocol[T_contra]):
    """What a reader fills, from its one thread. After `begin_list` there may be another one, and no `end_list`."""

    def __len__(self) -> int:
        """How many objects are kept."""

    def check(self, found: T_contra) -> Key:
        """Who it is; raises what is wrong with it, before anything is changed."""

    def begin_list(self) -> None:
        """All that there is will be listed, from the first on."""

    def listed(self, version: str, key: Key, found: T_contra | None) -> None:
        """One of them, in a list of this version; None: it is there, and cannot be understood."""

    def end_list(self, version: str) -> None:
        """What was not listed is gone."""

    def watched(self, version: str, *, found: T_contra | None = None, deleted: Key | None = None) -> None:
        """An event of the watch; with neither object nor key one that only says how far it is."""


class _HeadMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct, frozen=True):
    """Who an object is, when the rest of it cannot be understood."""

    metadata: _HeadMeta

    @property
    def key(self) -> Key:
        return self.metadata.namespace, self.metadata.name


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


_PAGES = msgspec.json.Decoder(_Page)
_LINES = msgspec.json.Decoder(_Line)
_HEADS = msgspec.json.Decoder(_Head)


class Reader(Generic[T]):
    """Thread-safe. Nothing is read before `start`."""

    def __init__(  # noqa: PLR0913 - as a list has parts
        self,
        api: Api,
        resource: Resource,
        kind: type[T],
        store: Store[T],
        *,
        namespace: str = "",
        field_selector: str = "",
        label_selector: str = "",
        may_be_missing: bool = False,
        turn: threading.Lock | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`may_be_missing`: where the API server does not serve this kind, there is none of it; until it does.

        Readers that share a `turn` take their pages in one after the other: together they would leave a thread that
        answers requests the smallest part of the interpreter.
        """
        self.resource = resource
        self.relists = self.events = self.watches = 0
        self._api = api
        self._store = store
        self._namespace = namespace
        selectors = {"fieldSelector": field_selector, "labelSelector": label_selector}
        self._selectors = {key: value for key, value in selectors.items() if value}
        self._may_be_missing = may_be_missing
        self._is_missing = False
        self._turn = turn or threading.Lock()
        self._decoder = msgspec.json.Decoder(kind)
        self._clock = clock
        self._since = ""
        """Where the next watch goes on; empty: nowhere, there must be a list first."""
        self._unreadable: dict[Key, str] = {}
        """What could not be understood, with its version."""
        self._heard_at = clock()
        self._opened_at: float | None = None
        self._stream: object = None
        self._synced = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"informer-{resource.plural}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End. A request under way is not waited for beyond STOP_SECONDS."""
        self._stopping.set()
        stream = self._stream
        if isinstance(stream, Endable):
            stream.end()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    @property
    def is_synced(self) -> bool:
        """Whether all was listed once."""
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
        return len(self._store)

    def __bool__(self) -> bool:
        """It is one, however little it has read."""
        return True

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
            except ApiNotFoundError as error:
                self._since = ""
                if self._may_be_missing:
                    self._find_none()
                else:
                    self._tell_failure(pauses, error)
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

    def _find_none(self) -> None:
        """The kind is not served: a list of nothing."""
        self._heard_at = self._clock()
        if not self._is_missing:
            self._is_missing = True
            log.info("the API server does not serve this kind", extra={"resource": self.resource.plural})
            self._store.begin_list()
            self._end_list("", set())

    def _list(self) -> None:
        unreadable: set[Key] = set()
        after = ""
        self._store.begin_list()
        while not self._stopping.is_set():
            meta = self._take_page(
                self._api.page(self.resource, namespace=self._namespace, selectors=self._selectors, after=after),
                unreadable,
            )
            after = meta.continue_
            if not after:
                self._is_missing = False
                self._end_list(meta.resource_version, unreadable)
                return

    def _take_page(self, text: bytes, unreadable: set[Key]) -> _ListMeta:
        """Hand it to the store. Nothing of it is held while the next one comes: ten readers may each wait for one."""
        with self._turn:
            page = _PAGES.decode(text)
            self._heard_at = self._clock()
            for number, raw in enumerate(page.items or (), start=1):
                if number % SLICE_OBJECTS == 0:
                    time.sleep(SLICE_SECONDS)
                key, found = self._understood(raw)
                self._store.listed(page.metadata.resource_version, key, found)
                if found is None:
                    unreadable.add(key)
        return page.metadata

    def _end_list(self, version: str, unreadable: set[Key]) -> None:
        self._store.end_list(version)
        self._unreadable = {key: seen for key, seen in self._unreadable.items() if key in unreadable}
        self._since = version
        self.relists += 1
        self._synced.set()

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
                    self._take(_LINES.decode(line))
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
            code = REFUSALS.decode(line.object).code
            raise refusal("WATCH", self.resource.path(namespace=self._namespace), code, bytes(line.object))
        head = _HEADS.decode(line.object)
        version = head.metadata.resource_version
        if line.type == "DELETED":
            self._unreadable.pop(head.key, None)
            self._store.watched(version, deleted=head.key)
        else:
            found = None if line.type == "BOOKMARK" else self._understood(line.object)[1]
            self._store.watched(version, found=found)
        self._since = version
        self.events += line.type != "BOOKMARK"

    def _understood(self, raw: msgspec.Raw) -> tuple[Key, T | None]:
        """None of one that is not as our Structs say, another version's perhaps: the others must not suffer for it.

        Of that one what was known stays: who does not see an object could take it for deleted.
        """
        try:
            found = self._decoder.decode(raw)
            key = self._store.check(found)
        except Exception as error:
            head = _HEADS.decode(raw)
            key, version = head.key, head.metadata.resource_version
            if self._unreadable.get(key) != version:
                self._unreadable[key] = version
                facts = {"resource": self.resource.plural, "object": "/".join(key), "because": str(error)}
                log.exception("an object cannot be understood", extra=facts)
            return key, None
        self._unreadable.pop(key, None)
        return key, found
