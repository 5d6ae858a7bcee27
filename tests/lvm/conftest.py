"""Tests on real LVM. They need device-mapper and blank disks: where those are missing they fail, they do not skip.

python3 -m tests.rigs.vm --disks 6 --disk-bytes 8GiB -- .venv/bin/pytest -p no:cacheprovider tests/lvm
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.sites import run

DISKS = tuple(f"/dev/vd{letter}" for letter in "abcdef")
GROUP = "vgexact"


@pytest.fixture(scope="session", autouse=True)
def disks() -> tuple[str, ...]:
    """Six blank disks of the VM, and device-mapper."""
    missing = [name for name in ("/dev/mapper/control", *DISKS) if not Path(name).exists()]
    if missing:
        pytest.fail(
            f"no {', '.join(missing)}: this needs LVM and six blank disks; run it in the VM: python3 -m tests.rigs.vm "
            "--disks 6 --disk-bytes 8GiB -- .venv/bin/pytest -p no:cacheprovider tests/lvm",
            pytrace=False,
        )
    return DISKS


@pytest.fixture
def clean(disks: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The disks, blank again afterwards, whatever a test leaves on them."""
    try:
        yield disks
    finally:
        run("udevadm", "settle")
        _blank(disks)


def _blank(disks: tuple[str, ...]) -> None:
    run("vgremove", "--force", "--force", "--yes", GROUP, is_checked=False)
    run("wipefs", "--all", "--quiet", *disks)
