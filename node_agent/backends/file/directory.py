"""One directory of volumes, as it is on the disk.

A marker file tells it from the empty mount point that is left when its file system is not mounted. Everything is read
through one open descriptor, so that a mount in the middle of a look cannot mix two directories.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec

from node_agent.backends.file import extents, records
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.files import HELD, TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from node_agent.backends.file.records import LARGEST_RECORD_BYTES, Record
from ullage.errors import PoolUnavailableError
from ullage.model import Problem, VolumeId, VolumeKind, VolumeState

MARKER = ".ullage.json"
RECORD_SUFFIX, IMAGE_SUFFIX = ".json", ".img"
LONGEST_ID = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A volume's file. `device` and `inode` are what a loop device remembers of it.

    `own_bytes` are in blocks that are surely its alone: it can write to them without asking the file system for more.
    """

    size_bytes: int
    own_bytes: int
    device: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """All that bears one id: a record, an image, or what stands in their place."""

    id: VolumeId
    record: Record | Problem | None
    image: Image | Problem | None

    @property
    def promised_bytes(self) -> int:
        """What the image may still take of the file system, so that all can be written to their last byte.

        One being deleted takes nothing more, and a snapshot is never written to. Of the images that share a block, the
        last to be written to can keep it, and each of the others needs another: a snapshot keeps it for nothing; where
        only volumes share, each is promised one, which is one too many.

        What an image that is being made still lacks is not counted: whoever makes it takes that off when it is there
        (`node_agent.stock`), and who ordered it has done so all the time. It would count twice.
        """
        if not isinstance(self.record, Record) or self.record.state is VolumeState.DELETING:
            return 0
        if self.record.kind is not VolumeKind.VOLUME:
            return 0
        image = self.image if isinstance(self.image, Image) else None
        size_bytes = self.record.size_bytes
        if self.record.state is VolumeState.CREATING:
            size_bytes = min(size_bytes, image.size_bytes if image else 0)
        return max(0, size_bytes - (image.own_bytes if image else 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A file system's size and what we may still take, both without the blocks it keeps for root."""

    total_bytes: int
    available_bytes: int


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """The directory's own identity; newer versions may say more, the uuid stays."""

    version: int = 1
    uuid: str


_MARKERS = msgspec.json.Decoder(Marker)


@dataclass(frozen=True, slots=True)
class Directory:
    """An open directory."""

    path: str
    descriptor: int

    def image_path(self, volume_id: VolumeId) -> str:
        """Where the image is for programs that take a path."""
        return f"{self.path}/{volume_id}{IMAGE_SUFFIX}"

    def identity(self) -> tuple[int, int]:
        """The same for two paths of one directory."""
        found = os.fstat(self.descriptor)
        return found.st_dev, found.st_ino

    def marker(self) -> Marker | None:
        """The marker, if there is one; raises PoolUnavailableError when it cannot be read."""
        try:
            content = self._content(MARKER)
            return None if content is None else _MARKERS.decode(content)
        except (OSError, msgspec.DecodeError) as failure:
            raise PoolUnavailableError(f"{self.path}/{MARKER} cannot be read: {failure}") from failure

    def room(self) -> Room:
        """The file system's room, now."""
        with faults_told(self.path):
            found = os.fstatvfs(self.descriptor)
        kept_for_root = found.f_bfree - found.f_bavail
        return Room(
            total_bytes=(found.f_blocks - kept_for_root) * found.f_frsize,
            available_bytes=found.f_bavail * found.f_frsize,
        )

    def entries(self) -> tuple[Entry, ...]:
        """Everything that bears an id, in the order of the ids. Files of other kinds are not ours to speak of."""
        ids = {stem for name in self._names() for stem in _stems(name) if is_fit_for_a_file(stem)}
        found = (self.entry(VolumeId(stem)) for stem in sorted(ids))
        return tuple(entry for entry in found if entry.record is not None or entry.image is not None)

    def entry(self, volume_id: VolumeId) -> Entry:
        """What bears this id.

        The record is read first: it is made before the image and removed after it, so that a look beside a change
        never sees an image whose record is not there yet or is gone already.
        """
        record = self._record(volume_id)
        image = self._image(volume_id)
        if record is not None and image is None:
            record = self._record(volume_id)  # deleted between the two
        if isinstance(record, Record) and isinstance(image, Image) and _must_be_counted(record):
            image = replace(image, own_bytes=self._own_bytes(volume_id))
        return Entry(id=volume_id, record=record, image=image)

    @contextmanager
    def reading(self, volume_id: VolumeId) -> Iterator[int]:
        """The image, open; raises OSError."""
        flags = os.O_RDONLY | os.O_NONBLOCK | HELD
        descriptor = os.open(f"{volume_id}{IMAGE_SUFFIX}", flags, dir_fd=self.descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def leftovers(self) -> tuple[str, ...]:
        """Temporary files of writers that died."""
        return tuple(n for n in self._names() if n.startswith(TEMPORARY_PREFIX) and n.endswith(TEMPORARY_SUFFIX))

    def _names(self) -> list[str]:
        with faults_told(self.path):
            return os.listdir(self.descriptor)  # noqa: PTH208 - an open directory, not a path

    def _record(self, volume_id: VolumeId) -> Record | Problem | None:
        try:
            content = self._content(f"{volume_id}{RECORD_SUFFIX}")
        except OSError as failure:
            return records.unreadable(volume_id, str(failure))
        return None if content is None else records.read(content, volume_id)

    def _image(self, volume_id: VolumeId) -> Image | Problem | None:
        name = f"{volume_id}{IMAGE_SUFFIX}"
        try:
            found = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as failure:
            return Problem(reason="ImageUnreadable", message=f"{name}: {failure}")
        if not stat.S_ISREG(found.st_mode):
            return Problem(reason="ImageUnreadable", message=f"{name} is no regular file")
        return Image(size_bytes=found.st_size, own_bytes=found.st_blocks * 512, device=found.st_dev, inode=found.st_ino)

    def _own_bytes(self, volume_id: VolumeId) -> int:
        """Of an image that may share blocks; 0 when that cannot be told, so that nothing is promised twice."""
        try:
            with self.reading(volume_id) as descriptor:
                return extents.own_bytes(descriptor)
        except OSError:
            return 0

    def _content(self, name: str) -> bytes | None:
        """A small regular file's bytes; None when it is not there. A pipe of that name must not keep us waiting."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | HELD, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_RECORD_BYTES:
                raise OSError(errno.EINVAL, "not a small regular file", name)
            return os.read(descriptor, LARGEST_RECORD_BYTES)
        finally:
            os.close(descriptor)


@contextmanager
def opened(path: str) -> Iterator[Directory]:
    """The directory at `path`; raises PoolUnavailableError when it cannot be opened."""
    with faults_told(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Directory(path, descriptor)
    finally:
        os.close(descriptor)


def is_fit_for_a_file(volume_id: str) -> bool:
    """Whether an id can be part of a file's name and nothing else. Ids are checked where they enter; here once more."""
    is_plain = volume_id.isascii() and volume_id.isprintable() and len(volume_id) <= LONGEST_ID
    return bool(volume_id) and is_plain and "/" not in volume_id and not volume_id.startswith(".")


def _must_be_counted(record: Record) -> bool:
    """Whether the image's blocks may be others', too, and it matters; it takes time where there are many extents."""
    return record.shares_blocks and record.kind is VolumeKind.VOLUME


def _stems(name: str) -> Iterator[str]:
    for suffix in (RECORD_SUFFIX, IMAGE_SUFFIX):
        if name.endswith(suffix):
            yield name.removesuffix(suffix)
