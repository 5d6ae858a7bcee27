"""Every claim of the cluster, by namespace and name: whole until it is bound, and then little more than its volume.

There are as many as volumes, and nearly all are bound. Of such a one nobody asks how large it was to be, or of what
class; it is put together again for whoever looks it up.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import msgspec

from scheduler_extender.objects import SELECTED_NODE, Claim
from scheduler_extender.wire import ClaimSpec
from ullage.kube.meta import Key, Meta

GROUPS = ("spread.ullage.io/", "ceph.rook.io/")
"""How the keys begin of labels and annotations that say which others a volume is to be apart from."""
PREFIX = "pvc-"
"""How external-provisioner begins a volume's name; the claim's uid follows."""


class _Bound(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a claim that has its volume."""

    volume: str
    uid: str
    """Empty: the volume's name says it."""
    storage_class: str | None
    node: str
    labels: dict[str, str] | None
    annotations: dict[str, str] | None


class Claims(Mapping[Key, Claim]):
    """Not thread-safe: it is the view's. To go through all of it takes long: whoever can goes through `unbound`."""

    def __init__(self) -> None:
        """There are none."""
        self.unbound: dict[Key, Claim] = {}
        self._bound: dict[str, _Bound] = {}
        """By `text_of` its key: half of what a tuple costs."""
        self._by_uid: dict[str, Key] = {}
        """Those that are not bound."""

    def __len__(self) -> int:
        return len(self.unbound) + len(self._bound)

    def __iter__(self) -> Iterator[Key]:
        yield from self.unbound
        yield from map(key_of, self._bound)

    def __contains__(self, key: object) -> bool:
        return key in self.unbound or (isinstance(key, tuple) and text_of(key) in self._bound)

    def __getitem__(self, key: Key) -> Claim:
        found = self.unbound.get(key)
        return found if found is not None else _whole(key, self._bound[text_of(key)])

    def put(self, found: Claim) -> None:
        """A claim that is there, new or changed."""
        key = found.key
        self._forget(key)
        if found.spec.volume_name:
            self._bound[text_of(key)] = _bound(found)
        else:
            self._bound.pop(text_of(key), None)
            self.unbound[key] = found
            self._by_uid[found.metadata.uid] = key

    def drop(self, key: Key) -> None:
        """A claim that is gone."""
        self._forget(key)
        self._bound.pop(text_of(key), None)

    def unbound_with(self, uid: str) -> Key | None:
        """The claim with this uid, until it is bound."""
        return self._by_uid.get(uid)

    def texts(self) -> list[str]:
        """All keys, as `text_of` has them."""
        return [*map(text_of, self.unbound), *self._bound]

    def _forget(self, key: Key) -> None:
        gone = self.unbound.pop(key, None)
        if gone is not None:
            self._by_uid.pop(gone.metadata.uid, None)


def text_of(key: Key) -> str:
    """A key as one word."""
    return f"{key[0]}/{key[1]}" if key[0] else key[1]


def key_of(text: str) -> Key:
    """The other way."""
    namespace, slash, name = text.partition("/")
    return (namespace, name) if slash else ("", namespace)


def _bound(found: Claim) -> _Bound:
    meta, volume = found.metadata, sys.intern(found.spec.volume_name)
    storage_class = found.spec.storage_class_name
    return _Bound(
        volume=volume,
        uid="" if volume == f"{PREFIX}{meta.uid}" else meta.uid,
        storage_class=None if storage_class is None else sys.intern(storage_class),
        node=sys.intern(found.selected_node),
        labels=_about_groups(meta.labels),
        annotations=_about_groups(meta.annotations),
    )


def _whole(key: Key, bound: _Bound) -> Claim:
    annotations = bound.annotations or {}
    return Claim(
        metadata=Meta(
            namespace=key[0],
            name=key[1],
            uid=bound.uid or bound.volume.removeprefix(PREFIX),
            labels=bound.labels or {},
            annotations={**annotations, SELECTED_NODE: bound.node} if bound.node else annotations,
        ),
        spec=ClaimSpec(storage_class_name=bound.storage_class, volume_name=bound.volume),
    )


def _about_groups(words: Mapping[str, str]) -> dict[str, str] | None:
    return {sys.intern(key): sys.intern(word) for key, word in words.items() if key.startswith(GROUPS)} or None
