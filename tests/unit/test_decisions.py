"""Every Pod is offered the nodes that its volumes fit, all together, and no other; and each of the others says why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from scheduler_extender import wire
from scheduler_extender.objects import Content, ContentSpec, ContentStatus, SnapshotReference
from scheduler_extender.view import View
from scheduler_extender.wire import ClaimSpec, ClaimTemplate, DataSource, Ephemeral, Pod, PodSpec, PodVolume, Requests
from tests.unit.placing_doubles import NOW, Scene, disks, files, pod, thick
from ullage.errors import GIB, MIB
from ullage.kube.logical_volume import LogicalVolume, Phase, Spec, Status
from ullage.kube.meta import Meta
from ullage.model import Problem, VolumeKind
from ullage.stock import STALE_SECONDS
from ullage.storage_classes import DRIVER


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_pod_goes_where_there_is_room(scene: Scene) -> None:
    nodes = scene.nodes(100, 9, 10)
    verdict = scene.decisions.filter(scene.pod("db", "10Gi"), nodes)
    assert verdict.fitting == ["n1", "n3"]
    assert verdict.refused == {"n2": "fast: needs 10.0 GiB, 9.0 GiB free"}


def test_a_pod_without_claims_of_ours_goes_everywhere(scene: Scene) -> None:
    scene.claim("theirs", storage_class="other")
    assert scene.fitting(pod("web"), ["n1", "n2"]) == ["n1", "n2"]
    assert scene.fitting(pod("db", "theirs"), ["n1", "virtual"]) == ["n1", "virtual"]
    assert scene.decisions.prioritize(pod("web"), ["n1", "n2"]) == [10, 10]


def test_a_node_without_an_agent_is_refused_and_says_so(scene: Scene) -> None:
    verdict = scene.decisions.filter(scene.pod("db", "10Gi"), ["virtual", "virtual"])
    assert verdict.fitting == []
    assert verdict.refused == {"virtual": "no storage agent on this node"}
    assert scene.fitting(scene.pod("other", "10Gi"), []) == []


def test_volumes_of_one_pod_fit_together_or_not_at_all(scene: Scene) -> None:
    nodes = scene.nodes(19, 20)
    verdict = scene.decisions.filter(scene.pod("db", "10Gi", "10Gi"), nodes)
    assert verdict.fitting == ["n2"]
    assert verdict.refused == {"n1": "fast: 2 volumes need 20.0 GiB together, 18.0 GiB free"}


def test_a_bound_claim_pins_its_pod(scene: Scene) -> None:
    nodes = scene.nodes(100, 100, 100)
    scene.claim("data", bound="pvc-uid-of-data")
    scene.order("data", "n3", 10 * GIB, phase=Phase.READY, revision=5)
    verdict = scene.decisions.filter(pod("db", "data"), nodes)
    assert verdict.fitting == ["n3"]
    assert verdict.refused["n1"] == "its claim data is on n3"


def test_a_claim_whose_node_is_chosen_pins_its_pod_and_does_not_count_against_it(scene: Scene) -> None:
    nodes = scene.nodes(10, 10)
    wanted = scene.pod("db", "10Gi")
    scene.choose("db-0", "n2")
    assert scene.fitting(wanted, nodes) == ["n2"]
    assert scene.fitting(wanted, nodes) == ["n2"]


def test_claims_on_two_nodes_leave_none(scene: Scene) -> None:
    nodes = scene.nodes(100, 100)
    for claim, node in (("a", "n1"), ("b", "n2")):
        scene.claim(claim, bound=f"pvc-uid-of-{claim}")
        scene.order(claim, node, GIB, phase=Phase.READY, revision=5)
    verdict = scene.decisions.filter(pod("db", "a", "b"), nodes)
    assert verdict.refused == {"n1": "its claim b is on n2", "n2": "its claim a is on n1"}


def test_a_copy_goes_where_its_source_is(scene: Scene) -> None:
    nodes = scene.nodes(100, 100)
    scene.claim("data", bound="pvc-uid-of-data")
    scene.order("data", "n2", 10 * GIB, phase=Phase.READY, revision=5)
    scene.claim("copy", source=DataSource(kind="PersistentVolumeClaim", name="data"))
    verdict = scene.decisions.filter(pod("db", "copy"), nodes)
    assert verdict.fitting == ["n2"]
    assert verdict.refused["n1"] == "PersistentVolumeClaim data is on n2"


def test_a_copy_of_a_file_goes_to_the_pool_of_its_source(scene: Scene) -> None:
    scene.node("n1", files("/small", 9), files("/large", 100))
    scene.claim("data", bound="pvc-uid-of-data")
    scene.order("data", "n1", 10 * GIB, phase=Phase.READY, revision=5, pool="/small", device_class="bulk")
    source = DataSource(kind="PersistentVolumeClaim", name="data")
    scene.claim("copy", storage_class="bulk", source=source)
    verdict = scene.decisions.filter(pod("db", "copy"), ["n1"])
    assert verdict.refused == {"n1": "bulk: needs 10.0 GiB, 9.0 GiB free"}
    scene.claim("fresh", storage_class="bulk")
    assert scene.fitting(pod("web", "fresh"), ["n1"]) == ["n1"]


def test_a_copy_of_a_thick_volume_needs_room_for_what_is_written_to_its_source_meanwhile(scene: Scene) -> None:
    scene.claim("data", bound="pvc-uid-of-data")
    scene.order("data", "n1", 10 * GIB, phase=Phase.READY, revision=5)
    scene.claim("copy", source=DataSource(kind="PersistentVolumeClaim", name="data"))
    scene.node("n1", thick("vg0", 20))
    assert scene.fitting(pod("db", "copy"), ["n1"]) == []
    scene.node("n1", thick("vg0", 21), revision=11)
    assert scene.fitting(pod("db", "copy"), ["n1"]) == ["n1"]


def test_a_restored_snapshot_is_no_smaller_than_it_was(scene: Scene) -> None:
    nodes = scene.nodes(100, 12, 100)
    scene.view.put(
        LogicalVolume(
            metadata=Meta(name="ss-1"),
            spec=Spec(node_name="n2", device_class="fast", size_bytes=0, kind=VolumeKind.SNAPSHOT),
            status=Status(phase=Phase.READY, pool="vg0", size_bytes=13 * GIB, revision=5),
        )
    )
    scene.view.put(
        Content(
            metadata=Meta(name="content"),
            spec=ContentSpec(driver=DRIVER, volume_snapshot_ref=SnapshotReference(namespace="default", name="backup")),
            status=ContentStatus(snapshot_handle="ss-1"),
        )
    )
    source = DataSource(api_group="snapshot.storage.k8s.io", kind="VolumeSnapshot", name="backup")
    scene.claim("restored", "10Gi", source=source)
    verdict = scene.decisions.filter(pod("db", "restored"), nodes)
    assert verdict.refused == {
        "n1": "VolumeSnapshot backup is on n2",
        "n2": "fast: needs 13.0 GiB, 11.7 GiB free",
        "n3": "VolumeSnapshot backup is on n2",
    }


def test_a_claim_that_somebody_else_fills_goes_anywhere(scene: Scene) -> None:
    nodes = scene.nodes(10, 10)
    scene.claim("data", source=DataSource(api_group="example.org", kind="Archive", name="a"))
    assert scene.fitting(pod("db", "data"), nodes) == nodes


def test_a_copy_of_what_is_not_there_goes_nowhere_yet(scene: Scene) -> None:
    nodes = scene.nodes(100)
    scene.claim("copy", source=DataSource(kind="PersistentVolumeClaim", name="data"))
    verdict = scene.decisions.filter(pod("db", "copy"), nodes)
    assert verdict.refused == {"n1": "claim copy: its source, PersistentVolumeClaim data, is not there yet"}


def test_a_claim_that_is_still_a_template_counts(scene: Scene) -> None:
    nodes = scene.nodes(5, 10)
    spec = ClaimSpec(storage_class_name="fast", resources=Requests(requests={"storage": "10Gi"}))
    volume = PodVolume(name="scratch", ephemeral=Ephemeral(volume_claim_template=ClaimTemplate(spec=spec)))
    wanted = Pod(metadata=wire.Meta(namespace="default", name="job"), spec=PodSpec(volumes=(volume,)))
    assert scene.fitting(wanted, nodes) == ["n2"]


def test_a_claim_that_nobody_has_made_is_waited_for_in_vain(scene: Scene) -> None:
    verdict = scene.decisions.filter(pod("db", "data"), scene.nodes(10))
    assert verdict.refused == {"n1": "its claim data is not there"}


def test_a_claim_without_a_class_is_of_the_default_one(scene: Scene) -> None:
    scene.storage_class("usual", "fast", annotations={"storageclass.kubernetes.io/is-default-class": "true"})
    scene.claim("data", storage_class=None)
    scene.claim("none", storage_class="")
    nodes = scene.nodes(9, 10)
    assert scene.fitting(pod("db", "data"), nodes) == ["n2"]
    assert scene.fitting(pod("web", "none"), nodes) == nodes


@pytest.mark.parametrize("size", ["", "0", "-1Gi", "ten"])
def test_a_size_that_is_none_is_refused_with_a_sentence(scene: Scene, size: str) -> None:
    scene.claim("data", size)
    verdict = scene.decisions.filter(pod("db", "data"), scene.nodes(10))
    assert verdict.refused["n1"].startswith("claim data: ")


def test_a_size_below_what_a_file_system_needs_is_not_taken_at_its_word(scene: Scene) -> None:
    scene.storage_class("xfs", "fast", parameters={"csi.storage.k8s.io/fstype": "xfs"})
    scene.node("n1", replace(thick("vg0", 1), free_bytes=299 * MIB))
    scene.claim("data", "1Mi", "xfs")
    assert scene.fitting(pod("db", "data"), ["n1"]) == []
    scene.claim("raw", "1Mi", "xfs", mode="Block")
    assert scene.fitting(pod("db", "raw"), ["n1"]) == ["n1"]


def test_a_class_that_names_nothing_is_refused_with_a_sentence(scene: Scene) -> None:
    scene.storage_class("odd", "gone")
    scene.claim("data", storage_class="odd")
    verdict = scene.decisions.filter(pod("db", "data"), scene.nodes(10))
    assert verdict.refused == {"n1": "claim data: StorageClass odd names no DeviceClass that there is"}


def test_a_claim_that_is_bound_as_soon_as_it_is_made_asks_for_nothing(scene: Scene) -> None:
    scene.storage_class("early", "fast", binds="Immediate")
    scene.claim("data", "500Gi", storage_class="early")
    nodes = scene.nodes(10)
    assert scene.fitting(pod("db", "data"), nodes) == nodes


def test_disks_and_mirrors_are_placed_as_the_agent_will_place_them(scene: Scene) -> None:
    scene.node("n1", disks("d", 10, 10), thick("vg0", 10, 10))
    scene.node("n2", disks("d", 10, 10, 10), thick("vg0", 30))
    scene.claim("a", "8Gi", "whole")
    scene.claim("b", "8Gi", "whole")
    scene.claim("c", "8Gi", "whole")
    scene.claim("m", "5Gi", "safe")
    assert scene.fitting(pod("three", "a", "b", "c"), ["n1", "n2"]) == ["n2"]
    verdict = scene.decisions.filter(pod("mirrored", "m"), ["n1", "n2"])
    assert verdict.fitting == ["n1"]
    assert verdict.refused["n2"].startswith("safe: needs 5.0 GiB")


def test_a_node_is_judged_anew_after_its_next_report(scene: Scene) -> None:
    nodes = scene.nodes(5)
    wanted = scene.pod("db", "10Gi")
    assert scene.fitting(wanted, nodes) == []
    scene.node("n1", thick("vg0", 10), files("/f", 1), revision=11)
    assert scene.fitting(wanted, nodes) == ["n1"]


def test_a_node_whose_pool_breaks_or_is_joined_by_another_is_judged_anew(scene: Scene) -> None:
    nodes = scene.nodes(10)
    assert scene.decisions.preempt(scene.pod("db", "10Gi"), nodes) == {"n1"}
    gone = Problem(reason="Missing", message="vg0 is not there")
    scene.node("n1", replace(thick("vg0", 10), problem=gone), revision=11)
    assert scene.decisions.filter(scene.pod("new", "9Gi"), nodes).refused == {"n1": "fast: vg0 is not there"}
    scene.node("n1", thick("vg0", 5), thick("vg1", 10), revision=12)
    assert scene.fitting(scene.pod("newer", "8Gi"), nodes) == nodes


@pytest.mark.parametrize("looks", range(8))
def test_a_report_that_grows_old_while_a_pod_is_judged_stops_nobody(looks: int) -> None:
    left = count(-looks)
    old = NOW + timedelta(seconds=STALE_SECONDS + 1)
    scene = Scene(view=View(clock=lambda: NOW if next(left) < 0 else old))
    nodes = scene.nodes(10, 10)
    verdict = scene.decisions.filter(scene.pod("a", "10Gi"), nodes)
    assert sorted([*verdict.fitting, *verdict.refused]) == nodes


def test_more_room_afterwards_is_better(scene: Scene) -> None:
    nodes = scene.nodes(20, 100, 60)
    wanted = scene.pod("db", "10Gi")
    scene.decisions.filter(wanted, nodes)
    assert scene.decisions.prioritize(wanted, nodes) == [0, 10, 5]


def test_no_eviction_makes_room_for_a_volume(scene: Scene) -> None:
    nodes = scene.nodes(9, 10)
    assert scene.decisions.preempt(scene.pod("db", "10Gi"), nodes) == {"n2"}


def test_to_explain_promises_nothing(scene: Scene) -> None:
    scene.nodes(10, 5)
    found = scene.decisions.explain(scene.pod("db", "10Gi"))
    assert [(each.node, each.fits, each.score) for each in found.nodes] == [("n1", True, 10), ("n2", False, None)]
    assert not scene.decisions.promises()
