"""The copies by bytes under way: how many at once, how fast together, and how far each is.

Few at once: each of them moves as much as the disks give, so more of them would only all end later.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ullage.model import DeviceClassName, VolumeId

MOST_FILLS = 4
WAIT_SECONDS = 0.5
"""How often a copy that waits for its turn looks whether it is still wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One copy: what is still to come of it."""

    device_class: DeviceClassName
    left_bytes: int


class Fills:
    """Thread-safe."""

    def __init__(self, most: int = MOST_FILLS, clock: Callable[[], float] = time.monotonic) -> None:
        """None is under way."""
        self._most = most
        self._clock = clock
        self._changed = threading.Condition()
        self._under_way: dict[VolumeId, Fill] = {}
        self._copied: Counter[DeviceClassName] = Counter()
        self._due: dict[DeviceClassName, float] = {}

    @contextmanager
    def turn(self, volume_id: VolumeId, fill: Fill, waiting: Callable[[int], None]) -> Iterator[None]:
        """Hold a place among the few; `waiting` hears now and then after how many it is, and may raise."""
        while not self._is_begun(volume_id, fill):
            waiting(self._most)
            with self._changed:
                self._changed.wait_for(lambda: len(self._under_way) < self._most, WAIT_SECONDS)
        try:
            yield
        finally:
            with self._changed:
                del self._under_way[volume_id]
                self._changed.notify_all()

    def _is_begun(self, volume_id: VolumeId, fill: Fill) -> bool:
        with self._changed:
            has_room = len(self._under_way) < self._most
            if has_room:
                self._under_way[volume_id] = fill
            return has_room

    def reached(self, volume_id: VolumeId, left_bytes: int) -> None:
        """One is so far."""
        with self._changed:
            fill = self._under_way[volume_id]
            self._copied[fill.device_class] += max(0, fill.left_bytes - left_bytes)
            self._under_way[volume_id] = replace(fill, left_bytes=left_bytes)

    def pause_seconds(self, device_class: DeviceClassName, moved_bytes: int, rate_bytes: int) -> float:
        """How long whoever moved so much has to wait, so that the class's copies together keep to `rate_bytes`."""
        if not rate_bytes:
            return 0.0
        with self._changed:
            now = self._clock()
            due = max(self._due.get(device_class, now), now) + moved_bytes / rate_bytes
            self._due[device_class] = due
            return due - now

    def under_way(self) -> Mapping[VolumeId, Fill]:
        """What is being copied now."""
        with self._changed:
            return dict(self._under_way)

    def copied_bytes(self) -> Mapping[DeviceClassName, int]:
        """What this process has copied, by class."""
        with self._changed:
            return dict(self._copied)
