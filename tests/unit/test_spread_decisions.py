"""A Pod's volumes go apart from the others of their group: by force where there is a cap, by preference where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace

from scheduler_extender import wire
from scheduler_extender.groups import CAP, DEVICE_SET, GROUP, KEY, REPLICAS
from scheduler_extender.objects import StatefulSet, StatefulSetSpec
from scheduler_extender.wire import Pod
from tests.unit.placing_doubles import Scene, pod, thick
from ullage.errors import GIB
from ullage.kube.foreign import Node
from ullage.kube.logical_volume import Phase
from ullage.kube.meta import Meta

RACK = "topology.kubernetes.io/rack"


def racks(scene: Scene, *each: int, gib: int = 100) -> list[str]:
    """So many nodes in each of the racks r1, r2, and so on."""
    nodes: list[str] = []
    for number, count in enumerate(each, start=1):
        for _ in range(count):
            nodes.append(f"n{len(nodes) + 1}")
            scene.node(nodes[-1], thick("vg0", gib))
            scene.view.put(Node(metadata=Meta(name=nodes[-1], labels={RACK: f"r{number}"})))
    return nodes


def member(scene: Scene, name: str, annotations: Mapping[str, str], labels: Mapping[str, str] | None = None) -> Pod:
    """A Pod with a claim of its name, in the group that the annotations or labels say."""
    made = scene.claim(name)
    scene.view.put(
        replace(made, metadata=replace(made.metadata, annotations=dict(annotations), labels=dict(labels or {})))
    )
    return pod(name, name)


def place(scene: Scene, wanted: Pod, nodes: Sequence[str]) -> str:
    """The node that kube-scheduler would choose, and its volume there; empty: none."""
    fitting = scene.fitting(wanted, nodes)
    if not fitting:
        return ""
    scores = scene.decisions.prioritize(wanted, fitting)
    node = fitting[scores.index(max(scores))]
    (claim, _) = wanted.claims[0]
    known = scene.view.claims["default", claim]
    scene.view.put(
        replace(
            known,
            metadata=replace(
                known.metadata, annotations={**known.metadata.annotations, "volume.kubernetes.io/selected-node": node}
            ),
        )
    )
    scene.order(claim, node, 10 * GIB)
    return node


@pytest.fixture
def scene() -> Scene:
    return Scene()


def rack_of(scene: Scene, node: str) -> str:
    return scene.view.labels(node)[RACK]


def test_six_disks_of_one_device_set_land_two_in_each_of_three_racks(scene: Scene) -> None:
    nodes = racks(scene, 4, 2, 3)
    said, labels = {KEY: "rack"}, {DEVICE_SET: "set1"}
    placed = [place(scene, member(scene, f"osd-{number}", said, labels), nodes) for number in range(6)]
    assert Counter(rack_of(scene, node) for node in placed) == {"r1": 2, "r2": 2, "r3": 2}
    assert len(set(placed)) == 6


def test_the_third_of_five_voters_does_not_go_to_a_rack_that_has_two(scene: Scene) -> None:
    nodes = racks(scene, 3, 3)
    said = {GROUP: "pg", KEY: "rack", CAP: "quorum", REPLICAS: "5"}
    placed = [place(scene, member(scene, f"pg-{number}", said), nodes) for number in range(4)]
    assert Counter(rack_of(scene, node) for node in placed) == {"r1": 2, "r2": 2}
    verdict = scene.decisions.filter(member(scene, "pg-4", said), nodes)
    assert verdict.fitting == []
    assert set(verdict.refused.values()) == {
        "rack r1 has 2 of 5 of default/pg, at most 2 (quorum)",
        "rack r2 has 2 of 5 of default/pg, at most 2 (quorum)",
    }


def test_a_volume_counts_where_it_is_although_its_pod_is_gone(scene: Scene) -> None:
    nodes = racks(scene, 1, 1)
    said = {GROUP: "pg", KEY: "rack", CAP: "1", REPLICAS: "2"}
    known = member(scene, "pg-0", said)
    scene.order("pg-0", "n1", 10 * GIB, phase=Phase.READY, revision=5)
    scene.view.drop(Pod, known.key)
    assert scene.fitting(member(scene, "pg-1", said), nodes) == ["n2"]


def test_claims_of_a_stateful_set_are_a_group_by_themselves(scene: Scene) -> None:
    nodes = racks(scene, 2, 2)
    scene.view.put(StatefulSet(metadata=Meta(namespace="default", name="web"), spec=StatefulSetSpec(replicas=4)))
    owner = wire.OwnerReference(kind="StatefulSet", name="web", controller=True)
    placed = []
    for number in range(4):
        scene.claim(f"data-web-{number}")
        made = pod(f"web-{number}", f"data-web-{number}")
        placed.append(place(scene, replace(made, metadata=replace(made.metadata, owner_references=(owner,))), nodes))
    assert sorted(placed) == nodes


def test_a_pod_that_is_held_by_its_data_is_not_refused_for_a_cap(scene: Scene) -> None:
    nodes = racks(scene, 1, 1)
    said = {GROUP: "pg", KEY: "rack", CAP: "1", REPLICAS: "2"}
    member(scene, "pg-0", said)
    scene.order("pg-0", "n1", 10 * GIB, phase=Phase.READY, revision=5)
    wanted = member(scene, "pg-1", said)
    scene.claim("log", bound="pvc-uid-of-log")
    scene.order("log", "n1", GIB, phase=Phase.READY, revision=5)
    assert scene.fitting(pod("pg-1", "pg-1", "log"), nodes) == ["n1"]
    assert scene.fitting(wanted, nodes) == ["n2"]


def test_a_cap_that_is_none_is_said_and_nothing_is_guessed(scene: Scene) -> None:
    nodes = racks(scene, 1)
    verdict = scene.decisions.filter(member(scene, "pg-0", {GROUP: "pg", CAP: "most"}), nodes)
    assert verdict.fitting == []
    assert "annotation spread.ullage.io/cap is 'most'" in verdict.refused["n1"]


def test_the_next_of_a_group_waits_until_it_is_known_where_the_last_one_goes() -> None:
    scene = Scene(patience_seconds=20.0)
    nodes = racks(scene, 2, 2)
    said = {GROUP: "pg", KEY: "rack", CAP: "1", REPLICAS: "2"}
    first, second = member(scene, "pg-0", said), member(scene, "pg-1", said)
    assert scene.fitting(first, nodes) == nodes
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(scene.fitting, second, nodes)
        scene.order("pg-0", "n3", 10 * GIB)
        known = scene.view.claims["default", "pg-0"]
        scene.view.put(replace(known, spec=replace(known.spec, volume_name="pvc-uid-of-pg-0")))
        assert waiting.result(10) == ["n1", "n2"]


def test_no_cap_is_passed_because_nobody_has_decided_in_time(scene: Scene) -> None:
    nodes = racks(scene, 2, 2)
    said = {GROUP: "pg", KEY: "rack", CAP: "1", REPLICAS: "2"}
    scene.fitting(member(scene, "pg-0", said), nodes)
    verdict = scene.decisions.filter(member(scene, "pg-1", said), nodes)
    assert verdict.fitting == []
    assert verdict.refused["n1"] == "rack r1 has 0 of 2 of default/pg and perhaps 1 more, at most 1 (cap 1)"
