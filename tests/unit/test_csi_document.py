"""docs/csi.md says what the driver really offers: capabilities, parameters, file systems, codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from csi import controller, group, identity, node, parameters
from csi.capabilities import MODES, Mode
from csi.fs.kinds import DEFAULT, KINDS
from csi.orders import snapshot_metadata
from csi.status import code_of
from tests.unit.test_errors_document import kinds
from ullage import errors, storage_classes
from ullage.cli.standalone import ALPHA
from ullage.errors import MIB
from ullage.model import Wipe

TEXT = (Path(__file__).parents[2] / "docs" / "csi.md").read_text(encoding="utf-8")
WORD = re.compile(r"`([A-Z_]+)`")


def row(first: str) -> str:
    found = re.search(rf"^\| {first} \|.*$", TEXT, re.MULTILINE)
    assert found is not None, first
    return found[0]


def alpha(service: str) -> set[str]:
    found = re.search(rf"{service}\s((?:`[A-Z_]+`,?\s*)+)", TEXT[TEXT.index("--alpha volume-health") :])
    assert found is not None, service
    return set(WORD.findall(found[1]))


@pytest.mark.parametrize(
    ("service", "offered", "health", "names"),
    [
        ("Controller", controller.OFFERED, controller.HEALTH, controller.Kind.Type.Name),
        ("Node", node.OFFERED, node.HEALTH, node.Kind.Type.Name),
        ("GroupController", group.OFFERED, (), group.Kind.Type.Name),
    ],
)
def test_every_capability_is_documented_and_no_other(
    service: str, offered: Iterable[int], health: Iterable[int], names: object
) -> None:
    assert callable(names)
    assert set(WORD.findall(row(service))) == {names(each) for each in offered}
    assert not health or alpha(service) == {names(each) for each in health}


def test_every_service_is_documented() -> None:
    services = set(WORD.findall(row("Identity"))) - {"ONLINE"}
    assert services == {identity.Service.Type.Name(each) for each in identity.SERVICES}
    assert f"{snapshot_metadata.MOST_RESULTS} ranges" in TEXT


def test_every_access_mode_is_documented() -> None:
    told = TEXT[TEXT.index("Access modes") : TEXT.index("The modes of several nodes")]
    assert set(WORD.findall(told)) == {Mode.Mode.Name(each) for each in MODES}


def test_every_parameter_is_documented() -> None:
    assert f"`{storage_classes.CLASS_KEY}`" in row("StorageClass `parameters`")
    assert f"`{storage_classes.NODE_KEY}`" in row("Topology")
    changeable = row("VolumeAttributesClass `parameters`, or `mutable_parameters`")
    assert all(f"| `{key}` |" in changeable for key in parameters.MUTABLE)
    assert all(f"`{each.value}`" in changeable for each in Wipe)
    assert f"`{parameters.SIDECAR_KEYS}`" in TEXT
    assert all(f"--alpha {each}" in TEXT for each in ALPHA)


def test_every_file_system_is_documented_with_its_least_size() -> None:
    rows = re.findall(r"^\| `(\w+)`( \(the default\))? \| (\d+) MiB \|$", TEXT, re.MULTILINE)
    assert {(name, int(size) * MIB) for name, _, size in rows} == {(k.name, k.minimum_bytes) for k in KINDS.values()}
    assert [name for name, is_default, _ in rows if is_default] == [DEFAULT]


def test_every_reason_is_documented_with_its_code_and_no_other() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| ((?:`\w+`(?:, )?)+) \|", TEXT, re.MULTILINE)
    told = [(reason, code) for code, reasons in rows for reason in re.findall(r"\w+", reasons)]
    assert sorted(told) == sorted(
        {(kind.reason, code_of(kind.__new__(kind)).name) for kind in kinds(errors.UllageError)}
    )
