"""Changes in a directory are whole or not there; links and pipes are never followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.backends.file.directory import Directory, Image, opened
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.files import DurableFiles
from node_agent.backends.file.records import Record
from node_agent.backends.file.uses import _mount
from ullage.errors import (
    DeviceError,
    InsufficientCapacityError,
    OutOfRangeError,
    PoolUnavailableError,
    UllageError,
    UnsupportedError,
)
from ullage.model import Problem, VolumeId

FILES = DurableFiles()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """An open one."""
    with opened(str(tmp_path)) as found:
        yield found.descriptor


def test_a_write_replaces_the_whole_content_and_leaves_nothing_else(tmp_path: Path, directory: int) -> None:
    FILES.write_new(directory, "a.json", b"old and long")
    FILES.write(directory, "a.json", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"new"
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o600


def test_a_first_write_never_goes_over_another_file(tmp_path: Path, directory: int) -> None:
    (tmp_path / "a.json").write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        FILES.write_new(directory, "a.json", b"ours")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"theirs"


def test_a_write_that_fails_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    FILES.write_new(directory, "a.json", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        FILES.write(directory, "a.json", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_a_write_puts_a_file_in_the_place_of_a_link_and_not_into_its_target(tmp_path: Path, directory: int) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "a.json").symlink_to("target")
    FILES.write(directory, "a.json", b"ours")
    assert (tmp_path / "target").read_bytes() == b"theirs"


@pytest.mark.parametrize("change", ["make", "lengthen", "shorten"])
def test_an_image_is_never_reached_through_a_link(tmp_path: Path, directory: int, change: str) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "a.img").symlink_to("target")
    with pytest.raises(OSError, match=r"File exists|symbolic links"):
        {
            "make": lambda: FILES.make(directory, "a.img"),
            "lengthen": lambda: FILES.lengthen(directory, "a.img", 4096, is_sparse=True),
            "shorten": lambda: FILES.shorten(directory, "a.img", 0),
        }[change]()
    assert (tmp_path / "target").read_bytes() == b"theirs"


def test_an_image_is_never_made_shorter_by_lengthening_it(tmp_path: Path, directory: int) -> None:
    FILES.make(directory, "a.img")
    for is_sparse in (True, False):
        FILES.lengthen(directory, "a.img", 8192, is_sparse=is_sparse)
        FILES.lengthen(directory, "a.img", 4096, is_sparse=is_sparse)
        assert (tmp_path / "a.img").stat().st_size == 8192


def test_removing_what_is_gone_is_no_error(directory: int) -> None:
    FILES.unlink(directory, "a.img")


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (errno.ENOSPC, InsufficientCapacityError),
        (errno.EDQUOT, InsufficientCapacityError),
        (errno.EFBIG, OutOfRangeError),
        (errno.EOPNOTSUPP, UnsupportedError),
        (errno.EIO, DeviceError),
        (errno.EROFS, PoolUnavailableError),
        (errno.ENOENT, PoolUnavailableError),
        (errno.EACCES, PoolUnavailableError),
    ],
)
def test_no_error_of_the_operating_system_leaks_or_means_that_something_is_gone(
    code: int, meaning: type[UllageError]
) -> None:
    with pytest.raises(meaning), faults_told("/volumes", wanted_bytes=1, free_bytes=0):
        raise OSError(code, os.strerror(code))


def test_a_directory_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PoolUnavailableError), opened(str(tmp_path / "file")):
        pass


def test_what_was_opened_is_what_is_read_when_another_directory_takes_its_place(tmp_path: Path) -> None:
    (tmp_path / "volumes").mkdir()
    (tmp_path / "volumes" / "a.img").touch()
    with opened(str(tmp_path / "volumes")) as directory:
        (tmp_path / "volumes").rename(tmp_path / "aside")
        (tmp_path / "volumes").mkdir()
        assert [entry.id for entry in directory.entries()] == [VolumeId("a")]


@dataclass(frozen=True, slots=True)
class Beside(Directory):
    """A look during which the volume is removed: between the two reads, whichever comes first."""

    def _record(self, volume_id: VolumeId) -> Record | Problem | None:
        found = Directory._record(self, volume_id)
        self.remove(volume_id)
        return found

    def _image(self, volume_id: VolumeId) -> Image | Problem | None:
        found = Directory._image(self, volume_id)
        self.remove(volume_id)
        return found

    def remove(self, volume_id: VolumeId) -> None:
        for suffix in (".img", ".json"):
            FILES.unlink(self.descriptor, f"{volume_id}{suffix}")


def test_a_look_beside_a_removal_sees_no_half_of_a_volume(tmp_path: Path, directory: int) -> None:
    FILES.write_new(directory, "a.json", b"{}")
    FILES.make(directory, "a.img")
    assert Beside(str(tmp_path), directory).entries() == ()


def test_a_directory_in_the_place_of_a_record_is_told_and_costs_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with opened(str(tmp_path)) as directory:
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert isinstance(directory.entry(VolumeId("a")).record, Problem)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_mount_point_with_spaces_is_read_as_it_is_called() -> None:
    mount = _mount(r"36 35 7:3 / /var/a\040b\134c rw,noatime shared:1 - ext4 /dev/loop3 rw")
    assert (mount.device, mount.root, mount.place, mount.kind) == ("7:3", "/", "/var/a b\\c", "ext4")


def test_a_mount_line_with_any_number_of_optional_fields_is_read() -> None:
    for optional in ("", "shared:1 ", "shared:1 master:2 propagate_from:3 "):
        mount = _mount(f"36 35 0:5 /loop3 /run/published rw {optional}- devtmpfs udev rw")
        assert (mount.root, mount.place, mount.kind) == ("/loop3", "/run/published", "devtmpfs")
