"""Control planes for the tests: each file has its own, with its logs in the directory that pytest keeps."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import Cluster, cluster
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.sanity.stores import mount_points


@pytest.fixture(scope="module")
def api_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Without what acts on objects: up in three seconds."""
    with ControlPlane(tmp_path_factory.mktemp("plane"), only_api=True) as plane:
        yield plane


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A short path, for sockets (107 characters at most) and for what is mounted; removed when nothing is mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    path = Path(tempfile.mkdtemp(prefix="ullage-cluster-"))
    yield path
    assert not mount_points(path)
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def shared_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all the files whose tests leave it as they found it: `scene`."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    path = Path(tempfile.mkdtemp(prefix="ullage-cluster-"))
    with cluster(path, tmp_path_factory.mktemp("scene")) as running:
        yield running
    shutil.rmtree(path)


@pytest.fixture
def scene(shared_scene: Cluster) -> Iterator[Cluster]:
    """The cluster, empty; what a test leaves there agrees, and goes without a trace."""
    yield shared_scene
    try:
        shared_scene.audit()
    finally:
        shared_scene.clear()
    shared_scene.audit(is_empty=True)
