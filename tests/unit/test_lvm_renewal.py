"""What a thin pool is told to begin its snapshots anew, and when it is told nothing at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import BinaryIO

import pytest

from node_agent.backends.lvm.command import Lvm
from node_agent.backends.lvm.renewal import renew
from ullage.errors import NotOursError, UllageError, UnreadableReportError
from ullage.model import (
    DeviceClassName,
    DeviceType,
    PoolName,
    StoreName,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.run import Finished

STORE = StoreName("vg-x")
MARKS = "ullage.io/volume={0},ullage.io/kind=snapshot,ullage.io/source={1},ullage.io/state=creating"


def snapshot(name: str, source: str) -> Volume:
    return Volume(
        id=VolumeId(name),
        kind=VolumeKind.SNAPSHOT,
        source=VolumeId(source),
        pool=PoolName(f"{STORE}/pool-0"),
        store=STORE,
        type=DeviceType.THIN,
        device_class=DeviceClassName("main"),
        size_bytes=1,
        device_size_bytes=1,
        state=VolumeState.CREATING,
        wipe=Wipe.NONE,
        device_path="",
    )


def row(name: str, tags: str, thin_id: str, pool: str = "pool-0", active: str = "") -> dict[str, str]:
    return {"lv_name": name, "lv_tags": tags, "thin_id": thin_id, "pool_lv": pool, "lv_active": active}


ROWS = (
    row("a", "ullage.io/volume=a", "1", active="active"),
    row("b", "other,ullage.io/volume=b", "2", active="active"),
    row("s-a", MARKS.format("s-a", "a"), "7"),
    row("s-b", MARKS.format("s-b", "b"), "8"),
    row("pool-0", "", "", ""),
)
BOTH = (snapshot("s-a", "a"), snapshot("s-b", "b"))


class Scripted:
    """A Runner that answers one report, and notes what is changed."""

    def __init__(self, report: str) -> None:
        self._report = report
        self.changed: list[tuple[str, ...]] = []

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,  # noqa: ARG002 - a Runner
        stdin: str = "",  # noqa: ARG002
        accepted: Sequence[int] = (0,),  # noqa: ARG002
        into: BinaryIO | None = None,  # noqa: ARG002
    ) -> Finished:
        return Finished(argv=tuple(argv), exit_code=0, stdout=self._report, stderr="", seconds=0.0)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:  # noqa: ARG002
        self.changed.append(tuple(argv))
        return Finished(argv=tuple(argv), exit_code=0, stdout="", stderr="", seconds=0.0)


def renewed(rows: Sequence[dict[str, str]], snapshots: Sequence[Volume] = BOTH) -> Scripted:
    runner = Scripted(json.dumps({"report": [{"lv": list(rows)}]}))
    try:
        renew(Lvm(runner=runner, prefix=("nsenter", "--")), STORE, snapshots, devices=("/dev/vda",))
    except UllageError:
        assert runner.changed == [], "all are looked at before the first is touched"
        raise
    return runner


def test_each_snapshot_begins_anew_under_its_own_id() -> None:
    message = ("nsenter", "--", "dmsetup", "message", "vg--x-pool--0-tpool", "0")
    assert renewed(ROWS).changed == [
        (*message, "delete 7"),
        (*message, "create_snap 7 1"),
        (*message, "delete 8"),
        (*message, "create_snap 8 2"),
    ]


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(None, id="gone"),
        pytest.param(row("s-b", "", "8"), id="not ours"),
        pytest.param(row("s-b", MARKS.format("s-z", "b"), "8"), id="another's tag"),
        pytest.param(row("s-b", MARKS.format("s-b", "a"), "8"), id="of another source"),
        pytest.param(row("s-b", MARKS.format("s-b", "b").replace(",ullage.io/state=creating", ""), "8"), id="READY"),
        pytest.param(row("s-b", MARKS.format("s-b", "b").replace("=snapshot", "=volume"), "8"), id="a volume"),
        pytest.param(row("s-b", MARKS.format("s-b", "b").replace("kind=", "kind=x"), "8"), id="no sense"),
        pytest.param(row("s-b", MARKS.format("s-b", "b"), "8", active="active"), id="with a device"),
        pytest.param(row("s-b", MARKS.format("s-b", "b"), "8", pool="pool-1"), id="in another pool"),
        pytest.param(row("s-b", MARKS.format("s-b", "b"), "", pool=""), id="not thin"),
        pytest.param(row("s-b", MARKS.format("s-b", "b"), "2"), id="the source's own id"),
    ],
)
def test_what_is_not_a_new_snapshot_of_its_source_is_not_touched(last: dict[str, str] | None) -> None:
    rows = [each for each in ROWS if each["lv_name"] != "s-b"]
    with pytest.raises(NotOursError, match="s-b is not a new snapshot of vg-x/b"):
        renewed([*rows, last] if last is not None else rows)


def test_a_source_that_is_not_ours_is_not_read_from() -> None:
    with pytest.raises(NotOursError):
        renewed([row("b", "ullage.io/volume=bb", "2"), *(each for each in ROWS if each["lv_name"] != "b")])


def test_half_a_report_changes_nothing() -> None:
    with pytest.raises(UnreadableReportError):
        renewed([{"lv_name": "s-a"}])
