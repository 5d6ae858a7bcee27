"""Objects of one kind in memory, found by name and by index, waited for one by one; of each the newest that was told.

They are told here by a list, by a watch and by the answers to our own writes, of which none knows what the others have
said. Resource versions of one kind grow, and a watch tells changes in their order, so two rules keep this from going
backwards and the deleted from coming back: what is older than the object that is known changes nothing, and an answer
that is not newer than the last thing the watch has said has been told by it already, deletion included.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

from ullage.kube.meta import Key, KubeObject

T = TypeVar("T", bound=KubeObject)


class Cache(Generic[T]):
    """Thread-safe. Each change is handed to `tell` under the lock, as what was there and what is."""

    def __init__(
        self, indexes: Mapping[str, Callable[[T], Iterable[str]]], tell: Callable[[T | None, T | None], None]
    ) -> None:
        """Empty. Indexes must be pure; they never raise of an object that `check` has seen."""
        self._values_of = dict(indexes)
        self._tell = tell
        self._lock = threading.Lock()
        self._objects: dict[Key, T] = {}
        self._indexed: dict[str, dict[str, dict[Key, T]]] = {index: {} for index in indexes}
        self._waiting: dict[Key, list[threading.Event]] = {}
        self._listed: set[Key] = set()
        """What has come of a list that is under way."""
        self._told_version = 0
        """All that has happened up to here has been told by list or watch."""

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: Key) -> T | None:
        """The object as last told."""
        return self._objects.get(key)

    def all(self) -> tuple[T, ...]:
        """Every object. The lock is held for one copy of pointers: a quarter of a millisecond for 20,000."""
        with self._lock:
            return tuple(self._objects.values())

    def by_index(self, index: str, value: str) -> tuple[T, ...]:
        """The objects under this value."""
        with self._lock:
            return tuple(self._indexed[index].get(value, {}).values())

    def check(self, found: T) -> Key:
        """Who it is; raises what an index raises of it, before anything is changed."""
        for values in self._values_of.values():
            tuple(values(found))
        return key_of(found)

    def learn(self, written: T) -> None:
        """The answer to a write of our own."""
        self.check(written)
        with self._lock:
            number = number_of(written.metadata.resource_version)
            if number is None or number > self._told_version:
                self._put(written, is_truth=False)

    def begin_list(self) -> None:
        """All that there is will be listed."""
        self._listed = set()

    def listed(self, version: str, key: Key, found: T | None) -> None:
        """One of a list of this version; None: it is there, and what was known of it stays."""
        with self._lock:
            self._listed.add(key)
            if found is not None:
                self._put(found, is_truth=self._is_behind(version))

    def end_list(self, version: str) -> None:
        """Drop what was not in the list, but for what was learned after it was made: the watch will tell of that."""
        with self._lock:
            is_truth = self._is_behind(version)
            for key in [key for key in self._objects if key not in self._listed]:
                if is_truth or not is_older(version, than=self._objects[key].metadata.resource_version):
                    self._drop(key)
            self._listed = set()
            self._told_version = number_of(version) or 0

    def watched(self, version: str, *, found: T | None = None, deleted: Key | None = None) -> None:
        """An event of the watch; with neither object nor key one that only says how far it is."""
        with self._lock:
            known = self._objects.get(deleted) if deleted else None
            if found is not None:
                self._put(found, is_truth=False)
            elif deleted and known is not None and not is_older(version, than=known.metadata.resource_version):
                self._drop(deleted)
            self._told_version = number_of(version) or 0

    def wait(self, key: Key, until: Callable[[T | None], bool], timeout_seconds: float) -> T | None:
        """The object as last told, once `until` holds of it or the time is up; only its own changes wake this."""
        deadline = time.monotonic() + timeout_seconds
        changed = threading.Event()
        with self._lock:
            self._waiting.setdefault(key, []).append(changed)
        try:
            while True:
                changed.clear()
                found = self._objects.get(key)
                if until(found) or not changed.wait(max(0.0, deadline - time.monotonic())):
                    return found
        finally:
            with self._lock:
                self._waiting[key].remove(changed)
                if not self._waiting[key]:
                    del self._waiting[key]

    def _is_behind(self, version: str) -> bool:
        """Whether this version of the whole list is older than what was told before: the server has lost history.

        Such a list stands even against newer versions: they are of the history that was lost.
        """
        number = number_of(version)
        return number is not None and number < self._told_version

    def _put(self, found: T, *, is_truth: bool) -> None:
        key = key_of(found)
        known = self._objects.get(key)
        if known is not None:
            is_late = is_older(found.metadata.resource_version, than=known.metadata.resource_version)
            if found == known or (is_late and not is_truth):
                return
            if found.metadata.uid != known.metadata.uid:
                self._drop(key)
                known = None
        self._objects[key] = found
        self._changed(key, known, found)

    def _drop(self, key: Key) -> None:
        self._changed(key, self._objects.pop(key), None)

    def _changed(self, key: Key, before: T | None, after: T | None) -> None:
        for index, values_of in self._values_of.items():
            found = self._indexed[index]
            for value in values_of(before) if before is not None else ():
                under = found.get(value, {})
                under.pop(key, None)
                if not under:
                    found.pop(value, None)
            if after is not None:
                for value in values_of(after):
                    found.setdefault(value, {})[key] = after
        for waiting in self._waiting.get(key, ()):
            waiting.set()
        self._tell(before, after)


def key_of(found: KubeObject) -> Key:
    """Who it is."""
    return found.metadata.namespace, found.metadata.name


def number_of(version: str) -> int | None:
    """Resource versions are decimal numbers; None of one that is not."""
    return int(version) if version.isascii() and version.isdigit() else None


def is_older(version: str, *, than: str) -> bool:
    """Of versions that are no numbers none is: what is heard last counts."""
    one, other = number_of(version), number_of(than)
    return one is not None and other is not None and one < other
