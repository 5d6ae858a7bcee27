"""The agent's socket: a real server, a real channel, and an agent that does what a test tells it to."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import pytest
from grpc_health.v1 import health_pb2

from node_agent import service
from node_agent.agent import Agent
from node_agent.backends.port import StoreReport
from node_agent.service import MOST_WATCHERS, SERVICE, AgentService, agent_server
from node_agent.stock import Stock
from ullage.errors import (
    MIB,
    ConfigError,
    InsufficientCapacityError,
    NotFoundError,
    StillRunningError,
)
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClassName,
    DeviceType,
    Done,
    ExpandVolume,
    Pool,
    PoolName,
    StoreName,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1 import agent_pb2_grpc
from ullage.rpc import MARGIN_SECONDS, PATIENCE_SECONDS, RpcServer

LONG_SECONDS = 60.0
"""Reaching it would be a hang."""
Code = grpc.StatusCode


def volume(name: str) -> Volume:
    return Volume(
        id=VolumeId(name),
        pool=PoolName("vg0"),
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        device_class=DeviceClassName("fast"),
        size_bytes=8 * MIB,
        device_size_bytes=8 * MIB,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        device_path=f"/dev/vg0/{name}",
    )


def report(free: int, *, volumes: Sequence[Volume] = ()) -> StoreReport:
    pool = Pool(
        name=PoolName("vg0"),
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        classes=(DeviceClassName("fast"),),
        total_bytes=400 * MIB,
        free_bytes=free,
        extent_bytes=4 * MIB,
    )
    return StoreReport(name=StoreName("vg0"), pools=(pool,), volumes=tuple(volumes))


class PlayedAgent:
    """An Agent as far as the service knows it: notes what it is asked, and answers or raises what it is given."""

    def __init__(self) -> None:
        self.stock = Stock()
        self.waited = threading.Semaphore(0)
        self.asked: list[object] = []
        self.patience: list[float] = []
        self.answer: Done | Exception = Done(volume=volume("pvc-1"), is_new=True)

    def create(self, request: CreateVolume, *, patience_seconds: float) -> Done:
        return self._done(request, patience_seconds)

    def delete(self, request: DeleteVolume, *, patience_seconds: float) -> Done:
        return self._done(request, patience_seconds)

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Done:
        return self._done(request, patience_seconds)

    def snapshot(self, request: TakeSnapshot, *, patience_seconds: float) -> Done:
        return self._done(request, patience_seconds)

    def get(self, volume_id: VolumeId) -> Volume:
        found = self.stock.find(volume_id)
        if found is None:
            raise NotFoundError(f"volume {volume_id} is nowhere", volume_id=volume_id)
        return found

    def volumes(self) -> tuple[Volume, ...]:
        return tuple(self.stock.volumes().values())

    def pools(self) -> tuple[Pool, ...]:
        return tuple(self.stock.pools().values())

    def wait_for_change(self, version: int, timeout_seconds: float) -> int:
        self.waited.release()
        return self.stock.wait_for_change(version, timeout_seconds)

    def _done(self, request: object, patience_seconds: float) -> Done:
        self.asked.append(request)
        self.patience.append(patience_seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Caller:
    """A ServicerContext as far as a watch knows it."""

    def __init__(self) -> None:
        self.active = True

    def is_active(self) -> bool:
        return self.active


@pytest.fixture
def agent() -> PlayedAgent:
    return PlayedAgent()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "agent.sock"


@pytest.fixture
def server(agent: PlayedAgent, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RpcServer]:
    """Bound, not yet started."""
    monkeypatch.setattr(service, "WATCH_SECONDS", 0.05)
    server = server_of(agent, path)
    server.bind()
    yield server
    server.stop(0)


@pytest.fixture
def channel(server: RpcServer, path: Path) -> Iterator[grpc.Channel]:
    server.start()
    with grpc.insecure_channel(f"unix://{path}") as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> agent_pb2_grpc.AgentStub:
    return agent_pb2_grpc.AgentStub(channel)


def server_of(agent: PlayedAgent, path: Path) -> RpcServer:
    return agent_server(cast("Agent", agent), f"unix://{path}")


def failure(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    assert isinstance(raised.value, grpc.Call)
    return raised.value.code(), raised.value.details() or ""


def create(stub: agent_pb2_grpc.AgentStub, timeout: float | None = LONG_SECONDS) -> pb.CreateVolumeResponse:
    request = pb.CreateVolumeRequest(volume_id="pvc-1", size_bytes=1)
    response: pb.CreateVolumeResponse = stub.CreateVolume(request, timeout=timeout)
    return response


def health(channel: grpc.Channel, name: str = "") -> str:
    request = health_pb2.HealthCheckRequest(service=name)
    check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    status = check(request, timeout=LONG_SECONDS).status
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)


def test_nobody_else_may_ever_open_the_socket(agent: PlayedAgent, path: Path) -> None:
    """Watched all the time from before it is made."""
    path.parent.mkdir()
    modes: set[int] = set()
    ready, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.is_set():
            if path.exists():
                modes.add(stat.S_IMODE(path.stat().st_mode))
            ready.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert ready.wait(LONG_SECONDS)
    before = os.umask(0)
    try:
        server = server_of(agent, path)
        server.bind()
        assert os.umask(0) == 0, "the umask is as before"
    finally:
        os.umask(before)
        done.set()
        watcher.join()
    modes.add(stat.S_IMODE(path.stat().st_mode))
    server.stop(0)
    assert modes == {0o600}


def test_a_socket_that_a_dead_process_left_is_replaced(agent: PlayedAgent, path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = server_of(agent, path)
    server.bind()
    server.start()
    with grpc.insecure_channel(f"unix://{path}") as channel:
        assert health(channel) == "SERVING"
    server.stop(0)


def test_two_agents_do_not_share_a_socket_even_before_the_first_serves(server: RpcServer, path: Path) -> None:
    assert server is not None
    inode = path.stat().st_ino
    with pytest.raises(ConfigError, match="another process is serving on"):
        server_of(PlayedAgent(), path).bind()
    assert path.stat().st_ino == inode


def test_a_server_that_is_too_busy_to_accept_is_alive(agent: PlayedAgent, path: Path) -> None:
    path.parent.mkdir()
    with ExitStack() as open_sockets:
        busy = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
        busy.bind(str(path))
        busy.listen(0)
        error = 0
        while error == 0:  # one after the other, until its queue is full
            waiting = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            waiting.settimeout(0)
            error = waiting.connect_ex(str(path))
        assert error == errno.EAGAIN
        with pytest.raises(ConfigError, match="another process is serving on"):
            server_of(agent, path).bind()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_not_touched(agent: PlayedAgent, path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "file":
        path.write_text("precious", encoding="ascii")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("precious")
    before = path.lstat()
    with pytest.raises(ConfigError, match="is there and is no socket; it is not touched"):
        server_of(agent, path).bind()
    assert path.lstat().st_ino == before.st_ino


def test_a_place_where_no_socket_can_be_is_a_configuration_error(agent: PlayedAgent, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    for place in (tmp_path / "file" / "s.sock", tmp_path / "file" / "deeper" / "s.sock", tmp_path / ("x" * 120)):
        with pytest.raises(ConfigError, match="cannot be made"):
            server_of(agent, place).bind()


@pytest.mark.parametrize("address", ["", "/run/a.sock", "unix:", "unix:run/a.sock", "tcp://127.0.0.1:1", "localhost:1"])
def test_an_address_that_is_no_socket_is_refused(agent: PlayedAgent, address: str) -> None:
    with pytest.raises(ConfigError, match=r"is no socket address; write unix:///run/ullage/agent\.sock"):
        agent_server(cast("Agent", agent), address)


def test_stopping_removes_the_socket_whether_it_served_or_not(agent: PlayedAgent, path: Path) -> None:
    for serves in (False, True):
        server = server_of(agent, path)
        server.bind()
        if serves:
            server.start()
        server.stop(0)
        assert not path.exists()


def test_health_says_whether_it_serves(server: RpcServer, channel: grpc.Channel) -> None:
    assert [health(channel), health(channel, SERVICE)] == ["SERVING", "SERVING"]
    server.set_serving(is_serving=False)
    assert [health(channel), health(channel, SERVICE)] == ["NOT_SERVING", "NOT_SERVING"]
    assert failure(lambda: health(channel, "other"))[0] is Code.NOT_FOUND


def test_what_is_asked_between_bind_and_start_is_answered_after_start(server: RpcServer, path: Path) -> None:
    with grpc.insecure_channel(f"unix://{path}") as channel:
        early = agent_pb2_grpc.AgentStub(channel).ListPools.future(pb.ListPoolsRequest(), timeout=LONG_SECONDS)
        server.start()
        assert list(early.result(timeout=LONG_SECONDS).pools) == []


def test_changes_are_passed_on_and_their_results_answered(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    created = create(stub)
    assert (created.volume.volume_id, created.was_there) == ("pvc-1", False)
    agent.answer = Done(volume=volume("pvc-1"), is_new=False)
    assert create(stub).was_there
    expanded = stub.ExpandVolume(pb.ExpandVolumeRequest(volume_id="pvc-1", size_bytes=2), timeout=LONG_SECONDS)
    assert (expanded.volume.volume_id, expanded.was_large_enough) == ("pvc-1", True)
    agent.answer = Done(volume=None, is_new=False)
    assert stub.DeleteVolume(pb.DeleteVolumeRequest(volume_id="pvc-1", pool="vg0"), timeout=LONG_SECONDS).was_gone
    assert agent.asked[1:] == [
        CreateVolume(volume_id=VolumeId("pvc-1"), device_class=DeviceClassName(""), size_bytes=1),
        ExpandVolume(volume_id=VolumeId("pvc-1"), size_bytes=2),
        DeleteVolume(volume_id=VolumeId("pvc-1"), pool=PoolName("vg0")),
    ]


def test_reads_come_from_memory(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    agent.stock.put(report(100 * MIB, volumes=[volume("a"), volume("b")]))
    listed = stub.ListVolumes(pb.ListVolumesRequest(), timeout=LONG_SECONDS).volumes
    assert [each.volume_id for each in listed] == ["a", "b"]
    (pool,) = stub.ListPools(pb.ListPoolsRequest(), timeout=LONG_SECONDS).pools
    assert (pool.name, pool.free_bytes) == ("vg0", 100 * MIB)
    assert stub.GetVolume(pb.GetVolumeRequest(volume_id="a"), timeout=LONG_SECONDS).volume.volume_id == "a"
    assert failure(lambda: stub.GetVolume(pb.GetVolumeRequest(volume_id="c"), timeout=LONG_SECONDS)) == (
        Code.NOT_FOUND,
        "volume c is nowhere",
    )
    assert agent.asked == []


def test_a_snapshot_is_asked_for_and_answered(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    taken = replace(volume("s-1"), kind=VolumeKind.SNAPSHOT, source=VolumeId("pvc-1"), taken_at=1_800_000_000)
    agent.answer = Done(volume=taken, is_new=False)
    request = pb.CreateSnapshotRequest(snapshot_id="s-1", source_volume_id="pvc-1")
    answer = stub.CreateSnapshot(request, timeout=LONG_SECONDS)
    assert answer.was_there
    assert (answer.snapshot.is_snapshot, answer.snapshot.source_volume_id) == (True, "pvc-1")
    assert answer.snapshot.taken_at == 1_800_000_000
    assert agent.asked[-1] == TakeSnapshot(snapshot_id=VolumeId("s-1"), source=VolumeId("pvc-1"))


def test_a_refusal_is_its_code_its_sentence_and_one_warning(
    agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub, caplog: pytest.LogCaptureFixture
) -> None:
    agent.answer = InsufficientCapacityError("fast/vg0 has 1.0 GiB free after reserve, 2.0 GiB wanted", pool="vg0")
    with caplog.at_level(logging.INFO):
        assert failure(lambda: create(stub)) == (Code.RESOURCE_EXHAUSTED, str(agent.answer))
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "rpc refused")
    facts = record.__dict__
    assert (facts["rpc"], facts["volume_id"], facts["reason"]) == ("CreateVolume", "pvc-1", "InsufficientCapacity")


def test_what_nobody_foresaw_is_internal_and_one_traceback(
    agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub, caplog: pytest.LogCaptureFixture
) -> None:
    agent.answer = KeyError("sda")
    with caplog.at_level(logging.INFO):
        assert failure(lambda: create(stub)) == (Code.INTERNAL, "KeyError: 'sda'")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "rpc failed")
    assert record.exc_info is not None
    assert record.exc_info[1] is agent.answer


def test_a_long_unforeseen_sentence_stays_internal(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    agent.answer = ValueError("x" * 100_000)
    assert failure(lambda: create(stub))[0] is Code.INTERNAL


def test_patience_has_an_end_of_its_own(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    create(stub, timeout=None)
    create(stub, timeout=10 * PATIENCE_SECONDS)
    assert agent.patience == [PATIENCE_SECONDS, PATIENCE_SECONDS]


@pytest.mark.parametrize("timeout", [1.001, 9.99, 10.01, 20, 60, 99.9, 100.1, 250, 299])
def test_patience_ends_before_the_callers_deadline_does(
    agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub, timeout: float
) -> None:
    """Though gRPC sends time limits with three digits, rounded up: what we are told may be 1 % too long."""
    create(stub, timeout=timeout)
    (patience,) = agent.patience
    assert 0 < patience <= timeout - MARGIN_SECONDS


def test_at_the_end_of_its_patience_a_caller_hears_our_sentence(
    agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub
) -> None:
    agent.answer = StillRunningError("CreateVolume of pvc-1 has been running for 9 s and goes on; ask again")
    assert failure(lambda: create(stub)) == (Code.DEADLINE_EXCEEDED, str(agent.answer))


def test_a_watch_tells_at_once_and_then_what_changed(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    agent.stock.put(report(100 * MIB))
    watch = stub.WatchPools(pb.WatchPoolsRequest(), timeout=LONG_SECONDS)
    assert [pool.free_bytes for pool in next(watch).pools] == [100 * MIB]
    agent.stock.put(report(80 * MIB))
    assert [pool.free_bytes for pool in next(watch).pools] == [80 * MIB]
    watch.cancel()


def test_changes_that_come_together_arrive_together(agent: PlayedAgent) -> None:
    caller = Caller()
    watch = AgentService(cast("Agent", agent)).WatchPools(pb.WatchPoolsRequest(), cast("grpc.ServicerContext", caller))
    assert list(next(watch).pools) == []
    for free in range(10):
        agent.stock.put(report(free * MIB))
    assert [pool.free_bytes for pool in next(watch).pools] == [9 * MIB]
    caller.active = False
    assert list(watch) == []


def test_a_change_that_shows_in_no_pool_is_not_told(agent: PlayedAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WATCH_SECONDS", 0.0)
    caller = Caller()
    watch = AgentService(cast("Agent", agent)).WatchPools(pb.WatchPoolsRequest(), cast("grpc.ServicerContext", caller))
    agent.stock.put(report(8 * MIB))
    next(watch)
    agent.stock.put(report(8 * MIB, volumes=[volume("a")]))
    told: list[pb.WatchPoolsResponse] = []
    watcher = threading.Thread(target=lambda: told.extend(watch))
    watcher.start()
    # One wait for the first answer, one that may be from before the change, one that saw it, one that passed over it.
    for _ in range(4):
        assert agent.waited.acquire(timeout=LONG_SECONDS)
    caller.active = False
    watcher.join(LONG_SECONDS)
    assert told == []


def test_watchers_are_bounded_and_make_room_when_they_go(agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub) -> None:
    agent.stock.put(report(8 * MIB))
    watches = [stub.WatchPools(pb.WatchPoolsRequest(), timeout=LONG_SECONDS) for _ in range(MOST_WATCHERS)]
    for watch in watches:
        next(watch)
    one_more = stub.WatchPools(pb.WatchPoolsRequest(), timeout=LONG_SECONDS)
    assert failure(lambda: next(one_more)) == (
        Code.RESOURCE_EXHAUSTED,
        f"{MOST_WATCHERS} watchers are the most at once",
    )
    assert create(stub).volume.volume_id == "pvc-1", "others are served beside them"
    watches[0].cancel()
    late = None
    end = time.monotonic() + LONG_SECONDS
    while late is None:  # until the thread of the one that has gone has noticed
        assert time.monotonic() < end
        attempt = stub.WatchPools(pb.WatchPoolsRequest(), timeout=LONG_SECONDS)
        with contextlib.suppress(grpc.RpcError):
            late = attempt if next(attempt).pools else None
    for watch in (*watches[1:], late):
        watch.cancel()


def test_a_stop_ends_the_watchers_within_the_grace(
    server: RpcServer, agent: PlayedAgent, stub: agent_pb2_grpc.AgentStub
) -> None:
    agent.stock.put(report(8 * MIB))
    watch = stub.WatchPools(pb.WatchPoolsRequest(), timeout=LONG_SECONDS)
    next(watch)
    server.stop(LONG_SECONDS)
    assert list(watch) == [], "it ended in good order, and was not cut off"
