"""A client of the driver's CSI socket, whose failures are our own errors again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.rpc_client import channel_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A stub for each CSI service."""

    identity: csi_pb2_grpc.IdentityStub
    controller: csi_pb2_grpc.ControllerStub
    group: csi_pb2_grpc.GroupControllerStub
    metadata: csi_pb2_grpc.SnapshotMetadataStub
    node: csi_pb2_grpc.NodeStub


@contextlib.contextmanager
def driver_at(address: str) -> Iterator[Driver]:
    """Stubs for the driver at unix:///path; RPC failures inside the block are raised as CallFailedError."""
    absent = f"no driver answers on {address}: is `ullage standalone` running, and may you open its socket?"
    with channel_to(address, absent=absent) as channel:
        yield Driver(
            identity=csi_pb2_grpc.IdentityStub(channel),
            controller=csi_pb2_grpc.ControllerStub(channel),
            group=csi_pb2_grpc.GroupControllerStub(channel),
            metadata=csi_pb2_grpc.SnapshotMetadataStub(channel),
            node=csi_pb2_grpc.NodeStub(channel),
        )
