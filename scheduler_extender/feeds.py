"""What fills the view: the API server, or a file with what `kubectl get -o json` said. Both through the same words.

Nothing is kept here, and nothing is kept twice: an object is decoded, put into the view, and forgotten.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from scheduler_extender.claims import key_of, text_of
from scheduler_extender.objects import CONTENTS, PODS, STATEFUL_SETS, Claim, Content, Seen, StatefulSet
from scheduler_extender.view import View
from scheduler_extender.wire import Pod
from ullage.errors import ConfigError
from ullage.kube.api import Api
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node, PersistentVolume, StorageClass
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import (
    CLAIMS,
    DEVICE_CLASSES,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    NODES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    Key,
    Resource,
)
from ullage.kube.node_storage import NodeStorage
from ullage.kube.reader import Reader
from ullage.schema import Fault
from ullage.yaml_tree import read_yaml

SECOND_DOCUMENT = re.compile(r"^---(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is read of one kind."""

    resource: Resource
    struct: type[Seen]
    field_selector: str = ""
    may_be_missing: bool = False


KINDS = (
    Kind(resource=DEVICE_CLASSES, struct=DeviceClassObject),
    Kind(resource=STORAGE_CLASSES, struct=StorageClass),
    Kind(resource=NODES, struct=Node),
    Kind(resource=NODE_STORAGES, struct=NodeStorage),
    Kind(resource=LOGICAL_VOLUMES, struct=LogicalVolume),
    Kind(resource=PERSISTENT_VOLUMES, struct=PersistentVolume),
    Kind(resource=CLAIMS, struct=Claim),
    Kind(resource=STATEFUL_SETS, struct=StatefulSet),
    Kind(resource=CONTENTS, struct=Content, may_be_missing=True),
    # A Pod matters here until it is bound: by then its claims are. One that is bound is gone, as if it were deleted.
    Kind(resource=PODS, struct=Pod, field_selector="spec.nodeName="),
)


class Feeds:
    """The API server's objects, told to the view as they come and go. One thread for each kind."""

    def __init__(self, view: View, api: Api, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read before `start`."""
        turn = threading.Lock()
        self.readers: tuple[Reader[Any], ...] = tuple(  # Any: each of its own kind
            Reader(
                api,
                each.resource,
                each.struct,
                Fed(view, each.struct),
                field_selector=each.field_selector,
                may_be_missing=each.may_be_missing,
                turn=turn,
                clock=clock,
            )
            for each in KINDS
        )

    def start(self) -> None:
        """Begin to read."""
        for each in self.readers:
            each.start()

    def stop(self) -> None:
        """End."""
        for each in self.readers:
            each.stop()

    @property
    def is_synced(self) -> bool:
        """Whether everything was listed once, as far as the API server has it."""
        return not self.missing

    @property
    def missing(self) -> tuple[str, ...]:
        """The kinds that were not listed yet, in the plural."""
        return tuple(each.resource.plural for each in self.readers if not each.is_synced)

    def wait_until_synced(self, timeout_seconds: float) -> bool:
        """Whether it is, at the latest after this time."""
        ends = time.monotonic() + timeout_seconds
        return all(each.wait_until_synced(max(0.0, ends - time.monotonic())) for each in self.readers)


class Fed:
    """A reader's store that keeps nothing but, while a list is under way, what of the view it has not come to."""

    def __init__(self, view: View, kind: type[Seen]) -> None:
        """Of one kind."""
        self._view = view
        self._kind = kind
        self._unlisted: set[str] = set()
        """As `text_of` has their keys."""

    def __len__(self) -> int:
        with self._view.changed:
            return len(self._view.known(self._kind))

    def check(self, found: Seen) -> Key:
        """See the port."""
        return found.metadata.namespace, found.metadata.name

    def begin_list(self) -> None:
        """See the port."""
        with self._view.changed:
            self._unlisted = set(self._view.known(self._kind))

    def listed(self, version: str, key: Key, found: Seen | None) -> None:
        """See the port."""
        del version  # all is told by one thread, in order
        self._unlisted.discard(text_of(key))
        if found is not None:
            self._view.put(found)

    def end_list(self, version: str) -> None:
        """See the port."""
        del version
        gone, self._unlisted = self._unlisted, set()  # an emptied set of a hundred thousand is as large as before
        for text in gone:
            self._view.drop(self._kind, key_of(text))

    def watched(self, version: str, *, found: Seen | None = None, deleted: Key | None = None) -> None:
        """See the port."""
        del version
        if found is not None:
            self._view.put(found)
        elif deleted is not None:
            self._view.drop(self._kind, deleted)


# A saved cluster.


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was in a file: how many objects of each kind, and of which kinds nothing was taken."""

    taken: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)


class _ItemMeta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Item(msgspec.Struct, frozen=True, rename="camel"):
    """Any object, or a list of them."""

    api_version: str = ""
    kind: str = ""
    metadata: _ItemMeta = _ItemMeta()
    items: list[msgspec.Raw] | None = None


def load(view: View, file: str) -> Loaded:
    """Put what a file holds into the view; `-` is standard input.

    It is a List of `kubectl get -o json` (or yaml), of any kinds, or several documents of YAML. Of a saved cluster the
    clock stands still, at its newest report. Raises ConfigError with the object that cannot be understood.
    """
    loaded = Loaded()
    decoders = {(each.resource.group, each.resource.kind): msgspec.json.Decoder(each.struct) for each in KINDS}
    for item, raw in _items(_text(file), file):
        decoder = decoders.get((_group(item.api_version), item.kind))
        if decoder is None:
            loaded.passed_over[item.kind or "an object without a kind"] += 1
            continue
        view.put(_understood(decoder, item, raw, file))
        loaded.taken[item.kind] += 1
    view.stop_clock()
    return loaded


def objects_in(file: str) -> Iterator[tuple[str, str, msgspec.Raw]]:
    """Kind and name of each object in a file of the same form, and the object; raises ConfigError."""
    for item, raw in _items(_text(file), file):
        yield item.kind, item.metadata.name, raw


def _understood(decoder: msgspec.json.Decoder[Any], item: _Item, raw: msgspec.Raw, file: str) -> Seen:
    try:
        found: Seen = decoder.decode(raw)
        if isinstance(found, DeviceClassObject):
            _ = found.device_class
    except (msgspec.DecodeError, ConfigError) as error:
        name = "/".join(part for part in (item.metadata.namespace, item.metadata.name) if part)
        raise ConfigError(f"{file}: {item.kind} {name or 'without a name'}: {error}", origin=file) from error
    return found


def _text(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}", origin=file) from error


def _items(text: bytes, file: str) -> Iterator[tuple[_Item, msgspec.Raw]]:
    for document in _documents(text, file):
        yield from _flat(msgspec.Raw(document), file)


def _flat(raw: msgspec.Raw, file: str, of: _Item | None = None) -> Iterator[tuple[_Item, msgspec.Raw]]:
    """An object, or what is in a list; the objects of a PodList do not say themselves that they are Pods."""
    try:
        item = msgspec.json.decode(raw, type=_Item)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: there is something in it that is no object: {error}", origin=file) from error
    if of is not None and not item.kind:
        item = msgspec.structs.replace(item, kind=of.kind.removesuffix("List"), api_version=of.api_version)
    if not item.kind.endswith("List"):
        yield item, raw
        return
    for each in item.items or ():
        yield from _flat(each, file, item)


def _documents(text: bytes, file: str) -> Iterator[bytes]:
    """The file as JSON, document by document."""
    if text.lstrip()[:1] == b"{":
        yield text
        return
    try:
        documents = SECOND_DOCUMENT.split(text.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is no text: {error}", origin=file) from error
    encoder = msgspec.json.Encoder(decimal_format="number")
    for document in documents:
        faults: list[Fault] = []
        tree = read_yaml(document, faults)
        if faults:
            raise ConfigError(f"{file}: {'; '.join(each.sentence for each in faults)}", origin=file)
        if tree is not None:
            yield encoder.encode(tree)


def _group(api_version: str) -> str:
    group, slash, _ = api_version.partition("/")
    return group if slash else ""
