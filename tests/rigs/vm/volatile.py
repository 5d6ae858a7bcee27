"""A disk that outlives its machine, with a write cache that does not: what a power cut does to a real one.

It is an NBD server in this process, on a Unix socket, over a sparse file. What the guest has written is read back at
once, and is safe from the next flush on, or from the write itself on if that has FUA. `cut`, once QEMU has been killed,
takes back what was not safe yet, in one of two ways:

  in order    all that was written after some moment is lost, and nothing before it
  any order   each block of 4 KiB for itself is as any of its writes since the flush left it, or as it was before them

Modelled: a volatile cache, with write-through by FUA, and the loss of what was under way. Zeroes and discards are
writes. Not modelled: a torn block (4 KiB are written as a whole: as NVMe disks do), and a disk that lies about a flush.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

BLOCK_BYTES = 4096
CACHE_BLOCKS = 1 << 15
"""More than 128 MiB no cache keeps back: then all of it is written."""
PIECE_BYTES = 1 << 20

GREETING = struct.Struct(">8s8sH")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")
EXPORT = struct.Struct(">HQH")
MAGIC, OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
OPTION_REPLY_MAGIC, REQUEST_MAGIC, REPLY_MAGIC = 0x3E889045565A9, 0x25609513, 0x67446698
FIXED_NEWSTYLE = 1
OPTION_ABORT, OPTION_GO = 2, 7
ACK, INFO, UNSUPPORTED = 1, 3, 0x80000001
READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
FUA = 1
CAN = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6
"""Flags; flush; FUA; trim; write zeroes."""
INVALID = 22


@dataclass(slots=True)
class VolatileDisk:
    """One disk, for as long as the context lasts; one machine after the other may have it."""

    path: Path
    """Of its socket; the content lies beside it."""
    size_bytes: int
    _file: int = -1
    _unsafe: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """By block, its writes since the last flush: when each was (a running number), and what was there before it."""
    _moment: int = 0
    _door: socket.socket | None = None
    _guests: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def drive(self) -> str:
        """What QEMU is told as its `file`, and how: the guest sees a disk with a cache to be flushed."""
        return f"file=nbd:unix:{self.path},format=raw,cache=writeback,discard=unmap"

    def __enter__(self) -> Self:
        """Blank, if the file is not there yet."""
        self._file = os.open(self.path.with_suffix(".img"), os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._file, self.size_bytes)
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(self.path))
        self._door.listen()
        self._guests.append(threading.Thread(target=self._admit, name=f"disk-{self.path.name}", daemon=True))
        self._guests[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._door is not None
        with suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()
        for thread in self._guests:
            thread.join()
        os.close(self._file)
        self.path.unlink()

    def cut(self, dice: random.Random, *, is_in_order: bool) -> tuple[int, int]:
        """Lose some of what is not safe: how many blocks have lost a write, and how many were not safe.

        No machine has the disk any more; what one had still under way is dealt with first.
        """
        for thread in self._guests[1:]:
            thread.join()
        del self._guests[1:]
        with self._lock:
            moments = [moment for writes in self._unsafe.values() for moment, _ in writes]
            end = dice.randint(min(moments), max(moments) + 1) if moments else 0
            lost, unsafe = 0, len(self._unsafe)
            for number, writes in sorted(self._unsafe.items()):
                left = sum(moment < end for moment, _ in writes) if is_in_order else dice.randint(0, len(writes))
                if left < len(writes):
                    os.pwrite(self._file, writes[left][1] or bytes(BLOCK_BYTES), number * BLOCK_BYTES)
                    lost += 1
            self._unsafe.clear()
            return lost, unsafe

    def _admit(self) -> None:
        assert self._door is not None
        while True:
            try:
                guest, _ = self._door.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(guest,), name=f"{self.path.name}-guest", daemon=True)
            self._guests.append(thread)
            thread.start()

    def _serve(self, guest: socket.socket) -> None:
        """One machine, until it goes, however that is."""
        with guest, guest.makefile("rb") as said, suppress(EOFError, OSError):
            if self._is_agreed(guest, said):
                while self._is_answered(guest, said):
                    pass

    def _is_agreed(self, guest: socket.socket, said: BinaryIO) -> bool:
        guest.sendall(GREETING.pack(MAGIC, OPTION_MAGIC, FIXED_NEWSTYLE))
        _read(said, 4)
        while True:
            _, option, length = OPTION.unpack(_read(said, OPTION.size))
            _read(said, length)
            if option == OPTION_ABORT:
                return False
            if option != OPTION_GO:
                guest.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, UNSUPPORTED, 0))
                continue
            export = EXPORT.pack(0, self.size_bytes, CAN)
            guest.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, INFO, len(export)) + export)
            guest.sendall(OPTION_REPLY.pack(OPTION_REPLY_MAGIC, option, ACK, 0))
            return True

    def _is_answered(self, guest: socket.socket, said: BinaryIO) -> bool:
        """One request; not the last one."""
        _, flags, kind, cookie, offset, length = REQUEST.unpack(_read(said, REQUEST.size))
        content, error = b"", 0
        if kind == DISCONNECT:
            return False
        if kind == WRITE:
            written = _read(said, length)
        with self._lock:
            if kind == READ:
                content = os.pread(self._file, length, offset)
            elif kind == WRITE:
                self._write(offset, written, is_safe=bool(flags & FUA))
            elif kind in (TRIM, WRITE_ZEROES):
                self._zero(offset, length, is_safe=bool(flags & FUA))
            elif kind == FLUSH:
                self._unsafe.clear()
            else:
                error = INVALID
        guest.sendall(REPLY.pack(REPLY_MAGIC, error, cookie) + content)
        return True

    def _write(self, offset: int, content: bytes, *, is_safe: bool) -> None:
        self._remember(offset, len(content), is_safe=is_safe)
        os.pwrite(self._file, content, offset)

    def _zero(self, offset: int, length: int, *, is_safe: bool) -> None:
        for start in range(offset, offset + length, PIECE_BYTES):
            size = min(PIECE_BYTES, offset + length - start)
            if os.pread(self._file, size, start).count(0) != size:
                self._write(start, bytes(size), is_safe=is_safe)

    def _remember(self, offset: int, length: int, *, is_safe: bool) -> None:
        """What the blocks of a range hold, before they are written."""
        numbers = range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES))
        if is_safe:
            for number in numbers:
                self._unsafe.pop(number, None)
            return
        if len(self._unsafe) > CACHE_BLOCKS:
            self._unsafe.clear()
        held = os.pread(self._file, len(numbers) * BLOCK_BYTES, numbers.start * BLOCK_BYTES)
        self._moment += 1
        for index, number in enumerate(numbers):
            block = held[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
            is_blank = block.count(0) == BLOCK_BYTES
            self._unsafe.setdefault(number, []).append((self._moment, b"" if is_blank else block))


def _read(said: BinaryIO, size: int) -> bytes:
    content = said.read(size)
    if len(content) < size:
        raise EOFError
    return content
