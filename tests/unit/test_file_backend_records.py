"""Records of file volumes: read as strictly as they are written."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace

from node_agent.backends.file.records import Record, read, written
from ullage.model import DeviceClassName, GroupId, Owner, Problem, VolumeId, VolumeKind, VolumeState, Wipe

A = VolumeId("a")
RECORD = Record(
    id=A,
    device_class=DeviceClassName("files"),
    size_bytes=8 << 20,
    old_size_bytes=4 << 20,
    state=VolumeState.GROWING,
    wipe=Wipe.ZERO,
    is_sparse=True,
    owner=Owner(pv_name="pv-1", claim_namespace="default", claim_name="web-0", claim_uid="u-1"),
    created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(written(RECORD)) | fields).encode()


def test_a_record_reads_back_as_it_was_written() -> None:
    assert read(written(RECORD), A) == RECORD


def test_a_record_says_everything_in_words_a_person_can_read() -> None:
    assert json.loads(written(RECORD)) == {
        "version": 2,
        "id": "a",
        "kind": "volume",
        "source": None,
        "taken_at": 0,
        "group": None,
        "filled_bytes": 0,
        "shares_blocks": False,
        "class": "files",
        "size_bytes": 8388608,
        "old_size_bytes": 4194304,
        "state": "growing",
        "needs_wipe": False,
        "wipe": "zero",
        "is_sparse": True,
        "owner": {"pv_name": "pv-1", "claim_namespace": "default", "claim_name": "web-0", "claim_uid": "u-1"},
        "created_at": "2026-01-02T03:04:05Z",
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 0},
        {"id": "b"},
        {"size_bytes": 0},
        {"size_bytes": 8.5},
        {"size_bytes": "8388608"},
        {"old_size_bytes": -1},
        {"old_size_bytes": 0},
        {"old_size_bytes": 16 << 20},
        {"state": "fine"},
        {"wipe": None},
        {"created_at": "2026-01-02T03:04:05"},
        {"unknown": 1},
        {"kind": "picture"},
        {"taken_at": -1},
        {"kind": "snapshot", "source": "b"},
        {"kind": "snapshot", "state": "ready"},
        {"kind": "frozen", "source": "b", "state": "filling"},
        {"state": "filling"},
        {"state": "filling", "source": "b", "filled_bytes": (8 << 20) + 1},
        {"version": 1},
    ],
)
def test_a_record_with_a_field_that_makes_no_sense_is_unreadable(fields: dict[str, object]) -> None:
    problem = read(changed(**fields), A)
    assert isinstance(problem, Problem)
    assert problem.reason == "RecordUnreadable"


def test_a_record_of_the_first_format_is_read_as_a_volume_that_began_empty() -> None:
    since_2 = {"kind", "source", "taken_at", "group", "filled_bytes", "shares_blocks"}
    first = {name: value for name, value in json.loads(written(RECORD)).items() if name not in since_2}
    assert read(json.dumps(first | {"version": 1}).encode(), A) == RECORD


def test_a_snapshot_and_a_copy_that_is_being_filled_read_back_as_they_were_written() -> None:
    ready = replace(RECORD, state=VolumeState.READY, old_size_bytes=0, source=VolumeId("b"))
    member = replace(ready, kind=VolumeKind.SNAPSHOT, taken_at=1, group=GroupId("g-1"), shares_blocks=True)
    for record in (member, replace(ready, state=VolumeState.FILLING, filled_bytes=8 << 20)):
        assert read(written(record), A) == record


def test_a_newer_record_is_told_apart_from_a_broken_one() -> None:
    problem = read(b'{"version": 3, "id": {"new": "shape"}}', A)
    assert isinstance(problem, Problem)
    assert problem.reason == "RecordTooNew"


@given(some.binary() | some.integers(0, 300).map(lambda size: written(RECORD)[:size]))
def test_no_bytes_are_mistaken_for_a_record_and_none_raise(content: bytes) -> None:
    assert isinstance(read(content, A), Problem)
