"""Errors on the wire: every one has its code, and arrives whole at a client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

import ullage.rpc_client
from node_agent.status import CODES, DOMAIN, code_of, status_of
from ullage import errors
from ullage.errors import CommandFailedError, InsufficientCapacityError, UllageError
from ullage.rpc import short

Code = grpc.StatusCode


def tree(root: type[UllageError]) -> Iterator[type[UllageError]]:
    yield root
    for kind in root.__subclasses__():
        yield from tree(kind)


KINDS = [kind for kind in tree(UllageError) if kind.__module__.startswith("ullage.")]


def example(kind: type[UllageError]) -> UllageError:
    if kind is CommandFailedError:
        return CommandFailedError(argv=("lvm", "vgs"), exit_code=5, stderr="no")
    if issubclass(kind, errors.CommandError):
        return kind("no", argv=("lvm",))
    if kind is ullage.rpc_client.CallFailedError:
        return kind("no", code="ABORTED")
    return kind("no")


class Refusing(grpc.GenericRpcHandler):
    """Answers every call with the error it holds."""

    def __init__(self) -> None:
        self.error = UllageError("none")

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    def _refuse(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort_with_status(status_of(self.error))
        raise AssertionError("it does not return")


class Client:
    """Asks a real server, which refuses with what it is told to."""

    def __init__(self, refusing: Refusing, channel: grpc.Channel) -> None:
        self._refusing = refusing
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/any/Call")

    def refused_with(self, error: UllageError) -> tuple[grpc.StatusCode, str, ErrorInfo]:
        self._refusing.error = error
        with pytest.raises(grpc.RpcError) as raised:
            self._call(b"", timeout=60)
        failure = raised.value
        assert isinstance(failure, grpc.Call)
        status = rpc_status.from_call(failure)
        assert status is not None, f"no detail: {failure.code()} {failure.details()}"
        assert status.message == failure.details()
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        return failure.code(), status.message, info


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    path: Path = tmp_path_factory.mktemp("status") / "s.sock"
    refusing = Refusing()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((refusing,))
        server.add_insecure_port(f"unix://{path}")
        server.start()
        with grpc.insecure_channel(f"unix://{path}") as channel:
            yield Client(refusing, channel)
        server.stop(0).wait()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_internal_is_for_what_nobody_foresaw_only(kind: type[UllageError]) -> None:
    assert (code_of(example(kind)) is Code.INTERNAL) == (kind is UllageError)


def test_every_class_of_the_tree_is_in_this_test() -> None:
    named = {name for name in vars(errors) if name.endswith("Error")}
    assert named <= {kind.__name__ for kind in KINDS}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.InvalidRequestError, Code.INVALID_ARGUMENT),
        (errors.UnknownDeviceClassError, Code.INVALID_ARGUMENT),
        (errors.NotFoundError, Code.NOT_FOUND),
        (errors.ConflictError, Code.ALREADY_EXISTS),
        (errors.OutOfRangeError, Code.OUT_OF_RANGE),
        (errors.InsufficientCapacityError, Code.RESOURCE_EXHAUSTED),
        (errors.NotOursError, Code.FAILED_PRECONDITION),
        (errors.VolumeInUseError, Code.FAILED_PRECONDITION),
        (errors.VolumeNotReadyError, Code.ABORTED),
        (errors.PendingOperationError, Code.ABORTED),
        (errors.StillRunningError, Code.DEADLINE_EXCEEDED),
        (errors.PoolUnavailableError, Code.UNAVAILABLE),
        (errors.StoreBusyError, Code.UNAVAILABLE),
        (errors.TooManyOperationsError, Code.UNAVAILABLE),
        (errors.UnsupportedError, Code.UNIMPLEMENTED),
        (errors.PreconditionError, Code.FAILED_PRECONDITION),
        (errors.ForeignContentError, Code.FAILED_PRECONDITION),
        (errors.NotFormattedError, Code.FAILED_PRECONDITION),
        (errors.FileSystemDamagedError, Code.FAILED_PRECONDITION),
        (errors.NotStagedError, Code.FAILED_PRECONDITION),
        (errors.NotPropagatedError, Code.FAILED_PRECONDITION),
        (errors.ConfigError, Code.FAILED_PRECONDITION),
        (errors.CommandMissingError, Code.UNAVAILABLE),
        (errors.CommandFailedError, Code.UNAVAILABLE),
        (errors.CommandTimedOutError, Code.UNAVAILABLE),
        (errors.UnreadableReportError, Code.UNAVAILABLE),
        (errors.DeviceError, Code.UNAVAILABLE),
    ],
)
def test_each_error_has_its_code(kind: type[UllageError], code: grpc.StatusCode) -> None:
    assert code_of(example(kind)) is code


def test_only_a_lack_of_room_makes_kubernetes_go_elsewhere() -> None:
    assert [kind for kind, code in CODES if code is Code.RESOURCE_EXHAUSTED] == [InsufficientCapacityError]


def test_no_row_hides_behind_a_more_general_one() -> None:
    for place, (kind, _) in enumerate(CODES):
        assert not any(issubclass(kind, earlier) for earlier, _ in CODES[:place])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_arrives_with_its_reason(client: Client, kind: type[UllageError]) -> None:
    error = example(kind)
    code, sentence, info = client.refused_with(error)
    assert (code, sentence) == (code_of(error), str(error))
    assert (info.reason, info.domain) == (kind.reason, DOMAIN)


def test_the_facts_arrive_as_text(client: Client) -> None:
    error = InsufficientCapacityError("vg0 has 1.0 GiB free, 2.0 GiB wanted – größer", pool="vg0", wanted_bytes=2 << 30)
    code, sentence, info = client.refused_with(error)
    assert (code, sentence) == (Code.RESOURCE_EXHAUSTED, str(error))
    assert dict(info.metadata) == {"pool": "vg0", "wanted_bytes": "2147483648"}


@pytest.mark.parametrize("letter", ["x", "ß", "\n", "\U0001f6e2"])
def test_a_program_that_said_very_much_does_not_change_the_code(client: Client, letter: str) -> None:
    """More than 8 KiB of headers would arrive as RESOURCE_EXHAUSTED, and the volume would go to another node."""
    error = CommandFailedError(argv=("lvm", "vgs"), exit_code=5, stderr=f"begin {letter * 100_000} end")
    error.facts["device"] = letter * 100_000
    code, sentence, info = client.refused_with(error)
    assert code is Code.UNAVAILABLE
    assert sentence.startswith("lvm vgs exited with 5: begin ")
    assert sentence.endswith("…")
    assert info.metadata["exit_code"] == "5"


def test_a_path_that_is_no_utf8_arrives_all_the_same(client: Client) -> None:
    code, sentence, _ = client.refused_with(errors.DeviceError("/data/\udcff cannot be read", path="/data/\udcff"))
    assert (code, sentence) == (Code.UNAVAILABLE, "/data/? cannot be read")


@given(st.text(), st.integers(min_value=3, max_value=64))
def test_what_is_short_enough_stays_as_it_is_and_the_rest_is_cut(text: str, most: int) -> None:
    cut = short(text, most)
    assert len(cut.encode()) <= most
    assert cut == text.encode("utf-8", "replace").decode() or (cut[-1] == "…" and text.startswith(cut[:-1]))
