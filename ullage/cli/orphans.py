"""List volumes without objects, objects without volumes, and PersistentVolumes without either.

  ullage orphans
  ullage orphans -o wide
  ullage orphans --all -o json | jq '.items[].name'
  ullage orphans --acknowledge pvc-1

Nothing is ever deleted by this. What should be as it is can be acknowledged: a label is put on the object that tells of
it, and it is neither listed nor counted nor told of any more. What was lost with the cluster's memory, `ullage recover`
makes anew.

Exit code 0: there are none (or all are acknowledged). 1: there are some, or the cluster cannot be asked.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ullage.cli.cluster import add_cluster_option, cluster
from ullage.cli.output import Column, add_output_option, show_items
from ullage.errors import NotFoundError, human_bytes
from ullage.names import check_label_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from csi.cluster.orphans import Orphan
    from ullage.kube.api import Api

COLUMNS = (
    Column(heading="NAME"),
    Column(heading="KIND"),
    Column(heading="NODE"),
    Column(heading="CLASS"),
    Column(heading="SIZE"),
    Column(heading="CLAIM"),
    Column(heading="ACKNOWLEDGED", is_wide=True),
    Column(heading="MESSAGE", is_wide=True),
)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_cluster_option(parser)
    parser.add_argument("--all", action="store_true", help="list the acknowledged ones, too")
    parser.add_argument(
        "--acknowledge", nargs="+", default=[], metavar="NAME", help="say of these that they should be as they are"
    )
    add_output_option(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the cluster, acknowledge what is to be, and print the rest."""
    return answer(cluster(options), options)


def answer(api: Api, options: argparse.Namespace) -> int:
    """The same of a cluster that is known."""
    found = _found(api)
    if options.acknowledge:
        _acknowledge(api, found, options.acknowledge)
        found = _found(api)
    shown = [each for each in found if options.all or not each.is_known]
    show_items(options.output, COLUMNS, [_row(each) for each in shown], [_item(each) for each in shown])
    return 0 if all(each.is_known for each in found) else 1


def _found(api: Api) -> Sequence[Orphan]:
    from csi.cluster.orphans import orphans  # noqa: PLC0415 - only those who ask pay for these imports
    from ullage.kube.foreign import PersistentVolume  # noqa: PLC0415
    from ullage.kube.listing import everything  # noqa: PLC0415
    from ullage.kube.logical_volume import LogicalVolume  # noqa: PLC0415
    from ullage.kube.meta import LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES  # noqa: PLC0415
    from ullage.kube.node_storage import NodeStorage  # noqa: PLC0415

    # In this order each of the earlier ones had its LogicalVolume when it was read.
    persistent_volumes = tuple(everything(api, PERSISTENT_VOLUMES, PersistentVolume))
    storages = tuple(everything(api, NODE_STORAGES, NodeStorage))
    return orphans(storages, everything(api, LOGICAL_VOLUMES, LogicalVolume), persistent_volumes)


def _acknowledge(api: Api, found: Sequence[Orphan], names: Sequence[str]) -> None:
    """Put the labels on, or, when one of the names cannot be, on none; raises NotFoundError, InvalidRequestError."""
    from ullage.kube.meta import LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES  # noqa: PLC0415

    resources = {each.kind: each for each in (LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES)}
    if unknown := set(names) - {each.name for each in found}:
        raise NotFoundError(f"no orphan is called {', '.join(sorted(unknown))}; nothing was acknowledged")
    wanted = [(each, check_label_key(each.label)) for each in found if each.name in names]
    for orphan, label in wanted:
        body = {"metadata": {"uid": orphan.about.uid, "labels": {label: ""}}}
        api.patch(resources[orphan.about.kind], orphan.about.name, body)


def _row(orphan: Orphan) -> list[str]:
    return [
        orphan.name,
        orphan.kind,
        orphan.node or "-",
        orphan.device_class or "-",
        human_bytes(orphan.size_bytes) if orphan.size_bytes else "-",
        orphan.claim or "-",
        "yes" if orphan.is_known else "no",
        orphan.message,
    ]


def _item(orphan: Orphan) -> dict[str, object]:
    return {
        "name": orphan.name,
        "kind": str(orphan.kind),
        "node": orphan.node,
        "deviceClass": orphan.device_class,
        "sizeBytes": orphan.size_bytes,
        "claim": orphan.claim,
        "isAcknowledged": orphan.is_known,
        "message": orphan.message,
        "about": {"kind": orphan.about.kind, "name": orphan.about.name},
    }
