"""Orders and reports: what the API server lets through, and what it says of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from urllib.parse import urlencode

import msgspec
import pytest

from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.manifests import install
from ullage.kube.logical_volume import LogicalVolume, Phase, Status, order, request_of, snapshot_order
from ullage.kube.meta import API_VERSION, Condition, timestamp
from ullage.kube.node_storage import OrphanStatus, StorageStatus, pool_status
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    DeviceType,
    Disk,
    NodeName,
    OrphanKind,
    Owner,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    StoreName,
    ThinUsage,
    VolumeId,
    Wipe,
)
from ullage.names import group_id, member_id, snapshot_id

OURS = "/apis/ullage.io/v1alpha1"
ORDERS, REPORTS = f"{OURS}/logicalvolumes", f"{OURS}/nodestorages"
TRY = "?" + urlencode({"dryRun": "All", "fieldValidation": "Strict"})
STRICT = "?" + urlencode({"fieldValidation": "Strict"})
GIB = 1 << 30
A_SNAPSHOT, A_GROUP = snapshot_id("one"), group_id("one")
CLAIM = {"namespace": "db", "name": "pg-0"}
PLAIN: Json = {
    "nodeName": "n1",
    "deviceClass": "fast",
    "sizeBytes": GIB,
    "source": {"volume": "pvc-0"},
    "claimRef": CLAIM,
    "persistentVolume": "pvc-1",
}


@pytest.fixture(scope="module")
def admin(api_only: ControlPlane) -> Api:
    api = api_only.api()
    install(api)
    return api


def builtins(of: msgspec.Struct) -> Json:
    made: Json = msgspec.to_builtins(of)
    return made


def volume(name: str, **spec: object) -> Json:
    fields = {key: value for key, value in {**PLAIN, **spec}.items() if value is not None}
    return {"apiVersion": API_VERSION, "kind": "LogicalVolume", "metadata": {"name": name}, "spec": fields}


REQUEST = CreateVolume(
    volume_id=VolumeId("pvc-1"),
    device_class=DeviceClassName("fast"),
    size_bytes=GIB,
    limit_bytes=2 * GIB,
    owner=Owner(pv_name="pvc-1", claim_namespace="db", claim_name="pg-0", claim_uid="1-2"),
    wipe=Wipe.ZERO,
)


@pytest.mark.parametrize(
    "wanted",
    [
        REQUEST,
        replace(REQUEST, volume_id=VolumeId("pvc-2"), source=VolumeId("pvc-1"), limit_bytes=0, wipe=None),
        replace(REQUEST, volume_id=VolumeId("pvc-3"), source=A_SNAPSHOT),
        CreateVolume(volume_id=VolumeId("a.b"), device_class=DeviceClassName("fast"), size_bytes=1),
    ],
    ids=lambda each: each.volume_id,
)
def test_every_order_of_the_controllers_is_taken_and_comes_back_as_it_was(admin: Api, wanted: CreateVolume) -> None:
    made = admin.create(f"{ORDERS}{TRY}", builtins(order(wanted, NodeName("n1"))))
    assert request_of(msgspec.convert(made, LogicalVolume)) == wanted


def test_orders_for_snapshots_are_taken_alone_and_in_groups(admin: Api) -> None:
    one = msgspec.convert({**volume("pvc-1"), "status": {"sizeBytes": GIB}}, LogicalVolume)
    empty = msgspec.convert(volume("pvc-2"), LogicalVolume)
    member = member_id(A_GROUP, one.id)
    for each in (
        snapshot_order(A_SNAPSHOT, one),
        snapshot_order(A_SNAPSHOT, empty),
        snapshot_order(member, one, group=A_GROUP, sources=(one.id, empty.id)),
    ):
        made = admin.create(f"{ORDERS}{TRY}", builtins(each))
        assert msgspec.convert(made, LogicalVolume).spec == each.spec


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [
        (volume("snapshot-1"), "the name cannot be a volume id; allowed: 1 to 63 characters (a hyphen counts as two)"),
        (volume("a" * 40 + "-" * 12 + "b"), "the name cannot be a volume id"),
        (volume(A_SNAPSHOT), "the name is not the id of a volume"),
        (volume("pvc-1", kind="snapshot"), "the name is not the id of a snapshot: s- and 26 letters of a hash"),
        (
            volume("pvc-1", kind="frozen"),
            'spec.kind: Unsupported value: "frozen": supported values: "volume", "snapshot"',
        ),
        (volume("pvc-1", sizeBytes=0), "spec.sizeBytes: Invalid value: is 0; a volume has at least one byte"),
        (volume("pvc-1", sizeBytes=-1), "spec.sizeBytes in body should be greater than or equal to 0"),
        (volume("pvc-1", sizeBytes="1Gi"), "spec.sizeBytes in body must be of type integer"),
        (
            volume("pvc-1", limitBytes=5),
            "spec.limitBytes: Invalid value: is less than sizeBytes; allowed: 0 (no limit)",
        ),
        (volume("pvc-1", source={}), "spec.source: Invalid value: exactly one of volume and snapshot is needed"),
        (
            volume("pvc-1", source={"volume": "a", "snapshot": A_SNAPSHOT}),
            "exactly one of volume and snapshot is needed",
        ),
        (volume("pvc-1", source={"volume": A_SNAPSHOT}), "is not the id of a volume"),
        (volume("pvc-1", source={"volume": "pvmove0"}), '"pvmove0": the name cannot be a volume id'),
        (volume("pvc-1", source={"snapshot": "pvc-0"}), '"pvc-0": is not the id of a snapshot'),
        (volume(A_SNAPSHOT, kind="snapshot", source=None), "a snapshot is one of a volume: source.volume is needed"),
        (
            volume("pvc-1", group={"name": A_GROUP, "sources": ["pvc-0"]}),
            "spec.group: Invalid value: only a snapshot can be one of a group",
        ),
        (
            volume(A_SNAPSHOT, kind="snapshot", group={"name": A_GROUP, "sources": ["pvc-5"]}),
            "spec.group.sources: Invalid value: source.volume is not one of the group's sources",
        ),
        (volume(A_SNAPSHOT, kind="snapshot", group={"name": "g", "sources": ["pvc-0"]}), "is not the id of a group"),
        (
            volume("pvc-1", wipe="shred"),
            'spec.wipe: Unsupported value: "shred": supported values: "none", "signatures"',
        ),
        (volume("pvc-1", nodeName=""), "spec.nodeName in body should be at least 1 chars long"),
        (volume("pvc-1", nodeName=None), "spec.nodeName: Required value"),
        (volume("pvc-1", device_class="x"), 'unknown field "spec.device_class"'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_order_that_cannot_be_meant_is_refused(admin: Api, thing: Json, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        admin.create(f"{ORDERS}{TRY}", thing)
    assert sentence in refusal.value.message


@pytest.fixture
def there(admin: Api) -> Iterator[str]:
    """An order that its agent has carried out."""
    admin.create(ORDERS, volume("pvc-1"))
    path = f"{ORDERS}/pvc-1"
    admin.patch(f"{path}/status", {"status": {"phase": "Ready", "sizeBytes": GIB}})
    yield path
    admin.delete(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"sizeBytes": GIB // 2}, "spec.sizeBytes: Invalid value: is less than there is (status.sizeBytes)"),
        ({"nodeName": "n2"}, "was n1 and stays so: a volume does not move"),
        ({"deviceClass": "slow"}, "was fast and stays so: the volume is where and what that class says"),
        ({"kind": "snapshot"}, "was volume and stays so"),
        ({"source": {"volume": "pvc-9"}}, "spec.source: Invalid value: does not change: a volume has begun as"),
        ({"source": None}, "spec.source: Invalid value: does not change: a volume has begun as what it has begun as"),
        ({"claimRef": {"name": "pg-1"}}, "was pg-0 and stays so: it is written on the volume"),
        ({"claimRef": {"namespace": "web"}}, "was db and stays so: it is written on the volume"),
        ({"claimRef": None}, "spec.claimRef: Invalid value: does not come or go"),
        ({"persistentVolume": "pvc-9"}, "spec.persistentVolume: Invalid value: does not change: it is written on"),
        ({"persistentVolume": None}, "spec.persistentVolume: Invalid value: does not change: it is written on"),
        ({"limitBytes": 5}, "spec.limitBytes: Invalid value: is less than sizeBytes"),
        ({"wipe": "shred"}, 'spec.wipe: Unsupported value: "shred"'),
    ],
    ids=str,
)
def test_what_an_order_is_does_not_change(admin: Api, there: str, change: Json, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        admin.patch(there, {"spec": change})
    assert sentence in refusal.value.message


def test_a_groups_members_and_a_snapshots_source_stay(admin: Api) -> None:
    group = {"name": A_GROUP, "sources": ["pvc-0", "pvc-5"]}
    path = f"{ORDERS}/{A_SNAPSHOT}"
    admin.create(ORDERS, volume(A_SNAPSHOT, kind="snapshot", sizeBytes=0, group=group))
    for change in ({"group": None}, {"group": {"sources": ["pvc-0"]}}, {"group": {"name": group_id("two")}}):
        with pytest.raises(Refusal, match=r"spec\.group: .*does not change: its moment has passed"):
            admin.patch(path, {"spec": change})
    admin.delete(path)


def test_size_limit_and_wipe_change_and_a_size_goes_back_to_what_there_is(admin: Api, there: str) -> None:
    grown = {"sizeBytes": 4 * GIB, "limitBytes": 5 * GIB, "wipe": "none"}
    assert admin.patch(there, {"spec": grown})["metadata"]["generation"] == 2
    with pytest.raises(Refusal, match="only grows"):
        admin.patch(there, {"spec": {"sizeBytes": GIB - 1, "limitBytes": 0}})
    admin.patch(there, {"spec": {"sizeBytes": GIB, "limitBytes": None}})
    admin.patch(there, {"spec": {"claimRef": {"uid": "1-2"}}})


def test_what_is_not_there_yet_does_not_shrink_either(admin: Api) -> None:
    admin.create(ORDERS, volume("pvc-2"))
    with pytest.raises(Refusal, match="before there is anything, than was ordered"):
        admin.patch(f"{ORDERS}/pvc-2", {"spec": {"sizeBytes": GIB - 1}})
    admin.delete(f"{ORDERS}/pvc-2")


def test_a_status_is_written_apart_from_the_order_and_the_order_apart_from_the_status(admin: Api, there: str) -> None:
    condition = Condition(
        type="Ready", status="True", reason="AsWanted", last_transition_time=timestamp(), observed_generation=1
    )
    status = Status(
        phase=Phase.READY,
        pool="vg0/pool0",
        size_bytes=GIB,
        wipe=Wipe.ZERO,
        taken_at=1_700_000_000,
        revision=1_700_000_000_000_007,
        observed_generation=1,
        conditions=(condition, msgspec.structs.replace(condition, type="Degraded", status="False")),
    )
    wanted = {"spec": {"sizeBytes": 9 * GIB}, "status": {**builtins(status), "phase": "Ready"}}
    made = admin.patch(f"{there}/status{STRICT}", wanted)
    assert msgspec.convert(made, LogicalVolume).status == status
    assert made["spec"]["sizeBytes"] == GIB
    assert admin.patch(there, {"status": {"phase": "Failed"}})["status"]["phase"] == "Ready"


def test_a_nodes_orders_are_found_by_its_name(admin: Api) -> None:
    for name, node in (("pvc-3", "n3"), ("pvc-4", "n4"), ("pvc-5", "n3")):
        admin.create(ORDERS, volume(name, nodeName=node))
    query = urlencode({"fieldSelector": "spec.nodeName=n3"})
    assert [each["metadata"]["name"] for each in admin.items(f"{ORDERS}?{query}")] == ["pvc-3", "pvc-5"]
    for name in ("pvc-3", "pvc-4", "pvc-5"):
        admin.delete(f"{ORDERS}/{name}")


REPORT = StorageStatus(
    revision=1_700_000_000_000_001,
    observed_at=timestamp(),
    agent_version="1",
    pools=(
        pool_status(
            Pool(
                name=PoolName("vg0/pool0"),
                store=StoreName("vg0"),
                type=DeviceType.THIN,
                classes=(DeviceClassName("thin"),),
                total_bytes=1 << 40,
                free_bytes=0,
                extent_bytes=4 << 20,
                physical_volumes=(PhysicalVolume(name="/dev/sda", free_bytes=1 << 39),),
                thin=ThinUsage(
                    virtual_bytes=1 << 41,
                    data_percent=12.5,
                    metadata_percent=1.0,
                    overprovision_ratio=Fraction(3, 2),
                    data_guard_percent=90,
                    metadata_guard_percent=80,
                ),
                disks=(Disk(name="/dev/sdb", size_bytes=1 << 40),),
                exists=False,
                problem=Problem(reason="Missing", message="it is not there"),
            ),
            7,
        ),
    ),
    orphans=(OrphanStatus(name="pvc-9", kind=OrphanKind.VOLUME_WITHOUT_RECORD, message="no object", size_bytes=GIB),),
    conditions=(Condition(type="CapacityKnown", status="True", reason="AsWanted", last_transition_time=timestamp()),),
)


@pytest.fixture
def reported(admin: Api) -> Iterator[str]:
    """A report that is there."""
    admin.create(REPORTS, {"apiVersion": API_VERSION, "kind": "NodeStorage", "metadata": {"name": "n1"}})
    path = f"{REPORTS}/n1"
    admin.patch(f"{path}/status{STRICT}", {"status": builtins(REPORT)})
    yield path
    admin.delete(path)


def test_a_report_comes_back_as_it_was_written(admin: Api, reported: str) -> None:
    assert msgspec.convert(admin.get(reported)["status"], StorageStatus) == REPORT


def test_a_report_is_never_replaced_by_an_earlier_one(admin: Api, reported: str) -> None:
    with pytest.raises(Refusal, match="a report never replaces a later one"):
        admin.patch(f"{reported}/status", {"status": {"revision": REPORT.revision - 1}})
    with pytest.raises(Refusal, match="a report never replaces a later one"):
        admin.patch(f"{reported}/status", {"status": {"revision": None}})
    admin.patch(f"{reported}/status", {"status": {"revision": REPORT.revision}})
