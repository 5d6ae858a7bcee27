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
    stripes: int | None = None
    stripe_size: Size | None = None
    mirrors: int | None = None
    integrity: bool = False


class ThinPoolSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`thinPool`. The ratio has no default: how much may be promised is the owner's decision."""

    name: Annotated[ThinPoolName, msgspec.Meta(description="the thin pool's name in its volume group")]
    overprovision_ratio: Annotated[Fraction, msgspec.Meta(description=RATIO_ALLOWED)]
    create_size: Size = Size(0)
    data_guard_percent: Percent = 90
    metadata_guard_percent: Percent = 80


class SnapshotsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`snapshots`, of thick volumes: how much room each gets, and when one that has not all of it grows."""

    size_percent: Percent = 100
    grow_at_percent: PercentBeforeFull = 70


class DeviceClassSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One of `deviceClasses`."""

    name: Annotated[DeviceClassName, msgspec.Meta(description="a name such as fast-nvme")]
    type: DeviceType
    volume_groups: list[VolumeGroupPattern] | None = None
    thin_pool: ThinPoolSpec | None = None
    directory: Directory | None = None
    sparse: bool = False
    reserve: Size = Size(0)
    layout: LayoutSpec | None = None
    snapshots: SnapshotsSpec | None = None
    wipe: Wipe = Wipe.DISCARD
    copy_rate: Size = Size(0)
    mkfs_options: dict[FileSystem, list[MkfsOption]] = msgspec.field(default_factory=dict)
    node_selector: dict[LabelKey, LabelValue] = msgspec.field(default_factory=dict)
    default: bool = False


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
