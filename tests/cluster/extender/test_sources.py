"""What a volume begins as decides on its Pod's node; and claims that are made for a Pod alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.cluster import things
from tests.cluster.extender.crowd import VOLUME_BYTES, Crowd
from tests.cluster.kubelet import PODS
from tests.cluster.things import SNAPSHOTS

SOURCE_NODE = "n00"
"""One of those with least room: by that alone nothing goes there."""


@pytest.fixture(name="source")
def a_volume_with_a_snapshot(crowd: Crowd) -> Crowd:
    crowd.scene.claim("origin", str(VOLUME_BYTES), node=SOURCE_NODE)
    crowd.scene.wait_bound("origin")
    crowd.scene.objects.create(SNAPSHOTS, things.snapshot("taken", "origin"))
    crowd.scene.objects.until(f"{SNAPSHOTS}/taken", lambda it: it.get("status", {}).get("readyToUse"))
    return crowd


@pytest.mark.parametrize(
    "source_of", [things.of_snapshot("taken"), things.of_claim("origin")], ids=lambda it: it["kind"]
)
def test_a_copy_s_pod_goes_where_its_source_is_although_other_nodes_have_more_room(
    source: Crowd, source_of: Mapping[str, str]
) -> None:
    before = source.refused()
    for number in range(2):
        source.scene.claim(f"copy-{number}", str(VOLUME_BYTES), source=source_of, pod=True)
    source.scene.wait_bound("copy-0", "copy-1")
    assert {source.scene.node_of(f"copy-{number}").name for number in range(2)} == {SOURCE_NODE}
    assert source.refused() == before


def test_a_pod_whose_volume_is_made_for_it_alone_is_placed_like_any_other(crowd: Crowd) -> None:
    before = crowd.refused()
    claim = things.claim("", str(VOLUME_BYTES), "fast")
    for number in range(3):
        pod = things.pod(f"brief-{number}", [])
        pod["spec"]["volumes"] = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim["spec"]}}}]
        crowd.scene.objects.create(PODS, pod)
    names = [f"brief-{number}-scratch" for number in range(3)]
    crowd.scene.wait_bound(*names)
    for number in range(3):
        assert crowd.scene.place_of(f"brief-{number}") == crowd.scene.node_of(names[number])
    assert crowd.refused() == before
