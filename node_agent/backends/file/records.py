"""What is written about one volume: `<id>.json` beside `<id>.img`.

The record is the mark that makes an image ours; without one, no image is touched. It is read as strictly as it is
written: an unknown field, a missing one or another volume's id makes it unreadable, and a version from the future is
left alone, because rewriting it would drop what a newer Ullage said there. A change of fields raises the version; an
older record is read as what it meant, and is written in the newest version at its next change.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec.structs import replace

from node_agent.backends.port import NewVolume
from ullage.model import DeviceClassName, GroupId, Owner, Problem, VolumeId, VolumeKind, VolumeState, Wipe

VERSION = 2
SINCE_2 = frozenset({"kind", "source", "taken_at", "group", "filled_bytes", "shares_blocks"})
SNAPSHOT_STATES = (VolumeState.CREATING, VolumeState.READY, VolumeState.DELETING)
LARGEST_RECORD_BYTES = 64 << 10
"""Far more than a record takes; a larger file is not one."""

Bytes = Annotated[int, msgspec.Meta(ge=0)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One volume as we made it. `size_bytes` is what the image has, or is to get while CREATING or GROWING."""

    version: int = VERSION
    id: VolumeId
    kind: VolumeKind = VolumeKind.VOLUME
    source: VolumeId | None = None
    """What it began as."""
    taken_at: Bytes = 0
    group: GroupId | None = None
    device_class: DeviceClassName = msgspec.field(name="class")
    size_bytes: Annotated[int, msgspec.Meta(gt=0)]
    old_size_bytes: Bytes = 0
    """While GROWING: what may be used until the growth is settled."""
    filled_bytes: Bytes = 0
    """While FILLING: so much of its source's content is on the disk."""
    shares_blocks: bool = False
    """Whether another image has or may once have had some of its blocks, too: it was cloned, or is a clone."""
    state: VolumeState
    needs_wipe: bool = False
    """While CREATING: whether somebody is to wipe it before it is READY."""
    wipe: Wipe
    is_sparse: bool
    owner: Owner
    created_at: Annotated[datetime, msgspec.Meta(tz=True)]


class _Versioned(msgspec.Struct):
    version: int


_VERSIONS = msgspec.json.Decoder(_Versioned)
_RECORDS = msgspec.json.Decoder(Record)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def first(new: NewVolume, size_bytes: int, now: datetime) -> Record:
    """The record that a volume begins with: there is nothing else of it yet."""
    return Record(
        id=new.id,
        kind=new.kind,
        source=new.source.id if new.source else None,
        taken_at=new.taken_at,
        group=new.group,
        device_class=new.device_class.name,
        size_bytes=size_bytes,
        state=VolumeState.CREATING,
        needs_wipe=new.needs_wipe,
        wipe=new.device_class.wipe,
        is_sparse=new.device_class.is_sparse,
        owner=new.owner,
        created_at=now,
    )


def written(record: Record) -> bytes:
    """The record's file, indented for the person who opens it one day."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def read(content: bytes, volume_id: VolumeId) -> Record | Problem:
    """The record in `<volume_id>.json`, or why it cannot be used."""
    try:
        version = _VERSIONS.decode(content).version
        if version > VERSION:
            return Problem(
                reason="RecordTooNew",
                message=f"the record of {volume_id} has format {version}, newer than {VERSION}: left alone",
            )
        record = _RECORDS.decode(content)
        fields = _FIELDS.decode(content).keys()
    except (msgspec.DecodeError, UnicodeDecodeError) as failure:
        return unreadable(volume_id, str(failure))
    if version < 1:
        return unreadable(volume_id, f"there is no format {version}")
    if version == 1 and fields & SINCE_2:
        return unreadable(volume_id, f"format 1 has no {', '.join(sorted(fields & SINCE_2))}")
    return _nonsense(record, volume_id) or replace(record, version=VERSION)


def unreadable(volume_id: VolumeId, why: str) -> Problem:
    """A record that is there and says nothing."""
    return Problem(reason="RecordUnreadable", message=f"the record of {volume_id} cannot be used: {why}")


def _nonsense(record: Record, volume_id: VolumeId) -> Problem | None:
    if record.id != volume_id:
        return unreadable(volume_id, f"it is the record of {record.id}")
    if record.state is VolumeState.GROWING and not 0 < record.old_size_bytes <= record.size_bytes:
        return unreadable(volume_id, f"it grows from {record.old_size_bytes} to {record.size_bytes} bytes")
    if record.state is VolumeState.FILLING and (record.source is None or record.filled_bytes > record.size_bytes):
        return unreadable(volume_id, f"it is filled from {record.source}, {record.filled_bytes} bytes so far")
    if record.kind is not VolumeKind.VOLUME and (record.source is None or record.state not in SNAPSHOT_STATES):
        return unreadable(volume_id, f"it is a {record.state} {record.kind} of {record.source}")
    return None
