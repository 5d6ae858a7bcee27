"""Serve CSI's controller of a cluster: volumes are ordered from the nodes' agents as LogicalVolume objects.

  ullage controller --namespace ullage
  ullage controller --namespace ullage --csi-endpoint unix:///csi/csi.sock --http 0.0.0.0:9252
  ullage controller --namespace ullage --kubeconfig ~/.kube/config --log-level debug

It keeps nothing: a restart, a second one beside it, or a `kill -9` lose no order. Without --kubeconfig the Pod's own
account is used. While the API server is gone it stays, and answers from memory what can be answered so. SIGTERM ends
it; a call that still waits for an agent is given up, its order is not.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ullage.cli.output import DEFAULT_CSI_SOCKET
from ullage.cli.process import CALL_GRACE_SECONDS, Signals, add_process_options, begin, http_server
from ullage.model import Problem

if TYPE_CHECKING:
    from csi.cluster.view import ClusterView
    from ullage.kube.api import Api

LEASE = "ullage-controller"
NOT_SYNCED = Problem(reason="Starting", message="the API server has not told us of all objects yet")

log = logging.getLogger(__name__)


class Loop(Protocol):
    """Something that one controller of several does, for as long as it leads; it may begin more than once."""

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self) -> None:
        """End, after the step under way."""


class _Together:
    """Several loops as one."""

    def __init__(self, loops: Sequence[Loop]) -> None:
        self._loops = loops

    def start(self) -> None:
        for loop in self._loops:
            loop.start()

    def stop(self) -> None:
        for loop in reversed(self._loops):
            loop.stop()


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    parser.add_argument(
        "--csi-endpoint", default=DEFAULT_CSI_SOCKET, metavar="ADDRESS", help=f"CSI's socket ({DEFAULT_CSI_SOCKET})"
    )
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server (as the Pod's own account)"
    )
    parser.add_argument("--namespace", required=True, metavar="NAME", help="our own, where the Lease is")
    add_process_options(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    # Only this subcommand pays for these imports.
    from csi.calls import Calls  # noqa: PLC0415
    from csi.cluster.provisioner import ClusterProvisioner  # noqa: PLC0415
    from csi.cluster.view import ClusterView  # noqa: PLC0415
    from csi.controller import Controller  # noqa: PLC0415
    from csi.group import GroupController  # noqa: PLC0415
    from csi.identity import Identity  # noqa: PLC0415
    from csi.metrics import CallMetrics, describe_busy  # noqa: PLC0415
    from csi.server import Services, csi_server  # noqa: PLC0415
    from ullage.kube.api import Api  # noqa: PLC0415
    from ullage.kube.connection import connect  # noqa: PLC0415
    from ullage.kube.leases import Lease  # noqa: PLC0415
    from ullage.kube.metrics import InformerCollector  # noqa: PLC0415

    registry = begin(options, "controller")
    signals = Signals()
    api = Api(connect(options.kubeconfig))
    view = ClusterView(api)
    registry.register(InformerCollector((view.volumes, view.storages, view.classes)))
    calls = Calls(CallMetrics(registry).observe)
    describe_busy(registry, calls.under_way)
    provisioner = ClusterProvisioner(api, view)
    services = Services(
        identity=Identity(calls, version("ullage"), lambda: view.is_synced),
        controller=Controller(calls, provisioner),
        group=GroupController(calls, provisioner),
    )
    server = csi_server(services, options.csi_endpoint)
    loops = _Together(_loops(api, view, options))
    lease = Lease(
        api,
        LEASE,
        namespace=options.namespace,
        identity=f"{socket.gethostname()}_{uuid.uuid4()}",
        on_leading=loops.start,
        on_lost=loops.stop,
    )
    with ExitStack() as ends:
        if options.http:
            problem = lambda: None if view.is_synced else NOT_SYNCED  # noqa: E731 - it is one expression
            ends.enter_context(http_server(options.http, registry, problem))
        server.bind()
        view.start()
        ends.callback(view.stop)
        ends.callback(server.stop, CALL_GRACE_SECONDS)
        lease.start()
        ends.callback(lease.stop)
        server.start()
        log.info("serving", extra={"component": "controller", "sockets": [server.address]})
        for _ in signals.hangups():
            log.info("nothing to read again", extra={"why": "the device classes are objects, and followed"})
        log.info("stopping", extra={"in_flight": calls.under_way()})
    if waiting := calls.under_way():
        # Python would wait for their threads, and these for agents. Their orders stay: whoever asks again finds them.
        log.info("calls given up", extra={"calls": waiting})
        logging.shutdown()
        os._exit(0)
    return 0


def _loops(api: Api, view: ClusterView, options: argparse.Namespace) -> tuple[Loop, ...]:
    """What only the leader does. Informers that a loop needs besides the view's are its own to start."""
    del api, view, options
    return ()
