"""Snapshots and copies of files: where blocks are shared, and where bytes are copied."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from node_agent.backends.file.backend import FileBackend
from tests.host.copies_rig import CLONING, MKFS, content, derived, directory_on, written
from tests.host.file_rig import MIB, Rig, ran
from ullage.errors import (
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    OutOfRangeError,
    PreconditionError,
    VolumeNotReadyError,
)
from ullage.model import VolumeKind, VolumeState
from ullage.run import Subprocesses

OLD, NEW = b"what was there first" * 512, b"what was written later" * 512
EVERYWHERE = pytest.mark.parametrize("kind", sorted(MKFS))
SHARING = pytest.mark.parametrize("kind", CLONING)


@pytest.fixture
def rig(root: Path, kind: str) -> Rig:
    return Rig(directory_on(kind, root))


@EVERYWHERE
def test_a_snapshot_holds_what_was_there_and_cannot_be_written_to(rig: Rig) -> None:
    origin = rig.create()
    written(origin, MIB, OLD)
    taken = derived(rig, "s-1", origin)
    assert (taken.kind, taken.source, taken.taken_at) == (VolumeKind.SNAPSHOT, "a", 1234567890)
    assert (taken.state, taken.size_bytes, taken.is_active) == (VolumeState.READY, 8 * MIB, False)
    assert rig.image("s-1").stat().st_mode & 0o777 == 0o400
    written(origin, MIB, NEW)
    assert content(rig, "s-1")[MIB : MIB + len(OLD)] == OLD
    assert content(rig, "a")[MIB : MIB + len(NEW)] == NEW
    rig.activate("a", "s-1")
    assert len(rig.loops()) == 1, "a snapshot has no device, also after a start"
    assert rig.reborn().volume("s-1") == taken


@EVERYWHERE
def test_each_goes_without_the_other(rig: Rig) -> None:
    origin = rig.create()
    written(origin, 0, OLD)
    taken = derived(rig, "s-1", origin)
    rig.backend.remove(origin)
    assert content(rig, "s-1")[: len(OLD)] == OLD
    rig.backend.remove(taken)
    assert (rig.names() - {"lost+found"}, rig.loops()) == ({".ullage.json"}, [])


@SHARING
def test_a_copy_is_a_volume_of_its_own_and_can_be_larger(rig: Rig) -> None:
    origin = rig.create()
    written(origin, 0, OLD)
    taken = derived(rig, "s-1", origin)
    assert not rig.backend.is_copied_by_bytes(taken)
    for name, source in (("b", taken), ("c", origin)):
        copy = derived(rig, name, source, VolumeKind.VOLUME, mib=16)
        assert (copy.state, copy.size_bytes, copy.device_size_bytes) == (VolumeState.READY, 16 * MIB, 16 * MIB)
        assert (copy.source, copy.is_active) == (source.id, True)
        assert content(rig, name) == OLD.ljust(16 * MIB, b"\0")
        written(copy, 0, NEW)
        assert content(rig, "a")[: len(OLD)] == content(rig, "s-1")[: len(OLD)] == OLD


@pytest.mark.parametrize("kind", ["ext4"])
def test_where_blocks_cannot_be_shared_a_copy_waits_to_be_filled(rig: Rig) -> None:
    origin = rig.create()
    written(origin, 0, OLD)
    taken = derived(rig, "s-1", origin)
    assert rig.backend.is_copied_by_bytes(taken)
    copy = derived(rig, "b", taken, VolumeKind.VOLUME, mib=16)
    assert (copy.state, copy.size_bytes, copy.filled_bytes, copy.is_active) == (VolumeState.FILLING, 16 * MIB, 0, True)
    with rig.backend.reading(taken) as descriptor:
        written(copy, 0, os.pread(descriptor, 8 * MIB, 0))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(descriptor, b"x", 0)
    noted = rig.backend.note_filled(copy, 8 * MIB)
    assert (noted, noted.filled_bytes) == (rig.reborn().volume("b"), 8 * MIB)
    with pytest.raises(VolumeNotReadyError, match="it cannot grow"):
        rig.expand(32, "b")
    ran("losetup", "--detach", copy.device_path)
    rig.reborn().activate("b")
    settled = rig.reborn().backend.settle(copy)
    assert (settled.state, settled.filled_bytes, settled.is_active) == (VolumeState.READY, 0, True)
    assert content(rig, "b") == OLD.ljust(16 * MIB, b"\0")
    with pytest.raises(VolumeNotReadyError, match="nothing is copied"):
        rig.backend.note_filled(copy, 1)


def test_what_begins_as_a_volume_of_another_directory_is_filled(root: Path) -> None:
    here = Rig(directory_on("ext4", root))
    (root / "more").mkdir()
    there = Rig(directory_on("xfs", root / "more"))
    source = derived(here, "s-1", here.create())
    copy = derived(there, "b", source, VolumeKind.VOLUME)
    assert (copy.state, copy.source, copy.size_bytes) == (VolumeState.FILLING, "s-1", 8 * MIB)
    assert derived(there, "b", source, VolumeKind.VOLUME) == copy
    with pytest.raises(OutOfRangeError):
        derived(there, "c", source, VolumeKind.VOLUME, mib=4)
    with pytest.raises(NotFoundError):
        derived(there, "s-2", source)


@EVERYWHERE
def test_a_repetition_finds_what_is_there_and_another_wish_is_refused(rig: Rig) -> None:
    origin, other = rig.create(), rig.create("other")
    taken = derived(rig, "s-1", origin)
    copy = derived(rig, "b", taken, VolumeKind.VOLUME)
    written(origin, 0, NEW)
    inode = rig.image("s-1").stat().st_ino
    assert derived(rig, "s-1", origin) == taken
    assert derived(rig, "b", taken, VolumeKind.VOLUME) == copy
    assert rig.image("s-1").stat().st_ino == inode
    with pytest.raises(ConflictError):
        derived(rig, "s-1", other)
    with pytest.raises(ConflictError):
        derived(rig, "b", taken, VolumeKind.VOLUME, mib=16)
    with pytest.raises(ConflictError):
        derived(rig, "other", taken, VolumeKind.VOLUME)
    with pytest.raises(ConflictError):
        rig.create("b")
    with pytest.raises(ConflictError):
        rig.create("s-1")
    with pytest.raises(OutOfRangeError):
        derived(rig, "c", origin, VolumeKind.VOLUME, mib=4)
    with pytest.raises(InvalidRequestError, match="it cannot grow"):
        rig.expand(16, "s-1")
    with pytest.raises(InvalidRequestError, match="is a volume"), rig.backend.reading(origin):
        pass


@EVERYWHERE
def test_a_member_of_a_group_is_not_ready_before_the_others_are(rig: Rig) -> None:
    taken = derived(rig, "s-1", rig.create(), needs_wipe=True)
    assert taken.state is VolumeState.CREATING
    with pytest.raises(VolumeNotReadyError), rig.backend.reading(taken):
        pass
    rig.activate("s-1")
    assert rig.volume("s-1").state is VolumeState.CREATING
    assert rig.backend.settle(taken).state is VolumeState.READY
    assert len(rig.loops()) == 1


@EVERYWHERE
def test_what_was_not_flushed_by_whoever_writes_is_in_the_snapshot(rig: Rig) -> None:
    origin = rig.create()
    with Path(origin.device_path).open("r+b") as device:
        device.write(OLD)
        device.flush()
        if rig.backend.is_copied_by_bytes(origin):
            device.close()
        derived(rig, "s-1", origin)
    assert content(rig, "s-1")[: len(OLD)] == OLD


@EVERYWHERE
def test_holes_of_the_source_are_holes_of_its_snapshot(root: Path, kind: str) -> None:
    rig = Rig(directory_on(kind, root), is_sparse=True)
    origin = rig.create(mib=256)
    written(origin, 100 * MIB, OLD)
    taken = derived(rig, "s-1", origin)
    assert rig.image("s-1").stat().st_blocks * 512 <= MIB
    assert [r.offset_bytes for r in rig.backend.allocated(taken)] == [100 * MIB]
    assert content(rig, "s-1") == content(rig, "a")


@pytest.mark.parametrize("kind", ["ext4"])
def test_a_copy_by_bytes_of_what_is_in_use_is_refused_unless_it_can_be_held(rig: Rig, root: Path) -> None:
    origin = rig.create(mib=64)
    ran("mkfs.ext4", "-q", origin.device_path)
    descriptor = os.open(origin.device_path, os.O_RDWR | os.O_EXCL)
    with pytest.raises(PreconditionError, match=r"exclusive opener.*xfs or btrfs"):
        derived(rig, "s-1", origin)
    os.close(descriptor)
    (place := root / "place").mkdir()
    ran("mount", origin.device_path, str(place))
    (place / "file").write_bytes(OLD)
    ran("fsfreeze", "--freeze", str(place))
    try:
        derived(rig, "s-1", origin)
    finally:
        ran("fsfreeze", "--unfreeze", str(place))
    hurried = Rig(rig.directory)
    hurried.backend = FileBackend(Subprocesses(), held_seconds=-1)
    hurried.backend.configure([rig.device_class])
    with pytest.raises(PreconditionError, match=r"for -1 s at most: .* of .* MiB were copied by then"):
        derived(hurried, "s-2", origin)
    ran("umount", str(place))
    assert {"s-1.img", "s-1.json"} == {name for name in rig.names() if name.startswith(("s-", ".ullage-"))}
    derived(hurried, "s-2", origin)  # nobody uses it: there is no bound


@pytest.mark.parametrize("kind", ["ext4"])
def test_a_source_that_is_written_to_while_it_is_copied_is_noticed(rig: Rig) -> None:
    origin = rig.create(mib=64)
    written(origin, 0, b"\1" * 64 * MIB)
    # One that has the device open without saying so.
    with (
        Path(origin.device_path).open("r+b", buffering=0) as device,
        subprocess.Popen(
            ["sh", "-c", "while :; do printf x; done"], stdout=device, stderr=subprocess.DEVNULL
        ) as writer,
    ):
        try:
            with pytest.raises(PreconditionError, match="was written to while it was copied"):
                derived(rig, "s-1", origin)
        finally:
            writer.kill()
    assert not any(name.startswith(("s-", ".ullage-")) for name in rig.names())


@SHARING
@pytest.mark.parametrize("is_sparse", [False, True], ids=["preallocated", "sparse"])
def test_every_volume_can_be_written_to_its_last_byte_whatever_it_shares(
    root: Path, kind: str, *, is_sparse: bool
) -> None:
    rig = Rig(directory_on(kind, root), is_sparse=is_sparse)
    origin = rig.create(mib=32)
    written(origin, 0, b"\1" * 32 * MIB)
    before = rig.report().pools[0].free_bytes
    taken = derived(rig, "s-1", origin)
    assert before - rig.report().pools[0].free_bytes == 32 * MIB, "the origin may need as much once more"
    derived(rig, "s-2", origin)
    assert before - rig.report().pools[0].free_bytes == 32 * MIB, "and a second snapshot of the same takes nothing"
    derived(rig, "b", taken, VolumeKind.VOLUME)
    rig.backend.remove(taken)  # the origin is then named by nobody, and still shares
    names = ["a", "b"]
    with pytest.raises(InsufficientCapacityError):
        rig.create("large", mib=rig.report().pools[0].free_bytes // MIB + 4)
    while rig.report().pools[0].free_bytes >= 32 * MIB:
        derived(rig, name := f"c{len(names)}", rig.volume(names[-1]), VolumeKind.VOLUME)
        names.append(name)
    assert len(names) > 3
    for number, name in enumerate(names):
        written(rig.volume(name), 0, bytes([number + 2]) * 32 * MIB)
    for number, name in enumerate(names):
        assert content(rig, name) == bytes([number + 2]) * 32 * MIB
    assert content(rig, "s-2") == b"\1" * 32 * MIB


@SHARING
def test_a_snapshot_without_room_for_what_its_source_may_write_is_refused(rig: Rig) -> None:
    origin = rig.create(mib=rig.report().pools[0].free_bytes // MIB // 2 + 8)
    before = rig.names()
    with pytest.raises(InsufficientCapacityError):
        derived(rig, "s-1", origin)
    assert rig.names() == before
    assert rig.report().orphans == ()


@SHARING
def test_a_record_of_the_first_format_is_rewritten_at_its_next_change(rig: Rig) -> None:
    origin = rig.create()
    since_2 = ("kind", "source", "taken_at", "group", "filled_bytes", "shares_blocks")
    first = {k: v for k, v in json.loads(rig.record().read_text()).items() if k not in since_2} | {"version": 1}
    rig.record().write_text(json.dumps(first))
    assert rig.volume() == origin
    assert json.loads(rig.record().read_text())["version"] == 1, "a look changes nothing"
    derived(rig, "s-1", origin)
    now = json.loads(rig.record().read_text())
    assert (now["version"], now["shares_blocks"]) == (2, True)
