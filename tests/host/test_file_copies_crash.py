"""A process killed at any change while it copies leaves nothing that could be taken for the copy, and no orphan."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.copies_rig import CLONING, content, derived, directory_on, written
from tests.host.file_rig import MIB, Rig, Step, deaths, gone
from ullage.errors import VolumeNotReadyError
from ullage.model import VolumeKind, VolumeState

OLD, NEW = b"what was there first" * 512, b"what was written later" * 512
EVERYWHERE = pytest.mark.parametrize("kind", ["xfs", "ext4"])


def filled(rig: Rig) -> None:
    written(rig.create(mib=8), MIB, OLD)


def snapped(rig: Rig) -> None:
    filled(rig)
    derived(rig, "s-1", rig.volume())


def snapshot(rig: Rig) -> None:
    derived(rig, "s-1", rig.volume())


def member(rig: Rig) -> None:
    derived(rig, "s-1", rig.volume(), needs_wipe=True)


def copy(rig: Rig) -> None:
    derived(rig, "b", rig.volume("s-1"), VolumeKind.VOLUME, mib=16)


def clone(rig: Rig) -> None:
    derived(rig, "b", rig.volume(), VolumeKind.VOLUME, mib=16)


def died(root: Path, kind: str, step: Step) -> Iterator[Rig]:
    """Where a process died in the step, after each of its changes; nothing is said to be there that is not."""
    place = directory_on(kind, root, 2048 * MIB)
    ready = snapped if step is copy else filled
    for rig in deaths(place, is_sparse=False, is_after=True, ready=ready, step=step):
        report = rig.report()
        assert (report.problem, report.orphans) == (None, ())
        for volume in report.volumes:
            if volume.id in ("s-1", "b") and volume.state is VolumeState.READY:
                assert content(rig, volume.id)[MIB : MIB + len(OLD)] == OLD
        assert len(rig.loops()) <= 2
        yield rig


@EVERYWHERE
@pytest.mark.parametrize("step", [snapshot, member])
def test_a_snapshot_is_begun_again(root: Path, kind: str, step: Step) -> None:
    for rig in died(root, kind, step):
        was_made = any(each.id == "s-1" and each.state is VolumeState.READY for each in rig.report().volumes)
        written(rig.volume(), MIB, NEW)
        step(rig)
        taken = rig.volume("s-1")
        assert taken.state is (VolumeState.CREATING if step is member else VolumeState.READY)
        assert (taken.size_bytes, taken.problem, taken.is_active) == (8 * MIB, None, False)
        now = OLD.ljust(len(NEW), b"\0") if was_made else NEW
        assert content(rig, "s-1")[MIB : MIB + len(NEW)] == now, "its moment is when it was made"
        assert rig.names() == {".ullage.json", "a.img", "a.json", "s-1.img", "s-1.json"}
        assert len(rig.loops()) == 1
        gone(rig)


@EVERYWHERE
@pytest.mark.parametrize("step", [copy, clone])
def test_a_copy_is_begun_again_and_half_of_one_is_no_volume(root: Path, kind: str, step: Step) -> None:
    for rig in died(root, kind, step):
        half = [each for each in rig.report().volumes if each.id == "b" and each.state is VolumeState.CREATING]
        rig.activate(*(each.id for each in half))
        for each in half:
            assert rig.volume("b").state is VolumeState.CREATING
            with pytest.raises(VolumeNotReadyError, match="begun again"):
                rig.backend.settle(each)
        step(rig)
        made = rig.volume("b")
        assert (made.size_bytes, made.is_active, made.problem) == (16 * MIB, True, None)
        assert made.state is (VolumeState.READY if kind in CLONING else VolumeState.FILLING)
        assert content(rig, "b")[MIB : MIB + len(OLD)] == (OLD if kind in CLONING else bytes(len(OLD)))
        assert {name for name in rig.names() if "b." in name or "tmp" in name} == {"b.img", "b.json"}
        assert len(rig.loops()) == 2
        gone(rig)


@EVERYWHERE
@pytest.mark.parametrize("step", [snapshot, clone])
def test_it_can_be_given_up(root: Path, kind: str, step: Step) -> None:
    for rig in died(root, kind, step):
        gone(rig)


@EVERYWHERE
def test_the_removal_of_a_snapshot_converges(root: Path, kind: str) -> None:
    place = directory_on(kind, root, 2048 * MIB)

    def removed(rig: Rig) -> None:
        rig.backend.remove(rig.volume("s-1"))

    for rig in deaths(place, is_sparse=False, is_after=True, ready=snapped, step=removed):
        assert rig.report().orphans == ()
        if any(each.id == "s-1" for each in rig.report().volumes):
            removed(rig)
        assert rig.names() == {".ullage.json", "a.img", "a.json"}
        assert content(rig, "a")[MIB : MIB + len(OLD)] == OLD
        gone(rig)
