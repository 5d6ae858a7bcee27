"""The definitions in the chart are those of the classes that read the objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ullage.kube import crds
from ullage.kube.structural import Schema, schema

CRDS = Path(__file__).parents[2] / "deploy" / "chart" / "ullage" / "crds"
NOT_STRUCTURAL = {"$ref", "oneOf", "anyOf", "allOf", "definitions", "$defs", "uniqueItems"}


def test_the_files_are_what_the_classes_make_of_them() -> None:
    assert {path.name: path.read_text(encoding="utf-8") for path in CRDS.iterdir()} == crds.files(), "run `make crds`"


def schemas(of: Schema) -> Iterator[Schema]:
    """A schema and all within it."""
    yield of
    inner = [*of.get("properties", {}).values()]
    inner += [of[key] for key in ("items", "additionalProperties") if key in of]
    for each in inner:
        yield from schemas(each)


@pytest.mark.parametrize("definition", crds.definitions(), ids=lambda each: each.resource.kind)
def test_the_schemas_are_structural(definition: crds.Definition) -> None:
    (version,) = crds.manifest(definition)["spec"]["versions"]
    for each in schemas(version["schema"]["openAPIV3Schema"]):
        assert ("type" in each) is not each.get("x-kubernetes-int-or-string", False)
        assert NOT_STRUCTURAL.isdisjoint(each)
        assert each.get("type") != "integer" or each["format"] == "int64"


class Inner(msgspec.Struct, rename="camel"):
    """Something inside."""

    size_bytes: int
    """How large
    it is."""
    names: tuple[str, ...] = ()


class Outer(msgspec.Struct, rename="camel"):
    """See `elsewhere`."""

    inner: Inner
    percent: int = 90
    other: Inner | None = None


def test_a_struct_s_words_types_and_defaults_are_its_schema_s() -> None:
    inner = {
        "description": "Something inside.",
        "type": "object",
        "required": ["sizeBytes"],
        "properties": {
            "sizeBytes": {"description": "How large it is.", "type": "integer", "format": "int64", "minimum": 1},
            "names": {"type": "array", "items": {"type": "string"}},
        },
    }
    unlimited = msgspec.json.decode(msgspec.json.encode(inner))
    del unlimited["properties"]["sizeBytes"]["minimum"]
    assert schema(Outer, {}, {"inner.sizeBytes": {"minimum": 1}}) == {
        "type": "object",
        "required": ["inner"],
        "properties": {
            "inner": inner,
            "percent": {"description": "Default: 90.", "type": "integer", "format": "int64"},
            "other": unlimited,
        },
    }


def test_a_type_that_has_no_schema_is_told_with_its_path() -> None:
    class Odd(msgspec.Struct):
        raw: msgspec.Raw

    with pytest.raises(TypeError, match=r"raw: .*Raw"):
        schema(Odd, {}, {})
