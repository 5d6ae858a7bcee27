"""How volumes and pools are, in CSI's words: what cannot be reached, what works and is to be looked at, and no more."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from csi import health
from node_agent.backends.lvm.pools import PHYSICAL_VOLUME_MISSING
from ullage.errors import GIB, MIB, NotOfferedError
from ullage.model import DeviceType, Pool, PoolName, Problem, StoreName, ThinUsage, VolumeId
from ullage.pb.csi.v1 import csi_pb2 as pb

ID = VolumeId("pvc-1")
MISSING = Problem(reason=PHYSICAL_VOLUME_MISSING, message="1 of vg0's physical volumes are missing")
GONE = Problem(reason="VolumeGroupMissing", message="vg0 is gone")


def pool(name: str, problem: Problem | None = None, thin: ThinUsage | None = None) -> Pool:
    return Pool(
        name=PoolName(name),
        store=StoreName("vg0"),
        type=DeviceType.THICK if thin is None else DeviceType.THIN,
        classes=(),
        total_bytes=GIB,
        free_bytes=GIB,
        extent_bytes=4 * MIB,
        thin=thin,
        problem=problem,
    )


def thin(data_percent: float, metadata_percent: float = 0.0) -> ThinUsage:
    return ThinUsage(
        virtual_bytes=GIB,
        data_percent=data_percent,
        metadata_percent=metadata_percent,
        overprovision_ratio=Fraction(2),
        data_guard_percent=90,
        metadata_guard_percent=80,
    )


def told(*pools: Pool) -> list[tuple[str, str, str]]:
    answer = health.of_pools(pools)
    return [(pb.StorageHealthErrorType.Name(each.status), each.reason, each.message) for each in answer.backend_health]


def test_what_is_switched_off_says_how_to_switch_it_on() -> None:
    with pytest.raises(NotOfferedError, match=r"start with --alpha volume-health$"):
        health.require(is_offered=False)
    health.require(is_offered=True)


def test_a_volume_without_problems_is_named_and_has_nothing_to_tell() -> None:
    for well in (health.of_volume(ID), health.of_volume(ID, None, None)):
        assert well == pb.VolumeHealth(volume_id=ID)


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("DeviceFailed", "INACCESSIBLE"),
        ("DeviceGone", "INACCESSIBLE"),
        ("FileSystemReadOnly", "INACCESSIBLE"),
        ("FileSystemStopped", "INACCESSIBLE"),
        ("NotMounted", "INACCESSIBLE"),
        ("Suspended", "INACCESSIBLE"),
        ("Partial", "DEGRADED"),
        ("RefreshNeeded", "DEGRADED"),
        ("AnythingElse", "DEGRADED"),
    ],
)
def test_a_problem_keeps_its_words_and_gets_a_status(reason: str, status: str) -> None:
    (entry,) = health.of_volume(ID, Problem(reason=reason, message="as it is")).health_statuses
    assert pb.VolumeHealthErrorType.Name(entry.status) == status
    assert (entry.reason, entry.message) == (reason, "as it is")


def test_all_problems_of_a_volume_are_told_the_same_reason_once() -> None:
    """The agent and the mount may both have found it; CSI wants a reason once."""
    suspended = Problem(reason="Suspended", message="the device is suspended")
    stopped = Problem(reason="FileSystemStopped", message="/t does not answer")
    entries = health.of_volume(ID, suspended, None, stopped, suspended).health_statuses
    assert [each.reason for each in entries] == ["Suspended", "FileSystemStopped"]


def test_lost_bytes_are_never_guessed() -> None:
    for reason in sorted(health.INACCESSIBLE | {"Partial", "ImageMissing"}):
        (entry,) = health.of_volume(ID, Problem(reason=reason, message="")).health_statuses
        assert entry.status != pb.DATA_LOSS


def test_pools_that_are_well_have_nothing_to_tell() -> None:
    assert told() == []
    assert told(pool("vg0"), pool("vg0/thin", thin=thin(89.9, 79.9))) == []


def test_a_group_without_one_of_its_disks_is_degraded_and_one_that_is_gone_unreachable() -> None:
    assert told(pool("vg0", MISSING)) == [("STORAGE_DEGRADED", "PhysicalVolumeMissing", f"vg0: {MISSING.message}")]
    assert told(pool("vg0", GONE)) == [("STORAGE_UNREACHABLE", "VolumeGroupMissing", "vg0: vg0 is gone")]


@pytest.mark.parametrize(("data", "metadata"), [(90.0, 0.0), (0.0, 80.0), (100.0, 100.0)])
def test_a_thin_pool_past_a_guard_is_degraded_and_says_how_full_it_is(data: float, metadata: float) -> None:
    full = f"vg0/thin: {data:.1f} % of data, {metadata:.1f} % of metadata are written"
    assert told(pool("vg0/thin", thin=thin(data, metadata))) == [("STORAGE_DEGRADED", "ThinPoolNearlyFull", full)]


def test_a_full_thin_pool_is_no_less_reachable_for_a_disk_that_its_group_lacks() -> None:
    assert [(status, reason) for status, reason, _ in told(pool("vg0/thin", MISSING, thin(95.0)))] == [
        ("STORAGE_DEGRADED", "PhysicalVolumeMissing"),
        ("STORAGE_DEGRADED", "ThinPoolNearlyFull"),
    ]
    assert [(status, reason) for status, reason, _ in told(pool("vg0/thin", GONE, thin(95.0)))] == [
        ("STORAGE_UNREACHABLE", "VolumeGroupMissing"),
        ("STORAGE_UNREACHABLE", "ThinPoolNearlyFull"),
    ]


@pytest.mark.parametrize("reason", ["NoRoomForThinPool", "ThinPoolDoesNotZero"])
def test_a_pool_that_only_takes_nothing_new_is_not_called_unreachable(reason: str) -> None:
    (problem,) = told(pool("vg0/thin", Problem(reason=reason, message="because"), thin(0.0)))
    assert problem == ("STORAGE_DEGRADED", reason, "vg0/thin: because")


def test_a_reason_is_told_once_with_every_pool_it_is_true_of() -> None:
    """CSI: a pair of status and reason occurs once."""
    other = replace(GONE, message="vg1 is gone")
    assert told(pool("vg0", GONE), pool("vg0/thin", GONE), pool("vg1", other), pool("vg2", MISSING)) == [
        ("STORAGE_UNREACHABLE", "VolumeGroupMissing", "vg0: vg0 is gone; vg0/thin: vg0 is gone; vg1: vg1 is gone"),
        ("STORAGE_DEGRADED", "PhysicalVolumeMissing", f"vg2: {MISSING.message}"),
    ]
