"""Orders as objects: written once, waited for on the watch, taken back. One write each, and nothing is polled.

Every answer of the API server to a write of ours is learned at once: whoever looks next sees it. A deadline ends a wait
and nothing else; the order stays, its agent goes on, and a repetition finds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from csi.cluster.refusals import kept_by, refused_as
from ullage.errors import (
    ApiConflictError,
    ApiExistsError,
    ApiNotFoundError,
    StillRunningError,
    VolumeNotReadyError,
)
from ullage.kube.api import Api
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import APPLIED, READY, LogicalVolume, Phase
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import VolumeId


class Orders:
    """Thread-safe. Deadlines are moments of `time.monotonic`."""

    def __init__(self, api: Api, volumes: Informer[LogicalVolume]) -> None:
        """`volumes` is started and stopped by others."""
        self._api = api
        self._volumes = volumes

    def find(self, volume_id: VolumeId) -> LogicalVolume | None:
        """The object as it was last seen."""
        return self._volumes.get(volume_id)

    def seek(self, volume_id: VolumeId) -> LogicalVolume | None:
        """The object; asked for where it is kept when it is not known here: a watch may be late, and a no is final."""
        return self.find(volume_id) or self.read(volume_id)

    def read(self, volume_id: VolumeId) -> LogicalVolume | None:
        """The object as it is now."""
        try:
            return self._volumes.learn(self._api.get(LOGICAL_VOLUMES, volume_id))
        except ApiNotFoundError:
            return None

    def place(self, wanted: LogicalVolume) -> LogicalVolume:
        """Write an order, or find that there is one of this id; raises VolumeNotReadyError (it went meanwhile)."""
        try:
            return self._volumes.learn(self._api.create(LOGICAL_VOLUMES, wanted))
        except ApiExistsError as exists:
            found = self.read(wanted.id)
            if found is None:
                raise VolumeNotReadyError(f"{wanted.id} was deleted just now; ask again") from exists
            return found

    def settled(self, order: LogicalVolume, deadline: float) -> LogicalVolume:
        """The order once it is Ready or Failed; raises VolumeNotReadyError (it is taken back), StillRunningError."""
        found = self._wait(order, lambda now: now.is_condemned or now.status.phase is not Phase.PENDING, deadline)
        if found is None or found.is_condemned:
            raise VolumeNotReadyError(f"{order.id} was deleted while it was being made; ask again", volume_id=order.id)
        if found.status.phase is Phase.PENDING:
            raise _still_running(found, "is still being made", READY)
        return found

    def amend(self, order: LogicalVolume, spec: Mapping[str, object]) -> LogicalVolume:
        """Change an order that nobody has changed since it was seen; raises ApiConflictError, ApiNotFoundError."""
        body = {"metadata": {"resourceVersion": order.metadata.resource_version}, "spec": spec}
        return self._volumes.learn(self._api.patch(LOGICAL_VOLUMES, order.id, body))

    def answered(self, order: LogicalVolume, deadline: float) -> LogicalVolume:
        """The order once its agent has spoken about it as it is; raises VolumeNotReadyError, StillRunningError."""
        found = self._wait(order, lambda now: now.is_condemned or now.is_answered, deadline)
        if found is None or found.is_condemned:
            raise VolumeNotReadyError(f"{order.id} was deleted meanwhile", volume_id=order.id)
        if not found.is_answered:
            raise _still_running(found, "is still being changed", APPLIED)
        return found

    def condemn(self, order: LogicalVolume) -> None:
        """Ask that this very object go, and no other of its name."""
        if order.is_condemned:
            return
        try:
            self._api.delete(LOGICAL_VOLUMES, order.id, uid=order.metadata.uid)
        except (ApiNotFoundError, ApiConflictError):
            return  # it has gone; another of its name is another's

    def gone(self, order: LogicalVolume, deadline: float) -> None:
        """Wait for the end of a condemned order.

        Raises VolumeInUseError and whatever else keeps it for people to change, StillRunningError.
        """
        found = self._wait(order, lambda now: kept_by(now) is not None, deadline)
        if found is None:
            return
        kept = kept_by(found)
        raise refused_as(kept) if kept is not None else _still_running(found, "is still being deleted", READY)

    def withdraw(self, order: LogicalVolume, deadline: float) -> None:
        """Both: ask that it go, and wait."""
        self.condemn(order)
        self.gone(order, deadline)

    def _wait(
        self, order: LogicalVolume, until: Callable[[LogicalVolume], bool], deadline: float
    ) -> LogicalVolume | None:
        """The very object (no other of its name) as it is when `until` holds or the time is up; None: it is gone."""

        def is_it(found: LogicalVolume | None) -> bool:
            return found is not None and found.metadata.uid == order.metadata.uid

        found = self._volumes.wait(
            order.id,
            lambda now: now is None or not is_it(now) or until(now),
            max(0.0, deadline - time.monotonic()),
        )
        return found if is_it(found) else None


def _still_running(order: LogicalVolume, what: str, condition: str) -> StillRunningError:
    problem = order.problem(condition)
    because = f": {problem.message}" if problem is not None else ""
    return StillRunningError(f"{order.id} {what} on {order.node}{because}", volume_id=order.id)
