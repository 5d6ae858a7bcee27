"""Errors → gRPC status: the one table, and the detail that machines read.

Nothing here is INTERNAL but what nobody foresaw: to a provisioner INTERNAL means "surely not in progress", and a volume
that is still coming into being would be leaked.
"""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from ullage import errors
from ullage.rpc import short

DOMAIN = "ullage.io"
MOST_FACT_BYTES = 256

CODES: tuple[tuple[type[errors.UllageError], grpc.StatusCode], ...] = (
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ConflictError, grpc.StatusCode.ALREADY_EXISTS),
    (errors.OutOfRangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.InsufficientCapacityError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.NotOursError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.VolumeInUseError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.VolumeNotReadyError, grpc.StatusCode.ABORTED),
    (errors.PendingOperationError, grpc.StatusCode.ABORTED),
    (errors.StillRunningError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.ApiError, grpc.StatusCode.UNAVAILABLE),
    (errors.UnsupportedError, grpc.StatusCode.UNIMPLEMENTED),
    (errors.PreconditionError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotOfferedError, grpc.StatusCode.UNIMPLEMENTED),
    (errors.ConfigError, grpc.StatusCode.FAILED_PRECONDITION),
    # A command or a device that failed may have done part of its work: the caller is to ask again, not to give up.
    (errors.CommandError, grpc.StatusCode.UNAVAILABLE),
    (errors.DeviceError, grpc.StatusCode.UNAVAILABLE),
    (errors.UllageError, grpc.StatusCode.INTERNAL),
)


def code_of(error: errors.UllageError) -> grpc.StatusCode:
    """The first row that the error is an instance of."""
    return next(code for kind, code in CODES if isinstance(error, kind))


def status_of(error: errors.UllageError) -> grpc.Status:
    """What an RPC that raised `error` ends with."""
    sentence = short(str(error))
    facts = {name: short(str(fact), MOST_FACT_BYTES) for name, fact in error.facts.items()}
    detail = AnyMessage()
    detail.Pack(ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts))
    number: int = code_of(error).value[0]
    return rpc_status.to_status(Status(code=Code.ValueType(number), message=sentence, details=[detail]))
