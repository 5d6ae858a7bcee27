"""docs/errors.md tells every reason, with the code it really has."""

from __future__ import annotations

import re
from pathlib import Path

from node_agent.status import code_of
from ullage import errors

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"


def kinds(base: type[errors.UllageError]) -> set[type[errors.UllageError]]:
    found = {base}
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            found |= kinds(kind)
    return found


def test_every_reason_is_documented_with_its_code_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z_]+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    documented = dict(rows)
    assert len(documented) == len(rows)
    real = {}
    for kind in kinds(errors.UllageError) - {errors.ConfigError}:
        instance = kind.__new__(kind)
        real[kind.reason] = code_of(instance).name
    assert documented == real
