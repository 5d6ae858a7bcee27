"""What the API server has of one kind of object, in memory, whole; whoever asks is answered from there.

A reader fills it (`ullage.kube.reader` says how, and what becomes of it when the server goes away). A second thread
tells the handlers, so that a slow one does not keep the watch waiting, and none of them ever runs inside of `learn`,
under its caller's locks.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic

import msgspec

from ullage.errors import ApiError, ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.cache import Cache, T
from ullage.kube.meta import Resource
from ullage.kube.reader import STOP_SECONDS, Reader

log = logging.getLogger(__name__)


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
        self._decoder = msgspec.json.Decoder(kind)
        self._cache: Cache[T] = Cache(indexes or {}, self._note)
        self._reader = Reader(
            api,
            resource,
            kind,
            self._cache,
            namespace=namespace,
            field_selector=field_selector,
            label_selector=label_selector,
            clock=clock,
        )
        self._handlers: list[Callable[[T | None, T | None], None]] = []
        self._untold: queue.SimpleQueue[tuple[T | None, T | None] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        name = f"informer-{resource.plural}-handlers"
        self._teller = threading.Thread(target=self._tell, name=name, daemon=True)

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
        self._reader.stop()
        if self._teller.is_alive():
            self._teller.join(STOP_SECONDS)

    @property
    def is_synced(self) -> bool:
        """Whether all was listed once. Handlers may still have to be told of some of it."""
        return self._reader.is_synced

    def wait_until_synced(self, timeout_seconds: float) -> bool:
        """Whether it is, at the latest after this time."""
        return self._reader.wait_until_synced(timeout_seconds)

    @property
    def seconds_since_heard(self) -> float:
        """For how long the API server has said nothing, not even a bookmark."""
        return self._reader.seconds_since_heard

    @property
    def unreadable(self) -> int:
        """How many objects could not be understood as they are now."""
        return self._reader.unreadable

    @property
    def relists(self) -> int:
        """Lists of all objects, the first included."""
        return self._reader.relists

    @property
    def watches(self) -> int:
        """Watches that were begun, the first included."""
        return self._reader.watches

    @property
    def events(self) -> int:
        """Changes that watches told."""
        return self._reader.events

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
        if not self._reader.wait_until_synced(timeout_seconds):
            raise ApiUnavailableError(f"{self.resource.plural} could not be listed in {timeout_seconds:g} s")
        return self._cache.wait((namespace, name), until, deadline - time.monotonic())

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
