"""Our image, from its own files alone: nothing that it needs is missing, and nothing wants to be written there."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.image.conftest import Unpacked
from tests.rigs.images.container import ROOT_USER, inside
from tests.rigs.images.serving import USERS, beside_an_api_server
from ullage.cli import SUBCOMMANDS
from ullage.run import PACKAGES

MOST_BYTES = 180_000_000
UNCHECKED = b"\x01\x00\x00\x00"
"""The flags of a .pyc that is taken as it is (PEP 552)."""
EVERY_MODULE = """
import importlib, pkgutil
for room in ("ullage", "node_agent", "csi", "scheduler_extender"):
    for each in pkgutil.walk_packages(importlib.import_module(room).__path__, f"{room}."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
"""
LOADER = "/lib64/ld-linux-x86-64.so.2"
VERSIONS = (
    ("lvm", "version"),
    ("mkfs.xfs", "-V"),
    ("mkfs.ext4", "-V"),
    ("mkfs.btrfs", "--version"),
    ("thin_check", "--version"),
    ("dmsetup", "--version"),
    ("losetup", "--version"),
)


def said(image: Unpacked, folder: Path, *words: str, user: str = "") -> str:
    """What the words print; raises CalledProcessError with what they said."""
    argv = inside(image.root, folder, *words, **({"user": user} if user else {}))
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_image_is_small(image: Unpacked) -> None:
    assert sum(image.layer_bytes) <= MOST_BYTES


def test_a_new_version_s_own_layer_is_a_small_part_of_it(image: Unpacked) -> None:
    assert image.layer_bytes[-1] < sum(image.layer_bytes) // 10


def test_it_says_its_version_as_a_user_without_rights(image: Unpacked, folder: Path) -> None:
    assert said(image, folder, "ullage", "--version").startswith("ullage ")


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_says_how_it_is_used(image: Unpacked, folder: Path, command: str) -> None:
    assert said(image, folder, "ullage", command, "--help").startswith(f"usage: ullage {command}")


def test_every_module_finds_what_it_imports(image: Unpacked, folder: Path) -> None:
    said(image, folder, "python3", "-c", EVERY_MODULE)


def test_every_program_that_is_run_is_there(image: Unpacked) -> None:
    folders = [str(image.root / each) for each in ("usr/sbin", "usr/bin")]
    assert [name for name in PACKAGES if shutil.which(name, path=":".join(folders)) is None] == []


@pytest.mark.parametrize("words", VERSIONS, ids=lambda words: words[0])
def test_the_programs_run(image: Unpacked, folder: Path, words: tuple[str, ...]) -> None:
    said(image, folder, *words, user=ROOT_USER)


def test_no_program_and_no_library_misses_a_library(image: Unpacked, folder: Path) -> None:
    found = [path for path in (image.root / "usr").rglob("*") if path.is_file() and not path.is_symlink()]
    names = [str(path.relative_to(image.root)) for path in found if _is_elf(path)]
    script = f'for each; do {LOADER} --list "/$each" 2>&1 | grep "cannot open" | sed "s#^#$each: #"; done; true'
    assert len(names) > 100
    assert said(image, folder, "sh", "-c", script, "sh", *names) == ""


def _is_elf(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def test_every_module_is_compiled_so_that_no_time_of_a_file_matters(image: Unpacked) -> None:
    sources = [path for lib in ("usr/lib", "usr/local/lib") for path in (image.root / lib).rglob("*.py")]
    compiled = [Path(importlib.util.cache_from_source(path)) for path in sources]
    assert len(sources) > 1000
    assert [path for path in compiled if not path.exists() or path.read_bytes()[4:8] != UNCHECKED] == []


def test_nothing_of_this_machine_is_in_it(image: Unpacked) -> None:
    names = [image.root / "etc" / name for name in ("hostname", "hosts", "machine-id", "resolv.conf")]
    assert [path for path in names if path.exists() and path.read_bytes()] == []
    assert list((image.root / "mnt").iterdir()) == list((image.root / "tmp").iterdir()) == []


def test_every_component_serves_with_nothing_to_write_but_its_sockets(
    image: Unpacked, folder: Path, tmp_path: Path
) -> None:
    with beside_an_api_server(image.root, folder, tmp_path) as place:
        for name in USERS:
            serving = place.component(name).process
            serving.start()
            assert serving.stop() == 0, serving.tail()
