"""An image of one layer, written as `docker load`, `podman load` and `ctr images import` read it.

The same layer and configuration are the same bytes, whoever writes them and when.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from pathlib import Path
from typing import IO

from tests.rigs.host import RigError

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
PT_INTERP = 3
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EPOCH = "1970-01-01T00:00:00Z"


def write(archive: Path, reference: str, layer: Path, *, entrypoint: list[str], user: str = "") -> None:
    """Write the image of an uncompressed tar of files."""
    with layer.open("rb") as opened:
        layer_digest = hashlib.file_digest(opened, "sha256").hexdigest()
    config = _json(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "created": EPOCH,
            "config": {"Env": [f"PATH={DEFAULT_PATH}"], "Entrypoint": entrypoint, "User": user},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
            "history": [{"created": EPOCH, "created_by": "tests/rigs/images"}],
        }
    )
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = _json([{"Config": config_name, "RepoTags": [reference], "Layers": [f"{layer_digest}.tar"]}])
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as opened_archive:
        _put(opened_archive, config_name, io.BytesIO(config), len(config))
        with layer.open("rb") as opened:
            _put(opened_archive, f"{layer_digest}.tar", opened, layer.stat().st_size)
        _put(opened_archive, "manifest.json", io.BytesIO(manifest), len(manifest))


def layer_of_program(layer: Path, program: Path) -> None:
    """Write a layer that has nothing but a program, at the root; raises RigError when it needs more to run."""
    with program.open("rb") as opened:
        if _wants_loader(opened):
            raise RigError(f"{program} is not static: nothing in an empty image would load it")
        opened.seek(0)
        with tarfile.open(layer, "w", format=tarfile.USTAR_FORMAT) as opened_layer:
            _put(opened_layer, program.name, opened, program.stat().st_size, mode=0o755)


def _wants_loader(program: IO[bytes]) -> bool:
    """Whether a 64-bit ELF file names a loader (elf(5): Elf64_Ehdr, Elf64_Phdr)."""
    header = program.read(64)
    (offset,) = struct.unpack_from("<Q", header, 32)
    size, count = struct.unpack_from("<HH", header, 54)
    program.seek(offset)
    headers = program.read(size * count)
    return any(struct.unpack_from("<I", headers, each * size)[0] == PT_INTERP for each in range(count))


def _put(archive: tarfile.TarFile, name: str, content: IO[bytes], size_bytes: int, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, mode
    archive.addfile(entry, content)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
