"""The image's files, unpacked once for all tests, and a folder to share with what runs in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rigs import images
from tests.rigs.images import container


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """Where the image's files are, and the bytes of each of its layers."""

    root: Path
    layer_bytes: list[int]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unpacked]:
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    root = tmp_path_factory.mktemp("image")
    root.chmod(0o755)  # pytest's are for root alone
    yield Unpacked(root=root, layer_bytes=container.unpack(images.get("ullage"), root))
    shutil.rmtree(root)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, for sockets; the image's user may write there."""
    path = Path(tempfile.mkdtemp(prefix="ullage-image-"))
    os.chown(path, 65532, 65532)
    yield path
    shutil.rmtree(path)
