"""The process dies before or after each program it runs: a repetition brings everything about, and nothing twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from csi.fs.volumes import FileSystems
from tests.host.file_rig import Fate, MortalRunner
from tests.host.fs_rig import KINDS, SIZE, Disk, Node

Step = Callable[[Node, Disk, str], object]


def staged(node: Node, disk: Disk, kind: str) -> None:
    node.stage(disk, kind)


def published(node: Node, disk: Disk, kind: str) -> None:
    node.stage(disk, kind)
    node.publish(disk)
    node.publish(disk, "read-only", is_read_only=True)


def block_published(node: Node, disk: Disk, _kind: str) -> None:
    node.publish_block(disk)
    node.publish_block(disk, "read-only", is_read_only=True)


def undone(node: Node, _disk: Disk, _kind: str) -> None:
    for name in ("a", "read-only"):
        node.fs.unpublish(node.target(name))
    node.fs.unstage(node.staging)


def killed_while(node: Node, step: Step, disk: Disk, kind: str, fate: Fate) -> bool:
    """Run the step in another process that dies as it is told; False when it came to its end."""
    child = os.fork()
    if child == 0:
        exit_code = 1
        try:
            step(Node(node.root, MortalRunner(fate), node.disks), disk, kind)
            exit_code = 0
        finally:
            os._exit(exit_code)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the step failed by itself: {status}"
    return status == signal.SIGKILL


def deaths(node: Node, step: Step, prepare: Step, kind: str, then: Callable[[Disk], None]) -> int:
    """Every death that the step has, each from a fresh start."""
    count = 0
    for is_after in (False, True):
        change = 0
        while True:
            disk = node.disk(SIZE[kind])
            prepare(node, disk, kind)
            was_killed = killed_while(node, step, disk, kind, Fate(change, is_after))
            step(node, disk, kind)
            then(disk)
            undone(node, disk, kind)
            assert node.mounts() == ()
            assert node.read_only_loops() == []
            count += was_killed
            change += 1
            if not was_killed:
                break
    return count


def nothing(_node: Node, _disk: Disk, _kind: str) -> None:
    """From scratch."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_is_staged_and_published_whenever_the_process_died(node: Node, kind: str) -> None:
    def then(disk: Disk) -> None:
        places = sorted(mount.place for mount in node.mounts())
        assert places == sorted(map(str, (node.staging, node.target(), node.target("read-only"))))
        (node.target() / "file").write_text("works")
        with pytest.raises(OSError, match="Read-only"):
            (node.target("read-only") / "file").write_text("not")
        assert disk.type() == kind

    assert deaths(node, published, nothing, kind, then) >= 8  # mkfs, mount, two binds; before and after


@pytest.mark.parametrize("kind", KINDS)
def test_a_volume_is_undone_whenever_the_process_died(node: Node, kind: str) -> None:
    def then(_disk: Disk) -> None:
        assert node.mounts() == ()
        assert not node.target().exists()

    assert deaths(node, undone, published, kind, then) >= 6


def test_a_block_volume_is_published_and_undone_whenever_the_process_died(node: Node) -> None:
    def is_published(_disk: Disk) -> None:
        assert len(node.mounts()) == 2
        assert len(node.read_only_loops()) == 1

    def is_gone(_disk: Disk) -> None:
        assert not node.target("read-only").exists()

    assert deaths(node, block_published, nothing, "ext4", is_published) >= 4
    assert deaths(node, undone, block_published, "ext4", is_gone) >= 4


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_a_volume_is_as_large_as_its_device_whenever_the_process_died(node: Node, kind: str) -> None:
    """ext4 grows in the VM only, see test_fs_growth.py; between the steps all kinds are alike."""

    def made_and_grown(node: Node, disk: Disk, kind: str) -> None:
        node.stage(disk, kind)
        node.fs.unstage(node.staging)
        disk.grow(2 * SIZE[kind])

    def then(disk: Disk) -> None:
        found = os.statvfs(node.staging)
        assert found.f_blocks * found.f_frsize > 0.8 * disk.size

    assert deaths(node, staged, made_and_grown, kind, then) >= 4


def test_nothing_of_it_is_remembered_by_the_process(node: Node) -> None:
    disk = node.disk(SIZE["ext4"])
    for _ in range(2):
        assert isinstance(node.fs, FileSystems)  # a new one each time
        published(node, disk, "ext4")
    assert len(node.mounts()) == 3
