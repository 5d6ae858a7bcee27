"""Reading snapshots: their bytes, and where they may be anything but zero, or differ. Nothing is changed here.

What cannot be told is refused at once; the ranges come as they are asked for. Without the store's lock: a snapshot that
is removed meanwhile stays readable to whoever has it open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from node_agent.backends.file import extents
from node_agent.backends.file.directory import Directory
from node_agent.backends.file.faults import faults_told
from node_agent.backends.file.moves import image_of, record_of, refuse_unfinished
from ullage.errors import InvalidRequestError, PreconditionError
from ullage.model import ByteRange, VolumeId, VolumeKind, VolumeState

Found = Callable[[], AbstractContextManager[Directory]]
"""The right directory, open; raises PoolUnavailableError."""


@contextmanager
def reading(found: Found, *snapshot_ids: VolumeId) -> Iterator[tuple[int, ...]]:
    """The images, open; raises NotFoundError, NotOursError, InvalidRequestError, VolumeNotReadyError, DeviceError."""
    with ExitStack() as held:
        directory = held.enter_context(found())
        with faults_told(directory.path):  # and not what the body raises
            descriptors = tuple([held.enter_context(_image(directory, each)) for each in snapshot_ids])
        yield descriptors


def allocated(found: Found, snapshot_id: VolumeId) -> Iterator[ByteRange]:
    """See the port. What is a hole reads as zero; all the rest may be anything."""
    with reading(found, snapshot_id):
        pass
    return _allocated(found, snapshot_id)


def changed(found: Found, base_id: VolumeId, target_id: VolumeId) -> Iterator[ByteRange]:
    """See the port. Where both have the same block, they have the same bytes."""
    with reading(found, base_id, target_id) as descriptors, found() as directory, faults_told(directory.path):
        for snapshot_id, descriptor in zip((base_id, target_id), descriptors, strict=True):
            if not record_of(directory.entry(snapshot_id)).shares_blocks:
                raise PreconditionError(
                    f"{snapshot_id} was copied byte by byte: what changed is known only in a directory on xfs or btrfs"
                )
            extents.check_addresses(descriptor, snapshot_id)
    return _changed(found, base_id, target_id)


def _allocated(found: Found, snapshot_id: VolumeId) -> Iterator[ByteRange]:
    with reading(found, snapshot_id) as (descriptor,):
        yield from extents.data(descriptor)


def _changed(found: Found, base_id: VolumeId, target_id: VolumeId) -> Iterator[ByteRange]:
    with reading(found, base_id, target_id) as (base, target):
        yield from extents.changed(base, target)


def _image(directory: Directory, snapshot_id: VolumeId) -> AbstractContextManager[int]:
    entry = directory.entry(snapshot_id)
    record = record_of(entry)
    if record.kind is VolumeKind.VOLUME:
        raise InvalidRequestError(f"{snapshot_id} is a volume: its bytes may change while they are read")
    refuse_unfinished(record, "it cannot be read", VolumeState.CREATING, VolumeState.DELETING)
    image_of(entry)
    return directory.reading(snapshot_id)
