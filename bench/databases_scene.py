"""Where the databases run that are measured: a Pod with volumes of ours, and bare volumes of the same node.

A bare volume is made by hand in the same volume group: lvcreate, mkfs with the driver's arguments, mount with the
options that the Pod's volume has. Its server runs outside of Kubernetes, in the root of the same image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from csi.fs import mkfs
from csi.fs.device import Device
from csi.fs.kinds import KINDS
from tests.cluster.kubelet import CLAIMS, PODS
from tests.full.pods import eventually, inside
from tests.full.stateful import DATABASES
from tests.full.workloads import (
    AT,
    DATA,
    GROUP,
    STORAGE_CLASS,
    Thing,
    asked,
    container,
    prepare,
    start_volume,
)
from tests.rigs import images
from tests.rigs.cluster.manifests import apply_object
from tests.rigs.full.cluster import Cluster, Shape, attached, started
from tests.rigs.full.node import Node
from tests.rigs.gotools import programs
from ullage.errors import GIB
from ullage.run import Finished

POD, BARE, AGAIN = "pod", "bare volume", "bare again"
SIZE_BYTES = 2 * GIB
REQUESTS = {"cpu": "500m", "memory": "512Mi"}
"""A Pod that asks for nothing has one part in a thousand of the processor when the node is busy."""
SET_UP = """
set -eu
root=$1 device=$2 options=$3 ctr=$4 image=$5
shift 5
lvm lvcreate --quiet --yes --name "$(basename "$device")" --size "$1" "$(basename "$(dirname "$device")")"
shift
"$@" "$device"
mkdir -p "$root"
"$ctr" --namespace k8s.io images mount --rw "$image" "$root"
mkdir -p "$root/data" "$root/start"
mount -o "$options" "$device" "$root/data"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"
mount -t proc proc "$root/proc"
"""

TAKE_DOWN = """
root=$1 device=$2 ctr=$3
for process in /proc/[0-9]*; do
    if [ "$(readlink "$process/root")" = "$root" ]; then kill -9 "${process#/proc/}"; fi
done
sleep 1
umount --recursive "$root"
"$ctr" --namespace k8s.io images unmount --rm "$root"
lvm lvremove --quiet --yes "$device"
"""


class Place(Protocol):
    """Where servers of both kinds run, and their clients."""

    def run(self, *argv: str) -> str:
        """What a program says there; raises RigError or CommandFailed when it fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InPod:
    """In the container of one Pod."""

    cluster: Cluster
    pod: str

    def run(self, *argv: str) -> str:
        """See Place."""
        return inside(self.cluster, self.pod, *argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNode:
    """In a root of the image's files on the node, without any container."""

    node: Node
    root: str

    def run(self, *argv: str) -> str:
        """See Place."""
        return self.node.run("chroot", self.root, *argv, timeout_seconds=600)


class _Noting:
    """Runs nothing, and knows what it was told to run."""

    def __init__(self) -> None:
        self.argv: tuple[str, ...] = ()

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        raise NotImplementedError(f"{argv} {timeout_seconds} {stdin} {accepted} {into}: ext4 asks nothing")

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:  # noqa: ARG002
        self.argv = tuple(argv)
        return Finished(argv=self.argv, exit_code=0, stdout="", stderr="", seconds=0.0)


@contextmanager
def places(folder: Path, progress: Callable[[str], None]) -> Iterator[dict[str, Place]]:
    """All servers answering, on one node of a cluster, until the context ends; raises RigError."""
    with _cluster(folder) as cluster, ExitStack() as left:
        prepare(cluster)
        for collection, thing in ((CLAIMS, _claim()), (PODS, _pod())):
            apply_object(cluster.api, thing)
            left.callback(cluster.api.until_gone, f"{collection}/{POD}")
            left.callback(cluster.api.delete, f"{collection}/{POD}")
        progress("the Pod is to start")
        for database in DATABASES:
            asked(cluster, POD, database.is_ready)
        found: dict[str, Place] = {POD: InPod(cluster=cluster, pod=POD)}
        options = _options(found[POD])
        node = cluster.nodes[cluster.api.get(f"{PODS}/{POD}")["spec"]["nodeName"]]
        for number, name in enumerate((BARE, AGAIN)):
            device, root = f"/dev/{GROUP}/bare{number}", f"/run/bare{number}"
            words = (root, device, str(programs.get("ctr")))
            left.callback(node.run, "sh", "-c", TAKE_DOWN, "sh", *words, timeout_seconds=600)
            _set_up(node, device, root, options)
            found[name] = OnNode(node=node, root=root)
            for database in DATABASES:
                eventually(cluster, f"{database.name} at {name} is ready", partial(found[name].run, *database.is_ready))
            progress(f"the {name} is served")
        yield found


@contextmanager
def _cluster(folder: Path) -> Iterator[Cluster]:
    """One of a single node, or the one that ULLAGE_FULL_CLUSTER names, which is left running."""
    if running := os.environ.get("ULLAGE_FULL_CLUSTER"):
        yield attached(Path(running))
        return
    with started(folder / "cluster", Shape(nodes=1)) as cluster:
        yield cluster


def _claim() -> Thing:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": POD, "namespace": "default"},
        "spec": {
            "storageClassName": STORAGE_CLASS,
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(SIZE_BYTES)}},
        },
    }


def _pod() -> Thing:
    """Both servers in one container, as on the bare volumes both are in one root."""
    starts = [f"sh {AT}/{each.name}.sh /data & " for each in DATABASES]
    main = container("main", "sh", "-c", f"{''.join(starts)}wait", mounts={"data": "/data"})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD, "namespace": "default"},
        "spec": {
            "containers": [{**main, "resources": {"requests": REQUESTS}}],
            "volumes": [start_volume(), {"name": "data", "persistentVolumeClaim": {"claimName": POD}}],
        },
    }


def _options(pod: Place) -> str:
    """How the Pod's volume is mounted."""
    lines = [line.split() for line in pod.run("cat", "/proc/mounts").splitlines()]
    return next(words[3] for words in lines if words[1] == "/data")


def _set_up(node: Node, device: str, root: str, options: str) -> None:
    """Make a bare volume, and start both servers on it; they are not waited for."""
    noting = _Noting()
    mkfs.make(noting, KINDS["ext4"], Device(path=device, number=0, size_bytes=SIZE_BYTES, sector_bytes=512), ())
    image = images.reference("workload")
    words = (root, device, options, str(programs.get("ctr")), image, f"{SIZE_BYTES}b", *noting.argv[:-1])
    node.run("sh", "-c", SET_UP, "sh", *words, timeout_seconds=600)
    for file in DATA.iterdir():
        node.run("sh", "-c", f"cat > {root}/start/{file.name}", text=file.read_text(encoding="utf-8"))
    for database in DATABASES:
        serve = f"setsid chroot {root} sh {AT}/{database.name}.sh /data > {root}-{database.name}.log 2>&1 < /dev/null &"
        node.run("sh", "-c", serve)
