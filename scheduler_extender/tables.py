"""What has been worked out, kept until something of its node changes: a request costs a look-up for each candidate.

Pods that want the same volumes share a table. A node's row goes as soon as its report, its orders or what is promised
there for certain change; it is worked out anew when somebody asks for it. What is kept is bounded: by the number of
tables, the one that was not asked for longest going first, and by the names in each.

Nearly every table is of linear volumes of one class, and nearly every node has one pool of it: there, adding up is all
there is to do, and a table that is new costs little, too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from scheduler_extender.demand import Want
from scheduler_extender.fit import Fit, Plain, Room, added_up, classes_of, fit, plain, plain_after, taken
from scheduler_extender.reasons import STEPS, promised_to_others, shortage, step_bytes
from scheduler_extender.reservations import Promise, Reservations
from scheduler_extender.score import value
from scheduler_extender.view import View
from scheduler_extender.wire import Pod
from ullage.model import DeviceClassName, Layout, PoolName, Scoring

MOST_TABLES = 64
MOST_ROWS = 50_000
FEW = 10
"""With so many nodes that are full of promises each may say whose: more would be as many different sentences."""
REFUSED = -1
"""As slack: it does not even fit."""
NOTHING = 0.0
"""As value: it does not fit."""

Signature: TypeAlias = tuple[tuple[DeviceClassName, int, Layout, PoolName | None], ...]
"""What Pods that are served alike have in common."""


class Table:
    """The nodes that were asked for, for one signature."""

    def __init__(self, wants: Sequence[Want], scorings: Sequence[Scoring]) -> None:
        """Nothing has been asked. `scorings` are those of the classes, in the order of their names."""
        self.wants = wants
        self.scorings = scorings
        self.slack: dict[str, int] = {}
        """What could be promised beside it, or REFUSED."""
        self.values: tuple[dict[str, float], ...] = tuple({} for _ in scorings)
        """For each class, what the nodes where it fits are worth."""
        self.refusals: dict[str, str] = {}
        """Of the others those that were asked for."""
        self.promised: set[str] = set()
        """Of these those on which something is promised."""
        self.by_steps: dict[tuple[int, ...], str] = {}
        """The same where nothing is, and there are only plain pools: by how much of what is needed there is."""
        self.steps = {
            name: step_bytes([want for want in wants if want.device_class == name]) for name in classes_of(wants)
        }
        self.is_linear = all(want.pool is None and not want.layout.is_spread for want in wants)
        self.is_of_one_class = self.is_linear and len(self.steps) == 1
        """Adding up is all that a plain pool needs."""

    def forget(self, node: str) -> None:
        """Its row is not true any more."""
        if self.slack.pop(node, None) is not None:
            self.refusals.pop(node, None)
            self.promised.discard(node)
            for values in self.values:
                values.pop(node, None)

    def clear(self) -> None:
        """Nor is any other."""
        self.slack.clear()
        self.refusals.clear()
        self.promised.clear()
        for values in self.values:
            values.clear()


class Tables:
    """Not thread-safe: whoever asks holds the view's lock."""

    def __init__(self, view: View, promises: Reservations) -> None:
        """Both tell of changes."""
        self._view = view
        self._promises = promises
        self._tables: OrderedDict[Signature, Table] = OrderedDict()
        self._plain: dict[DeviceClassName, dict[str, Plain]] = {}
        self._looked_at: set[str] = set()
        self._ahead: dict[str, None] = dict.fromkeys(view.nodes)
        """Nodes that are to be looked at before anybody asks."""
        self.extent_bytes = 1
        """The largest extent of all that was looked at: no volume is rounded up by more."""
        view.on_node_change(self._forget)
        promises.on_node_change(self._forget)

    def table(self, wants: Sequence[Want]) -> Table:
        """The one for Pods that want this."""
        key = _signature(wants)
        table = self._tables.get(key)
        if table is None:
            classes = map(self._view.device_classes.get, classes_of(wants))
            table = Table(wants, [each.scoring if each is not None else Scoring.SPREAD for each in classes])
            self._tables[key] = table
            if len(self._tables) > MOST_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return table

    def slack(self, table: Table, nodes: Sequence[str]) -> list[int]:
        """What could be promised beside it on each node, or REFUSED. One look-up for each: of thousands that counts."""
        try:
            return list(map(table.slack.__getitem__, nodes))
        except KeyError:
            self._fill(table, nodes)
        return list(map(table.slack.__getitem__, nodes))

    def values(self, table: Table, nodes: Sequence[str]) -> list[list[float]]:
        """What each node is worth to each class; nothing where it does not fit."""
        try:
            return [list(map(values.__getitem__, nodes)) for values in table.values]
        except KeyError:
            self._fill(table, nodes)
        return [[values.get(node, NOTHING) for node in nodes] for values in table.values]

    def refusals(self, table: Table, nodes: Sequence[str]) -> dict[str, str]:
        """Why it does not fit on each of these. To whom they are promised is said only where few of them are."""
        known = table.refusals
        found = {node: known.get(node) or self._refusal(table, node) for node in nodes}
        if len(table.promised) > FEW:
            promised = table.promised.intersection(nodes)
            if len(promised) > FEW:
                found |= {node: promised_to_others(found[node]) for node in promised}
        return found

    def _refusal(self, table: Table, node: str) -> str:
        """Worked out; where adding up is enough, only once for each tenth of what is needed that is there."""
        is_promised = bool(self._promises.certain_on(node))
        if is_promised:
            table.promised.add(node)
        ones = [self._plain.get(name, {}).get(node) for name in table.steps]
        why = self._view.candidate(node).unknown
        if not why and not is_promised and table.is_linear and None not in ones:
            enough = STEPS + 1
            steps = tuple(
                min(one.free_bytes // step, enough) for one, step in zip(ones, table.steps.values(), strict=True) if one
            )
            why = table.by_steps.get(steps) or refusal(table.wants, self.room(node))
            table.by_steps[steps] = why
        table.refusals[node] = why = why or refusal(table.wants, self.room(node))
        return why

    def room(self, node: str, *, but_for: Pod | None = None) -> Room:
        """What the node has left; what is promised to this Pod itself does not count."""
        candidate = self._view.candidate(node)
        promises = self._promises.certain_on(node, but_for=but_for)
        pools = candidate.pools
        if promises and not candidate.unknown:
            pools = taken([promise.want for promise in promises], pools)
        return Room(
            pools=pools,
            before=candidate.pools,
            plain=plain(pools),
            unknown=candidate.unknown,
            promised_to=_names(promises),
        )

    def plain(self, node: str) -> Mapping[DeviceClassName, Plain]:
        """See `Room.plain`."""
        self._look_at(node)
        return {name: here[node] for name, here in self._plain.items() if node in here}

    def work_ahead(self, most: int) -> bool:
        """Look at so many nodes that have changed; whether there are more. A row of a table costs little after that."""
        while self._ahead and most:
            node, _ = self._ahead.popitem()
            self._look_at(node)
            most -= 1
        return bool(self._ahead)

    def _fill(self, table: Table, nodes: Sequence[str]) -> None:
        """Have the rows of these nodes, but for refusals."""
        if len(table.slack) > MOST_ROWS:
            table.clear()
        missing = [node for node in nodes if node not in table.slack]
        for node in self._added_up(table, missing) if table.is_of_one_class else missing:
            self._place(table, node)

    def _added_up(self, table: Table, nodes: Sequence[str]) -> list[str]:
        """Fill in the nodes where adding up is enough; the others are left."""
        (values,), (scoring,) = table.values, table.scorings
        name = table.wants[0].device_class
        here, slack = self._plain.setdefault(name, {}), table.slack
        sizes = [want.size_bytes for want in table.wants]
        rounded: dict[int, int] = {}
        others: list[str] = []
        for node in nodes:
            if node not in self._looked_at:
                self._look_at(node)
            one = here.get(node)
            if one is None:
                others.append(node)
                continue
            size_bytes = rounded.get(one.extent_bytes)
            if size_bytes is None:
                extent = one.extent_bytes
                size_bytes = rounded[extent] = sum(-(-each // extent) * extent for each in sizes)
            after_bytes = one.free_bytes - size_bytes
            if after_bytes < 0:
                slack[node] = REFUSED
                continue
            slack[node] = after_bytes
            values[node] = (
                float(after_bytes)
                if scoring is Scoring.SPREAD
                else value(scoring, size_bytes=size_bytes, after_bytes=after_bytes, total_bytes=one.total_bytes)
            )
        return others

    def _place(self, table: Table, node: str) -> None:
        self._look_at(node)
        found = added_up(table.wants, self.plain(node))
        if found is None:
            found = fit(table.wants, self.room(node))
        if not isinstance(found, Fit):
            table.slack[node] = REFUSED
            return
        table.slack[node] = found.slack_bytes
        for values, scoring, left in zip(table.values, table.scorings, found.left, strict=True):
            values[node] = value(
                scoring, size_bytes=left.size_bytes, after_bytes=left.after_bytes, total_bytes=left.total_bytes
            )

    def _look_at(self, node: str) -> None:
        if node in self._looked_at:
            return
        if len(self._looked_at) > MOST_ROWS:
            self._looked_at.clear()
            self._plain.clear()
        self._looked_at.add(node)
        candidate = self._view.candidate(node)
        promised = [promise.want for promise in self._promises.certain_on(node)]
        found = plain_after(promised, plain(candidate.pools))
        for name, one in (self.room(node).plain if found is None else found).items():
            self._plain.setdefault(name, {})[node] = one
        self.extent_bytes = max((self.extent_bytes, *(pool.extent_bytes for pool in candidate.pools.values())))

    def _forget(self, node: str) -> None:
        if not node:
            self._ahead |= dict.fromkeys(self._view.nodes)
            self._looked_at.clear()
            self._plain.clear()
            self._tables.clear()
            return
        if len(self._ahead) < MOST_ROWS:
            self._ahead[node] = None
        if node in self._looked_at:
            self._looked_at.discard(node)
            for here in self._plain.values():
                here.pop(node, None)
        for table in self._tables.values():
            table.forget(node)


def refusal(wants: Sequence[Want], room: Room) -> str:
    """Why it does not fit."""
    return room.unknown or shortage(wants, room.pools, room.before, room.promised_to)


def _signature(wants: Sequence[Want]) -> Signature:
    found = [(want.device_class, want.size_bytes, want.layout, want.pool) for want in wants]
    return tuple(sorted(found, key=lambda each: (each[0], each[1], each[3] or "")))


def _names(promises: Sequence[Promise]) -> str:
    """One by name, of more only how many."""
    claims = {promise.want.claim for promise in promises}
    return "/".join(next(iter(claims))) if len(claims) == 1 else f"{len(claims)} claims"
