"""Tags on logical volumes: the record that the disks themselves keep."""

from __future__ import annotations

import string
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.backends.lvm import tags
from node_agent.backends.lvm.tags import Label
from ullage.model import DeviceClassName, Owner, VolumeId, VolumeState, Wipe

ALLOWED = string.ascii_letters + string.digits + "_+.-/=!:&#"
"""lvm(8)."""
values = st.text(ALLOWED, max_size=63)
names = st.text(ALLOWED, min_size=1, max_size=63)
owners = st.builds(Owner, pv_name=values, claim_namespace=values, claim_name=values, claim_uid=values)
written_states = st.sampled_from([VolumeState.CREATING, VolumeState.READY, VolumeState.DELETING])
labels = st.builds(
    Label,
    volume_id=names.map(VolumeId),
    device_class=names.map(DeviceClassName),
    wipe=st.sampled_from(Wipe),
    owner=owners,
    state=written_states,
)
foreign_tags = st.lists(
    st.one_of(
        st.sampled_from(["", "backup", "topolvm.io/volume=x", "ullage.io.example/volume=x", "ullage.io/pool"]),
        st.text(ALLOWED, max_size=20).map(lambda rest: f"ullage.io/later-{rest}"),
    ),
    max_size=4,
)
SOMEONE = Label(
    volume_id=VolumeId("pvc-1"),
    device_class=DeviceClassName("fast"),
    wipe=Wipe.ZERO,
    owner=Owner(pv_name="pvc-1", claim_namespace="shop", claim_name="db-0"),
)


@given(labels, foreign_tags, st.randoms(use_true_random=False))
def test_what_is_written_is_read_again_in_any_order_and_company(
    label: Label, company: list[str], random: Random
) -> None:
    together = [*tags.written(label), *company]
    random.shuffle(together)
    assert tags.read(together) == label


@given(labels)
def test_every_tag_is_one_that_lvm_takes(label: Label) -> None:
    for tag in (*tags.written(label), tags.growing(1 << 60), tags.POOL):
        assert set(tag) <= set(ALLOWED)
        assert not tag.startswith("-")
        assert len(tag) <= 128, "older LVM takes no more"


def test_tags_say_what_they_always_said() -> None:
    """They are on disks already: this is a file format."""
    assert tags.written(replace(SOMEONE, state=VolumeState.CREATING)) == (
        "ullage.io/volume=pvc-1",
        "ullage.io/class=fast",
        "ullage.io/wipe=zero",
        "ullage.io/pv=pvc-1",
        "ullage.io/namespace=shop",
        "ullage.io/claim=db-0",
        "ullage.io/state=creating",
    )
    assert tags.growing(4096) == "ullage.io/state=growing:4096"


@given(st.integers(min_value=0, max_value=1 << 60))
def test_a_growing_volume_remembers_its_settled_size(settled_bytes: int) -> None:
    found = tags.read([*tags.written(SOMEONE), tags.growing(settled_bytes)])
    assert found == replace(SOMEONE, state=VolumeState.GROWING, settled_bytes=settled_bytes)


def test_of_two_growths_the_smaller_size_is_the_settled_one() -> None:
    found = tags.read([*tags.written(SOMEONE), tags.growing(8192), tags.growing(4096)])
    assert found is not None
    assert found.settled_bytes == 4096


@pytest.mark.parametrize(
    ("marks", "state"),
    [
        ([tags.CREATING, tags.DELETING], VolumeState.DELETING),
        ([tags.growing(1), tags.DELETING], VolumeState.DELETING),
        ([tags.growing(1), tags.CREATING], VolumeState.CREATING),
    ],
)
def test_the_furthest_mark_holds(marks: list[str], state: VolumeState) -> None:
    for order in (marks, marks[::-1]):
        found = tags.read([*tags.written(SOMEONE), *order])
        assert found == replace(SOMEONE, state=state)


@pytest.mark.parametrize(
    "each",
    [[], [""], ["backup"], ["topolvm.io/volume=x"], ["ullage.io.example/volume=x"], [tags.POOL], [tags.CREATING]],
)
def test_a_volume_without_our_tag_is_not_ours(each: list[str]) -> None:
    assert tags.read(each) is None


def test_a_bare_volume_tag_is_enough_to_be_ours() -> None:
    found = tags.read(["ullage.io/volume=pvc-1"])
    assert found == Label(
        volume_id=VolumeId("pvc-1"), device_class=DeviceClassName(""), wipe=Wipe.DISCARD, owner=Owner()
    )


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("ullage.io/wipe=shred", "shred"),
        ("ullage.io/wipe=", "''"),
        ("ullage.io/wipe=none", "wipe is both zero and none"),
        ("ullage.io/volume=pvc-2", "volume is both pvc-1 and pvc-2"),
        ("ullage.io/state=", "unknown"),
        ("ullage.io/state=frozen", "state=frozen is unknown"),
        ("ullage.io/state=growing", "unknown"),
        ("ullage.io/state=growing:", "unknown"),
        ("ullage.io/state=growing:8Gi", "unknown"),
        ("ullage.io/state=growing:-1", "unknown"),
        ("ullage.io/state=creating:1", "unknown"),
    ],
)
def test_a_tag_that_was_broken_by_hand_is_refused(broken: str, why: str) -> None:
    """Read as if it were whole, it could make unwiped bytes READY."""
    company = [tag for tag in tags.written(SOMEONE) if not broken.endswith(("shred", "wipe=")) or "wipe" not in tag]
    with pytest.raises(ValueError, match=why):
        tags.read([*company, broken])
