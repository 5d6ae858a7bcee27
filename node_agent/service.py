"""The agent's gRPC service: unwrap, call, wrap. Every RPC's errors, time limit and log line are in one place.

Reads are answered from memory. A changing RPC waits as long as its caller does, and no longer than the server's own
patience: the operation itself goes on either way.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc

from node_agent.agent import Agent
from node_agent.messages import (
    create_request,
    delete_request,
    expand_request,
    pool_message,
    snapshot_request,
    volume_message,
)
from node_agent.status import status_of
from ullage.errors import UllageError
from ullage.model import Done, VolumeId
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1 import agent_pb2_grpc
from ullage.rpc import RpcServer, patience, short

if TYPE_CHECKING:
    Context = grpc.ServicerContext

SERVICE = "ullage.agent.v1.Agent"
WORKERS = 96
"""Threads that serve calls: the bound on operations, and room for reads and watchers beside them."""
MOST_WATCHERS = 8
WATCH_SECONDS = 1.0
"""How often a watcher looks whether its caller has gone."""

Request = TypeVar("Request")
Response = TypeVar("Response")
log = logging.getLogger(__name__)


def rpc(method: Callable[[Any, Request, float], Response]) -> Callable[[Any, Request, Context], Response]:
    """Make an RPC of a method that takes the message and the seconds its caller will wait."""

    @functools.wraps(method)
    def served(self: Any, request: Request, context: Context) -> Response:  # noqa: ANN401 - any servicer
        started = time.monotonic()
        facts = {"rpc": method.__name__, "volume_id": getattr(request, "volume_id", "")}
        try:
            response = method(self, request, patience(context))
        except UllageError as error:
            log.warning(
                "rpc refused", extra={**facts, "reason": error.reason, "why": str(error), "seconds": _since(started)}
            )
            _abort(context, error)
        except Exception as error:  # the top of a request: nobody above could log it
            log.exception("rpc failed", extra={**facts, "seconds": _since(started)})
            context.abort(grpc.StatusCode.INTERNAL, short(f"{type(error).__name__}: {error}"))
        log.debug("rpc served", extra={**facts, "seconds": _since(started)})
        return response

    return served


class AgentService(agent_pb2_grpc.AgentServicer):
    """ullage.agent.v1.Agent over an `Agent`."""

    def __init__(self, agent: Agent) -> None:
        """Serve this agent."""
        self._agent = agent
        self._watchers = threading.BoundedSemaphore(MOST_WATCHERS)
        self._is_stopping = False

    @rpc
    def CreateVolume(self, request: pb.CreateVolumeRequest, patience: float) -> pb.CreateVolumeResponse:  # noqa: D102, N802 - documented in the proto
        done = self._agent.create(create_request(request), patience_seconds=patience)
        return pb.CreateVolumeResponse(volume=_made(done), was_there=not done.is_new)

    @rpc
    def DeleteVolume(self, request: pb.DeleteVolumeRequest, patience: float) -> pb.DeleteVolumeResponse:  # noqa: D102, N802
        done = self._agent.delete(delete_request(request), patience_seconds=patience)
        return pb.DeleteVolumeResponse(was_gone=not done.is_new)

    @rpc
    def ExpandVolume(self, request: pb.ExpandVolumeRequest, patience: float) -> pb.ExpandVolumeResponse:  # noqa: D102, N802
        done = self._agent.expand(expand_request(request), patience_seconds=patience)
        return pb.ExpandVolumeResponse(volume=_made(done), was_large_enough=not done.is_new)

    @rpc
    def CreateSnapshot(self, request: pb.CreateSnapshotRequest, patience: float) -> pb.CreateSnapshotResponse:  # noqa: D102, N802
        done = self._agent.snapshot(snapshot_request(request), patience_seconds=patience)
        return pb.CreateSnapshotResponse(snapshot=_made(done), was_there=not done.is_new)

    @rpc
    def GetVolume(self, request: pb.GetVolumeRequest, _patience: float) -> pb.GetVolumeResponse:  # noqa: D102, N802
        return pb.GetVolumeResponse(volume=volume_message(self._agent.get(VolumeId(request.volume_id))))

    @rpc
    def ListVolumes(self, _request: pb.ListVolumesRequest, _patience: float) -> pb.ListVolumesResponse:  # noqa: D102, N802
        return pb.ListVolumesResponse(volumes=[volume_message(volume) for volume in self._agent.volumes()])

    @rpc
    def ListPools(self, _request: pb.ListPoolsRequest, _patience: float) -> pb.ListPoolsResponse:  # noqa: D102, N802
        return pb.ListPoolsResponse(pools=[pool_message(pool) for pool in self._agent.pools()])

    def WatchPools(self, _request: pb.WatchPoolsRequest, context: Context) -> Iterator[pb.WatchPoolsResponse]:  # noqa: N802
        """See the proto. Each watcher holds a thread, so there is a bound."""
        if not self._watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MOST_WATCHERS} watchers are the most at once")
        try:
            version, sent = -1, None
            while context.is_active() and not self._is_stopping:
                newer = self._agent.wait_for_change(version, WATCH_SECONDS)
                if newer != version:
                    version = newer
                    pools = [pool_message(pool) for pool in self._agent.pools()]
                    if pools != sent:
                        sent = pools
                        yield pb.WatchPoolsResponse(pools=pools)
        finally:
            self._watchers.release()

    def stop(self) -> None:
        """End the watchers."""
        self._is_stopping = True


def agent_server(agent: Agent, address: str) -> RpcServer:
    """The agent on its socket, neither bound nor started."""
    service = AgentService(agent)
    server = RpcServer(address, workers=WORKERS, services=(SERVICE,), at_stop=service.stop)
    agent_pb2_grpc.add_AgentServicer_to_server(service, server.grpc)
    return server


def _made(done: Done) -> pb.Volume | None:
    return volume_message(done.volume) if done.volume is not None else None


def _abort(context: Context, error: UllageError) -> NoReturn:
    context.abort_with_status(status_of(error))
    raise AssertionError("abort_with_status does not return")


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
