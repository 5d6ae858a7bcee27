"""Say whether any volume of ours is there, and what to do about it: `helm uninstall` asks this first.

  ullage unused
  ullage unused && helm uninstall ullage --namespace ullage-system

Nothing is changed by this. A volume without its driver is neither mounted for a new Pod nor deleted with its claim.

Exit code 0: there is none. 1: there are some, or the cluster cannot be asked.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from ullage.cli.cluster import add_cluster_option, cluster
from ullage.errors import ApiNotFoundError, human_bytes

if TYPE_CHECKING:
    from ullage.kube.api import Api
    from ullage.kube.foreign import PersistentVolume
    from ullage.kube.logical_volume import LogicalVolume

NAMED = 10
"""Of more than these only the number is told."""
ADVICE = """\
Without the driver they would be neither mounted for new Pods nor deleted with their claims. Delete what uses them, the
claims and snapshots (kubectl get pvc,volumesnapshot -A), and PersistentVolumes that are kept (Retain); then ask again.
To leave them on the disks all the same: helm uninstall --no-hooks. Installed again, the driver serves them as before.
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_cluster_option(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the cluster."""
    return answer(cluster(options))


def answer(api: Api) -> int:
    """The same of a cluster that is known."""
    from ullage.kube.foreign import PersistentVolume  # noqa: PLC0415 - only those who ask pay for these imports
    from ullage.kube.listing import everything  # noqa: PLC0415
    from ullage.kube.logical_volume import LogicalVolume  # noqa: PLC0415
    from ullage.kube.meta import GROUP, LOGICAL_VOLUMES, PERSISTENT_VOLUMES  # noqa: PLC0415

    try:
        volumes = {each.metadata.name: _told(each) for each in everything(api, LOGICAL_VOLUMES, LogicalVolume)}
    except ApiNotFoundError:  # there is no such kind of object (any more)
        volumes = {}
    for each in everything(api, PERSISTENT_VOLUMES, PersistentVolume):
        if each.spec.csi is not None and each.spec.csi.driver == GROUP:
            volumes.setdefault(each.spec.csi.volume_handle, _told_by_pv(each))
    if not volumes:
        sys.stdout.write("There are no volumes of ullage.io in this cluster.\n")
        return 0
    lines = [f"  {name}: {told}\n" for name, told in sorted(volumes.items())]
    if len(lines) > NAMED:
        lines[NAMED:] = [f"  and {len(lines) - NAMED} more (kubectl get logicalvolumes,persistentvolumes)\n"]
    count = "There is 1 volume or snapshot" if len(volumes) == 1 else f"There are {len(volumes)} volumes and snapshots"
    sys.stdout.write(f"{count} of ullage.io in this cluster:\n{''.join(lines)}{ADVICE}")
    return 1


def _told(volume: LogicalVolume) -> str:
    claim = volume.spec.claim_ref
    whose = f" of {claim.namespace}/{claim.name}" if claim else ""
    return f"{volume.spec.kind}{whose} on {volume.spec.node_name}, {human_bytes(volume.spec.size_bytes)}"


def _told_by_pv(volume: PersistentVolume) -> str:
    claim = volume.spec.claim_ref
    whose = f" of {claim.namespace}/{claim.name}" if claim else ""
    return f"PersistentVolume {volume.metadata.name}{whose}, without a LogicalVolume"
