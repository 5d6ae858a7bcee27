"""`ullage snapshot`: which CSI calls each verb makes, what it prints, and what it refuses. The driver is played."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
import yaml
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from ullage.cli import USAGE_ERROR, main
from ullage.errors import GIB, KIB, MIB
from ullage.names import group_id, member_id, snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc

Context = grpc.ServicerContext
Code = grpc.StatusCode

MONDAY, TUESDAY, TORN, BOTH = snapshot_id("monday"), snapshot_id("tuesday"), snapshot_id("torn"), group_id("both")
OF_DB, OF_WAL = member_id(BOTH, "db"), member_id(BOTH, "wal")  # type: ignore[arg-type]
STILL = "volume old is still being filled: 1.0 GiB of 4.0 GiB"


def snapshot(of: str, source: str, *, group: str = "", is_ready: bool = True) -> pb.Snapshot:
    return pb.Snapshot(
        snapshot_id=of,
        source_volume_id=source,
        size_bytes=4 * GIB,
        creation_time=Timestamp(seconds=1_700_000_000),
        ready_to_use=is_ready,
        group_snapshot_id=group,
        accessible_topology=[pb.Topology(segments={"ullage.io/node": "here"})],
    )


def ranges(*starts: int) -> list[pb.BlockMetadata]:
    return [pb.BlockMetadata(byte_offset=start * KIB, size_bytes=64 * KIB) for start in starts]


class PlayedDriver(
    csi_pb2_grpc.ControllerServicer, csi_pb2_grpc.GroupControllerServicer, csi_pb2_grpc.SnapshotMetadataServicer
):
    """Knows five snapshots, lists two at a time, notes every request, and refuses or delays what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.refused: dict[type[Message], tuple[grpc.StatusCode, str]] = {}
        self.refusals_left = -1
        """How often; -1: for ever."""
        self.snapshots = [
            snapshot(MONDAY, "db"),
            snapshot(TUESDAY, "db"),
            snapshot(OF_DB, "db", group=BOTH),
            snapshot(OF_WAL, "wal", group=BOTH),
            snapshot(TORN, "db", is_ready=False),
        ]
        self.messages: list[list[pb.BlockMetadata]] = [ranges(0, 128), [], ranges(1024)]
        self.breaks_off = ""
        self.slow_seconds = 0.0
        """How long the first CreateVolume keeps its caller."""

    def _note(self, request: Message, context: Context) -> None:
        self.asked.append(request)
        if type(request) in self.refused and self.refusals_left != 0:
            self.refusals_left -= 1
            self._refuse(context, *self.refused[type(request)])

    def _refuse(self, context: Context, code: grpc.StatusCode, sentence: str) -> NoReturn:
        context.abort(code, sentence)
        raise AssertionError("it does not return")

    def CreateSnapshot(self, request: pb.CreateSnapshotRequest, context: Context) -> pb.CreateSnapshotResponse:  # noqa: N802
        self._note(request, context)
        taken = snapshot(snapshot_id(request.name), request.source_volume_id, is_ready=request.name != "torn")
        return pb.CreateSnapshotResponse(snapshot=taken)

    def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:  # noqa: N802
        self._note(request, context)
        every = sorted(self.snapshots, key=lambda each: each.snapshot_id)
        wanted = [each for each in every if request.source_volume_id in ("", each.source_volume_id)]
        left = [each for each in wanted if each.snapshot_id > request.starting_token]
        entries = [pb.ListSnapshotsResponse.Entry(snapshot=each) for each in left[:2]]
        return pb.ListSnapshotsResponse(entries=entries, next_token=left[1].snapshot_id if len(left) > 2 else "")

    def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Context) -> pb.GetSnapshotResponse:  # noqa: N802
        self._note(request, context)
        found = next((each for each in self.snapshots if each.snapshot_id == request.snapshot_id), None)
        if found is None:
            self._refuse(context, Code.NOT_FOUND, "it is nowhere")
        return pb.GetSnapshotResponse(snapshot=found)

    def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest, context: Context) -> pb.DeleteSnapshotResponse:  # noqa: N802
        self._note(request, context)
        return pb.DeleteSnapshotResponse()

    def CreateVolume(self, request: pb.CreateVolumeRequest, context: Context) -> pb.CreateVolumeResponse:  # noqa: N802
        self._note(request, context)
        slow_seconds, self.slow_seconds = self.slow_seconds, 0.0
        time.sleep(slow_seconds)
        made = pb.Volume(volume_id=request.name, capacity_bytes=request.capacity_range.required_bytes)
        return pb.CreateVolumeResponse(volume=made)

    def CreateVolumeGroupSnapshot(  # noqa: N802
        self, request: pb.CreateVolumeGroupSnapshotRequest, context: Context
    ) -> pb.CreateVolumeGroupSnapshotResponse:
        self._note(request, context)
        group = group_id(request.name)
        members = [
            snapshot(member_id(group, source), source, group=group)  # type: ignore[arg-type]
            for source in request.source_volume_ids
        ]
        taken = pb.VolumeGroupSnapshot(group_snapshot_id=group, snapshots=members, ready_to_use=True)
        return pb.CreateVolumeGroupSnapshotResponse(group_snapshot=taken)

    def DeleteVolumeGroupSnapshot(  # noqa: N802
        self, request: pb.DeleteVolumeGroupSnapshotRequest, context: Context
    ) -> pb.DeleteVolumeGroupSnapshotResponse:
        self._note(request, context)
        return pb.DeleteVolumeGroupSnapshotResponse()

    def GetMetadataAllocated(  # noqa: N802
        self, request: pb.GetMetadataAllocatedRequest, context: Context
    ) -> Iterator[pb.GetMetadataAllocatedResponse]:
        self._note(request, context)
        for each in self.messages:
            yield pb.GetMetadataAllocatedResponse(
                block_metadata_type=pb.VARIABLE_LENGTH, volume_capacity_bytes=4 * GIB, block_metadata=each
            )

    def GetMetadataDelta(  # noqa: N802
        self, request: pb.GetMetadataDeltaRequest, context: Context
    ) -> Iterator[pb.GetMetadataDeltaResponse]:
        self._note(request, context)
        for each in self.messages:
            yield pb.GetMetadataDeltaResponse(
                block_metadata_type=pb.FIXED_LENGTH, volume_capacity_bytes=4 * GIB, block_metadata=each
            )
        if self.breaks_off:
            self._refuse(context, Code.UNAVAILABLE, self.breaks_off)


@pytest.fixture
def driver() -> PlayedDriver:
    return PlayedDriver()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(driver: PlayedDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Exit code, standard output and standard error of `ullage snapshot …` against the driver."""
    socket = f"unix://{tmp_path}/csi.sock"

    def ran(*words: str) -> tuple[int, str, str]:
        try:
            code = main(("snapshot", *words, "--csi-endpoint", socket))
        except SystemExit as ended:  # argparse's
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        csi_pb2_grpc.add_ControllerServicer_to_server(driver, server)
        csi_pb2_grpc.add_GroupControllerServicer_to_server(driver, server)
        csi_pb2_grpc.add_SnapshotMetadataServicer_to_server(driver, server)
        server.add_insecure_port(socket)
        server.start()
        yield ran
        server.stop(0).wait()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ullage.cli.waiting.PAUSE_SECONDS", 0.01)


def names(driver: PlayedDriver) -> list[str]:
    return [type(request).__name__.removesuffix("Request") for request in driver.asked]


def ids(out: str) -> list[str]:
    """Those in a table."""
    heading, *rows = (line.split() for line in out.splitlines())
    assert heading[0] == "ID"
    return [row[0] for row in rows]


def test_create_takes_one_and_prints_it(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("create", "monday", "--source", "db")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["ID", "SOURCE", "SIZE", "TAKEN", "READY", "GROUP"],
        [MONDAY, "db", "4.0", "GiB", "2023-11-14T22:13:20Z", "yes", "-"],
    ]
    assert driver.asked == [pb.CreateSnapshotRequest(name="monday", source_volume_id="db")]


def test_create_of_several_takes_a_group_and_prints_its_snapshots(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("create", "both", "--source", "db", "--source", "wal")
    assert (code, err, ids(out)) == (0, "", [OF_DB, OF_WAL])
    assert driver.asked == [pb.CreateVolumeGroupSnapshotRequest(name="both", source_volume_ids=["db", "wal"])]
    assert all(line.endswith(BOTH) for line in out.splitlines()[1:])


def test_create_tells_programs_the_id_the_moment_and_the_exact_size(run: Run) -> None:
    (taken,) = json.loads(run("create", "monday", "--source", "db", "-o", "json")[1])["items"]
    assert taken == {
        "snapshotId": MONDAY,
        "sourceVolumeId": "db",
        "sizeBytes": 4 * GIB,
        "creationTime": "2023-11-14T22:13:20Z",
        "readyToUse": True,
        "groupSnapshotId": "",
        "accessibleTopology": [{"segments": {"ullage.io/node": "here"}}],
    }


def test_create_asks_again_while_the_driver_is_at_it(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.CreateSnapshotRequest] = (Code.DEADLINE_EXCEEDED, "lvcreate is running")
    driver.refusals_left = 2
    code, out, err = run("create", "monday", "--source", "db")
    assert (code, ids(out), err) == (0, [MONDAY], "lvcreate is running\n")
    assert names(driver) == ["CreateSnapshot"] * 3


def test_a_snapshot_that_is_lost_by_now_is_not_said_to_be_taken(run: Run) -> None:
    code, out, err = run("create", "torn", "--source", "db")
    assert (code, out) == (1, "")
    assert f"snapshot {TORN} of db is there, and no volume can be made of it" in err


def test_list_reads_every_page(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("list")
    assert (code, err, ids(out)) == (0, "", sorted(each.snapshot_id for each in driver.snapshots))
    assert names(driver) == ["ListSnapshots"] * 3


def test_list_of_one_volume_asks_for_no_others(driver: PlayedDriver, run: Run) -> None:
    code, out, _ = run("list", "wal", "-o", "wide")
    heading, row = (line.split() for line in out.splitlines())
    assert code == 0
    assert heading == ["ID", "SOURCE", "SIZE", "BYTES", "TAKEN", "READY", "GROUP", "NODE"]
    assert row == [OF_WAL, "wal", "4.0", "GiB", str(4 * GIB), "2023-11-14T22:13:20Z", "yes", BOTH, "here"]
    assert driver.asked == [pb.ListSnapshotsRequest(max_entries=1000, source_volume_id="wal")]


def test_a_list_of_none_is_a_heading(driver: PlayedDriver, run: Run) -> None:
    driver.snapshots = []
    assert run("list", "db") == (0, "ID   SOURCE   SIZE   TAKEN   READY   GROUP\n", "")


@pytest.mark.parametrize("word", ["monday", MONDAY])
def test_a_snapshot_is_found_by_its_name_and_by_its_id(run: Run, word: str) -> None:
    code, out, err = run("get", word)
    assert (code, err, ids(out)) == (0, "", [MONDAY])


@pytest.mark.parametrize("word", ["both", BOTH])
def test_a_group_is_found_by_its_name_and_by_its_id(run: Run, word: str) -> None:
    code, out, err = run("get", word)
    assert (code, err, ids(out)) == (0, "", sorted([OF_DB, OF_WAL]))


@pytest.mark.parametrize("word", ["sunday", snapshot_id("sunday"), group_id("sunday")])
@pytest.mark.parametrize("verb", ["get", "delete", "restore"])
def test_a_name_misspelt_is_told(driver: PlayedDriver, run: Run, verb: str, word: str) -> None:
    code, out, err = run(verb, word, *(["old"] if verb == "restore" else []))
    assert (code, out) == (1, "")
    assert err == f"ullage: there is no snapshot {word}; `ullage snapshot list` shows those there are\n"
    assert set(names(driver)) <= {"GetSnapshot", "ListSnapshots"}


@pytest.mark.parametrize("verb", ["get", "delete", "restore"])
def test_a_name_of_a_snapshot_and_of_a_group_is_nobodys(driver: PlayedDriver, run: Run, verb: str) -> None:
    driver.snapshots.append(snapshot(snapshot_id("both"), "db"))
    code, out, err = run(verb, "both", *(["old"] if verb == "restore" else []))
    assert (code, out) == (1, "")
    assert snapshot_id("both") in err
    assert BOTH in err
    assert set(names(driver)) <= {"GetSnapshot", "ListSnapshots"}


@pytest.mark.parametrize("word", ["monday", MONDAY])
def test_delete_of_a_snapshot_that_is_there(driver: PlayedDriver, run: Run, word: str) -> None:
    assert run("delete", word) == (0, f"snapshot {MONDAY} deleted\n", "")
    assert driver.asked[-1] == pb.DeleteSnapshotRequest(snapshot_id=MONDAY)


@pytest.mark.parametrize("word", ["both", BOTH])
def test_delete_of_a_group_names_its_members(driver: PlayedDriver, run: Run, word: str) -> None:
    assert run("delete", word) == (0, f"group {BOTH} deleted\n", "")
    last = driver.asked[-1]
    assert isinstance(last, pb.DeleteVolumeGroupSnapshotRequest)
    assert (last.group_snapshot_id, sorted(last.snapshot_ids)) == (BOTH, sorted([OF_DB, OF_WAL]))


@pytest.mark.parametrize("word", ["sunday", snapshot_id("sunday")])
def test_a_script_may_delete_what_may_be_gone(driver: PlayedDriver, run: Run, word: str) -> None:
    assert run("delete", word, "--ignore-not-found")[0] == 0
    assert driver.asked[-1] == pb.DeleteSnapshotRequest(snapshot_id=snapshot_id("sunday"))


def test_a_script_may_delete_a_group_that_may_be_gone(driver: PlayedDriver, run: Run) -> None:
    assert run("delete", group_id("sunday"), "--ignore-not-found")[0] == 0
    assert driver.asked[-1] == pb.DeleteVolumeGroupSnapshotRequest(group_snapshot_id=group_id("sunday"))


def test_a_snapshot_that_is_neither_there_nor_gone_is_deleted(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.GetSnapshotRequest] = (Code.ABORTED, "still being taken")
    assert run("delete", MONDAY)[0] == 0
    assert names(driver)[-1] == "DeleteSnapshot"


def test_where_a_name_cannot_be_looked_up_nothing_is_deleted(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.GetSnapshotRequest] = (Code.UNAVAILABLE, "vg0 cannot be read")
    assert run("delete", "monday") == (1, "", "ullage: vg0 cannot be read\n")
    assert "DeleteSnapshot" not in names(driver)


@pytest.mark.parametrize("word", ["monday", MONDAY])
def test_restore_leaves_to_the_driver_what_is_not_said(driver: PlayedDriver, run: Run, word: str) -> None:
    code, out, err = run("restore", word, "old")
    assert (code, err, ids(out)) == (0, "", ["old"])
    request = driver.asked[-1]
    assert isinstance(request, pb.CreateVolumeRequest)
    assert (request.name, request.capacity_range) == ("old", pb.CapacityRange())
    assert request.volume_content_source.snapshot.snapshot_id == MONDAY
    assert (dict(request.parameters), dict(request.mutable_parameters)) == ({}, {})


def test_restore_asks_for_what_the_options_say(driver: PlayedDriver, run: Run) -> None:
    words = ("--size", "8Gi", "--limit", "9Gi", "--class", "fast", "--wipe", "zero")
    assert run("restore", "monday", "old", *words)[0] == 0
    request = driver.asked[-1]
    assert isinstance(request, pb.CreateVolumeRequest)
    assert request.capacity_range == pb.CapacityRange(required_bytes=8 * GIB, limit_bytes=9 * GIB)
    assert dict(request.parameters) == {"ullage.io/device-class": "fast"}
    assert dict(request.mutable_parameters) == {"wipe": "zero"}


@pytest.mark.parametrize("code", [Code.ABORTED, Code.DEADLINE_EXCEEDED])
def test_restore_asks_again_until_all_is_copied_and_tells_each_sentence_once(
    driver: PlayedDriver, run: Run, code: grpc.StatusCode
) -> None:
    driver.refused[pb.CreateVolumeRequest] = (code, STILL)
    driver.refusals_left = 3
    exit_code, out, err = run("restore", "monday", "old")
    assert (exit_code, ids(out), err) == (0, ["old"], f"{STILL}\n")
    assert names(driver)[-4:] == ["CreateVolume"] * 4
    assert len({each.SerializeToString(deterministic=True) for each in driver.asked[-4:]}) == 1


def test_restore_that_takes_longer_than_allowed_says_how_far_it_is_and_what_to_do(
    driver: PlayedDriver, run: Run
) -> None:
    driver.refused[pb.CreateVolumeRequest] = (Code.ABORTED, STILL)
    code, out, err = run("restore", "monday", "old", "--timeout", "0.3")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == f"ullage: {STILL} (that was after 0.3 s; the same command again goes on waiting)"


def test_where_the_driver_says_nothing_meanwhile_neither_do_we(
    driver: PlayedDriver, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ullage.cli.waiting.STEP_SECONDS", 0.05)
    driver.slow_seconds = 0.3
    code, out, err = run("restore", "monday", "old")
    assert (code, ids(out), err) == (0, ["old"], "")
    assert names(driver).count("CreateVolume") > 1


@pytest.mark.parametrize("code", [Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION])
def test_what_is_refused_for_good_is_not_asked_again(driver: PlayedDriver, run: Run, code: grpc.StatusCode) -> None:
    driver.refused[pb.CreateVolumeRequest] = (code, "vg0 has 1.0 GiB free")
    assert run("restore", "monday", "old") == (1, "", "ullage: vg0 has 1.0 GiB free\n")
    assert names(driver).count("CreateVolume") == 1


def test_a_group_is_not_restored_as_one_volume(driver: PlayedDriver, run: Run) -> None:
    code, _, err = run("restore", "both", "old")
    assert code == 1
    assert OF_DB in err
    assert OF_WAL in err
    assert "CreateVolume" not in names(driver)


def test_diff_of_two_lists_what_may_differ_and_counts_it(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("diff", "monday", TUESDAY)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["OFFSET", "BYTES"],
        ["0", str(64 * KIB)],
        [str(128 * KIB), str(64 * KIB)],
        [str(1 * MIB), str(64 * KIB)],
        ["3", "ranges,", "192.0", "KiB", "of", "4.0", "GiB"],
    ]
    assert driver.asked == [pb.GetMetadataDeltaRequest(base_snapshot_id=MONDAY, target_snapshot_id=TUESDAY)]


def test_diff_of_one_lists_what_it_has_at_all(driver: PlayedDriver, run: Run) -> None:
    driver.messages = [ranges(0)]
    code, out, _ = run("diff", "tuesday", "--starting-offset", "4Ki")
    assert (code, out.splitlines()[-1]) == (0, "1 range, 64.0 KiB of 4.0 GiB")
    assert driver.asked == [pb.GetMetadataAllocatedRequest(snapshot_id=TUESDAY, starting_offset=4 * KIB)]


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
@pytest.mark.parametrize("messages", [[ranges(0, 128), [], ranges(1024)], [[]]], ids=["some", "none"])
def test_diff_is_one_document_for_programs_with_whole_numbers(
    driver: PlayedDriver,
    run: Run,
    output: str,
    read: Callable[[str], object],
    messages: list[list[pb.BlockMetadata]],
) -> None:
    driver.messages = messages
    code, out, err = run("diff", "monday", "tuesday", "-o", output)
    assert (code, err) == (0, "")
    assert read(out) == {
        "volumeCapacityBytes": 4 * GIB,
        "blockMetadataType": "FIXED_LENGTH",
        "items": [
            {"byteOffset": each.byte_offset, "sizeBytes": each.size_bytes} for message in messages for each in message
        ],
    }


def test_where_nothing_differs_a_driver_may_send_nothing(driver: PlayedDriver, run: Run) -> None:
    driver.messages = []
    assert run("diff", "monday", "tuesday")[1].splitlines()[-1] == "0 ranges, 0 B"
    assert json.loads(run("diff", "monday", "tuesday", "-o", "json")[1])["items"] == []


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_a_list_that_breaks_off_is_no_whole_document_and_says_where_to_go_on(
    driver: PlayedDriver, run: Run, output: str
) -> None:
    driver.messages = [ranges(0, 128), ranges(1024)]
    driver.breaks_off = "the pool is gone"
    code, out, err = run("diff", "monday", "tuesday", "-o", output)
    assert code == 1
    assert str(1 * MIB) in out
    assert "ranges" not in out
    if output == "json":
        with pytest.raises(json.JSONDecodeError):
            json.loads(out)
    assert err == f"ullage: the pool is gone; what is listed is true, go on with --starting-offset {MIB + 64 * KIB}\n"


def test_a_diff_that_is_refused_prints_nothing(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.GetMetadataDeltaRequest] = (Code.FAILED_PRECONDITION, "thick volumes keep no such books")
    assert run("diff", "monday", "tuesday", "-o", "json") == (1, "", "ullage: thick volumes keep no such books\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "monday"), "required: --source"),
        (("create", "", "--source", "db"), "not empty"),
        (("create", MONDAY, "--source", "db"), "would be taken for an id"),
        (("create", BOTH, "--source", "db"), "would be taken for an id"),
        (("create", "monday", "--source", "../db"), "'../db' cannot be a volume id"),
        (("create", "monday", "--source", "db", "--source", "db"), "named twice"),
        (("list", "../db"), "'../db' cannot be a volume id"),
        (("restore", "monday"), "required: NAME"),
        (("restore", "monday", "old", "--size", "0"), "more than nothing"),
        (("restore", "monday", "old", "--wipe", "twice"), "invalid choice: 'twice'"),
        (("diff",), "required: TARGET"),
        (("diff", BOTH, "monday"), "is a group; name one of its snapshots"),
        (("diff", "monday", "--starting-offset", "-1"), "no place in a volume"),
        (("list", "--timeout", "nan"), "'nan' is no number of seconds"),
        (("revert", "monday"), "invalid choice: 'revert'"),
    ],
)
def test_what_was_asked_wrongly_ends_with_2_before_anybody_is_asked(
    driver: PlayedDriver, run: Run, words: Sequence[str], said: str
) -> None:
    code, out, err = run(*words)
    assert (code, out, driver.asked) == (USAGE_ERROR, "", [])
    assert said in err


@pytest.mark.parametrize(
    "words",
    [
        ("create", "monday", "--source", "db"),
        ("list",),
        ("delete", MONDAY),
        ("restore", MONDAY, "old"),
        ("diff", MONDAY),
    ],
    ids=" ".join,
)
def test_where_no_driver_is_one_line_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    assert main(("snapshot", *words, "--csi-endpoint", nowhere)) == 1
    expected = f"no driver answers on {nowhere}: is `ullage standalone` running, and may you open its socket?"
    assert capsys.readouterr().err == f"ullage: {expected}\n"
