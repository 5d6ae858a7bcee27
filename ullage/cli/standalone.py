"""The whole driver in one process on one machine, without Kubernetes: CSI controller, CSI node, and the agent.

  ullage standalone --config config.yaml
  ullage standalone --config config.yaml --csi-endpoint unix:///tmp/csi.sock --http 127.0.0.1:9252 --node-name here

For trials, tests and other orchestrators. What there is, the storage itself says (LVM tags, the records beside files):
nothing is lost by a restart or a `kill -9`. SIGHUP reads the configuration again; SIGTERM ends it, and volumes stay
mounted.
`ullage volume --help` shows how to use it by hand.
"""

from __future__ import annotations

import argparse
import socket
from importlib.metadata import version

from ullage.cli.daemon import Daemon, add_daemon_options
from ullage.cli.output import DEFAULT_CSI_SOCKET
from ullage.errors import ConfigError
from ullage.model import NodeName
from ullage.names import check_label_value

ALPHA = ("volume-health",)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_daemon_options(parser)
    parser.add_argument(
        "--csi-endpoint", default=DEFAULT_CSI_SOCKET, metavar="ADDRESS", help=f"CSI's socket ({DEFAULT_CSI_SOCKET})"
    )
    parser.add_argument("--node-name", default=socket.gethostname(), metavar="NAME", help="this node (the host's name)")
    add_node_options(parser)


def add_node_options(parser: argparse.ArgumentParser) -> None:
    """What every process that mounts volumes can be told."""
    parser.add_argument(
        "--private-mounts",
        action="store_true",
        help="whoever uses the volumes shares our mount namespace: mount also where nobody outside would see it",
    )
    parser.add_argument(
        "--alpha", action="append", default=[], choices=ALPHA, help="offer an alpha part of CSI 1.13 (none)"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 1 when an operation outlives the grace."""
    # Only this subcommand pays for these imports.
    from csi.calls import Calls  # noqa: PLC0415
    from csi.controller import Controller  # noqa: PLC0415
    from csi.fs.volumes import FileSystems  # noqa: PLC0415
    from csi.group import GroupController  # noqa: PLC0415
    from csi.identity import Identity  # noqa: PLC0415
    from csi.metrics import CallMetrics, describe_busy  # noqa: PLC0415
    from csi.node import Node  # noqa: PLC0415
    from csi.server import Services, csi_server  # noqa: PLC0415
    from csi.snapshot_metadata import SnapshotMetadata  # noqa: PLC0415
    from node_agent.local import LocalNode, LocalProvisioner  # noqa: PLC0415
    from node_agent.service import agent_server  # noqa: PLC0415

    node = NodeName(check_label_value(options.node_name))
    if not node:
        raise ConfigError("--node-name is empty; a node needs a name")
    daemon = Daemon(options, component="standalone")
    agent = daemon.assembly.agent
    calls = Calls(CallMetrics(daemon.registry).observe)
    describe_busy(daemon.registry, calls.under_way)
    has_health = "volume-health" in options.alpha
    file_systems = FileSystems(daemon.runner, is_standalone=options.private_mounts)
    provisioner = LocalProvisioner(agent, node)
    services = Services(
        identity=Identity(calls, version("ullage"), lambda: daemon.is_ready),
        controller=Controller(calls, provisioner, has_health=has_health),
        group=GroupController(calls, provisioner),
        metadata=SnapshotMetadata(calls, provisioner),
        node=Node(calls, LocalNode(agent), file_systems, node, has_health=has_health),
    )
    servers = [agent_server(agent, options.socket), csi_server(services, options.csi_endpoint)]
    return daemon.serve(servers, calls.under_way)
