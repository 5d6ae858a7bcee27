"""The codes of the CSI edge: the nearest class of an error's ancestors decides, and nothing foreseen is INTERNAL."""

from __future__ import annotations

import grpc
import pytest

from csi.status import CODES, code_of
from tests.unit.test_status import KINDS, example
from ullage import errors
from ullage.errors import UllageError

Code = grpc.StatusCode
TABLE = dict(CODES)
ASKED_AGAIN = {Code.ABORTED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}
"""To external-provisioner: perhaps in progress. All else is final, and a volume half made would be left behind."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_nearest_ancestor_with_a_row_decides(kind: type[UllageError]) -> None:
    nearest = next(ancestor for ancestor in kind.__mro__ if ancestor in TABLE)
    assert code_of(example(kind)) is TABLE[nearest]
    assert code_of(example(kind)) not in {Code.OK, Code.UNKNOWN}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_internal_is_for_what_nobody_foresaw_only(kind: type[UllageError]) -> None:
    assert (code_of(example(kind)) is Code.INTERNAL) == (kind is UllageError)


def test_no_class_has_two_rows() -> None:
    assert len(TABLE) == len(CODES)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidRequestError, Code.INVALID_ARGUMENT),
        (errors.UnknownDeviceClassError, Code.INVALID_ARGUMENT),
        (errors.UnsupportedError, Code.INVALID_ARGUMENT),  # an access mode; a call would be NotOfferedError
        (errors.InvalidTokenError, Code.ABORTED),  # CSI: the caller begins again without a token
        (errors.NotFoundError, Code.NOT_FOUND),
        (errors.ConflictError, Code.ALREADY_EXISTS),
        (errors.OutOfRangeError, Code.OUT_OF_RANGE),
        (errors.VolumeInUseError, Code.FAILED_PRECONDITION),
        (errors.NotOursError, Code.FAILED_PRECONDITION),
        (errors.NotStagedError, Code.FAILED_PRECONDITION),
        (errors.ForeignContentError, Code.FAILED_PRECONDITION),
        (errors.PendingOperationError, Code.ABORTED),
        (errors.NotOfferedError, Code.UNIMPLEMENTED),
    ],
)
def test_what_csi_calls_by_a_code_has_that_code(kind: type[UllageError], code: grpc.StatusCode) -> None:
    assert code_of(example(kind)) is code


@pytest.mark.parametrize(
    "kind",
    [
        errors.VolumeNotReadyError,
        errors.PendingOperationError,
        errors.StillRunningError,
        errors.UnavailableError,
        errors.PoolUnavailableError,
        errors.StoreBusyError,
        errors.TooManyOperationsError,
        errors.ApiUnavailableError,
        errors.ApiError,
        errors.ApiConflictError,
        errors.ApiInvalidError,
        errors.DeviceError,
        errors.CommandFailedError,
        errors.CommandTimedOutError,
        errors.UnreadableReportError,
    ],
)
def test_what_may_have_left_half_a_volume_is_asked_again(kind: type[UllageError]) -> None:
    assert code_of(example(kind)) in ASKED_AGAIN


def test_only_a_lack_of_room_sends_the_pod_to_another_node() -> None:
    assert [kind for kind, code in CODES if code is Code.RESOURCE_EXHAUSTED] == [errors.InsufficientCapacityError]
