#!/usr/bin/python3
"""Build Ullage's image here: no container registry, no daemon; needs root and the packages buildah and mmdebstrap.

The base is a minimal Debian 12 made by mmdebstrap from this machine's mirrors, the Python packages are fetched by this
machine's pip, and buildah runs the Containerfile in a chroot. The archive is what `docker load`, `podman load` and
`ctr images import` take. Two builds of one commit are the same bytes for as long as Debian's archive stays the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = "deploy/image"
SUITE, PYTHON = "bookworm", "3.11"
BASE = "localhost/base:latest"
BUILDAH = ("unshare", "--mount", "--propagation", "private", "buildah")
"""What it mounts goes with it, also where it fails."""
LOCKS = ("requirements/build.lock", "requirements/run.lock")
WHEELS = "/mnt"
"""Where the build finds what pip fetched outside of it."""
EXAMPLES = f"""
  sudo {HERE}/build.py                                    dist/ullage-image.tar, as ullage:VERSION
  sudo {HERE}/build.py --tag registry.example/ullage:1    named as it will be pushed
  sudo {HERE}/build.py --base docker.io/library/debian:12-slim
  sudo {HERE}/build.py --check-reproducible               built twice; fails unless both are the same bytes

  ctr --namespace k8s.io images import dist/ullage-image.tar
  docker load --input dist/ullage-image.tar
"""


class BuildError(Exception):
    """A program refused; its own words are above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What is built. `base` is an image of a registry; None: a Debian that is made here."""

    tag: str
    version: str
    revision: str
    epoch_seconds: int
    base: str | None = None


def build(image: Image, output: Path, keep: Path | None = None) -> None:
    """Write the archive, whole or not at all; raises BuildError.

    In `keep` stay the base, the packages and the layers, so that the next build only does what has changed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".image-") as scratch:
        folder = keep or Path(scratch)
        folder.mkdir(exist_ok=True)
        storage = ("--root", str(folder / "images"), "--runroot", str(folder / "run"))
        archive = Path(scratch) / "archive"
        try:
            wheels = _fetched_packages(folder)
            base = image.base or _made_base(folder, storage, image.epoch_seconds)
            _run(*build_argv(image, storage, base, wheels))
            _run(*BUILDAH, *storage, "push", "--quiet", image.tag, f"docker-archive:{archive}:{image.tag}")
        finally:
            _run(*BUILDAH, *storage, "rm", "--all")
            if keep is None:
                _run(*BUILDAH, *storage, "rmi", "--all", "--force")
        archive.rename(output)


def build_argv(image: Image, storage: Sequence[str], base: str, wheels: Path) -> list[str]:
    """How buildah is called. Its layers are kept apart: an upgrade fetches the last one alone."""
    arguments = {
        "BASE": base,
        "PIP": f"--no-index --find-links {WHEELS}",
        "SOURCE_DATE_EPOCH": str(image.epoch_seconds),
        "VERSION": image.version,
        "REVISION": image.revision,
    }
    given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    return [
        *(*BUILDAH, *storage, "build", "--isolation", "chroot", "--layers", "--format", "oci"),
        *("--timestamp", str(image.epoch_seconds), "--volume", f"{wheels}:{WHEELS}:ro"),
        *("--ignorefile", str(ROOT / HERE / "Containerfile.dockerignore")),
        *given,
        *("--file", str(ROOT / HERE / "Containerfile"), "--tag", image.tag, str(ROOT)),
    ]


def _fetched_packages(folder: Path) -> Path:
    wheels = folder / "wheels"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-input")
    for lock in LOCKS:
        how = ("--require-hashes", "--only-binary=:all:", "--python-version", PYTHON, "--dest", str(wheels))
        _run(*pip, *how, "--requirement", str(ROOT / lock))
    return wheels


def _made_base(folder: Path, storage: Sequence[str], epoch_seconds: int) -> str:
    archive = folder / "base.tar"
    if not archive.exists():
        beside = folder / "base.tar.part"
        # What mmdebstrap copies from this machine, and every container is given anew.
        forget = "--customize-hook=rm $1/etc/hostname $1/etc/resolv.conf"
        how = ("--quiet", "--variant=minbase", "--format=tar", forget)
        _run("mmdebstrap", *how, SUITE, str(beside), epoch_seconds=epoch_seconds)
        (folder / "Containerfile").write_text("FROM scratch\nADD base.tar.part /\n", encoding="ascii")
        so = ("--quiet", "--timestamp", str(epoch_seconds), "--tag", BASE)
        _run(*BUILDAH, *storage, "build", *so, "--file", str(folder / "Containerfile"), str(folder))
        beside.rename(archive)
    return BASE


def _run(*argv: str, epoch_seconds: int = 0) -> None:
    """Run a program to its end, its words on our standard error; raises BuildError."""
    sys.stderr.write(f"image: {shlex.join(argv)}\n")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch_seconds)}
    try:
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment)  # noqa: S603
    except FileNotFoundError as missing:
        raise BuildError(f"{argv[0]} is missing: apt-get install buildah mmdebstrap") from missing
    except subprocess.CalledProcessError as failure:
        raise BuildError(f"{argv[0]} ended with {failure.returncode}") from failure


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def _of_git(*arguments: str) -> str:
    """What git says of the checkout; nothing where it is none."""
    argv = ("git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments)
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _digest(archive: Path) -> str:
    with archive.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _described() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    output = ROOT / "dist" / "ullage-image.tar"
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help="the archive (dist/…)")
    parser.add_argument("--tag", default=f"ullage:{_version()}", metavar="NAME", help="its name (ullage:VERSION)")
    parser.add_argument("--base", metavar="IMAGE", help="a registry's Debian 12 (one that is made here)")
    parser.add_argument(
        "--revision", default=_of_git("rev-parse", "HEAD"), metavar="TEXT", help="its label (git's HEAD)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="begin with what is kept here, and keep it (nothing)"
    )
    parser.add_argument("--check-reproducible", action="store_true", help="build twice and compare")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0: the archive is there (and the same twice, if asked for); 1: it is not."""
    options = _described().parse_args(arguments)
    output: Path = options.output
    image = Image(
        tag=options.tag,
        version=_version(),
        revision=options.revision,
        epoch_seconds=int(os.environ.get("SOURCE_DATE_EPOCH") or 0),
        base=options.base,
    )
    try:
        build(image, output.absolute(), options.keep)
        digests = [_digest(output)]
        if options.check_reproducible:
            again = output.absolute().with_suffix(".again")
            build(image, again)
            digests.append(_digest(again))
    except BuildError as failure:
        sys.stderr.write(f"image: {failure}\n")
        return 1
    if len(set(digests)) > 1:
        sys.stderr.write(f"image: two builds differ: {output} and {again}\n")
        return 1
    if options.check_reproducible:
        again.unlink()
    sys.stdout.write(f"{output}  {image.tag}  sha256:{digests[0]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
