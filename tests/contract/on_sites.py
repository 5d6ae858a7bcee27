"""`--site NAME` (may be repeated) says where a test with a `site` runs; without it, on files.

Files whose blocks can be shared differ from other files in copies only: without an option they are where a test runs
that names them.

A pytest plugin of its own, for the contract and for the tests of the CSI services.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.sampling import HEADER
from tests.contract.sites import SITES, Site


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", action="append", choices=sorted(SITES), help="where the contract runs (files)")


def pytest_report_header(config: pytest.Config) -> str | None:
    """How to run again what this run leaves out."""
    sites = config.getoption("site") or ["file"]
    return HEADER if any(SITES[name].is_lvm for name in sites) else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "only_on(*sites): leave the test out elsewhere; `lvm` stands for every LVM site")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What a site has no counterpart for is left out there (and counted as deselected, not as skipped)."""
    left_out = [item for item in items if not _belongs(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _belongs(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("only_on")
    if marker is None or not isinstance(item, pytest.Function):
        return True
    name = str(item.callspec.params["site"])
    return name in marker.args or ("lvm" in marker.args and SITES[name].is_lvm)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "site" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("only_on")
        sharing = ["file-reflink"] if marker and "file-reflink" in marker.args else []
        names = metafunc.config.getoption("site") or ["file", *sharing]
        metafunc.parametrize("site", names, indirect=True)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    chosen = SITES[request.param]
    chosen.set_up()
    try:
        yield chosen
    finally:
        chosen.tear_down()
