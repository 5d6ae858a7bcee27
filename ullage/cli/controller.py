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
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.cli.output import DEFAULT_CSI_SOCKET
from ullage.cli.process import (
    CALL_GRACE_SECONDS,
    Signals,
    add_process_options,
    begin,
    http_server,
    seconds,
    some_seconds,
)
from ullage.model import Problem

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from csi.cluster.loops import Loops
    from csi.cluster.telling import Telling
    from csi.cluster.view import ClusterView
    from ullage.kube.api import Api

LEASE = "ullage-controller"
NOT_SYNCED = Problem(reason="Starting", message="the API server has not told us of all objects yet")

log = logging.getLogger(__name__)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    parser.add_argument(
        "--csi-endpoint", default=DEFAULT_CSI_SOCKET, metavar="ADDRESS", help=f"CSI's socket ({DEFAULT_CSI_SOCKET})"
    )
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server (as the Pod's own account)"
    )
    parser.add_argument(
        "--namespace", required=True, metavar="NAME", help="our own, where the Lease and the capacity objects are"
    )
    parser.add_argument(
        "--lease-name", default=LEASE, metavar="NAME", help=f"what those who serve compete for ({LEASE})"
    )
    parser.add_argument(
        "--node-loss-delay",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="give up the volumes of a node that has been gone from the cluster for so long (never)",
    )
    parser.add_argument(
        "--orphan-scan",
        type=some_seconds,
        default=300.0,
        metavar="SECONDS",
        help="between two looks for orphans (300)",
    )
    parser.add_argument(
        "--abandoned-after",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="remove a volume whose claim is gone before it had a PersistentVolume, if it was never written to (300; "
        "0: never)",
    )
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
    from ullage.kube.events import Events  # noqa: PLC0415
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
    events = Events(api, LEASE, socket.gethostname())
    loops = _loops(api, view, events, options, registry, lambda: lease.is_leader)
    lease = Lease(
        api,
        options.lease_name,
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
        events.start()
        ends.callback(events.stop)
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


def _loops(  # noqa: PLR0913, PLR0917 - what this wires together
    api: Api,
    view: ClusterView,
    events: Telling,
    options: argparse.Namespace,
    registry: CollectorRegistry,
    is_leader: Callable[[], bool],
) -> Loops:
    """What only the leader does. Informers that a loop needs besides the view's are its own to start."""
    from csi.cluster.abandoned import AbandonedVolumes  # noqa: PLC0415
    from csi.cluster.loops import Loops, NodeLossLoop  # noqa: PLC0415
    from csi.cluster.metrics import AbandonedMetrics, CapacityMetrics, LoopCollector  # noqa: PLC0415
    from csi.cluster.orphans import OrphanScanner  # noqa: PLC0415
    from csi.cluster.storage_capacity import StorageCapacityWriter  # noqa: PLC0415

    delay_seconds: float = options.node_loss_delay
    node_loss = None
    if delay_seconds:
        node_loss = NodeLossLoop(api, view, events, delay_seconds=delay_seconds, is_leader=is_leader)
    abandoned = None
    if options.abandoned_after:
        abandoned = AbandonedVolumes(
            api,
            view,
            events,
            grace_seconds=options.abandoned_after,
            is_leader=is_leader,
            observe=AbandonedMetrics(registry).observe,
        )
    loops = Loops(
        capacity=StorageCapacityWriter(api, view, options.namespace, on_write=CapacityMetrics(registry).observe),
        orphans=OrphanScanner(api, view, events, scan_seconds=options.orphan_scan),
        node_loss=node_loss,
        abandoned=abandoned,
    )
    registry.register(
        LoopCollector(lambda: loops.orphans.counts, lambda: node_loss.gone if node_loss is not None else None)
    )
    return loops
