"""Volumes held still: what is frozen, what is claimed, what is refused, and that everything ends, whatever happens."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node_agent.debts import Debts
from node_agent.holds import FROZEN, Holds
from tests.host.fs_rig import KINDS, MIB, SIZE, Disk, Node, ran
from ullage.errors import PreconditionError
from ullage.model import DeviceClassName, DeviceType, PoolName, StoreName, Volume, VolumeId, VolumeState, Wipe

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
LONG_SECONDS = 20.0


def volume_on(disk: Disk, name: str, *, is_open: bool = False) -> Volume:
    number = os.stat(disk.path).st_rdev  # noqa: PTH116 - a device node
    return Volume(
        id=VolumeId(name),
        pool=PoolName("pool"),
        store=StoreName("pool"),
        type=DeviceType.FILE,
        device_class=DeviceClassName("main"),
        size_bytes=disk.size,
        device_size_bytes=disk.size,
        state=VolumeState.READY,
        wipe=Wipe.NONE,
        device_path=disk.path,
        device_major=os.major(number),
        device_minor=os.minor(number),
        is_open=is_open,
    )


def mounted(node: Node, kind: str, name: str = "a", *options: str) -> tuple[Volume, Path]:
    disk = node.disk(SIZE[kind])
    ran(f"mkfs.{kind}", "-q", disk.path)
    place = node.target(name)
    place.mkdir()
    ran("mount", *options, disk.path, str(place))
    return volume_on(disk, f"pvc-{name}", is_open=True), place


def is_frozen(place: Path) -> bool:
    """Asked the only way there is: by freezing it, and thawing it again."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, FIFREEZE, 0)
        fcntl.ioctl(descriptor, FITHAW, 0)
    except OSError as failure:
        if failure.errno != errno.EBUSY:
            raise
        return True
    finally:
        os.close(descriptor)
    return False


def begun_writing(place: Path) -> threading.Event:
    """Somebody begins to write there; the event tells that it was done."""
    done = threading.Event()

    def write() -> None:
        (place / "file").write_bytes(b"x")
        done.set()

    threading.Thread(target=write, daemon=True).start()
    return done


@pytest.mark.parametrize("kind", KINDS)
def test_a_mounted_file_system_is_frozen_and_its_writers_go_on_after(node: Node, kind: str) -> None:
    volume, place = mounted(node, kind)
    debts = Debts(node.root / "debts")
    with Holds(debts).still([volume], LONG_SECONDS) as hold:
        done = begun_writing(place)
        assert is_frozen(place)
        assert len(list((node.root / "debts").iterdir())) == 1
        assert not done.wait(0.3)
        hold.check()
    assert done.wait(LONG_SECONDS)
    hold.check()
    assert not is_frozen(place)
    assert list((node.root / "debts").iterdir()) == []


def test_several_are_held_together_and_one_that_is_mounted_twice_once(node: Node) -> None:
    (first, there), (second, elsewhere) = mounted(node, "ext4", "a"), mounted(node, "xfs", "b")
    (again := node.target("again")).mkdir()
    ran("mount", "--bind", str(there), str(again))
    unused = node.disk(8 * MIB)
    seconds: list[float] = []
    holds = Holds()
    holds.tell(seconds.append)
    with holds.still([second, volume_on(unused, "pvc-c"), first], LONG_SECONDS) as hold:
        assert all(is_frozen(place) for place in (there, again, elsewhere))
        with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
            os.open(unused.path, os.O_RDONLY | os.O_EXCL)
    hold.check()
    assert not any(is_frozen(place) for place in (there, again, elsewhere))
    os.close(os.open(unused.path, os.O_RDONLY | os.O_EXCL))
    assert len(seconds) == 1


def test_a_mount_that_is_hidden_under_another_is_reached_by_its_other_mount(node: Node) -> None:
    (volume, place), (_, other) = mounted(node, "ext4", "a"), mounted(node, "ext4", "b")
    (elsewhere := node.target("elsewhere")).mkdir()
    ran("mount", "--make-private", str(place))  # where systemd shares mounts both would be hidden
    ran("mount", "--bind", str(place), str(elsewhere))
    ran("mount", "--bind", str(other), str(place))
    with Holds().still([volume], LONG_SECONDS):
        assert (is_frozen(elsewhere), is_frozen(place)) == (True, False)


def test_one_that_is_mounted_read_only_is_held_too(node: Node) -> None:
    volume, place = mounted(node, "ext4", "a", "-o", "ro")
    with Holds().still([volume], LONG_SECONDS) as hold:
        pass
    hold.check()
    ran("mount", "-o", "remount,rw", str(place))


def test_what_is_written_to_past_a_file_system_is_refused_and_nothing_stays_held(node: Node) -> None:
    volume, place = mounted(node, "ext4")
    debts = Debts(node.root / "debts")
    disk = node.disk(8 * MIB)
    node.publish_block(disk, "block")
    other = node.disk(8 * MIB)
    cases = {
        "published": volume_on(disk, "pvc-z"),
        "it is open": volume_on(other, "pvc-z", is_open=True),
    }
    for why, raw in cases.items():
        with pytest.raises(PreconditionError, match=f"pvc-z cannot be held still.*{why}"), both(debts, volume, raw):
            raise AssertionError("held")
    claimed = os.open(other.path, os.O_RDONLY | os.O_EXCL)
    with pytest.raises(PreconditionError, match="for himself"), both(debts, volume, volume_on(other, "pvc-z")):
        raise AssertionError("held")
    os.close(claimed)
    assert not is_frozen(place)
    assert list((node.root / "debts").glob("*")) == []


@contextmanager
def both(debts: Debts, *volumes: Volume) -> Iterator[None]:
    with Holds(debts).still(volumes, LONG_SECONDS):
        yield


def test_one_that_is_mounted_where_we_do_not_see_it_is_refused(node: Node) -> None:
    disk = node.disk(64 * MIB)
    ran("mkfs.ext4", "-q", disk.path)
    (place := node.target()).mkdir()
    script = f"mount {disk.path} '{place}' && echo there && read end"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as elsewhere:
        assert elsewhere.stdout is not None
        assert elsewhere.stdout.readline() == "there\n"
        with pytest.raises(PreconditionError, match="for himself"), both(Debts(), volume_on(disk, "pvc-a")):
            raise AssertionError("held")
        elsewhere.communicate("end\n")


def test_one_that_is_published_during_the_hold_was_not_held(node: Node) -> None:
    disk = node.disk(8 * MIB)
    with Holds().still([volume_on(disk, "pvc-a")], LONG_SECONDS) as hold:
        node.publish_block(disk)
    with pytest.raises(PreconditionError, match="meanwhile"):
        hold.check()


def test_a_freeze_of_somebody_else_is_left_alone(node: Node) -> None:
    (first, there), (volume, place) = mounted(node, "ext4", "a"), mounted(node, "ext4", "b")
    debts = Debts(node.root / "debts")
    ran("fsfreeze", "--freeze", str(place))
    try:
        with pytest.raises(PreconditionError, match="frozen by somebody else"), both(debts, first, volume):
            raise AssertionError("held")
        Holds(debts).thaw_left_over()
        assert (is_frozen(place), is_frozen(there)) == (True, False)
    finally:
        ran("fsfreeze", "--unfreeze", str(place))


def test_the_deadline_thaws_whatever_the_holder_does_and_the_hold_is_told_to_be_broken(node: Node) -> None:
    (first, there), (second, elsewhere) = mounted(node, "ext4", "a"), mounted(node, "btrfs", "b")
    with Holds().still([first, second], 0.5) as hold:
        hold.check()
        for done in (begun_writing(there), begun_writing(elsewhere)):
            assert done.wait(LONG_SECONDS)
        with pytest.raises(PreconditionError, match="could not be held still for as long"):
            hold.check()
    with pytest.raises(PreconditionError, match="could not be held still for as long"):
        hold.check()


def test_one_that_somebody_else_thaws_was_not_held_and_the_others_are_thawed(node: Node) -> None:
    (first, there), (second, elsewhere) = mounted(node, "ext4", "a"), mounted(node, "xfs", "b")
    with Holds().still([first, second], LONG_SECONDS) as hold:
        ran("fsfreeze", "--unfreeze", str(elsewhere))
    with pytest.raises(PreconditionError, match="thawed by somebody else"):
        hold.check()
    assert (is_frozen(there), is_frozen(elsewhere)) == (False, False)


def test_a_freeze_that_comes_too_late_is_given_back_at_once(node: Node) -> None:
    """A stuck write-back stands for a device that hangs: the file under the loop device cannot be written."""
    _, lower = mounted(node, "ext4", "below")
    image = lower / "image"
    image.touch()
    os.truncate(image, 32 * MIB)
    upper = Disk(ran("losetup", "--find", "--show", str(image)).strip(), image)
    ran("mkfs.ext4", "-q", upper.path)
    (place := node.target("upper")).mkdir()
    ran("mount", upper.path, str(place))
    try:
        (place / "dirty").write_bytes(b"x" * MIB)
        ran("fsfreeze", "--freeze", str(lower))
        holds = Holds(Debts(node.root / "debts"))
        began = time.monotonic()
        try:
            with (
                pytest.raises(PreconditionError, match="could not be held still"),
                holds.still([volume_on(upper, "pvc-u", is_open=True)], 0.5),
            ):
                raise AssertionError("held")
            assert time.monotonic() - began < LONG_SECONDS
        finally:
            ran("fsfreeze", "--unfreeze", str(lower))
        assert begun_writing(place).wait(LONG_SECONDS)
        _until_paid(node.root / "debts")
        assert not is_frozen(place)
    finally:
        ran("umount", str(place))
        ran("losetup", "--detach", upper.path)


def test_what_a_killed_process_has_left_frozen_is_thawed_by_the_next(node: Node) -> None:
    (first, there), (second, elsewhere) = mounted(node, "btrfs", "a"), mounted(node, "xfs", "b")
    folder = node.root / "debts"
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.host.test_holds import *\n"
        "disks = [Disk(path, Path(path)) for path in sys.argv[2:]]\n"
        "volumes = [volume_on(disk, f'pvc-{n}', is_open=True) for n, disk in enumerate(disks)]\n"
        "with Holds(Debts(Path(sys.argv[1]))).still(volumes, 600):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    argv = [sys.executable, "-c", script, str(folder), first.device_path, second.device_path]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(LONG_SECONDS) == -signal.SIGKILL
    try:
        assert (is_frozen(there), is_frozen(elsewhere)) == (True, True)
        assert len(list(folder.iterdir())) == 2
        Holds(Debts(folder)).thaw_left_over()
        assert (is_frozen(there), is_frozen(elsewhere)) == (False, False)
        assert list(folder.iterdir()) == []
    finally:
        for place in (there, elsewhere):
            subprocess.run(["fsfreeze", "--unfreeze", str(place)], check=False, capture_output=True)


def test_notes_of_what_is_not_frozen_or_not_mounted_any_more_go(node: Node) -> None:
    volume, place = mounted(node, "ext4")
    debts = Debts(node.root / "debts")
    debts.owe(FROZEN, {"volume": volume.id, "device": f"{volume.device_major}:{volume.device_minor}"})
    debts.owe(FROZEN, {"volume": "pvc-gone", "device": "7:987654"})
    Holds(debts).thaw_left_over()
    assert list((node.root / "debts").iterdir()) == []
    assert not is_frozen(place)


def test_a_note_that_cannot_be_paid_stays_and_keeps_no_other_from_it(node: Node) -> None:
    volume, place = mounted(node, "ext4")
    debts = Debts(node.root / "debts")
    debts.owe(FROZEN, {"volume": "pvc-odd", "device": "no number"})
    debts.owe(FROZEN, {"volume": volume.id, "device": f"{volume.device_major}:{volume.device_minor}"})
    ran("fsfreeze", "--freeze", str(place))
    Holds(debts).thaw_left_over()
    assert not is_frozen(place)
    assert [debt.facts["volume"] for debt in debts.left(FROZEN)] == ["pvc-odd"]


def test_the_end_of_the_process_gives_everything_back(node: Node) -> None:
    volume, place = mounted(node, "ext4")
    holds = Holds()
    with holds.still([volume], LONG_SECONDS) as hold:
        holds.let_go()
        assert not is_frozen(place)
        with pytest.raises(PreconditionError, match="could not be held still"):
            hold.check()


def _until_paid(folder: Path) -> None:
    end = time.monotonic() + LONG_SECONDS
    while list(folder.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert list(folder.iterdir()) == []
