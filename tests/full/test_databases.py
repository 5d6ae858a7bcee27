"""PostgreSQL and Redis on volumes of ours: one member per host, and what they acknowledged is there, come what may."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.things import EVENTS, LOGICAL_VOLUMES
from tests.full.pods import PATIENCE_SECONDS, eventually, inside
from tests.full.stateful import DATABASES, Database, stateful_set
from tests.full.workloads import STORAGE_CLASS, asked, conversation, prepare
from tests.rigs.cluster.manifests import apply_object
from tests.rigs.full.cluster import Cluster

MEMBERS = 3
SETS = "/apis/apps/v1/namespaces/default/statefulsets"
ACKNOWLEDGED = 50
"""So many writes are waited for before the power is cut: it is cut among writes, not before them."""

per_database = pytest.mark.parametrize("database", DATABASES, ids=lambda each: each.name)


@pytest.fixture(scope="module")
def members(cluster: Cluster) -> Iterator[Cluster]:
    """Both StatefulSets, each member with its fixed set of values."""
    if len(cluster.nodes) < MEMBERS:
        pytest.fail(
            f"{MEMBERS} members need as many nodes: ULLAGE_FULL_NODES={MEMBERS}, or cluster-up --nodes {MEMBERS}"
        )
    prepare(cluster)
    for database in DATABASES:
        apply_object(cluster.api, stateful_set(database, STORAGE_CLASS, "1Gi", MEMBERS))
    for database in DATABASES:
        for pod in pods(database):
            asked(cluster, pod, database.is_ready)
            inside(cluster, pod, *database.fill)
    yield cluster
    for database in DATABASES:
        cluster.api.delete(f"{SETS}/{database.name}")
    for database in DATABASES:
        for pod in pods(database):
            cluster.api.until_gone(f"{PODS}/{pod}", PATIENCE_SECONDS)
            cluster.api.delete(f"{CLAIMS}/data-{pod}")
    for database in DATABASES:
        for pod in pods(database):
            cluster.api.until_gone(f"{CLAIMS}/data-{pod}", PATIENCE_SECONDS)


def pods(database: Database) -> list[str]:
    return [f"{database.name}-{number}" for number in range(MEMBERS)]


def node_of(cluster: Cluster, pod: str) -> str:
    return str(cluster.api.get(f"{PODS}/{pod}")["spec"]["nodeName"])


def order_of(cluster: Cluster, pod: str) -> dict[str, str]:
    """The volume of a member, by its object: id and node."""
    claim = cluster.api.get(f"{CLAIMS}/data-{pod}")
    volume = cluster.api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
    order = cluster.api.get(f"{LOGICAL_VOLUMES}/{volume['spec']['csi']['volumeHandle']}")
    return {"id": order["metadata"]["name"], "node": order["spec"]["nodeName"]}


@per_database
def test_no_two_members_are_on_one_host(members: Cluster, database: Database) -> None:
    hosts = {node_of(members, pod) for pod in pods(database)}
    assert len(hosts) == MEMBERS
    assert {order_of(members, pod)["node"] for pod in pods(database)} == hosts


@per_database
def test_a_member_that_finds_no_host_waits_and_its_pod_says_why(members: Cluster, database: Database) -> None:
    one_too_many = f"{database.name}-{MEMBERS}"
    members.api.patch(f"{SETS}/{database.name}", {"spec": {"replicas": MEMBERS + 1}})

    def says_why() -> list[str]:
        events = members.api.items(EVENTS)
        of_it = [each["message"] for each in events if each["involvedObject"]["name"] == one_too_many]
        return [message for message in of_it if f"{database.name}, at most 1" in message]

    eventually(members, f"an event of {one_too_many} says why", says_why)
    assert not members.api.get(f"{PODS}/{one_too_many}")["spec"].get("nodeName")
    members.api.patch(f"{SETS}/{database.name}", {"spec": {"replicas": MEMBERS}})
    members.api.until_gone(f"{PODS}/{one_too_many}", PATIENCE_SECONDS)
    members.api.delete(f"{CLAIMS}/data-{one_too_many}")


@per_database
def test_a_member_has_its_data_when_its_pod_was_deleted(members: Cluster, database: Database) -> None:
    pod = pods(database)[0]
    kept, order = asked(members, pod, database.read), order_of(members, pod)
    uid = members.api.get(f"{PODS}/{pod}")["metadata"]["uid"]
    members.api.delete(f"{PODS}/{pod}")
    members.api.until(f"{PODS}/{pod}", lambda it: it["metadata"]["uid"] != uid, PATIENCE_SECONDS)
    asked(members, pod, database.is_ready)
    assert asked(members, pod, database.read) == kept
    assert order_of(members, pod) == order
    assert node_of(members, pod) == order["node"]


def test_what_a_member_acknowledged_is_there_when_the_power_of_its_host_was_cut(members: Cluster) -> None:
    host = node_of(members, pods(DATABASES[0])[1])
    there = {each: next(pod for pod in pods(each) if node_of(members, pod) == host) for each in DATABASES}
    kept = {each: asked(members, pod, each.read) for each, pod in there.items()}
    orders = {pod: order_of(members, pod) for pod in there.values()}
    clients = {each: conversation(members, pod, *each.count) for each, pod in there.items()}
    for client in clients.values():
        assert client.stdout is not None
        for _ in range(ACKNOWLEDGED):
            assert client.stdout.readline(), "the client ended before the power was cut"

    members.nodes[host].kill()
    acknowledged = {}
    for each, client in clients.items():
        client.kill()
        acknowledged[each] = ACKNOWLEDGED + _lines_left(client)
    members.nodes[host].boot()

    for each, pod in there.items():
        asked(members, pod, each.is_ready)
        assert asked(members, pod, each.read) == kept[each]
        assert int(asked(members, pod, each.counted)) >= acknowledged[each]
        assert order_of(members, pod) == orders[pod]
    for each in DATABASES:
        for pod in pods(each):
            assert asked(members, pod, each.read).count("\n") >= 2000


def _lines_left(client: subprocess.Popen[str]) -> int:
    """Whole lines that were said and not read yet."""
    with client:
        assert client.stdout is not None
        return client.stdout.read().count("\n")
