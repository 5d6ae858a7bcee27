"""What `lvm fullreport` is asked for, and the rows that it answers in.

Each field is here twice: as the word that asks for it, and in the row that it comes in.
"""

from __future__ import annotations

import msgspec

SECTIONS = {
    "vg": "vg_name,vg_uuid,vg_extent_size,vg_extent_count,vg_missing_pv_count,vg_exported",
    "pv": "pv_name,pv_pe_count,pv_pe_alloc_count,pv_missing,pv_allocatable",
    "lv": "lv_name,lv_uuid,lv_size,lv_tags,lv_layout,lv_role,pool_lv,origin_size,lv_active,lv_device_open,"
    "lv_snapshot_invalid,lv_kernel_major,lv_kernel_minor,lv_health_status,lv_suspended,data_percent,metadata_percent,raidintegritymode",
    "seg": "lv_name,segtype,stripes,data_stripes,stripe_size,zero",
    "pvseg": "pv_name,lv_name,pvseg_size",
}
ARGUMENTS = (
    *("--all", "--reportformat", "json", "--units", "b", "--nosuffix"),
    *(word for section, fields in SECTIONS.items() for word in ("--configreport", section, "-o", fields)),
)

FREE_PHYSICAL_VOLUMES = {"pv", "pvseg"}
"""The sections of the part that tells of physical volumes without a volume group, there only when there are any."""


class VolumeGroupRow(msgspec.Struct):
    """One row of `vg`, the only one of its part."""

    vg_name: str
    vg_uuid: str
    vg_extent_size: int
    vg_extent_count: int
    vg_missing_pv_count: int
    vg_exported: str


class PhysicalVolumeRow(msgspec.Struct):
    """One row of `pv`."""

    pv_name: str
    pv_pe_count: int
    pv_pe_alloc_count: int
    pv_missing: str
    pv_allocatable: str


class LogicalVolumeRow(msgspec.Struct):
    """One row of `lv`: a logical volume, or in brackets a component of one."""

    lv_name: str
    lv_uuid: str
    lv_size: int
    lv_tags: str
    lv_layout: str
    lv_role: str
    pool_lv: str
    origin_size: str
    lv_active: str
    lv_device_open: str
    lv_snapshot_invalid: str
    lv_kernel_major: int
    lv_kernel_minor: int
    lv_health_status: str
    lv_suspended: str
    data_percent: str
    metadata_percent: str
    raidintegritymode: str


class SegmentRow(msgspec.Struct):
    """One row of `seg`: a piece of a logical volume that has one shape."""

    lv_name: str
    segtype: str
    stripes: str
    data_stripes: str
    stripe_size: str
    zero: str


class PieceRow(msgspec.Struct):
    """One row of `pvseg`: a run of extents on one physical volume, free where it has no logical volume."""

    pv_name: str
    lv_name: str
    pvseg_size: int


class GroupReport(msgspec.Struct):
    """The part of one volume group, all its sections."""

    vg: list[VolumeGroupRow]
    pv: list[PhysicalVolumeRow]
    lv: list[LogicalVolumeRow]
    seg: list[SegmentRow]
    pvseg: list[PieceRow]


class FullReport(msgspec.Struct):
    """All parts: one for each volume group, and perhaps one without any."""

    report: list[msgspec.Raw]
    """Not yet decoded: as plain objects, 500 volumes would be megabytes that Python never gives back."""
