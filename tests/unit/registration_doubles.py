"""What a kubelet does with a registration socket, in its own protocol."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from ullage.pb.pluginregistration.v1 import registration_pb2 as pb
from ullage.pb.pluginregistration.v1 import registration_pb2_grpc

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Kubelet:
    """A kubelet that has seen a socket appear; every call is on a connection of its own."""

    socket: Path

    def asked(self) -> pb.PluginInfo:
        """Who is there."""
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            found: pb.PluginInfo = registration_pb2_grpc.RegistrationStub(channel).GetInfo(
                pb.InfoRequest(), timeout=PATIENCE_SECONDS, wait_for_ready=True
            )
        return found

    def tells(self, *, is_registered: bool, error: str = "") -> None:
        """What came of it."""
        with grpc.insecure_channel(f"unix://{self.socket}") as channel:
            registration_pb2_grpc.RegistrationStub(channel).NotifyRegistrationStatus(
                pb.RegistrationStatus(plugin_registered=is_registered, error=error),
                timeout=PATIENCE_SECONDS,
                wait_for_ready=True,
            )
