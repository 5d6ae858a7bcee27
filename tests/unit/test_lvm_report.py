"""What `lvm fullreport` said on a real machine (see reports/record.py), decoded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.backends.lvm.report import VolumeGroup, volume_groups
from node_agent.backends.lvm.rows import ARGUMENTS, SECTIONS
from ullage.capacity import cost_bytes
from ullage.errors import MIB, UnreadableReportError
from ullage.model import (
    DeviceType,
    Layout,
    LayoutKind,
    OrphanKind,
    Owner,
    PhysicalVolume,
    Problem,
    Share,
    StoreName,
    Volume,
    VolumeKind,
    VolumeState,
    Wipe,
)

REPORTS = Path(__file__).parent / "reports"
EXTENT = 4 * MIB
OWNER = Owner(
    pv_name="pvc-1", claim_namespace="shop", claim_name="db-0", claim_uid="4d1c0b9e-7d2f-4b0a-9c1e-5a6b7c8d9e0f"
)
KIB64, KIB128, KIB32 = 64 << 10, 128 << 10, 32 << 10


def text(name: str) -> str:
    return (REPORTS / f"{name}.json").read_text(encoding="utf-8")


def group(report: str, name: str) -> VolumeGroup:
    return volume_groups(text(report))[StoreName(name)]


@pytest.fixture(scope="module")
def vg0() -> VolumeGroup:
    return group("layouts", "vg0")


@pytest.fixture(scope="module")
def volumes(vg0: VolumeGroup) -> dict[str, Volume]:
    return {volume.id: volume for volume in vg0.volumes}


def taken(volume: Volume) -> dict[str, int]:
    """Extents by physical volume."""
    return {share.physical_volume: share.size_bytes // EXTENT for share in volume.taken}


def test_the_recorded_reports_have_the_fields_that_are_asked_for() -> None:
    (part,) = json.loads(text("layouts"))["report"]
    assert {section: ",".join(rows[0]) for section, rows in part.items()} == SECTIONS
    assert ARGUMENTS.count("--configreport") == len(SECTIONS)


def test_a_volume_is_told_with_all_that_lvm_knows(volumes: dict[str, Volume]) -> None:
    linear = volumes["linear"]
    assert linear == Volume(
        id=linear.id,
        pool=linear.pool,
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        device_class=linear.device_class,
        size_bytes=100 * MIB,
        device_size_bytes=100 * MIB,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        owner=OWNER,
        device_path="/dev/vg0/linear",
        device_major=253,
        device_minor=0,
        dm_uuid="LVM-SX2BPk0kpiJNvMeVy7KXcKCmf7lteP4CR3Jv7sygVUMQ4pefDcRQLSJS7sTwb7WX",
        is_active=True,
        is_open=True,
        layout=Layout(),
        taken=(Share(physical_volume="/dev/vda", size_bytes=100 * MIB),),
    )
    assert (linear.pool, linear.device_class) == ("vg0", "fast")


def test_only_volumes_with_our_tag_and_name_are_ours(vg0: VolumeGroup, volumes: dict[str, Volume]) -> None:
    """Not the foreign ones, the pool, the snapshot by hand, the images of ours (which carry our tags, too)."""
    assert set(volumes) == {
        *("linear", "spanning", "striped", "raid1", "raid1-integrity", "raid5", "raid6", "raid10"),
        *("thin-a", "thin-b", "with-more-tags", "asleep", "creating", "deleting", "growing"),
        *("origin", "guest", "suspended"),
        *("busy", "s-whole", "s-small", "s-not-yet", "s-going"),
    }
    assert len(vg0.volumes) == len(volumes)


def test_nothing_of_a_guests_volume_group_is_seen(volumes: dict[str, Volume]) -> None:
    assert list(volume_groups(text("layouts"))) == ["vg0"]
    assert volumes["guest"].is_open, "the guest's volume holds ours"


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("linear", Layout()),
        ("spanning", Layout()),
        ("striped", Layout(kind=LayoutKind.STRIPED, stripes=2, stripe_size_bytes=KIB128)),
        ("raid1", Layout(kind=LayoutKind.RAID1, mirrors=2)),
        ("raid1-integrity", Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True)),
        ("raid5", Layout(kind=LayoutKind.RAID5, stripes=2, stripe_size_bytes=KIB64)),
        ("raid6", Layout(kind=LayoutKind.RAID6, stripes=3, stripe_size_bytes=KIB64)),
        ("raid10", Layout(kind=LayoutKind.RAID10, stripes=2, mirrors=1, stripe_size_bytes=KIB32)),
    ],
)
def test_a_volume_has_the_layout_and_costs_what_was_asked_for(
    volumes: dict[str, Volume], name: str, layout: Layout
) -> None:
    volume = volumes[name]
    assert volume.layout == layout
    assert volume.problem is None
    assert sum(share.size_bytes for share in volume.taken) == cost_bytes(layout, EXTENT, volume.size_bytes)
    if layout.is_spread:
        assert len(volume.taken) == layout.images
        assert len(set(taken(volume).values())) == 1


def test_shares_count_raid_and_integrity_metadata(volumes: dict[str, Volume]) -> None:
    assert taken(volumes["spanning"]) == {"/dev/vda": 6, "/dev/vdb": 4}
    assert set(taken(volumes["raid1"]).values()) == {16 + 1}
    assert set(taken(volumes["raid1-integrity"]).values()) == {16 + 2 + 1}
    assert set(taken(volumes["raid5"]).values()) == {8 + 1}
    assert set(taken(volumes["raid6"]).values()) == {4 + 1}
    assert taken(volumes["raid6"]).keys() == {f"/dev/vd{letter}" for letter in "abcde"}


def test_every_extent_that_lvm_counts_as_allocated_is_somebodys(vg0: VolumeGroup) -> None:
    (part,) = json.loads(text("layouts"))["report"]
    ours = {row["pv_name"]: 0 for row in part["pv"]}
    for volume in vg0.volumes:
        for name, extents in taken(volume).items():
            ours[name] += extents
    others = dict.fromkeys(ours, 0)
    for piece in part["pvseg"]:
        if (
            piece["lv_name"]
            .strip("[]")
            .startswith(("foreign", "other-driver", "pool0", "lvol0", "broken-tag", "renamed", "by-hand"))
        ):
            others[piece["pv_name"]] += int(piece["pvseg_size"])
    assert {name: ours[name] + others[name] for name in ours} == {
        row["pv_name"]: int(row["pv_pe_alloc_count"]) for row in part["pv"]
    }


def test_a_physical_volume_that_takes_nothing_counts_as_size_and_not_as_room(vg0: VolumeGroup) -> None:
    assert vg0.extent_bytes == EXTENT
    assert vg0.total_bytes == 5 * 255 * EXTENT
    assert [each.name for each in vg0.physical_volumes] == ["/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd"]
    assert vg0.physical_volumes[0] == PhysicalVolume(name="/dev/vda", free_bytes=(255 - 98) * EXTENT)
    assert vg0.devices == ("/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd", "/dev/vde")


@pytest.mark.parametrize(
    ("name", "state", "size", "device_size"),
    [
        ("creating", VolumeState.CREATING, 8 * MIB, 8 * MIB),
        ("deleting", VolumeState.DELETING, 8 * MIB, 8 * MIB),
        ("growing", VolumeState.GROWING, 8 * MIB, 16 * MIB),
        ("with-more-tags", VolumeState.READY, 8 * MIB, 8 * MIB),
    ],
)
def test_a_mark_on_the_disk_is_the_state(
    volumes: dict[str, Volume], name: str, state: VolumeState, size: int, device_size: int
) -> None:
    volume = volumes[name]
    assert (volume.state, volume.size_bytes, volume.device_size_bytes) == (state, size, device_size)


def test_an_inactive_volume_has_no_device_and_is_not_called_open(volumes: dict[str, Volume]) -> None:
    asleep = volumes["asleep"]
    assert (asleep.is_active, asleep.is_open, asleep.device_major, asleep.device_minor) == (False, False, -1, -1)
    assert asleep.problem is None


def test_a_suspended_volume_says_so(volumes: dict[str, Volume]) -> None:
    problem = volumes["suspended"].problem
    assert problem is not None
    assert problem.reason == "Suspended"


def test_a_thick_snapshot_is_as_large_as_its_volume_and_takes_what_it_keeps(volumes: dict[str, Volume]) -> None:
    whole = volumes["s-whole"]
    assert (whole.kind, whole.source, whole.type, whole.pool) == (VolumeKind.SNAPSHOT, "busy", DeviceType.THICK, "vg0")
    assert (whole.size_bytes, whole.device_size_bytes, taken(whole)) == (16 * MIB, 16 * MIB, {"/dev/vdd": 5})
    assert (whole.state, whole.used_percent, whole.problem) == (VolumeState.READY, 40.62, None)
    assert (whole.device_path, whole.dm_uuid[:4], whole.is_active) == ("/dev/vg0/s-whole", "LVM-", True)
    assert (volumes["busy"].device_size_bytes, volumes["busy"].used_percent) == (16 * MIB, None)


def test_an_overflowed_snapshot_is_a_problem(volumes: dict[str, Volume]) -> None:
    problem = volumes["s-small"].problem
    assert problem is not None
    assert problem.reason == "SnapshotOverflowed"
    assert "busy" in problem.message


def test_what_is_tagged_as_a_thick_snapshot_and_is_none_was_being_made_or_removed(volumes: dict[str, Volume]) -> None:
    """LVM makes the room first, as a volume of its own: that must never be read as the snapshot."""
    unborn, going = volumes["s-not-yet"], volumes["s-going"]
    assert (unborn.state, unborn.device_size_bytes) == (VolumeState.CREATING, 0)
    assert (going.state, going.device_size_bytes) == (VolumeState.DELETING, 4 * MIB), "this much is to be wiped"


def test_thin_volumes_lie_in_their_pool_and_take_nothing_of_the_group(volumes: dict[str, Volume]) -> None:
    thin = volumes["thin-a"]
    assert (thin.type, thin.pool, thin.store, thin.taken) == (DeviceType.THIN, "vg0/pool0", "vg0", ())
    assert (thin.size_bytes, thin.layout) == (100 * MIB, Layout())


def test_a_thin_pool_promises_to_foreign_volumes_too(vg0: VolumeGroup) -> None:
    (pool,) = vg0.thin_pools
    assert (pool.name, pool.size_bytes, pool.virtual_bytes) == ("pool0", 128 * MIB, (100 + 60 + 16) * MIB)
    assert (pool.data_percent, pool.metadata_percent) == (7.81, 11.13)
    assert (pool.zeroes_new_blocks, pool.health) == (True, "")


def test_thin_pools_tell_their_health_and_whether_they_zero() -> None:
    pools = {pool.name: pool for pool in group("thin-pools", "thin").thin_pools}
    assert pools["full"].health == "out_of_data"
    assert pools["full"].data_percent == 100
    assert [name for name, pool in pools.items() if not pool.zeroes_new_blocks] == ["showing"]
    assert pools["damaged"].data_percent == 0, "an inactive pool tells nothing"


def test_tags_of_ours_that_make_no_sense_are_orphans(vg0: VolumeGroup) -> None:
    orphans = {orphan.name: orphan for orphan in vg0.orphans}
    assert set(orphans) == {"vg0/broken-tag", "vg0/renamed"}
    assert {orphan.kind for orphan in vg0.orphans} == {OrphanKind.UNREADABLE_RECORD}
    assert "'shred' is not a valid Wipe" in orphans["vg0/broken-tag"].message
    assert "tagged as other-name" in orphans["vg0/renamed"].message


def test_of_a_group_with_a_missing_disk_all_volumes_are_still_known() -> None:
    gone = group("missing", "gone")
    assert gone.missing_physical_volumes == 1
    assert gone.devices == ("/dev/vdf",)
    assert [each.name for each in gone.physical_volumes] == ["/dev/vdf"]
    assert {volume.id: volume.problem and volume.problem.reason for volume in gone.volumes} == {
        "half": None,
        "other-half": "Partial",
        "both": "Partial",
    }
    assert Problem(reason="Partial", message="LVM calls it 'partial'") in [volume.problem for volume in gone.volumes]


def test_an_exported_group_says_so() -> None:
    sold = group("exported", "sold")
    assert sold.is_exported
    assert [(volume.id, volume.is_active) for volume in sold.volumes] == [("parked", False)]
    assert not group("everything", "gone").is_exported


def test_free_physical_volumes_beside_the_groups_hide_nothing() -> None:
    """They come as a part of their own, without any other section."""
    parts = json.loads(text("everything"))["report"]
    assert [part.keys() for part in parts if "vg" not in part] == [{"pv", "pvseg"}]
    assert set(volume_groups(text("everything"))) == {"gone", "sold"}


def test_a_group_without_volumes_is_a_group() -> None:
    fresh = group("fresh", "fresh")
    assert (fresh.volumes, fresh.thin_pools, fresh.orphans) == ((), (), ())
    assert fresh.physical_volumes == (PhysicalVolume(name="/dev/vda", free_bytes=fresh.total_bytes),)


def test_a_machine_without_groups_has_none() -> None:
    assert volume_groups(text("nothing")) == {}


@pytest.mark.parametrize("broken", ["", "  ", "{", "[]", "null", "{}", '{"report": {}}', '{"report": [{}]}', "\ud800"])
def test_what_is_no_report_is_refused(broken: str) -> None:
    with pytest.raises(UnreadableReportError, match="lvm's report makes no sense"):
        volume_groups(broken)


@given(st.integers(min_value=0, max_value=len(text("missing").rstrip()) - 1))
@settings(deadline=None)
def test_half_a_report_is_never_used(length: int) -> None:
    with pytest.raises(UnreadableReportError):
        volume_groups(text("missing")[:length])


@pytest.mark.parametrize("section", SECTIONS)
def test_a_report_without_a_section_is_refused(section: str) -> None:
    document = json.loads(text("layouts"))
    del document["report"][0][section]
    with pytest.raises(UnreadableReportError):
        volume_groups(json.dumps(document))


@pytest.mark.parametrize(
    ("section", "field"), [(name, field) for name in SECTIONS for field in SECTIONS[name].split(",")]
)
def test_a_report_without_a_field_is_refused(section: str, field: str) -> None:
    document = json.loads(text("missing"))
    del document["report"][0][section][0][field]
    with pytest.raises(UnreadableReportError):
        volume_groups(json.dumps(document))


def test_a_volume_without_its_segment_is_refused() -> None:
    document = json.loads(text("missing"))
    document["report"][0]["seg"] = []
    with pytest.raises(UnreadableReportError):
        volume_groups(json.dumps(document))


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(1 << 70), max_value=1 << 70),
    st.floats(),
    st.sampled_from(["", "0", "-1", "nan", "1e999", "raid10", "thin,pool", "raid,raid1", "[x", "x_rimage_0", "active"]),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
)


CHANGES: dict[str, Callable[[Any, list[Any], int, str], object]] = {
    "lose a row": lambda _value, rows, row, _field: rows.pop(row),
    "double a row": lambda _value, rows, row, _field: rows.append(rows[row]),
    "replace a row": lambda value, rows, row, _field: rows.__setitem__(row, value),
    "replace a value": lambda value, rows, row, field: rows[row].__setitem__(field, value),
    "rename a field": lambda value, rows, row, field: rows[row].__setitem__(str(value), rows[row].pop(field)),
}


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A real report with some rows and values changed."""
    document = json.loads(text(draw(st.sampled_from(["missing", "thin-pools", "everything", "fresh"]))))
    for _ in range(draw(st.integers(min_value=1, max_value=4))):
        part = draw(st.sampled_from(document["report"]))
        rows = part[draw(st.sampled_from(sorted(part)))]
        row = draw(st.integers(min_value=0, max_value=max(0, len(rows) - 1)))
        if rows and isinstance(rows[row], dict) and rows[row]:
            field = draw(st.sampled_from(sorted(rows[row])))
            CHANGES[draw(st.sampled_from(sorted(CHANGES)))](draw(scalars), rows, row, field)
    return json.dumps(document)


@given(mutated())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
def test_a_mutated_report_is_a_report_or_unreadable_and_nothing_else(broken: str) -> None:
    try:
        groups = volume_groups(broken)
    except UnreadableReportError:
        return
    assert all(isinstance(each, VolumeGroup) for each in groups.values())


def test_two_groups_of_one_name_are_no_report() -> None:
    """Each would hide the other's volumes, and somebody would take them for gone."""
    report = json.loads(text("layouts"))
    report["report"] += report["report"]
    with pytest.raises(UnreadableReportError, match="the same name"):
        volume_groups(json.dumps(report))
