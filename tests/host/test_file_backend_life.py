"""The file backend on real loop devices: what a volume is from create to remove."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from node_agent.backends.file.files import DurableFiles
from tests.host.file_rig import MIB, OWNER, Rig, ran
from ullage.errors import (
    CommandFailedError,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    VolumeNotReadyError,
)
from ullage.model import DeviceClassName, VolumeState
from ullage.run import Finished, Subprocesses


def content(path: str, size_bytes: int) -> bytes:
    with Path(path).open("rb") as device:
        return device.read(size_bytes)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_new_volume_is_a_block_device_of_its_size_full_of_zeroes(rig: Rig) -> None:
    volume = rig.create(mib=8)
    assert (volume.state, volume.is_active, volume.is_open) == (VolumeState.READY, True, False)
    assert (volume.size_bytes, volume.device_size_bytes) == (8 * MIB, 8 * MIB)
    assert (volume.owner, volume.device_class) == (OWNER, DeviceClassName("files"))
    node = Path(volume.device_path).stat()
    assert (os.major(node.st_rdev), os.minor(node.st_rdev)) == (volume.device_major, volume.device_minor)
    assert content(volume.device_path, 9 * MIB) == bytes(8 * MIB)


def test_a_volume_survives_a_restart_with_everything_it_was_made_with(rig: Rig) -> None:
    assert rig.create() == rig.reborn().volume()


def test_creating_again_changes_nothing(rig: Rig) -> None:
    before = rig.create()
    Path(before.device_path).write_bytes(b"kept")
    assert rig.create() == before
    assert content(before.device_path, 4) == b"kept"


def test_an_id_that_exists_with_another_size_is_a_conflict(rig: Rig) -> None:
    rig.create(mib=8)
    with pytest.raises(ConflictError):
        rig.create(mib=12)
    assert rig.volume().size_bytes == 8 * MIB


def test_a_volume_that_needs_a_wipe_is_creating_until_it_is_settled(rig: Rig) -> None:
    volume = rig.create(needs_wipe=True)
    assert (volume.state, volume.is_active) == (VolumeState.CREATING, True)
    assert rig.backend.settle(volume).state is VolumeState.READY


def test_a_half_made_volume_cannot_be_settled(rig: Rig) -> None:
    volume = rig.create(needs_wipe=True)
    ran("losetup", "--detach", volume.device_path)
    with pytest.raises(VolumeNotReadyError):
        rig.backend.settle(volume)


def test_a_preallocated_volume_has_its_blocks_from_the_start(rig: Rig) -> None:
    rig.create(mib=16)
    assert allocated(rig.image()) >= 16 * MIB


def test_the_promise_of_a_preallocated_volume_counts_when_a_file_system_discards_its_blocks(small: Path) -> None:
    rig = Rig(small)
    rig.create(mib=32)
    free_bytes = rig.report().pools[0].free_bytes
    ran("fallocate", "--punch-hole", "--length", str(32 * MIB), str(rig.image()))  # what a discard does to it
    assert allocated(rig.image()) == 0
    assert rig.report().pools[0].free_bytes == free_bytes


def test_a_sparse_volume_takes_no_room_but_its_promise_counts(small: Path) -> None:
    rig = Rig(small, is_sparse=True)
    free_bytes = rig.report().pools[0].free_bytes
    rig.create(mib=16)
    assert allocated(rig.image()) == 0
    assert free_bytes - 20 * MIB <= rig.report().pools[0].free_bytes <= free_bytes - 16 * MIB


def test_sparse_volumes_are_not_promised_more_than_there_is(small: Path) -> None:
    rig = Rig(small, is_sparse=True)
    rig.create("a", mib=40)
    with pytest.raises(InsufficientCapacityError) as refused:
        rig.create("b", mib=40)
    assert refused.value.facts["wanted_bytes"] == 40 * MIB
    assert "b.json" not in rig.names()


def test_the_reserve_is_refused_and_not_only_reported(small: Path) -> None:
    rig = Rig(small, reserve_bytes=40 * MIB)
    assert rig.report().pools[0].free_bytes <= 24 * MIB
    with pytest.raises(InsufficientCapacityError):
        rig.create(mib=28)
    rig.create(mib=16)
    with pytest.raises(InsufficientCapacityError):
        rig.expand(28)
    assert rig.volume().size_bytes == 16 * MIB


class FilledMeanwhile(DurableFiles):
    """Somebody else takes the last blocks between the check and the allocation."""

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        room = os.fstatvfs(directory)
        filler = os.open("filler", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        os.posix_fallocate(filler, 0, (room.f_bavail - 512) * room.f_frsize)
        os.close(filler)
        super().lengthen(directory, name, size_bytes, is_sparse=is_sparse)


class Halfway(DurableFiles):
    """A file system that runs out of blocks in the middle, as ext4 does."""

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        super().lengthen(directory, name, size_bytes - 4 * MIB, is_sparse=is_sparse)
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_allocation_that_ends_halfway_is_taken_back(rig: Rig) -> None:
    before = rig.create("a", mib=8)
    failing = rig.reborn(files=Halfway())
    with pytest.raises(InsufficientCapacityError):
        failing.expand(24)
    assert rig.image("a").stat().st_size == 8 * MIB
    assert rig.volume("a") == before
    with pytest.raises(InsufficientCapacityError):
        failing.create("b", mib=8)
    assert rig.names() == {".ullage.json", "a.img", "a.json"}


def test_a_volume_that_turns_out_not_to_fit_leaves_nothing_behind(small: Path) -> None:
    rig = Rig(small, files=FilledMeanwhile())
    with pytest.raises(InsufficientCapacityError) as refused:
        rig.create(mib=32)
    assert refused.value.facts["wanted_bytes"] == 32 * MIB
    assert rig.names() == {".ullage.json", "filler"}


def test_a_growth_that_turns_out_not_to_fit_leaves_the_volume_as_it_was(small: Path) -> None:
    before = Rig(small).create(mib=8)
    rig = Rig(small, files=FilledMeanwhile())
    with pytest.raises(InsufficientCapacityError):
        rig.expand(40)
    assert rig.volume() == before
    assert rig.image().stat().st_size == 8 * MIB


class RefusingDirectIo(Subprocesses):
    """An old kernel over a file system without direct I/O."""

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        if "--direct-io=on" in argv:
            raise CommandFailedError(argv=argv, exit_code=1, stderr="set direct io failed: Invalid argument")
        return super().change(argv, stdin=stdin, accepted=accepted)


def test_where_direct_io_is_refused_the_device_goes_without(rig: Rig) -> None:
    assert rig.reborn(runner=RefusingDirectIo()).create().is_active


def test_direct_io_is_used_where_it_works(rig: Rig) -> None:
    volume = rig.create()
    assert ran("losetup", "--list", "--noheadings", "--output", "DIO", volume.device_path).strip() == "1"


def test_a_mounted_file_system_keeps_its_content_while_its_volume_grows(rig: Rig, root: Path) -> None:
    volume = rig.create(mib=16)
    ran("mkfs.ext4", "-q", volume.device_path)
    place = root / "mounted"
    place.mkdir()
    ran("mount", volume.device_path, str(place))
    (place / "kept").write_text("kept")
    grown = rig.expand(32)
    assert (grown.size_bytes, grown.device_size_bytes, grown.state) == (32 * MIB, 32 * MIB, VolumeState.READY)
    assert grown.is_open
    assert (place / "kept").read_text() == "kept"
    ran("umount", str(place))
    ran("e2fsck", "-fp", grown.device_path)
    ran("resize2fs", grown.device_path)  # not while mounted: that takes a capability that a test's host may lack
    ran("mount", grown.device_path, str(place))
    assert (place / "kept").read_text() == "kept"
    assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize > 24 * MIB


def test_a_growth_that_needs_a_wipe_shows_the_old_size_until_it_is_settled(rig: Rig) -> None:
    rig.create(mib=8)
    growing = rig.expand(16, needs_wipe=True)
    assert (growing.size_bytes, growing.device_size_bytes) == (8 * MIB, 16 * MIB)
    assert growing.state is VolumeState.GROWING
    settled = rig.backend.settle(growing)
    assert (settled.size_bytes, settled.state) == (16 * MIB, VolumeState.READY)


def test_a_volume_never_shrinks(rig: Rig) -> None:
    rig.create(mib=16)
    assert rig.expand(8).size_bytes == 16 * MIB


def test_the_size_reported_is_the_devices_when_a_growth_did_not_reach_it(rig: Rig) -> None:
    rig.create(mib=8)
    os.truncate(rig.image(), 16 * MIB)
    assert rig.volume().size_bytes == 8 * MIB
    assert rig.expand(16).size_bytes == 16 * MIB


class DeadBeforeTheDevice(Subprocesses):
    """The machine that never comes to tell the device of its new size."""

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        if "--set-capacity" in argv:
            raise CommandFailedError(argv=argv, exit_code=-9, stderr="")
        return super().change(argv, stdin=stdin, accepted=accepted)


def test_a_growth_that_stopped_halfway_can_be_settled_at_what_the_device_has(rig: Rig) -> None:
    before = rig.create(mib=8)
    with pytest.raises(CommandFailedError):
        rig.reborn(runner=DeadBeforeTheDevice()).expand(16)
    growing = rig.volume()
    assert growing.state is VolumeState.GROWING
    assert rig.backend.settle(growing) == before
    assert rig.image().stat().st_size == 8 * MIB


def test_a_growth_given_up_for_a_smaller_one_binds_nobody(small: Path) -> None:
    rig = Rig(small)
    rig.create(mib=8)
    wished = (
        rig.record().read_text().replace('"ready"', '"growing"').replace('"old_size_bytes": 0', '"old_size_bytes": %d')
    )
    rig.record().write_text((wished % (8 * MIB)).replace(f'"size_bytes": {8 * MIB},', f'"size_bytes": {900 * MIB},', 1))
    assert rig.volume().state is VolumeState.GROWING
    grown = rig.expand(16)
    assert (grown.size_bytes, grown.state) == (16 * MIB, VolumeState.READY)


def test_after_a_boot_activate_brings_the_devices_back_with_their_content(rig: Rig) -> None:
    for name in "ab":
        Path(rig.create(name).device_path).write_bytes(name.encode())
        ran("losetup", "--detach", rig.volume(name).device_path)
    assert not any(v.is_active or v.device_path for v in rig.report().volumes)
    rig = rig.reborn()
    rig.activate("a", "b")
    for name in "ab":
        assert content(rig.volume(name).device_path, 1) == name.encode()


def test_activating_twice_gives_one_device(rig: Rig) -> None:
    rig.create()
    rig.activate("a")
    assert len(rig.loops()) == 1


def test_one_lost_image_does_not_keep_other_volumes_from_their_devices(rig: Rig) -> None:
    for name in "ab":
        ran("losetup", "--detach", rig.create(name).device_path)
    rig.image("a").unlink()
    with pytest.raises(Exception, match="a has a record and no image"):
        rig.activate("a", "b")
    assert rig.volume("b").is_active


def test_a_volume_goes_with_device_image_and_record(rig: Rig) -> None:
    volume = rig.create()
    assert rig.backend.condemn(volume).state is VolumeState.DELETING
    rig.backend.remove(volume)
    assert rig.report().volumes == ()
    assert rig.names() == {".ullage.json"}
    assert rig.loops() == []


def test_what_is_gone_is_not_found(rig: Rig) -> None:
    volume = rig.create()
    rig.backend.condemn(volume)
    rig.backend.remove(volume)
    for step in (rig.backend.condemn, rig.backend.remove, rig.backend.settle):
        with pytest.raises(NotFoundError):
            step(volume)


def test_a_condemned_volume_still_has_a_device_that_can_be_wiped(rig: Rig) -> None:
    volume = rig.create()
    condemned = rig.backend.condemn(volume)
    Path(condemned.device_path).write_bytes(b"wiped")
    ran("blockdev", "--flushbufs", condemned.device_path)
    assert rig.image().read_bytes()[:5] == b"wiped"


def test_a_condemned_volume_is_not_made_grown_or_settled_again(rig: Rig) -> None:
    volume = rig.create()
    rig.backend.condemn(volume)
    with pytest.raises(VolumeNotReadyError):
        rig.create()
    with pytest.raises(VolumeNotReadyError):
        rig.expand(16)
    with pytest.raises(VolumeNotReadyError):
        rig.backend.settle(volume)


@pytest.mark.parametrize("name", ["../a", ".a", "a/b", "", "a\0b"])
def test_an_id_that_leads_elsewhere_is_refused(rig: Rig, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        rig.create(name)
    assert rig.names() <= {".ullage.json"}
