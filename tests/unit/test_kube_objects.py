"""What our objects say comes back as it was said; foreign fields are passed over."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import pytest

from ullage.errors import ApiExistsError, ApiGoneError, ApiUnavailableError, ConfigError
from ullage.kube.connection import refusal
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.logical_volume import LogicalVolume, order, request_of
from ullage.kube.meta import LOGICAL_VOLUMES, NODES, STORAGE_CAPACITIES, Condition, conditions_after
from ullage.kube.node_storage import PoolStatus, pool, pool_status
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    DeviceType,
    NodeName,
    Owner,
    PhysicalVolume,
    Pool,
    PoolName,
    StoreName,
    ThinUsage,
    VolumeId,
    Wipe,
)


def test_a_request_comes_out_of_its_object_as_it_went_in() -> None:
    request = CreateVolume(
        volume_id=VolumeId("pvc-1"),
        device_class=DeviceClassName("fast"),
        size_bytes=5 << 30,
        limit_bytes=6 << 30,
        owner=Owner(pv_name="pvc-1", claim_namespace="db", claim_name="pg-0"),
        wipe=Wipe.ZERO,
        source=VolumeId("pvc-0"),
    )
    written = msgspec.json.encode(order(request, NodeName("n1")))
    assert request_of(msgspec.json.decode(written, type=LogicalVolume)) == request


def test_a_pool_comes_out_of_its_object_as_it_went_in() -> None:
    one = Pool(
        name=PoolName("vg0/pool"),
        store=StoreName("vg0"),
        type=DeviceType.THIN,
        classes=(DeviceClassName("fast"),),
        total_bytes=1 << 40,
        free_bytes=1 << 39,
        extent_bytes=4 << 20,
        physical_volumes=(PhysicalVolume(name="/dev/sda", free_bytes=1 << 39, scattered_bytes=4096),),
        thin=ThinUsage(
            virtual_bytes=1,
            data_percent=12.5,
            metadata_percent=1.0,
            overprovision_ratio=Fraction("1.1"),
            data_guard_percent=90,
            metadata_guard_percent=80,
        ),
        exists=False,
    )
    written = msgspec.json.encode(pool_status(one, 7))
    assert pool(msgspec.json.decode(written, type=PoolStatus)) == one


def test_paths_are_those_of_the_api_server() -> None:
    assert NODES.path("n1") == "/api/v1/nodes/n1"
    assert LOGICAL_VOLUMES.path("v", subresource="status") == "/apis/ullage.io/v1alpha1/logicalvolumes/v/status"
    assert STORAGE_CAPACITIES.path(namespace="ns") == "/apis/storage.k8s.io/v1/namespaces/ns/csistoragecapacities"


def test_a_ratio_in_a_device_class_keeps_its_digits() -> None:
    text = b"""{"metadata": {"name": "fast"}, "spec": {"type": "thin", "volumeGroups": ["nvme*"],
        "thinPool": {"name": "pool", "overprovisionRatio": 1.1}}}"""
    policy = msgspec.json.decode(text, type=DeviceClassObject).device_class.thin_pool
    assert policy is not None
    assert policy.overprovision_ratio == Fraction(11, 10)


def test_a_device_class_that_slipped_through_is_refused_with_its_name_and_field() -> None:
    text = b'{"metadata": {"name": "fast"}, "spec": {"type": "thick"}}'
    with pytest.raises(ConfigError, match=r"DeviceClass fast: spec\.volumeGroups: is missing"):
        _ = msgspec.json.decode(text, type=DeviceClassObject).device_class


def test_a_condition_that_still_holds_keeps_the_time_since_when() -> None:
    before = [Condition(type="Ready", status="True", reason="A", last_transition_time="then")]
    now = [Condition(type="Ready", status="True", reason="B"), Condition(type="Degraded", status="False", reason="C")]
    assert [each.last_transition_time for each in conditions_after(before, now, moment="now")] == ["then", "now"]


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (409, b'{"reason": "AlreadyExists", "message": "m"}', ApiExistsError),
        (410, b"{}", ApiGoneError),
        (429, b"slow down", ApiUnavailableError),
        (503, b"", ApiUnavailableError),
    ],
)
def test_a_reply_without_success_is_an_error_of_its_own_kind(code: int, body: bytes, kind: type[Exception]) -> None:
    assert type(refusal("GET", "/x", code, body)) is kind
