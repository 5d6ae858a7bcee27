"""YAML as `kubectl apply` would put it into a cluster."""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.host import RigError

DEPLOY = Path(__file__).parents[3] / "deploy"
MANIFESTS = DEPLOY / "manifests"
ESTABLISH_SECONDS = 30.0
POLL_SECONDS = 0.1
FIRST = ("Namespace", "CustomResourceDefinition")
OF_KUBELETS = ("Deployment", "DaemonSet", "PodDisruptionBudget")
"""Without kubelets their Pods would only take nodes' room; the rig starts their programs itself."""
CONTROLLER_ALONE = "controller-alone"
"""An account with the rights of our controller, and without those of the sidecars that share its Pod and its account:
what runs as this one needs no others."""
NAMESPACE = "ullage-system"
RBAC = "rbac.authorization.k8s.io"


def read(path: Path) -> list[dict[str, Any]]:
    """The objects in a file, or in all YAML files of a directory, in the order in which they can be made."""
    paths = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    found = [each for file in paths for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]
    objects = [each for each in found if "kind" in each]
    return sorted(objects, key=lambda each: each["kind"] not in FIRST)


def apply(api: Api, path: Path) -> list[Json]:
    """Make what is in a file or directory, or make it so; definitions can be used then. Raises Refusal, RigError."""
    return [apply_object(api, each) for each in read(path)]


def apply_object(api: Api, thing: dict[str, Any]) -> Json:
    """Make an object, or make it so; raises Refusal, RigError."""
    collection = collection_of(api, thing)
    one = f"{collection}/{thing['metadata']['name']}"
    try:
        made = api.create(collection, thing)
    except Refusal as refusal:
        if refusal.status != HTTPStatus.CONFLICT:
            raise
        version = api.get(one)["metadata"]["resourceVersion"]
        made = api.replace(one, {**thing, "metadata": {**thing["metadata"], "resourceVersion": version}})
    if thing["kind"] == "CustomResourceDefinition":
        api.until(one, _is_established, ESTABLISH_SECONDS)
    return made


def collection_of(api: Api, thing: dict[str, Any]) -> str:
    """The path of the objects of its kind, in its namespace; raises RigError when the server knows no such kind."""
    version = thing["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    deadline = time.monotonic() + ESTABLISH_SECONDS
    while (known := _known(api, root, thing["kind"])) is None:  # of a new definition the server tells a little later
        if time.monotonic() > deadline:
            raise RigError(f"the API server has no {thing['kind']} in {version}")
        time.sleep(POLL_SECONDS)
    namespace = f"/namespaces/{thing['metadata'].get('namespace', 'default')}" if known["namespaced"] else ""
    return f"{root}{namespace}/{known['name']}"


def install(api: Api) -> None:
    """All that a cluster needs of Ullage but its programs, as an admin makes it; and the rights for lost nodes.

    And CONTROLLER_ALONE.
    """
    for path in (*sorted(MANIFESTS.glob("*.yaml")), MANIFESTS / "optional" / "node-loss.yaml"):
        for each in read(path):
            if each["kind"] not in OF_KUBELETS:
                apply_object(api, each)
    account = {"name": CONTROLLER_ALONE, "namespace": NAMESPACE}
    apply_object(api, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    for kind, role in (
        ("ClusterRole", "ullage-controller"),
        ("ClusterRole", "ullage-controller-node-loss"),
        ("Role", "ullage-controller"),
    ):
        binding = {
            "apiVersion": f"{RBAC}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": f"alone-{role}", **({"namespace": NAMESPACE} if kind == "Role" else {})},
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", **account}],
        }
        apply_object(api, binding)


def _known(api: Api, root: str, kind: str) -> Json | None:
    found = api.find(root)
    resources = found["resources"] if found else []
    return next((each for each in resources if each["kind"] == kind and "/" not in each["name"]), None)


def _is_established(definition: Json) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
