"""The configuration file: which device classes there are. The same fields as a DeviceClass object in Kubernetes.

    deviceClasses:
      - name: fast
        type: thick
        volumeGroups: [nvme*]

Whatever cannot be used is a ConfigError that lists every fault: the file, the path in it, what was found, what is
allowed. First each class is read by itself (fields, types, ranges), then the rules between its fields, then those
between classes; the rules judge only what could be read. Nothing here looks at the node: a volume group that is not
there is the agent's to report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ullage.device_class_spec import READERS, SHAPES, DeviceClassSpec, LayoutSpec, device_class
from ullage.errors import ConfigError
from ullage.model import DeviceClass, DeviceType, Layout, LayoutKind
from ullage.names import patterns_overlap
from ullage.quantity import format_bytes
from ullage.quoting import quoted
from ullage.schema import Fault, raise_if_any, read
from ullage.yaml_tree import read_yaml

MAX_FILE_BYTES = 1 << 20
MIN_STRIPE_BYTES = 4096


class FileSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The whole file. Any: each class is read on its own, under its own path."""

    device_classes: Annotated[list[Any], msgspec.Meta(description="a list of device classes")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the file says."""

    device_classes: tuple[DeviceClass, ...]


FIELDS_OF_TYPE = {
    "volumeGroups": (DeviceType.THICK, DeviceType.THIN),
    "thinPool": (DeviceType.THIN,),
    "directory": (DeviceType.FILE,),
    "sparse": (DeviceType.FILE,),
    "layout": (DeviceType.THICK,),
    "copyRate": (DeviceType.THICK, DeviceType.FILE),
    "snapshots": (DeviceType.THICK,),
}
NEEDED = {
    DeviceType.THICK: {"volumeGroups": "at least one volume group's name or glob"},
    DeviceType.THIN: {"volumeGroups": "at least one volume group's name or glob", "thinPool": "its thin pool"},
    DeviceType.FILE: {"directory": "the absolute path of a directory"},
    DeviceType.DISK: {},
}


def load(path: Path) -> Config:
    """Read the file; raises ConfigError, also when it cannot be read at all."""
    origin = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{origin}: there is no such file", origin=origin) from error
    except IsADirectoryError as error:
        raise ConfigError(f"{origin}: is a directory; a YAML file is needed", origin=origin) from error
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{origin}: cannot be read: {getattr(error, 'strerror', None) or error}", origin=origin
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{origin}: is larger than {format_bytes(MAX_FILE_BYTES)}; no list of classes is", origin=origin
        )
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{origin}: line {line}: is not UTF-8 at byte {error.start}", origin=origin) from error
    return parse(text, origin)


def parse(text: str, origin: str) -> Config:
    """The configuration in `text`; `origin` is how errors call it. Raises ConfigError with every fault."""
    faults: list[Fault] = []
    tree = read_yaml(text, faults)
    if tree is None:
        faults = faults or [Fault(path="", sentence="is empty; a mapping with the field deviceClasses is needed")]
        raise_if_any(faults, origin)
    read(FileSpec, tree, "", faults, READERS)
    classes = tree.get("deviceClasses") if isinstance(tree, dict) else None
    specs: dict[str, DeviceClassSpec] = {}
    for i, found in enumerate(classes if isinstance(classes, list) else ()):
        path = f"deviceClasses[{i}]"
        spec = read(DeviceClassSpec, found, path, faults, READERS)
        if spec:
            faults.extend(_faults_in_class(spec, path))
            specs[path] = spec
    faults.extend(_faults_between(specs))
    raise_if_any(faults, origin)
    return Config(device_classes=tuple(map(device_class, specs.values())))


def parse_class(name: str, fields: Mapping[str, object], origin: str) -> DeviceClass:
    """One class from an object's spec, whose name is the object's; raises ConfigError with every fault."""
    faults: list[Fault] = []
    spec = read(DeviceClassSpec, {"name": name, **fields}, "spec", faults, READERS)
    if spec:
        faults.extend(_faults_in_class(spec, "spec"))
    raise_if_any(faults, origin)
    if spec is None:
        raise ConfigError(f"{origin}: cannot be read", origin=origin)
    return device_class(spec)


def _faults_in_class(spec: DeviceClassSpec, path: str) -> Iterator[Fault]:
    """The rules between one class's fields."""
    given = {
        "volumeGroups": spec.volume_groups,
        "thinPool": spec.thin_pool,
        "directory": spec.directory,
        "sparse": spec.sparse or None,
        "layout": spec.layout,
        "copyRate": spec.copy_rate or None,
        "snapshots": spec.snapshots,
    }
    for field, types in FIELDS_OF_TYPE.items():
        if given[field] is not None and spec.type not in types:
            yield Fault(
                path=f"{path}.{field}",
                sentence=f"is not for a class of type {spec.type}; only for type {' or '.join(types)}",
            )
    for field, what in NEEDED[spec.type].items():
        if not given[field]:
            state = "is missing" if given[field] is None else "is empty"
            yield Fault(path=f"{path}.{field}", sentence=f"{state}; a class of type {spec.type} needs {what}")
    if spec.layout is not None and spec.type is DeviceType.THICK:
        yield from _faults_in_layout(spec.layout, f"{path}.layout")


def _faults_in_layout(spec: LayoutSpec, path: str) -> Iterator[Fault]:
    shape = SHAPES[spec.kind]
    for field, count, limits in (("stripes", spec.stripes, shape.stripes), ("mirrors", spec.mirrors, shape.mirrors)):
        if count is None:
            continue
        if limits is None:
            kinds = ", ".join(kind for kind, other in SHAPES.items() if getattr(other, field))
            yield Fault(path=f"{path}.{field}", sentence=f"a {spec.kind} layout has no {field}; allowed for: {kinds}")
        elif not limits[1] <= count <= limits[2]:
            allowed = f"from {limits[1]} to {limits[2]}" if limits[1] < limits[2] else f"only {limits[1]}"
            yield Fault(path=f"{path}.{field}", sentence=f"{quoted(count)} is not allowed; for {spec.kind} {allowed}")
    if spec.stripe_size is not None:
        size = spec.stripe_size
        if shape.stripes is None:
            kinds = ", ".join(kind for kind, other in SHAPES.items() if other.stripes)
            yield Fault(
                path=f"{path}.stripeSize", sentence=f"a {spec.kind} layout has no stripes; allowed for: {kinds}"
            )
        elif size < MIN_STRIPE_BYTES or size & (size - 1):
            allowed = f"a power of two of at least {format_bytes(MIN_STRIPE_BYTES)}"
            yield Fault(path=f"{path}.stripeSize", sentence=f"{format_bytes(size)} is not allowed; {allowed}")
    if spec.integrity and not Layout(kind=spec.kind).is_raid:
        kinds = ", ".join(kind for kind in LayoutKind if Layout(kind=kind).is_raid)
        yield Fault(path=f"{path}.integrity", sentence=f"a {spec.kind} layout has no integrity; allowed for: {kinds}")


def _faults_between(specs: dict[str, DeviceClassSpec]) -> Iterator[Fault]:
    """The rules between classes; the later one is told about the earlier."""
    seen: dict[str, str] = {}
    default = ""
    for path, spec in specs.items():
        if spec.name in seen:
            sentence = f"{quoted(spec.name)} is already the name of {seen[spec.name]}; each class needs its own"
            yield Fault(path=f"{path}.name", sentence=sentence)
        seen.setdefault(spec.name, path)
        if spec.default and default:
            yield Fault(path=f"{path}.default", sentence=f"{default} is the default already; at most one class can be")
        default = default or (path if spec.default else "")
    for (earlier, one), (later, other) in combinations(specs.items(), 2):
        if one.directory and one.directory == other.directory and one.sparse != other.sparse:
            sentence = (
                f"differs from {earlier}.sparse, and both have the directory {quoted(one.directory)}; make them alike"
            )
            yield Fault(path=f"{later}.sparse", sentence=sentence)
        if one.thin_pool and other.thin_pool and _share_pool(one, other):
            for field in msgspec.structs.fields(one.thin_pool):
                if getattr(one.thin_pool, field.name) != getattr(other.thin_pool, field.name):
                    key = f"thinPool.{field.encode_name}"
                    sentence = (
                        f"differs from {earlier}.{key}, and both can mean the thin pool {quoted(one.thin_pool.name)}"
                    )
                    yield Fault(path=f"{later}.{key}", sentence=f"{sentence}; make them alike")


def _share_pool(one: DeviceClassSpec, other: DeviceClassSpec) -> bool:
    """Whether a node can have a thin pool that both classes name."""
    if one.thin_pool is None or other.thin_pool is None or one.thin_pool.name != other.thin_pool.name:
        return False
    return any(patterns_overlap(a, b) for a in one.volume_groups or () for b in other.volume_groups or ())
