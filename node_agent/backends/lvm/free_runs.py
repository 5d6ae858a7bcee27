"""The free runs of one physical volume, as `pvs --segments` tells them among those that are taken, in their order."""

from __future__ import annotations

import msgspec

from ullage.errors import InsufficientCapacityError, UnreadableReportError

ARGUMENTS = (
    *("--segments", "--reportformat", "json", "--units", "b", "--nosuffix"),
    *("-o", "vg_extent_size,pvseg_start,pvseg_size,lv_name", "--sort", "pvseg_start"),
)


class _RunRow(msgspec.Struct):
    vg_extent_size: int
    pvseg_start: int
    pvseg_size: int
    lv_name: str


class _Runs(msgspec.Struct):
    pvseg: list[_RunRow]


class _RunsReport(msgspec.Struct):
    report: list[_Runs]


_RUNS = msgspec.json.Decoder(_RunsReport, strict=False)


def end_of_free(report: str, wanted_bytes: int) -> int:
    """The extent on one physical volume up to which, it included, `wanted_bytes` are free; from `pvs --segments`."""
    try:
        rows = _RUNS.decode(report).report[0].pvseg
    except (msgspec.MsgspecError, IndexError) as failure:
        raise UnreadableReportError(f"lvm's report makes no sense: {failure}", argv=("lvm", "pvs")) from failure
    for row in rows:
        if not row.lv_name:
            wanted_bytes -= row.pvseg_size * row.vg_extent_size
            if wanted_bytes <= 0:
                return row.pvseg_start + row.pvseg_size - 1 + wanted_bytes // row.vg_extent_size
    raise InsufficientCapacityError("the physical volume has less free space than the last report said")
