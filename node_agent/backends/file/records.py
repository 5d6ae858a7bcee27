"""What is written about one volume: `<id>.json` beside `<id>.img`.

The record is the mark that makes an image ours; without one, no image is touched. It is read as strictly as it is
written: an unknown field, a missing one or another volume's id makes it unreadable, and a version from the future is
left alone, because rewriting it would drop what a newer Ullage said there. A change of fields raises the version.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from ullage.model import DeviceClassName, Owner, Problem, VolumeId, VolumeState, Wipe

VERSION = 1
LARGEST_RECORD_BYTES = 64 << 10
"""Far more than a record takes; a larger file is not one."""

Bytes = Annotated[int, msgspec.Meta(ge=0)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One volume as we made it. `size_bytes` is what the image has, or is to get while CREATING or GROWING."""

    version: int = VERSION
    id: VolumeId
    device_class: DeviceClassName = msgspec.field(name="class")
    size_bytes: Annotated[int, msgspec.Meta(gt=0)]
    old_size_bytes: Bytes = 0
    """While GROWING: what may be used until the growth is settled."""
    state: VolumeState
    needs_wipe: bool = False
    """While CREATING: whether somebody is to wipe it before it is READY."""
    wipe: Wipe
    is_sparse: bool
    owner: Owner
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Versioned(msgspec.Struct):
    version: int


def written(record: Record) -> bytes:
    """The record's file, indented for the person who opens it one day."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def read(content: bytes, volume_id: VolumeId) -> Record | Problem:
    """The record in `<volume_id>.json`, or why it cannot be used."""
    try:
        version = msgspec.json.decode(content, type=_Versioned).version
        if version > VERSION:
            return Problem(
                reason="RecordTooNew",
                message=f"the record of {volume_id} has format {version}, newer than {VERSION}: left alone",
            )
        record = msgspec.json.decode(content, type=Record)
    except (msgspec.DecodeError, UnicodeDecodeError) as failure:
        return unreadable(volume_id, str(failure))
    if record.version != VERSION:
        return unreadable(volume_id, f"there is no format {record.version}")
    if record.id != volume_id:
        return unreadable(volume_id, f"it is the record of {record.id}")
    if record.state is VolumeState.GROWING and not 0 < record.old_size_bytes <= record.size_bytes:
        return unreadable(volume_id, f"it grows from {record.old_size_bytes} to {record.size_bytes} bytes")
    return record


def unreadable(volume_id: VolumeId, why: str) -> Problem:
    """A record that is there and says nothing."""
    return Problem(reason="RecordUnreadable", message=f"the record of {volume_id} cannot be used: {why}")
