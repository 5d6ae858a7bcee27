"""thin_dump's and thin_delta's XML: as Debian's 0.9 printed it, as generated, and broken."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.backends.lvm.thin_xml import differing, mapped
from ullage.errors import KIB, UnreadableReportError
from ullage.model import ByteRange

CHUNK = 64 * KIB
SUPERBLOCK = '<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="0">'
DELTA = f"""{SUPERBLOCK}
  <diff left="2" right="3">
    <left_only begin="0" length="2"/>
    <same begin="2" length="3"/>
    <different begin="5" length="3"/>
    <same begin="8" length="2"/>
    <right_only begin="20" length="3"/>
  </diff>
</superblock>
"""
DUMP = f"""{SUPERBLOCK}
  <device dev_id="2" mapped_blocks="11" transaction="1" creation_time="1" snap_time="1">
    <range_mapping origin_begin="0" data_begin="0" length="10" time="0"/>
    <single_mapping origin_block="12" data_block="3" time="0"/>
  </device>
</superblock>
"""
Runs = list[tuple[int, int]]


def delta(text: str, *, left_bytes: int = 0) -> Runs:
    return chunks(list(differing(io.BytesIO(text.encode()), 2, 3, left_bytes=left_bytes)))


def dump(text: str) -> Runs:
    return chunks(list(mapped(io.BytesIO(text.encode()), 2)))


def chunks(ranges: Sequence[ByteRange]) -> Runs:
    assert all(each.offset_bytes % CHUNK == each.size_bytes % CHUNK == 0 for each in ranges)
    return [(each.offset_bytes // CHUNK, each.size_bytes // CHUNK) for each in ranges]


def test_what_differs_or_is_in_one_only_counts_and_what_is_the_same_does_not() -> None:
    assert delta(DELTA) == [(0, 2), (5, 3), (20, 3)]


def test_what_is_mapped_counts_alone_and_in_runs() -> None:
    assert dump(DUMP) == [(0, 10), (12, 1)]


def test_a_device_with_nothing_in_it_has_no_ranges() -> None:
    assert dump(f'{SUPERBLOCK}<device dev_id="2" mapped_blocks="0"/></superblock>') == []
    assert delta(f'{SUPERBLOCK}<diff left="2" right="3"/></superblock>') == []


@pytest.mark.parametrize(
    ("left_bytes", "expected"),
    [
        (8 * CHUNK, [(0, 2), (5, 3), (20, 3)]),
        (8 * CHUNK + 1, [(0, 2), (5, 4), (20, 3)]),
        (10 * CHUNK - 1, [(0, 2), (5, 3), (9, 1), (20, 3)]),
        (12 * CHUNK + 1, [(0, 2), (5, 3), (20, 3)]),
    ],
)
def test_a_shared_chunk_that_the_smaller_one_ends_in_counts(left_bytes: int, expected: Runs) -> None:
    assert delta(DELTA, left_bytes=left_bytes) == expected


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "<superblock>",
        DELTA[:-5],
        DELTA + "x",
        DELTA.replace("</diff>", "done</diff>"),
        DELTA.replace("different", "similar"),
        DELTA.replace('left="2"', 'left="4"'),
        DELTA.replace('right="3"', ""),
        DELTA.replace('"128"', '"0"'),
        DELTA.replace('"128"', '"1_28"'),
        DELTA.replace('begin="5"', 'begin="1"'),
        DELTA.replace('begin="5" length="3"', 'begin="5" length="0"'),
        DELTA.replace('begin="5"', 'begin="-5"'),
        DELTA.replace('begin="5"', ""),
        DELTA.replace("</superblock>", '<diff left="2" right="3"/></superblock>'),
        f"{SUPERBLOCK}</superblock>",
        f'{SUPERBLOCK}<same begin="1" length="1"/></superblock>',
        "<!DOCTYPE superblock>" + DELTA,
        DUMP,
    ],
)
def test_a_delta_that_is_not_one_is_refused(broken: str) -> None:
    with pytest.raises(UnreadableReportError, match="thin_delta's report makes no sense"):
        delta(broken)


@pytest.mark.parametrize(
    "broken",
    [
        f"{SUPERBLOCK}</superblock>",  # 0.9 says this, and succeeds, of a device that is not there
        DUMP.replace('dev_id="2"', 'dev_id="3"'),
        DUMP.replace('mapped_blocks="11"', 'mapped_blocks="12"'),
        DUMP.replace('origin_block="12"', 'origin_block="9"'),
        DUMP.replace("</superblock>", '<device dev_id="3" mapped_blocks="0"/></superblock>'),
        DUMP.replace("<single_mapping", "<ref"),
        DELTA,
    ],
)
def test_a_dump_that_is_not_one_is_refused(broken: str) -> None:
    with pytest.raises(UnreadableReportError, match="thin_dump's report makes no sense"):
        dump(broken)


KINDS = ("same", "different", "left_only", "right_only")
DIFF = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.sampled_from(KINDS)), max_size=60)


@given(DIFF, st.integers(1, 16))
def test_every_chunk_is_told_once_and_only_if_it_may_differ(pieces: list[tuple[int, int, str]], sectors: int) -> None:
    expected, at, lines = set(), 0, []
    for gap, length, kind in pieces:
        at += gap
        lines.append(f'<{kind} begin="{at}" length="{length}"/>')
        expected |= set(range(at, at + length)) if kind != "same" else set()
        at += length
    head = f'<superblock data_block_size="{sectors}">'
    text = f'{head}<diff left="2" right="3">{"".join(lines)}</diff></superblock>'
    ranges = list(differing(io.BytesIO(text.encode()), 2, 3))
    size = sectors * 512
    told = [each.offset_bytes // size + index for each in ranges for index in range(each.size_bytes // size)]
    assert told == sorted(expected)
    ends = [each.offset_bytes + each.size_bytes for each in ranges]
    assert all(end < after.offset_bytes for end, after in zip(ends, ranges[1:], strict=False)), "apart"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=60))
def test_every_mapped_chunk_is_told_once(pieces: list[tuple[int, int]]) -> None:
    expected: list[int] = []
    lines, at = [], 0
    for gap, length in pieces:
        at += gap
        one = f'<single_mapping origin_block="{at}" data_block="7" time="0"/>'
        lines.append(one if length == 1 else f'<range_mapping origin_begin="{at}" length="{length}"/>')
        expected += range(at, at + length)
        at += length
    head = f'{SUPERBLOCK}<device dev_id="2" mapped_blocks="{len(expected)}">'
    found = dump(f"{head}{''.join(lines)}</device></superblock>")
    assert [begin + index for begin, length in found for index in range(length)] == expected


@given(st.binary(max_size=200))
def test_whatever_comes_is_refused_or_whole(content: bytes) -> None:
    with pytest.raises(UnreadableReportError):
        list(mapped(io.BytesIO(content), 2))


@given(st.integers(0, len(DELTA.rstrip()) - 1))
def test_a_report_that_was_cut_off_is_refused(length: int) -> None:
    with pytest.raises(UnreadableReportError):
        delta(DELTA[:length])
