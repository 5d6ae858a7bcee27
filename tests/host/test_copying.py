"""Copies onto loop devices of this machine: as root, with nothing pretended but the clock.

What has arrived is read from the file below the loop device, where only what was written can be.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from node_agent import copying
from node_agent.copying import PIECE_BYTES, STEP_BYTES, copy
from tests.host.file_rig import cleaned, ran
from ullage.errors import KIB, MIB, DeviceError, InvalidRequestError, UnavailableError, VolumeInUseError

OLD = b"an earlier tenant's row of data\n"


@dataclass
class Clock:
    """Time passes when somebody sleeps, and a little with each look."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Course:
    """Hears everything; stops at `stop_at` bytes, and wants `seconds_each` after each step."""

    stop_at: int = 1 << 62
    seconds_each: float = 0.0
    at: int = 0
    moved: list[int] = field(default_factory=list)
    checkpoints: list[int] = field(default_factory=list)
    at_checkpoint: Callable[[int], None] = lambda _: None

    def reached(self, offset_bytes: int) -> None:
        assert offset_bytes > self.at
        self.at = offset_bytes

    def durable(self, offset_bytes: int) -> None:
        self.checkpoints.append(offset_bytes)
        self.at_checkpoint(offset_bytes)

    def pause_seconds(self, moved_bytes: int) -> float:
        self.moved.append(moved_bytes)
        return self.seconds_each

    def is_stopping(self) -> bool:
        return self.at >= self.stop_at


@dataclass(frozen=True)
class Target:
    path: str
    file: Path

    def content(self) -> bytes:
        return self.file.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    try:
        yield tmp_path
    finally:
        for line in ran("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").splitlines():
            device, _, file = (part.strip() for part in line.partition(" "))  # one that is just going has no file
            if file.startswith(f"{tmp_path}/"):
                ran("losetup", "--detach", device)  # one that is mounted goes with its mount
        cleaned(tmp_path)


def target(folder: Path, size_bytes: int, *, content: bytes = OLD, name: str = "target", sector: int = 512) -> Target:
    """A device, full of an earlier tenant's rows or of whatever is to be there."""
    file = folder / name
    file.write_bytes(content * (size_bytes // len(content)))
    path = ran("losetup", "--find", "--show", "--sector-size", str(sector), str(file)).strip()
    return Target(path=path, file=file)


def source(folder: Path, *pieces: bytes | int, name: str = "source") -> Path:
    """A file: bytes are written, a number is so long a hole."""
    file = folder / name
    with file.open("wb") as writing:
        for piece in pieces:
            if isinstance(piece, int):
                writing.truncate(writing.seek(piece, os.SEEK_CUR))
            else:
                writing.write(piece)
    return file


def noise(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)  # noqa: S311 - the same each time


def copied(file: Path, to: Target, course: Course | None = None, **how: object) -> Course:
    course = course or Course()
    descriptor = os.open(file, os.O_RDONLY)
    try:
        facts = {"start_bytes": 0, "end_bytes": file.stat().st_size, **how}
        copy(descriptor, to.path, course, **facts)  # type: ignore[arg-type] # by name, checked at run time
    finally:
        os.close(descriptor)
    return course


def test_everything_is_there_and_zeroes_are_zeroes_on_a_device_with_old_bytes(folder: Path) -> None:
    file = source(
        folder, noise(MIB + 5), 9 * MIB, bytes(3 * MIB), noise(100 * KIB), bytes(300 * KIB), noise(7), 2 * MIB
    )
    to = target(folder, 24 * MIB)
    course = copied(file, to)
    size = file.stat().st_size
    assert to.content()[:size] == file.read_bytes()
    assert to.content()[size:] == (OLD * (24 * MIB // len(OLD)))[size:], "not a byte after the end"
    assert (course.at, course.checkpoints) == (size, [size])
    assert sum(course.moved) == size


def test_a_device_as_source_is_copied_alike(folder: Path) -> None:
    """A device cannot tell where its holes are."""
    content = noise(3 * MIB) + bytes(8 * MIB) + noise(5 * MIB)
    one = target(folder, len(content), content=content, name="one")
    to = target(folder, 16 * MIB)
    copied(Path(one.path), to, end_bytes=len(content))
    assert to.content() == content


@pytest.mark.parametrize("tail", [1, 511, 513, 4095, 4097, PIECE_BYTES - 1, PIECE_BYTES + 1, STEP_BYTES + 1])
@pytest.mark.parametrize("is_zero", [False, True])
@pytest.mark.parametrize("sector", [512, 4096])
def test_an_odd_tail_ends_where_it_ends(folder: Path, tail: int, sector: int, *, is_zero: bool) -> None:
    file = source(folder, noise(STEP_BYTES), bytes(tail) if is_zero else noise(tail))
    to = target(folder, 12 * MIB, sector=sector)
    copied(file, to)
    end = STEP_BYTES + tail
    assert to.content()[:end] == file.read_bytes()
    assert to.content()[end:] == (OLD * (12 * MIB // len(OLD)))[end:]


def test_zeroes_are_not_written_to_a_device_that_is_blank(folder: Path) -> None:
    file = source(folder, noise(MIB), 500 * MIB, bytes(8 * MIB), noise(MIB))
    to = target(folder, 0)
    os.truncate(to.file, file.stat().st_size)
    ran("losetup", "--set-capacity", to.path)
    course = copied(file, to, is_blank=True)
    assert to.content() == file.read_bytes()
    assert to.file.stat().st_blocks * 512 < 4 * MIB
    assert sum(course.moved) < 20 * MIB, "a hole that is left alone costs nothing"


def test_what_is_before_the_start_is_left_as_it_is(folder: Path) -> None:
    file = source(folder, noise(8 * MIB))
    to = target(folder, 8 * MIB)
    copied(file, to, start_bytes=5 * MIB)
    assert to.content() == (OLD * (5 * MIB // len(OLD))) + file.read_bytes()[5 * MIB :]


def test_a_checkpoint_is_on_the_disk_before_it_is_told(folder: Path) -> None:
    """What the device's page cache still keeps to itself is not in the file below."""
    file = source(folder, noise(30 * MIB))
    to = target(folder, 32 * MIB)
    expected = file.read_bytes()

    def check(offset: int) -> None:
        assert to.content()[:offset] == expected[:offset]

    course = copied(file, to, Course(at_checkpoint=check), checkpoint_bytes=8 * MIB)
    assert course.checkpoints == [8 * MIB, 16 * MIB, 24 * MIB, 30 * MIB]


def test_checkpoints_come_with_time_too(folder: Path) -> None:
    file, to, clock = source(folder, noise(20 * MIB)), target(folder, 20 * MIB), Clock()
    course = copied(file, to, Course(seconds_each=1.0), checkpoint_seconds=2.0, clock=clock, sleep=clock.sleep)
    assert course.checkpoints == [12 * MIB, 20 * MIB]


def test_a_copy_rests_as_long_as_it_is_told_in_naps(folder: Path) -> None:
    file, to, clock = source(folder, noise(12 * MIB)), target(folder, 12 * MIB), Clock()
    copied(file, to, Course(seconds_each=1.25), clock=clock, sleep=clock.sleep)
    assert clock.slept == [0.5, 0.5, 0.25] * 2, "and not after its end"


def test_a_stopped_copy_has_a_checkpoint_where_it_stopped_and_goes_on_from_there(folder: Path) -> None:
    file, to = source(folder, noise(20 * MIB)), target(folder, 20 * MIB)
    course = Course(stop_at=8 * MIB)
    with pytest.raises(UnavailableError, match=f"stopped at byte {8 * MIB}"):
        copied(file, to, course)
    assert course.checkpoints == [8 * MIB]
    assert to.content()[8 * MIB :] == OLD * (12 * MIB // len(OLD))
    again = copied(file, to, start_bytes=8 * MIB)
    assert (to.content(), sum(again.moved)) == (file.read_bytes(), 12 * MIB)


def test_a_copy_stops_while_it_rests(folder: Path) -> None:
    file, to, clock = source(folder, noise(12 * MIB)), target(folder, 12 * MIB), Clock()
    with pytest.raises(UnavailableError, match="stopped"):
        copied(file, to, Course(stop_at=STEP_BYTES, seconds_each=3600.0), clock=clock, sleep=clock.sleep)
    assert clock.slept == []


def test_nobody_else_can_have_the_device(folder: Path) -> None:
    file, to = source(folder, noise(MIB)), target(folder, 32 * MIB)
    ran("mkfs.ext4", "-q", to.path)
    place = folder / "place"
    place.mkdir()
    ran("mount", to.path, str(place))
    with pytest.raises(VolumeInUseError, match="mounted or held"):
        copied(file, to)


def test_what_cannot_be_is_refused_before_a_byte_is_written(folder: Path) -> None:
    file, to = source(folder, noise(8 * MIB)), target(folder, 4 * MIB)
    with pytest.raises(DeviceError, match="ends at 8388608"):
        copied(file, to)
    with pytest.raises(DeviceError, match="The source has"):
        copied(file, to, end_bytes=9 * MIB)
    with pytest.raises(InvalidRequestError):
        copied(file, to, start_bytes=2, end_bytes=1)
    with pytest.raises(DeviceError, match="no block device"):
        copied(file, Target(path=str(to.file), file=to.file))
    assert to.content() == OLD * (4 * MIB // len(OLD))


def test_a_write_that_fails_at_the_flush_is_never_told_as_durable(folder: Path) -> None:
    """The loop device's file is on a file system that is full: the kernel finds out when it writes the pages."""
    small = folder / "small"
    small.mkdir()
    ran("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small))
    (small / "target").touch()
    os.truncate(small / "target", 32 * MIB)
    path = ran("losetup", "--find", "--show", str(small / "target")).strip()
    file, course = source(folder, noise(32 * MIB)), Course()
    with pytest.raises(DeviceError) as raised:
        copied(file, Target(path=path, file=small / "target"), course, checkpoint_bytes=4 * MIB)
    assert raised.value.facts["errno"] in (errno.EIO, errno.ENOSPC)
    assert all(offset <= 8 * MIB for offset in course.checkpoints)
    with pytest.raises(DeviceError):  # nor is the failure forgotten by whoever tries again
        copied(file, Target(path=path, file=small / "target"), Course(), start_bytes=course.checkpoints[-1])


def test_a_source_that_cannot_be_read_is_told_with_its_place(folder: Path) -> None:
    """A loop device over a file that has become shorter answers with errors."""
    one = target(folder, 16 * MIB, name="one")
    os.truncate(one.file, 8 * MIB)
    to, course = target(folder, 16 * MIB), Course()
    with pytest.raises(DeviceError, match="Reading the source at byte") as raised:
        copied(Path(one.path), to, course, end_bytes=16 * MIB)
    assert raised.value.facts["errno"] == errno.EIO
    assert course.at <= 8 * MIB


def test_a_run_shorter_than_a_piece_is_written_as_it_is() -> None:
    found = noise(10) + bytes(PIECE_BYTES) + bytes(2 * PIECE_BYTES) + noise(PIECE_BYTES)
    runs = list(copying._runs(found))
    assert [is_zero for is_zero, _, _ in runs] == [False, True, False]
    assert sum(size for _, _, size in runs) == len(found)
