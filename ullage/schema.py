"""A plain tree (from YAML or JSON) read into msgspec Structs, with every fault named rather than the first.

msgspec's decoder stops at the first error and names the type it wanted. Here the Structs stay the schema (field names,
types, ranges, what is required), and each field is converted on its own, so that a person gets all faults at once, each
with its path, what was found and what is allowed. A null is never taken for an absent field: a size left blank by
mistake must not become a default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Annotated, TypeVar, Union, get_args, get_origin

import msgspec

from ullage.errors import ConfigError, InvalidRequestError
from ullage.quoting import quoted

Readers = Mapping[object, Callable[[object], object]]
"""How to read the types that msgspec does not know; each raises InvalidRequestError with a sentence."""

SpecT = TypeVar("SpecT", bound=msgspec.Struct)

MAX_FAULTS_SHOWN = 50
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BAD = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong at one place; `path` is empty for the document as a whole."""

    path: str
    sentence: str


def raise_if_any(faults: list[Fault], origin: str) -> None:
    """Raise one ConfigError with a line for every fault, each beginning with the file's name."""
    if not faults:
        return
    lines = [f"{origin}: {fault.path + ': ' if fault.path else ''}{fault.sentence}" for fault in faults]
    if len(lines) > MAX_FAULTS_SHOWN:
        lines[MAX_FAULTS_SHOWN:] = [f"{origin}: and {len(lines) - MAX_FAULTS_SHOWN} more"]
    raise ConfigError("\n".join(lines), origin=origin, faults=len(faults))


def step(path: str, key: str) -> str:
    """The path of a mapping's member."""
    if not _PLAIN_KEY.fullmatch(key) or len(key) > MAX_FAULTS_SHOWN:
        return f"{path}[{quoted(key)}]"
    return f"{path}.{key}" if path else key


def read(kind: type[SpecT], found: object, path: str, faults: list[Fault], readers: Readers) -> SpecT | None:
    """`found` as a `kind`; None when `faults` have grown by at least one."""
    if not isinstance(found, dict):
        allowed = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        faults.append(
            Fault(path=path, sentence=f"{quoted(found)} is not allowed; a mapping with the fields: {allowed}")
        )
        return None
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    faults_before = len(faults)
    faults.extend(_unknown_field(str(key), fields, path) for key in found if key not in fields)
    values = {}
    for key, field in fields.items():
        if key in found:
            values[field.name] = _read(field.type, found[key], step(path, key), faults, readers)
        elif field.required:
            faults.append(Fault(path=step(path, key), sentence=f"is missing; {allowed_for(field.type)}"))
    return kind(**values) if len(faults) == faults_before else None


def allowed_for(kind: object) -> str:  # noqa: PLR0911 - one answer per kind of type
    """What a field of this type takes, in words."""
    kind, meta = bare_type(kind)
    if meta is not None and meta.description:
        return meta.description
    if kind is bool:
        return "true or false"
    if kind is int:
        return "a whole number" if meta is None else f"a whole number from {meta.ge} to {meta.le}"
    if kind is str:
        return "text (a number or a boolean needs quotes)"
    if get_origin(kind) is list:
        return "a list"
    if get_origin(kind) is dict:
        return "a mapping"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"one of: {', '.join(kind)}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"a mapping with the fields: {', '.join(f.encode_name for f in msgspec.structs.fields(kind))}"
    return f"a {kind}"


def _read(kind: object, found: object, path: str, faults: list[Fault], readers: Readers) -> object:
    bare, _ = bare_type(kind)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        return read(bare, found, path, faults, readers)
    if get_origin(bare) is list and isinstance(found, list):
        (item,) = get_args(bare)
        return [_read(item, value, f"{path}[{i}]", faults, readers) for i, value in enumerate(found)]
    if get_origin(bare) is dict and isinstance(found, dict):
        key_kind, item = get_args(bare)
        return {
            _read(key_kind, key, step(path, key), faults, readers): _read(item, value, step(path, key), faults, readers)
            for key, value in found.items()
        }
    return _leaf(kind, found, path, faults, readers)


def _leaf(kind: object, found: object, path: str, faults: list[Fault], readers: Readers) -> object:
    bare, meta = bare_type(kind)
    whole = bare if meta is None else Annotated[bare, meta]
    try:
        if bare in readers:
            return readers[bare](found)
        return msgspec.convert(found, whole)
    except InvalidRequestError as refusal:
        faults.append(Fault(path=path, sentence=str(refusal)))
    except msgspec.ValidationError:
        faults.append(Fault(path=path, sentence=f"{quoted(found)} is not allowed; {allowed_for(kind)}"))
    return _BAD


def bare_type(kind: object) -> tuple[object, msgspec.Meta | None]:
    """The type without `| None` (which stands for an absent field only) and without its Annotated coat."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (member for member in get_args(kind) if member is not NoneType)
    if get_origin(kind) is Annotated:
        bare, *coats = get_args(kind)
        return bare, next((coat for coat in coats if isinstance(coat, msgspec.Meta)), None)
    return kind, None


def _unknown_field(key: str, fields: Mapping[str, object], path: str) -> Fault:
    folded = {name.casefold().replace("_", ""): name for name in fields}
    near = difflib.get_close_matches(key.casefold().replace("_", "").replace("-", ""), folded, n=1)
    hint = f"did you mean {folded[near[0]]}? " if near else ""
    return Fault(path=step(path, key), sentence=f"there is no such field; {hint}The fields are: {', '.join(fields)}")
