"""A process killed at any change leaves something that the same step, or remove, brings to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.file_rig import MIB, Rig, Step, deaths, gone, killed_while
from ullage.errors import NotFoundError
from ullage.model import VolumeId, VolumeState

MOMENTS = pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
KINDS = pytest.mark.parametrize("is_sparse", [False, True], ids=["preallocated", "sparse"])


def nothing(_: Rig) -> None:
    pass


def created(rig: Rig) -> None:
    rig.create(mib=8)


def wiped(rig: Rig) -> None:
    rig.create(mib=8, needs_wipe=True)


def grown(rig: Rig) -> None:
    rig.expand(16)


def condemned(rig: Rig) -> None:
    rig.backend.condemn(rig.volume())


def removed(rig: Rig) -> None:
    rig.backend.remove(rig.volume())


@KINDS
@MOMENTS
def test_create_converges(root: Path, *, is_sparse: bool, is_after: bool) -> None:
    for rig in deaths(root, is_sparse=is_sparse, is_after=is_after, ready=nothing, step=created):
        assert rig.report().problem is None
        assert rig.report().orphans == ()
        volume = rig.create(mib=8)
        assert (volume.state, volume.size_bytes, volume.problem) == (VolumeState.READY, 8 * MIB, None)
        assert rig.names() == {".ullage.json", "a.img", "a.json"}
        assert len(rig.loops()) == 1
        gone(rig)


@KINDS
@MOMENTS
@pytest.mark.parametrize("step", [created, wiped], ids=["whole", "to be wiped"])
def test_a_half_made_volume_is_finished_when_devices_are_brought_up(
    root: Path, *, step: Step, is_sparse: bool, is_after: bool
) -> None:
    for rig in deaths(root, is_sparse=is_sparse, is_after=is_after, ready=nothing, step=step):
        if not rig.report().volumes:
            continue  # it died before the record: nothing was begun
        rig.activate("a")
        volume = rig.volume()
        assert (volume.size_bytes, volume.is_active, volume.problem) == (8 * MIB, True, None)
        assert volume.state is (VolumeState.CREATING if step is wiped else VolumeState.READY)
        assert rig.backend.settle(volume).state is VolumeState.READY


@MOMENTS
def test_create_can_be_given_up(root: Path, *, is_after: bool) -> None:
    for rig in deaths(root, is_sparse=False, is_after=is_after, ready=nothing, step=wiped):
        assert all(v.state is VolumeState.CREATING for v in rig.report().volumes)
        gone(rig)


@KINDS
@MOMENTS
def test_expand_converges_and_says_no_size_before_it_is_there(root: Path, *, is_sparse: bool, is_after: bool) -> None:
    for rig in deaths(root, is_sparse=is_sparse, is_after=is_after, ready=created, step=grown):
        before = rig.volume()
        assert before.size_bytes <= before.device_size_bytes
        assert before.size_bytes == (16 * MIB if before.state is VolumeState.READY and is_after else 8 * MIB) or (
            before.state is VolumeState.GROWING and before.size_bytes == 8 * MIB
        )
        volume = rig.expand(16)
        assert (volume.state, volume.size_bytes, volume.device_size_bytes) == (VolumeState.READY, 16 * MIB, 16 * MIB)
        gone(rig)


@MOMENTS
def test_expand_can_be_given_up(root: Path, *, is_after: bool) -> None:
    for rig in deaths(root, is_sparse=False, is_after=is_after, ready=created, step=grown):
        gone(rig)


@MOMENTS
def test_condemn_converges(root: Path, *, is_after: bool) -> None:
    for rig in deaths(root, is_sparse=False, is_after=is_after, ready=created, step=condemned):
        condemned(rig)
        assert (rig.volume().state, rig.volume().is_active) == (VolumeState.DELETING, True)
        gone(rig)


@MOMENTS
@pytest.mark.parametrize("ready", [created, wiped], ids=["ready", "creating"])
def test_remove_converges(root: Path, *, ready: Step, is_after: bool) -> None:
    for rig in deaths(root, is_sparse=False, is_after=is_after, ready=ready, step=removed):
        report = rig.report()
        assert report.orphans == ()
        if report.volumes:
            removed(rig)
        assert rig.names() == {".ullage.json"}
        assert rig.loops() == []


def test_what_a_writer_left_when_it_died_is_swept_by_the_next_change_and_not_by_a_look(rig: Rig) -> None:
    rig.create()
    left, foreign = rig.directory / ".ullage-0123456789abcdef.tmp", rig.directory / "their.tmp"
    left.write_text("{")
    foreign.write_text("{")
    rig.report()
    assert left.exists()
    rig.activate("a")
    assert not left.exists()
    assert foreign.exists()


def test_nothing_is_found_where_a_removal_came_to_its_end(rig: Rig) -> None:
    volume = rig.create()
    assert killed_while(rig, condemned, 0, is_after=True)
    rig.backend.condemn(volume)
    rig.backend.remove(volume)
    assert volume.id == VolumeId("a")
    with pytest.raises(NotFoundError):
        rig.reborn().backend.remove(volume)
