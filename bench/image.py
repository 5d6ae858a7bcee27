"""The image: how big it is, layer by layer and what in it, and how soon each component serves.

  python -m bench.image [--rounds N]

Seconds are from the start of the program in a chroot of the image's files until it answers, beside a real API server
that has none of our objects: `/healthz` (the process serves) and `/readyz` (it knows the cluster). Of each, also the
processor time that it took by then, which a busy machine does not stretch as much.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lvm_rig import cpu_seconds_of
from tests.rigs import images
from tests.rigs.cluster.process import Answers
from tests.rigs.host import RigError
from tests.rigs.images import container
from tests.rigs.images.serving import USERS, Place, beside_an_api_server

MB = 1_000_000
PARTS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/python3.11",
    "usr/bin",
    "usr/sbin",
    "usr/local/lib/python3.11/dist-packages/*",
)
SHOWN = 16
POLL_SECONDS = 0.005
PATIENCE_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """0 when all was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="starts of each component (7)")
    rounds: int = parser.parse_args(arguments).rounds
    try:
        archive = images.get("ullage")
        with _folders() as (root, folder, logs):
            _show_sizes(container.unpack(archive, root), root)
            _say(f"\n{'component':<12} {'until':<9} {'median s':>8} {'least':>6} {'most':>6} {'CPU s':>6}")
            with beside_an_api_server(root, folder, logs) as place:
                for name in USERS:
                    for path in ("/healthz", "/readyz"):
                        taken = [_seconds_to(place, name, path) for _ in range(rounds)]
                        seconds, used = ([each[number] for each in taken] for number in (0, 1))
                        told = f"{statistics.median(seconds):8.2f} {min(seconds):6.2f} {max(seconds):6.2f}"
                        told += f" {statistics.median(used):6.2f}"
                        _say(f"{name:<12} {path:<9} {told}")
    except RigError as failure:
        sys.stderr.write(f"bench.image: {failure}\n")
        return 1
    return 0


@contextmanager
def _folders() -> Iterator[tuple[Path, Path, Path]]:
    """For the image's files, for what is shared with it, and for the API server."""
    with tempfile.TemporaryDirectory(prefix="ullage-image-") as scratch:
        root, folder, logs = (Path(scratch) / name for name in ("root", "folder", "logs"))
        for each in (Path(scratch), root, folder, logs):
            each.mkdir(exist_ok=True)
            each.chmod(0o755)
        os.chown(folder, *map(int, container.NONROOT.split(":")))
        yield root, folder, logs


def _show_sizes(layer_bytes: list[int], root: Path) -> None:
    _say(f"{'layer':<52} {'MB':>6}")
    for name, size_bytes in zip(("Debian's programs", "Python packages", "our own"), layer_bytes, strict=True):
        _say(f"{name:<52} {size_bytes / MB:6.1f}")
    _say(f"{'all':<52} {sum(layer_bytes) / MB:6.1f}")
    parts = [path for pattern in PARTS for path in root.glob(pattern)]
    sized = sorted(((_bytes_of(path), path) for path in parts), reverse=True)[:SHOWN]
    _say(f"\n{'of which':<52} {'MB':>6}")
    for size_bytes, path in sized:
        _say(f"{path.relative_to(root).as_posix():<52} {size_bytes / MB:6.1f}")


def _bytes_of(path: Path) -> int:
    found = path.rglob("*") if path.is_dir() else [path]
    return sum(each.lstat().st_size for each in found if each.is_file() and not each.is_symlink())


def _seconds_to(place: Place, name: str, path: str) -> tuple[float, float]:
    """Of the clock, and of a processor."""
    component = place.component(name)
    serves = Answers(f"http://{component.http}{path}")
    started = time.monotonic()
    component.process.begin()
    while not serves():
        if time.monotonic() > started + PATIENCE_SECONDS or not component.process.is_alive():
            raise RigError(f"{name} does not answer:\n{component.process.tail()}")
        time.sleep(POLL_SECONDS)
    taken = time.monotonic() - started, cpu_seconds_of(component.process.pid)
    component.process.stop()
    return taken


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
