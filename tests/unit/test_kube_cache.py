"""What is known is never older than what was told, whoever tells it, in whatever order."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ullage.kube.cache import Cache, is_older, key_of
from ullage.kube.meta import Key, Meta


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Meta
    colours: tuple[str, ...] = ()


def thing(name: str, version: int | str, *colours: str, uid: str = "u") -> Thing:
    return Thing(metadata=Meta(name=name, resource_version=str(version), uid=uid), colours=colours)


class Bench:
    """A cache, and what it has told."""

    def __init__(self) -> None:
        self.told: list[tuple[Thing | None, Thing | None]] = []
        self.cache: Cache[Thing] = Cache(
            {"colour": lambda each: each.colours}, lambda before, after: self.told.append((before, after))
        )

    def list(self, version: int, *found: Thing) -> None:
        self.cache.begin_list()
        for each in found:
            self.cache.listed(str(version), key_of(each), each)
        self.cache.end_list(str(version))

    def versions(self) -> dict[str, str]:
        return {each.metadata.name: each.metadata.resource_version for each in self.cache.all()}


def test_a_list_takes_away_what_is_not_in_it() -> None:
    bench = Bench()
    bench.list(10, thing("a", 1), thing("b", 2))
    bench.list(20, thing("a", 1))
    assert bench.versions() == {"a": "1"}
    assert bench.told[-1] == (thing("b", 2), None)
    assert len(bench.told) == 3, "what has not changed is not told again"


def test_what_was_learned_after_a_list_was_made_survives_it() -> None:
    bench = Bench()
    bench.list(10, thing("a", 1))
    bench.cache.learn(thing("new", 25))
    bench.cache.learn(thing("a", 26))
    bench.list(20, thing("a", 15))
    assert bench.versions() == {"a": "26", "new": "25"}
    bench.list(30, thing("a", 26))
    assert bench.versions() == {"a": "26"}, "its deletion was missed: it goes with the next list"


def test_an_answer_that_the_watch_has_overtaken_changes_nothing() -> None:
    bench = Bench()
    bench.list(10, thing("a", 5))
    bench.cache.watched("12", found=thing("a", 12))
    bench.cache.learn(thing("a", 11))
    assert bench.versions() == {"a": "12"}


def test_an_answer_that_comes_after_the_deletion_does_not_bring_it_back() -> None:
    bench = Bench()
    bench.list(10, thing("a", 5))
    bench.cache.watched("12", deleted=("", "a"))
    bench.cache.learn(thing("a", 11))
    assert bench.versions() == {}


def test_an_event_older_than_what_was_learned_changes_nothing_and_is_not_told() -> None:
    bench = Bench()
    bench.list(10, thing("a", 5))
    bench.cache.learn(thing("a", 20))
    bench.cache.watched("12", found=thing("a", 12))
    bench.cache.watched("20", found=thing("a", 20))
    assert bench.versions() == {"a": "20"}
    assert bench.told == [(None, thing("a", 5)), (thing("a", 5), thing("a", 20))]


def test_a_deletion_wins_over_what_was_learned_before_it() -> None:
    bench = Bench()
    bench.cache.learn(thing("a", 20))
    bench.cache.watched("21", deleted=("", "a"))
    assert bench.versions() == {}


def test_the_deletion_of_its_predecessor_does_not_take_away_what_was_learned() -> None:
    bench = Bench()
    bench.list(10, thing("a", 5, uid="old"))
    bench.cache.learn(thing("a", 14, uid="new"))
    bench.cache.watched("12", deleted=("", "a"))
    assert bench.versions() == {"a": "14"}


def test_another_of_the_same_name_is_told_as_one_that_went_and_one_that_came() -> None:
    bench = Bench()
    bench.list(10, thing("a", 5, uid="old"))
    bench.list(20, thing("a", 15, uid="new"))
    assert bench.told[1:] == [(thing("a", 5, uid="old"), None), (None, thing("a", 15, uid="new"))]


def test_a_list_of_another_history_is_believed_in_all() -> None:
    bench = Bench()
    bench.list(100, thing("a", 50), thing("b", 60), thing("c", 3))
    bench.cache.learn(thing("d", 110))
    bench.list(40, thing("a", 30), thing("c", 3))
    assert bench.versions() == {"a": "30", "c": "3"}
    bench.cache.watched("45", found=thing("a", 45))
    bench.cache.learn(thing("e", 46))
    assert bench.versions() == {"a": "45", "c": "3", "e": "46"}


def test_of_versions_that_are_no_numbers_the_last_heard_counts() -> None:
    bench = Bench()
    bench.list(10, thing("a", "x"))
    bench.cache.watched("y", found=thing("a", "y"))
    bench.cache.learn(thing("a", "z"))
    assert bench.versions() == {"a": "z"}
    bench.cache.watched("zz", deleted=("", "a"))
    bench.cache.learn(thing("b", "x"))
    assert bench.versions() == {"b": "x"}
    bench.list(20, thing("c", "y"))
    assert bench.versions() == {"c": "y"}


def test_versions_are_compared_as_numbers() -> None:
    assert is_older("999", than="1000")
    assert not is_older("1000", than="999")
    assert not is_older("7", than="7")


def test_an_object_moves_in_the_indexes() -> None:
    bench = Bench()

    def under(colour: str) -> set[str]:
        return {each.metadata.resource_version for each in bench.cache.by_index("colour", colour)}

    bench.list(10, thing("a", 5, "red", "green"))
    assert (under("red"), under("green"), under("blue")) == ({"5"}, {"5"}, set())
    bench.cache.watched("11", found=thing("a", 11, "green", "blue"))
    assert (under("red"), under("green"), under("blue")) == (set(), {"11"}, {"11"})
    bench.cache.watched("12", deleted=("", "a"))
    assert (under("red"), under("green"), under("blue")) == (set(), set(), set())


class History:
    """A server's, told to a cache piece by piece: one change after the other, each with the state after it."""

    def __init__(self, changes: Iterable[tuple[str, bool]]) -> None:
        self.bench = Bench()
        self.now = 0
        """How far list and watch have told."""
        self.events: list[tuple[int, Thing | None, Key]] = []
        self.states: list[dict[str, Thing]] = [{}]
        for version, (name, is_there) in enumerate(changes, start=1):
            state = dict(self.states[-1])
            known = state.pop(name, None)
            found = thing(name, version, uid=known.metadata.uid if known else f"u{version}") if is_there else None
            if found is not None:
                state[name] = found
            self.states.append(state)
            if found is not None or known is not None:
                self.events.append((version, found, ("", name)))

    def watch(self, _number: int = 0) -> bool:
        """The next event; False when there is none."""
        left = [event for event in self.events if event[0] > self.now]
        for version, found, key in left[:1]:
            self.bench.cache.watched(str(version), found=found, deleted=None if found else key)
            self.now = version
        return bool(left)

    def list(self, number: int) -> None:
        self.now = max(self.now, min(number, len(self.states) - 1))
        self.bench.list(self.now, *self.states[self.now].values())

    def learn(self, number: int) -> None:
        """The answer to any of the writes there were and will be, at any time."""
        if not self.events:
            return
        version, found, key = self.events[number % len(self.events)]
        if found is not None:
            before = self.bench.cache.get(key)
            self.bench.cache.learn(found)
            after = self.bench.cache.get(key)
            assert after is not None or version <= self.now, "what is news is known at once"
            assert before is None or (after is not None and version_of(after) >= version_of(before))

    def check(self) -> None:
        for each in self.bench.cache.all():
            told = self.states[self.now].get(each.metadata.name)
            assert version_of(each) > self.now or each == told, "older than what was told, or deleted"
        for name, told in self.states[self.now].items():
            known = self.bench.cache.get(("", name))
            assert known is not None
            assert version_of(known) >= version_of(told)


def version_of(found: Thing) -> int:
    return int(found.metadata.resource_version)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20),
    st.lists(st.tuples(st.sampled_from(["watch", "learn", "list"]), st.integers(0, 19)), max_size=40),
)
def test_in_whatever_order_they_come_nothing_goes_backwards_and_the_end_is_the_truth(
    changes: list[tuple[str, bool]], steps: list[tuple[str, int]]
) -> None:
    history = History(changes)
    for step, number in steps:
        getattr(history, step)(number)
        history.check()
    while history.watch():
        history.check()
    assert {each.metadata.name: each for each in history.bench.cache.all()} == history.states[-1]
    replayed: dict[str, Thing] = {}
    for before, after in history.bench.told:
        last = before or after
        assert last is not None
        assert replayed.pop(last.metadata.name, None) == before, "each change begins where the last one ended"
        if after is not None:
            replayed[after.metadata.name] = after
    assert replayed == history.states[-1]
