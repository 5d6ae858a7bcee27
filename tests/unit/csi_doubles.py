"""A caller of CSI's RPCs without a wire, and the capabilities it asks for."""

from __future__ import annotations

from typing import NoReturn, cast

import grpc

from csi.capabilities import Mode
from ullage.pb.csi.v1 import csi_pb2 as pb

RWO = Mode.SINGLE_NODE_MULTI_WRITER
ROX = Mode.MULTI_NODE_READER_ONLY


class RefusedError(Exception):
    """What `abort` raises, as gRPC's own does: nothing after it runs."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


class Caller:
    """A ServicerContext as far as an RPC knows it."""

    def __init__(self, waits_seconds: float | None = None) -> None:
        self._waits_seconds = waits_seconds

    def time_remaining(self) -> float | None:
        return self._waits_seconds

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise RefusedError(code, details)


def caller(waits_seconds: float | None = None) -> grpc.ServicerContext:
    return cast("grpc.ServicerContext", Caller(waits_seconds))


def mounted(fs_type: str = "", *flags: str, mode: pb.VolumeCapability.AccessMode.Mode = RWO) -> pb.VolumeCapability:
    mount = pb.VolumeCapability.MountVolume(fs_type=fs_type, mount_flags=flags)
    return pb.VolumeCapability(mount=mount, access_mode=Mode(mode=mode))


def block(mode: pb.VolumeCapability.AccessMode.Mode = RWO) -> pb.VolumeCapability:
    return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=Mode(mode=mode))
