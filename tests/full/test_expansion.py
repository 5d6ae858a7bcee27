"""Volumes grow while they are written to: file systems of both kinds, devices, and thin volumes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.kubelet import CLAIMS
from tests.full.audit import audit
from tests.full.classes import KINDS, SIZE
from tests.full.pods import DATA, DEVICE, claimed, eventually, inside, start_writer, until_running
from tests.full.scene import on_stage
from tests.rigs.full.cluster import Cluster
from ullage.quantity import parse_bytes

LARGER, EVEN_LARGER = "768Mi", "1Gi"
ROOM = f"import os; found = os.statvfs({DATA!r}); print(found.f_blocks * found.f_frsize)"
END = f"""
import os
device = os.open({DEVICE!r}, os.O_RDWR)
print(end := os.lseek(device, 0, os.SEEK_END))
os.pwrite(device, b"last", end - 4)
os.fsync(device)
assert os.pread(device, 4, end - 4) == b"last"
"""


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Cluster]:
    with on_stage(cluster) as prepared:
        yield prepared


def test_a_volume_grows_twice_under_a_writer_that_does_not_notice(scene: Cluster) -> None:
    for kind in KINDS:
        scene.api.create(CLAIMS, claimed(kind.name, kind, SIZE))
    writers = [start_writer(scene, kind.name, kind, kind.name) for kind in KINDS]
    for writer in writers:
        until_running(scene, writer.name)
        writer.goes_on()
    before = {writer.name: size_of(scene, writer.name, is_block=writer.kind.is_block) for writer in writers}
    for size in (LARGER, EVEN_LARGER):
        for writer in writers:
            scene.api.patch(f"{CLAIMS}/{writer.name}", {"spec": {"resources": {"requests": {"storage": size}}}})
        for writer in writers:
            until_grown(scene, writer.name, size)
            writer.goes_on()
            after = size_of(scene, writer.name, is_block=writer.kind.is_block)
            assert after > before[writer.name]
            before[writer.name] = after
            if writer.kind.is_block:
                assert after == parse_bytes(size)
        audit(scene)


def until_grown(cluster: Cluster, name: str, size: str) -> None:
    """Until the claim says that it has the size, which it does when the file system has."""

    def is_grown() -> bool:
        status = cluster.api.get(f"{CLAIMS}/{name}")["status"]
        return bool(parse_bytes(status["capacity"]["storage"]) >= parse_bytes(size) and not status.get("conditions"))

    eventually(cluster, f"the claim {name} has {size}", is_grown, name)


def size_of(cluster: Cluster, name: str, *, is_block: bool) -> int:
    """What the Pod sees; the last bytes of a device are written, too."""
    return int(inside(cluster, name, "python3", "-c", END if is_block else ROOM))
