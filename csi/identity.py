"""CSI Identity: who this is, and whether it is ready. Every process of the driver says the same.

csi-sanity, and sidecars in a split deployment, read the controller's abilities from the node's Identity too.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.wrappers_pb2 import BoolValue

from csi.calls import Calls, rpc
from csi.orders.about import About, nothing
from ullage import storage_classes
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc

Service = pb.PluginCapability.Service
Expansion = pb.PluginCapability.VolumeExpansion
SERVICES = (
    Service.CONTROLLER_SERVICE,
    Service.VOLUME_ACCESSIBILITY_CONSTRAINTS,
    Service.GROUP_CONTROLLER_SERVICE,
    Service.SNAPSHOT_METADATA_SERVICE,
)


class Identity(csi_pb2_grpc.IdentityServicer):
    """csi.v1.Identity."""

    def __init__(self, calls: Calls, version: str, is_ready: Callable[[], bool]) -> None:
        """`is_ready` answers from memory, at once."""
        self.calls = calls
        self._version = version
        self._is_ready = is_ready

    @rpc(nothing)
    def GetPluginInfo(self, _order: About, _patience: float) -> pb.GetPluginInfoResponse:  # noqa: D102, N802 - documented in the proto
        return pb.GetPluginInfoResponse(name=storage_classes.DRIVER, vendor_version=self._version)

    @rpc(nothing)
    def GetPluginCapabilities(self, _order: About, _patience: float) -> pb.GetPluginCapabilitiesResponse:  # noqa: D102, N802
        return pb.GetPluginCapabilitiesResponse(
            capabilities=[
                *(pb.PluginCapability(service=Service(type=each)) for each in SERVICES),
                pb.PluginCapability(volume_expansion=Expansion(type=Expansion.ONLINE)),
            ]
        )

    @rpc(nothing)
    def Probe(self, _order: About, _patience: float) -> pb.ProbeResponse:  # noqa: D102, N802
        return pb.ProbeResponse(ready=BoolValue(value=self._is_ready()))
