"""A mount that would not be seen outside of the container is refused, in mount namespaces as containers have them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.fs_rig import MIB, Node, ran

PYTHON = str(Path(__file__).parents[2] / ".venv/bin/python")
ACT = """
import sys
from pathlib import Path
from csi.fs.volumes import FileSystems, StageRequest
from ullage.run import Subprocesses

fs, step, device, kubelet = FileSystems(Subprocesses()), sys.argv[1], sys.argv[2], Path(sys.argv[3])
if step == "block":
    fs.publish_block(device, kubelet / "target", is_read_only=False, is_shared=True)
else:
    fs.stage(StageRequest(device_path=device), kubelet / "staging")
"""


@contextmanager
def kubelet_directory(node: Node, propagation: str) -> Iterator[Path]:
    """A mount of its own, as /var/lib/kubelet is in the host's namespace: shared on every node of Kubernetes.

    With its copies only, and not with what it lies on, which systemd shares, too: else what is mounted in it is
    mounted twice.
    """
    place = node.root / "kubelet"
    place.mkdir()
    ran("mount", "--bind", str(place), str(place))
    ran("mount", "--make-private", str(place))
    ran("mount", f"--make-{propagation}", str(place))
    yield place


def acted(step: str, device: str, kubelet: Path, *namespace: str) -> subprocess.CompletedProcess[str]:
    """The step, as a driver in another mount namespace."""
    argv = [*namespace, PYTHON, "-c", ACT, step, device, str(kubelet)]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("step", ["stage", "block"])
@pytest.mark.parametrize("propagation", ["private", "slave"])
def test_without_bidirectional_propagation_nothing_is_mounted(node: Node, propagation: str, step: str) -> None:
    disk = node.disk(64 * MIB)
    with kubelet_directory(node, "shared") as kubelet:
        did = acted(step, disk.path, kubelet, "unshare", "--mount", "--propagation", propagation)
    assert did.returncode != 0
    assert "NotPropagatedError" in did.stderr
    assert "mountPropagation: Bidirectional" in did.stderr
    word = {"private": "private", "slave": "master:"}[propagation]
    assert f"{kubelet} is {word}" in did.stderr
    assert [mount.place for mount in node.mounts()] == [str(kubelet)]
    assert list(kubelet.iterdir()) == []
    assert disk.type() == ""


@pytest.mark.parametrize("step", ["stage", "block"])
def test_with_bidirectional_propagation_the_mount_is_seen_by_the_host(node: Node, step: str) -> None:
    disk = node.disk(64 * MIB)
    with kubelet_directory(node, "shared") as kubelet:
        did = acted(step, disk.path, kubelet, "unshare", "--mount", "--propagation", "unchanged")
    assert did.returncode == 0, did.stderr
    place = kubelet / {"stage": "staging", "block": "target"}[step]
    assert str(place) in [mount.place for mount in node.mounts()]


def test_a_private_directory_in_another_namespace_is_refused_wherever_it_is_private(node: Node) -> None:
    """As when the container has no mount of the kubelet's directory at all: its own root is private."""
    disk = node.disk(64 * MIB)
    place = node.root / "not a mount"
    place.mkdir()
    did = acted("stage", disk.path, place, "unshare", "--mount", "--propagation", "private")
    assert "NotPropagatedError" in did.stderr


def test_a_hidden_shared_mount_does_not_count(node: Node) -> None:
    """The path leads into a private mount that covers a shared one."""
    disk = node.disk(64 * MIB)
    with kubelet_directory(node, "shared") as kubelet:
        # All else is private here: on a machine of systemd's what covers it would be seen outside, too.
        cover = 'mount --make-shared "$1/kubelet" && mount -t tmpfs --make-private tmpfs "$1" && shift && exec "$@"'
        did = acted(
            "stage",
            disk.path,
            kubelet,
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", cover, "sh", str(node.root)),
            *("sh", "-c", 'mkdir -p "$1" && shift && exec "$@"', "sh", str(kubelet)),
        )
    assert "NotPropagatedError" in did.stderr


def test_in_the_machines_own_namespace_private_mounts_are_fine(node: Node) -> None:
    """A host without systemd: whoever is to see the mounts is in this namespace."""
    if not is_machines_own():
        pytest.skip("these tests run in a container here")
    disk = node.disk(64 * MIB)
    with kubelet_directory(node, "private") as kubelet:
        did = acted("stage", disk.path, kubelet)
    assert did.returncode == 0, did.stderr


def is_machines_own() -> bool:
    """As nobody but the kernel can say: kernel threads live in it."""
    kernel_thread = Path("/proc/2/ns/mnt")
    try:
        return kernel_thread.readlink() == Path("/proc/self/ns/mnt").readlink()
    except OSError:
        return str(Path("/proc/self/ns/mnt").readlink()) == "mnt:[4026531832]"
