"""`--site NAME` (may be repeated) says where the contract runs; without it, on files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.sites import SITES, Site


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", action="append", choices=sorted(SITES), help="where the contract runs (file)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "site" in metafunc.fixturenames:
        names = metafunc.config.getoption("site") or ["file"]
        metafunc.parametrize("site", names, indirect=True)


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    chosen = SITES[request.param]
    chosen.set_up()
    try:
        yield chosen
    finally:
        chosen.tear_down()
