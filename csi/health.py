"""How volumes and pools are, in CSI 1.13's words (alpha, so behind a switch).

INACCESSIBLE is what cannot be read or written now; DEGRADED works, and a person should know. Lost bytes are never
guessed: LVM says that a disk is missing, and whether that is loss the layout and the person know.
"""

from __future__ import annotations

from collections.abc import Iterable

from ullage.errors import NotOfferedError
from ullage.model import Pool, Problem, VolumeId
from ullage.pb.csi.v1 import csi_pb2 as pb

INACCESSIBLE = frozenset(
    {"DeviceFailed", "DeviceGone", "FileSystemReadOnly", "FileSystemStopped", "NotMounted", "Suspended"}
)
REACHABLE = frozenset({"NoRoomForThinPool", "PhysicalVolumeMissing", "ThinPoolDoesNotZero"})
"""Problems of a pool that can be read, and whose volumes, if it has any, can be used."""


def require(*, is_offered: bool) -> None:
    """Raise NotOfferedError unless the switch is on."""
    if not is_offered:
        raise NotOfferedError("Health is alpha in CSI 1.13 and switched off; start with --alpha volume-health")


def of_volume(volume_id: VolumeId, *problems: Problem | None) -> pb.VolumeHealth:
    """A volume's health; without problems it has no entries. The same reason is named once."""
    found = {problem.reason: problem for problem in problems if problem is not None}
    return pb.VolumeHealth(
        volume_id=volume_id,
        health_statuses=[
            pb.VolumeHealth.VolumeHealthEntry(
                status=pb.INACCESSIBLE if problem.reason in INACCESSIBLE else pb.DEGRADED,
                reason=problem.reason,
                message=problem.message,
            )
            for problem in found.values()
        ],
    )


def of_pools(pools: Iterable[Pool]) -> pb.NodeGetStorageHealthResponse:
    """The pools that are ill. A (status, reason) pair occurs once; its message names every pool."""
    found: dict[tuple[pb.StorageHealthErrorType, str], list[str]] = {}
    for pool in pools:
        is_reachable = pool.problem is None or pool.problem.reason in REACHABLE
        status = pb.STORAGE_DEGRADED if is_reachable else pb.STORAGE_UNREACHABLE
        for problem in _problems(pool):
            found.setdefault((status, problem.reason), []).append(f"{pool.name}: {problem.message}")
    return pb.NodeGetStorageHealthResponse(
        backend_health=[
            pb.NodeGetStorageHealthResponse.StorageBackendHealth(
                status=status, reason=reason, message="; ".join(messages)
            )
            for (status, reason), messages in found.items()
        ]
    )


def _problems(pool: Pool) -> Iterable[Problem]:
    if pool.problem is not None:
        yield pool.problem
    thin = pool.thin
    if thin is not None and (
        thin.data_percent >= thin.data_guard_percent or thin.metadata_percent >= thin.metadata_guard_percent
    ):
        yield Problem(
            reason="ThinPoolNearlyFull",
            message=f"{thin.data_percent:.1f} % of data, {thin.metadata_percent:.1f} % of metadata are written",
        )
