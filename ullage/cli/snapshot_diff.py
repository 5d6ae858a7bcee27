"""`ullage snapshot diff`: which bytes of a snapshot there are, or may differ from an earlier one's.

There can be millions of ranges, so each is printed as it comes, in every format. A document that breaks off is left
without its end: nobody is to take it for the whole. Only a first answer begins one, so a refusal prints nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from ullage.csi_client import driver_at
from ullage.errors import human_bytes
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.rpc_client import CallFailedError

Answers = Iterator[pb.GetMetadataAllocatedResponse] | Iterator[pb.GetMetadataDeltaResponse]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Head:
    """What is the same in every message of a stream."""

    volume_capacity_bytes: int
    block_metadata_type: str


def diff(options: argparse.Namespace) -> None:
    """GetMetadataDelta, or GetMetadataAllocated without a base; raises CallFailedError, with where to go on."""
    printed = _Printed(starting_offset=options.starting_offset)
    try:
        with driver_at(options.csi_endpoint) as driver:
            answers: Answers
            if options.base is None:
                allocated = pb.GetMetadataAllocatedRequest(
                    snapshot_id=options.target, starting_offset=options.starting_offset
                )
                answers = driver.metadata.GetMetadataAllocated(allocated, timeout=options.timeout)
            else:
                delta = pb.GetMetadataDeltaRequest(
                    base_snapshot_id=options.base,
                    target_snapshot_id=options.target,
                    starting_offset=options.starting_offset,
                )
                answers = driver.metadata.GetMetadataDelta(delta, timeout=options.timeout)
            first = next(answers, pb.GetMetadataAllocatedResponse())
            head = _Head(
                volume_capacity_bytes=first.volume_capacity_bytes,
                block_metadata_type=pb.BlockMetadataType.Name(first.block_metadata_type),
            )
            for piece in FORMATS[options.output](head, printed.noted(first, answers)):
                sys.stdout.write(piece)
    except CallFailedError as failure:
        if not printed.count:
            raise
        raise CallFailedError(
            f"{failure}; what is listed is true, go on with --starting-offset {printed.end}", code=failure.code
        ) from failure
    finally:
        sys.stdout.flush()
    if options.output in ("table", "wide"):
        of = f" of {human_bytes(head.volume_capacity_bytes)}" if head.volume_capacity_bytes else ""
        sys.stdout.write(f"{_counted(printed.count)}, {human_bytes(printed.size_bytes)}{of}\n")


class _Printed:
    """How much has been printed; `end` is where the next range can begin."""

    def __init__(self, starting_offset: int) -> None:
        self.count = self.size_bytes = 0
        self.end = starting_offset

    def noted(
        self, first: pb.GetMetadataAllocatedResponse | pb.GetMetadataDeltaResponse, others: Answers
    ) -> Iterator[pb.BlockMetadata]:
        """Every range of all messages, once the one before it has been printed."""
        yield from self._of(first)
        for answer in others:
            yield from self._of(answer)

    def _of(self, answer: pb.GetMetadataAllocatedResponse | pb.GetMetadataDeltaResponse) -> Iterator[pb.BlockMetadata]:
        for block in answer.block_metadata:
            yield block
            self.count += 1
            self.size_bytes += block.size_bytes
            self.end = block.byte_offset + block.size_bytes


def _table(head: _Head, blocks: Iterator[pb.BlockMetadata]) -> Iterator[str]:
    width = max(len("OFFSET"), len(str(head.volume_capacity_bytes)))
    yield f"{'OFFSET':{width}}   BYTES\n"
    for block in blocks:
        yield f"{block.byte_offset:<{width}}   {block.size_bytes}\n"


def _json(head: _Head, blocks: Iterator[pb.BlockMetadata]) -> Iterator[str]:
    yield f'{{\n  "volumeCapacityBytes": {head.volume_capacity_bytes},\n'
    yield f'  "blockMetadataType": {json.dumps(head.block_metadata_type)},\n  "items": ['
    end_of_line = "\n"
    for block in blocks:
        yield f'{end_of_line}    {{"byteOffset": {block.byte_offset}, "sizeBytes": {block.size_bytes}}}'
        end_of_line = ",\n"
    yield "\n  ]\n}\n"


def _yaml(head: _Head, blocks: Iterator[pb.BlockMetadata]) -> Iterator[str]:
    yield f"volumeCapacityBytes: {head.volume_capacity_bytes}\nblockMetadataType: {head.block_metadata_type}\nitems:"
    none = " []"
    for block in blocks:
        yield f"\n- byteOffset: {block.byte_offset}\n  sizeBytes: {block.size_bytes}"
        none = ""
    yield f"{none}\n"


def _counted(count: int) -> str:
    return "1 range" if count == 1 else f"{count} ranges"


FORMATS: Mapping[str, Callable[[_Head, Iterator[pb.BlockMetadata]], Iterator[str]]] = {
    "table": _table,
    "wide": _table,
    "json": _json,
    "yaml": _yaml,
}
