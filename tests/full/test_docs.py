"""What the documentation has people do where our driver runs on real nodes: upgrade it, and take it away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.docs.pages import Page, pages
from tests.rigs.docs.script import has, run
from tests.rigs.full.cluster import Cluster
from tests.rigs.gotools import programs

PROGRAMS = ("kubectl", "helm")
SECONDS = 900.0
"""For the Pods of emulated nodes to be replaced."""


@pytest.fixture
def driver(cluster: Cluster) -> Iterator[None]:
    """Ours, installed by its chart, and there again afterwards for whoever comes next."""
    cluster.install()
    yield
    cluster.install()


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize("page", [page for page in pages() if has(page, "full")], ids=lambda page: page.path)
def test_what_a_page_has_people_do_on_real_nodes_can_be_done(page: Page, cluster: Cluster, tmp_path: Path) -> None:
    path = [programs.get(name).parent for name in PROGRAMS]
    print(run(page, "full", tmp_path, {"KUBECONFIG": str(cluster.kubeconfig)}, path=path, seconds=SECONDS))
