"""A volume that is to be, in LVM's words: what its label says, how lvcreate is told its shape, and what it then is."""

from __future__ import annotations

from node_agent.backends.lvm import tags
from node_agent.backends.port import NewVolume
from ullage.capacity import COW_CHUNK_BYTES
from ullage.model import DeviceType, Layout, LayoutKind, Volume, VolumeKind, VolumeState

_SHOWN = {
    VolumeKind.SNAPSHOT: ("--permission", "r", "--setactivationskip", "y"),
    VolumeKind.VOLUME: ("--permission", "rw", "--setactivationskip", "n"),
}
"""A thin snapshot has no device, and could not be written to if somebody gave it one. lvcreate(8) skips the activation
of every thin snapshot unless told otherwise: a copy to be used would then be without a device after each boot."""


def label(new: NewVolume) -> tags.Label:
    """What its tags say from its first moment on.

    RAID comes into being in several commits: until the last it is CREATING, wipe or not.
    """
    is_thin = new.pool.type is DeviceType.THIN
    is_larger = is_thin and new.source is not None and new.allocation.size_bytes > new.source.size_bytes
    state = VolumeState.CREATING if new.needs_wipe or layout(new).is_raid or is_larger else VolumeState.READY
    if is_filled(new):
        state = VolumeState.FILLING
    return tags.Label(
        volume_id=new.id,
        kind=new.kind,
        source=new.source.id if new.source else None,
        taken_at=new.taken_at,
        group=new.group,
        device_class=new.device_class.name,
        wipe=new.device_class.wipe,
        owner=new.owner,
        state=state,
    )


def marks(new: NewVolume) -> tuple[str, ...]:
    """The tags of its first moment: a RAID that is to be filled is CREATING as well, until LVM has made all of it."""
    return (*tags.written(label(new)), *((tags.CREATING,) if is_filled(new) and layout(new).is_raid else ()))


def is_filled(new: NewVolume) -> bool:
    """Whether it begins without its source's content: a thick volume that is a copy."""
    return new.source is not None and new.kind is VolumeKind.VOLUME and new.pool.type is not DeviceType.THIN


def layout(new: NewVolume) -> Layout:
    """Its shape: a snapshot's is linear, whatever its volume's."""
    is_plain = new.pool.type is DeviceType.THIN or new.kind is not VolumeKind.VOLUME
    return Layout() if is_plain else new.device_class.layout


def shape(new: NewVolume) -> tuple[str, ...]:
    """How lvcreate is told what to make; where it is to lie is not said here."""
    size = f"{new.allocation.size_bytes}b"
    if new.pool.type is DeviceType.THIN:
        if new.source is not None:
            return ("--snapshot", *_SHOWN[new.kind])
        return ("--type", "thin", "--virtualsize", size, "--thinpool", new.pool.name)
    if new.kind is not VolumeKind.VOLUME:
        return ("--snapshot", "--permission", "r", "--chunksize", f"{COW_CHUNK_BYTES}b", "--size", size)
    return (*_layout(new.device_class.layout), "--size", size)


def volume(new: NewVolume, label: tags.Label) -> Volume:
    """What it is once lvcreate has ended, but for what only its device tells."""
    return Volume(
        id=new.id,
        kind=new.kind,
        source=label.source,
        taken_at=label.taken_at,
        group=label.group,
        pool=new.pool.name,
        store=new.pool.store,
        type=new.pool.type,
        device_class=new.device_class.name,
        size_bytes=0,
        device_size_bytes=0,
        state=label.state,
        wipe=label.wipe,
        owner=new.owner,
        device_path=f"/dev/{new.pool.store}/{new.id}",
        layout=layout(new),
        taken=tuple(sorted(new.allocation.taken, key=lambda share: share.physical_volume)),
    )


def _layout(layout: Layout) -> tuple[str, ...]:
    """How lvcreate is told a layout."""
    words = ["--type", layout.kind.value]
    if layout.kind not in (LayoutKind.LINEAR, LayoutKind.RAID1):
        words += ["--stripes", str(layout.stripes), "--stripesize", f"{layout.stripe_size_bytes}b"]
    if layout.mirrors:
        words += ["--mirrors", str(layout.mirrors)]
    if layout.integrity:
        words += ["--raidintegrity", "y"]
    return tuple(words)
