"""The command line as a person and a script meet it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
import yaml

from ullage.agent_client import agent_at
from ullage.cli import SUBCOMMANDS, USAGE_ERROR, main, snapshot, volume
from ullage.cli.output import DEFAULT_SOCKET
from ullage.errors import GIB, MIB
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1 import agent_pb2_grpc
from ullage.rpc_client import CallFailedError

THICK = pb.Pool(
    name="vg0",
    type="thick",
    device_classes=["fast", "safe"],
    total_bytes=100 * GIB,
    free_bytes=40 * GIB + 1,
    reserve_bytes=5 * GIB,
    largest_volume_bytes=39 * GIB,
    extent_bytes=4 * MIB,
    physical_volumes=[pb.PhysicalVolume(name="/dev/vda", free_bytes=45 * GIB)],
    exists=True,
)
THIN = pb.Pool(
    name="vg0/pool0",
    type="thin",
    device_classes=["cheap"],
    thin=pb.ThinUsage(virtual_bytes=1, data_percent=12.34, metadata_percent=5, overprovision_ratio="1.5"),
)
LOST = pb.Pool(name="vg1", type="thick", problem=pb.Problem(reason="VolumeGroupMissing", message="vg1 is nowhere"))
READY = pb.Volume(
    volume_id="pvc-1",
    device_class="fast",
    pool="vg0",
    size_bytes=8 * GIB,
    state=pb.VOLUME_STATE_READY,
    device_path="/dev/vg0/pvc-1",
    device_major=253,
    owner=pb.Owner(pv_name="pvc-1", claim_namespace="shop", claim_name="db-0"),
    is_open=True,
)
BARE = pb.Volume(
    volume_id="pvc-2",
    state=pb.VOLUME_STATE_DELETING,
    problem=pb.Problem(reason="Partial"),
    is_snapshot=True,
    source_volume_id="pvc-1",
)


class PlayedAgent(agent_pb2_grpc.AgentServicer):
    """Answers with what is above."""

    def ListPools(self, _request: pb.ListPoolsRequest, _context: grpc.ServicerContext) -> pb.ListPoolsResponse:  # noqa: N802
        return pb.ListPoolsResponse(pools=[THICK, THIN, LOST])

    def ListVolumes(self, _request: pb.ListVolumesRequest, _context: grpc.ServicerContext) -> pb.ListVolumesResponse:  # noqa: N802
        return pb.ListVolumesResponse(volumes=[READY, BARE])

    def WatchPools(  # noqa: N802
        self, _request: pb.WatchPoolsRequest, _context: grpc.ServicerContext
    ) -> Iterator[pb.WatchPoolsResponse]:
        yield pb.WatchPoolsResponse(pools=[THICK])
        yield pb.WatchPoolsResponse(pools=[LOST])

    def GetVolume(self, _request: pb.GetVolumeRequest, context: grpc.ServicerContext) -> pb.GetVolumeResponse:  # noqa: N802
        context.abort(grpc.StatusCode.NOT_FOUND, "volume a is on none of this node's stores")
        raise AssertionError("it does not return")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    socket = f"unix://{tmp_path_factory.mktemp('cli')}/agent.sock"
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        agent_pb2_grpc.add_AgentServicer_to_server(PlayedAgent(), server)
        server.add_insecure_port(socket)
        server.start()
        yield socket
        server.stop(0).wait()


def lines(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The words of each line that a command prints, where it succeeds in silence."""
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return [line.split() for line in printed.out.splitlines()]


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of a command that argparse ends."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--help")
    assert code == 0
    for name in SUBCOMMANDS:
        assert re.search(rf"^    {name}\s", out, re.MULTILINE)


VERBS = [f"{name} {verb}" for name, module in (("volume", volume), ("snapshot", snapshot)) for verb in module.VERBS]


@pytest.mark.parametrize("name", [*SUBCOMMANDS, *VERBS])
def test_every_command_has_a_line_about_it_and_examples(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = said(capsys, *name.split(), "--help")
    assert code == 0
    examples = [line for line in out.splitlines() if line.startswith(f"  ullage {name}")]
    assert len(examples) >= 2
    assert all(len(line) <= 120 for line in out.splitlines())


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == (0, f"ullage {version('ullage')}\n", "")


@pytest.mark.parametrize("words", [(), ("buckets",), ("pools", "-o", "xml"), ("pools", "extra"), ("agent",)])
def test_what_was_asked_wrongly_ends_with_2_and_the_usage(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, out) == (USAGE_ERROR, "")
    assert err.startswith("usage: ullage")


def test_a_configuration_that_cannot_be_used_ends_with_2_and_one_line(tmp_path: Path) -> None:
    with program("agent", "--config", str(tmp_path / "none.yaml"), stdout=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (USAGE_ERROR, "")
    assert err.startswith("ullage: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["pools", "volumes"])
def test_where_no_agent_is_one_line_says_so(capsys: pytest.CaptureFixture[str], name: str, tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/agent.sock"
    assert main([name, "--agent", nowhere]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    expected = f"ullage: no agent answers on {nowhere}: is `ullage agent` running, and may you open its socket?\n"
    assert printed.err == expected


def test_a_refusal_of_the_agents_is_told_in_its_words(address: str) -> None:
    with (
        pytest.raises(CallFailedError, match=r"^volume a is on none of this node's stores$") as raised,
        agent_at(address) as agent,
    ):
        agent.GetVolume(pb.GetVolumeRequest(volume_id="a"), timeout=60)
    assert raised.value.code == "NOT_FOUND"


def test_pools_are_a_table(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert lines(capsys, "pools", "--agent", address) == [
        ["NAME", "TYPE", "CLASSES", "TOTAL", "FREE", "LARGEST", "STATUS"],
        ["vg0", "thick", "fast,safe", "100.0", "GiB", "40.0", "GiB", "39.0", "GiB", "Ready"],
        ["vg0/pool0", "thin", "cheap", "0", "B", "0", "B", "0", "B", "MadeOnDemand"],
        ["vg1", "thick", "0", "B", "0", "B", "0", "B", "VolumeGroupMissing"],
    ]


def test_columns_stand_below_their_headings(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert main(["pools", "--agent", address]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    place = heading.index("STATUS")
    assert [row[place:] for row in rows] == ["Ready", "MadeOnDemand", "VolumeGroupMissing"]
    assert all(row == row.rstrip() for row in rows)


def test_a_wide_table_of_pools_has_the_rest(capsys: pytest.CaptureFixture[str], address: str) -> None:
    heading, thick, thin, _ = lines(capsys, "pools", "-o", "wide", "--agent", address)
    assert heading[6:] == ["RESERVE", "EXTENT", "DATA%", "META%", "DEVICES", "STATUS"]
    assert thick[-8:] == ["5.0", "GiB", "4.0", "MiB", "-", "-", "/dev/vda", "Ready"]
    assert thin[-4:] == ["12.3", "5.0", "-", "MadeOnDemand"]


def test_volumes_are_a_table(capsys: pytest.CaptureFixture[str], address: str) -> None:
    assert lines(capsys, "volumes", "--agent", address) == [
        ["ID", "CLASS", "POOL", "SIZE", "STATE", "CLAIM", "PROBLEM"],
        ["pvc-1", "fast", "vg0", "8.0", "GiB", "Ready", "shop/db-0", "-"],
        ["pvc-2", "0", "B", "Deleting", "-", "Partial"],
    ]


def test_a_wide_table_of_volumes_has_the_rest(capsys: pytest.CaptureFixture[str], address: str) -> None:
    heading, ready, bare = lines(capsys, "volumes", "-o", "wide", "--agent", address)
    assert heading[6:] == ["KIND", "SOURCE", "OPEN", "PV", "DEVICE", "PROBLEM"]
    assert ready[-6:] == ["volume", "-", "yes", "pvc-1", "/dev/vg0/pvc-1", "-"]
    assert bare[-6:] == ["snapshot", "pvc-1", "no", "-", "-", "Partial"]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_for_programs_sizes_are_whole_numbers_and_nothing_is_left_out(
    capsys: pytest.CaptureFixture[str], address: str, output: str
) -> None:
    read = json.loads if output == "json" else yaml.safe_load
    assert main(["pools", "-o", output, "--agent", address]) == 0
    thick, thin, lost = read(capsys.readouterr().out)["items"]
    assert (thick["freeBytes"], thick["totalBytes"]) == (40 * GIB + 1, 100 * GIB)
    assert thick["physicalVolumes"] == [{"name": "/dev/vda", "freeBytes": 45 * GIB, "scatteredBytes": 0}]
    assert (thick["deviceClasses"], thick["exists"], thick["disks"]) == (["fast", "safe"], True, [])
    assert "problem" not in thick
    assert thin["thin"] == {
        "virtualBytes": 1,
        "dataPercent": 12.34,
        "metadataPercent": 5.0,
        "overprovisionRatio": "1.5",
    }
    assert lost["problem"] == {"reason": "VolumeGroupMissing", "message": "vg1 is nowhere"}
    assert lost["freeBytes"] == 0
    assert main(["volumes", "-o", output, "--agent", address]) == 0
    ready, bare = read(capsys.readouterr().out)["items"]
    assert (ready["volumeId"], ready["sizeBytes"], ready["state"]) == ("pvc-1", 8 * GIB, "VOLUME_STATE_READY")
    assert ready["owner"]["claimName"] == "db-0"
    assert bare["sizeBytes"] == 0


def test_a_watch_prints_again_at_each_change(capsys: pytest.CaptureFixture[str], address: str) -> None:
    printed = lines(capsys, "pools", "--watch", "--agent", address)
    assert [line[0] for line in printed] == ["NAME", "vg0", "NAME", "vg1"]


def program(*words: str, stdout: int) -> subprocess.Popen[str]:
    """The real program, which keeps what it prints in a buffer as it does in anybody's pipe."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-m", "ullage.cli", *words], stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
    )


@pytest.mark.parametrize("words", [("--help",), ("pools",), ("pools", "-o", "json"), ("volumes",)], ids=" ".join)
def test_a_reader_that_has_gone_is_no_news(address: str, words: tuple[str, ...]) -> None:
    """As in `ullage pools | head -1`, also where all of it is still in our buffer at the end."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    agent = ("--agent", address) if words[0] in SUBCOMMANDS else ()
    with program(*words, *agent, stdout=write_end) as process:
        os.close(write_end)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + signal.SIGPIPE, "")


def test_the_default_socket_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert DEFAULT_SOCKET in said(capsys, "pools", "--help")[1]


def test_a_controller_that_is_told_of_no_cluster_says_what_is_missing(tmp_path: Path) -> None:
    words = ["controller", "--namespace", "ullage", "--kubeconfig", str(tmp_path / "nowhere")]
    done = subprocess.run([sys.executable, "-m", "ullage.cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == USAGE_ERROR
    assert re.search(r"^ullage: .*/nowhere: ", done.stderr, re.MULTILINE), done.stderr
