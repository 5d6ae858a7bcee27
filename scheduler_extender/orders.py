"""Every LogicalVolume of the cluster, by its id: whole while it is news, and then little more than where it is.

It is news until its node's report has all of it (`ullage.stock.is_reported`), which is a second or so. Of the others
a hundred thousand are kept. A report may also fall back: its object was deleted, and its agent's clock put back. Then
what is newer than the report is news again; such a one has forgotten when it was ordered, and counts as the oldest.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Collection, Sequence

import msgspec
from msgspec.structs import replace

from scheduler_extender.claims import PREFIX
from ullage.kube.logical_volume import ClaimRef, LogicalVolume, Phase, Spec, Status
from ullage.kube.meta import Key, Meta
from ullage.model import VolumeKind
from ullage.stock import is_reported

LATEST = sys.maxsize
"""The revision of a report that is not there: whatever is carved will be in it."""


class _Settled(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a volume that is in its node's report."""

    node: str
    device_class: str
    pool: str
    size_bytes: int
    kind: VolumeKind
    revision: int


class Orders:
    """Not thread-safe: it is the view's."""

    def __init__(self) -> None:
        """There are none."""
        self._all: dict[str, _Settled | LogicalVolume] = {}
        self._news: defaultdict[str, dict[str, LogicalVolume]] = defaultdict(dict)
        """By node, and id."""
        self._newest: dict[str, int] = {}
        """By node, the newest revision that anything settled has asked for."""
        self._by_claim: dict[str, str] = {}
        """Ids by the claim's uid, where it is not to be read off the id."""
        self._claim_of: dict[str, str] = {}
        """The other way."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def ids(self) -> Collection[str]:
        """All of them."""
        return self._all.keys()

    def get(self, volume_id: str, claim: Key | None = None) -> LogicalVolume | None:
        """As far as it is known; what has settled does not know its claim any more, and may be told."""
        found = self._all.get(volume_id)
        whole = _whole(volume_id, found) if isinstance(found, _Settled) else found
        if whole is None or claim is None or whole.spec.claim_ref is not None:
            return whole
        about = ClaimRef(namespace=claim[0], name=claim[1], uid=volume_id.removeprefix(PREFIX))
        return replace(whole, spec=replace(whole.spec, claim_ref=about))

    def of_claim(self, uid: str) -> str:
        """The id of the volume that was ordered for a claim; there may be none."""
        found = self._by_claim.get(uid)
        return f"{PREFIX}{uid}" if found is None else found

    def put(self, found: LogicalVolume, revision: int) -> list[str]:
        """Take in an order, of whose node's last report this is the revision; the nodes that it is another one for."""
        name = sys.intern(found.metadata.name)
        before = self._all.get(name)
        if not self._keep(name, found, revision):
            return []
        self._forget_claim(name)
        uid = found.spec.claim_ref.uid if found.spec.claim_ref is not None else ""
        if uid and name != f"{PREFIX}{uid}":
            self._by_claim[uid] = name
            self._claim_of[name] = uid
        return list({node for node in (_node(before), found.spec.node_name) if node})

    def drop(self, name: str) -> str:
        """Take one out; its node, if it was there."""
        gone = self._all.pop(name, None)
        self._forget_news(name, gone)
        self._forget_claim(name)
        return _node(gone)

    def reported(self, node: str, revision: int) -> bool:
        """Take in a report; whether anything has settled by it, or is news again."""
        moved = [each for each in self.news(node) if _may_settle(each) and is_reported(each, revision)]
        if revision < self._newest.get(node, 0):
            again = [
                name
                for name, each in self._all.items()
                if isinstance(each, _Settled) and each.node == node and each.revision > revision
            ]
            self._newest[node] = revision
            moved += filter(None, map(self.get, again))
        for each in moved:
            self._keep(each.metadata.name, each, revision)
        return bool(moved)

    def _keep(self, name: str, found: LogicalVolume, revision: int) -> bool:
        """Whether it is anything new."""
        before = self._all.get(name)
        after = _settled(found) if _may_settle(found) and is_reported(found, revision) else found
        if after == before:
            return False
        self._forget_news(name, before)
        self._all[name] = after
        if isinstance(after, _Settled):
            self._newest[after.node] = max(after.revision, self._newest.get(after.node, 0))
        else:
            self._news[found.spec.node_name][name] = found
        return True

    def news(self, node: str) -> Collection[LogicalVolume]:
        """What is not in the node's report."""
        return list(self._news[node].values()) if node in self._news else ()

    def for_stock(self, node: str) -> Sequence[LogicalVolume]:
        """What of the node's volumes says what it has left: the news, and what they are to begin as."""
        news = {each.metadata.name: each for each in self.news(node)}
        sources = (self.get(each.source) for each in list(news.values()) if each.source and each.source not in news)
        return [*news.values(), *{each.id: each for each in sources if each is not None}.values()]

    def _forget_news(self, name: str, gone: _Settled | LogicalVolume | None) -> None:
        if isinstance(gone, LogicalVolume):
            news = self._news[gone.spec.node_name]
            news.pop(name, None)
            if not news:
                del self._news[gone.spec.node_name]

    def _forget_claim(self, name: str) -> None:
        uid = self._claim_of.pop(name, "")
        if uid and self._by_claim.get(uid) == name:
            del self._by_claim[uid]


def _node(found: _Settled | LogicalVolume | None) -> str:
    if found is None:
        return ""
    return found.node if isinstance(found, _Settled) else found.spec.node_name


def _may_settle(found: LogicalVolume) -> bool:
    """Whether nothing of it matters but where it is, once it is in the report."""
    return bool(found.status.pool) and not found.is_condemned


def _settled(found: LogicalVolume) -> _Settled:
    return _Settled(
        node=sys.intern(found.spec.node_name),
        device_class=sys.intern(found.spec.device_class),
        pool=sys.intern(found.status.pool),
        size_bytes=found.status.size_bytes,
        kind=found.spec.kind,
        revision=found.status.revision,
    )


def _whole(name: str, settled: _Settled) -> LogicalVolume:
    size_bytes = settled.size_bytes
    return LogicalVolume(
        metadata=Meta(name=name),
        spec=Spec(node_name=settled.node, device_class=settled.device_class, size_bytes=size_bytes, kind=settled.kind),
        status=Status(phase=Phase.READY, pool=settled.pool, size_bytes=size_bytes, revision=settled.revision),
    )
