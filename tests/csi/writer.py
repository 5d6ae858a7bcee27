"""A writer whose work can be checked at any moment of it, and the check.

  python -m tests.csi.writer FILE --marks FILE --run HEX [--direct]

It writes numbered records round and round a ring, one after the other, each durable (fsync) before the next begins.
Which record it has begun and which is durable it says in a shared page, so that whoever takes a snapshot knows what
must be in it, and what cannot be. A record is made of nothing but its run and its number: each byte can be told.

So of what the ring held at one moment only the record then under way may be anything; every other slot has exactly the
newest record of its own. What is older, newer, torn, another's or gone is found. The ring is written over again after
the snapshot, so that a block which the snapshot shares with its source is one that the source then changes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import mmap
import os
import secrets
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECORD_BYTES, SLOTS = 16 << 10, 32
RING_BYTES = RECORD_BYTES * SLOTS
_HEADER = struct.Struct("<8s16sQ")
_MAGIC = b"ullage w"
_PATIENCE_SECONDS = 600.0
_NOTHING, _TORN = 0, -1
_BEGUN, _DURABLE = 0, 1


class LostError(AssertionError):
    """The ring is not what it was at any moment it is to be of; says which slot, and what is there."""


def record(run: bytes, number: int) -> bytes:
    """The one record of this run and number."""
    header = _HEADER.pack(_MAGIC, run, number)
    return header + hashlib.shake_128(header).digest(RECORD_BYTES - len(header))


def check(ring: bytes, run: bytes, *, durable: int, begun: int) -> int:
    """The newest record in the ring, which holds what it held at some moment between two.

    At the first, `durable` was durable; at the second, `begun` was the last one begun. Raises LostError.
    """
    found = [_number(ring[slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES], run) for slot in range(SLOTS)]
    newest = max(found)
    if not durable <= newest <= begun:
        raise LostError(f"the newest record is {newest}: not one of {durable} to {begun}")
    under_way = newest + 1 if newest < begun else None
    for slot, number in enumerate(found):
        expected = max(newest - (newest - slot) % SLOTS, _NOTHING)
        if number != expected and (under_way is None or slot != under_way % SLOTS):
            what = {_NOTHING: "nothing", _TORN: "no whole record of this run"}.get(number, f"record {number}")
            raise LostError(f"slot {slot} has {what} instead of {expected or 'nothing'}; the newest is {newest}")
    return newest


def _number(block: bytes, run: bytes) -> int:
    if block.count(0) == len(block):
        return _NOTHING
    if len(block) == RECORD_BYTES:
        _, _, number = _HEADER.unpack_from(block)
        if number > 0 and block == record(run, number):
            return int(number)
    return _TORN


class Writer:
    """A writer at work, in a process of its own."""

    def __init__(self, path: Path, folder: Path, *, is_direct: bool = False) -> None:
        """`folder` keeps the marks, and is not on what is written to."""
        self.path = path
        self.run = secrets.token_bytes(16)
        marks = folder / f"marks-{self.run.hex()}"
        marks.write_bytes(bytes(mmap.PAGESIZE))
        with marks.open("r+b") as file:
            self._marks = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
        argv = [sys.executable, "-m", "tests.csi.writer", str(path), "--marks", str(marks), "--run", self.run.hex()]
        argv += ["--direct"] if is_direct else []
        self._said = folder / f"said-{self.run.hex()}"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *argv], stderr=said)

    @property
    def durable(self) -> int:
        """The last record that is durable."""
        return int(self._marks[_DURABLE])

    @property
    def begun(self) -> int:
        """The last record that was begun."""
        return int(self._marks[_BEGUN])

    def wait_for(self, more: int) -> None:
        """Until so many more records are durable, which the writer must come to undisturbed."""
        number, end = self.durable + more, time.monotonic() + _PATIENCE_SECONDS
        while self.durable < number:
            assert self._process.poll() is None, f"the writer has ended: {self._said.read_text()}"
            assert time.monotonic() < end, f"the writer is at {self.durable} and does not come to {number}"
            time.sleep(0.02)

    def stop(self) -> None:
        """After the record under way; no write and no fsync of it has failed."""
        self._process.terminate()
        assert self._process.wait(_PATIENCE_SECONDS) == 0, self._said.read_text()
        assert self.begun == self.durable

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Wherever it is; its ring can be read as it is at one moment."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """At once, if it is there still."""
        self._process.kill()
        self._process.wait()

    def checked(self, path: Path, *, durable: int, begun: int) -> int:
        """What the ring at this path holds; see `check`."""
        with path.open("rb") as file:
            ring = file.read(RING_BYTES)
        return check(ring, self.run, durable=durable, begun=begun)


def main() -> None:
    """Write until SIGTERM; every error ends it with a traceback."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--marks", type=Path, required=True)
    parser.add_argument("--run", type=bytes.fromhex, required=True)
    parser.add_argument("--direct", action="store_true")
    options = parser.parse_args()
    is_over: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    with options.marks.open("r+b") as file:
        marks = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")
    descriptor = os.open(options.path, os.O_RDWR | os.O_CREAT | (os.O_DIRECT if options.direct else 0), 0o600)
    aligned = mmap.mmap(-1, RECORD_BYTES)
    for number in itertools.count(1):
        if is_over:
            return
        marks[_BEGUN] = number
        aligned[:] = record(options.run, number)
        written = os.pwrite(descriptor, aligned, number % SLOTS * RECORD_BYTES)
        if written != RECORD_BYTES:
            raise OSError(f"{written} bytes of record {number} were written")
        os.fsync(descriptor)
        marks[_DURABLE] = number


if __name__ == "__main__":
    main()
