"""What runs in a node VM of the power cuts: `ullage node`, and writers as Pods would have them.

  python -m tests.power.inside --port N --csi-port N --acknowledge-to HOST:PORT

It serves one request for each connection on its port, JSON in and JSON out: `{"do": NAME, …}`, and the answer is
`{"is": …}` or `{"error": …}`. Nothing is kept: after a power cut the host asks for all of it anew.
The agent's CSI socket is reached through another port. (A gRPC client in here would cost seconds of emulation to load.)

A writer goes round and round a ring of records (`tests.csi.writer`), in a file or on a raw device, each durable before
the next begins. That one is durable it says to the host, and only then: `RUN NUMBER`, a line each.
"""

from __future__ import annotations

import argparse
import itertools
import json
import mmap
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.csi.writer import RECORD_BYTES, RING_BYTES, SLOTS, record

RUN = Path("/run/ullage")
CSI = RUN / "csi.sock"
READY_SECONDS = 300.0
WRITER_PAUSE_SECONDS = 0.02


@dataclass
class Writer:
    """One thread that writes. `failure` is what ended it, if that was not the wish of anybody."""

    path: Path
    run: bytes
    number: int
    acknowledge: Callable[[str], None]
    is_direct: bool
    is_over: threading.Event = field(default_factory=threading.Event)
    failure: str = ""
    thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"writer-{self.run.hex()[:6]}", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """After the record under way; raises OSError if it has ended before."""
        self.is_over.set()
        if self.thread is not None:
            self.thread.join()
        if self.failure:
            raise OSError(self.failure)

    def _run(self) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | (os.O_DIRECT if self.is_direct else 0), 0o600)
            try:
                self._write(descriptor)
            finally:
                os.close(descriptor)
        except OSError as failure:
            self.failure = f"{self.path}: {failure}"

    def _write(self, descriptor: int) -> None:
        aligned = mmap.mmap(-1, RECORD_BYTES)
        for number in itertools.count(self.number + 1):
            if self.is_over.is_set():
                return
            aligned[:] = record(self.run, number)
            written = os.pwrite(descriptor, aligned, number % SLOTS * RECORD_BYTES)
            if written != RECORD_BYTES:
                raise OSError(f"{written} bytes of record {number} were written")
            os.fsync(descriptor)
            if number == 1:
                _sync_directory(self.path.parent)
            self.acknowledge(f"{self.run.hex()} {number}\n")
            time.sleep(WRITER_PAUSE_SECONDS)


class Inside:
    """All that is done here, each by its name."""

    def __init__(self, acknowledgements: socket.socket) -> None:
        """Nothing runs yet."""
        self._acknowledgements = acknowledgements
        self._saying = threading.Lock()
        self._writers: dict[str, Writer] = {}
        self._agent: subprocess.Popen[bytes] | None = None

    def ping(self) -> str:
        """Whether it is there."""
        return "pong"

    def run(self, argv: list[str]) -> dict[str, Any]:
        """A program of the audit."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return {"code": done.returncode, "out": done.stdout, "err": done.stderr}

    def start_agent(self, node: str, kubeconfig: str, certificate: str, log: str) -> None:
        """`ullage node`, and what kubelet has of it: its socket. Raises RuntimeError when it does not get ready."""
        RUN.mkdir(exist_ok=True)
        subprocess.run(("mount", "--make-rshared", "/"), check=True)
        (RUN / "ca.crt").write_text(certificate, encoding="utf-8")
        (RUN / "kubeconfig").write_text(kubeconfig.replace("@CA@", str(RUN / "ca.crt")), encoding="utf-8")
        argv = [sys.executable, "-m", "ullage.cli", "node", "--node-name", node]
        argv += ["--kubeconfig", str(RUN / "kubeconfig"), "--socket", f"unix://{RUN / 'agent.sock'}"]
        argv += ["--csi-endpoint", f"unix://{CSI}", "--http", "127.0.0.1:9252", "--log-format", "json"]
        with Path(log).open("ab", buffering=0) as file:
            self._agent = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**os.environ, "PYTHONFAULTHANDLER": "1"}
            )
        deadline = time.monotonic() + READY_SECONDS
        while not _listens(CSI):
            if self._agent.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ullage node is not ready: {self._agent.poll()}")
            time.sleep(0.2)

    def make_directories(self, paths: list[str]) -> None:
        """With those above them."""
        for path in paths:
            Path(path).mkdir(mode=0o750, parents=True, exist_ok=True)

    def write(self, place: str, run: str, number: int) -> None:
        """Begin with the record after `number`, in a ring below a directory, or on a device."""
        ring = _ring(place, run)
        is_direct = ring.is_block_device()
        self._writers[run] = Writer(ring, bytes.fromhex(run), number, self._acknowledge, is_direct=is_direct)
        self._writers[run].start()

    def end_write(self, run: str) -> None:
        """After the record under way; raises OSError when a write has failed before."""
        self._writers.pop(run).stop()

    def failures(self) -> list[str]:
        """Of writers that nobody has ended."""
        return [writer.failure for writer in self._writers.values() if writer.failure]

    def ring(self, place: str, run: str) -> str:
        """What a ring holds, in hex; nothing where there is no file."""
        ring = _ring(place, run)
        if not ring.exists():
            return ""
        with ring.open("rb") as file:
            return file.read(RING_BYTES).hex()

    def _acknowledge(self, line: str) -> None:
        with self._saying:
            self._acknowledgements.sendall(line.encode())


def _ring(place: str, run: str) -> Path:
    """A file of a volume for each run; of a device its beginning."""
    path = Path(place)
    return path / f"ring-{run}" if path.is_dir() else path


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _serve(connection: socket.socket, inside: Inside) -> None:
    with connection, connection.makefile("rwb") as stream:
        asked = json.loads(stream.readline())
        try:
            answer = {"is": getattr(inside, asked.pop("do"))(**asked)}
        except Exception:  # noqa: BLE001 - whoever asked is told
            answer = {"error": traceback.format_exc()}
        stream.write(json.dumps(answer).encode() + b"\n")


def _relay(connection: socket.socket) -> None:
    """Bytes to the CSI socket and back, until either has ended."""
    with connection, socket.socket(socket.AF_UNIX) as agent:
        try:
            agent.connect(str(CSI))
        except OSError:
            return
        back = threading.Thread(target=_copy, args=(agent, connection), daemon=True)
        back.start()
        _copy(connection, agent)
        back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)
    for each in (source, sink):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _admit(port: int, serve: Callable[[socket.socket], None]) -> None:
    """A thread for each connection, for ever."""
    with socket.create_server(("0.0.0.0", port), backlog=64) as door:  # noqa: S104 - the VM's own network
        while True:
            connection, _ = door.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main() -> None:
    """Serve until the power goes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--csi-port", type=int, required=True)
    parser.add_argument("--acknowledge-to", required=True)
    options = parser.parse_args()
    host, _, port = options.acknowledge_to.partition(":")
    inside = Inside(socket.create_connection((host, int(port))))
    threading.Thread(target=_admit, args=(options.csi_port, _relay), daemon=True).start()
    _admit(options.port, lambda connection: _serve(connection, inside))


if __name__ == "__main__":
    main()
