"""Blocks of snapshots over CSI: ascending over all messages, none too large, and resumed where a stream broke off."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from csi.calls import Calls
from csi.identity import Identity
from csi.orders import snapshot_metadata as orders
from csi.server import Services, csi_server
from csi.snapshot_metadata import SnapshotMetadata
from tests.unit.csi_doubles import RefusedError, Shelf, caller, taken
from ullage.errors import GIB, MIB, CommandFailedError, InvalidRequestError, NotFoundError, OutOfRangeError, UllageError
from ullage.model import ByteRange, VolumeId
from ullage.names import snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1 import csi_pb2_grpc

Code = grpc.StatusCode
A, B = VolumeId("pvc-a"), VolumeId("pvc-b")
OLD, NEW, OTHER = snapshot_id("old"), snapshot_id("new"), snapshot_id("other")
Answer = pb.GetMetadataAllocatedResponse | pb.GetMetadataDeltaResponse


def shelf(blocks: int = 0) -> Shelf:
    kept = Shelf(taken(OLD, A, GIB), taken(NEW, A, 2 * GIB), taken(OTHER, B, GIB))
    kept.blocks = [ByteRange(offset_bytes=2 * number * MIB, size_bytes=MIB) for number in range(blocks)]
    return kept


def allocated(kept: Shelf, **fields: object) -> Iterator[Answer]:
    request = pb.GetMetadataAllocatedRequest(**{"snapshot_id": NEW, **fields})  # type: ignore[arg-type] # under test
    return SnapshotMetadata(Calls(), kept).GetMetadataAllocated(request, caller())


def delta(kept: Shelf, **fields: object) -> Iterator[Answer]:
    right: dict[str, object] = {"base_snapshot_id": OLD, "target_snapshot_id": NEW}
    request = pb.GetMetadataDeltaRequest(**{**right, **fields})  # type: ignore[arg-type] # under test
    return SnapshotMetadata(Calls(), kept).GetMetadataDelta(request, caller())


BOTH = pytest.mark.parametrize("ask", [allocated, delta])


def refusal(ask: Callable[[], Iterator[object]]) -> Code:
    with pytest.raises(RefusedError) as refused:
        next(ask())
    return refused.value.code


@BOTH
@pytest.mark.parametrize(("blocks", "most", "lengths"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (1, 3, [1]), (7, 0, [7])])
def test_every_range_is_told_in_order_and_no_message_has_more_than_was_asked_for(
    ask: Callable[..., Iterator[Answer]], blocks: int, most: int, lengths: list[int]
) -> None:
    answers = list(ask(shelf(blocks), max_results=most))
    assert [len(each.block_metadata) for each in answers] == lengths
    told = [(each.byte_offset, each.size_bytes) for answer in answers for each in answer.block_metadata]
    assert told == [(2 * number * MIB, MIB) for number in range(blocks)]
    assert {(each.block_metadata_type, each.volume_capacity_bytes) for each in answers} == {
        (pb.VARIABLE_LENGTH, 2 * GIB)
    }


@BOTH
def test_where_nothing_is_told_the_size_is_told_at_least(ask: Callable[..., Iterator[Answer]]) -> None:
    (answer,) = ask(shelf())
    assert (len(answer.block_metadata), answer.volume_capacity_bytes) == (0, 2 * GIB)


@BOTH
def test_a_message_stays_far_below_what_a_client_takes_at_once(ask: Callable[..., Iterator[Answer]]) -> None:
    blocks = 3 * orders.MOST_RESULTS
    unlimited = list(ask(shelf(blocks), max_results=(1 << 31) - 1))
    assert [len(each.block_metadata) for each in unlimited] == [orders.MOST_RESULTS] * 3
    assert max(each.ByteSize() for each in unlimited) < MIB
    assert len(next(ask(shelf(blocks))).block_metadata) == orders.DEFAULT_RESULTS


@BOTH
def test_what_broke_off_is_gone_on_with_from_there(ask: Callable[..., Iterator[Answer]]) -> None:
    kept = shelf(1)
    list(ask(kept, starting_offset=GIB))
    assert kept.asked[-1] == ("allocated", NEW, GIB)
    list(ask(kept, starting_offset=2 * GIB))
    assert refusal(lambda: ask(kept, starting_offset=2 * GIB + 1)) is Code.OUT_OF_RANGE
    assert refusal(lambda: ask(kept, starting_offset=-1)) is Code.OUT_OF_RANGE
    assert refusal(lambda: ask(kept, max_results=-1)) is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("of", "error"),
    [
        ("", InvalidRequestError),
        ("x" * 129, InvalidRequestError),
        ("a b", NotFoundError),
        ("pvc-a", NotFoundError),
    ],
)
def test_whose_blocks_is_checked_before_anything_is_asked(of: str, error: type[UllageError]) -> None:
    with pytest.raises(error):
        orders.allocated(pb.GetMetadataAllocatedRequest(snapshot_id=of))
    with pytest.raises(error):
        orders.delta(pb.GetMetadataDeltaRequest(base_snapshot_id=of, target_snapshot_id=NEW))
    with pytest.raises(error):
        orders.delta(pb.GetMetadataDeltaRequest(base_snapshot_id=OLD, target_snapshot_id=of))
    with pytest.raises(InvalidRequestError if error is InvalidRequestError else OutOfRangeError):
        orders.allocated(pb.GetMetadataAllocatedRequest(snapshot_id=of, starting_offset=-1))


def test_what_is_not_there_or_does_not_belong_together_is_refused() -> None:
    kept, gone = shelf(), str(snapshot_id("gone"))
    assert refusal(lambda: allocated(kept, snapshot_id=gone)) is Code.NOT_FOUND
    assert refusal(lambda: delta(kept, base_snapshot_id=gone)) is Code.NOT_FOUND
    assert refusal(lambda: delta(kept, target_snapshot_id=gone)) is Code.NOT_FOUND
    assert refusal(lambda: delta(kept, base_snapshot_id=OTHER)) is Code.INVALID_ARGUMENT


class Broken:
    """Ranges that end before their end, and whether they were given back."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.is_closed = error, False

    def __iter__(self) -> Iterator[ByteRange]:
        try:
            yield ByteRange(offset_bytes=0, size_bytes=MIB)
            if self.error is not None:
                raise self.error
            yield ByteRange(offset_bytes=2 * MIB, size_bytes=MIB)
        finally:
            self.is_closed = True


@BOTH
def test_a_stream_that_fails_in_the_middle_does_not_end_as_if_it_were_whole(
    ask: Callable[..., Iterator[Answer]],
) -> None:
    kept = shelf()
    kept.blocks = Broken(CommandFailedError(argv=["thin_delta"], exit_code=1, stderr="killed"))
    answers = ask(kept, max_results=1)
    assert len(next(answers).block_metadata) == 1
    assert refusal(lambda: answers) is Code.UNAVAILABLE


@BOTH
def test_whoever_goes_away_leaves_nothing_held(ask: Callable[..., Iterator[Answer]]) -> None:
    kept = shelf()
    kept.blocks = blocks = Broken()
    answers = ask(kept, max_results=1)
    next(answers)
    assert not blocks.is_closed
    del answers
    assert blocks.is_closed


class Endless:
    """Ranges without an end, and whether they were given back."""

    def __init__(self) -> None:
        self.is_closed = threading.Event()

    def __iter__(self) -> Iterator[ByteRange]:
        try:
            for number in itertools.count():
                yield ByteRange(offset_bytes=number * 2 * MIB, size_bytes=MIB)
        finally:
            self.is_closed.set()


def test_a_client_that_hangs_up_ends_the_work_on_the_wire_too(tmp_path: Path) -> None:
    kept = shelf()
    kept.blocks = blocks = Endless()
    calls = Calls()
    services = Services(identity=Identity(calls, "0", lambda: True), metadata=SnapshotMetadata(calls, kept))
    server = csi_server(services, f"unix://{tmp_path}/csi.sock")
    server.bind()
    server.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            stub = csi_pb2_grpc.SnapshotMetadataStub(channel)
            answers = stub.GetMetadataAllocated(pb.GetMetadataAllocatedRequest(snapshot_id=NEW), timeout=60)
            told = [next(answers).block_metadata[0].byte_offset for _ in range(3)]
            assert told == [each * orders.DEFAULT_RESULTS * 2 * MIB for each in range(3)]
            assert not blocks.is_closed.is_set()
            answers.cancel()
            assert blocks.is_closed.wait(60)
    finally:
        server.stop(60)
