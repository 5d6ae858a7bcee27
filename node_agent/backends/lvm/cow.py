"""Thick snapshots: what of a volume was written over since is kept in room of their own, copied before each write.

The kernel copies, and gives a snapshot up for good when its room is full: from then on every read of it fails, so that
what is read is either as it was at its moment or not there at all. Its device is there while its volume's is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from node_agent.block import block_device
from node_agent.refusals import check_holds
from ullage.errors import DeviceError, InvalidRequestError
from ullage.model import DeviceType, Volume, VolumeKind, VolumeState


def is_cow(volume: Volume) -> bool:
    """Whether it is a thick snapshot, or what is left of one."""
    return volume.type is DeviceType.THICK and volume.kind is not VolumeKind.VOLUME


@contextmanager
def reading(volume: Volume) -> Iterator[int]:
    """See Backend; raises SnapshotOverflowedError. If it overflows later, a read fails, whatever it is of."""
    if not is_cow(volume):
        raise InvalidRequestError(f"{volume.id} is no thick snapshot: its bytes do not stay the same")
    check_holds(volume)
    try:
        descriptor = os.open(volume.device_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failure:
        raise DeviceError(f"{volume.device_path} cannot be opened: {failure.strerror}") from failure
    try:
        found = block_device(f"/proc/self/fd/{descriptor}")
        if (found.dm_uuid, found.size_bytes) != (volume.dm_uuid, volume.size_bytes):
            raise DeviceError(
                f"{volume.device_path} is another device than {volume.id}'s: {found.dm_uuid} with "
                f"{found.size_bytes} bytes, not {volume.dm_uuid} with {volume.size_bytes}"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def who_holds(volume: Volume, volumes: Iterable[Volume]) -> str:
    """What keeps a volume there, and as large as it is, for a person: its thick snapshots; empty when there is none."""
    snapshots = [
        each
        for each in volumes
        if is_cow(each) and each.source == volume.id and each.store == volume.store
        if each.state is not VolumeState.DELETING
    ]
    names = ", ".join(sorted(each.id for each in snapshots if each.kind is VolumeKind.SNAPSHOT))
    if names:
        return f"has snapshots, without which it can neither go nor grow: delete {names} first"
    return "is being copied; ask again when that is done" if snapshots else ""
