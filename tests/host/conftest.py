"""Tests on this machine's own kernel: root, loop devices, mounts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.file_rig import Rig, cleaned, ran
from tests.host.fs_rig import Node


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder under which everything is unmounted and detached at the end."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    try:
        yield tmp_path
    finally:
        cleaned(tmp_path)


@pytest.fixture
def rig(root: Path) -> Rig:
    """A backend over an empty directory."""
    (root / "volumes").mkdir()
    return Rig(root / "volumes")


@pytest.fixture
def small(root: Path) -> Path:
    """A file system of 64 MiB that refuses nothing but size."""
    place = root / "small"
    place.mkdir()
    ran("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place))
    return place


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Disks and paths to mount at; at the end nothing is mounted or attached."""
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    node = Node(tmp_path)
    try:
        yield node
    finally:
        node.clean()
