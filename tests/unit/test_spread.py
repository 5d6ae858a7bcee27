"""Spread: a quorum is never lost with one domain, and what nobody knows is never taken for empty."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import InvalidRequestError
from ullage.spread import HOST, LEVELS, RACK, ZONE, Cap, Level, Rule, Tally, levels_from, most

replica_numbers = st.integers(1, 40)
caps = st.one_of(st.sampled_from(["quorum", "third"]), st.integers(1, 6))
domain_names = st.sampled_from(["a", "b", "c", "d", "e"])


def rule(cap: Cap | None, replicas: int, *, adding: int = 1, levels: tuple[Level, ...] = (RACK, HOST)) -> Rule:
    return Rule(group="default/pg", levels=levels, capped=levels[0], cap=cap, replicas=replicas, adding=adding)


def racks(*names: str) -> list[tuple[str, str]]:
    """Volumes in these racks, each on a host of its own."""
    return [(name, f"host-{number}") for number, name in enumerate(names)]


def filled(cap: Cap, replicas: int, wishes: Sequence[str]) -> Counter[str]:
    """The group after each volume has been put where it was wished, if the cap lets it."""
    there: list[str] = []
    for wish in wishes[:replicas]:
        if not Tally(rule(cap, replicas), racks(*there)).refusal(wish):
            there.append(wish)
    return Counter(there)


@given(replica_numbers, st.lists(domain_names, min_size=40, max_size=60))
def test_without_any_one_domain_a_majority_of_a_quorum_group_is_left(replicas: int, wishes: list[str]) -> None:
    counts = filled("quorum", replicas, wishes)
    majority = replicas // 2 + 1
    if replicas > 2:
        assert all(replicas - count >= majority for count in counts.values())
    else:
        assert all(count == 1 for count in counts.values())


@given(replica_numbers, st.lists(domain_names, min_size=40, max_size=60))
def test_of_thirds_no_domain_has_two_before_three_have_one_nor_ever_more_than_a_third(
    replicas: int, wishes: list[str]
) -> None:
    counts = filled("third", replicas, wishes)
    assert all(count <= -(-replicas // 3) for count in counts.values())
    assert len(counts) >= 3 or all(count == 1 for count in counts.values())


@given(st.sampled_from(["quorum", "third"]), st.integers(1, 40))
def test_three_domains_hold_every_replica(cap: Cap, replicas: int) -> None:
    wishes = ["a", "b", "c"] * replicas
    there: list[str] = []
    for wish in wishes:
        if len(there) < replicas and not Tally(rule(cap, replicas), racks(*there)).refusal(wish):
            there.append(wish)
    of_four = 3  # a majority of four is three, so no domain may have two: it takes four domains
    assert len(there) == (of_four if (cap, replicas) == ("quorum", 4) else replicas)


@pytest.mark.parametrize(
    ("replicas", "quorum", "third"),
    [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 1, 2), (5, 2, 2), (6, 2, 2), (7, 3, 3), (8, 3, 3), (9, 4, 3)],
)
def test_what_a_domain_may_have_follows_from_how_many_there_will_be(replicas: int, quorum: int, third: int) -> None:
    assert most("quorum", replicas) == quorum
    assert most("third", replicas) == third
    assert most(4, replicas) == 4


@given(st.integers(0, 3), st.integers(1, 40), st.integers(1, 39))
def test_a_cap_never_shrinks_when_more_replicas_are_wished(in_use: int, replicas: int, fewer: int) -> None:
    for cap in ("quorum", "third"):
        assert most(cap, min(fewer, replicas), in_use) <= most(cap, replicas, in_use)


@given(st.lists(domain_names, max_size=12), caps, replica_numbers, domain_names, st.randoms(use_true_random=False))
def test_the_order_in_which_volumes_are_named_changes_nothing(
    there: list[str], cap: Cap, replicas: int, domain: str, shuffle: random.Random
) -> None:
    volumes = racks(*there)
    shuffled = list(volumes)
    shuffle.shuffle(shuffled)
    one, other = Tally(rule(cap, replicas), volumes), Tally(rule(cap, replicas), shuffled)
    columns = [["a", "b", "c", "d", ""], ["host-0", "host-1", "x", "host-2", "y"]]
    assert one.refusal(domain) == other.refusal(domain)
    assert one.fills(columns) == other.fills(columns)


@given(
    st.lists(domain_names, max_size=10),
    st.lists(st.sets(domain_names, min_size=1), max_size=4),
    st.tuples(caps, replica_numbers),
    domain_names,
    st.data(),
)
def test_what_is_allowed_with_care_is_allowed_wherever_the_undecided_go(
    there: list[str], undecided: list[set[str]], limit: tuple[Cap, int], domain: str, data: st.DataObject
) -> None:
    cap, replicas = limit
    tally = Tally(rule(cap, replicas), racks(*there), undecided=undecided)
    if not tally.refusal(domain, careful=True):
        assert not tally.refusal(domain)
        went = [data.draw(st.sampled_from(sorted(among))) for among in undecided]
        assert not Tally(rule(cap, replicas), racks(*there, *went)).refusal(domain)


def test_two_volumes_of_one_pod_need_room_for_both_in_one_domain() -> None:
    assert not Tally(rule(3, 6, adding=2), racks("r1")).refusal("r1")
    assert Tally(rule(3, 6, adding=2), racks("r1", "r1")).refusal("r1") == (
        "rack r1 has 2 of 6 of default/pg and would get 2, at most 3 (cap 3)"
    )


def test_a_full_domain_is_refused_with_its_numbers() -> None:
    tally = Tally(rule("quorum", 5), racks("r1", "r1", "r2"))
    assert tally.refusal("r1") == "rack r1 has 2 of 5 of default/pg, at most 2 (quorum)"
    assert tally.refusal("r2") == ""
    assert tally.refusal("r3") == ""


def test_thirds_are_told_that_three_domains_come_first() -> None:
    tally = Tally(rule("third", 6), racks("r1", "r2"))
    assert tally.refusal("r1") == "rack r1 has 1 of 6 of default/pg, at most 1 until it is in 3 domains (third)"
    assert tally.refusal("r3") == ""
    assert Tally(rule("third", 6), racks("r1", "r2", "r3")).refusal("r1") == ""
    assert Tally(rule("third", 6, adding=2), racks("r1", "r2")).refusal("r3") == ""
    assert Tally(rule("third", 6), racks("r1", "r2", "")).refusal("r1")


def test_a_careful_refusal_says_what_is_not_known_yet() -> None:
    tally = Tally(rule("quorum", 5), racks("r1"), undecided=[{"r1", "r2"}])
    assert tally.refusal("r1", careful=True) == (
        "rack r1 has 1 of 5 of default/pg and perhaps 1 more, at most 2 (quorum)"
    )
    assert tally.refusal("r1") == ""


def test_a_cap_refuses_a_node_that_may_be_in_any_domain() -> None:
    assert Tally(rule("quorum", 5), []).refusal("") == (
        "it has no label topology.rook.io/rack or topology.kubernetes.io/rack, by which default/pg is spread (quorum)"
    )


def test_without_a_cap_nothing_is_refused() -> None:
    tally = Tally(rule(None, 5), racks("r1", "r1", "r1"))
    assert tally.refusal("r1") == tally.refusal("") == ""


@given(st.lists(st.sampled_from(["a", "b", ""]), max_size=30))
def test_a_domain_that_is_not_known_is_never_the_least_filled(there: list[str]) -> None:
    fills = Tally(rule(None, 3), racks(*there)).fills([["a", "b", ""], ["x", "y", "z"]])
    assert fills[2] > max(fills[:2])


@given(st.lists(st.tuples(*[st.sampled_from(["a", "b", "c"])] * 3), max_size=20))
def test_a_zone_outweighs_all_racks_and_a_rack_all_hosts(volumes: list[tuple[str, str, str]]) -> None:
    columns = [list(each) for each in zip(*[(z, r, h) for z in "abc" for r in "abc" for h in "abc"], strict=True)]
    fills = Tally(Rule(group="g", levels=LEVELS, replicas=3), volumes).fills(columns)
    counts = [Counter(volume[level] for volume in volumes) for level in range(3)]
    expected = [
        tuple(counts[level][domain] for level, domain in enumerate(node)) for node in zip(*columns, strict=True)
    ]
    nodes = range(len(fills))
    assert sorted(nodes, key=fills.__getitem__) == sorted(nodes, key=expected.__getitem__)


def test_a_single_level_weighs_as_much_as_the_largest_of_several() -> None:
    """So that the fills of two groups can be added up."""
    of_hosts = Tally(rule(None, 3, levels=(HOST,)), [("x",)]).fills([["x", "y"]])
    of_zones = Tally(rule(None, 3, levels=(ZONE, RACK, HOST)), [("x", "r", "h")]).fills(
        [["x", "y"], ["p", "q"], ["v", "w"]]
    )
    assert of_hosts == of_zones


def test_the_first_label_that_is_there_names_the_rack() -> None:
    kubernetes, rook = "topology.kubernetes.io/rack", "topology.rook.io/rack"
    assert RACK.domain("n", {kubernetes: "k", rook: "r"}) == "r"
    assert RACK.domain("n", {kubernetes: "k", rook: ""}) == "k"
    assert RACK.domain("n", {}) == ""
    assert HOST.domain("n", {}) == "n"


def test_a_key_names_its_level_and_the_smaller_ones_follow() -> None:
    assert levels_from("zone") == (ZONE, RACK, HOST)
    assert levels_from("rack") == (RACK, HOST)
    assert levels_from("host") == (HOST,)
    assert levels_from("example.com/row") == (Level(name="example.com/row", labels=("example.com/row",)), HOST)


@pytest.mark.parametrize("key", ["", "a b", "-x", "a/b/c"])
def test_a_key_that_no_label_can_have_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError):
        levels_from(key)
