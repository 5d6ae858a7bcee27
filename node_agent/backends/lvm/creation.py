"""A volume that is to be, in LVM's words: what its label says, how lvcreate is told its shape, and what it then is."""

from __future__ import annotations

from node_agent.backends.lvm import tags
from node_agent.backends.port import NewVolume
from ullage.model import DeviceType, Layout, LayoutKind, Volume, VolumeKind, VolumeState

_SHOWN = {
    VolumeKind.SNAPSHOT: ("--permission", "r", "--setactivationskip", "y"),
    VolumeKind.VOLUME: ("--permission", "rw", "--setactivationskip", "n"),
}
"""A snapshot has no device, and could not be written to if somebody gave it one. lvcreate(8) skips the activation of
every thin snapshot unless told otherwise: a copy that is to be used would then be without a device after each boot."""


def label(new: NewVolume) -> tags.Label:
    """What its tags say from its first moment on.

    RAID comes into being in several commits: until the last it is CREATING, wipe or not.
    """
    is_raid = new.pool.type is not DeviceType.THIN and new.device_class.layout.is_raid
    is_larger = new.source is not None and new.allocation.size_bytes > new.source.size_bytes
    return tags.Label(
        volume_id=new.id,
        kind=new.kind,
        source=new.source.id if new.source else None,
        taken_at=new.taken_at,
        group=new.group,
        device_class=new.device_class.name,
        wipe=new.device_class.wipe,
        owner=new.owner,
        state=VolumeState.CREATING if new.needs_wipe or is_raid or is_larger else VolumeState.READY,
    )


def shape(new: NewVolume) -> tuple[str, ...]:
    """How lvcreate is told what to make; where it is to lie is not said here."""
    size = f"{new.allocation.size_bytes}b"
    if new.source is not None:
        return ("--snapshot", *_SHOWN[new.kind])
    if new.pool.type is DeviceType.THIN:
        return ("--type", "thin", "--virtualsize", size, "--thinpool", new.pool.name)
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
        layout=Layout() if new.pool.type is DeviceType.THIN else new.device_class.layout,
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
