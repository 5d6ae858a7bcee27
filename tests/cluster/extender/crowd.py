"""Twenty nodes with little room, of which no two neighbours have the same, and Pods that come all at once.

`Crowd` is a `Cluster` with an extender that kube-scheduler asks, or does not.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.cluster import things
from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.machine import Host
from tests.cluster.scene import WAIT_SECONDS, Cluster, cluster
from tests.cluster.things import EVENTS, NODE_STORAGES, Thing, is_bound
from tests.rigs.cluster import ours
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.nodes import ROOM
from tests.rigs.cluster.ours import Extender
from tests.rigs.cluster.scheduler import EVERY_POD, MARKED_PODS, shipped
from tests.rigs.host import RigError
from ullage.errors import MIB
from ullage.storage_classes import DRIVER

VOLUME_BYTES = 64 * MIB
FILE_SYSTEM_BYTES: Mapping[str, int] = {"fast": 112 * MIB, "bulk": 62 * MIB}
"""What each needs for itself, and half a volume more: a node is full without being so to the byte."""
ROOMS = ((6, 14), (8, 12), (10, 10), (12, 8), (14, 6))
"""How many volumes of each class there is room for, node after node."""
NODES = 20
CPU = "4"
AT_ONCE = 8
"""Requests to the API server, at most."""
LOOK_SECONDS = 0.5
RACK = "topology.rook.io/rack"
RACKS = 3
SECOND = "second-scheduler"
MARK = f"{DRIVER}/capacity"


def hosts(count: int = NODES) -> list[Host]:
    """In racks, in turn."""
    return [
        Host(
            name=f"n{number:02}",
            sizes={
                name: room * VOLUME_BYTES + FILE_SYSTEM_BYTES[name]
                for name, room in zip(FILE_SYSTEM_BYTES, ROOMS[number % len(ROOMS)], strict=True)
            },
            labels={RACK: f"r{number % RACKS}"},
            room={**ROOM, "cpu": CPU},
        )
        for number in range(count)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a burst ended."""

    placed: int
    """Pods that have a node, and all their claims."""
    refused: int
    """Volumes that were ordered where there was no room: RESOURCE_EXHAUSTED."""
    seconds: float

    def __str__(self) -> str:
        """One line of a comparison."""
        return f"{self.placed} Pods placed in {self.seconds:.0f} s, {self.refused} times RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """What a test does, and looks at."""

    scene: Cluster
    extender: Extender
    together: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(max_workers=AT_ONCE))

    def ask_extender(self, *, is_asked: bool = True) -> None:
        """Whether kube-scheduler asks it; else it goes by CSIStorageCapacity alone."""
        self.scene.plane.configure_scheduler(shipped(EVERY_POD, self.extender.http) if is_asked else {})

    def room(self, *storage_classes: str) -> int:
        """How many Pods there is room for, with a volume of each of these classes."""
        return sum(
            min(
                pool["freeBytes"] // VOLUME_BYTES
                for pool in storage["status"]["pools"]
                if set(pool["classes"]) & set(storage_classes)
            )
            for storage in self.scene.objects.items(NODE_STORAGES)
        )

    def burst(self, names: Sequence[str], storage_classes: Sequence[str] = ("fast",), **more: object) -> None:
        """Make these Pods, each with a claim of each class; `more` are fields of the Pods' specs."""
        list(self.together.map(lambda name: self.make(name, storage_classes, **more), names))

    def make(self, name: str, storage_classes: Sequence[str] = ("fast",), **more: object) -> None:
        """One such Pod. Those of the second scheduler are marked, as the webhook does it."""
        claims = {f"{name}-{each}": each for each in storage_classes}
        for claim, storage_class in claims.items():
            self.scene.claim(claim, str(VOLUME_BYTES), storage_class)
        pod = things.pod(name, list(claims))
        pod["spec"] |= more
        if more.get("schedulerName") == SECOND:
            pod["spec"]["containers"][0]["resources"] = {"requests": {MARK: "1"}, "limits": {MARK: "1"}}
        self.scene.objects.create(PODS, pod)

    def placed(self) -> list[Json]:
        """The Pods that have a node, and all their claims."""
        bound = {each["metadata"]["name"] for each in self.scene.objects.items(CLAIMS) if is_bound(each)}
        return [
            pod
            for pod in self.scene.objects.items(PODS)
            if pod["spec"].get("nodeName") and all(name in bound for name in claims_of(pod))
        ]

    def wait_placed(self, count: int, seconds: float = WAIT_SECONDS) -> None:
        """Wait until so many Pods are; RigError when that takes too long."""
        deadline = time.monotonic() + seconds
        while (found := len(self.placed())) < count:
            if time.monotonic() > deadline:
                raise RigError(f"{found} of {count} Pods are placed after {seconds:.0f} s:\n{self.why_not()}")
            time.sleep(LOOK_SECONDS)

    def measured(self, do: Callable[[], object], count: int, seconds: float = WAIT_SECONDS) -> Outcome:
        """What becomes of a burst of which so many Pods are to be placed."""
        before = self.refused()
        began = time.monotonic()
        do()
        while len(self.placed()) < count and time.monotonic() < began + seconds:
            time.sleep(LOOK_SECONDS)
        took_seconds = time.monotonic() - began
        return Outcome(placed=len(self.placed()), refused=self.refused() - before, seconds=took_seconds)

    def refused(self) -> int:
        """How often a controller had to say RESOURCE_EXHAUSTED to an order, so far."""
        return sum(_refused(each.http) for each in self.scene.controllers)

    def unscheduled(self) -> dict[str, str]:
        """The Pods without a node, and what kube-scheduler says of each."""
        return {
            pod["metadata"]["name"]: why_pending(pod)
            for pod in self.scene.objects.items(PODS)
            if not pod["spec"].get("nodeName")
        }

    def explained(self, pod: str) -> str:
        """What the extender says of one that waits."""
        with urllib.request.urlopen(f"http://{self.extender.http}/explain?pod=default/{pod}") as answer:
            return str(answer.read().decode())

    def delete(self, *pods: str) -> None:
        """With their claims."""
        wanted = set(pods)
        found = [each for each in self.scene.objects.items(PODS) if each["metadata"]["name"] in wanted]
        paths = [
            *(f"{PODS}/{each['metadata']['name']}?gracePeriodSeconds=0" for each in found),
            *(f"{CLAIMS}/{name}" for each in found for name in claims_of(each)),
        ]
        list(self.together.map(self.scene.objects.delete, paths))

    def why_not(self) -> str:
        """What is told of Pods that have no node, and of claims that are not bound: the newest of it."""
        told = [f"{name}: {why}" for name, why in self.unscheduled().items()]
        events = self.scene.objects.items(f"{EVENTS}?fieldSelector=type=Warning")
        last = [f"{each['involvedObject']['name']}: {each['reason']}: {each['message']}" for each in events]
        return "\n".join([*told[:3], *last[-5:]])


@contextmanager
def crowd(folder: Path, logs: Path) -> Iterator[Crowd]:
    """All of it, for a while; see `cluster`. Two kube-schedulers ask the extender, each for Pods of its own.

    The second one, SECOND, does so for Pods that are `marked`, and does nothing with them without it.
    """
    with cluster(folder, logs, hosts=hosts()) as scene:
        kubeconfig = scene.plane.kubeconfig_for(ours.NAMESPACE, "ullage-extender")
        running = Crowd(scene=scene, extender=ours.extender(folder, kubeconfig))
        with running.together:
            try:
                running.extender.process.start()
                running.ask_extender()
                scene.plane.add_scheduler(SECOND, shipped(MARKED_PODS, running.extender.http))
                yield running
            finally:
                running.extender.process.kill()


def claims_of(pod: Thing) -> list[str]:
    """By name."""
    claims = (volume.get("persistentVolumeClaim") for volume in pod["spec"].get("volumes", ()))
    return [each["claimName"] for each in claims if each]


def why_pending(pod: Json) -> str:
    """What kube-scheduler says of it."""
    conditions = pod["status"].get("conditions", ())
    return next((each.get("message", "") for each in conditions if each["type"] == "PodScheduled"), "")


def _refused(http: str) -> int:
    with urllib.request.urlopen(f"http://{http}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return sum(
            int(each.value)
            for family in families
            for each in family.samples
            if each.name == "ullage_csi_call_seconds_count"
            and (each.labels["rpc"], each.labels["code"]) == ("CreateVolume", "RESOURCE_EXHAUSTED")
        )
