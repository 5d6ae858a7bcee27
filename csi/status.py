"""Errors → the codes that CSI's callers act on: the one table of this edge.

What a code does (external-provisioner 6, external-resizer 2): RESOURCE_EXHAUSTED sends the Pod to another node;
ABORTED, DEADLINE_EXCEEDED and UNAVAILABLE mean "perhaps in progress", and are asked again; everything else is final.
INTERNAL is therefore for what nobody foresaw only: a volume that is still coming into being would be leaked. CSI wants
`status.details` to be empty, so the sentence says it all.
"""

from __future__ import annotations

import grpc

from ullage import errors

CODES: tuple[tuple[type[errors.UllageError], grpc.StatusCode], ...] = (
    (errors.InvalidTokenError, grpc.StatusCode.ABORTED),
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ConflictError, grpc.StatusCode.ALREADY_EXISTS),
    (errors.OutOfRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.InsufficientCapacityError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotOursError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.VolumeInUseError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ConfigError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.VolumeNotReadyError, grpc.StatusCode.ABORTED),
    (errors.PendingOperationError, grpc.StatusCode.ABORTED),
    (errors.StillRunningError, grpc.StatusCode.DEADLINE_EXCEEDED),
    # A content source, an access mode: what CSI calls an argument that this driver does not take.
    (errors.UnsupportedError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotOfferedError, grpc.StatusCode.UNIMPLEMENTED),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.ApiError, grpc.StatusCode.UNAVAILABLE),
    # A command or a device that failed may have done part of its work: the caller is to ask again, not to give up.
    (errors.CommandError, grpc.StatusCode.UNAVAILABLE),
    (errors.DeviceError, grpc.StatusCode.UNAVAILABLE),
    (errors.UllageError, grpc.StatusCode.INTERNAL),
)


def code_of(error: errors.UllageError) -> grpc.StatusCode:
    """The first row that the error is an instance of."""
    return next(code for kind, code in CODES if isinstance(error, kind))
