"""The programs that are measured, or measured against, as processes of their own; each is ready within its context."""

from __future__ import annotations

import http.client
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from bench.cluster_scene import peak_bytes_of
from bench.counting import total
from bench.extender_objects import Size
from bench.lvm_rig import Memory, cpu_seconds_of, memory_of
from tests.rigs.cluster.ours import PROGRAM
from tests.rigs.cluster.process import Answers, Process, free_ports

TELL_SECONDS = 60.0
REST_SECONDS = 1.0


ECHO, IDLE = "bench.extender_echo", "bench.extender_idle"


class Extender:
    """`ullage extender`; its log stays."""

    def __init__(self, log: Path, words: Sequence[str]) -> None:
        """`words` say where its objects come from."""
        self.address = _address()
        argv = [*PROGRAM, "extender", "--http", self.address, "--log-format", "json", *words]
        self._process = Process(argv, log, Answers(f"http://{self.address}/readyz"))

    @property
    def cpu_seconds(self) -> float:
        """What it has had of the processors so far."""
        return cpu_seconds_of(self._process.pid)

    @property
    def answering_seconds(self) -> float:
        """How long all its answers took so far, by its own account."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=TELL_SECONDS) as reply:
            return total(reply.read().decode(), "ullage_extender_request_seconds_sum")

    @property
    def memory(self) -> Memory:
        """What it costs now."""
        return memory_of(self._process.pid)

    @property
    def peak_bytes(self) -> int:
        """The most that was resident at once, so far."""
        return peak_bytes_of(self._process.pid)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()


class Cluster:
    """`bench.extender_api`: objects that `ullage extender` reads."""

    def __init__(self, folder: Path, size: Size) -> None:
        """`folder` is there."""
        self.size = size
        self.kubeconfig = folder / "cluster.kubeconfig"
        self._address = _address()
        argv = [sys.executable, "-m", "bench.extender_api", self._address.rpartition(":")[2], size.nodes, size.volumes]
        is_ready = Answers(f"http://{self._address}/api/v1/nodes?limit=1")
        self._process = Process(list(map(str, argv)), folder / "cluster.log", is_ready)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bench", "cluster": {"server": f"http://{self._address}"}}],
            "users": [{"name": "user", "user": {}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "user"}}],
            "current-context": "bench",
        }
        self.kubeconfig.write_text(yaml.safe_dump(content), encoding="utf-8")

    def rest(self) -> int:
        """Wait until it is calm and nobody lists any more; how many objects it has listed so far."""
        before, now = -1, self.tell("calm")
        while before != now:
            time.sleep(REST_SECONDS)
            before, now = now, self.tell("calm")
        return now

    def tell(self, what: str) -> int:
        """Have it `busy` or `calm`, or `relist`; the answer is how many objects it has listed so far."""
        connection = http.client.HTTPConnection(self._address, timeout=TELL_SECONDS)
        try:
            connection.request("POST", f"/bench/{what}")
            return int(connection.getresponse().read())
        finally:
            connection.close()

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()


class Beside:
    """A server of the bench: `bench.extender_echo` or `bench.extender_idle`."""

    def __init__(self, module: str, log: Path) -> None:
        """Nothing runs yet."""
        self.address = _address()
        argv = [sys.executable, "-m", module, self.address]
        self._process = Process(argv, log, Answers(f"http://{self.address}/healthz"))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()


def _address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"
