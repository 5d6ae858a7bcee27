"""What the commands that place Pods share: the view, filled once from the cluster or from a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ullage.cli.cluster import cluster
from ullage.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    from scheduler_extender.view import View
    from ullage.kube.api import Api

SYNC_SECONDS = 60.0


def add_objects_option(parser: argparse.ArgumentParser) -> None:
    """`--objects`, instead of an API server."""
    parser.add_argument(
        "--objects",
        metavar="FILE",
        help="instead of asking the API server, read what `kubectl get -o json` said (-: standard input)",
    )


def filled(options: argparse.Namespace) -> tuple[View, Api | None]:
    """All that there is now, and the door it came through, if it was the API server's.

    Raises ConfigError, UnavailableError when not all of it could be read in SYNC_SECONDS.
    """
    from scheduler_extender.feeds import Feeds, load  # noqa: PLC0415 - for those who ask
    from scheduler_extender.view import View  # noqa: PLC0415

    view = View()
    if options.objects is not None:
        if options.kubeconfig is not None:
            raise ConfigError("--objects and --kubeconfig: the cluster is one of the two")
        load(view, options.objects)
        return view, None
    api = cluster(options)
    feeds = Feeds(view, api)
    feeds.start()
    try:
        if not feeds.wait_until_synced(SYNC_SECONDS):
            raise UnavailableError(
                f"the API server has not told us of all {', '.join(feeds.missing)} in {SYNC_SECONDS:.0f} s"
            )
    finally:
        feeds.stop()
    return view, api
