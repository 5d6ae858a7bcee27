"""What the documentation has people do with LVM on a node, done: disks there are /dev/nvme0n1 to /dev/nvme5n1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.sites import run as ran
from tests.rigs.docs.pages import Page, pages
from tests.rigs.docs.script import has, run

GROUPS = ("nvme", "myvg1")
"""What the pages call their volume groups."""


@pytest.fixture
def nvme(disks: tuple[str, ...]) -> Iterator[None]:
    """The VM's blank disks by the names that disks have in the pages, and blank again afterwards."""
    names = [Path(f"/dev/nvme{number}n1") for number, _ in enumerate(disks)]
    for name, disk in zip(names, disks, strict=True):
        name.symlink_to(disk)
    try:
        yield
    finally:
        for group in GROUPS:
            ran("vgremove", "--force", "--force", "--yes", group, is_checked=False)
        ran("wipefs", "--all", "--quiet", *disks)
        for name in names:
            name.unlink()


@pytest.mark.usefixtures("nvme")
@pytest.mark.parametrize("page", [page for page in pages() if has(page, "lvm")], ids=lambda page: page.path)
def test_what_a_page_has_people_do_with_lvm_can_be_done(page: Page, tmp_path: Path) -> None:
    print(run(page, "lvm", tmp_path, {}))
