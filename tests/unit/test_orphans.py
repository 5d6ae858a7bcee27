"""Halves are found, told of once, counted until somebody acknowledges them, and never touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import msgspec
import pytest

from csi.cluster.orphans import KNOWN, MISSING, YOUNG, Half, OrphanScanner, orphans
from csi.cluster.view import ClusterView
from tests.unit.kube_doubles import ApiServer
from tests.unit.loop_doubles import (
    NOW,
    Heard,
    persistent,
    running,
    storage,
    stray,
    volume,
)
from ullage.errors import UnavailableError
from ullage.kube.api import Api
from ullage.kube.foreign import CsiSource
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES, timestamp
from ullage.kube.node_storage import ACKNOWLEDGED
from ullage.model import OrphanKind, VolumeKind


def changed(of: LogicalVolume, **meta: object) -> LogicalVolume:
    return msgspec.structs.replace(of, metadata=msgspec.structs.replace(of.metadata, **meta))


def test_what_has_all_its_parts_is_no_orphan() -> None:
    assert orphans([storage("n1")], [volume("pvc-1")], [persistent("pvc-1")]) == ()


def test_a_volume_without_an_object_is_told_with_its_claim_and_its_node() -> None:
    (found,) = orphans([storage("n1", orphans=(stray("pvc-1"),))], [], [])
    assert (found.kind, found.name, found.node) == (Half.VOLUME_WITHOUT_OBJECT, "pvc-1", "n1")
    assert (found.claim, found.device_class, found.size_bytes) == ("db/data", "fast", 1 << 30)
    assert (found.about.kind, found.about.name, found.label) == ("NodeStorage", "n1", f"{ACKNOWLEDGED}pvc-1")
    assert not found.is_known


def test_one_whose_marks_do_not_say_all_is_half_a_volume() -> None:
    halves = (stray("a", device_class=""), stray("b", kind=OrphanKind.UNREADABLE_RECORD))
    assert {each.kind for each in orphans([storage("n1", orphans=halves)], [], [])} == {Half.HALF_A_VOLUME}


def test_half_a_volume_is_told_of_also_where_its_object_is_there() -> None:
    half = storage("n1", orphans=(stray("pvc-1", kind=OrphanKind.UNREADABLE_RECORD),))
    (found,) = orphans([half], [volume("pvc-1")], [persistent("pvc-1")])
    assert (found.kind, "is about node" in found.message) == (Half.HALF_A_VOLUME, False)


def test_one_whose_object_has_come_since_the_report_is_none_and_one_whose_object_is_elsewhere_is() -> None:
    storages = [storage("n1", orphans=(stray("pvc-1"),))]
    assert orphans(storages, [volume("pvc-1")], [persistent("pvc-1")]) == ()
    (found,) = orphans(storages, [volume("pvc-1", "n2")], [persistent("pvc-1")])
    assert "n2" in found.message


def test_an_object_whose_volume_is_missing_is_one() -> None:
    missing = volume("pvc-1", why_not_ready=MISSING)
    (found,) = orphans([], [missing], [persistent("pvc-1")])
    assert (found.kind, found.about.kind) == (Half.OBJECT_WITHOUT_VOLUME, "LogicalVolume")
    other = volume("pvc-1", why_not_ready="PoolUnavailable")
    assert orphans([], [other], [persistent("pvc-1")]) == ()


def test_an_object_that_no_persistent_volume_names_is_one_after_some_minutes() -> None:
    (found,) = orphans([], [volume("pvc-1")], [persistent("pvc-1", "another")])[:1]
    assert found.kind is Half.OBJECT_WITHOUT_PV
    young = changed(volume("pvc-1"), creation_timestamp=timestamp(NOW - YOUNG + timedelta(minutes=1)))
    assert orphans([], [young], [], now=NOW) == ()


def test_snapshots_have_no_persistent_volume() -> None:
    made = volume("s-1")
    snapshot = msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, kind=VolumeKind.SNAPSHOT))
    assert orphans([], [snapshot], []) == ()


def test_a_persistent_volume_of_ours_without_an_object_is_one_and_others_are_not_ours() -> None:
    other = persistent("pv-2")
    other = msgspec.structs.replace(
        other, spec=msgspec.structs.replace(other.spec, csi=CsiSource(driver="other.io", volume_handle="x"))
    )
    (found,) = orphans([], [], [persistent("pv-1", "pvc-1"), other])
    assert (found.kind, found.name, found.about.kind) == (Half.PV_WITHOUT_OBJECT, "pv-1", "PersistentVolume")


def test_what_is_on_its_way_out_is_none() -> None:
    condemned = changed(volume("pvc-1", why_not_ready=MISSING), deletion_timestamp=timestamp(NOW))
    going = persistent("pv-2")
    going = msgspec.structs.replace(
        going, metadata=msgspec.structs.replace(going.metadata, deletion_timestamp=timestamp(NOW))
    )
    assert orphans([], [condemned], [persistent("pvc-1"), going]) == ()


def test_each_can_be_acknowledged_by_its_label() -> None:
    storages = [storage("n1", orphans=(stray("a"), stray("b")), labels={f"{ACKNOWLEDGED}a": ""})]
    volumes = [changed(volume("c"), labels={KNOWN: ""}), volume("d")]
    found = orphans(storages, volumes, [persistent("e", labels={KNOWN: ""}), persistent("f")])
    assert {each.name: each.is_known for each in found} == {
        "a": True, "b": False, "c": True, "d": False, "e": True, "f": False,
    }  # fmt: skip


@contextmanager
def scanning(server: ApiServer) -> Iterator[tuple[OrphanScanner, Heard]]:
    view, heard = ClusterView(Api(server)), Heard()
    with running(view):
        yield OrphanScanner(Api(server), view, heard), heard


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.put(NODE_STORAGES, storage("n1", orphans=(stray("pvc-1"),)))
    server.put(PERSISTENT_VOLUMES, persistent("pv-2", "pvc-2"))
    return server


def test_what_is_found_twice_is_counted_and_told_of_once(server: ApiServer) -> None:
    with scanning(server) as (scanner, heard):
        assert scanner.counts is None
        scanner.scan()
        assert set((scanner.counts or {}).values()) == {0}
        assert heard.events == []
        for _ in range(3):
            scanner.scan()
        counts = scanner.counts
        assert counts is not None
        assert {kind for kind in Half if counts[kind] == 1} == {Half.VOLUME_WITHOUT_OBJECT, Half.PV_WITHOUT_OBJECT}
        assert sorted(heard.events) == [("NodeStorage", "n1", "Orphan"), ("PersistentVolume", "pv-2", "Orphan")]
    assert server.writes == []


def test_what_is_there_only_for_a_moment_is_not_told_of(server: ApiServer) -> None:
    with scanning(server) as (scanner, heard):
        server.put(LOGICAL_VOLUMES, volume("pvc-1"))
        scanner.scan()
        server.remove(PERSISTENT_VOLUMES, "pv-2")
        scanner.scan()
        assert ("PersistentVolume", "pv-2", "Orphan") not in heard.events
        assert (scanner.counts or {})[Half.PV_WITHOUT_OBJECT] == 0


def test_a_scanner_that_no_longer_leads_counts_nothing(server: ApiServer) -> None:
    with scanning(server) as (scanner, _):
        scanner.scan()
        scanner.start()
        scanner.stop()
        assert scanner.counts is None


def test_before_all_is_listed_nothing_is_an_orphan(server: ApiServer) -> None:
    scanner = OrphanScanner(Api(server), ClusterView(Api(server)), Heard())
    with pytest.raises(UnavailableError):
        scanner.scan()
    assert scanner.counts is None
