"""What the commands that ask the cluster share: where its API server is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ullage.kube.api import Api


def add_cluster_option(parser: argparse.ArgumentParser) -> None:
    """`--kubeconfig`, as kubectl has it."""
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="the cluster ($KUBECONFIG, else ~/.kube/config, else the one that this Pod runs in)",
    )


def cluster(options: argparse.Namespace) -> Api:
    """The door to the cluster that is meant; raises ConfigError."""
    from ullage.kube.api import Api  # noqa: PLC0415 - a fifth of a second, for those who ask
    from ullage.kube.connection import connect  # noqa: PLC0415

    return Api(connect(options.kubeconfig or _usual()))


def _usual() -> Path | None:
    """Where kubectl would look; None where it would find nothing."""
    if named := os.environ.get("KUBECONFIG"):
        return Path(named)
    usual = Path.home() / ".kube" / "config"
    return usual if usual.is_file() else None
