"""A file system grows to its device.

Here, and once more in the VM (the lvm shard): ext4 is grown online by root with
CAP_SYS_RESOURCE only, which not every container has that calls itself root.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from csi.fs.kinds import minimum_bytes
from csi.fs.volumes import FileSystemStats
from tests.host.fs_rig import KINDS, MIB, SIZE, Disk, Hurdles, Node

_CAP_SYS_RESOURCE = 24


def require_growth(kind: str) -> None:
    """Skip where this kind cannot be grown while it is mounted."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    if kind == "ext4" and not int(status["CapEff"], 16) >> _CAP_SYS_RESOURCE & 1:
        pytest.skip("root has no CAP_SYS_RESOURCE here; the VM's lvm shard grows ext4")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    require_growth(name)
    return name


def size_of(node: Node, disk: Disk, place: Path) -> int:
    stats = node.fs.stats(disk.path, place)
    assert isinstance(stats, FileSystemStats)
    return stats.total_bytes


def test_a_volume_grows_with_its_device_at_expand_and_at_stage(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    target = node.publish(disk)
    disk.grow(2 * SIZE[kind])
    for place in (target, node.staging):  # a repetition, by the other path
        assert node.fs.expand(place, disk.path) == 2 * SIZE[kind]
        assert size_of(node, disk, target) > 1.7 * SIZE[kind]
    node.fs.unpublish(target)
    node.fs.unstage(node.staging)
    disk.grow(4 * SIZE[kind])
    node.stage(disk, kind)
    assert size_of(node, disk, node.staging) > 3.5 * SIZE[kind]
    disk.grow(5 * SIZE[kind])
    node.stage(disk, kind)  # staged already: a crash between mount and growth
    assert size_of(node, disk, node.staging) > 4.5 * SIZE[kind]


@pytest.mark.parametrize("odd", [512, 123 * 512])
def test_a_size_that_is_a_multiple_of_nothing_will_do(node: Node, kind: str, odd: int) -> None:
    disk = node.disk(SIZE[kind] + odd)
    node.stage(disk, kind)
    node.publish(disk)
    disk.grow(2 * SIZE[kind] + odd)
    assert node.fs.expand(node.target(), disk.path) == 2 * SIZE[kind] + odd
    assert size_of(node, disk, node.target()) > 1.7 * SIZE[kind]


def test_a_volume_published_read_only_grows_all_the_same(node: Node, kind: str) -> None:
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    target = node.publish(disk, is_read_only=True)
    disk.grow(2 * SIZE[kind])
    assert node.fs.expand(target, disk.path) == 2 * SIZE[kind]
    assert size_of(node, disk, target) > 1.7 * SIZE[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_as_large_as_its_device_runs_no_program_to_grow(node: Node, kind: str) -> None:
    node.runner = runner = Hurdles("resize2fs", "xfs_growfs", "btrfs")
    disk = node.disk(SIZE[kind])
    node.stage(disk, kind)
    node.fs.expand(node.staging, disk.path)
    node.fs.unstage(node.staging)
    node.stage(disk, kind)
    assert f"mkfs.{kind}" in runner.programs()


def test_the_smallest_volume_grows_by_a_little(node: Node, kind: str) -> None:
    disk = node.disk(minimum_bytes(kind))
    node.stage(disk, kind)
    before = size_of(node, disk, node.staging)
    disk.grow(minimum_bytes(kind) + 16 * MIB)
    node.fs.expand(node.staging, disk.path)
    assert size_of(node, disk, node.staging) > before + 8 * MIB
