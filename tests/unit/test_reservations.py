"""What was promised to one Pod is not promised to another, and no promise lasts longer than its reason.

Time passes when a test says so. Where a request waits, another thread makes the change that it waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest

from scheduler_extender.objects import Claim
from scheduler_extender.offers import MOST_OFFERED, OFFERED_SECONDS
from scheduler_extender.reservations import BOUND_SECONDS, CHOSEN_SECONDS, GONE_SECONDS, MOST_UNSEEN
from scheduler_extender.wire import DataSource, Pod
from tests.unit.placing_doubles import EXTENT, Scene, pod, thick
from ullage.errors import GIB
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.logical_volume import LogicalVolume, Phase
from ullage.kube.meta import Meta


@pytest.fixture
def scene() -> Scene:
    """Two nodes with room for one volume of 10 GiB each."""
    made = Scene()
    made.nodes(10, 10)
    return made


NODES = ["n1", "n2"]


class LastMoment(threading.Condition):
    """A condition on which nobody sleeps: the time is up, and just before that something has happened."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__(threading.RLock())
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self._happens()
        return False


def promised(scene: Scene) -> set[tuple[str, tuple[str, ...]]]:
    return {(each.want.claim[1], tuple(each.nodes)) for each in scene.decisions.promises()}


def test_an_offer_counts_on_every_node_that_was_offered(scene: Scene) -> None:
    scene.node("n3", thick("vg0", 30))
    assert scene.fitting(scene.pod("a", "10Gi"), [*NODES, "n3"]) == [*NODES, "n3"]
    verdict = scene.decisions.filter(scene.pod("b", "10Gi"), [*NODES, "n3"])
    assert verdict.fitting == ["n3"]
    assert verdict.refused == dict.fromkeys(NODES, "what is left may go to Pods that are being placed")


def test_a_pod_that_would_fit_is_never_left_without_a_node_for_an_offer(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    assert scene.fitting(scene.pod("b", "10Gi"), NODES) == NODES


def test_a_choice_that_shows_at_the_claim_narrows_the_offer(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",))}
    verdict = scene.decisions.filter(scene.pod("b", "10Gi"), NODES)
    assert verdict.fitting == ["n2"]
    assert verdict.refused == {"n1": "fast: needs 10.0 GiB, 0 B free, 10.0 GiB promised to default/a-0"}


def test_a_claim_whose_node_is_chosen_is_not_promised_twice_when_its_pod_asks_again(scene: Scene) -> None:
    scene.node("n1", thick("vg0", 25))
    scene.pod("a", "10Gi", "1Gi")
    scene.choose("a-0", "n1")
    assert scene.fitting(pod("a", "a-0", "a-1"), NODES) == ["n1"]
    assert scene.fitting(scene.pod("b", "14Gi"), ["n1"]) == ["n1"]


def test_where_a_promise_does_not_fit_nothing_else_does(scene: Scene) -> None:
    """Either it or the report is out of date."""
    scene.pod("a", "11Gi")
    scene.choose("a-0", "n1")
    assert scene.fitting(scene.pod("b", "1Gi"), NODES) == ["n2"]


def test_where_one_claim_goes_the_others_of_its_pod_go_too(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "4Gi", "6Gi"), NODES)
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",)), ("a-1", ("n1",))}
    assert scene.fitting(scene.pod("b", "5Gi"), NODES) == ["n2"]


def test_a_choice_that_shows_at_the_pod_narrows_the_offer(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.view.put(pod("a", "a-0", node="n1"))
    assert promised(scene) == {("a-0", ("n1",))}
    assert scene.fitting(scene.pod("b", "10Gi"), NODES) == ["n2"]


def test_one_node_that_was_offered_alone_is_as_good_as_chosen(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), ["n1"])
    assert scene.fitting(scene.pod("b", "10Gi"), NODES) == ["n2"]
    assert scene.fitting(pod("a", "a-0"), ["n1"]) == ["n1"]


def test_another_try_of_a_pod_takes_the_place_of_its_last(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.fitting(pod("a", "a-0"), ["n2"])
    assert promised(scene) == {("a-0", ("n2",))}
    assert scene.decisions.preempt(scene.pod("b", "10Gi"), NODES) == {"n1"}
    assert scene.fitting(pod("a", "a-0"), NODES) == NODES
    assert scene.decisions.preempt(pod("a", "a-0"), NODES) == set(NODES)


def test_a_pod_that_fits_nowhere_is_promised_nothing(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.claim("a-0", "11Gi")
    assert scene.fitting(pod("a", "a-0"), NODES) == []
    assert promised(scene) == set()


def test_what_offers_come_to_is_forgotten_with_them(scene: Scene) -> None:
    """Or after some time no comparison would be enough, and every node were looked at one by one."""
    for number in range(20):
        scene.fitting(scene.pod(f"p{number}", "1Gi", "2Gi"), NODES)
        scene.choose(f"p{number}-0", "n1")
        if number % 2:
            scene.view.drop(Pod, ("default", f"p{number}"))
        scene.decisions.promises()
    assert scene.decisions._promises.offers.most_bytes(EXTENT, but_for=("", "")) == 0


def test_a_pod_that_is_gone_has_no_promise(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), ["n1"])
    scene.view.drop(Pod, ("default", "a"))
    assert promised(scene) == set()
    assert scene.fitting(scene.pod("b", "10Gi"), ["n1"]) == ["n1"]


def test_the_end_of_an_earlier_pod_of_the_name_is_not_the_end_of_its_successor(scene: Scene) -> None:
    scene.pod("a", "10Gi")
    scene.fitting(pod("a", "a-0", uid="second"), ["n1"])
    scene.view.drop(Pod, ("default", "a"))
    assert promised(scene) == {("a-0", ("n1",))}


def test_a_claim_that_is_gone_before_a_node_was_chosen_has_no_promise(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "4Gi", "6Gi"), ["n1"])
    scene.view.drop(Claim, ("default", "a-0"))
    assert promised(scene) == {("a-1", ("n1",))}


@pytest.mark.parametrize("is_ordered", [False, True])
def test_a_claim_that_goes_after_its_node_was_chosen_may_be_ordered_all_the_same(
    scene: Scene, *, is_ordered: bool
) -> None:
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",))}
    scene.view.drop(Claim, ("default", "a-0"))
    scene.clock.now += GONE_SECONDS - 0.1
    assert promised(scene) == {("a-0", ("n1",))}
    if is_ordered:
        scene.order("a-0", "n1", 10 * GIB)
    else:
        scene.clock.now += 0.1
    assert promised(scene) == set()
    assert scene.fitting(scene.pod("b", "10Gi"), ["n1"]) == ([] if is_ordered else ["n1"])


def gone_after_its_choice(scene: Scene, size: str = "10Gi", storage_class: str = "fast") -> None:
    scene.pod("a", size, storage_class=storage_class)
    scene.choose("a-0", "n1")
    scene.decisions.promises()
    scene.view.drop(Claim, ("default", "a-0"))


def test_where_a_gone_claim_may_yet_be_ordered_goes_who_can_go_nowhere_else(scene: Scene) -> None:
    """Nothing would ever happen, once it is not ordered, that has kube-scheduler ask again for who was refused."""
    gone_after_its_choice(scene)
    verdict = scene.decisions.filter(scene.pod("b", "10Gi"), NODES)
    assert (verdict.fitting, list(verdict.refused)) == (["n2"], ["n1"])
    assert scene.fitting(pod("c", "b-0"), ["n1"]) == ["n1"]


def test_what_gone_claims_may_yet_be_ordered_is_added_to_what_others_were_offered(scene: Scene) -> None:
    scene.node("n3", thick("vg0", 30))
    gone_after_its_choice(scene)
    scene.node("n1", thick("vg0", 30), revision=11)
    scene.fitting(scene.pod("b", "10Gi"), ["n1", "n2"])
    assert scene.fitting(scene.pod("c", "20Gi"), ["n1", "n3"]) == ["n3"]
    assert scene.fitting(pod("c", "c-0"), ["n1"]) == ["n1"]


def test_of_a_gone_claim_each_mirror_counts(scene: Scene) -> None:
    for number in (1, 2):
        scene.node(f"n{number}", thick("vg0", 30, 30), revision=11)
    gone_after_its_choice(scene, "20Gi", "safe")
    assert scene.fitting(scene.pod("b", "25Gi"), NODES) == ["n2"]


def test_a_claim_made_anew_does_not_make_one_forget_what_may_be_ordered_for_the_earlier_one(scene: Scene) -> None:
    gone_after_its_choice(scene)
    scene.claim("a-0", "10Gi", uid="second")
    assert scene.fitting(pod("a", "a-0", uid="second"), NODES) == ["n2"]


def test_an_offer_that_is_not_taken_up_ends(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), ["n1"])
    scene.clock.now += OFFERED_SECONDS - 0.1
    assert scene.fitting(scene.pod("b", "10Gi"), ["n1"]) == []
    scene.clock.now += 0.1
    assert scene.fitting(pod("b", "b-0"), ["n1"]) == ["n1"]


def test_a_choice_does_not_make_an_offer_last_longer(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "4Gi", "6Gi"), NODES)
    scene.clock.now += OFFERED_SECONDS - 0.1
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",)), ("a-1", ("n1",))}
    scene.clock.now += 0.1
    assert promised(scene) == {("a-0", ("n1",))}


def test_the_order_takes_the_place_of_the_promise(scene: Scene) -> None:
    scene.pod("a", "4Gi")
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",))}
    scene.order("a-0", "n1", 4 * GIB)
    assert promised(scene) == set()
    assert scene.fitting(scene.pod("b", "6Gi"), ["n1"]) == ["n1"]
    assert scene.fitting(scene.pod("c", "7Gi"), ["n1"]) == []


def test_an_order_that_is_taken_back_leaves_the_promise_until_the_choice_is(scene: Scene) -> None:
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    order = scene.order("a-0", "n1", 10 * GIB, phase=Phase.FAILED)
    scene.view.drop(LogicalVolume, ("", order.id))
    assert promised(scene) == {("a-0", ("n1",))}
    scene.unchoose("a-0")
    assert promised(scene) == set()
    assert scene.fitting(pod("a", "a-0"), NODES) == NODES


def test_a_claim_that_is_bound_before_its_order_is_seen_stays_promised_for_a_while(scene: Scene) -> None:
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",))}
    scene.bind("a-0")
    scene.clock.now += BOUND_SECONDS - 0.1
    assert promised(scene) == {("a-0", ("n1",))}
    scene.clock.now += 0.1
    assert promised(scene) == set()


def test_a_claim_that_is_chosen_and_bound_between_two_questions_is_promised_until_its_order_is_seen(
    scene: Scene,
) -> None:
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    scene.bind("a-0")
    assert promised(scene) == {("a-0", ("n1",))}
    scene.order("a-0", "n1", 10 * GIB)
    assert promised(scene) == set()


def test_a_claim_that_is_bound_when_its_order_is_seen_is_not_promised_again(scene: Scene) -> None:
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    scene.decisions.promises()
    scene.bind("a-0")
    order = scene.order("a-0", "n1", 10 * GIB)
    assert promised(scene) == set()
    scene.view.drop(LogicalVolume, ("", order.id))
    assert promised(scene) == set()


def test_a_choice_that_nothing_comes_of_does_not_block_for_ever(scene: Scene) -> None:
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    assert promised(scene) == {("a-0", ("n1",))}
    scene.clock.now += CHOSEN_SECONDS
    assert promised(scene) == set()
    scene.claim("a-0", "10Gi", chosen="n1")
    assert promised(scene) == set()
    scene.choose("a-0", "n2")
    assert promised(scene) == {("a-0", ("n2",))}


def test_after_a_restart_the_same_is_promised(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.choose("a-0", "n1")
    scene.pod("done", "10Gi")
    scene.choose("done-0", "n2")
    scene.order("done-0", "n2", 0)
    before = promised(scene)
    scene.decisions = scene.restarted()
    assert promised(scene) == before == {("a-0", ("n1",))}


def test_a_storage_class_that_comes_after_its_claims_makes_their_promises(scene: Scene) -> None:
    scene.claim("a-0", "10Gi", "late", chosen="n1")
    assert promised(scene) == set()
    scene.storage_class("late", "fast")
    assert promised(scene) == {("a-0", ("n1",))}


def test_what_is_remembered_of_offers_is_bounded() -> None:
    scene = Scene()
    nodes = scene.nodes(*[1000] * 1000)
    for number in range(MOST_OFFERED // 1000 + 5):
        scene.fitting(scene.pod(f"p{number}", "1Gi"), nodes)
    names = [len(promise.nodes) for promise in scene.decisions.promises()]
    assert MOST_OFFERED // 2 < sum(names) <= MOST_OFFERED


def test_an_extender_that_nobody_asks_does_not_remember_more_and_more(scene: Scene) -> None:
    for number in range(3 * MOST_UNSEEN):
        scene.claim(f"c{number}", "1Mi", chosen="n1")
        scene.claim(f"c{number}", "1Mi", chosen="n1", bound=f"pvc-uid-of-c{number}")
        scene.order(f"c{number}", "n1", 0)
    assert len(scene.decisions._promises._dirty) <= MOST_UNSEEN
    assert len(scene.decisions._promises._unbound) <= MOST_UNSEEN
    assert promised(scene) == set()


def test_two_schedulers_that_ask_at_once_are_not_given_the_same_room() -> None:
    scene = Scene(patience_seconds=20.0)
    scene.nodes(10, 10)
    first, second = scene.pod("a", "10Gi"), scene.pod("b", "10Gi")
    assert scene.fitting(first, NODES) == NODES
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(scene.fitting, second, NODES)
        scene.choose("a-0", "n2")
        assert waiting.result(10) == ["n1"]


def test_nobody_is_evicted_for_room_that_may_be_gone(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    assert scene.decisions.preempt(scene.pod("urgent", "10Gi"), NODES) == set()
    scene.choose("a-0", "n1")
    assert scene.decisions.preempt(pod("urgent", "urgent-0"), NODES) == {"n2"}


def test_a_pod_does_not_stand_in_its_own_way_beside_others(scene: Scene) -> None:
    scene.node("n1", thick("vg0", 25))
    scene.fitting(scene.pod("a", "10Gi"), ["n1"])
    scene.fitting(scene.pod("b", "10Gi"), ["n1", "n2"])
    assert scene.decisions.preempt(pod("a", "a-0"), ["n1"]) == {"n1"}


def test_an_offer_counts_as_large_as_its_volumes_will_be(scene: Scene) -> None:
    """Three volumes of one byte are three extents."""
    for node in NODES:
        scene.node(node, replace(thick("vg0", 1), free_bytes=5 * EXTENT))
    for claim in ("a-0", "a-1", "a-2"):
        scene.claim(claim, "1", mode="Block")
    scene.fitting(pod("a", "a-0", "a-1", "a-2"), NODES)
    assert scene.decisions.preempt(scene.pod("b", str(3 * EXTENT)), NODES) == set()
    assert scene.decisions.preempt(scene.pod("c", str(2 * EXTENT)), NODES) == set(NODES)


def test_a_copy_waits_for_who_may_take_the_room_beside_its_source() -> None:
    scene = Scene(patience_seconds=20.0)
    scene.nodes(30, 30)  # the copy, what is kept for it of its source while that is read, and not much beside it
    scene.claim("data", bound="pvc-uid-of-data")
    scene.order("data", "n2", 10 * GIB, phase=Phase.READY, revision=5)
    scene.claim("copy", source=DataSource(kind="PersistentVolumeClaim", name="data"))
    assert scene.fitting(scene.pod("a", "10Gi"), NODES) == NODES
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(scene.fitting, pod("b", "copy"), NODES)
        scene.choose("a-0", "n2")
        assert waiting.result(10) == []


def test_a_request_waits_for_a_claim_that_is_about_to_be_seen() -> None:
    scene = Scene(patience_seconds=20.0)
    scene.nodes(10, 9)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(scene.fitting, pod("a", "data"), NODES)
        scene.claim("data", "10Gi")
        assert waiting.result(10) == ["n1"]


def test_pods_that_share_a_claim_are_not_in_each_others_way(scene: Scene) -> None:
    scene.pod("a", "10Gi")
    assert scene.fitting(pod("a", "a-0"), ["n1"]) == ["n1"]
    assert scene.fitting(pod("twin", "a-0"), ["n1"]) == ["n1"]
    assert promised(scene) == {("a-0", ("n1",))}, "once"
    scene.choose("a-0", "n1")
    assert scene.fitting(pod("twin", "a-0"), NODES) == ["n1"]
    assert promised(scene) == {("a-0", ("n1",))}
    assert scene.fitting(scene.pod("b", "10Gi"), NODES) == ["n2"]


def test_pods_that_share_a_claim_may_each_be_offered_several_nodes() -> None:
    """Were one to wait for the other, it would do so for ever: time stands still here."""
    scene = Scene(patience_seconds=threading.TIMEOUT_MAX)
    scene.nodes(10, 10)
    scene.pod("a", "10Gi")
    assert scene.fitting(pod("a", "a-0"), NODES) == NODES
    assert scene.fitting(pod("twin", "a-0"), NODES) == ["n1"], "its share"


def test_an_order_that_is_seen_before_the_choice_takes_the_place_of_the_offer(scene: Scene) -> None:
    scene.node("n1", thick("vg0", 20))
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.order("a-0", "n1", 10 * GIB)
    assert promised(scene) == set()
    assert scene.decisions.preempt(scene.pod("b", "10Gi"), NODES) == set(NODES)
    scene.choose("a-0", "n1")
    assert promised(scene) == set()


def test_an_order_elsewhere_or_one_that_failed_leaves_an_offer_as_it_is(scene: Scene) -> None:
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    scene.order("a-0", "gone", 10 * GIB)
    scene.order("a-0", "n1", 10 * GIB, phase=Phase.FAILED)
    assert promised(scene) == {("a-0", ("n1", "n2"))}


def test_a_device_class_that_comes_after_its_claims_makes_their_promises(scene: Scene) -> None:
    scene.storage_class("late", "late")
    scene.claim("a-0", "10Gi", "late", chosen="n1")
    assert promised(scene) == set()
    spec = msgspec.Raw(b'{"type": "thick", "volumeGroups": ["vg0"]}')
    scene.view.put(DeviceClassObject(metadata=Meta(name="late"), spec=spec))
    assert promised(scene) == {("a-0", ("n1",))}


def test_what_becomes_visible_as_the_time_runs_out_counts() -> None:
    scene = Scene(patience_seconds=1.0)
    scene.view.changed = LastMoment(lambda: scene.choose("a-0", "n1"))
    scene.nodes(10, 10)
    scene.fitting(scene.pod("a", "10Gi"), NODES)
    assert scene.fitting(scene.pod("b", "10Gi"), NODES) == ["n2"]


def test_nobody_waits_for_what_is_decided() -> None:
    """Were it to wait, it would do so for ever: time stands still here."""
    scene = Scene(patience_seconds=threading.TIMEOUT_MAX)
    scene.nodes(10, 10)
    scene.pod("a", "10Gi")
    scene.choose("a-0", "n1")
    assert scene.fitting(scene.pod("b", "10Gi"), NODES) == ["n2"]
    assert scene.fitting(scene.pod("c", "11Gi"), NODES) == []
