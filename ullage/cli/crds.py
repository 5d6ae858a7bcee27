"""Print the definitions of our objects, or write them into a cluster.

  ullage crds | kubectl apply --server-side -f -
  ullage crds --apply

With --apply the definitions become those of this program, and are served when it ends. Objects stay as they are. helm
makes definitions once and never changes them: before each upgrade the chart has a Job do this.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from ullage.cli.cluster import add_cluster_option, cluster
from ullage.errors import ApiNotFoundError, ApiUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ullage.kube.api import Api

MANAGER = "helm"
"""Whose the fields are. helm makes the definitions as this one: if they were another's, it would refuse to install the
chart of another version over what an uninstall has left."""
ESTABLISH_SECONDS = 30.0
POLL_SECONDS = 0.2


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_cluster_option(parser)
    parser.add_argument("--apply", action="store_true", help="write them into the cluster (print them)")


def run(options: argparse.Namespace) -> int:
    """Print or apply."""
    from ullage.kube.crds import files  # noqa: PLC0415 - only those who ask pay for these imports

    if not options.apply:
        sys.stdout.write("---\n".join(files().values()))
        return 0
    apply(cluster(options))
    return 0


def apply(api: Api, *, pause: Callable[[float], None] = time.sleep) -> None:
    """Make the cluster's definitions ours, and wait until they are served; says of each what became of it.

    Raises ApiError; ApiUnavailableError also when one is not served in time.
    """
    import msgspec.json  # noqa: PLC0415

    from ullage.kube.crds import definitions, manifest  # noqa: PLC0415
    from ullage.kube.meta import DEFINITIONS  # noqa: PLC0415

    def found(name: str) -> dict[str, Any]:
        thing: dict[str, Any] = msgspec.json.decode(api.get(DEFINITIONS, name))
        return thing

    for definition in definitions():
        wanted = manifest(definition)
        name = wanted["metadata"]["name"]
        try:
            before = _version(found(name))
        except ApiNotFoundError:
            before = None
        api.apply(DEFINITIONS, name, wanted, manager=MANAGER)
        after = found(name)
        for _ in range(int(ESTABLISH_SECONDS / POLL_SECONDS)):
            if _is_established(after):
                break
            pause(POLL_SECONDS)
            after = found(name)
        else:
            raise ApiUnavailableError(f"{name} is written, and not served after {ESTABLISH_SECONDS:.0f} s")
        outcome = "made" if before is None else "as it was" if before == _version(after) else "changed"
        sys.stdout.write(f"{name}: {outcome}\n")


def _version(thing: dict[str, Any]) -> object:
    return thing["metadata"]["resourceVersion"]


def _is_established(thing: dict[str, Any]) -> bool:
    conditions = thing.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
