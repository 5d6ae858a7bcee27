"""The rights of our three accounts, as the API server itself sums them up."""

from __future__ import annotations

from tests.rigs.cluster.api import Api
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.manifests import CONTROLLER_ALONE, install

NAMESPACE = "ullage-system"
SEEN = ("get", "list", "watch")
CONTROLLER_MAY = [
    *((verb, "ullage.io", kind, "") for verb in SEEN for kind in ("logicalvolumes", "nodestorages", "deviceclasses")),
    *((verb, "", "nodes", "") for verb in SEEN),
    *((verb, "", "persistentvolumes", "") for verb in ("get", "list")),
    *((verb, "storage.k8s.io", "storageclasses", "") for verb in SEEN),
    *((verb, "storage.k8s.io", "csistoragecapacities", NAMESPACE) for verb in (*SEEN, "create", "patch", "delete")),
    *((verb, "coordination.k8s.io", "leases", NAMESPACE) for verb in ("get", "create", "patch")),
    *((verb, "events.k8s.io", "events", "") for verb in ("create", "patch")),
    *((verb, "", "persistentvolumeclaims", "") for verb in ("get", "delete")),  # delete: optional/node-loss.yaml
]
WRITES = ("create", "update", "patch", "delete", "deletecollection")
NOBODY_OF_OURS_MAY = [
    *((verb, "", "secrets", place) for verb in (*SEEN, *WRITES) for place in ("", NAMESPACE)),
    *((verb, "", kind, "") for verb in WRITES for kind in ("nodes", "nodes/status", "persistentvolumes", "pods")),
    *((verb, "ullage.io", "deviceclasses", "") for verb in WRITES),
    *((verb, "", "serviceaccounts/token", NAMESPACE) for verb in WRITES),
    *((verb, "rbac.authorization.k8s.io", "clusterrolebindings", "") for verb in WRITES),
]
CONTROLLER_MAY_NOT = [
    *((verb, "", "persistentvolumeclaims", "") for verb in WRITES if verb != "delete"),
    *((verb, "ullage.io", "logicalvolumes/status", "") for verb in WRITES),
    *((verb, "ullage.io", kind, "") for verb in WRITES for kind in ("nodestorages", "nodestorages/status")),
    *((verb, "storage.k8s.io", "csistoragecapacities", "kube-system") for verb in WRITES),
    *((verb, "coordination.k8s.io", "leases", "kube-system") for verb in WRITES),
]
SIDECARS_MAY = [
    *((verb, "", "persistentvolumes", "") for verb in (*SEEN, "create", "patch", "delete")),
    *((verb, "", "persistentvolumeclaims", "") for verb in (*SEEN, "update")),
    *((verb, "snapshot.storage.k8s.io", "volumesnapshots", "") for verb in (*SEEN, "update")),
    *((verb, "snapshot.storage.k8s.io", "volumesnapshotcontents", "") for verb in (*SEEN, "update", "patch")),
    *((verb, "coordination.k8s.io", "leases", NAMESPACE) for verb in ("create", "update")),
    ("patch", "", "persistentvolumeclaims/status", ""),
]
POD_MAY_NOT = [
    *((verb, "", "secrets", place) for verb in (*SEEN, *WRITES) for place in ("", NAMESPACE)),
    *((verb, "", kind, "") for verb in WRITES for kind in ("nodes", "nodes/status", "pods")),
    *((verb, "coordination.k8s.io", "leases", "kube-system") for verb in WRITES),
    *((verb, "snapshot.storage.k8s.io", "volumesnapshots", "") for verb in ("create", "delete")),
    *((verb, "ullage.io", "deviceclasses", "") for verb in WRITES),
]
AGENT_MAY = [
    *((verb, "ullage.io", kind, "") for verb in SEEN for kind in ("logicalvolumes", "nodestorages", "deviceclasses")),
    *((verb, "", "nodes", "") for verb in SEEN),
    *((verb, "events.k8s.io", "events", "") for verb in ("create", "patch")),
]
AGENT_MAY_NOT = [
    *((verb, "", "persistentvolumeclaims", "") for verb in (*SEEN, *WRITES)),
    *((verb, "coordination.k8s.io", "leases", NAMESPACE) for verb in WRITES),
]
EXTENDER_MAY = [
    *((verb, "ullage.io", kind, "") for verb in SEEN for kind in ("logicalvolumes", "nodestorages", "deviceclasses")),
    *(
        (verb, "", kind, "")
        for verb in SEEN
        for kind in ("nodes", "pods", "persistentvolumeclaims", "persistentvolumes")
    ),
    *((verb, "apps", "statefulsets", "") for verb in SEEN),
    *((verb, "storage.k8s.io", "storageclasses", "") for verb in SEEN),
    *((verb, "snapshot.storage.k8s.io", "volumesnapshotcontents", "") for verb in SEEN),
]
EXTENDER_MAY_NOT = [(verb, group, kind, "") for _, group, kind, _ in EXTENDER_MAY for verb in WRITES] + [
    *((verb, "ullage.io", kind, "") for verb in WRITES for kind in ("logicalvolumes/status", "nodestorages/status")),
    *((verb, "", kind, NAMESPACE) for verb in (*SEEN, *WRITES) for kind in ("configmaps", "pods/exec", "pods/binding")),
    *((verb, "coordination.k8s.io", "leases", NAMESPACE) for verb in WRITES),
]


def test_the_accounts_have_the_rights_that_they_need_and_no_others(api_only: ControlPlane) -> None:
    install(api_only.api())
    controller = api_only.api(api_only.token_for(NAMESPACE, CONTROLLER_ALONE))
    agent = api_only.api(api_only.token_for(NAMESPACE, "ullage-node"))
    extender = api_only.api(api_only.token_for(NAMESPACE, "ullage-extender"))
    may = [
        *((controller, each) for each in CONTROLLER_MAY),
        *((agent, each) for each in AGENT_MAY),
        *((extender, each) for each in EXTENDER_MAY),
    ]
    may_not = [
        *((controller, each) for each in (*NOBODY_OF_OURS_MAY, *CONTROLLER_MAY_NOT)),
        *((agent, each) for each in (*NOBODY_OF_OURS_MAY, *AGENT_MAY_NOT)),
        *((extender, each) for each in (*NOBODY_OF_OURS_MAY, *EXTENDER_MAY_NOT)),
    ]
    assert [each for api, each in may if not allowed(api, *each)] == []
    assert [each for api, each in may_not if allowed(api, *each)] == []


def test_the_controller_s_pod_may_besides_do_what_its_sidecars_do_and_sees_no_secrets(api_only: ControlPlane) -> None:
    install(api_only.api())
    pod = api_only.api(api_only.token_for(NAMESPACE, "ullage-controller"))
    assert [each for each in (*CONTROLLER_MAY, *SIDECARS_MAY) if not allowed(pod, *each)] == []
    assert [each for each in POD_MAY_NOT if allowed(pod, *each)] == []


def allowed(api: Api, verb: str, group: str, resource: str, namespace: str = "") -> bool:
    resource, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "namespace": namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])
