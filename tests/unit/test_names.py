"""Names: what LVM and Kubernetes take, and what is made of the rest."""

from __future__ import annotations

import fnmatch
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import InvalidRequestError
from ullage.model import Owner
from ullage.names import (
    MAX_TAG_VALUE,
    RESERVED_INFIXES,
    RESERVED_PREFIXES,
    check_device_class_name,
    check_label_key,
    check_label_value,
    check_owner,
    check_tag_value,
    check_thin_pool_name,
    check_volume_group_pattern,
    check_volume_id,
    patterns_overlap,
    snapshot_id,
    volume_id,
)

CLAIM = "pvc-3f0c9a52-7d1e-4a49-b0d5-8f4f6a1c2e77"
HASHED = re.compile(r"v-[a-z2-7]{26}")
OBJECT_NAME = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)  # RFC 1123, as Kubernetes has it
LVM_NAME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*")

REFUSED_IDS = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "/dev/sda",
    "x" * 300,
    "x" * 64,
    "a-" * 21 + "a",
    "größe",
    "ｐｖｃ",
    "PVC-1",
    "a_b",
    "a+b",
    "a b",
    "a\n",
    "\na",
    "a\0b",
    "-a",
    "a-",
    ".a",
    "a.",
    "a..b",
    "a.-b",
    "snapshot",
    "snapshot-1",
    "pvmove0",
    "lv_rimage_0",
    "x_tmeta",
    "\ud800",
]

request_names = st.one_of(
    st.text(max_size=300),
    st.text(string.ascii_lowercase + string.digits + "-.", max_size=80),
    st.from_regex(OBJECT_NAME, fullmatch=True),
    st.from_regex(HASHED, fullmatch=True),
    st.sampled_from([*REFUSED_IDS, CLAIM, "snapshot-3f0c9a52"]),
).filter(bool)


@pytest.mark.parametrize(
    "name", [CLAIM, "a", "0", "data.db-0", "snap-1", "my-snapshot", "v-1", "x" * 63, "a-" * 20 + "a"]
)
def test_a_name_that_lvm_and_kubernetes_take_is_kept(name: str) -> None:
    assert volume_id(name) == name


@pytest.mark.parametrize("name", [name for name in REFUSED_IDS if name])
def test_any_other_name_becomes_its_hash(name: str) -> None:
    assert HASHED.fullmatch(volume_id(name))


def test_the_hash_never_changes_between_releases() -> None:
    assert volume_id("snapshot-1") == "v-phdnme2exyaoos3e3nilloldto"


def test_a_snapshots_id_is_never_a_volumes() -> None:
    name = "snapshot-4d1c"
    taken = snapshot_id(name)
    assert check_volume_id(taken) == taken == snapshot_id(name)
    assert taken.startswith("s-")
    assert volume_id(taken) != taken
    assert volume_id(name)[2:] == taken[2:]
    with pytest.raises(InvalidRequestError, match="has no name"):
        snapshot_id("")


def test_a_name_that_looks_hashed_is_hashed_too() -> None:
    victim = volume_id("snapshot-1")
    assert volume_id(victim) != victim


def test_a_request_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="has no name"):
        volume_id("")


@given(request_names)
def test_every_id_is_an_object_name_an_lv_name_and_a_file_name(name: str) -> None:
    made = volume_id(name)
    assert OBJECT_NAME.fullmatch(made)
    assert LVM_NAME.fullmatch(made)
    assert len(made.replace("-", "--")) <= 63
    assert not made.startswith(RESERVED_PREFIXES)
    assert not any(infix in made for infix in RESERVED_INFIXES)
    assert check_volume_id(made) == made
    assert volume_id(name) == made


@given(request_names, request_names)
def test_two_names_never_share_an_id(one: str, other: str) -> None:
    assert (volume_id(one) == volume_id(other)) == (one == other)


@pytest.mark.parametrize("text", REFUSED_IDS)
def test_what_cannot_be_an_id_is_refused_in_a_short_clean_sentence(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        check_volume_id(text)
    sentence = str(refusal.value)
    assert repr(text[:40])[:-1] in sentence
    assert "cannot be a volume id; allowed: 1 to 63 characters" in sentence
    assert len(sentence) < 400
    assert sentence.isprintable()


@given(st.text())
def test_what_passes_the_check_is_always_safe_in_a_path(text: str) -> None:
    try:
        checked = check_volume_id(text)
    except InvalidRequestError:
        return
    assert "/" not in checked
    assert checked not in (".", "..")


@pytest.mark.parametrize(
    "name", ["vg0", "ubuntu-vg", "a.b_c+d", ".hidden", "_x", "snapshot", "nvme*", "vg?", "vg[0-9]", "*"]
)
def test_a_volume_group_may_be_named_or_matched(name: str) -> None:
    assert check_volume_group_pattern(name) == name


@pytest.mark.parametrize(
    "name", ["", "-vg", ".", "..", "a/b", "a b", "vg\n", "x" * 101, "vg[", "vg]", "vg[]", "vg[[a]]", "größe"]
)
def test_what_no_volume_group_can_be_called_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot name volume groups; allowed: 1 to 100 characters of A-Z"):
        check_volume_group_pattern(name)


@pytest.mark.parametrize("name", ["pool0", "thin-pool", "my.pool_1+", "tdata"])
def test_a_thin_pool_has_an_lv_name(name: str) -> None:
    assert check_thin_pool_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-p", ".", "..", "vg0/pool0", "pool*", "p\n", "x" * 101, "snapshots", "pvmove", *RESERVED_INFIXES]
)
def test_a_name_that_lvm_reserves_is_no_thin_pool(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot name a thin pool; allowed: .*snapshot or pvmove.*_rimage"):
        check_thin_pool_name(name)


@pytest.mark.parametrize("value", ["a", "default/data-0", "A9_+.-/=!:&#", "-x", "x" * MAX_TAG_VALUE])
def test_a_tag_may_hold_what_lvm_allows(value: str) -> None:
    assert check_tag_value(value) == value


@pytest.mark.parametrize("value", ["", "a,b", "a b", "a@b", "a~b", "é", "a\n", "x" * (MAX_TAG_VALUE + 1), "a%b", '"'])
def test_a_tag_may_hold_nothing_else(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be kept in an LVM tag; allowed: 1 to 960 characters"):
        check_tag_value(value)


def test_an_owner_with_blanks_is_an_owner() -> None:
    owner = Owner(pv_name=CLAIM, claim_namespace="default")
    assert check_owner(owner) is owner
    assert check_owner(Owner()) == Owner()


@pytest.mark.parametrize(
    ("owner", "field"),
    [
        (Owner(pv_name="a b"), "PV name"),
        (Owner(claim_namespace="a,b"), "claim namespace"),
        (Owner(claim_name="a\n"), "claim name"),
        (Owner(claim_uid="x" * 2000), "claim UID"),
    ],
)
def test_an_owner_that_no_tag_can_hold_is_refused_by_field(owner: Owner, field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"The owner's {field}: .*cannot be kept"):
        check_owner(owner)


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a-", "x" * 64, "a\n", "a_b"])
def test_a_class_name_is_a_label(name: str) -> None:
    assert check_device_class_name("fast-nvme0") == "fast-nvme0"
    with pytest.raises(InvalidRequestError, match="cannot be a class name; allowed: 1 to 63"):
        check_device_class_name(name)


@pytest.mark.parametrize("key", ["", "/", "a/", "/a", "a/b/c", "A.com/x", "x" * 64, "-a", "a b", "d." * 127 + "d/a"])
def test_a_selector_key_that_no_label_has_is_refused(key: str) -> None:
    assert check_label_key("topology.kubernetes.io/zone") == "topology.kubernetes.io/zone"
    with pytest.raises(InvalidRequestError, match="cannot be a label's key; allowed: up to 63"):
        check_label_key(key)


@pytest.mark.parametrize("value", ["-a", "a b", "x" * 64, "a\n", "é"])
def test_a_selector_value_that_no_label_has_is_refused(value: str) -> None:
    assert check_label_value("") == ""
    assert check_label_value("Rack_1.a") == "Rack_1.a"
    with pytest.raises(InvalidRequestError, match="cannot be a label's value; allowed: up to 63"):
        check_label_value(value)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("vg0", "vg0", True),
        ("vg0", "vg1", False),
        ("vg*", "vg0", True),
        ("vg*", "hdd*", False),
        ("nvme*", "*0", True),
        ("a*b", "a?b", True),
        ("vg[12]", "vg[23]", True),
        ("vg[12]", "vg[!12]", False),
        ("vg[0-4]", "vg[5-9]", False),
        ("*a", "*b", False),
        ("*", "*", True),
        ("a?", "a", False),
        ("a*", "a", True),
        ("*" * 50 + "a", "*" * 50 + "b", False),
    ],
)
def test_two_patterns_overlap_when_one_name_can_match_both(one: str, other: str, overlap: bool) -> None:  # noqa: FBT001
    assert patterns_overlap(one, other) is overlap
    assert patterns_overlap(other, one) is overlap


patterns = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=5).map("".join)


@given(patterns, patterns, st.lists(st.text("ab", min_size=1, max_size=6), min_size=1))
def test_patterns_that_a_name_matches_both_are_never_called_apart(one: str, other: str, group_names: list[str]) -> None:
    if any(fnmatch.fnmatchcase(name, one) and fnmatch.fnmatchcase(name, other) for name in group_names):
        assert patterns_overlap(one, other)
