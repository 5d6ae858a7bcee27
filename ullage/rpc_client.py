"""What the clients of our sockets share: a channel whose failures are our own errors again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc

from ullage.errors import UnavailableError

NO_ANSWER = "no answer came in time; what was asked for may go on: ask the same again to find the result"


class CallFailedError(UnavailableError):
    """The other side refused, or did not answer; `code` is gRPC's name for why."""

    reason = "CallFailed"

    def __init__(self, sentence: str, *, code: str) -> None:
        """`sentence` is the other side's own where it gave one."""
        super().__init__(sentence, code=code)
        self.code = code


@contextlib.contextmanager
def channel_to(address: str, *, absent: str) -> Iterator[grpc.Channel]:
    """A channel to unix:///path; RPC failures inside the block are raised as CallFailedError.

    `absent` says what to do when nobody answers there.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            yield channel
        except grpc.RpcError as failure:
            code = failure.code()
            sentence = failure.details() or code.name
            if code is grpc.StatusCode.UNAVAILABLE and "connect" in sentence:
                sentence = absent
            elif code is grpc.StatusCode.DEADLINE_EXCEEDED and sentence == "Deadline Exceeded":  # gRPC's own words
                sentence = NO_ANSWER
            raise CallFailedError(sentence, code=code.name) from failure
