"""What can go wrong, as types.

    UllageError                     carries `reason` (for machines) and a sentence with the numbers (for people)
    ├── InvalidRequestError         the request itself can never succeed as it is
    │   ├── UnknownDeviceClassError the class is not configured here
    │   └── InvalidTokenError       a place in a list that this list never named
    ├── ConfigError                 the configuration names something impossible; says where in the file
    ├── NotFoundError               every pool could be read, and the volume is on none of them
    ├── ConflictError               the id exists with another class, size or pool
    ├── OutOfRangeError             larger than this pool or limit can ever hold
    ├── InsufficientCapacityError   it would fit an emptier pool; free and wanted bytes
    ├── NotOursError                the device lacks our tag or carries another id: never touched
    ├── VolumeInUseError            open, mounted or held by another device
    ├── VolumeNotReadyError         still being made, grown or deleted
    ├── PendingOperationError       another operation on the same volume is under way
    ├── StillRunningError           our own operation has outlived the caller's patience; it goes on
    ├── UnavailableError            we cannot know or act now; says nothing about what exists
    │   ├── PoolUnavailableError    a volume group, thin pool or directory is missing, partial or unreadable
    │   ├── StoreBusyError          a change on the same volume group has been running too long
    │   ├── TooManyOperationsError  the bound on concurrent operations is reached
    │   └── ApiUnavailableError     the Kubernetes API server does not answer, or not now
    ├── ApiError                    the Kubernetes API server refused a call
    │   ├── ApiNotFoundError        there is no such object
    │   ├── ApiExistsError          an object of this name is there already
    │   ├── ApiConflictError        it has changed since it was read, or is another one of the same name
    │   ├── ApiGoneError            a place in the history of objects that the server has forgotten
    │   ├── ApiForbiddenError       this account may not do that
    │   └── ApiInvalidError         the object breaks its schema or a rule
    ├── UnsupportedError            this backend cannot do that
    ├── NotOfferedError             a call that this configuration switches off
    ├── PreconditionError           something on this node has to be put right first; nothing was changed
    │   ├── ForeignContentError     what is there was not put there by us: not formatted, not deleted
    │   ├── NotFormattedError       blank, and to be read only
    │   ├── FileSystemDamagedError  a person has to repair the file system, or decide to give it up
    │   ├── NotStagedError          the staging path has no mount of this volume
    │   ├── NotPropagatedError      mounts made here would not be seen outside of this container
    │   └── SnapshotOverflowedError more was written to its volume than it had room to keep: it holds nothing any more
    ├── DeviceError                 a device answered a read, write or ioctl with an error
    └── CommandError                an external program
        ├── CommandMissingError     not on this machine; names the package
        ├── CommandFailedError      non-zero exit; argv, exit code, stderr
        ├── CommandTimedOutError    a looking command outlived its limit and was killed
        └── UnreadableReportError   it said it succeeded, and its output is not what it promises

Each edge (gRPC, HTTP) maps these to its codes in one table; nothing here knows of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def human_bytes(size_bytes: int) -> str:
    """Bytes for a sentence: `3.2 GiB`; never rounded up to a size that is not there."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if abs(size_bytes) >= unit:
            tenths = abs(size_bytes) * 10 // unit
            sign = "-" if size_bytes < 0 else ""
            return f"{sign}{tenths // 10}.{tenths % 10} {name}"
    return f"{size_bytes} B"


class UllageError(Exception):
    """The root: everything the product raises on purpose."""

    reason: ClassVar[str] = "Internal"

    def __init__(self, sentence: str, **facts: str | int) -> None:
        """`sentence` is for a person; `facts` are the numbers and names in it, for logs and details."""
        super().__init__(sentence)
        self.facts = facts


class InvalidRequestError(UllageError):
    """The request can never succeed as it is."""

    reason = "InvalidRequest"


class UnknownDeviceClassError(InvalidRequestError):
    """No such device class on this node."""

    reason = "UnknownDeviceClass"


class InvalidTokenError(InvalidRequestError):
    """Not a place in the list that we have told anybody; the caller begins again at the front."""

    reason = "InvalidToken"


class ConfigError(UllageError):
    """A configuration file or object that cannot be used; the sentence names the path in it and what is allowed."""

    reason = "InvalidConfiguration"


class NotFoundError(UllageError):
    """Every pool was read, and none has the volume."""

    reason = "NotFound"


class ConflictError(UllageError):
    """The id exists, as something else than was asked for."""

    reason = "AlreadyExists"


class OutOfRangeError(UllageError):
    """No emptying could ever make this fit."""

    reason = "OutOfRange"


class InsufficientCapacityError(UllageError):
    """Not enough room now."""

    reason = "InsufficientCapacity"


class NotOursError(UllageError):
    """A device without our tag, or with another volume's: refused, untouched."""

    reason = "NotOurs"


class VolumeInUseError(UllageError):
    """Open, mounted, or held by another device."""

    reason = "VolumeInUse"


class VolumeNotReadyError(UllageError):
    """Being made, grown or deleted; not usable for this yet."""

    reason = "VolumeNotReady"


class PendingOperationError(UllageError):
    """A different operation on this volume is under way."""

    reason = "OperationPending"


class StillRunningError(UllageError):
    """The operation goes on; the caller's wait for it has ended. A retry finds the result."""

    reason = "StillRunning"


class UnavailableError(UllageError):
    """Cannot be known or done now. Never means that something does not exist."""

    reason = "Unavailable"


class PoolUnavailableError(UnavailableError):
    """The pool cannot be read or changed now."""

    reason = "PoolUnavailable"


class StoreBusyError(UnavailableError):
    """A change on the same volume group (or directory) holds its lock for too long."""

    reason = "StoreBusy"


class TooManyOperationsError(UnavailableError):
    """The bound on operations at once is reached."""

    reason = "TooManyOperations"


class ApiUnavailableError(UnavailableError):
    """The Kubernetes API server does not answer, or says that it cannot now."""

    reason = "ApiUnavailable"


class ApiError(UllageError):
    """The Kubernetes API server refused a call; `facts["code"]` is HTTP's."""

    reason = "ApiRefused"


class ApiNotFoundError(ApiError):
    """There is no such object (or no such kind)."""

    reason = "ApiNotFound"


class ApiExistsError(ApiError):
    """An object of this name is there already."""

    reason = "ApiExists"


class ApiConflictError(ApiError):
    """The object has changed since it was read, or is another one of the same name."""

    reason = "ApiConflict"


class ApiGoneError(ApiError):
    """A place in the history of objects that the server has forgotten: everything is to be read anew."""

    reason = "ApiGone"


class ApiForbiddenError(ApiError):
    """Our account may not do that."""

    reason = "ApiForbidden"


class ApiInvalidError(ApiError):
    """The object breaks its schema or one of its rules; the server's sentence says which."""

    reason = "ApiInvalid"


class UnsupportedError(UllageError):
    """Not something that this backend can do."""

    reason = "Unsupported"


class PreconditionError(UllageError):
    """Something on this node is not as the request needs it; a person or another call has to change that first."""

    reason = "Precondition"


class ForeignContentError(PreconditionError):
    """A device or a directory has content that we did not put there: refused, untouched."""

    reason = "ForeignContent"


class NotFormattedError(PreconditionError):
    """There is no file system, and a volume that is to be read only gets none."""

    reason = "NotFormatted"


class FileSystemDamagedError(PreconditionError):
    """A file system that cannot be mounted as it is; the sentence says what to run by hand."""

    reason = "FileSystemDamaged"


class NotStagedError(PreconditionError):
    """The staging path is not a mount of this volume."""

    reason = "NotStaged"


class NotPropagatedError(PreconditionError):
    """A mount made at this path would stay in our own mount namespace, and Pods would write beneath it."""

    reason = "NotPropagated"


class SnapshotOverflowedError(PreconditionError):
    """A thick snapshot that ran out of room: what it kept is lost, and nothing is ever read from it."""

    reason = "SnapshotOverflowed"


class NotOfferedError(UllageError):
    """A call that is switched off."""

    reason = "NotOffered"


class DeviceError(UllageError):
    """A device answered a read, a write or an ioctl with an error."""

    reason = "DeviceFailed"


class CommandError(UllageError):
    """An external program did not do what was asked."""

    reason = "CommandFailed"

    def __init__(self, sentence: str, *, argv: Sequence[str], **facts: str | int) -> None:
        """`argv` is the exact argument list."""
        super().__init__(sentence, **facts)
        self.argv = tuple(argv)


class CommandMissingError(CommandError):
    """The program is not on this machine."""

    reason = "CommandMissing"


class CommandFailedError(CommandError):
    """Non-zero exit."""

    def __init__(self, *, argv: Sequence[str], exit_code: int, stderr: str) -> None:
        """A negative `exit_code` is the signal that ended the program, as in subprocess."""
        super().__init__(
            f"{' '.join(argv)} exited with {exit_code}: {stderr.strip() or '(it said nothing)'}",
            argv=argv,
            exit_code=exit_code,
        )
        self.exit_code = exit_code
        self.stderr = stderr


class CommandTimedOutError(CommandError):
    """A looking command outlived its limit and was killed."""

    reason = "CommandTimedOut"


class UnreadableReportError(CommandError):
    """Success was claimed, and the output is not a whole report. Never used in part."""

    reason = "UnreadableReport"
