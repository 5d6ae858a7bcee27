"""How many nodes a Pod is offered in a burst: never none, all when it is alone, never so many that nothing is left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler_extender.share import best, share
from tests.unit.placing_doubles import Scene, thick

NODES = [f"n{number}" for number in range(20)]


def test_a_pod_that_comes_alone_may_have_any_node() -> None:
    assert share(NODES, lambda _: 1, others=0) == len(NODES)


def test_many_nodes_with_much_room_are_all_offered_to_each_of_many() -> None:
    assert share([str(number) for number in range(5000)], lambda _: 200, others=50) == 5000


def test_what_is_scarce_is_offered_node_by_node() -> None:
    assert share(NODES, lambda _: 1, others=5) == 1


@given(st.lists(st.integers(min_value=1, max_value=14), min_size=1, max_size=30), st.integers(1, 300))
def test_however_many_pods_come_each_finds_some_room_that_no_other_was_offered_until_each_slot_is_taken(
    rooms: list[int], pods: int
) -> None:
    """`left` is the room for certain: each node without those that it was offered to."""
    left = {f"n{number}": room for number, room in enumerate(rooms)}
    served = 0
    for others in range(pods):
        nodes = [node for node, room in left.items() if room]
        if not nodes:
            break
        count = share(nodes, left.__getitem__, others)
        assert 1 <= count <= len(nodes)
        for node in best(nodes, [left[node] for node in nodes], count):
            left[node] -= 1
        served += 1
    assert served >= min(pods, sum(rooms) // 20)


def test_the_best_are_kept_and_equal_ones_as_they_were_named() -> None:
    assert best(["a", "b", "c", "d"], [3, 9, 9, 10], 2) == ["b", "d"]


def test_the_pods_of_a_burst_are_all_offered_room_at_once_though_no_choice_is_seen() -> None:
    """Nobody waits, and what was offered is never more than there is: each Pod may take any of its nodes."""
    scene = Scene(patience_seconds=0.0)
    nodes = [f"n{number}" for number in range(20)]
    for node in nodes:
        scene.node(node, thick("vg0", 101))
    offered = [scene.fitting(scene.pod(f"p{number}", "10Gi"), nodes) for number in range(60)]
    assert all(offered)
    assert all(sum(node in each for each in offered) <= 10 for node in nodes)
