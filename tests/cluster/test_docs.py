"""What the documentation has people do in a cluster, done in one: two nodes, `worker-1` and `worker-2`.

And every object in the documentation is one that a real API server takes as it is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import yaml

from tests.cluster.machine import Host
from tests.cluster.scene import Cluster, cluster
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.manifests import collection_of
from tests.rigs.docs.pages import Page, pages
from tests.rigs.docs.script import has, run
from tests.rigs.gotools import programs

STRICT = "?" + urlencode({"dryRun": "All", "fieldValidation": "Strict"})
HOSTS = (Host(name="worker-1"), Host(name="worker-2"))
PAGES = pages()
PROGRAMS = ("kubectl", "helm")


def objects() -> Iterator[tuple[str, Json]]:
    """Each whole object in the pages, with its place."""
    for block in (block for page in PAGES for block in page.blocks if block.language == "yaml"):
        for each in yaml.safe_load_all(block.text):
            if isinstance(each, dict) and {"apiVersion", "kind", "metadata"} <= each.keys():
                yield f"{block.place}-{each['kind']}-{each['metadata']['name']}", each


OBJECTS = dict(objects())


@pytest.fixture(scope="module")
def scene(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(folder, tmp_path_factory.mktemp("docs"), hosts=HOSTS) as running:
        yield running


@pytest.mark.parametrize("page", [page for page in PAGES if has(page, "install")], ids=lambda page: page.path)
def test_what_a_page_has_people_install_is_installed(page: Page, tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "plane") as plane:
        _run(page, "install", _made(tmp_path / "work"), plane)


@pytest.mark.parametrize("page", [page for page in PAGES if has(page, "cluster")], ids=lambda page: page.path)
def test_what_a_page_has_people_do_in_a_cluster_can_be_done(page: Page, scene: Cluster, tmp_path: Path) -> None:
    _run(page, "cluster", tmp_path, scene.plane)


@pytest.mark.parametrize("place", OBJECTS)
def test_an_object_in_the_documentation_is_taken_as_it_is_written(scene: Cluster, place: str) -> None:
    thing = OBJECTS[place]
    renamed = {**thing, "metadata": {**thing["metadata"], "name": f"docs-{thing['metadata']['name']}"}}
    scene.objects.create(f"{collection_of(scene.objects, thing)}{STRICT}", renamed)


def _run(page: Page, tier: str, folder: Path, plane: ControlPlane) -> None:
    path = [programs.get(name).parent for name in PROGRAMS]
    print(run(page, tier, folder, {"KUBECONFIG": str(plane.kubeconfig)}, path=path))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
