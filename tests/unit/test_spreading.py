"""How a group lies in a cluster: a member is where its volume is, else where it is promised, else perhaps anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_extender.groups import CAP, GROUP, KEY, MODE, REPLICAS
from scheduler_extender.objects import SELECTED_NODE, Claim, StatefulSet, StatefulSetSpec
from scheduler_extender.score import emptiest_first
from scheduler_extender.spreading import MOST_LEVELS, NOBODY, Domains, Spread, Spreads, fills_of
from scheduler_extender.view import View
from scheduler_extender.wire import (
    ClaimSource,
    ClaimSpec,
    ClaimTemplate,
    Ephemeral,
    OwnerReference,
    Pod,
    PodSpec,
    PodVolume,
)
from scheduler_extender.wire import Meta as PodMeta
from ullage.errors import InvalidRequestError
from ullage.kube.foreign import Node, StorageClass
from ullage.kube.logical_volume import ClaimRef, LogicalVolume, Spec
from ullage.kube.meta import Key, Meta
from ullage.spread import RACK, Level

RACK_LABEL = "topology.rook.io/rack"
CAPPED = {KEY: "rack", CAP: "quorum", REPLICAS: "5"}
NODES = ["r1-a", "r1-b", "r2-a", "r2-b", "nowhere"]


class Cluster:
    """Two racks with two nodes each, and a node in none."""

    def __init__(self) -> None:
        self.view = View()
        self.spreads = Spreads(self.view)
        self.put(StorageClass(metadata=Meta(name="fast"), provisioner="ullage.io"))
        self.put(StorageClass(metadata=Meta(name="cloud"), provisioner="example.com"))
        for name in NODES:
            rack = {} if name == "nowhere" else {RACK_LABEL: name[:2]}
            self.put(Node(metadata=Meta(name=name, labels=rack)))

    def put(self, found: Claim | Node | StorageClass | LogicalVolume | StatefulSet) -> None:
        self.spreads.heard(type(found), (found.metadata.namespace, found.metadata.name), found)
        self.view.put(found)

    def claim(
        self, name: str, *, annotations: Mapping[str, str] | None = None, selected: str = "", of: str = "fast"
    ) -> None:
        said = {**(annotations or {}), **({SELECTED_NODE: selected} if selected else {})}
        meta = Meta(name=name, namespace="default", uid=f"uid-{name}", annotations=said)
        self.put(Claim(metadata=meta, spec=ClaimSpec(storage_class_name=of)))

    def volume(self, claim: str, node: str) -> None:
        about = ClaimRef(namespace="default", name=claim, uid=f"uid-{claim}")
        spec = Spec(node_name=node, device_class="fast", size_bytes=1, claim_ref=about)
        self.put(LogicalVolume(metadata=Meta(name=f"pvc-{claim}"), spec=spec))

    def only(self, user: Pod, *, promised: Mapping[Key, str] = NOBODY) -> Spread:
        (found,) = self.spreads.of(user, promised=promised)
        return found


def pod(*claims: str, name: str = "web", owner: str = "") -> Pod:
    owners = (OwnerReference(kind="StatefulSet", name=owner, controller=True),) if owner else ()
    volumes = tuple(PodVolume(name=each, persistent_volume_claim=ClaimSource(claim_name=each)) for each in claims)
    return Pod(metadata=PodMeta(name=name, namespace="default", owner_references=owners), spec=PodSpec(volumes=volumes))


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def raft(cluster: Cluster, *nodes: str) -> Spread:
    """What is said to one more of a group with volumes on these nodes."""
    for number, node in enumerate(nodes):
        cluster.claim(f"raft-{number}", annotations={GROUP: "raft", **CAPPED})
        cluster.volume(f"raft-{number}", node)
    cluster.claim("new", annotations={GROUP: "raft", **CAPPED})
    return cluster.only(pod("new"))


def test_the_third_of_five_waits_where_two_racks_have_two_each(cluster: Cluster) -> None:
    full = "has 2 of 5 of default/raft, at most 2 (quorum)"
    unknown = f"it has no label {RACK_LABEL} or topology.kubernetes.io/rack, by which default/raft is spread (quorum)"
    assert raft(cluster, "r1-a", "r1-b", "r2-a").refusals(NODES) == {
        "r1-a": f"rack r1 {full}",
        "r1-b": f"rack r1 {full}",
        "nowhere": unknown,
    }
    cluster.claim("raft-3", annotations={GROUP: "raft", **CAPPED}, selected="r2-b")
    assert cluster.only(pod("new")).refusals(NODES) == {
        **{node: f"rack {node[:2]} {full}" for node in NODES[:4]},
        "nowhere": unknown,
    }


def test_a_volume_counts_without_its_pod_and_a_chosen_node_without_its_volume(cluster: Cluster) -> None:
    raft(cluster, "r1-a")
    cluster.claim("raft-1", annotations={GROUP: "raft", **CAPPED}, selected="r1-b")
    assert {"r1-a", "r1-b"} <= cluster.only(pod("new")).refusals(NODES).keys()


def test_where_the_volume_is_goes_before_where_it_was_to_be(cluster: Cluster) -> None:
    raft(cluster, "r1-a")
    cluster.claim("raft-1", annotations={GROUP: "raft", **CAPPED}, selected="r1-b")
    cluster.volume("raft-1", "r2-a")
    assert "r1-b" not in cluster.only(pod("new")).refusals(NODES)


def test_a_promise_counts_and_an_offer_only_for_the_careful(cluster: Cluster) -> None:
    raft(cluster, "r1-a")
    cluster.claim("raft-1", annotations={GROUP: "raft", **CAPPED})
    key = ("default", "raft-1")
    assert "r1-a" in cluster.only(pod("new"), promised={key: "r1-b"}).refusals(NODES)
    (spread,) = cluster.spreads.of(pod("new"), offered={key: ["r1-a", "r1-b", "r2-a"]})
    assert list(spread.undecided) == [key]
    assert "r1-a" not in spread.refusals(NODES)
    assert spread.refusals(NODES, careful=True)["r1-a"] == (
        "rack r1 has 1 of 5 of default/raft and perhaps 1 more, at most 2 (quorum)"
    )
    assert "r2-a" not in spread.refusals(NODES, careful=True)
    (spread,) = cluster.spreads.of(pod("new"), promised={key: "r2-b"}, offered={key: ["r1-b", "r2-b"]})
    assert list(spread.undecided) == []


@given(st.integers(3, 7), st.data())
def test_no_rack_has_a_majority_whoever_asks_when_and_whichever_node_is_taken(
    replicas: int, data: st.DataObject
) -> None:
    """Members ask while earlier ones have been offered nodes and taken none, and take any that they were offered."""
    cluster = Cluster()
    offered: dict[Key, list[str]] = {}
    placed: list[str] = []
    said = {GROUP: "raft", KEY: "rack", CAP: "quorum", REPLICAS: str(replicas)}

    def decide() -> None:
        key = data.draw(st.sampled_from(sorted(offered)))
        placed.append(data.draw(st.sampled_from(offered.pop(key))))
        cluster.volume(key[1], placed[-1])

    for number in range(replicas):
        while data.draw(st.booleans()) and offered:
            decide()
        cluster.claim(f"raft-{number}", annotations=said)
        (spread,) = cluster.spreads.of(pod(f"raft-{number}"), offered=offered)
        refused = spread.refusals(NODES, careful=True)
        allowed = [node for node in NODES if node not in refused]
        if allowed:
            offered["default", f"raft-{number}"] = data.draw(
                st.lists(st.sampled_from(allowed), min_size=1, unique=True)
            )
    while offered:
        decide()
    assert max(Counter(node[:2] for node in placed).values()) < replicas / 2


def test_a_pods_own_claims_never_stand_in_its_own_way(cluster: Cluster) -> None:
    spread = raft(cluster, "r1-a", "r2-a")
    assert spread.refusals(NODES[:4]) == {}
    (spread,) = cluster.spreads.of(pod("new"), promised={("default", "new"): "r1-a"})
    assert spread.refusals(NODES[:4]) == {}


def test_a_pod_whose_claim_has_its_place_is_not_spread_any_more(cluster: Cluster) -> None:
    raft(cluster, "r1-a", "r1-b")
    assert cluster.spreads.of(pod("raft-0")) == []
    cluster.claim("new", annotations={GROUP: "raft", **CAPPED}, selected="r1-a")
    assert cluster.spreads.of(pod("new")) == []


def test_two_claims_of_one_pod_in_one_group_come_together(cluster: Cluster) -> None:
    raft(cluster, "r1-a")
    cluster.claim("other", annotations={GROUP: "raft", **CAPPED})
    assert cluster.only(pod("new", "other")).refusals(NODES[:4]) == dict.fromkeys(
        ["r1-a", "r1-b"], "rack r1 has 1 of 5 of default/raft and would get 2, at most 2 (quorum)"
    )


def test_claims_in_several_groups_are_judged_group_by_group(cluster: Cluster) -> None:
    raft(cluster, "r1-a", "r1-b")
    cluster.claim("log", annotations={GROUP: "log", KEY: "host", CAP: "1"})
    cluster.claim("log-0", annotations={GROUP: "log"})
    cluster.volume("log-0", "r2-a")
    refused = [each.refusals(NODES[:4]).keys() for each in cluster.spreads.of(pod("new", "log"))]
    assert sorted(map(sorted, refused)) == [["r1-a", "r1-b"], ["r2-a"]]


def test_a_stateful_set_is_spread_by_itself_and_softly(cluster: Cluster) -> None:
    cluster.put(StatefulSet(metadata=Meta(name="pg", namespace="default"), spec=StatefulSetSpec(replicas=3)))
    for number in range(3):
        cluster.claim(f"data-pg-{number}")
    cluster.volume("data-pg-0", "r1-a")
    cluster.volume("data-pg-2", "r2-a")
    spread = cluster.only(pod("data-pg-1", name="pg-1", owner="pg"))
    assert spread.refusals(NODES) == {}
    scores = emptiest_first(fills_of([spread], NODES), [1] * 5)
    assert scores[1] == scores[3] == 10
    assert max(scores[0], scores[2], scores[4]) < 7


def test_a_hard_cap_of_a_stateful_set_goes_by_its_replicas(cluster: Cluster) -> None:
    said = {KEY: "rack", CAP: "quorum"}
    cluster.put(StatefulSet(metadata=Meta(name="pg", namespace="default"), spec=StatefulSetSpec(replicas=5)))
    for number in range(2):
        cluster.claim(f"data-pg-{number}", annotations=said)
    cluster.volume("data-pg-0", "r1-a")
    user = pod("data-pg-1", name="pg-1", owner="pg")
    assert cluster.only(user).refusals(["r1-b"]) == {}
    cluster.put(StatefulSet(metadata=Meta(name="pg", namespace="default"), spec=StatefulSetSpec(replicas=3)))
    assert cluster.only(user).refusals(["r1-b"]) == {
        "r1-b": "rack r1 has 1 of 3 of default/pg, at most 1 (quorum)",
    }


def test_a_soft_cap_refuses_nothing(cluster: Cluster) -> None:
    cluster.claim("a", annotations={GROUP: "g", CAP: "1", MODE: "soft"})
    cluster.claim("b", annotations={GROUP: "g"})
    cluster.volume("b", "r1-a")
    spread = cluster.only(pod("a"))
    assert spread.refusals(NODES) == {}
    assert spread.fills(["r1-a"]) > spread.fills(["r2-a"])


def test_a_volume_made_for_the_pod_is_spread_before_its_claim_is_there(cluster: Cluster) -> None:
    cluster.claim("b", annotations={GROUP: "g"})
    cluster.volume("b", "r1-a")
    template = ClaimTemplate(
        metadata=PodMeta(annotations={GROUP: "g", CAP: "1"}), spec=ClaimSpec(storage_class_name="fast")
    )
    volume = PodVolume(name="scratch", ephemeral=Ephemeral(volume_claim_template=template))
    user = Pod(metadata=PodMeta(name="web", namespace="default"), spec=PodSpec(volumes=(volume,)))
    assert list(cluster.only(user).refusals(["r1-a", "r1-b"])) == ["r1-a"]


def test_claims_of_other_drivers_and_unknown_ones_are_nobodys_business_here(cluster: Cluster) -> None:
    cluster.claim("cloudy", annotations={GROUP: "g", CAP: "nonsense"}, of="cloud")
    assert cluster.spreads.of(pod("cloudy", "never-seen")) == []


def test_nonsense_is_refused_once_for_the_pod(cluster: Cluster) -> None:
    cluster.claim("a", annotations={GROUP: "g", CAP: "half"})
    with pytest.raises(InvalidRequestError, match=r"spread\.ullage\.io/cap is 'half'; allowed: quorum"):
        cluster.spreads.of(pod("a"))


def test_a_claim_that_leaves_its_group_does_not_count_any_more(cluster: Cluster) -> None:
    raft(cluster, "r1-a", "r1-b")
    cluster.claim("raft-0")
    assert cluster.only(pod("new")).refusals(NODES[:4]) == {}
    cluster.claim("raft-0", annotations={GROUP: "raft"})
    assert "r1-a" in cluster.only(pod("new")).refusals(NODES[:4])
    cluster.spreads.heard(Claim, ("default", "raft-0"), None)
    cluster.view.drop(Claim, ("default", "raft-0"))
    assert cluster.only(pod("new")).refusals(NODES[:4]) == {}


def test_what_the_view_knew_before_is_known(cluster: Cluster) -> None:
    raft(cluster, "r1-a", "r1-b")
    (spread,) = Spreads(cluster.view).of(pod("new"))
    assert list(spread.refusals(NODES[:4])) == ["r1-a", "r1-b"]


def test_a_node_that_is_labelled_anew_is_in_its_new_rack(cluster: Cluster) -> None:
    assert raft(cluster, "r1-a", "r1-b").refusals(["nowhere"])["nowhere"].startswith("it has no label")
    cluster.put(Node(metadata=Meta(name="nowhere", labels={RACK_LABEL: "r1"})))
    assert cluster.only(pod("new")).refusals(["nowhere"])["nowhere"].startswith("rack r1 has 2")


def test_labels_are_read_once_and_of_few_kinds() -> None:
    read: list[str] = []

    def labels(node: str) -> Mapping[str, str]:
        read.append(node)
        return {RACK_LABEL: "r"}

    domains = Domains(labels)
    assert domains.column(RACK, ["a", "b"]) == domains.column(RACK, ["a", "b"]) == ["r", "r"]
    assert read == ["a", "b"]
    domains.forget("a")
    assert domains.rows([RACK, RACK], ["a"]) == [("r", "r")]
    assert read == ["a", "b", "a"]
    for number in range(MOST_LEVELS):
        domains.column(Level(name=str(number), labels=(str(number),)), ["a"])
    read.clear()
    domains.column(RACK, ["a"])
    assert read == ["a"]
