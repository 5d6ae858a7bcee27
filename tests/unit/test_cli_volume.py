"""`ullage volume`: which CSI calls each verb makes, what it prints, and what it refuses. The driver is played."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import grpc
import pytest
from google.protobuf.message import Message

from ullage.cli import USAGE_ERROR, main
from ullage.cli.mounted import Mount, at, others, parsed, require_empty, require_ours, resolved
from ullage.cli.output import DEFAULT_CSI_SOCKET
from ullage.cli.volume import STAGING
from ullage.cli.volume_calls import CLASS_KEY, WIPE_KEY, split_flags
from ullage.errors import GIB, MIB, ForeignContentError, NotOursError
from ullage.names import snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc

Context = grpc.ServicerContext
Code = grpc.StatusCode
SHARED = pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER
ONE_MIB_MORE = MIB


def volume(name: str, size_bytes: int) -> pb.Volume:
    here = pb.Topology(segments={"ullage.io/node": "here"})
    return pb.Volume(volume_id=name, capacity_bytes=size_bytes, accessible_topology=[here])


class PlayedDriver(csi_pb2_grpc.ControllerServicer, csi_pb2_grpc.NodeServicer):
    """Knows the volumes `a` to `e`, lists two at a time, notes every request, and refuses what it is told to."""

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.refused: dict[type[Message], tuple[grpc.StatusCode, str]] = {}
        self.is_block = False
        self.may_answer = threading.Event()
        self.may_answer.set()

    def _note(self, request: Message, context: Context) -> None:
        self.asked.append(request)
        self.may_answer.wait(60)
        if type(request) in self.refused:
            self._refuse(context, *self.refused[type(request)])

    def _refuse(self, context: Context, code: grpc.StatusCode, sentence: str) -> NoReturn:
        context.abort(code, sentence)
        raise AssertionError("it does not return")

    def CreateVolume(self, request: pb.CreateVolumeRequest, context: Context) -> pb.CreateVolumeResponse:  # noqa: N802
        self._note(request, context)
        made = volume(f"v-{request.name}", request.capacity_range.required_bytes + ONE_MIB_MORE)
        return pb.CreateVolumeResponse(volume=made)

    def ListVolumes(self, request: pb.ListVolumesRequest, context: Context) -> pb.ListVolumesResponse:  # noqa: N802
        self._note(request, context)
        left = [name for name in "abcde" if name > request.starting_token]
        entries = [pb.ListVolumesResponse.Entry(volume=volume(name, GIB)) for name in left[:2]]
        return pb.ListVolumesResponse(entries=entries, next_token=left[1] if len(left) > 2 else "")

    def ControllerGetVolume(  # noqa: N802
        self, request: pb.ControllerGetVolumeRequest, context: Context
    ) -> pb.ControllerGetVolumeResponse:
        self._note(request, context)
        if request.volume_id not in "abcde":
            self._refuse(context, Code.NOT_FOUND, "it is nowhere")
        return pb.ControllerGetVolumeResponse(volume=volume(request.volume_id, GIB))

    def ControllerExpandVolume(  # noqa: N802
        self, request: pb.ControllerExpandVolumeRequest, context: Context
    ) -> pb.ControllerExpandVolumeResponse:
        self._note(request, context)
        size_bytes = request.capacity_range.required_bytes
        return pb.ControllerExpandVolumeResponse(capacity_bytes=size_bytes, node_expansion_required=not self.is_block)

    def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: Context) -> pb.DeleteVolumeResponse:  # noqa: N802
        self._note(request, context)
        return pb.DeleteVolumeResponse()

    def NodeStageVolume(  # noqa: N802
        self, request: pb.NodeStageVolumeRequest, context: Context
    ) -> pb.NodeStageVolumeResponse:
        self._note(request, context)
        return pb.NodeStageVolumeResponse()

    def NodePublishVolume(  # noqa: N802
        self, request: pb.NodePublishVolumeRequest, context: Context
    ) -> pb.NodePublishVolumeResponse:
        self._note(request, context)
        return pb.NodePublishVolumeResponse()

    def NodeUnpublishVolume(  # noqa: N802
        self, request: pb.NodeUnpublishVolumeRequest, context: Context
    ) -> pb.NodeUnpublishVolumeResponse:
        self._note(request, context)
        return pb.NodeUnpublishVolumeResponse()

    def NodeUnstageVolume(  # noqa: N802
        self, request: pb.NodeUnstageVolumeRequest, context: Context
    ) -> pb.NodeUnstageVolumeResponse:
        self._note(request, context)
        return pb.NodeUnstageVolumeResponse()

    def NodeExpandVolume(  # noqa: N802
        self, request: pb.NodeExpandVolumeRequest, context: Context
    ) -> pb.NodeExpandVolumeResponse:
        self._note(request, context)
        return pb.NodeExpandVolumeResponse(capacity_bytes=request.capacity_range.required_bytes)


@pytest.fixture
def driver() -> PlayedDriver:
    return PlayedDriver()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(driver: PlayedDriver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Exit code, standard output and standard error of `ullage volume …` against the driver."""
    socket = f"unix://{tmp_path}/csi.sock"

    def ran(*words: str) -> tuple[int, str, str]:
        try:
            code = main(("volume", *words, "--csi-endpoint", socket))
        except SystemExit as ended:  # argparse's
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        csi_pb2_grpc.add_ControllerServicer_to_server(driver, server)
        csi_pb2_grpc.add_NodeServicer_to_server(driver, server)
        server.add_insecure_port(socket)
        server.start()
        yield ran
        server.stop(0).wait()


def names(driver: PlayedDriver) -> list[str]:
    return [type(request).__name__.removesuffix("Request") for request in driver.asked]


def test_create_asks_for_what_the_options_say_and_prints_what_was_made(driver: PlayedDriver, run: Run) -> None:
    words = ("create", "db", "--size", "10Gi", "--limit", "12Gi", "--class", "fast", "--wipe", "zero")
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["ID", "SIZE", "NODE"],
        ["v-db", "10.0", "GiB", "here"],
    ]
    (request,) = driver.asked
    assert isinstance(request, pb.CreateVolumeRequest)
    assert request.name == "db"
    assert (request.capacity_range.required_bytes, request.capacity_range.limit_bytes) == (10 * GIB, 12 * GIB)
    assert dict(request.parameters) == {CLASS_KEY: "fast"}
    assert dict(request.mutable_parameters) == {WIPE_KEY: "zero"}
    (capability,) = request.volume_capabilities
    assert (capability.HasField("mount"), capability.access_mode.mode) == (True, SHARED)


def test_create_leaves_to_the_driver_what_is_not_said(driver: PlayedDriver, run: Run) -> None:
    assert run("create", "db", "--size", "1000")[0] == 0
    (request,) = driver.asked
    assert isinstance(request, pb.CreateVolumeRequest)
    assert (dict(request.parameters), dict(request.mutable_parameters)) == ({}, {})
    assert request.capacity_range == pb.CapacityRange(required_bytes=1000)


def test_how_large_a_clone_is_can_be_left_to_the_driver(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("create", "again", "--from", "a")
    assert (code, err, out.splitlines()[1].split()[0]) == (0, "", "v-again")
    request = driver.asked[-1]
    assert isinstance(request, pb.CreateVolumeRequest)
    assert request.capacity_range == pb.CapacityRange()
    assert request.volume_content_source.volume.volume_id == "a"


def test_a_clone_may_be_larger_and_is_waited_for(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.CreateVolumeRequest] = (Code.DEADLINE_EXCEEDED, "0 B of 1.0 GiB are copied")
    code, out, err = run("create", "again", "--from", "a", "--size", "2Gi", "--timeout", "1.2")
    assert (code, out) == (1, "")
    assert err.splitlines()[0] == "0 B of 1.0 GiB are copied"
    assert len(driver.asked) > 1
    last = driver.asked[-1]
    assert isinstance(last, pb.CreateVolumeRequest)
    assert last.capacity_range.required_bytes == 2 * GIB


def test_create_tells_programs_the_id_and_the_exact_size(run: Run) -> None:
    (made,) = json.loads(run("create", "db", "--size", "1Gi", "-o", "json")[1])["items"]
    assert (made["volumeId"], made["capacityBytes"]) == ("v-db", GIB + ONE_MIB_MORE)


def test_list_reads_every_page(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["ID", "a", "b", "c", "d", "e"]
    assert [request.starting_token for request in driver.asked] == ["", "b", "d"]  # type: ignore[attr-defined]


def test_list_has_bytes_when_it_is_wide(run: Run) -> None:
    heading, first, *_ = (line.split() for line in run("list", "-o", "wide")[1].splitlines())
    assert heading == ["ID", "SIZE", "BYTES", "NODE"]
    assert first == ["a", "1.0", "GiB", str(GIB), "here"]


def test_expand_without_a_mount_grows_the_volume_and_says_what_is_left(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("expand", "a", "--size", "20Gi")
    assert (code, err, names(driver)) == (0, "", ["ControllerExpandVolume"])
    assert out.startswith("volume a has 20.0 GiB\n")
    assert "--path" in out


def test_expand_of_what_needs_no_more_says_no_more(driver: PlayedDriver, run: Run) -> None:
    driver.is_block = True
    assert run("expand", "a", "--size", "20Gi") == (0, "volume a has 20.0 GiB\n", "")


def test_expand_with_a_path_grows_what_is_there_too(driver: PlayedDriver, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("expand", "a", "--size", "20Gi", "--path", f"{tmp_path}/x/../m")
    assert (code, names(driver)) == (0, ["ControllerExpandVolume", "NodeExpandVolume"])
    last = driver.asked[-1]
    assert isinstance(last, pb.NodeExpandVolumeRequest)
    assert (last.volume_id, last.volume_path, last.staging_target_path) == ("a", f"{tmp_path}/m", "")
    assert last.capacity_range.required_bytes == 20 * GIB
    assert out.splitlines()[-1] == f"what is mounted at {tmp_path}/m has grown with it"


def test_expand_that_the_file_system_does_not_follow_is_an_error_and_the_size_is_told(
    driver: PlayedDriver, run: Run
) -> None:
    driver.refused[pb.NodeExpandVolumeRequest] = (Code.UNAVAILABLE, "resize2fs exited with 1")
    code, out, err = run("expand", "a", "--size", "20Gi", "--path", "/srv/a")
    assert (code, out, err) == (1, "volume a has 20.0 GiB\n", "ullage: resize2fs exited with 1\n")


def test_delete_of_a_volume_that_is_there(driver: PlayedDriver, run: Run) -> None:
    assert run("delete", "a") == (0, "volume a deleted\n", "")
    assert names(driver) == ["ControllerGetVolume", "DeleteVolume"]


def test_a_name_misspelt_is_not_said_to_be_deleted(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("delete", "z")
    assert (code, out) == (1, "")
    assert err == "ullage: there is no volume z; `ullage volume list` shows those there are\n"
    assert names(driver) == ["ControllerGetVolume"]


def test_a_volume_that_is_neither_there_nor_gone_is_deleted(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.ControllerGetVolumeRequest] = (Code.ABORTED, "still being made")
    assert run("delete", "z")[0] == 0
    assert names(driver)[-1] == "DeleteVolume"


def test_a_script_may_delete_what_may_be_gone(driver: PlayedDriver, run: Run) -> None:
    assert run("delete", "z", "--ignore-not-found")[0] == 0
    assert names(driver) == ["DeleteVolume"]


def test_mount_stages_and_publishes_with_the_same_words(driver: PlayedDriver, run: Run, tmp_path: Path) -> None:
    staging, target = tmp_path / "staging" / "a", tmp_path / "m"
    words = ("--fs", "xfs", "-o", 'noatime,context="s0:c1,c2"', "-o", "nodev", "--staging-path", str(staging))
    code, out, err = run("mount", "a", str(target), *words)
    assert (code, out, err) == (0, f"volume a mounted at {target}\n", "")
    assert staging.parent.is_dir()
    stage, publish = driver.asked
    assert isinstance(stage, pb.NodeStageVolumeRequest)
    assert isinstance(publish, pb.NodePublishVolumeRequest)
    assert (stage.volume_id, stage.staging_target_path) == ("a", str(staging))
    assert (publish.volume_id, publish.staging_target_path, publish.target_path) == ("a", str(staging), str(target))
    assert stage.volume_capability == publish.volume_capability
    how = stage.volume_capability
    assert (how.mount.fs_type, how.access_mode.mode) == ("xfs", SHARED)
    assert list(how.mount.mount_flags) == ["noatime", 'context="s0:c1,c2"', "nodev"]
    assert not publish.readonly


def test_mount_of_a_device_for_reading(driver: PlayedDriver, run: Run, tmp_path: Path) -> None:
    words = ("--block", "--read-only", "--staging-path", f"{tmp_path}/s")
    assert run("mount", "a", f"{tmp_path}/m", *words) == (0, f"volume a mounted at {tmp_path}/m, read-only\n", "")
    publish = driver.asked[-1]
    assert isinstance(publish, pb.NodePublishVolumeRequest)
    assert (publish.volume_capability.HasField("block"), publish.readonly) == (True, True)


def test_a_mount_that_fails_half_way_is_undone_and_its_own_reason_told(
    driver: PlayedDriver, run: Run, tmp_path: Path
) -> None:
    driver.refused[pb.NodePublishVolumeRequest] = (Code.FAILED_PRECONDITION, "no parent directory")
    driver.refused[pb.NodeUnstageVolumeRequest] = (Code.UNAVAILABLE, "busy")
    code, out, err = run("mount", "a", f"{tmp_path}/m", "--staging-path", f"{tmp_path}/s")
    assert (code, out, err) == (1, "", "ullage: no parent directory\n")
    assert names(driver) == ["NodeStageVolume", "NodePublishVolume", "NodeUnstageVolume"]


def test_mount_hides_nobodys_files(driver: PlayedDriver, run: Run, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one").touch()
    code, _, err = run("mount", "a", f"{tmp_path}/letters", "--staging-path", f"{tmp_path}/s")
    assert (code, names(driver)) == (1, [])
    assert "has files in it" in err


def test_unmount_unpublishes_and_unstages_where_mount_staged(driver: PlayedDriver, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("unmount", "a", f"{tmp_path}/m")
    assert (code, out) == (0, f"nothing was mounted at {tmp_path}/m\n")
    unpublish, unstage = driver.asked
    assert isinstance(unpublish, pb.NodeUnpublishVolumeRequest)
    assert isinstance(unstage, pb.NodeUnstageVolumeRequest)
    assert (unpublish.volume_id, unpublish.target_path) == ("a", f"{tmp_path}/m")
    assert (unstage.volume_id, unstage.staging_target_path) == ("a", f"{STAGING}/a")


def test_unmount_leaves_alone_what_is_not_the_volumes(driver: PlayedDriver, run: Run) -> None:
    code, out, err = run("unmount", "a", "/proc")
    assert (code, out, names(driver)) == (1, "", [])
    assert "not the same volume, and nothing was unmounted" in err


def test_a_volume_that_is_in_use_stays_staged_and_the_driver_says_why(
    driver: PlayedDriver, run: Run, tmp_path: Path
) -> None:
    driver.refused[pb.NodeUnpublishVolumeRequest] = (Code.FAILED_PRECONDITION, "some process has it open")
    code, _, err = run("unmount", "a", f"{tmp_path}/m")
    assert (code, err) == (1, "ullage: some process has it open\n")
    assert names(driver) == ["NodeUnpublishVolume"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "db"), "required: --size"),
        (("create", "db", "--size", "10Q"), "'10Q' is not a size"),
        (("create", "db", "--size", "0"), "more than nothing"),
        (("create", "db", "--size", "1Gi", "--wipe", "twice"), "invalid choice: 'twice'"),
        (("create", "db", "--from", snapshot_id("x")), "`ullage snapshot restore` makes it a volume"),
        (("expand", "../a", "--size", "1Gi"), "'../a' cannot be a volume id"),
        (("list", "--timeout", "nan"), "'nan' is no number of seconds"),
        (("mount", "a", "/m", "--fs", "vfat"), "invalid choice: 'vfat'"),
        (("mount", "a", "/m", "--block", "--fs", "xfs"), "not allowed with"),
        (("mount", "a", "/m", "--block", "-o", "noatime"), "not allowed with argument --block"),
        (("unmount", "a"), "required: PATH"),
        (("shrink", "a"), "invalid choice: 'shrink'"),
    ],
)
def test_what_was_asked_wrongly_ends_with_2_before_anybody_is_asked(
    driver: PlayedDriver, run: Run, words: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*words)
    assert (code, out, driver.asked) == (USAGE_ERROR, "", [])
    assert said in err


@pytest.mark.parametrize("words", [("list",), ("delete", "a"), ("unmount", "a", "/m")], ids=" ".join)
def test_where_no_driver_is_one_line_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...]
) -> None:
    nowhere = f"unix://{tmp_path}/none.sock"
    assert main(("volume", *words, "--csi-endpoint", nowhere)) == 1
    expected = f"no driver answers on {nowhere}: is `ullage standalone` running, and may you open its socket?"
    assert capsys.readouterr().err == f"ullage: {expected}\n"


def test_a_driver_that_takes_too_long_is_given_up_with_advice(driver: PlayedDriver, run: Run) -> None:
    driver.may_answer.clear()
    code, _, err = run("list", "--timeout", "0.1")
    driver.may_answer.set()
    assert code == 1
    assert "ask the same again" in err


def test_a_refusal_is_told_in_the_drivers_words(driver: PlayedDriver, run: Run) -> None:
    driver.refused[pb.CreateVolumeRequest] = (Code.RESOURCE_EXHAUSTED, "vg0 has 1.0 GiB free, 10.0 GiB wanted")
    assert run("create", "db", "--size", "10Gi") == (1, "", "ullage: vg0 has 1.0 GiB free, 10.0 GiB wanted\n")


def test_the_default_socket_is_in_the_help(run: Run) -> None:
    assert DEFAULT_CSI_SOCKET in run("create", "--help")[1]


MOUNTINFO = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
24 22 0:6 / /dev rw,nosuid - devtmpfs devtmpfs rw
30 22 7:0 / /run/s/a rw,noatime shared:5 - xfs /dev/loop0 rw
31 22 7:0 / /srv/a\040b rw,noatime shared:5 - xfs /dev/loop0 rw
32 22 7:1 / /srv/c rw - ext4 /dev/loop1 rw
33 22 7:2 / /srv/c rw - ext4 /dev/loop2 rw
34 22 0:6 /loop3 /srv/block rw,nosuid master:1 - devtmpfs devtmpfs rw
"""
TABLE = parsed(MOUNTINFO)
STAGED = Path("/run/s/a")


def test_a_line_of_mountinfo_is_read_with_blanks_in_its_path() -> None:
    mount = Mount(place=Path("/srv/a b"), device="7:0", root="/", kind="xfs", source="/dev/loop0")
    assert mount in TABLE


def test_of_mounts_one_above_the_other_the_uppermost_is_seen() -> None:
    there = at(TABLE, Path("/srv/c"))
    assert there is not None
    assert there.source == "/dev/loop2"


def test_where_else_a_staged_volume_is_mounted() -> None:
    assert others(TABLE, STAGED) == [Path("/srv/a b")]
    assert others([mount for mount in TABLE if mount.place != Path("/srv/a b")], STAGED) == []


def test_what_is_not_staged_keeps_nothing_staged() -> None:
    assert others(TABLE, Path("/run/s/none")) == []


@pytest.mark.parametrize("place", ["/srv/a b", "/srv/block", "/srv/not-mounted"])
def test_a_volumes_own_mount_may_be_taken_away(place: str) -> None:
    require_ours(TABLE, Path(place), STAGED)


@pytest.mark.parametrize(("place", "staging"), [("/srv/c", STAGED), ("/dev", STAGED), ("/srv/a b", Path("/run/s/x"))])
def test_anothers_mount_may_not(place: str, staging: Path) -> None:
    with pytest.raises(NotOursError, match="nothing was unmounted"):
        require_ours(TABLE, Path(place), staging)


def test_a_directory_that_shows_the_volume_already_may_have_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    shown = Mount(place=tmp_path, device="7:0", root="/", kind="xfs", source="/dev/loop0")
    require_empty([shown], tmp_path)
    with pytest.raises(ForeignContentError, match="has files in it"):
        require_empty([], tmp_path)


def test_a_path_is_spelt_as_the_kernel_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert resolved("link/a") == tmp_path / "real" / "a"
    assert resolved("link/../b") == tmp_path / "b"
    assert resolved("link/") == tmp_path / "link"


@pytest.mark.parametrize(
    ("flags", "split"),
    [
        ("noatime,nodev", ["noatime", "nodev"]),
        ('context="a,b",ro', ['context="a,b"', "ro"]),
        (",noatime,", ["noatime"]),
        ("", []),
    ],
)
def test_flags_are_split_at_the_commas_outside_of_quotes(flags: str, split: list[str]) -> None:
    assert split_flags(flags) == split
