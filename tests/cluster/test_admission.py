"""Who may write what, as the real API server sees it: an agent its own node's objects, the controller its orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import pytest

from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.manifests import install
from tests.rigs.host import RigError

OURS = "/apis/ullage.io/v1alpha1"
ORDERS, REPORTS = f"{OURS}/logicalvolumes", f"{OURS}/nodestorages"
NODES = "/api/v1/nodes"
NAMESPACE = "ullage-system"
FINALIZER = "ullage.io/logical-volume"
ACKNOWLEDGED = "acknowledged.ullage.io/pvc-9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """Who asks."""

    admin: Api
    agent: Api
    """Of node n1."""
    nobody: Api
    """The agents' account without a node in its token."""
    controller: Api


@pytest.fixture(scope="module")
def cast(api_only: ControlPlane) -> Cast:
    admin = api_only.api()
    install(admin)
    for name in ("n1", "n2"):
        admin.create(NODES, {"metadata": {"name": name}})
    found = Cast(
        admin=admin,
        agent=api_only.api(api_only.token_for(NAMESPACE, "ullage-node", "n1")),
        nobody=api_only.api(api_only.token_for(NAMESPACE, "ullage-node")),
        controller=api_only.api(api_only.token_for(NAMESPACE, "ullage-controller")),
    )
    admin.create(ORDERS, order("early", "n1"))
    wait_for_policy(found)
    return found


def wait_for_policy(cast: Cast) -> None:
    """A policy is known some time after it was made."""
    for _ in range(300):
        try:
            cast.nobody.patch(f"{ORDERS}/early/status", {"status": {}})
        except Refusal as refusal:
            if "names no node" in refusal.message:
                return
    raise RigError("the policy is not in force")


def order(name: str, node: str, **spec: object) -> Json:
    return {
        "apiVersion": "ullage.io/v1alpha1",
        "kind": "LogicalVolume",
        "metadata": {"name": name, "finalizers": [FINALIZER], "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"nodeName": node, "deviceClass": "fast", "sizeBytes": 1 << 30, **spec},
    }


def report(cast: Cast, name: str, **metadata: object) -> Json:
    uid = cast.admin.get(f"{NODES}/{name}")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    return {
        "apiVersion": "ullage.io/v1alpha1",
        "kind": "NodeStorage",
        "metadata": {"name": name, "ownerReferences": [owner], **metadata},
    }


@pytest.fixture
def orders(cast: Cast) -> Iterator[tuple[str, str]]:
    """An order on n1, one on n2; gone afterwards."""
    for node in ("n1", "n2"):
        cast.admin.create(ORDERS, order(f"on-{node}", node))
    yield "on-n1", "on-n2"
    for name in ("on-n1", "on-n2"):
        if cast.admin.find(f"{ORDERS}/{name}"):
            cast.admin.patch(f"{ORDERS}/{name}", {"metadata": {"finalizers": []}})
            cast.admin.delete(f"{ORDERS}/{name}")


@pytest.fixture
def reports(cast: Cast) -> Iterator[None]:
    """Of n1 and of n2; gone afterwards."""
    for node in ("n1", "n2"):
        cast.admin.create(REPORTS, report(cast, node, labels={ACKNOWLEDGED: "yes"}))
    yield
    for node in ("n1", "n2"):
        cast.admin.delete(f"{REPORTS}/{node}")


def refused(what: Callable[[], object], sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence) as refusal:
        what()
    assert refusal.value.status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY}


def test_an_agent_writes_the_status_of_its_own_nodes_orders(cast: Cast, orders: tuple[str, str]) -> None:
    mine, other = orders
    status = {"status": {"phase": "Ready", "sizeBytes": 1 << 30}}
    assert cast.agent.patch(f"{ORDERS}/{mine}/status", status)["status"]["phase"] == "Ready"
    refused(lambda: cast.agent.patch(f"{ORDERS}/{other}/status", status), "volume on-n2 is not on n1")
    assert "status" not in cast.admin.get(f"{ORDERS}/{other}")


def test_an_agent_lets_an_order_go_that_is_to_be_deleted_and_only_its_own(cast: Cast, orders: tuple[str, str]) -> None:
    mine, other = orders
    let_go: Json = {"metadata": {"finalizers": []}}
    refused(lambda: cast.agent.patch(f"{ORDERS}/{mine}", let_go), "an order that is to be deleted")
    for name in orders:
        cast.admin.delete(f"{ORDERS}/{name}")
    refused(lambda: cast.agent.patch(f"{ORDERS}/{other}", let_go), "is not on n1")
    assert cast.admin.find(f"{ORDERS}/{other}")
    cast.agent.patch(f"{ORDERS}/{mine}", let_go)
    assert cast.admin.find(f"{ORDERS}/{mine}") is None


def test_an_agent_takes_no_finalizer_off_but_its_own(cast: Cast, orders: tuple[str, str]) -> None:
    mine, _ = orders
    cast.admin.patch(f"{ORDERS}/{mine}", {"metadata": {"finalizers": [FINALIZER, "example.com/backup"]}})
    cast.admin.delete(f"{ORDERS}/{mine}")
    for finalizers in ([], [FINALIZER], [FINALIZER, "example.com/backup", "example.com/mine"]):
        change = {"metadata": {"finalizers": finalizers}}
        refused(lambda change=change: cast.agent.patch(f"{ORDERS}/{mine}", change), "finalizer|is not 'ullage.io")  # type: ignore[misc] # a lambda's default
    cast.agent.patch(f"{ORDERS}/{mine}", {"metadata": {"finalizers": ["example.com/backup"]}})


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {"sizeBytes": 2 << 30}},
        {"spec": {"wipe": "none"}},
        {"spec": {"limitBytes": 4 << 30}},
        {"metadata": {"labels": {"a": "z"}}},
        {"metadata": {"labels": {"ullage.io/acknowledged": ""}}},
        {"metadata": {"annotations": {"ullage.io/recovered": "xfs"}}},
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "1"}]}},
    ],
    ids=str,
)
def test_an_agent_changes_nothing_of_an_order(cast: Cast, orders: tuple[str, str], change: Json) -> None:
    refused(lambda: cast.agent.patch(f"{ORDERS}/{orders[0]}", change), "nothing else")


def test_an_agent_neither_makes_nor_deletes_orders(cast: Cast, orders: tuple[str, str]) -> None:
    refused(lambda: cast.agent.create(ORDERS, order("new", "n1")), "cannot create")
    refused(lambda: cast.agent.delete(f"{ORDERS}/{orders[0]}"), "cannot delete")
    refused(lambda: cast.agent.delete(ORDERS), "cannot deletecollection")
    refused(lambda: cast.agent.replace(f"{ORDERS}/{orders[0]}", order("on-n1", "n1")), "cannot update")


def test_an_agent_makes_its_own_report_with_its_node_as_the_owner_and_no_other(cast: Cast) -> None:
    mine = report(cast, "n1")
    refused(lambda: cast.agent.create(REPORTS, report(cast, "n2")), "not the report of n1")
    refused(lambda: cast.agent.create(REPORTS, {**mine, "metadata": {"name": "n1"}}), "is owned by its Node, n1")
    wrong = {
        **mine,
        "metadata": {**mine["metadata"], "ownerReferences": report(cast, "n2")["metadata"]["ownerReferences"]},
    }
    refused(lambda: cast.agent.create(REPORTS, wrong), "is owned by its Node, n1")
    knowing = report(cast, "n1", labels={ACKNOWLEDGED: ""})
    refused(lambda: cast.agent.create(REPORTS, knowing), "a person says what is known")
    assert cast.agent.create(REPORTS, mine)["metadata"]["name"] == "n1"
    cast.admin.delete(f"{REPORTS}/n1")


@pytest.mark.usefixtures("reports")
def test_an_agent_writes_the_status_of_its_own_report(cast: Cast) -> None:
    status = {"status": {"revision": 5, "pools": []}}
    assert cast.agent.patch(f"{REPORTS}/n1/status", status)["status"]["revision"] == 5
    refused(lambda: cast.agent.patch(f"{REPORTS}/n2/status", status), "not the report of n1")
    for name in ("n1", "n2"):
        refused(lambda name=name: cast.agent.delete(f"{REPORTS}/{name}"), "cannot delete")  # type: ignore[misc] # a lambda's default
        labels: Json = {"metadata": {"labels": {ACKNOWLEDGED: None}}}
        refused(lambda name=name, labels=labels: cast.agent.patch(f"{REPORTS}/{name}", labels), "cannot patch")  # type: ignore[misc] # the same


def test_a_token_of_no_node_writes_nothing(cast: Cast, orders: tuple[str, str]) -> None:
    refused(lambda: cast.nobody.patch(f"{ORDERS}/{orders[0]}/status", {"status": {}}), "names no node")
    refused(lambda: cast.nobody.create(REPORTS, report(cast, "n1")), "names no node")


DENIED = "'ullage-node-writes' denied request"
RIGHTS_TOO_WIDE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "too-wide"},
    "rules": [{"apiGroups": ["ullage.io"], "resources": ["*"], "verbs": ["*"]}],
}


@pytest.fixture
def too_wide(cast: Cast) -> Iterator[None]:
    """The agents' account may do everything with our objects: what holds then is the policy's alone."""
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    subject = {"kind": "ServiceAccount", "name": "ullage-node", "namespace": NAMESPACE}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "too-wide"}
    cast.admin.create(f"{rbac}/clusterroles", RIGHTS_TOO_WIDE)
    cast.admin.create(
        f"{rbac}/clusterrolebindings",
        {"metadata": {"name": "too-wide"}, "roleRef": reference, "subjects": [subject]},
    )
    yield
    cast.admin.delete(f"{rbac}/clusterrolebindings/too-wide")
    cast.admin.delete(f"{rbac}/clusterroles/too-wide")


@pytest.mark.usefixtures("too_wide", "reports")
def test_whatever_rights_its_account_has_an_agent_keeps_to_its_node(cast: Cast, orders: tuple[str, str]) -> None:
    mine, other = orders
    agent = cast.agent
    attempts: dict[str, Callable[[], Any]] = {
        "create an order": lambda: agent.create(ORDERS, order("new", "n1")),
        "create another's order": lambda: agent.create(ORDERS, order("new", "n2")),
        "delete an order": lambda: agent.delete(f"{ORDERS}/{mine}"),
        "delete another's order": lambda: agent.delete(f"{ORDERS}/{other}"),
        "delete all orders": lambda: agent.delete(ORDERS),
        "change another's order": lambda: agent.patch(f"{ORDERS}/{other}", {"spec": {"sizeBytes": 2 << 30}}),
        "write another's status": lambda: agent.patch(f"{ORDERS}/{other}/status", {"status": {"phase": "Failed"}}),
        "delete its report": lambda: agent.delete(f"{REPORTS}/n1"),
        "delete another's report": lambda: agent.delete(f"{REPORTS}/n2"),
        "delete all reports": lambda: agent.delete(REPORTS),
        "write another's report": lambda: agent.patch(f"{REPORTS}/n2/status", {"status": {"revision": 1}}),
        "acknowledge": lambda: agent.patch(f"{REPORTS}/n1", {"metadata": {"labels": {ACKNOWLEDGED + "0": ""}}}),
        "forget": lambda: agent.patch(f"{REPORTS}/n1", {"metadata": {"labels": {ACKNOWLEDGED: None}}}),
        "make a class": lambda: agent.create(
            f"{OURS}/deviceclasses",
            {
                "apiVersion": "ullage.io/v1alpha1",
                "kind": "DeviceClass",
                "metadata": {"name": "own"},
                "spec": {"type": "file", "directory": "/etc"},
            },
        ),
    }
    answers = {what: answer(attempt) for what, attempt in attempts.items()}
    assert {what: said for what, said in answers.items() if DENIED not in said or "resulted in error" in said} == {}


def answer(attempt: Callable[[], object]) -> str:
    try:
        return f"done: {attempt()}"
    except Refusal as refusal:
        return refusal.message


def test_the_controller_orders_grows_and_lets_go(cast: Cast) -> None:
    made = cast.controller.create(ORDERS, order("pvc-1", "n1"))
    cast.controller.patch(f"{ORDERS}/pvc-1", {"spec": {"sizeBytes": 2 << 30, "wipe": "zero"}})
    refused(lambda: cast.controller.patch(f"{ORDERS}/pvc-1/status", {"status": {"phase": "Ready"}}), "cannot patch")
    cast.controller.patch(f"{ORDERS}/pvc-1", {"metadata": {"uid": made["metadata"]["uid"], "finalizers": []}})
    cast.controller.delete(f"{ORDERS}/pvc-1")
    assert cast.admin.find(f"{ORDERS}/pvc-1") is None
