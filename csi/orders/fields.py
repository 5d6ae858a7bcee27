"""Single fields of the messages, each checked by itself: a name, an id, a path, a range of sizes.

An id that no volume can have is not an error of the caller's: it is a volume that is not there (NOT_FOUND).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ullage.errors import InvalidRequestError, NotFoundError, OutOfRangeError
from ullage.model import GroupId, VolumeId, VolumeKind
from ullage.names import check_volume_id, is_group_id, kind_of
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quoting import quoted

MOST_SIZE_BYTES = 1 << 60
"""An exbibyte: more than any node has."""
MOST_STRING_BYTES = 128
"""Of a name or id (CSI spec, "Size Limits")."""
MOST_PATH_BYTES = 4096


def named(text: str, field: str) -> str:
    """A name or id that is there, and not too long; raises InvalidRequestError."""
    if not text:
        raise InvalidRequestError(f"{field} is missing")
    if len(text.encode()) > MOST_STRING_BYTES:
        raise InvalidRequestError(f"{field} has {len(text.encode())} bytes, {MOST_STRING_BYTES} are the most")
    return text


def known(text: str, field: str = "volume_id") -> VolumeId:
    """The id of a volume that may be there; raises InvalidRequestError, NotFoundError."""
    try:
        volume_id = check_volume_id(named(text, field))
    except InvalidRequestError as impossible:
        if not text or len(text.encode()) > MOST_STRING_BYTES:
            raise
        raise NotFoundError(f"No volume has the id {quoted(text)}") from impossible
    if kind_of(volume_id) is not VolumeKind.VOLUME:
        raise NotFoundError(f"No volume has the id {volume_id}: it is a {kind_of(volume_id)}'s")
    return volume_id


def snapshot(text: str, field: str) -> VolumeId:
    """The id of a snapshot that may be there; raises InvalidRequestError, NotFoundError."""
    if kind_of(named(text, field)) is not VolumeKind.SNAPSHOT:
        raise NotFoundError(f"No snapshot has the id {quoted(text)}")
    return VolumeId(text)


def group(text: str) -> GroupId:
    """The id of a group of snapshots that may be there; raises InvalidRequestError, NotFoundError."""
    if not is_group_id(named(text, "group_snapshot_id")):
        raise NotFoundError(f"No group of snapshots has the id {quoted(text)}")
    return GroupId(text)


def path(text: str, field: str) -> Path:
    """An absolute path below the root, in its plain form; raises InvalidRequestError."""
    if not text:
        raise InvalidRequestError(f"{field} is missing")
    parts: Iterable[str] = text.split("/")
    if not text.startswith("/") or "\0" in text or ".." in parts or len(text.encode()) >= MOST_PATH_BYTES:
        raise InvalidRequestError(f"{field} {quoted(text)} is no absolute path without '..'")
    plain = Path(text)
    if not plain.name:  # "//" is a root of its own to pathlib
        raise InvalidRequestError(f"{field} is the root")
    return plain


def size_range(wanted: pb.CapacityRange) -> tuple[int, int]:
    """The bytes required and the limit, 0 for what is not said; raises InvalidRequestError, OutOfRangeError."""
    if wanted.required_bytes < 0 or wanted.limit_bytes < 0:
        raise InvalidRequestError(f"A capacity of {wanted.required_bytes} to {wanted.limit_bytes} bytes is impossible")
    if wanted.limit_bytes and wanted.limit_bytes < wanted.required_bytes:
        raise InvalidRequestError(
            f"The limit of {wanted.limit_bytes} bytes is below the {wanted.required_bytes} bytes required"
        )
    if wanted.required_bytes > MOST_SIZE_BYTES:
        raise OutOfRangeError(f"{wanted.required_bytes} bytes are wanted; {MOST_SIZE_BYTES} are the most")
    return wanted.required_bytes, wanted.limit_bytes
