"""What an operating system's error means for a directory of volumes."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ullage.errors import (
    DeviceError,
    InsufficientCapacityError,
    OutOfRangeError,
    PoolUnavailableError,
    UllageError,
    UnsupportedError,
    human_bytes,
)


@contextmanager
def faults_told(path: str, *, wanted_bytes: int = 0, free_bytes: int = 0) -> Iterator[None]:
    """Raise our errors for the body's OSErrors; the numbers are for the sentence."""
    try:
        yield
    except OSError as fault:
        raise _meaning(fault, path, wanted_bytes, free_bytes) from fault


def _meaning(fault: OSError, path: str, wanted_bytes: int, free_bytes: int) -> UllageError:
    said = fault.strerror or str(fault)
    match fault.errno:
        case errno.ENOSPC | errno.EDQUOT:
            numbers = f"; wanted {human_bytes(wanted_bytes)}, {human_bytes(free_bytes)} seemed free"
            return InsufficientCapacityError(
                f"{path}: {said}{numbers if wanted_bytes else ''}",
                wanted_bytes=wanted_bytes,
                free_bytes=free_bytes,
            )
        case errno.EFBIG:
            return OutOfRangeError(
                f"{path}: the file system holds no file of {human_bytes(wanted_bytes)}", wanted_bytes=wanted_bytes
            )
        case errno.EOPNOTSUPP:
            return UnsupportedError(f"{path}: the file system cannot preallocate; make the device class sparse")
        case errno.EIO:
            return DeviceError(f"{path}: {said}")
        case _:
            return PoolUnavailableError(f"{path}: {said}")
