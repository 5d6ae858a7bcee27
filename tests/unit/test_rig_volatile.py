"""The disk of the power cuts: what is safe stays, and what is not may go. A client of the wire, no QEMU."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.rigs.vm import volatile
from tests.rigs.vm.volatile import BLOCK_BYTES, FLUSH, FUA, READ, WRITE, WRITE_ZEROES, VolatileDisk

SIZE_BYTES = 64 * BLOCK_BYTES
DICE = random.Random(1)  # noqa: S311 - the same each time


class Guest:
    """What a machine says to its disk."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._said = wire.makefile("rb")
        self._said.read(volatile.GREETING.size)
        wire.sendall(volatile.FIXED_NEWSTYLE.to_bytes(4, "big"))
        assert self._option(8) == volatile.UNSUPPORTED
        assert self._option(volatile.OPTION_GO) == volatile.INFO
        assert self._reply() == volatile.ACK

    def ask(self, kind: int, block: int = 0, content: bytes = b"", length: int = 0, flags: int = 0) -> bytes:
        size = length or len(content)
        request = volatile.REQUEST.pack(volatile.REQUEST_MAGIC, flags, kind, 7, block * BLOCK_BYTES, size)
        self._wire.sendall(request + content)
        assert volatile.REPLY.unpack(self._said.read(volatile.REPLY.size)) == (volatile.REPLY_MAGIC, 0, 7)
        return self._said.read(length) if kind == READ else b""

    def read(self, block: int) -> bytes:
        """The first letter of a block, which is of one letter."""
        content = self.ask(READ, block, length=BLOCK_BYTES)
        assert content == content[:1] * BLOCK_BYTES
        return content[:1]

    def write(self, block: int, letter: bytes, flags: int = 0) -> None:
        self.ask(WRITE, block, letter * BLOCK_BYTES, flags=flags)

    def _option(self, option: int) -> int:
        self._wire.sendall(volatile.OPTION.pack(volatile.OPTION_MAGIC, option, 0))
        return self._reply()

    def _reply(self) -> int:
        _, _, kind, length = volatile.OPTION_REPLY.unpack(self._said.read(volatile.OPTION_REPLY.size))
        self._said.read(length)
        return int(kind)


@contextmanager
def plugged_in(disk: VolatileDisk) -> Iterator[Guest]:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(disk.path))
        yield Guest(wire)
        wire.shutdown(socket.SHUT_RDWR)


@pytest.fixture(name="disk")
def disk_(tmp_path: Path) -> Iterator[VolatileDisk]:
    with VolatileDisk(tmp_path / "disk", SIZE_BYTES) as made:
        yield made


@pytest.mark.parametrize("is_in_order", [True, False])
def test_what_was_flushed_or_written_through_is_never_lost(disk: VolatileDisk, *, is_in_order: bool) -> None:
    for _ in range(20):
        with plugged_in(disk) as guest:
            guest.write(1, b"a")
            guest.ask(FLUSH)
            guest.write(2, b"b")
            guest.write(2, b"c", flags=FUA)
            guest.write(3, b"d")
        disk.cut(DICE, is_in_order=is_in_order)
        with plugged_in(disk) as guest:
            assert (guest.read(1), guest.read(2)) == (b"a", b"c")
            guest.ask(WRITE_ZEROES, 0, length=SIZE_BYTES)
            guest.ask(FLUSH)


@pytest.mark.parametrize("is_in_order", [True, False])
def test_what_was_not_flushed_is_lost_by_chance_and_after_it_only_in_order(
    disk: VolatileDisk, *, is_in_order: bool
) -> None:
    seen = set()
    for _ in range(60):
        with plugged_in(disk) as guest:
            guest.write(1, b"o")
            guest.write(2, b"o")
            guest.ask(FLUSH)
            for letter in (b"a", b"b"):
                guest.write(1, letter)
                guest.write(2, letter)
            assert guest.read(2) == b"b"
        disk.cut(DICE, is_in_order=is_in_order)
        with plugged_in(disk) as guest:
            seen.add(guest.read(1) + guest.read(2))
    in_order = {b"oo", b"ao", b"aa", b"ba", b"bb"}
    assert seen == in_order if is_in_order else seen > in_order


def test_zeroes_are_writes(disk: VolatileDisk) -> None:
    seen = set()
    for _ in range(30):
        with plugged_in(disk) as guest:
            guest.write(5, b"x")
            guest.ask(FLUSH)
            guest.ask(WRITE_ZEROES, 0, length=SIZE_BYTES)
            assert guest.read(5) == b"\0"
        disk.cut(DICE, is_in_order=False)
        with plugged_in(disk) as guest:
            seen.add(guest.read(5))
    assert seen == {b"x", b"\0"}
