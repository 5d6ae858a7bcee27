"""A CSI driver that does nothing, at once: what the sidecars and the control plane take by themselves.

  python -m bench.idle_driver SOCKET NODE

Every volume that is asked for "is" on the one node. No driver can be faster than this one beside the same sidecars.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf.wrappers_pb2 import BoolValue

from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc

DRIVER = "idle.ullage.io"
NODE_KEY = f"{DRIVER}/node"
THREADS = 32
Service = pb.PluginCapability.Service
Rpc = pb.ControllerServiceCapability.RPC


class Identity(csi_pb2_grpc.IdentityServicer):
    """csi.v1.Identity, of a driver with topology."""

    def GetPluginInfo(self, request: pb.GetPluginInfoRequest, context: object) -> pb.GetPluginInfoResponse:  # noqa: ARG002, D102, N802 - documented in the proto
        return pb.GetPluginInfoResponse(name=DRIVER, vendor_version="0")

    def GetPluginCapabilities(  # noqa: D102, N802
        self,
        request: pb.GetPluginCapabilitiesRequest,  # noqa: ARG002
        context: object,  # noqa: ARG002
    ) -> pb.GetPluginCapabilitiesResponse:
        services = (Service.CONTROLLER_SERVICE, Service.VOLUME_ACCESSIBILITY_CONSTRAINTS)
        return pb.GetPluginCapabilitiesResponse(
            capabilities=[pb.PluginCapability(service=Service(type=each)) for each in services]
        )

    def Probe(self, request: pb.ProbeRequest, context: object) -> pb.ProbeResponse:  # noqa: ARG002, D102, N802
        return pb.ProbeResponse(ready=BoolValue(value=True))


class Controller(csi_pb2_grpc.ControllerServicer):
    """csi.v1.Controller: creates and deletes nothing."""

    def __init__(self, node: str) -> None:
        """`node` is where everything is."""
        self._node = node

    def ControllerGetCapabilities(  # noqa: D102, N802
        self,
        request: pb.ControllerGetCapabilitiesRequest,  # noqa: ARG002
        context: object,  # noqa: ARG002
    ) -> pb.ControllerGetCapabilitiesResponse:
        able = pb.ControllerServiceCapability(rpc=Rpc(type=Rpc.CREATE_DELETE_VOLUME))
        return pb.ControllerGetCapabilitiesResponse(capabilities=[able])

    def CreateVolume(self, request: pb.CreateVolumeRequest, context: object) -> pb.CreateVolumeResponse:  # noqa: ARG002, D102, N802
        volume = pb.Volume(
            volume_id=request.name,
            capacity_bytes=request.capacity_range.required_bytes,
            accessible_topology=[pb.Topology(segments={NODE_KEY: self._node})],
        )
        return pb.CreateVolumeResponse(volume=volume)

    def DeleteVolume(self, request: pb.DeleteVolumeRequest, context: object) -> pb.DeleteVolumeResponse:  # noqa: ARG002, D102, N802
        return pb.DeleteVolumeResponse()


def main(socket: str, node: str) -> int:
    """Serve until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(THREADS))
    csi_pb2_grpc.add_IdentityServicer_to_server(Identity(), server)
    csi_pb2_grpc.add_ControllerServicer_to_server(Controller(node), server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(1.0)
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    sys.exit(main(*sys.argv[1:]))
