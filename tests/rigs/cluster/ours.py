"""Our own programs as processes of a cluster test: each in a folder of its own, on a socket and a port of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.cluster.api import Api
from tests.rigs.cluster.process import Answers, Process, answers, free_ports

PROGRAM = (sys.executable, "-m", "ullage.cli")
NAMESPACE = "ullage-system"
TRACED = {"PYTHONFAULTHANDLER": "1"}
"""SIGABRT shows in the log what each thread is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """A program of ours and where it is found."""

    process: Process
    csi_socket: Path
    http: str
    """HOST:PORT of /healthz, /readyz and /metrics."""

    @property
    def csi_endpoint(self) -> str:
        """As a CSI client is told of it."""
        return f"unix://{self.csi_socket}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Extender:
    """`ullage extender`, and where kube-scheduler finds it."""

    process: Process
    http: str
    """HOST:PORT."""


def extender(folder: Path, kubeconfig: Path) -> Extender:
    """`ullage extender`; nothing runs yet. It is ready once it knows the cluster."""
    http = f"127.0.0.1:{free_ports(1)[0]}"
    return _extender(folder / "extender.log", http, kubeconfig, Answers(f"http://{http}/readyz"))


def webhook(folder: Path, kubeconfig: Path, certificate: Path, key: Path) -> Extender:
    """The same that serves its webhook besides, all of it by HTTPS."""
    http = f"127.0.0.1:{free_ports(1)[0]}"
    more = ("--webhook", "--tls-cert", str(certificate), "--tls-key", str(key))
    return _extender(folder / "webhook.log", http, kubeconfig, Api(f"https://{http}", certificate).is_ready, more)


def controller(folder: Path, name: str, kubeconfig: Path, more: Sequence[str] = ()) -> Ours:
    """`ullage controller`; nothing runs yet. `folder` has to be short: a socket's path has 107 characters at most."""
    return _ours(folder, name, "controller", ["--kubeconfig", str(kubeconfig), "--namespace", NAMESPACE, *more])


def node_agent(
    folder: Path, node: str, kubeconfig: Path, more: Sequence[str] = (), container: Sequence[str] = ()
) -> Ours:
    """`ullage node`: the CSI node and the agent of one node; `container` is put before its words, and starts it."""
    words = [
        "--node-name",
        node,
        "--kubeconfig",
        str(kubeconfig),
        "--socket",
        f"unix://{folder / f'{node}-agent.sock'}",
    ]
    return _ours(folder, node, "node", [*words, *more], container)


def standalone(folder: Path, node: str, config: Path, more: Sequence[str] = ()) -> Ours:
    """`ullage standalone`: a driver that knows no Kubernetes."""
    sockets = ["--socket", f"unix://{folder / f'{node}-agent.sock'}", "--private-mounts"]
    return _ours(folder, node, "standalone", ["--node-name", node, "--config", str(config), *sockets, *more])


def _extender(
    log: Path, http: str, kubeconfig: Path, is_ready: Callable[[], bool], more: Sequence[str] = ()
) -> Extender:
    words = ["extender", "--kubeconfig", str(kubeconfig), "--http", http, "--log-format", "json", *more]
    return Extender(process=Process([*PROGRAM, *words], log, is_ready, TRACED), http=http)


def _ours(folder: Path, name: str, subcommand: str, words: Sequence[str], container: Sequence[str] = ()) -> Ours:
    csi_socket = folder / f"{name}.sock"
    http = f"127.0.0.1:{free_ports(1)[0]}"
    argv = [
        *container,
        *PROGRAM,
        subcommand,
        "--csi-endpoint",
        f"unix://{csi_socket}",
        "--http",
        http,
        "--log-format",
        "json",
        *words,
    ]
    is_served = Answers(f"http://{http}/readyz")
    process = Process(argv, folder / f"{name}.log", lambda: is_served() and answers(csi_socket), TRACED)
    return Ours(process=process, csi_socket=csi_socket, http=http)
