"""What is lost with the cluster's memory is made anew from the disks, and what could mean two things is not."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from csi.cluster.recovery import PROVISIONED_BY, Choices, Cluster, Plan, plan
from csi.cluster.remaking import look, remake
from tests.unit.kube_doubles import ApiServer, Change, Fields
from tests.unit.loop_doubles import (
    CLASSES,
    NOW,
    claim,
    persistent,
    storage,
    storage_class,
    stray,
    volume,
)
from ullage.kube.api import Api
from ullage.kube.foreign import Claim, PersistentVolume, StorageClass
from ullage.kube.logical_volume import FINALIZER, RECOVERED, LogicalVolume, Source
from ullage.kube.meta import (
    CLAIMS,
    DEVICE_CLASSES,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    timestamp,
)
from ullage.kube.node_storage import ACKNOWLEDGED, NodeStorage, OrphanStatus
from ullage.model import GroupId, OrphanKind, VolumeId, VolumeKind
from ullage.names import group_id, member_id, snapshot_id

NONE = Choices(storage_classes={}, volume_modes={})


def planned(  # noqa: PLR0913 - a cluster has parts
    *strays: OrphanStatus,
    storages: tuple[NodeStorage, ...] = (),
    volumes: tuple[LogicalVolume, ...] = (),
    persistent_volumes: tuple[PersistentVolume, ...] = (),
    storage_classes: tuple[StorageClass, ...] = (storage_class(),),
    claims: tuple[Claim, ...] = (),
    storage_class_of: Mapping[str, str] | None = None,
    mode_of: Mapping[str, str] | None = None,
) -> Plan:
    cluster = Cluster(
        storages=(*storages, storage("n1", orphans=strays)),
        volumes=volumes,
        persistent_volumes=persistent_volumes,
        storage_classes=storage_classes,
        classes=CLASSES,
        claims={(each.metadata.namespace, each.metadata.name): each for each in claims},
        now=NOW,
    )
    return plan(cluster, Choices(storage_classes=storage_class_of or {}, volume_modes=mode_of or {}))


def refused(made: Plan) -> str:
    assert made.rebuilt == ()
    (refusal,) = made.refusals
    return refusal.sentence


def spec(made: Plan) -> Fields:
    """Of the one PersistentVolume."""
    assert made.refusals == ()
    (rebuilt,) = made.rebuilt
    assert rebuilt.persistent_volume is not None
    body: Fields = msgspec.json.decode(msgspec.json.encode(rebuilt.persistent_volume.body))
    found: Fields = body["spec"]
    return found


def test_both_objects_are_made_from_the_marks() -> None:
    made = planned(stray("pvc-1"))
    (rebuilt,) = made.rebuilt
    order = rebuilt.logical_volume
    assert order is not None
    assert (order.id, order.node, order.spec.device_class, order.spec.size_bytes) == ("pvc-1", "n1", "fast", 1 << 30)
    assert order.metadata.finalizers == (FINALIZER,)
    assert order.metadata.annotations == {RECOVERED: "ext4"}
    assert order.spec.claim_ref is not None
    assert (order.spec.claim_ref.namespace, order.spec.claim_ref.name) == ("db", "data")
    assert rebuilt.persistent_volume is not None
    assert rebuilt.persistent_volume.body["metadata"] == {"name": "pvc-1", "annotations": {PROVISIONED_BY: "ullage.io"}}
    assert spec(made) == {
        "capacity": {"storage": str(1 << 30)},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "fast",
        "volumeMode": "Filesystem",
        "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "db", "name": "data"},
        "csi": {"driver": "ullage.io", "volumeHandle": "pvc-1", "fsType": "ext4"},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "ullage.io/node", "operator": "In", "values": ["n1"]}]}
                ]
            }
        },
    }


def test_a_claim_is_named_without_a_uid_so_that_the_next_of_its_name_has_it() -> None:
    assert "uid" not in spec(planned(stray("pvc-1", claim_uid="the-lost-one's")))["claimRef"]


def test_what_the_storage_class_says_holds() -> None:
    kept = storage_class(reclaim_policy="Retain", mount_options=("noatime",))
    made = spec(planned(stray("pvc-1"), storage_classes=(kept,)))
    assert (made["persistentVolumeReclaimPolicy"], made["mountOptions"]) == ("Retain", ["noatime"])


def test_two_storage_classes_are_a_question_that_an_option_or_the_claim_answers() -> None:
    two = (storage_class("a"), storage_class("b"))
    assert "a, b" in refused(planned(stray("pvc-1"), storage_classes=two))
    chosen = planned(stray("pvc-1"), storage_classes=two, storage_class_of={"fast": "b"})
    assert spec(chosen)["storageClassName"] == "b"
    again = claim("", storage_class_name="a")
    assert spec(planned(stray("pvc-1"), storage_classes=two, claims=(again,)))["storageClassName"] == "a"
    wrong = planned(stray("pvc-1"), storage_classes=two, storage_class_of={"fast": "c"})
    assert "c is no StorageClass of the device class fast" in refused(wrong)


@pytest.mark.parametrize("content", ["block", ""])
def test_what_the_device_does_not_show_is_a_question_that_an_option_or_the_claim_answers(content: str) -> None:
    assert "--volume-mode pvc-1=Block" in refused(planned(stray("pvc-1", content=content)))
    made = spec(planned(stray("pvc-1", content=content), mode_of={"pvc-1": "Block"}))
    assert (made["volumeMode"], "fsType" in made["csi"]) == ("Block", False)
    again = claim("", volume_mode="Block", access_modes=("ReadWriteOncePod",))
    made = spec(planned(stray("pvc-1", content=content), claims=(again,)))
    assert (made["volumeMode"], made["accessModes"]) == ("Block", ["ReadWriteOncePod"])


def test_a_blank_volume_gets_the_file_system_of_its_class() -> None:
    of_xfs = storage_class(parameters={"ullage.io/device-class": "fast", "csi.storage.k8s.io/fstype": "xfs"})
    made = spec(planned(stray("pvc-1", content="block"), storage_classes=(of_xfs,), mode_of={"pvc-1": "Filesystem"}))
    assert made["csi"]["fsType"] == "xfs"
    assert spec(planned(stray("pvc-1"), storage_classes=(of_xfs,)))["csi"]["fsType"] == "ext4"


def test_one_id_on_two_nodes_is_refused_on_both() -> None:
    made = planned(stray("pvc-1"), storages=(storage("n2", orphans=(stray("pvc-1"),)),))
    assert (made.rebuilt, [each.node for each in made.refusals]) == ((), ["n1", "n2"])


def test_half_a_volume_is_refused() -> None:
    assert "half of a volume" in refused(planned(stray("pvc-1", device_class="")))
    assert "half of a volume" in refused(planned(stray("pvc-1", kind=OrphanKind.RECORD_WITHOUT_VOLUME)))
    assert "half of a volume" in refused(planned(stray("pvc-1", size_bytes=0)))


def test_the_report_of_a_silent_agent_is_not_believed() -> None:
    old = storage("n1", orphans=(stray("pvc-1"),))
    old = msgspec.structs.replace(old, status=msgspec.structs.replace(old.status, observed_at="2020-01-01T00:00:00Z"))
    assert "old" in refused(planned(storages=(old,)))


def test_a_class_that_is_not_there_is_asked_for_first() -> None:
    assert "DeviceClass slow" in refused(planned(stray("pvc-1", device_class="slow")))


def test_a_name_that_stands_for_something_else_is_refused() -> None:
    elsewhere = refused(
        planned(stray("pvc-1"), volumes=(volume("pvc-1", "n2"),), persistent_volumes=(persistent("pvc-1"),))
    )
    assert "node n2" in elsewhere
    other = planned(stray("pvc-1"), persistent_volumes=(persistent("pvc-1", "another"),))
    assert "stands for something else" in refused(other)
    taken = planned(stray("pvc-1"), claims=(claim("pvc-new"),))
    assert "has another volume by now, pvc-new" in refused(taken)


def test_an_acknowledged_one_is_left_as_it_is() -> None:
    known = storage("n2", orphans=(stray("pvc-1"),), labels={f"{ACKNOWLEDGED}pvc-1": ""})
    assert planned(storages=(known,)) == Plan(rebuilt=(), refusals=())


def test_one_of_which_no_claim_is_known_gets_no_persistent_volume() -> None:
    (rebuilt,) = planned(stray("pvc-1", claim_name="", claim_namespace="", persistent_volume="")).rebuilt
    assert (rebuilt.persistent_volume, rebuilt.logical_volume is not None) == (None, True)
    assert "no claim" in rebuilt.note


def test_one_whose_object_came_since_the_report_is_the_provisioners() -> None:
    assert planned(stray("pvc-1"), volumes=(volume("pvc-1"),)) == Plan(rebuilt=(), refusals=())


def test_a_run_that_was_cut_off_is_gone_on_with() -> None:
    half = volume("pvc-1")
    meta = msgspec.structs.replace(half.metadata, annotations={RECOVERED: "xfs"}, uid="u")
    half = msgspec.structs.replace(half, metadata=meta)
    made = planned(volumes=(half,))
    assert made.rebuilt[0].logical_volume is None
    assert spec(made)["csi"]["fsType"] == "xfs"
    assert planned(volumes=(half,), persistent_volumes=(persistent("pv", "pvc-1"),)) == Plan(rebuilt=(), refusals=())
    going = msgspec.structs.replace(half, metadata=msgspec.structs.replace(meta, deletion_timestamp=timestamp(NOW)))
    assert planned(volumes=(going,)) == Plan(rebuilt=(), refusals=())


def snapshot(name: str, source: str, group: str = "") -> OrphanStatus:
    return stray(name, volume_kind=VolumeKind.SNAPSHOT, source=source, group=group, persistent_volume="", claim_name="")


def test_a_snapshot_gets_its_object_only() -> None:
    (rebuilt,) = planned(snapshot(snapshot_id("one"), "pvc-1")).rebuilt
    assert rebuilt.logical_volume is not None
    assert (rebuilt.logical_volume.spec.source, rebuilt.persistent_volume) == (Source(volume="pvc-1"), None)
    assert "VolumeSnapshotContent" in rebuilt.note


def test_the_snapshots_of_a_group_name_all_of_it() -> None:
    group = group_id("g")
    members = [snapshot(member_id(group, VolumeId(each)), each, group) for each in ("pvc-2", "pvc-1")]
    groups = [each.logical_volume and each.logical_volume.spec.group for each in planned(*members).rebuilt]
    assert [each and (each.name, each.sources) for each in groups] == [(group, ("pvc-1", "pvc-2"))] * 2
    assert "not that of pvc-1" in refused(planned(snapshot(snapshot_id("one"), "pvc-1", GroupId(group))))


def test_what_a_copy_reads_from_is_never_made_anew() -> None:
    frozen = stray("f-" + "a" * 26, volume_kind=VolumeKind.FROZEN)
    assert "frozen" in refused(planned(frozen))


def test_a_snapshot_under_the_id_of_a_volume_is_refused() -> None:
    assert "marked as a snapshot" in refused(planned(snapshot("pvc-1", "pvc-0")))


def test_an_id_that_cannot_be_a_volumes_is_refused() -> None:
    assert "cannot be a volume id" in refused(planned(stray("../etc")))


# Carried out.


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.put(STORAGE_CLASSES, storage_class())
    fields = {"metadata": {"name": "fast"}, "spec": {"type": "file", "directory": "/srv", "sparse": True}}
    server.put(DEVICE_CLASSES, fields)
    server.put(NODE_STORAGES, storage("n1", orphans=(stray("pvc-1"), stray("pvc-2", claim_name="other"))))
    return server


def adopt(server: ApiServer, status: Mapping[str, object]) -> None:
    """An agent that says this of every volume it is asked for."""

    def see(change: Change) -> None:
        if change.before is None and change.after and change.collection == LOGICAL_VOLUMES.path():
            name = change.after["metadata"]["name"]
            Api(server).patch(LOGICAL_VOLUMES, name, {"status": status}, subresource="status")

    server.watch_all(see)


ADOPTED = {"phase": "Ready", "sizeBytes": 1 << 30, "conditions": [{"type": "Ready", "status": "True", "reason": "R"}]}


def test_objects_come_first_and_persistent_volumes_when_the_agent_has_them(server: ApiServer) -> None:
    adopt(server, ADOPTED)
    wanted = plan(look(Api(server)), NONE)
    assert remake(Api(server), wanted.rebuilt, timeout_seconds=10) == []
    assert server.written("POST", "logicalvolumes") + server.written("POST", "persistentvolumes") == [
        path for method, path in server.writes if method == "POST"
    ]
    assert server.all(PERSISTENT_VOLUMES).keys() == {"pvc-1", "pvc-2"}
    assert plan(look(Api(server)), NONE) == Plan(rebuilt=(), refusals=())


def test_without_the_agents_word_there_is_no_persistent_volume_and_the_next_run_makes_it(server: ApiServer) -> None:
    wanted = plan(look(Api(server)), NONE)
    refusals = remake(Api(server), wanted.rebuilt, timeout_seconds=0)
    assert ["not taken it over yet" in each.sentence for each in refusals] == [True, True]
    assert server.all(PERSISTENT_VOLUMES) == {}
    for name in ("pvc-1", "pvc-2"):
        Api(server).patch(LOGICAL_VOLUMES, name, {"status": ADOPTED}, subresource="status")
    again = plan(look(Api(server)), NONE)
    assert remake(Api(server), again.rebuilt, timeout_seconds=0) == []
    assert server.all(PERSISTENT_VOLUMES).keys() == {"pvc-1", "pvc-2"}


def test_one_that_its_agent_refuses_is_told_and_the_rest_goes_on(server: ApiServer) -> None:
    def see(change: Change) -> None:
        if change.before is None and change.after and change.collection == LOGICAL_VOLUMES.path():
            name = change.after["metadata"]["name"]
            failed = {
                "phase": "Failed",
                "conditions": [{"type": "Ready", "status": "False", "reason": "X", "message": "no"}],
            }
            status = ADOPTED if name == "pvc-2" else failed
            Api(server).patch(LOGICAL_VOLUMES, name, {"status": status}, subresource="status")

    server.watch_all(see)
    wanted = plan(look(Api(server)), NONE)
    (refusal,) = remake(Api(server), wanted.rebuilt, timeout_seconds=10)
    assert (refusal.name, refusal.sentence) == ("pvc-1", "the agent of node n1 refuses it: no")
    assert server.all(PERSISTENT_VOLUMES).keys() == {"pvc-2"}


def test_a_claim_that_is_there_already_is_looked_at(server: ApiServer) -> None:
    server.put(CLAIMS, claim("pvc-new"), namespace="db")
    wanted = plan(look(Api(server)), NONE)
    assert [each.name for each in wanted.refusals] == ["pvc-1"]
