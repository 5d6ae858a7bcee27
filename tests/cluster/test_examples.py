"""Everything in deploy/ is taken by a real API server, strictly, and says what the driver understands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest

from csi.parameters import check_parameters, check_snapshot_parameters, wipe
from scheduler_extender.groups import wish_of
from scheduler_extender.wire import Meta, OwnerReference, Pod
from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import install_crds, install_snapshot_crds
from tests.rigs.cluster.manifests import DEPLOY, MANIFESTS, apply_object, collection_of, install, read
from ullage.kube.device_class import DeviceClassObject
from ullage.storage_classes import DRIVER, device_class_name

STRICT = "?" + urlencode({"dryRun": "All", "fieldValidation": "Strict"})
FILES = sorted((DEPLOY / "examples").glob("*.yaml"))
ROOK = "ceph.rook.io/"
EXAMPLES = [(file, each) for file in FILES for each in read(file)]
OURS = [(file, each) for file, each in EXAMPLES if not each["apiVersion"].startswith(ROOK)]
ROOKS = [each for _, each in EXAMPLES if each["apiVersion"].startswith(ROOK)]
ROOK_CRDS = os.environ.get("ULLAGE_ROOK_CRDS", "")
OF_KUBERNETES = "ConfigMap", "Secret", "Service", "PodDisruptionBudget"


@pytest.fixture(scope="module")
def admin(api_only: ControlPlane) -> Api:
    api = api_only.api()
    install(api)
    install_snapshot_crds(api)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    apply_object(api, account)  # which a controller makes that is not running here
    return api


@pytest.mark.parametrize(
    ("file", "example"), OURS, ids=lambda each: each.stem if isinstance(each, Path) else named(each)
)
def test_an_example_is_taken_as_it_is_written(admin: Api, file: Path, example: Json) -> None:
    collection = collection_of(admin, example)
    if not is_there(admin, example):  # several files have the class that they need
        admin.create(f"{collection}{STRICT}", example)
    made = apply_object(admin, example)
    if example["kind"] == "DeviceClass":
        assert made["spec"] == example["spec"]
        assert msgspec.json.decode(json.dumps(made), type=DeviceClassObject).device_class
    elif example["kind"] not in OF_KUBERNETES:
        CHECKS[example["kind"]](file, made)


def test_a_class_that_several_examples_have_is_the_same_in_all_of_them() -> None:
    """So that any two of them can be applied, in any order."""
    by_name: dict[str, Json] = {}
    for file, each in EXAMPLES:
        if each["kind"].endswith("Class"):
            assert by_name.setdefault(named(each), each) == each, file.name


def test_the_index_says_something_of_every_example() -> None:
    index = (DEPLOY / "examples" / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in FILES if f"[{file.name}]({file.name})" not in index] == []


@pytest.mark.skipif(
    not ROOK_CRDS, reason="ULLAGE_ROOK_CRDS=FILE is not given: deploy/examples/crds.yaml of github.com/rook/rook"
)
def test_rook_takes_the_cluster_that_is_made_of_our_volumes(admin: Api) -> None:
    install_crds(admin, [Path(ROOK_CRDS)])
    for namespace in {each["metadata"]["namespace"] for each in ROOKS}:
        apply_object(admin, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for each in ROOKS:
        admin.create(f"{collection_of(admin, each)}{STRICT}", each)
        assert apply_object(admin, each)["spec"] == each["spec"]


def test_what_rook_makes_claims_of_is_of_classes_that_are_there_and_spread_by_its_sets() -> None:
    """The claims are as Rook makes them: labels name the set, and nothing else of a template's labels is needed."""
    (file,) = {file for file, each in EXAMPLES if each["apiVersion"].startswith(ROOK)}
    (cluster,) = (each["spec"] for each in ROOKS if each["kind"] == "CephCluster")
    assert cluster["mon"]["volumeClaimTemplate"]["spec"]["storageClassName"] in names(file, "StorageClass")
    classes = {each["metadata"]["name"]: each["metadata"] for each in read(file) if each["kind"] == "StorageClass"}
    for device_set in cluster["storage"]["storageClassDeviceSets"]:
        (template,) = device_set["volumeClaimTemplates"]
        annotations = classes[template["spec"]["storageClassName"]]["annotations"]
        labels = {
            "ceph.rook.io/DeviceSet": device_set["name"],
            "ceph.rook.io/DeviceSetPVCId": f"{device_set['name']}-data-0",
        }
        wish = wish_of(
            ("rook-ceph", f"{device_set['name']}-data-0abcde"), labels=labels, annotations=annotations, pod=None
        )
        assert wish is not None
        assert (wish.cap, wish.replicas) == ("third", device_set["count"])


@pytest.mark.parametrize(
    "file", sorted(MANIFESTS.rglob("*.yaml")), ids=lambda file: str(file.relative_to(MANIFESTS).with_suffix(""))
)
def test_what_a_cluster_needs_is_taken_strictly_and_can_be_put_there_again(admin: Api, file: Path) -> None:
    for each in read(file):
        again = {**each, "metadata": {**each["metadata"], "name": f"x-{each['metadata']['name']}"}}
        if each["kind"] != "CustomResourceDefinition":  # its name is not for us to choose
            admin.create(f"{collection_of(admin, each)}{STRICT}", again)
        apply_object(admin, each)


def named(example: Json) -> str:
    return f"{example['kind']}-{example['metadata']['name']}"


def names(file: Path, kind: str) -> set[str]:
    """Of the objects of a kind in the very file: it can be applied alone."""
    return {each["metadata"]["name"] for each in read(file) if each["kind"] == kind}


def is_there(api: Api, example: Json) -> bool:
    return api.find(f"{collection_of(api, example)}/{example['metadata']['name']}") is not None


def storage_class(file: Path, made: Json) -> None:
    assert made["provisioner"] == DRIVER
    check_parameters(made["parameters"])
    assert device_class_name(made["parameters"]) in names(file, "DeviceClass")


def attributes_class(_file: Path, made: Json) -> None:
    assert made["driverName"] == DRIVER
    assert wipe(made["parameters"]) is not None


def snapshot_class(_file: Path, made: Json) -> None:
    assert made["driver"] == DRIVER
    check_snapshot_parameters(made.get("parameters", {}))


def claim(file: Path, made: Json, *, of: str = "") -> None:
    """Its classes are the file's, and how it wants to be spread, if it does, says something."""
    name = made["metadata"]["name"]
    assert made["spec"]["storageClassName"] in names(file, "StorageClass")
    attributes = made["spec"].get("volumeAttributesClassName")
    assert attributes is None or attributes in names(file, "VolumeAttributesClass")
    source = made["spec"].get("dataSource")
    assert source is None or source["name"] in names(file, source["kind"])
    owners = (OwnerReference(kind="StatefulSet", name=of, controller=True),) if of else ()
    pod = Pod(metadata=Meta(namespace="default", name=f"{of}-0", owner_references=owners))
    key = ("default", f"{name}-{of}-0" if of else name)
    annotations = made["metadata"].get("annotations", {})
    wish = wish_of(key, labels={}, annotations=annotations, pod=pod)
    assert (wish is not None) is bool(of or annotations)


def stateful_set(file: Path, made: Json) -> None:
    for each in made["spec"]["volumeClaimTemplates"]:
        claim(file, each, of=made["metadata"]["name"])


def pod(file: Path, made: Json) -> None:
    """Its volumes are of claims that the file has, or that are made for it."""
    for volume in made["spec"]["volumes"]:
        if named_claim := volume.get("persistentVolumeClaim"):
            assert named_claim["claimName"] in names(file, "PersistentVolumeClaim")
        if template := volume.get("ephemeral"):
            claim(file, {"metadata": {"name": volume["name"]}, "spec": template["volumeClaimTemplate"]["spec"]})


def snapshot(file: Path, made: Json) -> None:
    assert made["spec"]["volumeSnapshotClassName"] in names(file, "VolumeSnapshotClass")
    assert made["spec"]["source"]["persistentVolumeClaimName"] in names(file, "PersistentVolumeClaim")


def group_snapshot(file: Path, made: Json) -> None:
    assert made["spec"]["volumeGroupSnapshotClassName"] in names(file, "VolumeGroupSnapshotClass")
    wanted = made["spec"]["source"]["selector"]["matchLabels"].items()
    labels = [each["metadata"].get("labels", {}).items() for each in read(file) if "Claim" in each["kind"]]
    assert len([each for each in labels if wanted <= each]) > 1


CHECKS: Mapping[str, Callable[[Path, Json], None]] = {
    "StorageClass": storage_class,
    "VolumeAttributesClass": attributes_class,
    "VolumeSnapshotClass": snapshot_class,
    "VolumeGroupSnapshotClass": snapshot_class,
    "PersistentVolumeClaim": claim,
    "StatefulSet": stateful_set,
    "Pod": pod,
    "VolumeSnapshot": snapshot,
    "VolumeGroupSnapshot": group_snapshot,
}
"""What else has to be so of an object that the server took."""
