"""What is kept is what would be worked out anew, and adding up comes to what the exact search comes to."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_extender.ahead import SLICE_NODES, Ahead
from scheduler_extender.demand import Want
from scheduler_extender.fit import Room, fit, plain, plain_after, taken
from scheduler_extender.objects import Claim
from scheduler_extender.reservations import GONE_SECONDS
from scheduler_extender.tables import MOST_TABLES
from scheduler_extender.wire import MOST_SCORE
from tests.unit.placing_doubles import BULK, CLASSES, FAST, SAFE, Scene, files, pod, thick
from ullage.capacity import available_bytes
from ullage.errors import GIB, MIB
from ullage.kube.logical_volume import LogicalVolume
from ullage.model import DeviceType, Pool, PoolName, Problem

ENOUGH_SECONDS = 10.0


@st.composite
def pools(draw: st.DrawFn) -> dict[PoolName, Pool]:
    """One or two volume groups, and files; some share a class, some are broken."""
    made = [thick("vg0", *draw(st.lists(st.integers(0, 20), min_size=1, max_size=3)))]
    if draw(st.booleans()):
        made.append(thick("vg1", draw(st.integers(0, 20)), classes=(draw(st.sampled_from((FAST, SAFE))),)))
    if draw(st.booleans()):
        made.append(files("/f", draw(st.integers(0, 20))))
    if draw(st.booleans()):
        made[0] = replace(made[0], classes=(FAST, SAFE, BULK), type=DeviceType.THICK)
    if draw(st.integers(0, 9)) == 0:
        made[0] = replace(made[0], problem=Problem(reason="Missing", message="vg0 is not there"))
    return {pool.name: pool for pool in made}


def want(device_class: str, size_bytes: int) -> Want:
    of = CLASSES[next(name for name in CLASSES if name == device_class)]
    return Want(claim=("default", "c"), device_class=of.name, size_bytes=size_bytes, layout=of.layout)


wants = st.lists(
    st.builds(want, st.sampled_from(("fast", "fast", "bulk", "safe")), st.integers(1, 12 * GIB)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(pools(), wants)
def test_adding_up_comes_to_what_the_search_comes_to(having: dict[PoolName, Pool], wanted: Sequence[Want]) -> None:
    quick = fit(wanted, Room(pools=having, before=having, plain=plain(having)))
    exact = fit(wanted, Room(pools=having, before=having, plain={}))
    assert (quick is None) == (exact is None)
    if quick is not None and exact is not None:
        assert quick.left == exact.left


@settings(max_examples=100, deadline=None)
@given(pools(), wants)
def test_adding_up_what_is_promised_comes_to_what_taking_it_comes_to(
    having: dict[PoolName, Pool], promised: Sequence[Want]
) -> None:
    quick = plain_after(promised, plain(having))
    assert quick is None or quick == plain(taken(promised, having))


@settings(max_examples=60, deadline=None)
@given(pools(), wants, st.integers(1, 5 * GIB))
def test_what_fits_beside_the_slack_fits_whichever_pool_it_wants(
    having: dict[PoolName, Pool], wanted: Sequence[Want], size_bytes: int
) -> None:
    found = fit(wanted, Room(pools=having, before=having, plain=plain(having)))
    if found is None or found.slack_bytes < size_bytes + 4 * MIB:
        return
    for device_class in ("fast", "bulk"):
        left = taken([want(device_class, size_bytes)], having)
        assert fit(wanted, Room(pools=left, before=left, plain=plain(left))) is not None


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_is_kept_is_never_older_than_what_it_is_made_of(dice: object) -> None:
    scene = Scene()
    names = ["n1", "n2", "n3"]
    wanted = [scene.pod("a", "5Gi"), scene.pod("b", "2Gi", "3Gi"), scene.pod("c", "9Gi")]
    choice = dice.choice  # type: ignore[attr-defined]  # hypothesis calls it an object
    for number in range(25):
        node, claim = choice(names), f"other-{choice('123')}"
        match choice(("report", "report", "claim", "choose", "order", "gone", "dropped", "class")):
            case "report":
                scene.node(node, thick("vg0", choice((0, 5, 9, 20))), revision=10 + number)
            case "claim":
                scene.claim(claim, choice(("1Gi", "4Gi")))
            case "choose":
                scene.claim(claim, choice(("1Gi", "4Gi")), chosen=node)
            case "order":
                scene.order(claim, node, choice((GIB, 4 * GIB)))
            case "gone":
                scene.view.drop(LogicalVolume, ("", f"pvc-uid-of-{claim}"))
            case "dropped":
                scene.view.drop(Claim, ("default", claim))
                scene.decisions.promises()
                scene.clock.now += GONE_SECONDS  # until then it is promised, which nobody can read off the view
            case "class":
                scene.storage_class("fast", "fast")
        scene.decisions.work_ahead(choice((0, 1, 3)))
        for each in wanted:
            kept, anew = scene.decisions.explain(each, names), scene.restarted().explain(each, names)
            assert kept == anew


def test_what_is_worked_out_ahead_is_every_node_that_has_changed() -> None:
    scene = Scene()
    nodes = scene.nodes(10, 10, 10)
    assert scene.decisions.work_ahead(2), "there is one more"
    assert not scene.decisions.work_ahead(2)
    tables = scene.decisions._tables
    assert tables._looked_at == set(nodes)
    scene.node("n2", thick("vg0", 20), revision=11)
    assert tables._looked_at == {"n1", "n3"}
    assert not scene.decisions.work_ahead(2)
    assert tables._looked_at == set(nodes)
    scene.view._changed_on("")
    assert not tables._looked_at
    assert not scene.decisions.work_ahead(3)
    assert tables._looked_at == set(nodes)


def test_work_is_done_ahead_as_soon_as_all_is_listed() -> None:
    scene = Scene()
    nodes = scene.nodes(*[10] * (2 * SLICE_NODES + 1))
    is_loaded, has_asked = threading.Event(), threading.Event()

    def loaded() -> bool:
        has_asked.set()
        return is_loaded.is_set()

    tables = scene.decisions._tables
    with Ahead(scene.decisions, loaded):
        assert has_asked.wait(ENOUGH_SECONDS)
        assert not tables._looked_at
        is_loaded.set()
        ends = time.monotonic() + ENOUGH_SECONDS
        while time.monotonic() < ends and len(tables._looked_at) < len(nodes):
            time.sleep(0.01)
    assert tables._looked_at == set(nodes)


def test_what_is_kept_is_bounded() -> None:
    scene = Scene()
    nodes = scene.nodes(100, 100)
    for number in range(MOST_TABLES + 10):
        scene.fitting(scene.pod(f"p{number}", f"{number + 1}Mi"), nodes)
    assert len(scene.decisions._tables._tables) == MOST_TABLES


def test_the_room_of_each_class_has_the_same_say() -> None:
    scene = Scene()
    scene.node("n1", thick("vg0", 100), files("/f", 10))
    scene.node("n2", thick("vg0", 10), files("/f", 100))
    scene.node("n3", thick("vg0", 100), files("/f", 100))
    scene.claim("a", "5Gi", "fast")
    scene.claim("b", "5Gi", "bulk")
    assert scene.decisions.prioritize(pod("db", "a", "b"), ["n1", "n2", "n3"]) == [0, 0, MOST_SCORE]


def test_what_is_left_is_said_of_the_whole_class() -> None:
    having = {pool.name: pool for pool in (thick("vg0", 10), thick("vg1", 20))}
    found = fit([want("fast", 5 * GIB)], Room(pools=having, before=having, plain=plain(having)))
    assert found is not None
    assert found.left[0].after_bytes == sum(available_bytes(pool, CLASSES[FAST].layout) for pool in having.values()) - (
        5 * GIB
    )


def test_sentences_are_not_remembered_for_every_number_that_is_enough() -> None:
    scene = Scene()
    nodes = [f"n{number}" for number in range(60)]
    for number, name in enumerate(nodes):
        scene.node(name, thick("vg0", 10 + number), files("/srv", 5))
    scene.claim("small", "1Gi")
    scene.claim("large", "10Gi", "bulk")
    assert scene.fitting(pod("a", "small", "large"), nodes) == []
    (table,) = scene.decisions._tables._tables.values()
    assert len(table.by_steps) == 1
