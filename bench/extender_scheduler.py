"""kube-scheduler's decisions in a second with the extender and without it, on nodes that are objects alone.

etcd, kube-apiserver and kube-scheduler are the real ones. All Pods are there before a scheduler is started, which then
decides as fast as it can: what is counted is its own count of decisions. A claim's volume is never made, so that the
binding, which goes on beside the decisions, ends where the scheduler has written `selected-node`. Each pace is measured
in turn with and without the extender, both started anew, on the same nodes.
"""

from __future__ import annotations

import re
import ssl
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from bench import cluster_crowd, extender_nodes
from bench.cluster_scene import ASK_SECONDS, Scene
from bench.extender_program import IDLE, Beside, Extender
from bench.lvm_rig import BenchError
from tests.rigs.cluster import manifests
from tests.rigs.cluster.control_plane import SCHEDULER, ControlPlane
from tests.rigs.cluster.process import Process, free_ports
from tests.rigs.gotools import programs
from ullage.storage_classes import DRIVER

API_FLAGS = ("--disable-admission-plugins=StorageObjectInUseProtection",)
"""Its finalizers would be taken off by a controller that does not run here."""
REQUESTS_PER_SECOND = 10_000
"""That the scheduler allows itself: no limit."""
FIRST_PART = 10
"""Decisions are counted after a tenth of them, or WARM_SECONDS: the scheduler's first ones are slow."""
MOST_SECONDS = 15.0
LOOK_SECONDS = 0.1
START_SECONDS, WARM_SECONDS = 60.0, 5.0
COUNT = re.compile(rb"^scheduler_scheduling_algorithm_duration_seconds_(count|sum) (\S+)$", re.MULTILINE)


class Side(StrEnum):
    """Who is asked besides the scheduler itself."""

    OFF = "off"
    IDLE = "idle"
    """One that takes every node at once: what asking any extender costs."""
    ON = "on"
    """The extender, for Pods with the webhook's resource."""
    ON_FOR_ALL = "on, no webhook"
    """The extender, for every Pod."""


OURS = (Side.ON, Side.ON_FOR_ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is decided about."""

    nodes: int
    with_claims: bool
    is_checked: bool
    """CSIDriver.spec.storageCapacity: the scheduler looks through all CSIStorageCapacity objects itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Of one case and side; medians of the rounds."""

    case: Case
    side: str
    rounds: int
    per_second: float
    decision_seconds: float
    """In the mean, as the scheduler counts it."""
    ratio: float
    """The median of each round's pace by that without the extender in the same round."""
    answering_seconds: float
    """Of these in the extender, as that counts it: filter and prioritize together."""
    extender_cpu_seconds: float
    """Of processors, for each decision; what it hears of Pods and claims meanwhile included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One start of a scheduler."""

    per_second: float
    decision_seconds: float
    answering_seconds: float
    extender_cpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What the scheduler says of itself at one moment."""

    moment: float
    decisions: int
    seconds: float


class Scheduler:
    """One kube-scheduler."""

    def __init__(self, argv: Sequence[str | Path], log: Path, address: str, certificate: Path) -> None:
        """Nothing runs yet."""
        self._address = address
        self._tls = ssl.create_default_context(cafile=str(certificate))
        self.process = Process(argv, log, self._is_ready)

    def counted(self, decisions: int, most_seconds: float) -> Count:
        """The first count that is as high, or the last when that takes too long; raises BenchError when it ends."""
        deadline = time.monotonic() + most_seconds
        while True:
            found = {name: float(value) for name, value in COUNT.findall(self._page("/metrics"))}
            now = Count(moment=time.monotonic(), decisions=int(found.get(b"count", 0)), seconds=found.get(b"sum", 0.0))
            if now.decisions >= decisions or now.moment > deadline:
                return now
            if not self.process.is_alive():
                raise BenchError(f"the scheduler ended:\n{self.process.tail()}")
            time.sleep(LOOK_SECONDS)

    def _is_ready(self) -> bool:
        try:
            return bool(self._page("/healthz"))
        except OSError:
            return False

    def _page(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self._address}{path}", timeout=ASK_SECONDS, context=self._tls) as reply:  # noqa: S310 - https
            content: bytes = reply.read()
            return content


class Bench:
    """A control plane that grows. `bench` makes one."""

    def __init__(self, there: Scene, say: Callable[[str], None]) -> None:
        """No nodes yet."""
        self._there = there
        self._say = say
        self._nodes = 0
        self._starts = 0

    def grow(self, nodes: int) -> None:
        """Have so many nodes altogether."""
        begun = time.monotonic()
        extender_nodes.add(self._there.plane.kubeconfig, range(self._nodes, nodes))
        self._nodes = nodes
        self._say(f"{nodes} nodes, after {time.monotonic() - begun:.0f} s")

    def paces(self, case: Case, sides: Sequence[Side], *, pods: int, rounds: int) -> list[Pace]:
        """The sides in turn; the first is what the others are held against."""
        driver = f"/apis/storage.k8s.io/v1/csidrivers/{DRIVER}"
        self._there.rig.patch(driver, {"spec": {"storageCapacity": case.is_checked}})
        found: dict[Side, list[Round]] = {side: [] for side in sides}
        for number in range(rounds):
            for side in sides if number % 2 == 0 else tuple(reversed(sides)):
                found[side].append(self._round(case, side, pods))
                self._say(f"{case}: {side}: {found[side][-1].per_second:.0f}/s")
        return [_pace(case, side, found[side], found[sides[0]]) for side in sides]

    def _round(self, case: Case, side: Side, pods: int) -> Round:
        extender_nodes.add_pods(self._there.plane.kubeconfig, range(pods), with_claims=case.with_claims)
        try:
            with ExitStack() as stack:
                extender = stack.enter_context(self._extender()) if side in OURS else None
                idle = stack.enter_context(self._idle()) if side is Side.IDLE else None
                asked = extender or idle
                config = _configuration(self._there.plane.kubeconfig, asked.address if asked else "", side)
                return self._decided(self._scheduler(config), pods, extender)
        finally:
            for kind in ("pods", "persistentvolumeclaims"):
                path = f"/api/v1/namespaces/{extender_nodes.NAMESPACE}/{kind}"
                while self._there.rig.items(f"{path}?limit=1"):
                    self._there.rig.delete(f"{path}?gracePeriodSeconds=0&limit=500")

    def _extender(self) -> Extender:
        self._starts += 1
        folder = self._there.folder
        return Extender(folder / f"extender-{self._starts}.log", ["--kubeconfig", str(self._there.plane.kubeconfig)])

    def _idle(self) -> Beside:
        self._starts += 1
        return Beside(IDLE, self._there.folder / f"idle-{self._starts}.log")

    def _scheduler(self, config: Mapping[str, Any]) -> Scheduler:
        self._starts += 1
        plane, folder = self._there.plane, self._there.folder
        file = folder / f"scheduler-{self._starts}.yaml"
        file.write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
        port = free_ports(1)[0]
        flags = [
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={plane.certificate}",
            f"--tls-private-key-file={plane.certificate.with_suffix('.key')}",
            f"--authentication-kubeconfig={plane.kubeconfig}",
            "--authentication-skip-lookup=true",
            f"--authorization-kubeconfig={plane.kubeconfig}",
            "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
            f"--config={file}",
        ]
        log = folder / f"scheduler-{self._starts}.log"
        return Scheduler([programs.get(SCHEDULER), *flags], log, f"https://127.0.0.1:{port}", plane.certificate)

    @staticmethod
    def _decided(scheduler: Scheduler, pods: int, extender: Extender | None) -> Round:
        scheduler.process.start()
        try:
            cpu_before, answering_before = _spent(extender)
            scheduler.counted(1, START_SECONDS)
            first = scheduler.counted(pods // FIRST_PART, WARM_SECONDS)
            last = scheduler.counted(pods, MOST_SECONDS)
            cpu_after, answering_after = _spent(extender)
        finally:
            scheduler.process.kill()
        decisions = last.decisions - first.decisions
        if first.decisions >= pods:
            raise BenchError(f"{pods} Pods are decided about sooner than they can be counted: it takes more (--pods)")
        if decisions <= 0:
            raise BenchError(
                f"the scheduler decides about no more than {first.decisions} Pods:\n{scheduler.process.tail()}"
            )
        return Round(
            per_second=decisions / (last.moment - first.moment),
            decision_seconds=(last.seconds - first.seconds) / decisions,
            answering_seconds=(answering_after - answering_before) / last.decisions,
            extender_cpu_seconds=(cpu_after - cpu_before) / last.decisions,
        )


@contextmanager
def bench(folder: Path, say: Callable[[str], None]) -> Iterator[Bench]:
    """One with no nodes; `folder` has a short path and is there."""
    with ControlPlane(folder / "plane", only_api=True, api_flags=API_FLAGS) as plane, ExitStack() as stack:
        there = Scene(plane, folder, stack)
        manifests.install(there.rig)
        cluster_crowd.make_class(there)
        accounts = f"/api/v1/namespaces/{extender_nodes.NAMESPACE}/serviceaccounts"
        there.rig.create(accounts, {"metadata": {"name": "default"}})
        yield Bench(there, say)


def cases(nodes: int) -> list[tuple[Case, Sequence[Side]]]:
    """What is measured on so many nodes."""
    unrelated = Case(nodes=nodes, with_claims=False, is_checked=False)
    claiming = Case(nodes=nodes, with_claims=True, is_checked=False)
    checked = Case(nodes=nodes, with_claims=True, is_checked=True)
    return [
        (unrelated, (Side.OFF, Side.ON, Side.ON_FOR_ALL)),
        (claiming, (Side.OFF, Side.IDLE, Side.ON)),
        (checked, (Side.OFF, Side.ON)),
    ]


def _configuration(kubeconfig: Path, address: str, side: Side) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if address:
        asked = {
            "urlPrefix": f"http://{address}",
            "filterVerb": "filter",
            "prioritizeVerb": "prioritize",
            "preemptVerb": "preempt",
            "weight": 1,
            "nodeCacheCapable": True,
        }
        managed = [{"name": extender_nodes.MANAGED, "ignoredByScheduler": True}]
        more["extenders"] = [asked | ({"managedResources": managed} if side is not Side.ON_FOR_ALL else {})]
    else:  # the webhook's resource is on no node
        ignored = {"ignoredResources": [extender_nodes.MANAGED]}
        more["profiles"] = [{"pluginConfig": [{"name": "NodeResourcesFit", "args": ignored}]}]
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {
            "kubeconfig": str(kubeconfig),
            "qps": REQUESTS_PER_SECOND,
            "burst": REQUESTS_PER_SECOND,
            "contentType": "application/vnd.kubernetes.protobuf",
        },
        "leaderElection": {"leaderElect": False},
        **more,
    }


def _pace(case: Case, side: Side, rounds: Sequence[Round], beside: Sequence[Round]) -> Pace:
    return Pace(
        case=case,
        side=side,
        rounds=len(rounds),
        per_second=statistics.median(each.per_second for each in rounds),
        decision_seconds=statistics.median(each.decision_seconds for each in rounds),
        ratio=statistics.median(each.per_second / other.per_second for each, other in zip(rounds, beside, strict=True)),
        answering_seconds=statistics.median(each.answering_seconds for each in rounds),
        extender_cpu_seconds=statistics.median(each.extender_cpu_seconds for each in rounds),
    )


def _spent(extender: Extender | None) -> tuple[float, float]:
    """Seconds of processors and of answering so far."""
    return (extender.cpu_seconds, extender.answering_seconds) if extender is not None else (0.0, 0.0)
