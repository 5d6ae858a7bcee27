"""docs/configuration.md, from the schema of the chart's values and that of a DeviceClass: `make docs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.rigs.docs.pages import ROOT

Schema = Mapping[str, Any]

TARGET = ROOT / "docs/configuration.md"
CHART = ROOT / "deploy/chart/ullage"
HEAD = """\
<!-- Made by `make docs` of deploy/chart/ullage; what is changed here is lost. -->
# Configuration

Two places say how Ullage is to be: the values of the chart, for what runs, and DeviceClass objects, for the storage.
What is not in these tables is refused: by helm with the name of the value, by the API server with the field and what is
allowed. [node-agent.md](node-agent.md) tells what layouts, wiping and snapshots mean,
[csi.md](csi.md#the-words-of-a-request) what a StorageClass can say.

"""
CLASS_HEAD = """
## DeviceClass

The fields of `spec`. A list of device classes in a configuration file (`ullage agent --config`,
`ullage standalone --config`) has the same, each with its `name`.

"""
VALUES_HEAD = """\
## Values of the chart

"""
CLASSES = "deviceClasses"
"""In the chart's values, and told of once: below."""
TABLE = "| | What | Allowed | Without it |\n|---|---|---|---|\n"


def text() -> str:
    """The page as the schemas have it now."""
    values = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    definition = yaml.safe_load((CHART / "crds/deviceclasses.yaml").read_text(encoding="utf-8"))
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    parts = [HEAD, VALUES_HEAD, TABLE, *_rows(values, values), CLASS_HEAD, TABLE, *_rows(spec, spec)]
    return "".join(parts)


def _rows(schema: Schema, root: Schema, path: str = "") -> Iterator[str]:
    for name, below in schema.get("properties", {}).items():
        field = _resolved(below, root)
        here = f"{path}.{name}" if path else name
        about = " ".join(str(field.get("description", "")).split()).replace("|", "\\|")
        yield f"| `{here}` | {about} | {_allowed(field, root)} | {_default(field)} |\n"
        yield from _rows(field, root, here)
        if here != CLASSES and "properties" in (item := _resolved(field.get("items", {}), root)):
            yield from _rows(item, root, f"{here}[]")


def _resolved(schema: Schema, root: Schema) -> Schema:
    """What a reference within the schema stands for; the words beside it go before it."""
    if "$ref" not in schema:
        return schema
    found: Any = root
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return {**found, **{name: value for name, value in schema.items() if name != "$ref"}}


def _allowed(field: Schema, root: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{each}`" for each in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "a size or a number"
    kind = field.get("type", "")
    kinds = [kind] if isinstance(kind, str) else list(kind)
    bounds = [f"{sign} {field[name]}" for name, sign in (("minimum", "≥"), ("maximum", "≤")) if name in field]
    item = _resolved(field.get("items", {}), root)
    of = f" of {item['type']}s" if kinds == ["array"] and isinstance(item.get("type"), str) else ""
    return ", ".join([" or ".join(kinds) + of, *bounds])


def _default(field: Schema) -> str:
    if "default" not in field or field["default"] in ("", {}, []):
        return ""
    return f"`{json.dumps(field['default']) if not isinstance(field['default'], str) else field['default']}`"


def main() -> int:
    """Write the page, or with a path the page there."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
