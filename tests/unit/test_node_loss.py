"""A node's volumes are given up only when it is surely gone, for long enough, and not together with many others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.cluster.loops import NodeLossLoop
from csi.cluster.node_loss import DELETE_CLAIM, FEW_NODES, MOST_PART, ON_NODE_LOSS, NodeLoss, judge
from csi.cluster.view import ClusterView
from tests.unit.kube_doubles import ApiServer, Change
from tests.unit.loop_doubles import (
    ENOUGH_SECONDS,
    Heard,
    bound_claim,
    claim,
    node,
    nodes_of,
    persistent,
    running,
    storage,
    storage_class,
    volume,
)
from ullage.errors import ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.foreign import Node
from ullage.kube.informer import Informer
from ullage.kube.meta import CLAIMS, LOGICAL_VOLUMES, NODE_STORAGES, NODES, PERSISTENT_VOLUMES, STORAGE_CLASSES

DELAY_SECONDS = 600.0
NODE_NAMES = [f"n{number}" for number in range(8)]
names = st.sets(st.sampled_from(NODE_NAMES))


@given(wanted=names, present=names, since=st.dictionaries(st.sampled_from(NODE_NAMES), st.floats(0, 2000)))
def test_only_what_is_wanted_gone_and_late_is_due(wanted: set[str], present: set[str], since: dict[str, float]) -> None:
    verdict = judge(wanted, present, since, now=2000.0, delay_seconds=DELAY_SECONDS)
    assert verdict.since.keys() == wanted - present
    assert all(verdict.since[each] == since.get(each, 2000.0) for each in verdict.since)
    late = {each for each in wanted - present if each in since and 2000.0 - since[each] > DELAY_SECONDS}
    assert {*verdict.due, *verdict.held} == late
    gone = len(wanted - present)
    is_believed = gone <= FEW_NODES or gone * MOST_PART <= len(wanted | present)
    assert set(verdict.due) == (late if is_believed else set())


@given(looks=st.lists(st.tuples(names, st.floats(0.1, 500)), max_size=12))
def test_nobody_is_due_who_was_seen_within_the_delay(looks: list[tuple[set[str], float]]) -> None:
    now = 0.0
    since: dict[str, float] = {}
    seen = dict.fromkeys(NODE_NAMES, 0.0)
    for present, step in looks:
        now += step
        seen |= dict.fromkeys(present, now)
        verdict = judge(set(NODE_NAMES), present, since, now=now, delay_seconds=DELAY_SECONDS)
        since = dict(verdict.since)
        assert all(now - seen[each] > DELAY_SECONDS for each in (*verdict.due, *verdict.held))


@dataclass
class Watched:
    """A cluster of four nodes whose n1 has a volume with a claim, and the loop that looks at it when it is told to."""

    server: ApiServer
    view: ClusterView
    nodes: Informer[Node]
    loss: NodeLoss
    heard: Heard
    seconds: float = 0.0
    is_leader: bool = True

    def lose(self, name: str = "n1") -> None:
        self.server.remove(NODES, name)
        self.nodes.wait(name, lambda each: each is None, 10.0)

    def bring_back(self, name: str = "n1") -> None:
        self.server.put(NODES, node(name))
        self.nodes.wait(name, lambda each: each is not None, 10.0)

    def pass_by(self, seconds: float) -> None:
        self.loss.check()
        self.seconds += seconds
        self.loss.check()

    @property
    def is_kept(self) -> bool:
        return "pvc-1" in self.server.all(LOGICAL_VOLUMES)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, _, reason in self.heard.events]


@contextmanager
def watched(server: ApiServer) -> Iterator[Watched]:
    for name in ("n1", "n2", "n3", "n4"):
        server.put(NODES, node(name))
    view, nodes, heard = ClusterView(Api(server)), nodes_of(server), Heard()
    cluster: Watched
    loss = NodeLoss(
        Api(server),
        view,
        nodes,
        heard,
        delay_seconds=DELAY_SECONDS,
        may_act=lambda: cluster.is_leader,
        clock=lambda: cluster.seconds,
    )
    cluster = Watched(server=server, view=view, nodes=nodes, loss=loss, heard=heard)
    with running(view, nodes):
        yield cluster


@pytest.fixture
def cluster() -> Iterator[Watched]:
    server = ApiServer()
    server.put(STORAGE_CLASSES, storage_class())
    bound_claim(server, "pvc-1")
    with watched(server) as cluster:
        yield cluster


def test_after_the_delay_the_volumes_of_a_node_that_is_gone_are_given_up(cluster: Watched) -> None:
    cluster.lose()
    cluster.pass_by(DELAY_SECONDS)
    assert cluster.is_kept
    cluster.pass_by(1)
    assert not cluster.is_kept
    assert cluster.heard.events == [("Node", "n1", "NodeGone"), ("LogicalVolume", "pvc-1", "NodeLost")]


def test_an_agent_is_never_asked_to_remove_the_volume(cluster: Watched) -> None:
    """Whoever sees the object condemned while it has its finalizer removes the volume: nobody ever sees that."""
    seen: list[Change] = []
    is_over = threading.Event()

    def see(change: Change) -> None:
        seen.append(change)
        if change.is_end and change.collection == LOGICAL_VOLUMES.path():
            is_over.set()

    cluster.server.watch_all(see)
    cluster.lose()
    cluster.pass_by(DELAY_SECONDS + 1)
    assert is_over.wait(ENOUGH_SECONDS)
    ours = [each for each in seen if each.collection == LOGICAL_VOLUMES.path()]
    assert not any(each.after["metadata"].get("deletionTimestamp") for each in ours if each.after)


def test_a_node_that_is_only_not_ready_is_not_lost(cluster: Watched) -> None:
    cluster.server.put(
        NODES, {"metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}
    )
    cluster.pass_by(10 * DELAY_SECONDS)
    assert cluster.is_kept
    assert cluster.heard.events == []


def test_a_node_that_comes_back_within_the_delay_begins_anew(cluster: Watched) -> None:
    cluster.lose()
    cluster.pass_by(DELAY_SECONDS - 1)
    cluster.bring_back()
    cluster.pass_by(1)
    cluster.lose()
    cluster.pass_by(DELAY_SECONDS - 1)
    assert cluster.is_kept
    assert cluster.reasons == ["NodeGone", "NodeBack", "NodeGone"]


def test_one_that_leads_no_more_does_nothing(cluster: Watched) -> None:
    cluster.lose()
    cluster.is_leader = False
    cluster.pass_by(DELAY_SECONDS + 1)
    assert cluster.is_kept
    assert cluster.server.writes == []


def test_a_new_leader_counts_from_the_moment_it_first_looks(cluster: Watched) -> None:
    loop = NodeLossLoop(
        Api(cluster.server), cluster.view, cluster.heard, delay_seconds=DELAY_SECONDS, is_leader=lambda: True
    )
    assert loop.gone is None
    cluster.lose()
    for times in (1, 2):
        loop.start()
        cluster.heard.wait_for(lambda: cluster.reasons == ["NodeGone"] * times)  # noqa: B023 - called within the turn
        loop.stop()
    assert loop.gone is None
    assert cluster.is_kept


def test_the_loop_gives_up_what_is_lost() -> None:
    server = ApiServer()
    bound_claim(server, "pvc-1")
    with watched(server) as cluster:
        loop = NodeLossLoop(Api(server), cluster.view, cluster.heard, delay_seconds=0.2, is_leader=lambda: True)
        loop.start()
        cluster.lose()
        server.wait_until(lambda: server.all(LOGICAL_VOLUMES) == {})
        loop.stop()


def test_a_node_that_the_api_server_has_after_all_keeps_its_volumes(cluster: Watched) -> None:
    """The cache says that it is gone; the server is asked before anything is done."""

    def come_back(method: str, path: str) -> None:
        if (method, path) == ("GET", NODES.path("n1")):
            cluster.server.put(NODES, node("n1"))

    cluster.server.before = come_back
    cluster.lose()
    cluster.pass_by(DELAY_SECONDS + 1)
    assert cluster.is_kept


def test_an_api_server_that_does_not_answer_says_of_nobody_that_he_is_gone(cluster: Watched) -> None:
    def fail(method: str, path: str) -> None:
        if (method, path) == ("GET", NODES.path("n1")):
            raise ApiUnavailableError("away")

    cluster.lose()
    cluster.server.before = fail
    cluster.pass_by(DELAY_SECONDS + 1)
    assert cluster.is_kept
    assert cluster.server.writes == []


def test_a_node_whose_agent_still_reports_is_not_lost() -> None:
    server = ApiServer()
    bound_claim(server, "pvc-1")
    server.put(NODE_STORAGES, storage("n1"))
    with watched(server) as cluster:
        cluster.lose()
        cluster.pass_by(DELAY_SECONDS + 1)
        assert cluster.is_kept


def test_when_many_nodes_vanish_at_once_nothing_is_done_and_that_is_said() -> None:
    server = ApiServer()
    bound_claim(server, "pvc-1")
    for name in ("n2", "n3"):
        server.put(LOGICAL_VOLUMES, volume(f"of-{name}", name))
    with watched(server) as cluster:
        for name in ("n1", "n2", "n3"):
            cluster.lose(name)
        cluster.pass_by(DELAY_SECONDS + 1)
        cluster.pass_by(DELAY_SECONDS)
        assert len(server.all(LOGICAL_VOLUMES)) == 3
        assert cluster.reasons.count("NodeLossHeld") == 3
        cluster.bring_back("n2")
        cluster.pass_by(1)
        assert server.all(LOGICAL_VOLUMES).keys() == {"of-n2"}


@pytest.mark.parametrize("where", ["claim", "class"])
def test_a_claim_that_has_opted_in_is_deleted_before_its_volume_is_given_up(where: str) -> None:
    server = ApiServer()
    wish = {ON_NODE_LOSS: DELETE_CLAIM}
    opted = storage_class()
    opted.metadata.annotations.update(wish if where == "class" else {})
    server.put(STORAGE_CLASSES, opted)
    bound_claim(server, "pvc-1", annotations=wish if where == "claim" else {})
    with watched(server) as cluster:
        cluster.lose()
        cluster.pass_by(DELAY_SECONDS + 1)
        assert server.find(CLAIMS, "data", namespace="db") is None
        assert [path for method, path in server.writes if method == "DELETE"] == [
            CLAIMS.path("data", namespace="db"),
            LOGICAL_VOLUMES.path("pvc-1"),
        ]
        assert cluster.reasons == ["NodeGone", "NodeLost", "NodeLost"]


@pytest.mark.parametrize("why", ["no wish", "its own word", "another volume", "another claim", "another driver's"])
def test_any_other_claim_is_left_alone(why: str) -> None:
    server = ApiServer()
    wish = {ON_NODE_LOSS: DELETE_CLAIM}
    server.put(STORAGE_CLASSES, storage_class())
    bound_claim(server, "pvc-1", annotations=wish)
    if why == "no wish":
        server.put(CLAIMS, claim("pvc-1", annotations={ON_NODE_LOSS: "keep"}), namespace="db")
    elif why == "its own word":
        opted = storage_class()
        opted.metadata.annotations.update(wish)
        server.put(STORAGE_CLASSES, opted)
        server.put(CLAIMS, claim("pvc-1", annotations={ON_NODE_LOSS: "keep"}), namespace="db")
    elif why == "another volume":
        server.put(CLAIMS, claim("pvc-2", annotations=wish), namespace="db")
    elif why == "another claim":
        server.put(PERSISTENT_VOLUMES, persistent("pvc-1", claim_uid="an earlier one's"))
    else:
        server.put(PERSISTENT_VOLUMES, persistent("pvc-1", "another-handle", claim_uid="claim-uid"))
    with watched(server) as cluster:
        cluster.lose()
        cluster.pass_by(DELAY_SECONDS + 1)
        assert not cluster.is_kept
        assert server.find(CLAIMS, "data", namespace="db") is not None


def test_one_that_is_condemned_already_is_let_go(cluster: Watched) -> None:
    Api(cluster.server).delete(LOGICAL_VOLUMES, "pvc-1")
    assert cluster.is_kept
    cluster.lose()
    cluster.pass_by(DELAY_SECONDS + 1)
    assert not cluster.is_kept
