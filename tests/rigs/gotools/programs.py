"""Programs that the tests need and nobody packages, built from the modules that go.mod and go.sum pin.

They are kept in one directory of the cache for each state of these two files and of Go. What is in there under a name
is complete: it is built beside and renamed, under a lock, so two rigs may start at once. A guest of the VM rig sees
the cache as the host does.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.rigs.gotools import toolchain
from tests.rigs.host import RigError, cache_directory, locked

PACKAGES = {
    "csi-sanity": "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
}
FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w")
BUILD_SECONDS = 1800.0
UNUSED_SECONDS = 14 * 86400.0
"""A directory of another state is removed after this long: another checkout may be using it."""


def get(name: str) -> Path:
    """The program, built if it is not there; raises RigError."""
    go = toolchain.get()
    cache = cache_directory() / "gotools"
    folder = cache / f"bin-{_key(go)}"
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    program = folder / name
    with locked(folder / "lock"):
        if not program.exists():
            _clear(cache)
            _build(go, name, program)
    return program


def _key(go: toolchain.Go) -> str:
    pins = [(toolchain.HERE / name).read_bytes() for name in ("go.mod", "go.sum")]
    words = (go.version, platform.machine(), *FLAGS)
    return hashlib.sha256(b"\0".join([*pins, *(word.encode() for word in words)])).hexdigest()[:16]


def _clear(cache: Path) -> None:
    for old in cache.glob("bin-*"):
        if old.stat().st_mtime < time.time() - UNUSED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _build(go: toolchain.Go, name: str, program: Path) -> None:
    sys.stderr.write(f"gotools: building {name} with {go.version} (a minute, once)\n")
    sys.stderr.flush()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=program.parent, prefix="build-") as scratch:
        beside = Path(scratch) / name
        argv = (str(go.program), "build", *FLAGS, "-o", str(beside), PACKAGES[name])
        try:
            subprocess.run(
                argv,
                check=True,
                cwd=toolchain.HERE,
                env=toolchain.environment(),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                timeout=BUILD_SECONDS,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
            raise RigError(f"{name} could not be built ({failure}); go's reason is above") from failure
        beside.rename(program)
    sys.stderr.write(f"gotools: {name} built in {time.monotonic() - started:.0f} s\n")
