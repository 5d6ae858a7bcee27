"""A DeviceClass as people write it: the fields of a class in the configuration file and of the object in Kubernetes.

Field names and types are the Structs'; how a size, a ratio, a name is read is the table `READERS`. Rules between fields
are in `ullage.config`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, NewType

import msgspec

from ullage import names
from ullage.errors import InvalidRequestError
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Layout,
    LayoutKind,
    Scoring,
    SnapshotPolicy,
    ThinPoolPolicy,
    Wipe,
)
from ullage.quantity import ALLOWED, parse_bytes
from ullage.quoting import quoted
from ullage.schema import Readers

MAX_RATIO = 1000
MAX_PATH = 4095

Size = NewType("Size", int)
VolumeGroupPattern = NewType("VolumeGroupPattern", str)
ThinPoolName = NewType("ThinPoolName", str)
Directory = NewType("Directory", str)
FileSystem = NewType("FileSystem", str)
MkfsOption = NewType("MkfsOption", str)
LabelKey = NewType("LabelKey", str)
LabelValue = NewType("LabelValue", str)
Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]
PercentBeforeFull = Annotated[int, msgspec.Meta(ge=1, le=95)]

RATIO_ALLOWED = "a decimal number from 1 to 1000 such as 1.5"
_RATIO = re.compile(r"[0-9]{1,4}(?:\.[0-9]{0,9})?")
_FILE_SYSTEM = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class LayoutSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`layout`: what is not given follows from the kind. None means not given; a null in the file is a fault."""

    kind: LayoutKind
    """How LVM lays a volume over physical volumes, as lvmraid(7) calls it."""
    stripes: int | None = None
    """Data stripes, without parity: the disks that are written at once."""
    stripe_size: Size | None = None
    """A power of two, at least 4Ki; 64Ki if it is not given."""
    mirrors: int | None = None
    """Copies beyond the first."""
    integrity: bool = False
    """Checksums beside the data, so that a rotten block is found and mended (raid only)."""


class ThinPoolSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`thinPool`. The ratio has no default: how much may be promised is the owner's decision."""

    name: Annotated[ThinPoolName, msgspec.Meta(description="the thin pool's name in its volume group")]
    """The thin pool's name in its volume group."""
    overprovision_ratio: Annotated[Fraction, msgspec.Meta(description=RATIO_ALLOWED)]
    """How much may be promised for each byte of the pool: a decimal number from 1 to 1000."""
    create_size: Size = Size(0)
    """Make the pool with this size when the first volume needs it; 0: it must be there."""
    data_guard_percent: Percent = 90
    """Nothing new is made in a pool that is this full of data."""
    metadata_guard_percent: Percent = 80
    """Nothing new is made in a pool that is this full of metadata."""


class SnapshotsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`snapshots`, of thick volumes: how much room each gets, and when one that has not all of it grows."""

    size_percent: Percent = 100
    """Of the most that a snapshot can ever need."""
    grow_at_percent: PercentBeforeFull = 70
    """A snapshot that has not all of it gets more when this much is used."""


class DeviceClassSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One of `deviceClasses`."""

    name: Annotated[DeviceClassName, msgspec.Meta(description="a name such as fast-nvme")]
    type: DeviceType
    """Where volumes live: in a volume group, a thin pool, on a whole disk, in a directory's files."""
    volume_groups: list[VolumeGroupPattern] | None = None
    """Names of volume groups, or globs of names: all that match on a node are one class."""
    thin_pool: ThinPoolSpec | None = None
    """Of a thin class: its pool, of the same name in each of the volume groups."""
    directory: Directory | None = None
    """Of a file class: the absolute path of the directory that holds the files."""
    sparse: bool = False
    """Of a file class: whether files take room only where something was written."""
    reserve: Size = Size(0)
    """Never given out, in each of the class's pools."""
    layout: LayoutSpec | None = None
    """Of a thick class: its volumes' shape; linear if it is not given."""
    snapshots: SnapshotsSpec | None = None
    """Of a thick class: how much room its volumes' snapshots get."""
    wipe: Wipe = Wipe.DISCARD
    """What is done so that a new volume does not show what was there before."""
    copy_rate: Size = Size(0)
    """How much a second the copies by bytes of this class move at most, together; 0: as much as they can."""
    scoring: Scoring = Scoring.SPREAD
    """Which of the nodes that a volume fits the scheduler extender prefers: the one that has most bytes left, the one
    that has least, or the one that has the largest share of its room left."""
    mkfs_options: dict[FileSystem, list[MkfsOption]] = msgspec.field(default_factory=dict)
    """Arguments of mkfs, by file system."""
    node_selector: dict[LabelKey, LabelValue] = msgspec.field(default_factory=dict)
    """Labels that a node must have for this class to be there; without any, all nodes."""
    default: bool = False
    """Whether this is the class of a StorageClass that names none. At most one is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a layout kind takes: (default, least, most) as lvcreate 2.03 checks them; None where it takes none.

    lvcreate would give raid1 up to 63 mirrors; nine is our limit. raid10 has one: "supports only 2-way mirroring".
    """

    stripes: tuple[int, int, int] | None = None
    mirrors: tuple[int, int, int] | None = None


SHAPES = {
    LayoutKind.LINEAR: Shape(),
    LayoutKind.STRIPED: Shape(stripes=(2, 2, 128)),
    LayoutKind.RAID1: Shape(mirrors=(1, 1, 9)),
    LayoutKind.RAID5: Shape(stripes=(2, 2, 63)),
    LayoutKind.RAID6: Shape(stripes=(3, 3, 62)),
    LayoutKind.RAID10: Shape(stripes=(2, 2, 32), mirrors=(1, 1, 1)),
}


def device_class(spec: DeviceClassSpec) -> DeviceClass:
    """The policy that a spec without faults means; what a layout leaves out follows from its kind."""
    return DeviceClass(
        name=spec.name,
        type=spec.type,
        volume_groups=tuple(spec.volume_groups or ()),
        thin_pool=_thin_pool(spec.thin_pool) if spec.thin_pool else None,
        directory=spec.directory or "",
        is_sparse=spec.sparse,
        reserve_bytes=spec.reserve,
        layout=_layout(spec.layout) if spec.layout else Layout(),
        snapshots=_snapshots(spec.snapshots) if spec.snapshots else SnapshotPolicy(),
        wipe=spec.wipe,
        mkfs_options=tuple((name, tuple(options)) for name, options in spec.mkfs_options.items()),
        node_selector=tuple(spec.node_selector.items()),
        is_default=spec.default,
        copy_rate_bytes=spec.copy_rate,
        scoring=spec.scoring,
    )


def _thin_pool(spec: ThinPoolSpec) -> ThinPoolPolicy:
    return ThinPoolPolicy(
        name=spec.name,
        overprovision_ratio=spec.overprovision_ratio,
        create_size_bytes=spec.create_size,
        data_guard_percent=spec.data_guard_percent,
        metadata_guard_percent=spec.metadata_guard_percent,
    )


def _snapshots(spec: SnapshotsSpec) -> SnapshotPolicy:
    return SnapshotPolicy(size_percent=spec.size_percent, grow_at_percent=spec.grow_at_percent)


def _layout(spec: LayoutSpec) -> Layout:
    shape, plain = SHAPES[spec.kind], Layout()
    stripes, mirrors = (limits[0] if limits else None for limits in (shape.stripes, shape.mirrors))
    return Layout(
        kind=spec.kind,
        stripes=spec.stripes or stripes or plain.stripes,
        mirrors=spec.mirrors or mirrors or plain.mirrors,
        stripe_size_bytes=spec.stripe_size or plain.stripe_size_bytes,
        integrity=spec.integrity,
    )


def _size(found: object) -> Size:
    """A quantity that is not negative, as text or as YAML's whole number."""
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise InvalidRequestError(f"{quoted(found)} is not a size; allowed: {ALLOWED} (in quotes, if not whole)")
    size_bytes = parse_bytes(str(found))
    if size_bytes < 0:
        raise InvalidRequestError(f"{quoted(found)} is negative; a size is at least 0")
    return Size(size_bytes)


def _ratio(found: object) -> Fraction:
    """Exact: the digits that were written, never a float."""
    text = "" if isinstance(found, bool) or not isinstance(found, int | str | Decimal) else str(found)
    if not _RATIO.fullmatch(text) or not 1 <= (ratio := Fraction(text)) <= MAX_RATIO:
        raise InvalidRequestError(f"{quoted(found)} is not allowed; {RATIO_ALLOWED}")
    return ratio


def _directory(text: str) -> Directory:
    """Normalized, so that two spellings of a directory are one."""
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not text.startswith("/") or ".." in parts or not parts or not text.isprintable() or len(text) > MAX_PATH:
        raise InvalidRequestError(
            f"{quoted(text)} is not allowed; an absolute path below /, without '..' and control characters"
        )
    return Directory("/" + "/".join(parts))


def _file_system(text: str) -> FileSystem:
    if not _FILE_SYSTEM.fullmatch(text):
        raise InvalidRequestError(f"{quoted(text)} is not allowed; a file system's name such as ext4, xfs or btrfs")
    return FileSystem(text)


def _mkfs_option(text: str) -> MkfsOption:
    if not text or not text.isprintable():
        raise InvalidRequestError(f"{quoted(text)} is not allowed; one printable argument of mkfs")
    return MkfsOption(text)


def _text(check: Callable[[str], object]) -> Callable[[object], object]:
    """A reader that takes nothing but text."""

    def read_text(found: object) -> object:
        if not isinstance(found, str):
            raise InvalidRequestError(f"{quoted(found)} is not allowed; text (a number or a boolean needs quotes)")
        return check(found)

    return read_text


READERS: Readers = {
    Size: _size,
    Fraction: _ratio,
    DeviceClassName: _text(names.check_device_class_name),
    VolumeGroupPattern: _text(names.check_volume_group_pattern),
    ThinPoolName: _text(names.check_thin_pool_name),
    Directory: _text(_directory),
    FileSystem: _text(_file_system),
    MkfsOption: _text(_mkfs_option),
    LabelKey: _text(names.check_label_key),
    LabelValue: _text(names.check_label_value),
}
