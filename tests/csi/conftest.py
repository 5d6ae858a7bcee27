"""A driver on a site, and the kubelet that uses it; at the end nothing is mounted, attached or running."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.sites import Site
from tests.csi.drivers import Driver, HereServed, here
from tests.csi.kubelet import Client, Kubelet


@pytest.fixture
def folder(site: Site) -> Iterator[Path]:  # noqa: ARG001 - the site goes after everything that is mounted from it
    """A short path (a socket's has 107 characters at most), on a file system that sees no tests' neighbours."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    path = Path(tempfile.mkdtemp(prefix="ullage-csi-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def kubelet(folder: Path) -> Iterator[Kubelet]:
    """Kubelet on an empty directory, talking to the socket that `driver` or `services` serve."""
    root = folder / "kubelet"
    root.mkdir()
    kubelet = Kubelet(root, Client(f"unix://{folder}/csi.sock"))
    try:
        yield kubelet
    finally:
        kubelet.client.close()
        kubelet.clean()


@pytest.fixture
def driver(site: Site, folder: Path, kubelet: Kubelet) -> Iterator[Driver]:  # noqa: ARG001 - it is to clean up last
    """A real `ullage standalone`, serving."""
    driver = Driver(site, folder)
    try:
        driver.start()
        yield driver
    finally:
        if driver.process is not None:
            driver.end(signal.SIGKILL)


@pytest.fixture
def services(site: Site, folder: Path, kubelet: Kubelet) -> Iterator[HereServed]:  # noqa: ARG001
    """The same services in this process, undisturbed."""
    with here(site.device_class(), folder) as running:
        yield running
