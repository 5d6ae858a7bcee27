"""The cluster that all files of this tier share, with its logs in the directory that pytest keeps.

ULLAGE_FULL_CLUSTER=DIR takes the one that `make cluster-up` has left in that directory, and leaves it running.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.full.cluster import Cluster, Shape, attached, started

RUNNING = "ULLAGE_FULL_CLUSTER"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Nodes that are ready, three unless ULLAGE_FULL_NODES says otherwise: a member of a quorum on each."""
    if folder := os.environ.get(RUNNING):
        yield attached(Path(folder))
        return
    shape = Shape(nodes=int(os.environ.get("ULLAGE_FULL_NODES", "3")))
    with started(tmp_path_factory.mktemp("full"), shape) as running:
        yield running
