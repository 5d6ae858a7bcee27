"""The images that a whole cluster needs here, made without a registry, as archives that `ctr images import` takes.

Ours is built as a user builds it; the others are the programs that tests/rigs/gotools builds, alone in an empty image,
a pause of our own, and a Debian with what our volumes are for. An archive is kept in the cache for each state of what
it is made of: what is there under a name is complete, built beside and renamed under a lock.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.gotools import programs, toolchain
from tests.rigs.host import RigError, cache_directory, locked
from tests.rigs.images import archive
from tests.rigs.images.workload import PACKAGES

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAUSE = HERE / "pause"
BUILD_SECONDS = 3000.0
UNUSED_SECONDS = 3 * 86400.0
"""An archive of another state is removed after this long: another checkout may be using it."""
LAYERS_SECONDS = 7 * 86400.0
"""What Debian says is asked again after this long."""
OF_OURS = ("LICENSE", "README.md", "hatch_build.py", "pyproject.toml", "requirements", "deploy/image", "proto")
ROOMS = ("csi", "node_agent", "scheduler_extender", "ullage")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    """How it is tagged, what it is made of, and how it is written to a path (a folder for scratch beside it)."""

    tag: str
    state: Callable[[], Iterator[bytes]]
    write: Callable[[Path, Path], None]


def get(name: str) -> Path:
    """The archive, built if it is not there; raises RigError."""
    image = _IMAGES[name]
    cache = cache_directory() / "images"
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(b"\0".join([reference(name).encode(), *image.state()])).hexdigest()[:16]
    target = cache / f"{name}-{key}.tar"
    with locked(cache / f"{name}.lock"):
        if not target.exists():
            _clear(cache)
            _say(f"making {reference(name)}")
            started = time.monotonic()
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"making-{name}-") as scratch:
                image.write(Path(scratch) / target.name, Path(scratch))
                (Path(scratch) / target.name).rename(target)
            _say(f"{reference(name)} made in {time.monotonic() - started:.0f} s")
        os.utime(target)
    return target


def reference(name: str) -> str:
    """What a Pod's container calls it."""
    return f"localhost/{name}:{_IMAGES[name].tag}"


def _own_files() -> Iterator[Path]:
    """All that our image is made of: what the Containerfile copies, and what it says."""
    for word in OF_OURS:
        path = ROOT / word
        yield from [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    for room in ROOMS:
        generated = ROOT / room / "pb"
        yield from sorted(each for each in (ROOT / room).rglob("*") if each.is_file() and generated not in each.parents)


def _own_state() -> Iterator[bytes]:
    for path in _own_files():
        if path.suffix != ".pyc":
            yield str(path.relative_to(ROOT)).encode()
            yield path.read_bytes()


def _write_own(target: Path, _: Path) -> None:
    layers = cache_directory() / "images" / "layers"
    with locked(layers.with_suffix(".lock")):
        if layers.exists() and layers.stat().st_mtime < time.time() - LAYERS_SECONDS:
            shutil.rmtree(layers)
        how = ("--tag", reference("ullage"), "--revision", "", "--keep", str(layers))
        _run(sys.executable, str(ROOT / "deploy/image/build.py"), "--output", str(target), *how)


def _of_program(name: str, version: str) -> _Image:
    def state() -> Iterator[bytes]:
        yield programs.get(name).parent.name.encode()
        yield (HERE / "archive.py").read_bytes()

    def write(target: Path, scratch: Path) -> None:
        _write_program(target, scratch, programs.get(name), reference(name))

    return _Image(tag=version, state=state, write=write)


def _write_program(target: Path, scratch: Path, program: Path, named: str, user: str = "") -> None:
    layer = scratch / "layer.tar"
    archive.layer_of_program(layer, program)
    archive.write(target, named, layer, entrypoint=[f"/{program.name}"], user=user)


def _pause_state() -> Iterator[bytes]:
    for path in (PAUSE / "main.go", PAUSE / "go.mod", HERE / "archive.py"):
        yield path.read_bytes()


def _write_pause(target: Path, scratch: Path) -> None:
    program = scratch / "pause"
    go = toolchain.get(PAUSE)
    flags = (*programs.FLAGS, f"-ldflags={programs.LINKER_FLAGS}")
    _run(str(go.program), "build", *flags, "-o", str(program), ".", cwd=PAUSE, environment=toolchain.environment())
    _write_program(target, scratch, program, reference("pause"), user="65535:65535")


def _workload_state() -> Iterator[bytes]:
    yield " ".join(PACKAGES).encode()
    yield (HERE / "workload.py").read_bytes()
    yield (HERE / "archive.py").read_bytes()


def _write_workload(target: Path, scratch: Path) -> None:
    layer = scratch / "layer.tar"
    left_out = ("doc/*", "info/*", "lintian/*", "locale/*", "man/*")
    options = [f"--dpkgopt=path-exclude=/usr/share/{each}" for each in left_out]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "0", "DEBIAN_FRONTEND": "noninteractive"}
    include = f"--include={','.join(PACKAGES)}"
    _run(
        "mmdebstrap", "--quiet", "--variant=minbase", *options, include, "bookworm", str(layer), environment=environment
    )
    archive.write(target, reference("workload"), layer, entrypoint=[])


def _run(*argv: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> None:
    """Run a program to its end, its words on our standard error; raises RigError."""
    _say(shlex.join(argv))
    env = environment or {**os.environ, "SOURCE_DATE_EPOCH": "0"}
    try:
        subprocess.run(
            argv, check=True, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=BUILD_SECONDS
        )
    except FileNotFoundError as missing:
        raise RigError(f"{argv[0]} is missing: /usr/bin/python3 tests/rigs/install.py image (as root)") from missing
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        raise RigError(f"an image could not be made ({failure}); the reason is above") from failure


def _clear(cache: Path) -> None:
    for old in cache.glob("*.tar"):
        if old.stat().st_mtime < time.time() - UNUSED_SECONDS:
            old.unlink(missing_ok=True)


def _say(sentence: str) -> None:
    sys.stderr.write(f"images: {sentence}\n")
    sys.stderr.flush()


_IMAGES = {
    "ullage": _Image(tag="test", state=_own_state, write=_write_own),
    "pause": _Image(tag="test", state=_pause_state, write=_write_pause),
    "csi-provisioner": _of_program("csi-provisioner", "v6.3.0"),
    "csi-resizer": _of_program("csi-resizer", "v2.3.0"),
    "csi-snapshotter": _of_program("csi-snapshotter", "v8.7.0"),
    "snapshot-controller": _of_program("snapshot-controller", "v8.7.0"),
    "workload": _Image(tag="test", state=_workload_state, write=_write_workload),
}
NAMES = tuple(_IMAGES)
