"""Runs in a Pod, alone with Python's standard library: writes records of which each byte can be told, and checks them.

  python3 writer.py write PATH      until it is ended; whatever is there has to be its own, and is gone on with
  python3 writer.py check PATH      prints the newest record's number

Numbered records go round and round a ring, in a file or at the beginning of a device, each durable (fsync) before the
next begins. So at any moment, of a power cut too, only the record then under way may be anything: each other slot has
exactly the newest record of its own. What is older, newer, torn or gone is found, and ends it with a traceback, as each
error of a write does. What it prints (`durable 17`) is durable: whoever has read it, may count on it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import struct
import sys
import time

RECORD_BYTES, SLOTS = 16 << 10, 64
REST_SECONDS, SAY_SECONDS = 0.05, 0.2
"""Between two records: processors and disks of an emulated node are for what is tested."""
_HEADER = struct.Struct("<8sQ")
_MAGIC = b"ullage f"
_NOTHING, _TORN = 0, -1


class LostError(Exception):
    """The ring is not what it was at any moment; says which slot, and what is there."""


def record(number: int) -> bytes:
    """The one record of this number."""
    header = _HEADER.pack(_MAGIC, number)
    return header + hashlib.shake_128(header).digest(RECORD_BYTES - len(header))


def newest(ring: bytes) -> int:
    """The newest record in it, 0 when it is empty; raises LostError."""
    found = [_number(ring[slot * RECORD_BYTES : (slot + 1) * RECORD_BYTES]) for slot in range(SLOTS)]
    last = max(_NOTHING, *found)
    for slot, number in enumerate(found):
        expected = max(last - (last - slot) % SLOTS, _NOTHING)
        if number != expected and slot != (last + 1) % SLOTS:
            what = {_NOTHING: "nothing", _TORN: "no whole record"}.get(number, f"record {number}")
            raise LostError(f"slot {slot} has {what} instead of {expected or 'nothing'}; the newest is {last}")
    return last


def _number(block: bytes) -> int:
    if block.count(0) == len(block):
        return _NOTHING
    if len(block) == RECORD_BYTES:
        _, number = _HEADER.unpack_from(block)
        if number > 0 and block == record(number):
            return int(number)
    return _TORN


def write(path: str) -> None:
    """Until SIGTERM."""
    is_over: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: is_over.append(True))
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    before = newest(os.pread(descriptor, RECORD_BYTES * SLOTS, 0))
    _say(f"begins after {before}")
    said_at = 0.0
    for number in itertools.count(before + 1):
        if is_over:
            return
        written = os.pwrite(descriptor, record(number), number % SLOTS * RECORD_BYTES)
        if written != RECORD_BYTES:
            raise OSError(f"{written} bytes of record {number} were written")
        os.fsync(descriptor)
        if time.monotonic() - said_at > SAY_SECONDS:
            _say(f"durable {number}")
            said_at = time.monotonic()
        time.sleep(REST_SECONDS)


def check(path: str) -> None:
    """Say the newest record's number."""
    with open(path, "rb") as file:  # noqa: PTH123 - the fewer imports, the sooner it is there on a slow machine
        _say(str(newest(file.read(RECORD_BYTES * SLOTS))))


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](sys.argv[2])
