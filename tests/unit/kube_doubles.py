"""A Kubernetes API server in memory, as far as we use one: a `Transport` with the real one's rules for what we rely on.

Those are: resource versions that only grow; a generation that grows with the spec and with a condemnation; a status
that only its own subresource writes, which writes nothing else; finalizers; preconditions by uid and by resource
version; lists in pages of one moment; watches from a resource version on, with field and label selectors, bookmarks, an
end, and 410 for what has been forgotten.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from ullage.errors import (
    ApiConflictError,
    ApiExistsError,
    ApiGoneError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnavailableError,
)
from ullage.kube.connection import JSON
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, Resource, timestamp

Fields = dict[str, Any]
WITH_STATUS = frozenset({LOGICAL_VOLUMES.plural, NODE_STORAGES.plural, DEVICE_CLASSES.plural, "nodes"})
"""Kinds whose status is a subresource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a path means."""

    collection: str
    namespace: str
    name: str
    subresource: str

    @property
    def plural(self) -> str:
        return self.collection.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One write, as a watch tells of it."""

    version: int
    collection: str
    namespace: str
    before: Fields | None
    after: Fields | None
    """As it was at last, for one that has gone (`is_end`)."""
    is_end: bool = False


@dataclass(slots=True)
class _Stream:
    """Endable, as the real one."""

    changed: threading.Condition
    events: Iterator[bytes] = field(default_factory=lambda: iter(()))
    is_broken: bool = False
    bookmarks: int = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.events)

    def end(self) -> None:
        with self.changed:
            self.is_broken = True
            self.changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Lines:
    """Endable, as the real ones are."""

    lines: Iterator[bytes]
    end: Callable[[], None]

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self.lines)


@dataclass(slots=True)
class ApiServer:
    """Implements `ullage.kube.connection.Transport`. `writes` is every request that was not a look, as it came."""

    writes: list[tuple[str, str]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    delivered: int = 0
    """Events that went out on watches, bookmarks left out."""
    before: Callable[[str, str], None] = lambda _method, _path: None
    """Called with each request's method and path, outside of the lock: the place for races, delays and errors."""
    admit: Callable[[Fields | None, Fields], None] = lambda _before, _after: None
    """The rules for objects, old and new: raises ApiInvalidError, ApiForbiddenError."""
    is_down: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1000))
    _version: int = 999
    _objects: dict[str, dict[tuple[str, str], Fields]] = field(default_factory=dict)
    _changes: list[Change] = field(default_factory=list)
    _forgotten: int = 0
    _pages: dict[str, tuple[int, list[Fields]]] = field(default_factory=dict)
    _streams: list[_Stream] = field(default_factory=list)

    def request(  # noqa: PLR0913 - the port's
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        timeout_seconds: float,
    ) -> bytes:
        del timeout_seconds
        if self.is_down:
            raise ApiUnavailableError(f"{method} {path}: it is down")
        self.before(method, path)
        place = _place(path)
        fields = None if body is None else msgspec.json.decode(body)
        with self._changed:
            if method == "GET":
                self.reads.append(path)
                answer = self._get(place) if place.name else self._page(place, query)
            else:
                self.writes.append((method, path))
                answer = self._write(method, place, fields, content_type)
            return msgspec.json.encode(answer)

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        if self.is_down:
            raise ApiUnavailableError(f"watch {path}: it is down")
        self.before("WATCH", path)
        stream = _Stream(self._changed)
        with self._changed:
            if int(query.get("resourceVersion") or 0) < self._forgotten:
                raise ApiGoneError(f"watch {path}: too old resource version", code=410)
            self._streams.append(stream)
        try:
            yield _Lines(self._events(_place(path), query, stream, silence_seconds), partial(self._break, stream))
        finally:
            with self._changed:
                self._streams.remove(stream)

    def _break(self, stream: _Stream) -> None:
        with self._changed:
            stream.is_broken = True
            self._changed.notify_all()

    # What a test does with it, and sees of it.

    def put(self, resource: Resource, body: object, *, namespace: str = "") -> Fields:
        """Make an object with all it has, status and all, or replace it; counted as nobody's write."""
        fields = _fields(body)
        fields.setdefault("metadata", {}).setdefault("namespace", namespace)
        collection, name = resource.path(), fields["metadata"]["name"]
        with self._changed:
            known = self._objects.get(collection, {}).get((namespace, name))
            if known is not None:
                fields["metadata"] = {**known["metadata"], **fields["metadata"]}
                fields["metadata"]["generation"] += _without_meta(fields) != _without_meta(known)
            else:
                fields["metadata"].setdefault("uid", str(uuid.uuid4()))
                fields["metadata"].setdefault("generation", 1)
            return deepcopy(self._store(collection, namespace, known, fields))

    def put_status(self, resource: Resource, name: str, status: object, *, namespace: str = "") -> None:
        """Write an object's status, if it is still there; counted as nobody's write."""
        collection = resource.path()
        with self._changed:
            known = self._objects.get(collection, {}).get((namespace, name))
            if known is not None:
                self._store(collection, namespace, known, {**deepcopy(known), "status": _fields(status)})

    def remove(self, resource: Resource, name: str, *, namespace: str = "") -> None:
        """Take an object away whatever its finalizers say."""
        with self._changed:
            known = self._objects[resource.path()][namespace, name]
            self._end(resource.path(), namespace, known)

    def all(self, resource: Resource) -> dict[str, Fields]:
        """By name, over all namespaces."""
        with self._changed:
            return {name: deepcopy(each) for (_, name), each in sorted(self._objects.get(resource.path(), {}).items())}

    def find(self, resource: Resource, name: str, *, namespace: str = "") -> Fields | None:
        """One object as it is now."""
        with self._changed:
            return deepcopy(self._objects.get(resource.path(), {}).get((namespace, name)))

    def wait_until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        """Block until a write makes it hold; a test that would wait longer fails."""
        with self._changed:
            assert self._changed.wait_for(holds, seconds), "it has not come to hold"

    def written(self, method: str, plural: str) -> list[str]:
        """Paths of one kind of write on one kind of object."""
        return [path for done, path in list(self.writes) if done == method and _place(path).plural == plural]

    def watch_all(self, seen: Callable[[Change], None]) -> None:
        """Tell of every change from now on, in order, on a thread of its own that ends with the process."""
        with self._changed:
            told = len(self._changes)

        def follow(told: int) -> None:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: len(self._changes) > told)  # noqa: B023 - called within the turn
                    change = self._changes[told]
                told += 1
                seen(change)

        threading.Thread(target=follow, args=(told,), name="watch-all", daemon=True).start()

    def break_streams(self) -> None:
        """Every watch breaks off in the middle."""
        with self._changed:
            for each in self._streams:
                each.is_broken = True
            self._changed.notify_all()

    def go_down(self) -> None:
        """Nothing answers any more until `is_down` is set back; what was kept stays."""
        self.is_down = True
        self.break_streams()

    def compact(self) -> None:
        """Forget the history: a watch from earlier than now is answered with 410."""
        with self._changed:
            self._forgotten = self._version + 1
            self._version = next(self._versions)
            self._pages.clear()

    def bookmark(self) -> None:
        """Every watch hears how far it is."""
        with self._changed:
            for each in self._streams:
                each.bookmarks += 1
            self._changed.notify_all()

    @property
    def streams(self) -> int:
        """Watches that are open."""
        with self._changed:
            return len(self._streams)

    # Looks.

    def _get(self, place: Place) -> Fields:
        found = self._objects.get(place.collection, {}).get((place.namespace, place.name))
        if found is None:
            raise ApiNotFoundError(f'{place.plural} "{place.name}" not found', code=404)
        return found

    def _page(self, place: Place, query: Mapping[str, str]) -> Fields:
        token = query.get("continue", "")
        if token:
            if token not in self._pages:
                raise ApiGoneError("the continue token is too old", code=410)
            version, items = self._pages.pop(token)
        else:
            version = self._version
            of_all = sorted(self._objects.get(place.collection, {}).items())
            items = [
                each
                for (namespace, _), each in of_all
                if place.namespace in ("", namespace) and _is_selected(each, query)
            ]
        most = int(query.get("limit", 0)) or len(items)
        meta: Fields = {"resourceVersion": str(version)}
        if len(items) > most:
            meta["continue"] = str(uuid.uuid4())
            self._pages[meta["continue"]] = (version, items[most:])
        return {"kind": "List", "metadata": meta, "items": items[:most]}

    def _events(
        self, place: Place, query: Mapping[str, str], stream: _Stream, silence_seconds: float
    ) -> Iterator[bytes]:
        since = int(query.get("resourceVersion") or 0)
        ends = time.monotonic() + float(query.get("timeoutSeconds", 3600))
        told = next((n for n, each in enumerate(self._changes) if each.version > since), len(self._changes))
        marked = 0
        while True:
            with self._changed:
                waits = min(silence_seconds, ends - time.monotonic())
                self._changed.wait_for(
                    lambda: stream.is_broken or stream.bookmarks > marked or len(self._changes) > told,  # noqa: B023
                    max(0.0, waits),
                )
                news, version = self._changes[told:], self._version
                told += len(news)
                has_mark, marked = stream.bookmarks > marked, stream.bookmarks
            if stream.is_broken:
                raise ApiUnavailableError("the stream broke off")
            for change in news:
                line = _event(change, place, query)
                if line is not None:
                    self.delivered += 1
                    yield line
            if time.monotonic() >= ends:
                return
            if has_mark:
                mark = {"metadata": {"resourceVersion": str(version)}}
                yield msgspec.json.encode({"type": "BOOKMARK", "object": mark})
            elif not news and waits >= silence_seconds:
                raise ApiUnavailableError("no answer in time")

    # Writes.

    def _write(self, method: str, place: Place, body: Any, content_type: str) -> Fields:  # noqa: ANN401 - JSON
        if method == "POST":
            return self._create(place, body)
        if "apply-patch" in content_type and (place.namespace, place.name) not in self._objects.get(
            place.collection, {}
        ):
            return self._create(place, body)
        known = self._get(place)
        if method == "DELETE":
            return self._delete(place, known, body or {})
        if method == "PATCH":
            wanted = _json_patched(known, body) if "json-patch" in content_type else _merged(known, body)
        else:
            wanted = body
        version = wanted.get("metadata", {}).get("resourceVersion")
        if version and version != known["metadata"]["resourceVersion"]:
            raise ApiConflictError("the object has been modified", code=409)
        uid = wanted.get("metadata", {}).get("uid")
        if uid and uid != known["metadata"]["uid"]:
            raise ApiConflictError("Precondition failed: UID in precondition", code=409)
        return self._change(place, known, wanted)

    def _create(self, place: Place, body: Fields) -> Fields:
        fields = deepcopy(body)
        meta = fields.setdefault("metadata", {})
        name = meta.get("name") or f"{meta.get('generateName', '')}{uuid.uuid4().hex[:5]}"
        if (place.namespace, name) in self._objects.get(place.collection, {}):
            raise ApiExistsError(f'{place.plural} "{name}" already exists', code=409)
        meta |= {"name": name, "uid": str(uuid.uuid4()), "generation": 1, "creationTimestamp": timestamp()}
        meta.pop("resourceVersion", None)
        if place.namespace:
            meta["namespace"] = place.namespace
        if place.plural in WITH_STATUS:
            fields.pop("status", None)
        self.admit(None, fields)
        return self._store(place.collection, place.namespace, None, fields)

    def _change(self, place: Place, known: Fields, wanted: Fields) -> Fields:
        fields = deepcopy(known)
        if place.subresource == "status":
            fields["status"] = deepcopy(wanted.get("status", {}))
        else:
            kept = {"status"} if place.plural in WITH_STATUS else set()
            fields = {key: deepcopy(each) for key, each in wanted.items() if key not in kept}
            fields |= {key: known[key] for key in kept & known.keys()}
            meta = fields["metadata"]
            for key in ("uid", "generation", "creationTimestamp", "deletionTimestamp"):
                meta.pop(key, None)
                if key in known["metadata"]:
                    meta[key] = known["metadata"][key]
            if _without_meta(fields) != _without_meta(known):
                meta["generation"] = known["metadata"]["generation"] + 1
        self.admit(known, fields)
        fields["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
        if fields == known:
            return known  # a write that changes nothing is none
        if fields["metadata"].get("deletionTimestamp") and not fields["metadata"].get("finalizers"):
            return self._end(place.collection, place.namespace, fields)
        return self._store(place.collection, place.namespace, known, fields)

    def _delete(self, place: Place, known: Fields, body: Fields) -> Fields:
        uid = body.get("preconditions", {}).get("uid")
        if uid and uid != known["metadata"]["uid"]:
            raise ApiConflictError("Precondition failed: UID in precondition", code=409)
        version = body.get("preconditions", {}).get("resourceVersion")
        if version and version != known["metadata"]["resourceVersion"]:
            raise ApiConflictError("Precondition failed: ResourceVersion in precondition", code=409)
        if not known["metadata"].get("finalizers"):
            return self._end(place.collection, place.namespace, known)
        if known["metadata"].get("deletionTimestamp"):
            return known
        fields = deepcopy(known)
        fields["metadata"]["deletionTimestamp"] = timestamp()
        fields["metadata"]["generation"] += 1
        return self._store(place.collection, place.namespace, known, fields)

    def _store(self, collection: str, namespace: str, known: Fields | None, fields: Fields) -> Fields:
        self._version = next(self._versions)
        fields["metadata"]["resourceVersion"] = str(self._version)
        self._objects.setdefault(collection, {})[namespace, fields["metadata"]["name"]] = fields
        self._note(
            Change(version=self._version, collection=collection, namespace=namespace, before=known, after=fields)
        )
        return fields

    def _end(self, collection: str, namespace: str, last: Fields) -> Fields:
        known = self._objects[collection].pop((namespace, last["metadata"]["name"]))
        self._version = next(self._versions)
        gone = deepcopy(last)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._note(
            Change(
                version=self._version,
                collection=collection,
                namespace=namespace,
                before=known,
                after=gone,
                is_end=True,
            )
        )
        return gone

    def _note(self, change: Change) -> None:
        self._changes.append(change)
        self._changed.notify_all()


def _place(path: str) -> Place:
    parts = path.strip("/").split("/")
    root = 2 if parts[0] == "api" else 3
    rest = parts[root:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest, "", "")[:3]
    return Place(
        collection=f"/{'/'.join(parts[:root])}/{plural}", namespace=namespace, name=name, subresource=subresource
    )


def _event(change: Change, place: Place, query: Mapping[str, str]) -> bytes | None:
    """What a watch with these selectors hears of a change: an object may come into its sight, and leave it."""
    if change.collection != place.collection or place.namespace not in ("", change.namespace):
        return None
    was = change.before is not None and _is_selected(change.before, query)
    is_now = not change.is_end and change.after is not None and _is_selected(change.after, query)
    if not was and not is_now:
        return None
    kind = "MODIFIED" if was and is_now else "ADDED" if is_now else "DELETED"
    return msgspec.json.encode({"type": kind, "object": change.after})


def _is_selected(fields: Fields, query: Mapping[str, str]) -> bool:
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.replace("==", "=").partition("=")
        found: Any = fields
        for key in path.split("."):
            found = found.get(key, {})
        if (found or "") != value:  # one that is not there is empty
            return False
    labels = fields["metadata"].get("labels", {})
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, equals, value = term.replace("==", "=").partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _merged(known: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """RFC 7386."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    merged = deepcopy(known) if isinstance(known, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _json_patched(known: Fields, steps: list[Fields]) -> Fields:
    """RFC 6902, without move and copy."""
    patched = deepcopy(known)
    for step in steps:
        *path, last = [key.replace("~1", "/").replace("~0", "~") for key in step["path"].split("/")[1:]]
        holder: Any = patched
        try:
            for key in path:
                holder = holder[int(key)] if isinstance(holder, list) else holder[key]
            at: Any = last if not isinstance(holder, list) else len(holder) if last == "-" else int(last)
            if step["op"] == "test":
                if holder[at] != step["value"]:
                    raise ApiInvalidError(f"testing path {step['path']} failed", code=422)
            elif step["op"] == "remove":
                del holder[at]
            elif step["op"] == "add" and isinstance(holder, list):
                holder.insert(at, deepcopy(step["value"]))
            elif step["op"] in ("add", "replace"):
                holder[at] = deepcopy(step["value"])
            else:
                raise ApiInvalidError(f"unknown op {step['op']}", code=422)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ApiInvalidError(f"{step['op']} {step['path']}: {error!r}", code=422) from error
    return patched


def _without_meta(fields: Fields) -> Fields:
    return {key: each for key, each in fields.items() if key not in ("metadata", "status")}


def _fields(body: object) -> Fields:
    found = msgspec.json.decode(msgspec.json.encode(body))
    assert isinstance(found, dict)
    return found
