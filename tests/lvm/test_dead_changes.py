"""LVM has died over a change of a thin pool, after it told the pool and before it forgot that it had to.

LVM's metadata are brought to what such a death leaves: the note of what is to be told, under the number of a
transaction that the pool has already (see `node_agent.backends.lvm.pool_messages`).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.contract.sites import run, wanted
from tests.lvm.conftest import GROUP
from tests.lvm.test_thin_pools import serving, thin_class
from ullage.errors import MIB
from ullage.model import DeleteVolume, VolumeId

POOL = f"{GROUP}-pool0"
NAMES = ("pvc-a", "pvc-b", "pvc-c", "pvc-d")


def known_ids() -> set[str]:
    """By LVM."""
    return set(run("lvs", "--noheadings", "-o", "thin_id", GROUP).split())


def pool_ids() -> set[str]:
    """By the pool itself."""
    run("lvchange", "--activate", "y", f"{GROUP}/pool0")
    run("dmsetup", "message", f"{POOL}-tpool", "0", "reserve_metadata_snap")
    try:
        argv = ("thin_ls", "--metadata-snap", "--no-headers", "--format", "DEV", f"/dev/mapper/{POOL}_tmeta")
        return set(run(*argv).split())
    finally:
        run("dmsetup", "message", f"{POOL}-tpool", "0", "release_metadata_snap")


def note(message: str, backup: Path) -> None:
    """Write it into LVM's metadata, under the number that the pool has; nothing of the group is active then."""
    run("vgchange", "--quiet", "--activate", "n", GROUP)
    run("vgcfgbackup", "--file", str(backup), GROUP)
    text = backup.read_text(encoding="utf-8")
    noted = re.sub(r"(\ttransaction_id = \d+\n)", rf"\1message1 {{\n{message}\n}}\n", text, count=1)
    assert noted != text
    backup.write_text(noted, encoding="utf-8")
    run("vgcfgrestore", "--force", "--file", str(backup), GROUP)


@pytest.mark.parametrize("is_at_rest", [False, True], ids=["pool in use", "pool at rest"])
@pytest.mark.parametrize("died_over", ["removal", "creation"])
def test_a_removal_after_lvm_died_over_another_change_leaves_nothing_in_the_pool(
    clean: tuple[str, ...], tmp_path: Path, died_over: str, *, is_at_rest: bool
) -> None:
    run("vgcreate", "--quiet", "--yes", GROUP, *clean[:2])
    device_class = thin_class(create_size_bytes=200 * MIB)
    before = serving(device_class)
    for name in NAMES:
        before.agent.create(wanted(name, 8 * MIB))
    if died_over == "removal":
        number = run("lvs", "--noheadings", "-o", "thin_id", f"{GROUP}/pvc-a").strip()
        run("lvremove", "--quiet", "--yes", f"{GROUP}/pvc-a")
        note(f"delete = {number}", tmp_path / "backup")
    else:
        note('create = "pvc-a"', tmp_path / "backup")
    if not is_at_rest:
        run("lvchange", "--activate", "y", f"{GROUP}/pvc-b")

    after = serving(device_class)
    after.agent.delete(DeleteVolume(volume_id=VolumeId("pvc-c")))
    assert pool_ids() == known_ids()
    after.agent.delete(DeleteVolume(volume_id=VolumeId("pvc-d")))
    after.agent.create(wanted("pvc-e", 8 * MIB))
    assert pool_ids() == known_ids()
    left = {"pvc-b", "pvc-e"} | ({"pvc-a"} if died_over == "creation" else set())
    assert {volume.id for volume in after.agent.volumes()} == left
    assert set(run("lvs", "--noheadings", "-o", "lv_name", GROUP).split()) == left | {"pool0"}
