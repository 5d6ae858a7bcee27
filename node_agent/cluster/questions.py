"""Whether anything was ever written to a volume that nobody wants any more, as its object's annotation asks.

Nothing is done to the volume here: what becomes of it is for whoever has asked, who tells people, too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from node_agent.cluster.telling import Told
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import LogicalVolume
from ullage.model import Examine, Examined, VolumeId, VolumeKind

Alone = Callable[[VolumeId, str], AbstractContextManager[None]]
"""Be the only one to change a volume, or raise PendingOperationError: what the CSI calls of this process hold, too."""


class Examines(Protocol):
    """The agent, as far as questions need it; see `node_agent.agent.Agent`."""

    def examine(  # noqa: D102
        self,
        request: Examine,
        *,
        alone: Callable[[], AbstractContextManager[None]],
        is_wanted: Callable[[], bool],
        patience_seconds: float,
    ) -> Examined: ...


class Questions:
    """Thread-safe."""

    def __init__(
        self,
        storage: Examines,
        orders: Informer[LogicalVolume],
        told: Told,
        alone: Alone,
        patience_seconds: float,
    ) -> None:
        """`told` writes the answers; a reading that takes longer than the patience goes on, and is asked for again."""
        self._storage = storage
        self._orders = orders
        self._told = told
        self._alone = alone
        self._patience_seconds = patience_seconds

    def answer(self, order: LogicalVolume) -> None:
        """Answer the question that there is, unless it is answered; raises what is to be tried again.

        The volume is there, and what was ordered. Its deletion, or any other wish, ends the reading.
        """
        asked = order.question
        if not asked or order.answer is not None or order.spec.kind is not VolumeKind.VOLUME:
            return
        found = self._storage.examine(
            Examine(volume_id=order.id, asked=asked),
            alone=lambda: self._alone(order.id, "examine"),
            is_wanted=lambda: self._is_asked(order),
            patience_seconds=self._patience_seconds,
        )
        now = self._orders.get(order.id)
        if now is not None and self._is_asked(order):
            self._told.examined(now, asked, found)

    def _is_asked(self, order: LogicalVolume) -> bool:
        """Whether all is still wanted as it was when the question was seen."""
        now = self._orders.get(order.id)
        return (
            now is not None
            and now.metadata.uid == order.metadata.uid
            and now.metadata.generation == order.metadata.generation
            and now.question == order.question
            and not now.is_condemned
        )
