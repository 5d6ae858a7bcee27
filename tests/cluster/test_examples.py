"""Everything in deploy/ is taken by a real API server, strictly, and says what the driver understands."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import msgspec
import pytest

from csi.parameters import check_parameters, check_snapshot_parameters, wipe
from scheduler_extender.groups import wish_of
from scheduler_extender.wire import Meta, OwnerReference, Pod
from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import install_snapshot_crds
from tests.rigs.cluster.manifests import DEPLOY, apply_object, collection_of, install, read
from ullage.kube.device_class import DeviceClassObject
from ullage.storage_classes import DRIVER, device_class_name

STRICT = "?" + urlencode({"dryRun": "All", "fieldValidation": "Strict"})
EXAMPLES = read(DEPLOY / "examples")
STORAGE_CLASSES = {each["metadata"]["name"] for each in EXAMPLES if each["kind"] == "StorageClass"}
CLASSES = {each["metadata"]["name"] for each in EXAMPLES if each["kind"] == "DeviceClass"}


@pytest.fixture(scope="module")
def admin(api_only: ControlPlane) -> Api:
    api = api_only.api()
    install(api)
    install_snapshot_crds(api)
    return api


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_an_example_is_taken_as_it_is_written(admin: Api, example: Json) -> None:
    collection = collection_of(admin, example)
    admin.create(f"{collection}{STRICT}", example)
    made = apply_object(admin, example)
    match example["kind"]:
        case "DeviceClass":
            assert made["spec"] == example["spec"]
            assert msgspec.json.decode(json.dumps(made), type=DeviceClassObject).device_class
        case "StorageClass":
            assert made["provisioner"] == DRIVER
            check_parameters(made["parameters"])
            assert device_class_name(made["parameters"]) in CLASSES
        case "VolumeAttributesClass":
            assert made["driverName"] == DRIVER
            assert wipe(made["parameters"]) is not None
        case "PersistentVolumeClaim":
            _is_understood(made)
        case "StatefulSet":
            for each in made["spec"]["volumeClaimTemplates"]:
                _is_understood(each, of=made["metadata"]["name"])
        case _:
            assert made["driver"] == DRIVER
            check_snapshot_parameters(made.get("parameters", {}))


def _is_understood(claim: Json, *, of: str = "") -> None:
    """The StorageClass is one of the examples', and how the claim wants to be spread says something."""
    name = claim["metadata"]["name"]
    assert claim["spec"]["storageClassName"] in STORAGE_CLASSES
    owners = (OwnerReference(kind="StatefulSet", name=of, controller=True),) if of else ()
    pod = Pod(metadata=Meta(namespace="default", name=f"{of}-0", owner_references=owners))
    key = ("default", f"{name}-{of}-0" if of else name)
    assert wish_of(key, labels={}, annotations=claim["metadata"]["annotations"], pod=pod) is not None


@pytest.mark.parametrize("folder", ["namespace.yaml", "crds", "rbac", "admission", "csidriver.yaml"])
def test_what_a_cluster_needs_is_taken_strictly_and_can_be_put_there_again(admin: Api, folder: str) -> None:
    for each in read(DEPLOY / folder):
        again = {**each, "metadata": {**each["metadata"], "name": f"x-{each['metadata']['name']}"}}
        if each["kind"] != "CustomResourceDefinition":  # its name is not for us to choose
            admin.create(f"{collection_of(admin, each)}{STRICT}", again)
        apply_object(admin, each)
