"""Debian's kernel and the rig's initramfs, in a cache directory outside the tree.

The host's own kernel is not used: it may lack device-mapper, and a test should not depend on it. The package is
downloaded with apt-get and unpacked, never installed. What is in the cache under a name is complete: everything is
built beside and renamed, under a lock, so two rigs may start at once.
"""

import contextlib
import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.host import RigError, cache_directory, locked

META_PACKAGE = "linux-image-amd64"
BUSYBOX = Path("/bin/busybox")
INIT_SCRIPT = Path(__file__).with_name("init.sh")

# What must be there before the host's files are (9p, overlay), and what every run needs at once: loaded from memory
# these cost milliseconds, through 9p and modprobe ten times as much. modules.dep adds what they depend on.
EARLY_MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "9pnet_virtio", "9p", "overlay", "dm_mod", "loop")
EMPTY_DIRECTORIES = ("bin", "dev", "proc", "sys", "host", "layer", "guest", "modules")

XZ_MAGIC = b"\xfd7zXZ\x00"
ELF_MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A bootable pair, and the directory whose one entry is the kernel's modules."""

    release: str
    image: Path
    initramfs: Path
    modules: Path


def get() -> Kernel:
    """Return the kernel from the cache, downloading or building what is missing; raises RigError."""
    cache = cache_directory() / "vm"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        unpacked = _newest(cache) or _download(cache)
        return _with_initramfs(unpacked)


def _say(sentence: str) -> None:
    sys.stderr.write(f"vm: {sentence}\n")
    sys.stderr.flush()


def _newest(cache: Path) -> Path | None:
    """The most recently unpacked kernel. Whoever wants Debian's newest removes the cache."""
    return max(cache.glob("linux-image-*_*"), key=lambda path: path.stat().st_mtime, default=None)


def _download(cache: Path) -> Path:
    package = _versioned_package()
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
        work = Path(scratch)
        _say(f"downloading Debian's {package} (70 MB, once)")
        _run("apt-get", "--quiet", "--quiet", "download", package, cwd=work)
        archive = next(work.glob("*.deb"))
        root = work / "root"
        _run("dpkg", "-x", str(archive), str(root))
        modules = root / "lib" / "modules"
        release = next(modules.iterdir()).name
        _say(f"unpacking {release}")
        _run("depmod", "--basedir", str(root), release)
        image = root / "boot" / f"vmlinuz-{release}"
        (root / "vmlinux").write_bytes(uncompressed(image.read_bytes()))
        for unused in ("boot", "usr"):
            shutil.rmtree(root / unused)
        target = cache / archive.stem
        root.rename(target)
    return target


def _versioned_package() -> str:
    """The real package behind the meta package: its name carries the version."""
    listing = _run("apt-cache", "depends", META_PACKAGE)
    found = re.search(r"Depends: (linux-image-\S+)", listing)
    if found is None:
        raise RigError(f"apt knows no {META_PACKAGE}: run apt-get update as root, then again.")
    return found[1]


def uncompressed(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage: QEMU starts it directly, and an emulated CPU need not unpack it (seconds)."""
    start = image.find(XZ_MAGIC)
    while start >= 0:
        # The kernel's build appends the unpacked size after the stream; LZMADecompressor stops at the stream's end.
        with contextlib.suppress(lzma.LZMAError):
            kernel = lzma.LZMADecompressor().decompress(image[start:])
            if kernel.startswith(ELF_MAGIC):
                return kernel
        start = image.find(XZ_MAGIC, start + 1)
    raise RigError("Debian's kernel is no longer packed with xz: teach kernel.uncompressed() the new way.")


def _with_initramfs(unpacked: Path) -> Kernel:
    modules = unpacked / "lib" / "modules"
    release = next(modules.iterdir()).name
    init = INIT_SCRIPT.read_bytes()
    busybox = _busybox()
    key = hashlib.sha256(b"\0".join([init, busybox, Path(__file__).read_bytes()])).hexdigest()[:16]
    target = unpacked / f"initramfs-{key}.cpio"
    if not target.exists():
        _say("building the initramfs")
        for old in unpacked.glob("initramfs-*"):
            if old.stat().st_mtime < time.time() - 86400:  # a checkout beside this one may be using it
                old.unlink()
        files = {"init": init, "bin/busybox": busybox}
        order = early_modules((modules / release / "modules.dep").read_text())
        for path in order:
            files[f"modules/{Path(path).name}"] = (modules / release / path).read_bytes()
        files["modules/order"] = "".join(f"{Path(path).name}\n" for path in order).encode()
        links = {f"bin/{applet}": "busybox" for applet in _applets()}
        beside = target.with_suffix(".new")
        beside.write_bytes(archive(files, links))
        beside.rename(target)
    os.utime(target)  # in use: kept when another checkout clears old ones
    return Kernel(release=release, image=unpacked / "vmlinux", initramfs=target, modules=modules)


def _busybox() -> bytes:
    try:
        return BUSYBOX.read_bytes()
    except FileNotFoundError as missing:
        raise RigError("busybox is missing: run tests/rigs/install.py") from missing


def _applets() -> list[str]:
    return [name for name in _run(str(BUSYBOX), "--list").split() if name != "busybox"]


def early_modules(modules_dep: str) -> list[str]:
    """Paths of EARLY_MODULES and all they need, each after what it needs (modules.dep lists needs last-first)."""
    needs = {}
    for line in modules_dep.splitlines():
        path, _, rest = line.partition(":")
        name = Path(path).name.removesuffix(".ko").replace("-", "_")
        needs[name] = [*reversed(rest.split()), path]
    return list(dict.fromkeys(path for name in EARLY_MODULES for path in needs[name]))


def archive(files: dict[str, bytes], links: dict[str, str]) -> bytes:
    """A cpio archive ("newc", what the kernel unpacks) of executable files, symbolic links and EMPTY_DIRECTORIES."""
    entries = [
        *((name, stat.S_IFDIR | 0o755, b"") for name in EMPTY_DIRECTORIES),
        *((name, stat.S_IFREG | 0o755, content) for name, content in files.items()),
        *((name, stat.S_IFLNK | 0o777, to.encode()) for name, to in links.items()),
        ("TRAILER!!!", 0, b""),
    ]
    return b"".join(_cpio_entry(inode, *entry) for inode, entry in enumerate(entries, start=1))


def _cpio_entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    raw_name = name.encode() + b"\0"
    #         inode  mode  uid gid links mtime size  device and rdev   name size    checksum
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw_name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw_name
    return _padded(head) + _padded(content)


def _padded(block: bytes) -> bytes:
    return block + b"\0" * (-len(block) % 4)


def _run(*argv: str, cwd: Path | None = None) -> str:
    try:
        return subprocess.run(
            argv, cwd=cwd, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
        ).stdout
    except FileNotFoundError as missing:
        raise RigError(f"{argv[0]} is missing: run tests/rigs/install.py") from missing
    except subprocess.CalledProcessError as failure:
        raise RigError(f"{' '.join(argv)} failed with {failure.returncode}: {failure.stderr.strip()}") from failure
