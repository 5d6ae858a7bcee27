"""CSI SnapshotMetadata: which blocks a snapshot has, and which have changed since an earlier one, as streams.

What can be refused is refused before the first message. Ranges ascend and are apart, over all messages of a stream; a
stream that broke off is gone on with from the end of the last range that was received.
"""

from __future__ import annotations

from collections.abc import Iterator

from csi.calls import Calls, stream
from csi.orders import snapshot_metadata as orders
from ullage.model import ByteRange
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc
from ullage.ports import Provisioner


class SnapshotMetadata(csi_pb2_grpc.SnapshotMetadataServicer):
    """csi.v1.SnapshotMetadata over a Provisioner."""

    def __init__(self, calls: Calls, provisioner: Provisioner) -> None:
        """It changes nothing, so nothing is held."""
        self.calls = calls
        self._volumes = provisioner

    @stream(orders.allocated)
    def GetMetadataAllocated(self, order: orders.Allocated) -> Iterator[pb.GetMetadataAllocatedResponse]:  # noqa: D102, N802 - documented in the proto
        found = self._volumes.allocated(order.volume_id, start_bytes=order.start_bytes)
        for portion in _portions(found.ranges, order.most):
            yield pb.GetMetadataAllocatedResponse(
                block_metadata_type=pb.VARIABLE_LENGTH,
                volume_capacity_bytes=found.volume_size_bytes,
                block_metadata=portion,
            )

    @stream(orders.delta)
    def GetMetadataDelta(self, order: orders.Delta) -> Iterator[pb.GetMetadataDeltaResponse]:  # noqa: D102, N802
        found = self._volumes.changed(order.base, order.volume_id, start_bytes=order.start_bytes)
        for portion in _portions(found.ranges, order.most):
            yield pb.GetMetadataDeltaResponse(
                block_metadata_type=pb.VARIABLE_LENGTH,
                volume_capacity_bytes=found.volume_size_bytes,
                block_metadata=portion,
            )


def _portions(ranges: Iterator[ByteRange], most: int) -> Iterator[list[pb.BlockMetadata]]:
    """The ranges in lists of at most so many; without any, one empty list, so that the size at least is told."""
    portion: list[pb.BlockMetadata] = []
    is_first = True
    for each in ranges:
        portion.append(pb.BlockMetadata(byte_offset=each.offset_bytes, size_bytes=each.size_bytes))
        if len(portion) == most:
            yield portion
            portion, is_first = [], False
    if portion or is_first:
        yield portion
