"""The chart's values, their schema and the code say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ullage.kube import crds
from ullage.kube.meta import DEVICE_CLASSES

CHART = Path(__file__).parents[2] / "deploy" / "chart" / "ullage"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
CLASS = SCHEMA["properties"]["deviceClasses"]["items"]
Json = dict[str, Any]


def fields(of: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    for name, schema in of.get("properties", {}).items():
        yield f"{path}.{name}", schema
        yield from fields(schema, f"{path}.{name}")
        yield from fields(schema.get("items", {}), f"{path}.{name}[]")


def given(values: Json, schema: Json) -> Iterator[tuple[str, object, Json]]:
    """Each value with its schema, down to where the schema says no more."""
    for name, value in values.items():
        of = schema["properties"][name]
        if "properties" in of:
            yield from ((f"{name}.{path}", found, it) for path, found, it in given(value, of))
        else:
            yield name, value, of


def test_every_value_has_a_schema_that_tells_its_default() -> None:
    found = list(given(VALUES, SCHEMA))
    assert len(found) > 90
    assert [(name, value, of["default"]) for name, value, of in found if of["default"] != value] == []
    told = {path.removeprefix(".") for path, schema in fields(SCHEMA) if "default" in schema}
    assert told == {name for name, _, _ in found}


def test_every_field_says_what_it_is_and_none_is_taken_that_is_not_there() -> None:
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    for path, schema in fields(SCHEMA):
        assert schema["description"].endswith("."), path
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path


def test_a_device_class_has_the_fields_of_one() -> None:
    (definition,) = (each for each in crds.definitions() if each.resource is DEVICE_CLASSES)
    (version,) = crds.manifest(definition)["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert {path for path, _ in fields(CLASS)} - {".name"} == {path for path, _ in fields(spec)}
    assert CLASS["required"] == ["name", *spec["required"]]


def test_the_chart_is_of_the_version_of_the_program() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = (CHART.parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{about["appVersion"]}"' in project
