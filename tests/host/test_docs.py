"""What the documentation has people do on one machine, done: on folders and loop devices of the test's own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.docs.pages import Page, pages
from tests.rigs.docs.script import has, run
from tests.rigs.sanity.stores import mount_points

ALONE = ("unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
INSIDE = """\
set -e
ip link set lo up
mkdir "$1/srv" "$1/var"
mount -t tmpfs docs /run
mount --bind "$1/srv" /srv
mount --make-shared /run
mount --make-shared /srv
mount --bind "$1/var" /var/tmp
shift
code=0
"$@" || code=$?
find /var/tmp -type f | while read -r file; do
  losetup --noheadings --output NAME --associated "$file" | xargs --no-run-if-empty losetup --detach
done
exit $code
"""
"""/run, /srv and /var/tmp, where pages put what they make, are folders of the script's own; so is the network.

No process and no mount outlives it, and no loop device: one that is mounted goes with its mount.
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """On a disk: files of volumes are on no tmpfs."""
    path = Path(tempfile.mkdtemp(prefix="ullage-docs-", dir="/var/tmp"))
    yield path
    assert not mount_points(path)
    shutil.rmtree(path)


@pytest.mark.parametrize("page", [page for page in pages() if has(page, "standalone")], ids=lambda page: page.path)
def test_what_a_page_has_people_do_on_one_machine_can_be_done(page: Page, folder: Path) -> None:
    print(run(page, "standalone", folder, {}, around=(*ALONE, "bash", "-c", INSIDE, "bash", str(folder))))
