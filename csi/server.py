"""The CSI services on their socket."""

from __future__ import annotations

from dataclasses import dataclass

from csi.controller import Controller
from csi.group import GroupController
from csi.identity import Identity
from csi.node import Node
from csi.snapshot_metadata import SnapshotMetadata
from ullage.errors import ConfigError
from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.rpc import RpcServer

WORKERS = 64
"""Threads that serve calls. One that is stuck in a mount or an mkfs keeps its thread; the sidecars have some ten calls
under way at once, kubelet one for each Pod that is starting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What one process serves; a node has no controller, and a controller no node."""

    identity: Identity
    controller: Controller | None = None
    group: GroupController | None = None
    metadata: SnapshotMetadata | None = None
    node: Node | None = None


def csi_server(services: Services, address: str) -> RpcServer:
    """The services on unix:///path.sock, neither bound nor started; raises ConfigError."""
    if not address.endswith(".sock"):
        raise ConfigError(f"{address!r} cannot be a CSI socket: its name must end in .sock")
    server = RpcServer(address, workers=WORKERS)
    csi_pb2_grpc.add_IdentityServicer_to_server(services.identity, server.grpc)
    if services.controller is not None:
        csi_pb2_grpc.add_ControllerServicer_to_server(services.controller, server.grpc)
    if services.group is not None:
        csi_pb2_grpc.add_GroupControllerServicer_to_server(services.group, server.grpc)
    if services.metadata is not None:
        csi_pb2_grpc.add_SnapshotMetadataServicer_to_server(services.metadata, server.grpc)
    if services.node is not None:
        csi_pb2_grpc.add_NodeServicer_to_server(services.node, server.grpc)
    return server
