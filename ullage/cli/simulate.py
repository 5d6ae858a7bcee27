"""Say where Pods would land, and which is the first that would not: nothing is made, and nothing is promised.

  ullage simulate database.yaml
  ullage simulate database.yaml --objects cluster.json
  helm template shop | ullage simulate - -o json

The file has Pods, StatefulSets and PersistentVolumeClaims, as YAML or as `kubectl get -o json` prints them; what else
is in it is passed over. They are placed one after the other, in their order, on the cluster as it is now or as a file
says that it was, by the extender's own rules: joint room for all volumes of a Pod, spread, data sources. CPU, memory,
taints and affinity are kube-scheduler's, and not looked at. Exit code 0: all have a node, 1: some have none.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ullage.cli.cluster import add_cluster_option
from ullage.cli.output import Column, add_output_option, show_items
from ullage.cli.placing import add_objects_option, filled
from ullage.errors import ConfigError

if TYPE_CHECKING:
    from scheduler_extender.simulation import Landed

COLUMNS = (Column(heading="POD"), Column(heading="NODE"), Column(heading="WHY NOT"))


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    parser.add_argument("file", metavar="FILE", help="the Pods that would come (-: standard input)")
    add_cluster_option(parser)
    add_objects_option(parser)
    add_output_option(parser)


def run(options: argparse.Namespace) -> int:
    """Place and print."""
    from scheduler_extender.simulation import place, plan  # noqa: PLC0415 - for those who ask

    if options.file == "-" == options.objects:
        raise ConfigError("standard input is read once: it has the Pods, or the cluster")
    planned = plan(options.file)
    view, _ = filled(options)
    landed = list(place(view, planned))
    show_items(options.output, COLUMNS, list(map(_row, landed)), list(map(_item, landed)))
    if options.output in ("table", "wide"):
        sys.stdout.write("\n" + "\n".join(_summary(landed)) + "\n")
    return 0 if all(each.node for each in landed) else 1


def _row(landed: Landed) -> list[str]:
    return ["/".join(landed.pod), landed.node or "-", _why(landed)]


def _why(landed: Landed) -> str:
    if landed.node:
        return ""
    return "; ".join(f"{number} x {why}" for why, number in landed.reasons) or "no node has reported any storage"


def _item(landed: Landed) -> dict[str, object]:
    namespace, name = landed.pod
    whys = [{"reason": why, "nodes": number} for why, number in landed.reasons]
    return {"namespace": namespace, "name": name, "node": landed.node, "whyNot": whys}


def _summary(landed: Sequence[Landed]) -> Iterator[str]:
    placed = [each for each in landed if each.node]
    yield f"{len(placed)} of {len(landed)} Pods have a node, on {len({each.node for each in placed})} nodes."
    first = next((each for each in landed if not each.node), None)
    if first is not None:
        yield f"The first without one is {'/'.join(first.pod)}: {_why(first)}"
