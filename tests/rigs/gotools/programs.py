"""Programs that the tests need and nobody packages, built from the modules that a go.mod and a go.sum pin.

Each folder beside this file is a module of its own: what is pinned in one selects nothing in another, and each program
is built from the versions its authors released it with. Programs are kept in a directory of the cache for each state of
their folder's two files and of Go. What is in there under a name is complete: it is built beside and renamed, under a
lock, so two rigs may start at once. A guest of the VM rig sees the cache as the host does.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.gotools import toolchain
from tests.rigs.host import RigError, cache_directory, locked

FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
LINKER_FLAGS = "-s -w"
BUILD_SECONDS = 3000.0
"""Nothing cached and two slow cores; kube-apiserver, with most of Kubernetes below it, takes the longest."""
WORD_SECONDS = 30.0
DOWNLOAD_SECONDS = 600.0
UNUSED_SECONDS = 14 * 86400.0
"""A directory of another state is removed after this long: another checkout may be using it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Where a program is built: a folder here, and a package of the modules it pins.

    is_only_for_nodes: only the full tier, whose nodes have a kubelet, needs it; it is built when that tier asks.
    """

    folder: str
    package: str
    is_only_for_nodes: bool = False


_SIDECARS = "github.com/kubernetes-csi"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
PROGRAMS = {
    "csi-sanity": Program(folder="sanity", package=f"{_SIDECARS}/csi-test/v5/cmd/csi-sanity"),
    "etcd": Program(folder="etcd", package="go.etcd.io/etcd/server/v3"),
    "helm": Program(folder="helm", package="helm.sh/helm/v4/cmd/helm"),
    "kube-apiserver": Program(folder="kubernetes", package="k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": Program(folder="kubernetes", package="k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": Program(folder="kubernetes", package="k8s.io/kubernetes/cmd/kube-scheduler"),
    "csi-provisioner": Program(
        folder="provisioner", package=f"{_SIDECARS}/external-provisioner/v6/cmd/csi-provisioner"
    ),
    "csi-resizer": Program(folder="resizer", package=f"{_SIDECARS}/external-resizer/v2/cmd/csi-resizer"),
    "csi-snapshotter": Program(
        folder="snapshotter", package=f"{_SIDECARS}/external-snapshotter/v8/cmd/csi-snapshotter"
    ),
    "snapshot-controller": Program(
        folder="snapshotter", package=f"{_SIDECARS}/external-snapshotter/v8/cmd/snapshot-controller"
    ),
    **{
        name: Program(folder="node", package=f"k8s.io/kubernetes/cmd/{name}", is_only_for_nodes=True)
        for name in ("kubelet", "kubectl", "kube-proxy")
    },
    **{
        name: Program(folder="containerd", package=f"{_CONTAINERD}/{name}", is_only_for_nodes=True)
        for name in ("containerd", "containerd-shim-runc-v2", "ctr")
    },
}
KUBERNETES = "k8s.io/kubernetes"


def get(name: str) -> Path:
    """The program, built if it is not there; raises RigError."""
    module = toolchain.HERE / PROGRAMS[name].folder
    go = toolchain.get(module)
    cache = cache_directory() / "gotools"
    folder = cache / f"bin-{module.name}-{_key(go, module)}"
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    program = folder / name
    with locked(folder / "lock"):
        if not program.exists():
            _clear(cache)
            _build(go, name, program)
    return program


def of_every_tier() -> list[str]:
    """Those that are built ahead, for whichever tier asks first."""
    return [name for name, program in PROGRAMS.items() if not program.is_only_for_nodes]


def source(folder: str, module: str) -> Path:
    """The files of a module that a folder's program is built from, as Go keeps them (read-only); raises RigError."""
    here = toolchain.HERE / folder
    argv = (str(toolchain.get(here).program), "mod", "download", "-json", module)
    try:
        done = subprocess.run(
            argv,
            check=True,
            cwd=here,
            env=toolchain.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            timeout=DOWNLOAD_SECONDS,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        raise RigError(f"{module} could not be had ({failure}); go's reason is above") from failure
    return Path(json.loads(done.stdout)["Dir"])


def linker_flags(go_mod: str) -> str:
    """What the linker writes into the programs of a go.mod: Kubernetes' own build tells them their version this way."""
    pinned = re.search(
        rf"^(?:require |\t){re.escape(KUBERNETES)} v((\d+)\.(\d+)\.\S+)(?: // indirect)?$", go_mod, re.MULTILINE
    )
    if pinned is None:
        return LINKER_FLAGS
    version, major, minor = pinned.groups()
    told = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor}
    words = [f"-X k8s.io/component-base/version.{name}={word}" for name, word in told.items()]
    return " ".join([LINKER_FLAGS, *words])


def _key(go: toolchain.Go, module: Path) -> str:
    pins = [(module / name).read_bytes() for name in ("go.mod", "go.sum")]
    words = (go.version, platform.machine(), *_flags(module))
    return hashlib.sha256(b"\0".join([*pins, *(word.encode() for word in words)])).hexdigest()[:16]


def _flags(module: Path) -> tuple[str, ...]:
    go_mod = (module / "go.mod").read_text(encoding="ascii")
    return (*FLAGS, f"-ldflags={linker_flags(go_mod)}")


def _clear(cache: Path) -> None:
    for old in cache.glob("bin-*"):
        if old.stat().st_mtime < time.time() - UNUSED_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _build(go: toolchain.Go, name: str, program: Path) -> None:
    module = toolchain.HERE / PROGRAMS[name].folder
    _say(f"building {name} with {go.version} (minutes, once)")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=program.parent, prefix="build-") as scratch:
        beside = Path(scratch) / name
        argv = (str(go.program), "build", *_flags(module), "-o", str(beside), PROGRAMS[name].package)
        building = subprocess.Popen(
            argv, cwd=module, env=toolchain.environment(), stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
        try:
            code = _waited(building, name, started)
        finally:
            building.kill()
            building.wait()
        if code != 0:
            raise RigError(f"{name} could not be built (go ended with {code}); go's reason is above")
        beside.rename(program)
    _say(f"{name} built in {time.monotonic() - started:.0f} s")


def _waited(building: subprocess.Popen[bytes], name: str, started: float) -> int:
    """The exit code; a word now and then for whoever waits. Raises RigError when it takes too long."""
    while True:
        try:
            return building.wait(WORD_SECONDS)
        except subprocess.TimeoutExpired as failure:
            seconds = time.monotonic() - started
            if seconds > BUILD_SECONDS:
                raise RigError(f"{name} was not built after {seconds:.0f} s") from failure
            _say(f"still building {name} after {seconds:.0f} s")


def _say(sentence: str) -> None:
    sys.stderr.write(f"gotools: {sentence}\n")
    sys.stderr.flush()
