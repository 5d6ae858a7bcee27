"""Scores: the whole range for whoever is at hand, in their order; a fuller domain never beats the least filled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scheduler_extender.score import (
    LEAST_OF_EMPTIEST,
    MOST_OF_FULLER,
    emptiest_first,
    ranked,
    together,
    value,
)
from ullage.errors import GIB, TIB
from ullage.model import Scoring

numbers = st.one_of(
    st.integers(-(1 << 63), 1 << 63), st.floats(-1e18, 1e18), st.floats(0, 1), st.sampled_from([0.0, 5e-324, 1.0])
)
some_values = st.lists(numbers, min_size=1, max_size=30)
fills_and_values = st.lists(st.tuples(st.integers(0, 9), numbers), min_size=1, max_size=40)


@given(some_values)
def test_the_best_has_ten_and_the_worst_nothing_and_the_order_stays(values: list[float]) -> None:
    scores = ranked(values)
    assert max(scores) == 10
    assert min(scores) == (10 if max(values) == min(values) else 0)
    for one, of_one in zip(values, scores, strict=True):
        for other, of_other in zip(values, scores, strict=True):
            assert one <= other or of_one >= of_other


@given(some_values, st.integers(0, 5), st.integers(5, 10))
def test_a_part_of_the_range_is_used_to_both_its_ends(values: list[float], least: int, most: int) -> None:
    scores = ranked(values, least=least, most=most)
    assert max(scores) == most
    assert min(scores) == (most if max(values) == min(values) else least)


def test_a_range_of_terabytes_and_one_of_megabytes_are_told_apart_alike() -> None:
    assert ranked([0, 1 * TIB, 2 * TIB, 4 * TIB]) == [0, 3, 5, 10]
    assert ranked([100 * TIB + each * (1 << 20) for each in (0, 1, 2, 4)]) == [0, 3, 5, 10]


def test_none_gives_none() -> None:
    assert ranked([]) == []
    assert emptiest_first([], []) == []


@given(fills_and_values)
def test_the_least_filled_domain_is_above_all_others_whatever_is_free_there(nodes: list[tuple[int, float]]) -> None:
    fills, values = [fill for fill, _ in nodes], [each for _, each in nodes]
    scores = emptiest_first(fills, values)
    assert max(scores) == 10
    assert all(0 <= score <= 10 for score in scores)
    if len(set(fills)) > 1:
        for fill, score in zip(fills, scores, strict=True):
            assert score >= LEAST_OF_EMPTIEST if fill == min(fills) else score <= MOST_OF_FULLER


@given(fills_and_values)
def test_a_fuller_domain_is_never_above_one_that_is_less_full(nodes: list[tuple[int, float]]) -> None:
    scores = emptiest_first([fill for fill, _ in nodes], [each for _, each in nodes])
    for (fill, room), score in zip(nodes, scores, strict=True):
        for (other_fill, other_room), other in zip(nodes, scores, strict=True):
            if fill < other_fill or (fill == other_fill and room > other_room):
                assert score >= other


@given(some_values)
def test_domains_that_are_as_full_as_each_other_leave_it_to_the_room(values: list[float]) -> None:
    assert emptiest_first([7] * len(values), values) == ranked(values)


def test_two_kinds_of_domain_share_the_range() -> None:
    assert emptiest_first([1, 1, 0, 0], [5, 9, 1, 2]) == [0, 4, 7, 10]


def test_three_kinds_of_domain_share_the_range() -> None:
    assert emptiest_first([2, 1, 1, 0, 0, 2], [5, 9, 1, 1, 2, 6]) == [0, 4, 3, 7, 10, 2]


def test_spread_takes_the_node_with_most_bytes_left() -> None:
    small = value(Scoring.SPREAD, size_bytes=GIB, after_bytes=9 * GIB, total_bytes=10 * GIB)
    large = value(Scoring.SPREAD, size_bytes=GIB, after_bytes=20 * GIB, total_bytes=100 * GIB)
    assert large > small


def test_binpack_takes_the_tightest_fit_and_tells_tight_ones_apart() -> None:
    values = [
        value(Scoring.BINPACK, size_bytes=10 * GIB, after_bytes=after * GIB, total_bytes=20 * TIB)
        for after in (1, 10, 100, 10_000)
    ]
    assert ranked(values) == [10, 5, 1, 0]


def test_binpack_finds_a_node_that_will_be_full_the_best_there_is() -> None:
    assert value(Scoring.BINPACK, size_bytes=GIB, after_bytes=0, total_bytes=GIB) == 1
    assert value(Scoring.BINPACK, size_bytes=0, after_bytes=0, total_bytes=GIB) == 1


def test_balanced_fills_small_and_large_nodes_to_the_same_share() -> None:
    """The larger one has more bytes left, and a smaller share of them."""
    small = value(Scoring.BALANCED, size_bytes=GIB, after_bytes=9 * GIB, total_bytes=10 * GIB)
    large = value(Scoring.BALANCED, size_bytes=GIB, after_bytes=20 * GIB, total_bytes=100 * GIB)
    assert small > large


def test_balanced_goes_by_what_the_volume_would_leave() -> None:
    """A node that is emptier now, and would be fuller with a volume of this size."""
    small = value(Scoring.BALANCED, size_bytes=50 * GIB, after_bytes=40 * GIB, total_bytes=100 * GIB)
    large = value(Scoring.BALANCED, size_bytes=50 * GIB, after_bytes=750 * GIB, total_bytes=1000 * GIB)
    assert large > small


def test_a_node_without_any_room_at_all_is_worth_nothing() -> None:
    assert value(Scoring.BALANCED, size_bytes=0, after_bytes=0, total_bytes=0) == 0


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=20))
def test_what_is_better_for_each_class_is_better_for_the_pod(nodes: list[tuple[float, float]]) -> None:
    values = together([[one for one, _ in nodes], [other for _, other in nodes]])
    for one, of_one in zip(nodes, values, strict=True):
        for other, of_other in zip(nodes, values, strict=True):
            if one[0] >= other[0] and one[1] >= other[1]:
                assert of_one >= of_other


def test_each_class_has_the_same_say_whatever_it_counts_in() -> None:
    assert together([[0, 4 * TIB], [0.75, 0.25]]) == [1.0, 1.0]
    assert together([[3, 4]]) == [3, 4]
    assert together([[5, 5], [1, 2]]) == [0.0, 1.0]
