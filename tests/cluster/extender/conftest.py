"""One cluster of twenty nodes for all these tests, with an extender and two kube-schedulers that ask it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.extender.crowd import Crowd, crowd

CLEARED_SECONDS = 180.0
"""Hundreds of volumes go, on a machine that does other things besides."""


@pytest.fixture(scope="package")
def shared_crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    path = Path(tempfile.mkdtemp(prefix="ullage-crowd-"))
    with crowd(path, tmp_path_factory.mktemp("crowd")) as running:
        yield running
    shutil.rmtree(path)


@pytest.fixture(name="crowd")
def twenty_nodes(shared_crowd: Crowd) -> Iterator[Crowd]:
    """They are empty; what a test leaves there agrees, and goes without a trace."""
    yield shared_crowd
    try:
        shared_crowd.scene.audit(seconds=CLEARED_SECONDS)
    finally:
        shared_crowd.scene.clear()
    shared_crowd.scene.audit(is_empty=True, seconds=CLEARED_SECONDS)
