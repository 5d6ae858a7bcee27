"""Who may change a store, or look at it alone: one at a time, in the order in which they came."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from ullage.errors import StoreBusyError
from ullage.model import StoreName

STORE_PATIENCE_SECONDS = 30.0
"""How long a change waits for its store before it says who has it: less than a sidecar's usual time limit of 60 s."""


class _Line:
    """Who has a store, and behind him who waits for it."""

    def __init__(self) -> None:
        self.moved = threading.Condition()
        self.turns: deque[object] = deque()
        self.holder = ("something", time.monotonic())


class StoreLocks:
    """One lock per store, held around each change and each look at it alone. Who has waited longest is next.

    Without an order whoever comes at the right moment overtakes those who sleep: on a store that is never quiet some
    wait for ever.
    """

    def __init__(self, patience_seconds: float = STORE_PATIENCE_SECONDS) -> None:
        """Locks come into being when first asked for."""
        self._patience_seconds = patience_seconds
        self._lines: dict[StoreName, _Line] = {}
        self._guard = threading.Lock()

    @contextmanager
    def hold(
        self, store: StoreName, purpose: str, patience_seconds: float | None = None, *, is_next: bool = False
    ) -> Iterator[None]:
        """Hold a store for `purpose`; raises StoreBusyError saying who has had it for how long.

        `is_next`: before all others who wait.
        """
        patience_seconds = self._patience_seconds if patience_seconds is None else patience_seconds
        with self._guard:
            line = self._lines.setdefault(store, _Line())
        turn = object()
        with line.moved:
            line.turns.insert(1 if is_next else len(line.turns), turn)
            if not line.moved.wait_for(lambda: line.turns[0] is turn, patience_seconds):
                line.turns.remove(turn)
                holder, since = line.holder
                raise StoreBusyError(
                    f"{store} has been busy with {holder} for {time.monotonic() - since:.0f} s; {purpose} has to wait",
                    store=store,
                )
            line.holder = (purpose, time.monotonic())
        try:
            yield
        finally:
            with line.moved:
                line.turns.popleft()
                line.moved.notify_all()
