"""The disk on which a node keeps containerd's and kubelet's state: a file system that has the images in it already.

It is made on this machine, by the same containerd, since unpacking images takes an emulated machine minutes. One is
kept in the cache for each set of images, and every node writes to an overlay of its own above it.

  python -m tests.rigs.full.state DISK NAME=ARCHIVE...    fills a disk; it has to have a mount namespace of its own
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.rigs.cluster.process import POLL_SECONDS, Process, answers
from tests.rigs.gotools import programs
from tests.rigs.host import RigError, cache_directory, locked

SIZE_BYTES = 16 << 30
"""Sparse; more than any test's containers write."""
FILL_SECONDS = 900.0
UNUSED_SECONDS = 2 * 86400.0
NAMESPACE = "k8s.io"
"""Where kubelet's images are, in containerd's words."""
TREE = Path(__file__).parents[3]


def overlay(disk: Path, target: Path) -> None:
    """One of the caller's own, which begins as that one and keeps only what is changed; raises RigError."""
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk), str(target))


def get(images: Mapping[str, Path], changing: str) -> Path:
    """The disk with these images (archives by reference) that others are overlays of; raises RigError.

    One of them changes more often than the others: it is added to a copy of the disk that has those.
    """
    others = {name: archive for name, archive in images.items() if name != changing}
    cache = cache_directory() / "full"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "state.lock"):
        _clear(cache)
        below = _cached(cache, others, None)
        return _cached(cache, {changing: images[changing]}, below)


def _cached(cache: Path, images: Mapping[str, Path], below: Path | None) -> Path:
    made = cache / f"state-{_key(images, below)}.img"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as scratch:
            beside = Path(scratch) / "disk"
            _make(beside, images, below)
            beside.rename(made)
    os.utime(made)
    return made


def _key(images: Mapping[str, Path], below: Path | None) -> str:
    found = hashlib.sha256(Path(__file__).read_bytes())
    found.update(f"{programs.get('containerd')} {below and below.name}".encode())
    for name, archive in sorted(images.items()):
        found.update(name.encode() + b"\0")
        with archive.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def _clear(cache: Path) -> None:
    for old in cache.glob("state-*.img"):
        if old.stat().st_mtime < time.time() - UNUSED_SECONDS:
            old.unlink()


def _make(disk: Path, images: Mapping[str, Path], below: Path | None) -> None:
    sys.stderr.write(f"full: unpacking {', '.join(images)} (once)\n")
    if below is None:
        with disk.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(disk))
    else:
        _run("cp", "--sparse=always", "--reflink=auto", str(below), str(disk))
    words = [f"{name}={archive}" for name, archive in images.items()]
    own = ("unshare", "--mount", "--propagation", "private", "--")
    _run(*own, sys.executable, "-m", "tests.rigs.full.state", str(disk), *words)


def _fill(disk: Path, images: Mapping[str, Path]) -> None:
    with tempfile.TemporaryDirectory(prefix="ullage-state-") as scratch:
        mounted = Path(scratch) / "disk"
        mounted.mkdir()
        _run("mount", "-o", "loop", str(disk), str(mounted))
        socket = Path(scratch) / "socket"
        config = Path(scratch) / "containerd.toml"
        root = mounted / "var/lib/containerd"
        config.write_text(
            f"version = 3\nroot = '{root}'\nstate = '{scratch}/state'\n"
            "disabled_plugins = ['io.containerd.grpc.v1.cri', 'io.containerd.nri.v1.nri']\n"
            f"[grpc]\naddress = '{socket}'\n"
            "[plugins.'io.containerd.gc.v1.scheduler']\ndeletion_threshold = 1\n",
            encoding="ascii",
        )
        log = Path(scratch) / "containerd.log"
        server = Process([programs.get("containerd"), "--config", config], log, lambda: answers(socket))
        server.start()
        try:
            client = (str(programs.get("ctr")), "--address", str(socket), "--namespace", NAMESPACE)
            for archive in images.values():
                _run(*client, "images", "import", "--snapshotter", "overlayfs", str(archive))
            # What is unpacked is not unpacked again.
            layers = [line.split()[0] for line in _run(*client, "content", "ls").splitlines() if "uncompressed" in line]
            _run(*client, "content", "rm", *layers)
            blobs = root / "io.containerd.content.v1.content/blobs/sha256"
            while any((blobs / layer.removeprefix("sha256:")).exists() for layer in layers):
                time.sleep(POLL_SECONDS)
        finally:
            server.stop()
            _run("sync", "--file-system", str(mounted))
            _run("fstrim", str(mounted))
            _run("umount", str(mounted))


def _run(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, cwd=TREE, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FILL_SECONDS
        )
    except FileNotFoundError as missing:
        raise RigError(f"{argv[0]} is missing: run tests/rigs/install.py full") from missing
    except subprocess.TimeoutExpired as failure:
        raise RigError(str(failure)) from failure
    if done.returncode != 0:
        raise RigError(f"{' '.join(argv)} failed with {done.returncode}: {done.stderr}")
    return done.stdout


def main(words: list[str]) -> int:
    """Fill a disk with what the command line names."""
    disk, *pairs = words
    _fill(Path(disk), {name: Path(archive) for name, _, archive in (pair.partition("=") for pair in pairs)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
