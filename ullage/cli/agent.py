"""Serve this node's storage on a unix socket.

  ullage agent --config /etc/ullage/config.yaml
  ullage agent --config config.yaml --socket unix:///tmp/agent.sock --http 127.0.0.1:9252 --log-level debug
  ullage agent --config config.yaml --lvm-prefix 'nsenter --target 1 --mount --uts --ipc --net --'

SIGHUP reads the configuration file again; a file that cannot be used leaves the old one in force, and says why.
SIGTERM ends it: operations under way get the grace to finish. LVM commands are never killed.
"""

from __future__ import annotations

import argparse

from ullage.cli.daemon import Daemon, add_daemon_options


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_daemon_options(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; 1 when an operation outlives the grace."""
    from node_agent.service import agent_server  # noqa: PLC0415 - only this subcommand pays for it

    daemon = Daemon(options, component="agent")
    return daemon.serve([agent_server(daemon.assembly.agent, options.socket)])
