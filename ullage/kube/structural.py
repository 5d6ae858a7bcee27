"""Structs as structural schemas: what the API server is told of our objects is made of the classes that read them.

Types, names, what must be there and what is said about a field come from the Struct: its annotations and the strings
below its fields. What a Struct cannot say (how long, which characters, what must hold between fields) is added by
type (`Leaves`) and by path (`Additions`).

The API server takes no `$ref` and no `anyOf` here, and it must be able to tell beforehand what a CEL rule may cost:
everything that a rule goes through needs a largest length.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, NewType, TypeAlias, get_args, get_origin

import msgspec

from ullage.schema import bare_type

Schema: TypeAlias = dict[str, Any]  # as YAML and JSON have it
Leaves: TypeAlias = Mapping[object, Schema]
"""The schemas of types that have more to them than what they are made of."""
Additions: TypeAlias = Mapping[str, Schema]
"""What is added at a path such as `spec.source.volume` or `spec.volumeGroups[]`."""


def schema(kind: object, leaves: Leaves, additions: Additions, path: str = "") -> Schema:
    """The structural schema of a type; raises TypeError for one that no object of ours has."""
    bare, meta = bare_type(kind)
    found = dict(leaves[bare]) if bare in leaves else _schema(bare, leaves, additions, path)
    if meta is not None:
        limits = {"minimum": meta.ge, "maximum": meta.le}
        found.update({key: limit for key, limit in limits.items() if limit is not None})
    return {**found, **additions.get(path, {})}


def rule(cel: str, sentence: str, *, field: str = "") -> Schema:
    """A CEL rule, and what is said when it does not hold; of text and numbers the API server says what was found.

    `field` is the one that is told of it, where that is not where the rule stands.
    """
    return {"rule": cel, "message": sentence, **({"fieldPath": f".{field}"} if field else {})}


def telling_rule(cel: str, sentence: str, *, field: str = "") -> Schema:
    """The same with a sentence that is itself CEL. It cannot name numbers: how long they are in text is not bounded."""
    return {"rule": cel, "messageExpression": sentence, **({"fieldPath": f".{field}"} if field else {})}


def text(words: str) -> str:
    """A CEL literal."""
    return "'" + words.replace("\\", "\\\\").replace("'", "\\'") + "'"


def one_of(words: Iterable[str]) -> str:
    """A CEL list of literals."""
    return "[" + ", ".join(map(text, words)) + "]"


def _schema(kind: object, leaves: Leaves, additions: Additions, path: str) -> Schema:
    if isinstance(kind, NewType):
        return schema(kind.__supertype__, leaves, additions, path)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _object(kind, leaves, additions, path)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"type": "string", "enum": [each.value for each in kind]}
    if get_origin(kind) in (list, tuple):
        return {"type": "array", "items": schema(get_args(kind)[0], leaves, additions, f"{path}[]")}
    if get_origin(kind) is dict:
        return {
            "type": "object",
            "additionalProperties": schema(get_args(kind)[1], leaves, additions, f"{path}[]"),
        }
    plain: dict[object, Schema] = {
        str: {"type": "string"},
        int: {"type": "integer", "format": "int64"},
        float: {"type": "number"},
        bool: {"type": "boolean"},
    }
    if kind not in plain:
        raise TypeError(f"{path}: {kind} has no schema")
    return plain[kind]


def _object(kind: type[msgspec.Struct], leaves: Leaves, additions: Additions, path: str) -> Schema:
    said = _said_below_fields(kind)
    properties: Schema = {}
    for field in msgspec.structs.fields(kind):
        inner = f"{path}.{field.encode_name}" if path else field.encode_name
        found = schema(field.type, leaves, additions, inner)
        words = [said.get(field.name, found.get("description", "")), _default(field)]
        description = " ".join(word for word in words if word)
        properties[field.encode_name] = {**({"description": description} if description else {}), **found} | (
            {"description": description} if description else {}
        )
    required = [field.encode_name for field in msgspec.structs.fields(kind) if field.required]
    about = _sentence(kind.__doc__ or "")
    return {
        **({"description": about} if about else {}),
        "type": "object",
        **({"required": required} if required else {}),
        "properties": properties,
    }


def _default(field: msgspec.structs.FieldInfo) -> str:
    """What holds when a field is left out, where that is more than nothing."""
    default = field.default
    if isinstance(default, StrEnum) or (isinstance(default, int) and default):
        return f"Default: {str(default).lower()}."
    return ""


def _said_below_fields(kind: type) -> dict[str, str]:
    """The string that follows a field, by the field's name."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(f"{kind} is no class")
    said = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                said[name] = _sentence(words)
            case _:
                pass
    return said


def _sentence(words: str) -> str:
    """Text for people, in one line; what only points to other code is nothing for them."""
    line = " ".join(words.split())
    return "" if line.startswith("See `") else line
