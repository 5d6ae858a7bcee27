"""Pods that write what can be checked, and the words for what happens to them.

Everything is waited for generously, since nodes are emulated, and what does not come is told with what the cluster says
about it: the object, its events, the Pod's log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.things import LOGICAL_VOLUMES, claim
from tests.rigs import images
from tests.rigs.cluster.api import Json, Refusal
from tests.rigs.full.cluster import Cluster
from tests.rigs.full.node import CommandFailed
from tests.rigs.host import RigError
from ullage.storage_classes import NODE_KEY

Thing: TypeAlias = dict[str, Any]

Found = TypeVar("Found")

PROGRAM = Path(__file__).with_name("writer.py")
PROGRAMS = "writer"
"""The ConfigMap that brings it."""
WRITER = "/program/writer.py"
DATA, DEVICE = "/data", "/dev/data"
PATIENCE_SECONDS = 900.0
"""An emulated node boots, starts its Pods, and they recover what they have on disk."""
POLL_SECONDS = 2.0
MORE = 20
"""So many further records say that a writer goes on."""
RWO, RWOP = "ReadWriteOnce", "ReadWriteOncePod"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a Pod has its volume."""

    name: str
    storage_class: str
    is_block: bool = False

    @property
    def path(self) -> str:
        """Of what is written to, in the Pod."""
        return DEVICE if self.is_block else f"{DATA}/ring"


def programs() -> Thing:
    """The ConfigMap with the writer."""
    metadata = {"name": PROGRAMS, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {PROGRAM.name: PROGRAM.read_text()}}


def claimed(name: str, kind: Kind, size: str, *, mode: str = RWO, source: Mapping[str, str] | None = None) -> Thing:
    """A claim of that kind."""
    made = claim(name, size, kind.storage_class, is_block=kind.is_block, source=source)
    made["spec"]["accessModes"] = [mode]
    return made


def pod(  # noqa: PLR0913 - what a Pod can say
    name: str,
    kind: Kind,
    command: Sequence[str],
    volume: Mapping[str, Any],
    *,
    node: str = "",
    restarts: str = "Never",
) -> Thing:
    """A Pod with one volume, and the programs; only on the node, if one is named."""
    key, path, place = ("volumeDevices", "devicePath", DEVICE) if kind.is_block else ("volumeMounts", "mountPath", DATA)
    container: Thing = {
        "name": "main",
        "image": images.reference("ullage"),  # for its Python
        "imagePullPolicy": "Never",
        "securityContext": {"runAsUser": 0, "runAsGroup": 0},
        "command": list(command),
        "volumeMounts": [{"name": "program", "mountPath": str(Path(WRITER).parent)}],
    }
    container[key] = [*container.get(key, ()), {"name": "data", path: place}]
    volumes = [{"name": "data", **volume}, {"name": "program", "configMap": {"name": PROGRAMS}}]
    spec: Thing = {
        "restartPolicy": restarts,
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": volumes,
    }
    if node:
        spec["nodeSelector"] = {NODE_KEY: node}
    return {"metadata": {"name": name}, "spec": spec}


def of_claim(name: str) -> dict[str, Any]:
    """A Pod's volume."""
    return {"persistentVolumeClaim": {"claimName": name}}


def writing(kind: Kind) -> list[str]:
    """A Pod's command."""
    return ["python3", WRITER, "write", kind.path]


def sleeping() -> list[str]:
    """The command of a Pod in which things are done by `kubectl exec`."""
    return ["sleep", "infinity"]


@dataclass(frozen=True, slots=True)
class Writer:
    """A Pod that writes, and whether it still does."""

    cluster: Cluster
    name: str
    kind: Kind

    @property
    def acknowledged(self) -> int:
        """The newest record that it has said to be durable; 0 before the first."""
        lines = self.cluster.kubectl("logs", self.name, "--tail=5").split("\n")
        numbers = [int(line.removeprefix("durable ")) for line in lines if line.startswith("durable ")]
        return max(numbers, default=0)

    def goes_on(self, after: int | None = None) -> int:
        """Wait until it has written more (than `after`); what it is at then. Raises RigError when it has failed."""
        before = self.acknowledged if after is None else after

        def further() -> int:
            self.is_unharmed()
            now = self.acknowledged
            return now if now > before + MORE else 0

        return eventually(self.cluster, f"{self.name} writes on after record {before}", further, self.name)

    def is_unharmed(self) -> None:
        """Raises AssertionError when it was ever ended, or started again."""
        found = self.cluster.api.get(f"{PODS}/{self.name}")["status"]
        containers = found.get("containerStatuses", [])
        is_well = found.get("phase") == "Running" and all(each["restartCount"] == 0 for each in containers)
        assert is_well, f"{self.name} has not just gone on writing:\n{about(self.cluster, self.name)}"

    def checked(self) -> int:
        """The newest record, after a look at all there are."""
        return int(inside(self.cluster, self.name, "python3", WRITER, "check", self.kind.path))


def start_writer(  # noqa: PLR0913 - what there is to say
    cluster: Cluster, name: str, kind: Kind, claim_name: str, *, node: str = "", restarts: str = "Never"
) -> Writer:
    """A Pod that writes to the claim's volume; it does not run yet."""
    made = pod(name, kind, writing(kind), of_claim(claim_name), node=node, restarts=restarts)
    cluster.api.create(PODS, made)
    return Writer(cluster, name, kind)


def inside(cluster: Cluster, name: str, *argv: str) -> str:
    """What a command says in a Pod (`db-0`, `deployment/mon`); raises RigError when it fails."""
    return cluster.kubectl("exec", name, "--", *argv)


def until_running(cluster: Cluster, name: str) -> None:
    """Wait until the Pod runs; raises RigError, with what is known of it, when it never does."""

    def running() -> Json | None:
        found = cluster.api.get(f"{PODS}/{name}")
        assert found["status"].get("phase") != "Failed", f"{name} has failed:\n{about(cluster, name)}"
        return found if found["status"].get("phase") == "Running" else None

    eventually(cluster, f"{name} runs", running, name)


def end_pods(cluster: Cluster, *names: str) -> None:
    """Delete them, and wait until their nodes have let them go."""
    for name in names:
        cluster.api.delete(f"{PODS}/{name}")
    for name in names:
        until_gone(cluster, f"{PODS}/{name}")


def end_claims(cluster: Cluster, *names: str) -> None:
    """Delete them, and wait until their volumes are gone."""
    orders = [order for name in names if (order := order_of(cluster, name))]
    for name in names:
        cluster.api.delete(f"{CLAIMS}/{name}")
    for name in names:
        until_gone(cluster, f"{CLAIMS}/{name}")
    for order in orders:
        until_gone(cluster, f"{LOGICAL_VOLUMES}/{order}")


def until_gone(cluster: Cluster, path: str) -> None:
    """Wait until there is no such object; raises RigError."""
    eventually(cluster, f"{path} is gone", lambda: cluster.api.find(path) is None)


def order_of(cluster: Cluster, claim_name: str) -> str:
    """The id of a claim's volume; empty without one."""
    found = cluster.api.find(f"{CLAIMS}/{claim_name}")
    name = (found or {}).get("spec", {}).get("volumeName")
    volume = cluster.api.find(f"{VOLUMES}/{name}") if name else None
    return str(volume["spec"]["csi"]["volumeHandle"]) if volume else ""


def node_of(cluster: Cluster, name: str) -> str:
    """Where a Pod is."""
    return str(cluster.api.get(f"{PODS}/{name}")["spec"]["nodeName"])


def eventually(
    cluster: Cluster, what: str, ask: Callable[[], Found], *pods: str, seconds: float = PATIENCE_SECONDS
) -> Found:
    """The first true answer; raises RigError with the last one, and what the cluster says, when there is none in time.

    Who asks the API server or a node, and is refused, asks again: their ways are busy, or they are on the way up.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = ask()
        except (RigError, Refusal, CommandFailed) as failure:
            last = str(failure)
        else:
            if found:
                return found
            last = repr(found)
        if time.monotonic() > deadline:
            told = "\n".join(about(cluster, name) for name in pods) or events(cluster)
            raise RigError(f"not after {seconds:.0f} s: {what}, but {last}\n{told}")
        time.sleep(POLL_SECONDS)


def about(cluster: Cluster, name: str) -> str:
    """What there is to know of a Pod: itself, its events, what it said."""
    said = []
    for words in (("describe", "pod", name), ("logs", name, "--tail=30")):
        try:
            said.append(cluster.kubectl(*words))
        except RigError as failure:
            said.append(str(failure))
    return "\n".join(said)


def events(cluster: Cluster) -> str:
    """The cluster's newest events."""
    try:
        told = cluster.kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp")
    except RigError as failure:
        return str(failure)
    return "\n".join(told.splitlines()[-40:])
