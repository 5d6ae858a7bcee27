"""Make LogicalVolumes and PersistentVolumes anew from the marks on the disks, after the cluster's memory was lost.

  ullage recover
  ullage recover -o yaml
  ullage recover --storage-class fast=fast-retained --volume-mode pvc-1=Block
  ullage recover --yes

Without --yes it only says what it would make. Agents find the volumes on their nodes and report what has no object
(`ullage orphans`); of each of these the LogicalVolume is made, and when its agent has taken it over, the
PersistentVolume, which waits for a claim of the old name. No content is touched, and nothing is ever carved. What could
mean two things is refused with a sentence, and the rest goes on; it may be run again and again.

Exit code 0: all that was lost is there again (or would be). 1: something was refused, or the cluster cannot be asked.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ullage.cli.cluster import add_cluster_option, cluster
from ullage.cli.output import Column, add_output_option, show_items

if TYPE_CHECKING:
    from csi.cluster.recovery import Rebuilt
    from ullage.kube.api import Api

COLUMNS = (
    Column(heading="NAME"),
    Column(heading="KIND"),
    Column(heading="NODE"),
    Column(heading="LOGICALVOLUME"),
    Column(heading="PERSISTENTVOLUME"),
    Column(heading="CLAIM"),
    Column(heading="STORAGECLASS"),
    Column(heading="MODE"),
    Column(heading="NOTE", is_wide=True),
)
MODES = ("Block", "Filesystem")


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_cluster_option(parser)
    parser.add_argument("--yes", action="store_true", help="make them (only say what would be made)")
    parser.add_argument(
        "--storage-class",
        action="append",
        default=[],
        type=_pair,
        metavar="DEVICECLASS=NAME",
        help="the StorageClass of a device class's volumes (the only one there is)",
    )
    parser.add_argument(
        "--volume-mode",
        action="append",
        default=[],
        type=_mode,
        metavar="NAME=MODE",
        help="Block or Filesystem, for a volume whose device does not show it",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="to wait for all agents, together (60)"
    )
    add_output_option(parser)


def run(options: argparse.Namespace) -> int:
    """Say what is to be made, and make it if that is wanted."""
    return answer(cluster(options), options)


def answer(api: Api, options: argparse.Namespace) -> int:
    """The same of a cluster that is known."""
    from csi.cluster.recovery import Choices, plan  # noqa: PLC0415 - only those who ask pay for these imports
    from csi.cluster.remaking import look, remake  # noqa: PLC0415

    choices = Choices(storage_classes=dict(options.storage_class), volume_modes=dict(options.volume_mode))
    wanted = plan(look(api), choices)
    refusals = list(wanted.refusals)
    if options.yes:
        refusals += remake(api, wanted.rebuilt, timeout_seconds=options.timeout)
    items = [item for each in wanted.rebuilt for item in _items(each)]
    show_items(options.output, COLUMNS, [_row(each) for each in wanted.rebuilt], items)
    for refusal in refusals:
        sys.stderr.write(f"ullage: {refusal.name} on node {refusal.node}: {refusal.sentence}\n")
    if wanted.rebuilt and not options.yes:
        sys.stderr.write("ullage: nothing was made; --yes makes it\n")
    return 1 if refusals else 0


def _row(rebuilt: Rebuilt) -> list[str]:
    made = rebuilt.persistent_volume
    return [
        rebuilt.volume_id,
        rebuilt.kind,
        rebuilt.node,
        "new" if rebuilt.logical_volume is not None else "is there",
        made.name if made is not None else "-",
        made.claim if made is not None else "-",
        made.storage_class if made is not None else "-",
        made.mode if made is not None else "-",
        rebuilt.note or "-",
    ]


def _items(rebuilt: Rebuilt) -> list[object]:
    """The objects, as they are made."""
    from msgspec import to_builtins  # noqa: PLC0415 - only those who ask pay for this import

    objects = [] if rebuilt.logical_volume is None else [to_builtins(rebuilt.logical_volume)]
    return [*objects, *([] if rebuilt.persistent_volume is None else [rebuilt.persistent_volume.body])]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is no pair; it is to be one name, an equals sign, and the other")
    return key, value


def _mode(text: str) -> tuple[str, str]:
    name, mode = _pair(text)
    if mode not in MODES:
        raise argparse.ArgumentTypeError(f"{mode!r} is no volume mode; there are: {', '.join(MODES)}")
    return name, mode
