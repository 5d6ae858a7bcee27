"""Snapshots and copies over the driver's socket: what they hold, what they are called, and who ends whom."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.contract.faults import until
from tests.contract.sites import Site
from tests.csi.drivers import NODE, SMALL_BYTES, Driver, HereServed, can_grow_ext4, here
from tests.csi.kubelet import LONG_SECONDS, MIB, Kubelet, code_of, creation, of_snapshot, of_volume, refusal_of
from ullage.names import group_id, snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb

pytestmark = pytest.mark.only_on("file", "file-reflink", "thin")
OLD, NEW = b"what was there at that moment\n" * 100, b"what was written later\n" * 100
S = snapshot_id("nightly")
LARGER_BYTES = 2 * SMALL_BYTES if can_grow_ext4() else SMALL_BYTES
"""Of a copy that is staged: its file system grows then, where this machine lets it."""


def test_what_a_mounted_volume_held_comes_back_beside_it_in_a_restored_volume_and_in_a_clone(
    kubelet: Kubelet, services: HereServed
) -> None:
    client = services.client
    client.create("pvc-a", SMALL_BYTES)
    there = kubelet.stage("pvc-a")
    _write(there / "file", OLD)
    before = int(time.time())
    taken = client.snapshot("nightly", "pvc-a")
    assert (taken.snapshot_id, taken.source_volume_id, taken.size_bytes) == (S, "pvc-a", SMALL_BYTES)
    assert (taken.ready_to_use, taken.group_snapshot_id) == (True, "")
    assert before <= taken.creation_time.seconds <= int(time.time())
    assert [dict(each.segments) for each in taken.accessible_topology] == [{"ullage.io/node": NODE}]
    _write(there / "file", NEW)
    os.sync()
    sources = {"restored": of_snapshot(S), "cloned": of_volume("pvc-a"), "larger": of_snapshot(S)}
    sizes = {"restored": SMALL_BYTES, "cloned": SMALL_BYTES, "larger": LARGER_BYTES}
    for name, source in sources.items():
        made = client.create(name, sizes[name], source=source)
        assert (made.content_source, made.capacity_bytes) == (source, sizes[name])
        assert client.create(name, sizes[name], source=source) == made
    content = {name: (kubelet.stage(name) / "file").read_bytes() for name in sources}
    assert content == {"restored": OLD, "cloned": NEW, "larger": OLD}
    total = kubelet.stats("larger", kubelet.staging("larger"))["BYTES"].total
    assert total >= kubelet.stats("pvc-a", there)["BYTES"].total + (LARGER_BYTES - SMALL_BYTES) // 2
    _write(kubelet.staging("restored") / "file", b"")
    assert (there / "file").read_bytes() == NEW
    assert client.snapshots() == [taken]


def test_a_snapshot_and_a_volume_end_by_their_own_call_only_and_without_each_other(
    site: Site, services: HereServed
) -> None:
    client = services.client
    client.create("pvc-a", SMALL_BYTES)
    client.snapshot("nightly", "pvc-a")
    client.delete(S)
    client.delete_snapshot("pvc-a")
    client.delete_snapshot("never-was")
    assert set(site.truth().sizes) == {"pvc-a", S}
    client.delete("pvc-a")
    assert client.create("pvc-b", 0, source=of_snapshot(S)).capacity_bytes == SMALL_BYTES
    for _ in range(2):
        client.delete_snapshot(S)
    assert (client.snapshots(), set(site.truth().sizes)) == ([], {"pvc-b"})
    assert client.create("pvc-b", 0, source=of_snapshot(S)).capacity_bytes == SMALL_BYTES, "made before its source went"
    client.delete("pvc-b")
    assert (site.truth().sizes, site.leftovers()) == ({}, [])


def test_a_snapshot_is_no_volume_to_any_call(kubelet: Kubelet, services: HereServed) -> None:
    client = services.client
    client.create("pvc-a", SMALL_BYTES)
    client.snapshot("nightly", "pvc-a")
    assert client.ids() == ["pvc-a"]
    asks = (
        lambda: client.controller.ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id=S)),
        lambda: client.expand(S, 2 * SMALL_BYTES),
        lambda: client.modify(S, wipe="none"),
        lambda: client.snapshot("of a snapshot", S),
        lambda: client.create("pvc-b", SMALL_BYTES, source=of_volume(S)),
        lambda: client.create("pvc-b", SMALL_BYTES, source=of_snapshot("pvc-a")),
        lambda: client.get_snapshot("pvc-a"),
        lambda: kubelet.stage(S),
        lambda: kubelet.publish_block(S, "pod"),
    )
    assert [code_of(ask) for ask in asks[:-1]] == [StatusCode.NOT_FOUND] * (len(asks) - 1)
    kubelet.block_staging(S).mkdir(parents=True)
    assert code_of(asks[-1]) is StatusCode.NOT_FOUND
    assert kubelet.mounts() == ()


def test_a_copy_or_a_snapshot_that_cannot_be_is_told_by_its_code(site: Site, services: HereServed) -> None:
    client = services.client
    for name in ("pvc-a", "pvc-b"):
        client.create(name, 2 * SMALL_BYTES)
    client.snapshot("nightly", "pvc-a")
    client.create("pvc-c", 2 * SMALL_BYTES, source=of_snapshot(S))
    before = site.truth()
    gone = snapshot_id("gone")
    asks = {
        "smaller": (creation("pvc-x", SMALL_BYTES, source=of_snapshot(S)), StatusCode.OUT_OF_RANGE),
        "limited": (creation("pvc-x", 0, SMALL_BYTES, source=of_snapshot(S)), StatusCode.OUT_OF_RANGE),
        "no snapshot": (creation("pvc-x", SMALL_BYTES, source=of_snapshot(gone)), StatusCode.NOT_FOUND),
        "no volume": (creation("pvc-x", SMALL_BYTES, source=of_volume("pvc-y")), StatusCode.NOT_FOUND),
        "no size of none": (creation("pvc-x", 0, source=of_volume("pvc-y")), StatusCode.NOT_FOUND),
        "elsewhere": (
            creation("pvc-x", 2 * SMALL_BYTES, source=of_snapshot(S), nodes=("elsewhere",)),
            StatusCode.RESOURCE_EXHAUSTED,
        ),
        "other source": (creation("pvc-c", 2 * SMALL_BYTES, source=of_volume("pvc-a")), StatusCode.ALREADY_EXISTS),
        "no source": (creation("pvc-c", 2 * SMALL_BYTES), StatusCode.ALREADY_EXISTS),
        "a source": (creation("pvc-b", 2 * SMALL_BYTES, source=of_volume("pvc-a")), StatusCode.ALREADY_EXISTS),
        "unknown class": (
            creation("pvc-x", 2 * SMALL_BYTES, device_class="other", source=of_volume("pvc-a")),
            StatusCode.INVALID_ARGUMENT,
        ),
        "too large": (
            creation("pvc-x", 2 * client.capacity().maximum_volume_size.value, source=of_volume("pvc-a")),
            StatusCode.RESOURCE_EXHAUSTED,
        ),
    }
    for what, (request, code) in asks.items():
        assert code_of(lambda request=request: client.controller.CreateVolume(request)) is code, what  # type: ignore[misc]
    assert code_of(lambda: client.snapshot("nightly", "pvc-b")) is StatusCode.ALREADY_EXISTS
    assert code_of(lambda: client.snapshot("another", "pvc-x")) is StatusCode.NOT_FOUND
    elsewhere = pb.CreateSnapshotRequest(
        name="another",
        source_volume_id="pvc-a",
        accessibility_requirements=pb.TopologyRequirement(
            requisite=[pb.Topology(segments={"ullage.io/node": "elsewhere"})]
        ),
    )
    assert code_of(lambda: client.controller.CreateSnapshot(elsewhere)) is StatusCode.INVALID_ARGUMENT
    assert site.truth() == before
    assert [each.snapshot_id for each in client.snapshots()] == [S]


def test_snapshots_are_the_same_after_a_driver_was_killed(site: Site, driver: Driver, kubelet: Kubelet) -> None:
    client = kubelet.client
    client.create("pvc-a", SMALL_BYTES)
    _write(kubelet.stage("pvc-a") / "file", OLD)
    first = client.snapshot("nightly", "pvc-a")
    second = client.snapshot("weekly", "pvc-a")
    copy = client.create("pvc-b", LARGER_BYTES, source=of_snapshot(S))
    assert driver.end(signal.SIGKILL) == -signal.SIGKILL
    driver.start()
    by_id = sorted((first, second), key=lambda each: each.snapshot_id)
    assert client.snapshots() == by_id == client.snapshots(source_volume_id="pvc-a")
    assert client.snapshots(snapshot_id=S) == [first] == [client.get_snapshot(S)]
    assert client.snapshots(source_volume_id="pvc-b") == []
    assert client.snapshot("nightly", "pvc-a") == first, "its time included"
    assert client.create("pvc-b", LARGER_BYTES, source=of_snapshot(S)) == copy
    assert (kubelet.stage("pvc-b") / "file").read_bytes() == OLD
    assert set(site.truth().sizes) == {"pvc-a", "pvc-b", S, snapshot_id("weekly")}


def test_a_snapshot_on_a_lost_store_is_not_said_to_be_gone(site: Site, driver: Driver, kubelet: Kubelet) -> None:
    """csi-snapshotter would take an empty list, or NOT_FOUND, for the end of the backup."""
    client = kubelet.client
    client.create("pvc-a", SMALL_BYTES)
    taken = client.snapshot("nightly", "pvc-a")
    gone = snapshot_id("gone")
    with site.lose_store():
        asks = (
            lambda: client.delete_snapshot(gone),
            lambda: client.delete_snapshot(S),
            lambda: client.get_snapshot(gone),
            lambda: client.snapshots(snapshot_id=gone),
            lambda: client.delete_group(group_id("gone"), gone),
            lambda: client.get_group(group_id("gone"), gone),
            lambda: client.create("pvc-b", SMALL_BYTES, source=of_snapshot(S)),
            lambda: client.snapshot("another", "pvc-a"),
        )
        assert [code_of(ask) for ask in asks] == [StatusCode.UNAVAILABLE] * len(asks)
        assert client.get_snapshot(S) == taken, "from memory"
    driver.end()
    driver.start()
    assert client.snapshots() == [taken]


@pytest.mark.only_on("file", "thick")
def test_a_copy_that_is_being_filled_is_asked_for_again_until_it_is_done_and_nobody_sees_it_before(
    site: Site, kubelet: Kubelet, folder: Path
) -> None:
    slowly = replace(site.device_class(), copy_rate_bytes=MIB if site.is_lvm else 4 * MIB)
    content = os.urandom(MIB) * (SMALL_BYTES // MIB)
    with here(slowly, folder) as services:
        client = services.client
        client.create("pvc-a", SMALL_BYTES)
        kubelet.stage_block("pvc-a")
        _patch(kubelet.publish_block("pvc-a", "pod"), {0: content})
        kubelet.unpublish_block("pvc-a", "pod")
        client.snapshot("nightly", "pvc-a")
        request = creation("pvc-b", SMALL_BYTES, source=of_snapshot(S))

        def told() -> str:
            code, sentence = refusal_of(lambda: client.controller.CreateVolume(request, timeout=1))
            assert code is StatusCode.DEADLINE_EXCEEDED, sentence
            return sentence

        for _ in range(2):
            until(lambda: "pvc-b" in told())  # on a busy machine the caller's own limit can come before the answer
        assert client.ids() == ["pvc-a"]
        hidden = (
            lambda: client.controller.ControllerGetVolume(pb.ControllerGetVolumeRequest(volume_id="pvc-b")),
            lambda: client.create("pvc-c", SMALL_BYTES, source=of_volume("pvc-b")),
            lambda: client.snapshot("of a half", "pvc-b"),
            lambda: kubelet.stage("pvc-b"),
        )
        until(lambda: code_of(hidden[0]) is StatusCode.ABORTED)  # it may not even have been carved yet
        assert [code_of(ask) for ask in hidden] == [StatusCode.ABORTED] * len(hidden)
        answer = client.controller.CreateVolume(request, timeout=LONG_SECONDS)
        assert answer.volume.content_source == of_snapshot(S)
        kubelet.stage_block("pvc-b")
        assert kubelet.publish_block("pvc-b", "pod").read_bytes() == content
        gone = creation("pvc-c", SMALL_BYTES, source=of_snapshot(S))
        assert code_of(lambda: client.controller.CreateVolume(gone, timeout=1)) is StatusCode.DEADLINE_EXCEEDED
        until(lambda: code_of(lambda: client.delete("pvc-c")) is StatusCode.OK)
        assert set(site.truth().sizes) == {"pvc-a", "pvc-b", S}


def test_a_group_is_of_one_moment_named_by_its_members_and_gone_with_them(
    site: Site, driver: Driver, kubelet: Kubelet
) -> None:
    client = kubelet.client
    for name in ("pvc-a", "pvc-b", "pvc-c"):
        client.create(name, SMALL_BYTES)
        _write(kubelet.stage(name) / "file", OLD)
    group = client.snapshot_group("both", "pvc-b", "pvc-a")
    members = [each.snapshot_id for each in group.snapshots]
    assert group.ready_to_use
    assert sorted(each.source_volume_id for each in group.snapshots) == ["pvc-a", "pvc-b"]
    assert {each.group_snapshot_id for each in group.snapshots} == {group.group_snapshot_id}
    assert {each.creation_time.seconds for each in group.snapshots} == {group.creation_time.seconds}
    for name in ("pvc-a", "pvc-b"):
        _write(kubelet.staging(name) / "file", NEW)
    assert driver.end(signal.SIGKILL) == -signal.SIGKILL
    driver.start()
    assert client.snapshot_group("both", "pvc-a", "pvc-b") == group
    assert client.get_group(group.group_snapshot_id, *members) == group
    assert {each.snapshot_id: each.group_snapshot_id for each in client.snapshots()} == dict.fromkeys(
        members, group.group_snapshot_id
    )
    refused = (
        (lambda: client.snapshot_group("both", "pvc-a", "pvc-c"), StatusCode.ALREADY_EXISTS),
        (lambda: client.snapshot_group("other", "pvc-a", "pvc-x"), StatusCode.NOT_FOUND),
        (lambda: client.delete_snapshot(members[0]), StatusCode.INVALID_ARGUMENT),
        (lambda: client.delete_group(group.group_snapshot_id, members[0]), StatusCode.INVALID_ARGUMENT),
        (lambda: client.delete_group(group.group_snapshot_id, *members, "a b"), StatusCode.INVALID_ARGUMENT),
        (lambda: client.get_group(group.group_snapshot_id), StatusCode.INVALID_ARGUMENT),
        (lambda: client.get_group(group_id("never was"), *members), StatusCode.NOT_FOUND),
    )
    for number, (ask, code) in enumerate(refused):
        assert code_of(ask) is code, number
    client.delete_group(group_id("never was"), *members, "a b")
    client.create("restored", SMALL_BYTES, source=of_snapshot(members[0]))
    assert (kubelet.stage("restored") / "file").read_bytes() == OLD
    for _ in range(2):
        client.delete_group(group.group_snapshot_id, *members)
    assert client.snapshots() == []
    assert set(site.truth().sizes) == {"pvc-a", "pvc-b", "pvc-c", "restored"}


@pytest.mark.only_on("file-reflink", "thin")
def test_what_is_told_of_blocks_rebuilds_one_snapshot_from_nothing_and_the_next_from_that(
    kubelet: Kubelet, services: HereServed
) -> None:
    client = services.client
    client.create("pvc-a", SMALL_BYTES)
    client.create("pvc-b", SMALL_BYTES)
    kubelet.stage_block("pvc-a")
    device = kubelet.publish_block("pvc-a", "pod")
    _patch(device, {0: b"first", 5 * MIB + 7: b"second", SMALL_BYTES - 4096: b"last"})
    base = client.snapshot("base", "pvc-a").snapshot_id
    _patch(device, {5 * MIB: b"changed", 9 * MIB: b"new"})
    target = client.snapshot("target", "pvc-a").snapshot_id
    other = client.snapshot("other", "pvc-b").snapshot_id
    contents = {}
    for name, taken in (("restored-base", base), ("restored-target", target)):
        client.create(name, SMALL_BYTES, source=of_snapshot(taken))
        kubelet.stage_block(name)
        contents[taken] = kubelet.publish_block(name, "pod").read_bytes()
    blank = bytes(SMALL_BYTES)
    allocated = client.allocated(base)
    assert _patched(blank, contents[base], allocated) == contents[base]
    changed = client.changed(base, target)
    assert _patched(contents[base], contents[target], changed) == contents[target]
    assert 0 < sum(size for _, size in changed) < SMALL_BYTES // 4
    assert client.allocated(base, max_results=1) == allocated
    for start, size in allocated:
        resumed = client.allocated(base, starting_offset=start + size // 2)
        assert resumed[0] == (start + size // 2, size - size // 2)
        assert resumed[1:] == [each for each in allocated if each[0] > start]
    assert client.changed(base, target, starting_offset=SMALL_BYTES) == []
    gone = snapshot_id("gone")
    refused = (
        (lambda: client.allocated(base, starting_offset=SMALL_BYTES + 1), StatusCode.OUT_OF_RANGE),
        (lambda: client.changed(base, target, starting_offset=-1), StatusCode.OUT_OF_RANGE),
        (lambda: client.allocated(gone), StatusCode.NOT_FOUND),
        (lambda: client.allocated("pvc-a"), StatusCode.NOT_FOUND),
        (lambda: client.changed(gone, target), StatusCode.NOT_FOUND),
        (lambda: client.changed(base, other), StatusCode.INVALID_ARGUMENT),
    )
    for number, (ask, code) in enumerate(refused):
        assert code_of(ask) is code, number


def _patch(device: Path, pieces: dict[int, bytes]) -> None:
    with device.open("r+b", buffering=0) as file:
        for offset, piece in pieces.items():
            file.seek(offset)
            file.write(piece)
        os.fsync(file.fileno())


def _patched(content: bytes, source: bytes, ranges: list[tuple[int, int]]) -> bytes:
    """The content with these ranges, and nothing else, taken from the source."""
    made = bytearray(content)
    for offset, size in ranges:
        made[offset : offset + size] = source[offset : offset + size]
    return bytes(made)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
