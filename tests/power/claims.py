"""What users of a node have there, and what of it has to be found again after its power was cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.csi import writer
from tests.power.node import PowerNode

NOT_KNOWN = 1 << 60
"""The last record that was begun: the host knows of those only that were durable."""


@dataclass(kw_only=True)
class Claim:
    """A claim, and what its volume holds: rings of records by run, each with the least it has to have come to."""

    name: str
    storage_class: str
    fs_type: str
    size_mib: int
    rings: dict[str, int]
    """Of its source, as it was at the moment at which it was asked for. They are not written to any more."""
    source: Mapping[str, str] | None = None
    run: str = ""
    """Its own, once somebody writes to it."""
    handle: str = ""
    pod: str = ""
    place: str = ""
    """Where it is in use in this life of the node."""
    settled: set[str] = field(default_factory=set)
    """Runs of its source that were seen here: from then on they are exactly what they were."""

    def newest(self, acknowledged: Mapping[str, int]) -> dict[str, int]:
        """What a copy that is asked for now has to hold at least."""
        return {**self.rings, **({self.run: acknowledged.get(self.run, 0)} if self.run else {})}

    def check(self, node: PowerNode) -> int:
        """Everything that must be there is there: the newest record of its own. Raises AssertionError."""
        newest = 0
        for run, least in self.newest(node.acknowledged).items():
            ring = bytes.fromhex(node.ask("ring", place=self.place, run=run)) or bytes(writer.RING_BYTES)
            most = least if run in self.settled else NOT_KNOWN
            try:
                found = writer.check(ring, bytes.fromhex(run), durable=least, begun=most)
            except writer.LostError as lost:
                raise AssertionError(f"{self.name} ({self.handle}), run {run}: {lost}") from lost
            if run == self.run:
                newest = found
            else:
                self.rings[run] = found
                self.settled.add(run)
        return newest


@dataclass(kw_only=True)
class Snapshot:
    """A snapshot, what it is of, and what was in that."""

    name: str
    of: Claim
    rings: dict[str, int]
    settled: set[str]
