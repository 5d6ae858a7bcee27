"""The CSI calls behind each verb of `ullage snapshot`, and what they print. Nothing is kept between two commands.

A name does not tell what it is the name of: the snapshot and the group that it would make are both looked for, and a
name that is both is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ullage.cli.output import Column, show
from ullage.cli.snapshot_diff import diff
from ullage.cli.volume_calls import PAGE_ENTRIES, copied, show_volumes
from ullage.cli.waiting import until_done
from ullage.csi_client import Driver, driver_at
from ullage.errors import InvalidRequestError, NotFoundError, PreconditionError, human_bytes
from ullage.model import VolumeKind
from ullage.names import group_id, is_group_id, kind_of, snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.rpc_client import CallFailedError

COLUMNS = (
    Column(heading="ID"),
    Column(heading="SOURCE"),
    Column(heading="SIZE"),
    Column(heading="BYTES", is_wide=True),
    Column(heading="TAKEN"),
    Column(heading="READY"),
    Column(heading="GROUP"),
    Column(heading="NODE", is_wide=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Snapshots that were taken at one moment."""

    id: str
    snapshots: tuple[pb.Snapshot, ...]


def create(options: argparse.Namespace) -> None:
    """CreateSnapshot, or CreateVolumeGroupSnapshot for several; raises PreconditionError for what is lost by now."""
    taken = _together(options) if len(options.sources) > 1 else [_alone(options)]
    for each in taken:
        if not each.ready_to_use:
            raise PreconditionError(
                f"snapshot {each.snapshot_id} of {each.source_volume_id} is there, and no volume can be made of it any "
                "more; `ullage volumes` tells why. Delete it, and take another"
            )
    _show(options.output, taken)


def list_(options: argparse.Namespace) -> None:
    """ListSnapshots, page after page."""
    _show(options.output, list(_snapshots(options, options.volume)))


def get(options: argparse.Namespace) -> None:
    """GetSnapshot; a group's are those of the list that say so."""
    found = _found(options)
    _show(options.output, found.snapshots if isinstance(found, _Group) else [found])


def delete(options: argparse.Namespace) -> None:
    """DeleteSnapshot or DeleteVolumeGroupSnapshot, which find what never was as well deleted as any.

    A slip of the hand is told apart here, as for volumes: what is neither there nor gone is deleted.
    """
    wanted = _to_delete(options)
    with driver_at(options.csi_endpoint) as driver:
        if isinstance(wanted, _Group):
            every = pb.DeleteVolumeGroupSnapshotRequest(
                group_snapshot_id=wanted.id, snapshot_ids=[each.snapshot_id for each in wanted.snapshots]
            )
            driver.group.DeleteVolumeGroupSnapshot(every, timeout=options.timeout)
        else:
            driver.controller.DeleteSnapshot(pb.DeleteSnapshotRequest(snapshot_id=wanted), timeout=options.timeout)
    _say(f"group {wanted.id} deleted" if isinstance(wanted, _Group) else f"snapshot {wanted} deleted")


def restore(options: argparse.Namespace) -> None:
    """CreateVolume with a snapshot as its content, until all of that is there."""
    found = _found(options)
    if isinstance(found, _Group):
        raise InvalidRequestError(
            f"{options.snapshot} is a group of snapshots; restore them one by one: "
            f"{', '.join(each.snapshot_id for each in found.snapshots)}"
        )
    source = pb.VolumeContentSource(snapshot=pb.VolumeContentSource.SnapshotSource(snapshot_id=found.snapshot_id))
    show_volumes(options.output, [copied(options, source)])


def _alone(options: argparse.Namespace) -> pb.Snapshot:
    request = pb.CreateSnapshotRequest(name=options.name, source_volume_id=options.sources[0])

    def call(driver: Driver, timeout: float) -> pb.Snapshot:
        snapshot: pb.Snapshot = driver.controller.CreateSnapshot(request, timeout=timeout).snapshot
        return snapshot

    return until_done(options, call)


def _together(options: argparse.Namespace) -> Sequence[pb.Snapshot]:
    request = pb.CreateVolumeGroupSnapshotRequest(name=options.name, source_volume_ids=options.sources)

    def call(driver: Driver, timeout: float) -> pb.VolumeGroupSnapshot:
        group: pb.VolumeGroupSnapshot = driver.group.CreateVolumeGroupSnapshot(request, timeout=timeout).group_snapshot
        return group

    return until_done(options, call).snapshots


def _found(options: argparse.Namespace) -> pb.Snapshot | _Group:
    """What is named; raises NotFoundError, InvalidRequestError where the name is a snapshot's and a group's."""
    text: str = options.snapshot
    group = None if _is_id(text) else _group(options, text if is_group_id(text) else group_id(text))
    one = None if is_group_id(text) else _one(options, text if _is_id(text) else snapshot_id(text))
    if one and group:
        raise InvalidRequestError(
            f"{text} is the name of a snapshot, {one.snapshot_id}, and of a group, {group.id}; say which by its id"
        )
    found = one or group
    if found is None:
        raise NotFoundError(f"there is no snapshot {text}; `ullage snapshot list` shows those there are")
    return found


def _to_delete(options: argparse.Namespace) -> str | _Group:
    """The id of a snapshot, or a group."""
    text: str = options.snapshot
    try:
        found = _found(options)
    except NotFoundError:
        if not options.ignore_not_found:
            raise
        if is_group_id(text):
            return _Group(id=text, snapshots=())
    except CallFailedError:
        if not _is_id(text):
            raise
    else:
        return found if isinstance(found, _Group) else found.snapshot_id
    return text if _is_id(text) else snapshot_id(text)


def _is_id(text: str) -> bool:
    """A single snapshot's."""
    return kind_of(text) is VolumeKind.SNAPSHOT


def _one(options: argparse.Namespace, of: str) -> pb.Snapshot | None:
    request = pb.GetSnapshotRequest(snapshot_id=of)
    try:
        with driver_at(options.csi_endpoint) as driver:
            found: pb.Snapshot = driver.controller.GetSnapshot(request, timeout=options.timeout).snapshot
    except CallFailedError as refusal:
        if refusal.code != "NOT_FOUND":
            raise
        return None
    return found


def _group(options: argparse.Namespace, of: str) -> _Group | None:
    """GetVolumeGroupSnapshot would want to be told the members that we ask for."""
    members = tuple(each for each in _snapshots(options) if each.group_snapshot_id == of)
    return _Group(id=of, snapshots=members) if members else None


def _snapshots(options: argparse.Namespace, volume: str | None = None) -> Iterator[pb.Snapshot]:
    token = ""
    with driver_at(options.csi_endpoint) as driver:
        while True:
            request = pb.ListSnapshotsRequest(
                max_entries=PAGE_ENTRIES, starting_token=token, source_volume_id=volume or ""
            )
            page = driver.controller.ListSnapshots(request, timeout=options.timeout)
            yield from (entry.snapshot for entry in page.entries)
            token = page.next_token
            if not token:
                return


def _show(output: str, snapshots: Sequence[pb.Snapshot]) -> None:
    def row(snapshot: pb.Snapshot) -> list[str]:
        nodes = {value for topology in snapshot.accessible_topology for value in topology.segments.values()}
        return [
            snapshot.snapshot_id,
            snapshot.source_volume_id,
            human_bytes(snapshot.size_bytes),
            str(snapshot.size_bytes),
            snapshot.creation_time.ToJsonString(),
            "yes" if snapshot.ready_to_use else "no",
            snapshot.group_snapshot_id or "-",
            ",".join(sorted(nodes)) or "-",
        ]

    show(output, COLUMNS, [row(snapshot) for snapshot in snapshots], snapshots)


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


VERBS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "create": create,
    "list": list_,
    "get": get,
    "delete": delete,
    "restore": restore,
    "diff": diff,
}
