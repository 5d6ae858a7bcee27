"""A client of the node agent's socket, whose failures are our own errors again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ullage.pb.agent.v1 import agent_pb2_grpc
from ullage.rpc_client import channel_to

TIMEOUT_SECONDS = 60.0


@contextlib.contextmanager
def agent_at(address: str) -> Iterator[agent_pb2_grpc.AgentStub]:
    """A stub for the agent at unix:///path; RPC failures inside the block are raised as CallFailedError."""
    absent = f"no agent answers on {address}: is `ullage agent` running, and may you open its socket?"
    with channel_to(address, absent=absent) as channel:
        yield agent_pb2_grpc.AgentStub(channel)
