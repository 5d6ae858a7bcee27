"""Where a Pod's volumes fit even if all comes there that may come.

That is every other Pod that was offered the node and has not shown what it takes, and what was to be made there for
claims that are gone, and may be made all the same.

Nearly always one comparison does: what is left beside the Pod's own volumes is more than all open offers come to. Only
the nodes where it is less are looked at one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from scheduler_extender.demand import Want
from scheduler_extender.fit import Room, added_up, fit, plain, taken
from scheduler_extender.offers import Offer
from scheduler_extender.reservations import Reservations
from scheduler_extender.tables import REFUSED, Table, Tables
from scheduler_extender.wire import Pod


class Beside:
    """One Pod's question. The caller holds the view's lock, and asks only of nodes that the volumes fit on."""

    def __init__(self, tables: Tables, promises: Reservations, pod: Pod, wants: Sequence[Want]) -> None:
        """`wants` are what is to be made for the Pod."""
        self._tables = tables
        self._pod = pod
        self._wants = wants
        self._offers = promises.open_to_others(pod)
        most = promises.most_open_bytes(tables.extent_bytes, but_for=pod)
        self._enough = most if most is not None else math.inf
        self._own = promises.own_nodes(pod)

    def fitting(self, nodes: Sequence[str], *, least_bytes: int = REFUSED) -> list[str]:
        """Of these those where there is room for all; each is known to have `least_bytes` left."""
        enough = self._enough
        if not self._offers or least_bytes >= enough:
            return list(nodes)
        table = self._tables.table(self._wants)
        slack = self._tables.slack(table, nodes)
        return [node for node, left in zip(nodes, slack, strict=True) if left >= enough or self._fits(table, node)]

    def _fits(self, table: Table, node: str) -> bool:
        coming = [offer for offer in self._offers if node in offer.among]
        if not coming:
            return True
        if node not in self._own:
            added = self._added_up(table, coming, node)
            if added is not None:
                return added
        room = self._tables.room(node, but_for=self._pod)
        pools = taken([want for offer in coming for want in offer.wants], room.pools)
        return fit(self._wants, Room(pools=pools, before=pools, plain=plain(pools), unknown=room.unknown)) is not None

    def _added_up(self, table: Table, coming: Sequence[Offer], node: str) -> bool | None:
        """By adding up, where that will do: on a full node the first offers are enough to tell."""
        plain_of = self._tables.plain(node)
        if not table.is_of_one_class:
            added = added_up([*(want for offer in coming for want in offer.wants), *self._wants], plain_of)
            return added if added is None else added is not False
        one = plain_of.get(self._wants[0].device_class)
        left_bytes = table.slack[node]
        for want in (want for offer in coming for want in offer.wants):
            other = plain_of.get(want.device_class)
            if one is None or other is None or want.layout.is_spread or want.pool is not None:
                return None
            if other.pool == one.pool:
                left_bytes -= -(-want.size_bytes // other.extent_bytes) * other.extent_bytes
                if left_bytes < 0:
                    return False
        return True
