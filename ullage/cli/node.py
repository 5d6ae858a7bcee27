"""Serve one node of a cluster: CSI for its kubelet, the agent for its storage, and its objects in Kubernetes.

  ullage node --node-name worker-1
  ullage node --node-name worker-1 --csi-endpoint unix:///csi/csi.sock --socket unix:///run/ullage/agent.sock
  ullage node --node-name worker-1 --register /var/lib/kubelet/plugins_registry
  ullage node --node-name worker-1 --kubeconfig /etc/ullage/kubeconfig --http 127.0.0.1:9252 --log-level debug

The device classes are objects; what was served last is kept beside the agent's socket. While the API server is gone, or
was never there, volumes are staged, published and taken away as always, and what was ordered meanwhile is done after.
Without --kubeconfig the Pod's own account is used. With --register kubelet finds the driver by itself, without a
node-driver-registrar: the CSI socket's path has to be the same for kubelet. SIGTERM ends it, and volumes stay mounted.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from ullage.cli.daemon import Daemon, add_daemon_options
from ullage.cli.output import DEFAULT_CSI_SOCKET
from ullage.cli.standalone import add_node_options
from ullage.errors import ConfigError
from ullage.model import NodeName, Volume
from ullage.names import check_label_value

COMPONENT = "ullage-node"


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_daemon_options(parser, has_config=False)
    parser.add_argument(
        "--csi-endpoint", default=DEFAULT_CSI_SOCKET, metavar="ADDRESS", help=f"CSI's socket ({DEFAULT_CSI_SOCKET})"
    )
    parser.add_argument("--node-name", required=True, metavar="NAME", help="this node, as the cluster calls it")
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server (the Pod's own account)"
    )
    parser.add_argument(
        "--register",
        type=Path,
        metavar="DIRECTORY",
        help="where kubelet looks for drivers: /var/lib/kubelet/plugins_registry (left to a node-driver-registrar)",
    )
    add_node_options(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 1 when an operation outlives the grace."""
    # Only this subcommand pays for these imports.
    from csi.calls import Calls  # noqa: PLC0415
    from csi.fs.device import looked_up  # noqa: PLC0415
    from csi.fs.probe import probe  # noqa: PLC0415
    from csi.fs.volumes import FileSystems  # noqa: PLC0415
    from csi.identity import Identity  # noqa: PLC0415
    from csi.metrics import CallMetrics, describe_busy  # noqa: PLC0415
    from csi.node import Node  # noqa: PLC0415
    from csi.registration import Registration, describe_registration  # noqa: PLC0415
    from csi.server import Services, csi_server  # noqa: PLC0415
    from csi.snapshot_metadata import SnapshotMetadata  # noqa: PLC0415
    from node_agent.cluster.link import Link  # noqa: PLC0415
    from node_agent.cluster.metrics import ObjectCollector, ReconcileMetrics, describe_link  # noqa: PLC0415
    from node_agent.local import LocalNode, LocalProvisioner  # noqa: PLC0415
    from node_agent.service import agent_server  # noqa: PLC0415
    from ullage.kube.api import Api  # noqa: PLC0415
    from ullage.kube.connection import connect  # noqa: PLC0415
    from ullage.kube.events import Events  # noqa: PLC0415
    from ullage.kube.metrics import InformerCollector  # noqa: PLC0415
    from ullage.rpc import socket_path  # noqa: PLC0415

    node = NodeName(check_label_value(options.node_name))
    if not node:
        raise ConfigError("--node-name is empty; a node needs a name")
    daemon = Daemon(options, component="node")
    agent = daemon.assembly.agent
    calls = Calls(CallMetrics(daemon.registry).observe)
    describe_busy(daemon.registry, calls.under_way)

    def content(volume: Volume) -> str:
        found = probe(daemon.runner, looked_up(volume.device_path))
        return found.kind or ("" if found.is_blank else "block")

    api = Api(connect(options.kubeconfig))
    link = Link(
        node=node,
        version=version("ullage"),
        assembly=daemon.assembly,
        api=api,
        events=Events(api, COMPONENT, node),
        alone=calls.alone,
        probe=content,
        kept=socket_path(options.socket).with_suffix(".classes"),
        observe=ReconcileMetrics(daemon.registry).observe,
    )
    daemon.assembly.operations.tell(link.ended)
    daemon.registry.register(ObjectCollector(link.orders.all, link.strays))
    daemon.registry.register(InformerCollector(link.informers))
    describe_link(daemon.registry, waiting=link.waiting, silence_seconds=lambda: link.orders.seconds_since_heard)
    has_health = "volume-health" in options.alpha
    file_systems = FileSystems(daemon.runner, is_standalone=options.private_mounts)
    services = Services(
        identity=Identity(calls, version("ullage"), lambda: daemon.is_ready),
        metadata=SnapshotMetadata(calls, LocalProvisioner(agent, node)),
        node=Node(calls, LocalNode(agent), file_systems, node, has_health=has_health),
    )
    servers = [agent_server(agent, options.socket), csi_server(services, options.csi_endpoint)]
    registration = None
    if options.register is not None:
        registration = Registration(options.register, socket_path(options.csi_endpoint), daemon.give_up)
        describe_registration(daemon.registry, registration.problem)
    return daemon.serve(servers, calls.under_way, link, registration)
