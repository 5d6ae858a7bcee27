"""The few changes made in a directory of volumes, each whole and durable when it returns.

Names are single components, taken relative to an open directory, and never followed if they are symbolic links: what
was checked is what is changed, even if something is mounted over the path in between.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from node_agent.backends.file import extents

TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".ullage-", ".tmp"
HELD = os.O_CLOEXEC | os.O_NOFOLLOW


class Files(Protocol):
    """Changes files in an open directory; raises OSError. Injected, so that a test can fail or die at any of them."""

    def write(self, directory: int, name: str, content: bytes) -> None:
        """Put `content` in the place of `name`, old or new and never half."""

    def write_new(self, directory: int, name: str, content: bytes) -> None:
        """The same for a name that must be free; raises FileExistsError."""

    def make(self, directory: int, name: str) -> None:
        """An empty file; raises FileExistsError."""

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        """Make the file at least `size_bytes` long, the new part zeroes; its blocks taken now unless `is_sparse`."""

    def shorten(self, directory: int, name: str, size_bytes: int) -> None:
        """Cut the file to `size_bytes`."""

    def clone(self, directory: int, source: str, name: str, *, mode: int) -> None:
        """A file that is what `source` is at this moment, sharing its blocks; all of it or no file.

        Raises FileExistsError.
        """

    def copy(self, directory: int, source: str, name: str, *, mode: int, go_on: Callable[[int], None]) -> None:
        """The same byte by byte, for a `source` that keeps still; given up when `go_on` raises (see `extents.copy`)."""

    def unlink(self, directory: int, name: str) -> None:
        """Remove the file; one that is not there is no error."""


class DurableFiles:
    """The real Files."""

    def write(self, directory: int, name: str, content: bytes) -> None:
        """See Files."""
        with _written_aside(directory, content) as temporary:
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)

    def write_new(self, directory: int, name: str, content: bytes) -> None:
        """See Files."""
        with _written_aside(directory, content) as temporary:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)  # unlike a rename, never over another
        os.fsync(directory)

    def make(self, directory: int, name: str) -> None:
        """See Files."""
        os.close(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | HELD, 0o600, dir_fd=directory))
        os.fsync(directory)

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        """See Files."""
        with _opened(directory, name, os.O_RDWR) as image:
            present_bytes = os.fstat(image).st_size
            if size_bytes > present_bytes and is_sparse:
                os.ftruncate(image, size_bytes)
            elif size_bytes > present_bytes:
                # From the old end on: where the kernel cannot preallocate, the C library writes into every block
                # instead, and must not do so under a file system in use.
                os.posix_fallocate(image, present_bytes, size_bytes - present_bytes)
            os.fsync(image)  # also when the length is there: whoever made it may have died before this

    def shorten(self, directory: int, name: str, size_bytes: int) -> None:
        """See Files."""
        with _opened(directory, name, os.O_RDWR) as image:
            os.ftruncate(image, size_bytes)
            os.fsync(image)

    def clone(self, directory: int, source: str, name: str, *, mode: int) -> None:
        """See Files."""
        with _opened(directory, source, os.O_RDONLY) as content, _named_when_done(directory, name, mode) as image:
            extents.clone(content, image)

    def copy(self, directory: int, source: str, name: str, *, mode: int, go_on: Callable[[int], None]) -> None:
        """See Files."""
        with _opened(directory, source, os.O_RDONLY) as content, _named_when_done(directory, name, mode) as image:
            extents.copy(content, image, go_on)

    def unlink(self, directory: int, name: str) -> None:
        """See Files."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        os.fsync(directory)


@contextmanager
def _opened(directory: int, name: str, flags: int) -> Iterator[int]:
    descriptor = os.open(name, flags | HELD, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def can_clone(directory: int) -> bool:
    """Whether files in this directory can share blocks: tried on two that are gone afterwards. Raises OSError."""
    with _aside(directory, 0o600) as (one, _), _aside(directory, 0o600) as (other, _):
        os.write(one, bytes(4096))
        try:
            extents.clone(one, other)
        except OSError as failure:
            if failure.errno in extents.CANNOT_CLONE:
                return False
            raise
        return True


@contextmanager
def _written_aside(directory: int, content: bytes) -> Iterator[str]:
    """A durable temporary file; it is gone afterwards, unless the body renamed it or the process died."""
    with _aside(directory, 0o600) as (descriptor, temporary):
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
        yield temporary


@contextmanager
def _named_when_done(directory: int, name: str, mode: int) -> Iterator[int]:
    """An empty file to fill; it gets its name when the body is through and all of it is durable."""
    with _aside(directory, mode) as (descriptor, temporary):
        yield descriptor
        os.fsync(descriptor)
        os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


@contextmanager
def _aside(directory: int, mode: int) -> Iterator[tuple[int, str]]:
    """A temporary file, open, and its name; the name is gone afterwards, unless the process died."""
    temporary = f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | HELD, mode, dir_fd=directory)
    try:
        yield descriptor, temporary
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
