"""The nodes' last reports, as the arithmetic takes them and not a second time as they came; and when they grow old.

A report that is not renewed is worth nothing after a time (`ullage.stock.STALE_SECONDS`). That is no event: whoever
keeps what follows from a report has to look with `outdated` before it is used.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ullage.kube.node_storage import NodeStorage
from ullage.model import DeviceClassName, NodeName, Pool, PoolName, StoreName
from ullage.stock import STALE_SECONDS, observed_at, why_stale, why_unready

NO_AGENT = "no storage agent on this node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a node has reported; `unknown`: why it was worth nothing already then."""

    node: NodeName
    revision: int
    by_name: Mapping[PoolName, Pool]
    observed: datetime | None
    unknown: str = ""

    @property
    def pools(self) -> Collection[Pool]:
        """See `ullage.stock.Report`."""
        return self.by_name.values()

    def says_the_same(self, as_: Report) -> bool:
        """Whether it differs in nothing but when it was made."""
        return self.unknown == as_.unknown and self.by_name == as_.by_name


class Reports:
    """Not thread-safe: it is the view's."""

    def __init__(self) -> None:
        """There are none."""
        self._all: dict[str, Report] = {}
        self._stale: set[str] = set()
        self._next_stale: datetime | None = None
        """Before this none of the others is stale."""

    @property
    def nodes(self) -> Collection[str]:
        """Those with a report."""
        return self._all.keys()

    @property
    def newest(self) -> datetime | None:
        """When the newest was made."""
        return max((each.observed for each in self._all.values() if each.observed is not None), default=None)

    def get(self, node: str) -> Report | None:
        """The last one."""
        return self._all.get(node)

    def put(self, storage: NodeStorage) -> bool:
        """Take in a report; whether it says anything new."""
        after = _report(storage)
        before = self._all.get(after.node)
        is_news = before is None or after.node in self._stale or not after.says_the_same(before)
        if before is not None and not is_news:
            after = replace(after, by_name=before.by_name)
        self._all[after.node] = after
        self._stale.discard(after.node)
        if after.observed is not None:
            ends = after.observed + timedelta(seconds=STALE_SECONDS)
            self._next_stale = ends if self._next_stale is None else min(ends, self._next_stale)
        return is_news

    def drop(self, node: str) -> None:
        """Take one out."""
        self._all.pop(node, None)
        self._stale.discard(node)

    def why_unknown(self, node: str, now: datetime) -> str:
        """Why nothing is known of a node; nothing: its report holds."""
        found = self._all.get(node)
        if found is None:
            return NO_AGENT
        return found.unknown or ("" if found.observed is None else why_stale(found.observed, now))

    def outdated(self, now: datetime) -> Collection[str]:
        """The nodes whose reports have grown stale since this was asked last: mostly none, at the cost of one look."""
        if self._next_stale is None or now <= self._next_stale:
            return ()
        lasts = timedelta(seconds=STALE_SECONDS)
        fresh = {node: each.observed for node, each in self._all.items() if each.observed and node not in self._stale}
        found = [node for node, observed in fresh.items() if observed + lasts < now]
        self._stale.update(found)
        self._next_stale = min((each + lasts for each in fresh.values() if each + lasts >= now), default=None)
        return found


def _report(storage: NodeStorage) -> Report:
    unknown = why_unready(storage)
    pools = () if unknown else map(_shared, storage.pools)
    return Report(
        node=NodeName(sys.intern(storage.node)),
        revision=storage.revision,
        by_name={pool.name: pool for pool in pools},
        observed=observed_at(storage) if storage.status.observed_at else None,
        unknown=unknown,
    )


def _shared(pool: Pool) -> Pool:
    """The same, with names that all nodes share."""
    return replace(
        pool,
        name=PoolName(sys.intern(pool.name)),
        store=StoreName(sys.intern(pool.store)),
        classes=tuple(DeviceClassName(sys.intern(each)) for each in pool.classes),
        physical_volumes=tuple(replace(each, name=sys.intern(each.name)) for each in pool.physical_volumes),
    )
