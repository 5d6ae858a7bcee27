"""Say why a Pod waits, or where it could go: every node's room, what of it is promised, and why it does not do.

  ullage explain pod db-0
  ullage explain pod db-0 -n shop -o wide
  ullage explain pod db-0 -o json | jq '.items[].nodes[] | select(.fits)'
  kubectl get pods,pvc,pv,sc,nodes,sts,nodestorages,logicalvolumes,udc -A -o json > cluster.json
  ullage explain pod db-0 --objects cluster.json

It asks the API server what the extender knows, decides as the extender does, and promises nothing. FREE is what is left
once all that is ordered and PROMISED is taken off. It looks at storage only: what kube-scheduler has to say about CPU,
taints and affinity, `kubectl describe pod` tells. Exit code 0: some node fits, 1: none does.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ullage.cli.cluster import add_cluster_option
from ullage.cli.explanations import COLUMNS, heading, items, rows
from ullage.cli.output import add_output_option, show_items
from ullage.cli.placing import add_objects_option, filled
from ullage.errors import NotFoundError

if TYPE_CHECKING:
    from scheduler_extender.view import View
    from scheduler_extender.wire import Pod
    from ullage.kube.api import Api


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    parser.add_argument("kind", choices=["pod"], help="what is to be explained")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("-n", "--namespace", default="default", metavar="NAMESPACE", help="the Pod's (default)")
    add_cluster_option(parser)
    add_objects_option(parser)
    add_output_option(parser)


def run(options: argparse.Namespace) -> int:
    """Explain and print."""
    from scheduler_extender.decisions import Decisions  # noqa: PLC0415 - for those who ask

    view, api = filled(options)
    found = Decisions(view).explain(_pod(options, view, api))
    if options.output in ("table", "wide"):
        sys.stdout.write(f"{heading(found)}\n")
    show_items(options.output, COLUMNS, rows(found), items(found))
    return 0 if any(each.fits for each in found.nodes) else 1


def _pod(options: argparse.Namespace, view: View, api: Api | None) -> Pod:
    """The Pod, whether it has its node or not; raises NotFoundError."""
    import msgspec  # noqa: PLC0415 - for those who ask

    from scheduler_extender.objects import PODS  # noqa: PLC0415
    from scheduler_extender.wire import Pod  # noqa: PLC0415

    if api is not None:
        return msgspec.json.decode(api.get(PODS, options.name, namespace=options.namespace), type=Pod)
    found = view.pods.get((options.namespace, options.name))
    if found is None:
        raise NotFoundError(f"there is no Pod {options.namespace}/{options.name} in {options.objects}")
    return found
