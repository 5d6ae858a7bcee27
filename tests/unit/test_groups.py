"""Groups: who is spread with whom, how, and what is said to nonsense."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_extender.groups import (
    CAP,
    GROUP,
    KEY,
    MODE,
    MOST_REPLICAS,
    REPLICAS,
    Group,
    Members,
    Wish,
    group_of,
    wish_of,
)
from scheduler_extender.objects import Claim
from scheduler_extender.wire import Meta as PodMeta
from scheduler_extender.wire import OwnerReference, Pod
from ullage.errors import InvalidRequestError
from ullage.kube.foreign import StorageClass
from ullage.kube.meta import Key, Meta
from ullage.spread import HOST, LEVELS, RACK, ZONE, Level

DEVICE_SET = "ceph.rook.io/DeviceSet"
DEVICE_SET_CLAIM = "ceph.rook.io/DeviceSetPVCId"


def pod(name: str, owner: str = "", *, kind: str = "StatefulSet") -> Pod:
    owners = (OwnerReference(kind=kind, name=owner, controller=True),) if owner else ()
    return Pod(metadata=PodMeta(name=name, namespace="default", owner_references=owners))


def claim(name: str, *, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None) -> Claim:
    return Claim(
        metadata=Meta(name=name, namespace="default", labels=dict(labels or {}), annotations=dict(annotations or {}))
    )


def storage_class(**annotations: str) -> StorageClass:
    return StorageClass(
        metadata=Meta(name="fast", annotations={f"spread.ullage.io/{k}": v for k, v in annotations.items()})
    )


def wish(
    annotations: Mapping[str, str],
    *,
    name: str = "data-pg-2",
    of_class: StorageClass | None = None,
    user: Pod | None = None,
) -> Wish | None:
    return wish_of(
        ("default", name), labels={}, annotations=annotations, storage_class=of_class, pod=user or pod("pg-2", "pg")
    )


def found(annotations: Mapping[str, str], *, of_class: StorageClass | None = None) -> Wish:
    it = wish(annotations, of_class=of_class)
    assert it is not None
    return it


def refused(annotations: Mapping[str, str], *, of_class: StorageClass | None = None) -> str:
    with pytest.raises(InvalidRequestError) as error:
        wish(annotations, of_class=of_class)
    return str(error.value)


def wish_or_sentence(annotations: Mapping[str, str], of_class: StorageClass | None) -> Wish | str:
    try:
        return found(annotations, of_class=of_class)
    except InvalidRequestError as refusal:
        return str(refusal)


def names(claims: Sequence[Claim]) -> list[str]:
    return sorted(each.metadata.name for each in claims)


def by_key(claims: Sequence[Claim]) -> dict[Key, Claim]:
    return {(each.metadata.namespace, each.metadata.name): each for each in claims}


def test_a_stateful_sets_claims_are_a_group_template_by_template() -> None:
    def of(name: str, user: Pod) -> Group | None:
        return group_of(("default", name), labels={}, annotations={}, pod=user)

    data = of("data-pg-0", pod("pg-0", "pg"))
    assert data == Group(namespace="default", name="pg", part="data", is_stateful_set=True)
    assert str(data) == "default/pg"
    assert of("data-pg-1", pod("pg-1", "pg")) == data
    assert of("wal-pg-0", pod("pg-0", "pg")) != data


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("data-pg-0", pod("pg-0")),
        ("data-pg-0", pod("pg-0", "pg", kind="ReplicaSet")),
        ("data-pg-0", pod("pg-0", "other")),
        ("data-pg-1", pod("pg-0", "pg")),
        ("shared", pod("pg-0", "pg")),
        ("data-pg-x", pod("pg-x", "pg")),
        ("data-pg-0", None),
    ],
)
def test_a_claim_that_no_stateful_set_made_is_in_no_group(name: str, user: Pod | None) -> None:
    assert group_of(("default", name), labels={}, annotations={}, pod=user) is None


def test_an_annotation_goes_before_rooks_label_and_that_before_the_stateful_set() -> None:
    user, key = pod("pg-0", "pg"), ("default", "data-pg-0")
    labels = {DEVICE_SET: "nvme"}
    assert group_of(key, labels=labels, annotations={GROUP: "mine"}, pod=user) == Group(
        namespace="default", name="mine"
    )
    assert group_of(key, labels=labels, annotations={}, pod=user) == Group(namespace="default", name="nvme")
    assert group_of(("other", "x"), labels=labels, annotations={}) == Group(namespace="other", name="nvme")


def test_rooks_data_and_metadata_are_two_groups_and_a_disk_given_up_is_in_neither() -> None:
    def of(**labels: str) -> Group | None:
        rook = {DEVICE_SET: "nvme", **{f"ceph.rook.io/{key}": value for key, value in labels.items()}}
        return group_of(("rook-ceph", "x"), labels=rook, annotations={})

    data = of(DeviceSetPVCId="nvme-data-0")
    assert data == of(DeviceSetPVCId="nvme-data-12")
    assert data != of(DeviceSetPVCId="nvme-metadata-0")
    assert data != of()


def test_without_any_annotation_the_least_filled_zone_rack_and_host_are_preferred() -> None:
    it = found({})
    assert (it.levels, it.cap, it.is_hard, it.replicas) == (LEVELS, None, False, 0)


def test_a_cap_is_hard_unless_it_says_otherwise_and_about_hosts_unless_a_key_is_given() -> None:
    assert found({CAP: "quorum"}).is_hard
    assert found({CAP: "quorum"}).capped == HOST
    assert found({CAP: "quorum"}).levels == LEVELS
    assert not found({CAP: "quorum", MODE: "soft"}).is_hard
    it = found({CAP: "2", KEY: "rack", MODE: "hard"})
    assert (it.cap, it.levels, it.capped, it.is_hard) == (2, (RACK, HOST), RACK, True)


def test_a_key_may_be_any_label_of_nodes() -> None:
    it = found({CAP: "third", KEY: "example.com/row"})
    row = Level(name="example.com/row", labels=("example.com/row",))
    assert (it.levels, it.capped) == ((row, HOST), row)


def test_a_claim_goes_before_its_storage_class_annotation_by_annotation() -> None:
    of_class = storage_class(cap="quorum", key="zone", replicas="5", group="not-here")
    it = found({KEY: "rack"}, of_class=of_class)
    assert (it.cap, it.capped, it.replicas) == ("quorum", RACK, 5)
    assert it.group.name == "pg"
    assert found({CAP: "none"}, of_class=of_class).cap is None
    assert not found({CAP: "none"}, of_class=of_class).is_hard
    assert found({}, of_class=of_class).capped == ZONE


def test_a_storage_class_with_a_cap_says_nothing_to_claims_in_no_group() -> None:
    assert wish({}, name="alone", of_class=storage_class(cap="quorum"), user=pod("web")) is None


def test_a_cap_of_a_claim_in_no_group_is_refused_for_it_would_hold_for_nothing() -> None:
    with pytest.raises(InvalidRequestError) as error:
        wish({CAP: "quorum"}, name="alone", user=pod("web"))
    assert str(error.value) == (
        "claim default/alone: the annotation spread.ullage.io/cap is of no use in no group; "
        "spread.ullage.io/group says which group it is in"
    )


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        (CAP, "quorom", "quorum, third, none or a number from 1 to 10000"),
        (CAP, "0", "quorum, third, none or a number from 1 to 10000"),
        (CAP, "-1", "quorum, third, none or a number from 1 to 10000"),
        (CAP, "", "quorum, third, none or a number from 1 to 10000"),
        (CAP, "²", "quorum, third, none or a number from 1 to 10000"),
        (CAP, "9" * 5000, "quorum, third, none or a number from 1 to 10000"),
        (MODE, "strict", "soft or hard"),
        (REPLICAS, "three", "a number from 1 to 10000"),
        (REPLICAS, "10001", "a number from 1 to 10000"),
        (GROUP, "", "1 to 63 characters of A-Z a-z 0-9 - _ ."),
        (GROUP, "x" * 100_000, "1 to 63 characters of A-Z a-z 0-9 - _ ."),
        (KEY, "a b", "host, rack, zone or the key of a node label"),
    ],
)
def test_nonsense_is_refused_with_the_annotation_and_what_is_allowed(key: str, text: str, allowed: str) -> None:
    sentence = refused({key: text})
    assert sentence.startswith(f"claim default/data-pg-2: the annotation {key} is '{text[:60]}'")
    assert sentence.endswith(f"; allowed: {allowed}")
    assert len(sentence) < 300


def test_nonsense_of_a_storage_class_is_said_to_be_its() -> None:
    assert refused({}, of_class=storage_class(cap="half")) == (
        "StorageClass fast: the annotation spread.ullage.io/cap is 'half'; "
        "allowed: quorum, third, none or a number from 1 to 10000"
    )
    assert found({CAP: "2"}, of_class=storage_class(cap="half")).cap == 2


def test_hard_without_a_cap_is_refused_for_nobody_knows_how_many_are_too_many() -> None:
    sentence = (
        "the annotation spread.ullage.io/mode is 'hard', and spread.ullage.io/cap does not say how many are too many"
    )
    assert refused({MODE: "hard"}) == f"claim default/data-pg-2: {sentence}"
    assert refused({MODE: "hard", CAP: "none"}) == f"claim default/data-pg-2: {sentence}"


@given(st.dictionaries(st.sampled_from([GROUP, KEY, CAP, MODE, REPLICAS]), st.text(max_size=12)), st.booleans())
def test_whatever_is_written_is_understood_or_refused_with_a_sentence(said: dict[str, str], is_class: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    of_class = StorageClass(metadata=Meta(name="fast", annotations=said)) if is_class else None
    it = wish_or_sentence({} if is_class else said, of_class)
    if isinstance(it, Wish):
        assert not it.is_hard or it.cap is not None
    else:
        assert any(key in it for key in said)


def test_how_many_there_will_be_is_said_or_the_stateful_sets_or_counted() -> None:
    said, unsaid = found({REPLICAS: "7"}), found({})
    assert said.rule(members=2, stateful_set=5).replicas == 7
    assert unsaid.rule(members=2, stateful_set=5).replicas == 5
    assert unsaid.rule(members=2).replicas == 2


def test_the_members_of_a_stateful_set_are_found_by_their_names_left_over_ones_too() -> None:
    there = by_key(
        [
            *(claim(f"data-pg-{number}") for number in (0, 1, 2, 4, 5, 6)),
            claim("data-pg-3", annotations={GROUP: "mine"}),
            claim("data-pg-9"),
            claim("wal-pg-0"),
            claim("data-pg"),
            claim("data-pgx-0"),
        ]
    )
    members = Members()
    known = [f"data-pg-{number}" for number in (0, 1, 2, 4, 5, 6)]
    assert names(members.of(found({}), there, stateful_set=3)) == known
    assert names(members.of(found({}), there, stateful_set=8)) == [*known, "data-pg-9"]


def test_a_stateful_set_that_begins_at_a_high_number_is_found_without_counting_up_to_it() -> None:
    user = pod("pg-999999999", "pg")
    it = wish({}, name="data-pg-999999999", user=user)
    assert it is not None
    there = by_key([claim(f"data-pg-99999999{number}") for number in (7, 8, 9)])
    assert len(Members().of(it, there, stateful_set=3)) == 3
    assert len(Members().of(it, there, stateful_set=0)) == 3


def test_a_set_of_a_thousand_million_replicas_costs_no_more_than_the_largest_that_there_are() -> None:
    class Counted(Mapping[Key, Claim]):
        asked = 0

        def __getitem__(self, key: Key) -> Claim:
            self.asked += 1
            raise KeyError(key)

        def __iter__(self) -> Iterator[Key]:
            return iter(())

        def __len__(self) -> int:
            return 0

    there = Counted()
    assert Members().of(found({}), there, stateful_set=1_000_000_000) == []
    assert 0 < there.asked < 3 * MOST_REPLICAS


def test_members_by_annotation_and_label_are_kept_change_by_change() -> None:
    members, mine = Members(), found({GROUP: "mine"})
    one, other = claim("a", annotations={GROUP: "mine"}), claim("b", annotations={GROUP: "mine"})
    for each in (one, other, claim("c", annotations={GROUP: "other"}), claim("d")):
        members.put(each)
    there = by_key([one, other])
    assert names(members.of(mine, there)) == ["a", "b"]
    members.put(claim("b"))
    assert names(members.of(mine, there)) == ["a"]
    members.drop(("default", "a"))
    members.drop(("default", "never"))
    assert members.of(mine, there) == []
