"""Up to which extent a physical volume must be named so that just so much of it is free: from `pvs --segments`."""

from __future__ import annotations

import json

import pytest

from node_agent.backends.lvm.free_runs import end_of_free
from ullage.errors import InsufficientCapacityError, UnreadableReportError

EXTENT = 4194304


def report(*segments: tuple[int, int, str]) -> str:
    rows = [
        {"vg_extent_size": str(EXTENT), "pvseg_start": str(start), "pvseg_size": str(size), "lv_name": name}
        for start, size, name in segments
    ]
    return json.dumps({"report": [{"pvseg": rows}]})


BROKEN_UP = report((0, 4, ""), (4, 3, "a"), (7, 2, ""), (9, 1, "[b_tdata]"), (10, 90, ""))


@pytest.mark.parametrize(("extents", "end"), [(1, 0), (4, 3), (5, 7), (6, 8), (7, 10), (96, 99)])
def test_the_end_is_the_extent_where_enough_has_been_free(extents: int, end: int) -> None:
    assert end_of_free(BROKEN_UP, extents * EXTENT) == end


def test_more_than_is_free_is_a_lack_of_space() -> None:
    with pytest.raises(InsufficientCapacityError):
        end_of_free(BROKEN_UP, 97 * EXTENT)


@pytest.mark.parametrize("text", ["", "{}", '{"report": []}', '{"report": [{"pv": []}]}'])
def test_a_report_that_says_nothing_is_not_taken_for_a_full_disk(text: str) -> None:
    with pytest.raises(UnreadableReportError):
        end_of_free(text, EXTENT)
