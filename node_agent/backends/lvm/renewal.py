"""Thin snapshots brought to another moment: that of a hold.

LVM suspends a snapshot's origin, and device-mapper then freezes what is mounted on it. Of a file system that is frozen
already lvcreate makes none (Linux 6.1: the suspend fails with EBUSY). So the snapshots are made before, and during the
hold the thin pool is told to begin them anew under the ids that LVM knows them by (`delete`, `create_snap`, see the
kernel's thin-provisioning.rst): LVM's metadata do not change at all, and the volumes are held for moments only. The
pool wants an active origin suspended so that no write is on its way; where a file system is frozen, or nobody has the
volume open, there is none.

A death between the two messages leaves a logical volume without its thin device. It is marked CREATING, nobody has
seen it, and lvremove takes it for gone already (tried with lvm2 2.03.16).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from node_agent.backends.lvm import tags
from node_agent.backends.lvm.command import Lvm
from ullage.errors import NotOursError, UnreadableReportError
from ullage.model import PoolName, StoreName, Volume, VolumeId, VolumeKind, VolumeState

FIELDS = "lv_name,lv_tags,lv_active,pool_lv,thin_id"


class _Row(msgspec.Struct, kw_only=True):
    lv_name: str
    lv_tags: str
    lv_active: str
    pool_lv: str
    thin_id: str


class _Section(msgspec.Struct, kw_only=True):
    lv: list[_Row]


class _Report(msgspec.Struct, kw_only=True):
    report: list[_Section]


_REPORTS = msgspec.json.Decoder(_Report)


def renew(lvm: Lvm, store: StoreName, snapshots: Sequence[Volume], *, devices: Sequence[str]) -> None:
    """Let these thin snapshots of one volume group hold what their sources, which are held still, hold now.

    What each of them is has been read from LVM just before, all of them before the first is touched: ours, CREATING,
    without a device, and in one pool with its source. Raises NotOursError, UnreadableReportError, CommandFailedError.
    """
    text = lvm.look("lvs", "--reportformat", "json", "-o", FIELDS, store, devices=devices)
    try:
        rows = {row.lv_name: row for section in _REPORTS.decode(text).report for row in section.lv}
    except msgspec.MsgspecError as failure:
        raise UnreadableReportError(f"lvs makes no sense: {failure}", argv=("lvm", "lvs")) from failure
    for pool, new, origin in [_ids(store, each, rows) for each in snapshots]:
        lvm.tell_pool(pool, f"delete {new}")
        lvm.tell_pool(pool, f"create_snap {new} {origin}")


def _ids(store: StoreName, snapshot: Volume, rows: dict[str, _Row]) -> tuple[PoolName, int, int]:
    """The pool, and the thin ids of the snapshot and its source."""
    source = snapshot.source or VolumeId("")
    row, origin = rows.get(snapshot.id), rows.get(source)
    label = _label(row)
    if (
        row is None
        or origin is None
        or label is None
        or (label.volume_id, label.kind, label.state) != (snapshot.id, VolumeKind.SNAPSHOT, VolumeState.CREATING)
        or label.source != source
        or row.lv_active == "active"
        or tags.volume_tag(source) not in origin.lv_tags.split(",")
        or row.pool_lv != origin.pool_lv
        or not (row.pool_lv and row.thin_id.isdigit() and origin.thin_id.isdigit())
        or row.thin_id == origin.thin_id
    ):
        raise NotOursError(f"{store}/{snapshot.id} is not a new snapshot of {store}/{source} (any more)")
    return PoolName(f"{store}/{row.pool_lv}"), int(row.thin_id), int(origin.thin_id)


def _label(row: _Row | None) -> tags.Label | None:
    try:
        return tags.read(row.lv_tags.split(",")) if row is not None else None
    except ValueError:
        return None
