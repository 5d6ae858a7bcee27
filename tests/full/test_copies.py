"""Snapshots, what is restored of them, and clones: Pods find the data of the moment; the original is written on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.things import SNAPSHOTS, of_snapshot, snapshot
from tests.cluster.things import of_claim as source_claim
from tests.full.audit import audit
from tests.full.classes import KINDS, SIZE
from tests.full.pods import (
    DATA,
    DEVICE,
    Kind,
    Writer,
    claimed,
    end_pods,
    eventually,
    inside,
    node_of,
    of_claim,
    pod,
    sleeping,
    start_writer,
    until_gone,
    until_running,
)
from tests.full.scene import on_stage
from tests.rigs.full.cluster import Cluster

AT_BYTES, FIXED_BYTES = 64 << 20, 4 << 20
WRITE = """
import hashlib, os, sys
place, at, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
file = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
content = os.urandom(size)
os.pwrite(file, content, at)
os.fsync(file)
print(hashlib.sha256(content).hexdigest())
"""
READ = """
import hashlib, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
print(hashlib.sha256(os.pread(file, int(sys.argv[3]), int(sys.argv[2]))).hexdigest())
"""


@pytest.fixture
def scene(cluster: Cluster) -> Iterator[Cluster]:
    with on_stage(cluster) as prepared:
        yield prepared


def fixed(cluster: Cluster, name: str, kind: Kind, program: str) -> str:
    """Write bytes that nobody else writes to, or read them: their hash."""
    place = DEVICE if kind.is_block else f"{DATA}/fixed"
    return inside(cluster, name, "python3", "-c", program, place, str(AT_BYTES), str(FIXED_BYTES)).strip()


def test_what_is_restored_of_a_snapshot_has_the_data_of_its_moment(scene: Cluster) -> None:
    writers = originals(scene)
    written = {kind: fixed(scene, kind.name, kind, WRITE) for kind in KINDS}
    before = {writer.kind: writer.goes_on() for writer in writers}
    for kind in KINDS:
        scene.api.create(SNAPSHOTS, snapshot(f"of-{kind.name}", kind.name))
    for kind in KINDS:
        eventually(scene, f"of-{kind.name} is ready", partial(is_ready, scene, f"of-{kind.name}"))
    for writer in writers:
        writer.goes_on()
    for kind in KINDS:
        assert fixed(scene, kind.name, kind, WRITE) != written[kind]
        scene.api.create(CLAIMS, claimed(f"copy-{kind.name}", kind, SIZE, source=of_snapshot(f"of-{kind.name}")))
    copies_hold(scene, written, before)
    for writer in writers:
        writer.goes_on()
    audit(scene)


def test_a_clone_has_its_originals_data_and_outlives_it(scene: Cluster) -> None:
    writers = originals(scene)
    written = {kind: fixed(scene, kind.name, kind, WRITE) for kind in KINDS}
    before = {writer.kind: writer.goes_on() for writer in writers}
    for kind in KINDS:
        scene.api.create(CLAIMS, claimed(f"copy-{kind.name}", kind, SIZE, source=source_claim(kind.name)))
    copies_hold(scene, written, before)
    for writer in writers:
        writer.goes_on()
    audit(scene)
    end_pods(scene, *(writer.name for writer in writers))
    for kind in KINDS:
        scene.api.delete(f"{CLAIMS}/{kind.name}")
    for kind in KINDS:
        until_gone(scene, f"{CLAIMS}/{kind.name}")
        assert fixed(scene, f"copy-{kind.name}", kind, READ) == written[kind]
    audit(scene)


def is_ready(cluster: Cluster, name: str) -> bool:
    """Whether a snapshot can be restored."""
    return bool(cluster.api.get(f"{SNAPSHOTS}/{name}").get("status", {}).get("readyToUse"))


def originals(cluster: Cluster) -> list[Writer]:
    """A writer on each kind of volume, at work."""
    for kind in KINDS:
        cluster.api.create(CLAIMS, claimed(kind.name, kind, SIZE))
    writers = [start_writer(cluster, kind.name, kind, kind.name) for kind in KINDS]
    for writer in writers:
        until_running(cluster, writer.name)
    return writers


def copies_hold(cluster: Cluster, written: dict[Kind, str], before: dict[Kind, int]) -> None:
    """Start a Pod on each copy: it has the fixed bytes, and a whole ring, no older than what was written before."""
    for kind in KINDS:
        cluster.api.create(PODS, pod(f"copy-{kind.name}", kind, sleeping(), of_claim(f"copy-{kind.name}")))
    for kind in KINDS:
        name = f"copy-{kind.name}"
        until_running(cluster, name)
        assert node_of(cluster, name) == node_of(cluster, kind.name)
        assert fixed(cluster, name, kind, READ) == written[kind]
        assert Writer(cluster, name, kind).checked() >= before[kind]
