"""What a volume's order is changed to while the volume is there: a larger size, another wipe policy.

The agent answers each generation of an order. One that it refuses is set back to what there is, so that nobody takes
for ordered what will not be done, and the next request may be another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from csi.cluster.orders import Orders
from csi.cluster.refusals import refusal, refused_as
from csi.cluster.view import ClusterView, provisioned
from ullage.errors import ApiConflictError, ApiNotFoundError, NotFoundError, OutOfRangeError, UnavailableError
from ullage.kube.logical_volume import LogicalVolume
from ullage.model import ExpandVolume, ModifyVolume, VolumeId, VolumeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What a volume is to be changed to; `spec` is what its order is to say then."""

    is_done: Callable[[LogicalVolume], bool]
    is_asked: Callable[[LogicalVolume], bool]
    spec: Mapping[str, object]


class Changes:
    """See `ullage.ports.Provisioner`; deadlines are moments of `time.monotonic`."""

    def __init__(self, orders: Orders, view: ClusterView) -> None:
        """Both are shared with whoever makes volumes."""
        self._orders = orders
        self._view = view

    def expand(self, request: ExpandVolume, deadline: float) -> LogicalVolume:
        """See the port."""
        growth = _Change(
            is_done=lambda found: found.status.size_bytes >= request.size_bytes,
            is_asked=lambda found: (
                (found.spec.size_bytes, found.spec.limit_bytes) == (request.size_bytes, request.limit_bytes)
            ),
            spec={"sizeBytes": request.size_bytes, "limitBytes": request.limit_bytes or None},
        )
        grown = self._changed(request.volume_id, growth, deadline)
        if request.limit_bytes and grown.status.size_bytes > request.limit_bytes:
            raise OutOfRangeError(
                f"{grown.id} has {grown.status.size_bytes} bytes, the limit is {request.limit_bytes}",
                size_bytes=grown.status.size_bytes,
                limit_bytes=request.limit_bytes,
            )
        return grown

    def modify(self, request: ModifyVolume, deadline: float) -> LogicalVolume:
        """See the port."""
        change = _Change(
            is_done=lambda found: found.status.wipe is request.wipe and found.spec.wipe in (None, request.wipe),
            is_asked=lambda found: found.spec.wipe is request.wipe,
            spec={"wipe": request.wipe},
        )
        return self._changed(request.volume_id, change, deadline)

    def _changed(self, volume_id: VolumeId, change: _Change, deadline: float) -> LogicalVolume:
        """The volume, changed. What somebody else has asked for and is not answered yet is waited for first.

        Raises NotFoundError, VolumeNotReadyError, StillRunningError, and what its agent refuses with.
        """
        self._view.require_synced()
        found = _usable(self._orders.seek(volume_id), volume_id)
        has_asked = False
        while not change.is_done(found):
            refused = refusal(found)
            try:
                if refused is not None and _is_ahead(found):
                    found = self._orders.amend(found, _as_there_is(found))
                if refused is not None and has_asked:
                    raise refused_as(refused)
                if found.is_answered and not change.is_asked(found):
                    found = self._orders.amend(found, change.spec)
            except (ApiConflictError, ApiNotFoundError):
                found = _usable(self._orders.read(volume_id), volume_id)
                continue
            has_asked = change.is_asked(found)
            found = self._orders.answered(found, deadline)
            if has_asked and refusal(found) is None and not change.is_done(found):
                raise UnavailableError(f"{volume_id} is not as {found.node} says that it is; ask again")
        return found


def _usable(found: LogicalVolume | None, volume_id: VolumeId) -> LogicalVolume:
    """A volume that is there; raises NotFoundError, VolumeNotReadyError."""
    if found is None or found.spec.kind is not VolumeKind.VOLUME:
        raise NotFoundError(f"no volume has the id {volume_id}", volume_id=volume_id)
    provisioned(found)
    return found


def _is_ahead(found: LogicalVolume) -> bool:
    """Whether an order asks for something else than there is."""
    spec, status = found.spec, found.status
    return spec.size_bytes > status.size_bytes or (spec.wipe is not None and spec.wipe is not status.wipe)


def _as_there_is(found: LogicalVolume) -> dict[str, object]:
    spec, status = found.spec, found.status
    return {
        "sizeBytes": min(spec.size_bytes, status.size_bytes),
        "limitBytes": None,
        "wipe": status.wipe if spec.wipe is not None else None,
    }
