"""What thin_dump and thin_delta print: which chunks of a thin volume are mapped, and which differ. Pure.

It is read as it comes, so that its length does not matter, and as strictly as a report: an element, a number or an
order that is not what these programs promise raises UnreadableReportError, and nothing of it is to be used. This is how
thin-provisioning-tools 0.9 print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO
from xml.parsers import expat

from ullage.errors import UnreadableReportError
from ullage.model import ByteRange

SECTOR_BYTES = 512
READ_BYTES = 1 << 16
MAPPINGS = {"superblock": "", "device": "superblock", "single_mapping": "device", "range_mapping": "device"}
"""What thin_dump's elements are directly inside of."""
DIFFERENCES = {
    "superblock": "",
    "diff": "superblock",
    "same": "diff",
    "different": "diff",
    "left_only": "diff",
    "right_only": "diff",
}
"""The same of thin_delta's."""

Element = tuple[str, Mapping[str, str]]


def mapped(report: BinaryIO, thin_id: int) -> Iterator[ByteRange]:
    """Where thin_dump says that this device has chunks of its own or shared ones, ascending and apart."""
    with _readable("thin_dump"):
        elements = _elements(report, MAPPINGS)
        chunk_bytes = _chunk_bytes(elements)
        name, device = next(elements)
        if name != "device" or _number(device, "dev_id") != thin_id:
            raise ValueError(f"it does not begin with device {thin_id}")
        chunks = 0
        for begin, length in _ascending(map(_mapping, elements)):
            chunks += length
            yield ByteRange(offset_bytes=begin * chunk_bytes, size_bytes=length * chunk_bytes)
        if chunks != _number(device, "mapped_blocks"):
            raise ValueError(f"device {thin_id} has {device['mapped_blocks']} chunks, and {chunks} are named")


def differing(report: BinaryIO, left: int, right: int, *, left_bytes: int = 0) -> Iterator[ByteRange]:
    """Where thin_delta says that two devices may differ, ascending and apart: other chunks, or only one has any.

    With `left_bytes` the left one ends there and the right one goes on: what they share of a chunk in which that is
    the left one had not shown to its end.
    """
    with _readable("thin_delta"):
        elements = _elements(report, DIFFERENCES)
        chunk_bytes = _chunk_bytes(elements)
        name, diff = next(elements)
        if name != "diff" or (_number(diff, "left"), _number(diff, "right")) != (left, right):
            raise ValueError(f"it does not begin with devices {left} and {right}")
        cut = left_bytes // chunk_bytes if left_bytes % chunk_bytes else -1
        for begin, length in _ascending(_differences(elements, cut)):
            yield ByteRange(offset_bytes=begin * chunk_bytes, size_bytes=length * chunk_bytes)


def _mapping(element: Element) -> tuple[int, int]:
    name, attributes = element
    if name == "single_mapping":
        return _number(attributes, "origin_block"), 1
    if name == "range_mapping":
        return _number(attributes, "origin_begin"), _number(attributes, "length")
    raise ValueError(f"there is a second {name}")


def _differences(elements: Iterator[Element], cut: int) -> Iterator[tuple[int, int]]:
    for name, attributes in elements:
        if name == "diff":
            raise ValueError("there is a second diff")
        begin, length = _number(attributes, "begin"), _number(attributes, "length")
        if name != "same":
            yield begin, length
        elif begin <= cut < begin + length:
            yield cut, 1


def _ascending(runs: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The runs, those that touch made one; raises ValueError where one begins before the last has ended."""
    begin, end = 0, 0
    for next_begin, length in runs:
        if next_begin < end or length < 1:
            raise ValueError(f"a run of {length} at {next_begin} comes after one that ends at {end}")
        if next_begin > end:
            if end > begin:
                yield begin, end - begin
            begin = next_begin
        end = next_begin + length
    if end > begin:
        yield begin, end - begin


def _chunk_bytes(elements: Iterator[Element]) -> int:
    _, superblock = next(elements)
    sectors = _number(superblock, "data_block_size")
    if sectors < 1:
        raise ValueError("its chunks are empty")
    return sectors * SECTOR_BYTES


def _number(attributes: Mapping[str, str], name: str) -> int:
    value = attributes[name]
    if not (value.isascii() and value.isdecimal()):
        raise ValueError(f"{name} is {value!r}")
    return int(value)


def _elements(report: BinaryIO, inside: Mapping[str, str]) -> Iterator[Element]:
    """Each element as it begins; raises ExpatError, ValueError also when the whole was not a document of such."""
    parser = expat.ParserCreate()
    open_elements = [""]
    begun: list[Element] = []

    def begin(name: str, attributes: dict[str, str]) -> None:
        if inside.get(name) != open_elements[-1]:
            raise ValueError(f"there is a {name} inside of {open_elements[-1] or 'nothing'}")
        open_elements.append(name)
        begun.append((name, attributes))

    def end(_name: str) -> None:
        open_elements.pop()

    def text(characters: str) -> None:
        if characters.strip():
            raise ValueError(f"there is a text: {characters[:80]!r}")

    def declaration(*_declared: object) -> None:
        raise ValueError("there is a document type")

    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = declaration
    is_last = False
    while not is_last:
        piece = report.read(READ_BYTES)
        is_last = not piece
        parser.Parse(piece, is_last)
        yield from begun
        begun.clear()


@contextmanager
def _readable(program: str) -> Iterator[None]:
    try:
        yield
    except (expat.ExpatError, ValueError, LookupError, StopIteration) as failure:
        why = str(failure) or "it ends too soon"
        raise UnreadableReportError(f"{program}'s report makes no sense: {why}", argv=(program,)) from failure
