"""A client of the node agent's socket, whose failures are our own errors again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from ullage.errors import UnavailableError
from ullage.pb.agent.v1 import agent_pb2_grpc

TIMEOUT_SECONDS = 60.0


class CallFailedError(UnavailableError):
    """The agent refused, or did not answer; `code` is gRPC's name for why."""

    reason = "CallFailed"

    def __init__(self, sentence: str, *, code: str) -> None:
        """`sentence` is the agent's own where it gave one."""
        super().__init__(sentence, code=code)
        self.code = code


@contextlib.contextmanager
def agent_at(address: str) -> Iterator[agent_pb2_grpc.AgentStub]:
    """A stub for the agent at unix:///path; RPC failures inside the block are raised as CallFailedError."""
    with grpc.insecure_channel(address) as channel:
        try:
            yield agent_pb2_grpc.AgentStub(channel)
        except grpc.RpcError as failure:
            code = failure.code().name
            sentence = failure.details() or code
            if failure.code() is grpc.StatusCode.UNAVAILABLE and "connect" in sentence:
                sentence = f"no agent answers on {address}: is `ullage agent` running, and may you open its socket?"
            raise CallFailedError(sentence, code=code) from failure
