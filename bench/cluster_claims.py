"""PersistentVolumeClaim → Bound, beside a driver that does nothing, through the same real sidecars; and all writes.

A claim is Bound when this process hears it on its watch of claims.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from bench.cluster_scene import IDLE, LATE, NOW, OURS, Scene, carved, claim, pod
from bench.counting import lasting, per_volume
from bench.lvm_rig import BenchError
from ullage.errors import MIB
from ullage.kube.foreign import PersistentVolume
from ullage.kube.informer import Informer
from ullage.kube.meta import CLAIMS, PERSISTENT_VOLUMES, Meta, Resource

SIZE_BYTES = 64 * MIB
NAMESPACE = "default"
PODS = Resource(group="", version="v1", plural="pods", kind="Pod", is_namespaced=True)
BOUND_SECONDS = 120.0
WARM_ROUNDS = 2
AT_ONCE = 8
"""So many threads make the claims of a burst."""
BENCH = "admin"


class ClaimStatus(msgspec.Struct, frozen=True):
    """Of a claim, what is waited for."""

    phase: str = ""


class Seen(msgspec.Struct, frozen=True):
    """A claim."""

    metadata: Meta
    status: ClaimStatus = ClaimStatus()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """One claim at a time. Medians; ratios are medians of those of two claims side by side."""

    mode: str
    claims: int
    ours_seconds: float
    carve_seconds: float
    """Of ours: what the agent says it took."""
    idle_seconds: float
    ratio: float
    ratio_without_carve: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Many claims at once: seconds until the last of them; medians as of one."""

    mode: str
    requests_per_second: int
    """That kube-controller-manager allows itself."""
    claims: int
    bursts: int
    ours_seconds: float
    idle_seconds: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """Of one volume's whole life, from its claim to the end of its PersistentVolume."""

    driver: str
    how: str
    volumes: int
    each: dict[str, float]
    """By writer, verb and resource, most first."""


class Claims:
    """Makes claims, waits for them, and takes them away."""

    def __init__(self, scene: Scene) -> None:
        """Listens at once; `claims` makes one."""
        self._api = scene.kube
        self._scene = scene
        self.claims = Informer(self._api, CLAIMS, Seen, namespace=NAMESPACE)
        self.volumes = Informer(self._api, PERSISTENT_VOLUMES, PersistentVolume)
        self._bound: dict[str, float] = {}
        self._news = threading.Condition()
        self.claims.on_change(self._heard)

    def burst(self, names: Sequence[str], side: str, mode: str) -> float:
        """Seconds from the first one's making to the last one Bound; with Pods where they wait for them."""
        begun = time.monotonic()
        _each(lambda name: self._make(name, side, mode), names)
        with self._news:
            if not self._news.wait_for(lambda: self._bound.keys() >= set(names), BOUND_SECONDS):
                late = sorted(set(names) - self._bound.keys())
                raise BenchError(f"not bound after {BOUND_SECONDS:.0f} s: {', '.join(late)}")
        return max(self._bound[name] for name in names) - begun

    def remove(self, names: Sequence[str], mode: str) -> None:
        """Delete them and wait until their volumes are gone."""
        _each(lambda name: self._remove(name, mode), names)
        deadline = time.monotonic() + BOUND_SECONDS
        while any(each.spec.claim_ref and each.spec.claim_ref.name in names for each in self.volumes.all()):
            if time.monotonic() > deadline:
                raise BenchError(f"the volumes of {', '.join(names)} do not go")
            time.sleep(0.02)

    def _make(self, name: str, side: str, mode: str) -> None:
        self._api.create(CLAIMS, claim(name, side, mode, SIZE_BYTES), namespace=NAMESPACE)
        if mode == LATE:
            self._api.create(PODS, pod(name), namespace=NAMESPACE)

    def _remove(self, name: str, mode: str) -> None:
        if mode == LATE:
            self._api.delete(PODS, name, namespace=NAMESPACE)
        self._api.delete(CLAIMS, name, namespace=NAMESPACE)

    def _heard(self, _before: Seen | None, after: Seen | None) -> None:
        if after is not None and after.status.phase == "Bound":
            with self._news:
                self._bound.setdefault(after.metadata.name, time.monotonic())
                self._news.notify_all()


@contextmanager
def claims(scene: Scene) -> Iterator[Claims]:
    """One that has heard of all there is."""
    made = Claims(scene)
    informers = (made.claims, made.volumes)
    try:
        for informer in informers:
            informer.start()
            if not informer.wait_until_synced(BOUND_SECONDS):
                raise BenchError("the API server does not tell its claims")
        yield made
    finally:
        for informer in informers:
            informer.stop()


def alone(scene: Scene, made: Claims, mode: str, *, rounds: int, say: Callable[[str], None]) -> Alone:
    """Claims of both drivers in turn; each round begins with the other."""
    seconds: dict[str, list[float]] = {OURS: [], IDLE: []}
    carves = []
    for number in range(-WARM_ROUNDS, rounds):
        for side in _turn(number):
            name = f"{mode.lower()}-{side}-{number + WARM_ROUNDS}"
            before = carved(scene)
            took = made.burst([name], side, mode)
            after = carved(scene)
            made.remove([name], mode)
            if number >= 0:
                seconds[side].append(took)
            if number >= 0 and side == OURS:
                carves.append(after.seconds - before.seconds)
    say(f"{mode}: {statistics.median(seconds[OURS]):.3f} s, beside {statistics.median(seconds[IDLE]):.3f} s")
    rest = [whole - carve for whole, carve in zip(seconds[OURS], carves, strict=True)]
    return Alone(
        mode=mode,
        claims=rounds,
        ours_seconds=statistics.median(seconds[OURS]),
        carve_seconds=statistics.median(carves),
        idle_seconds=statistics.median(seconds[IDLE]),
        ratio=_ratio(seconds[OURS], seconds[IDLE]),
        ratio_without_carve=_ratio(rest, seconds[IDLE]),
    )


def together(  # noqa: PLR0913, PLR0917 - what there is to measure
    made: Claims, mode: str, limit: int, bursts: int, count: int, say: Callable[[str], None]
) -> Together:
    """Bursts of both drivers in turn."""
    seconds: dict[str, list[float]] = {OURS: [], IDLE: []}
    for number in range(bursts):
        for side in _turn(number):
            names = [f"{mode.lower()}-{side}-burst{number}-{each}" for each in range(count)]
            seconds[side].append(made.burst(names, side, mode))
            made.remove(names, mode)
            say(f"{mode}: {count} {side}: the last after {seconds[side][-1]:.2f} s")
    return Together(
        mode=mode,
        requests_per_second=limit,
        claims=count,
        bursts=bursts,
        ours_seconds=statistics.median(seconds[OURS]),
        idle_seconds=statistics.median(seconds[IDLE]),
        ratio=_ratio(seconds[OURS], seconds[IDLE]),
    )


def lives(  # noqa: PLR0913 - what there is to count
    scene: Scene, made: Claims, side: str, *, one_by_one: int, at_once: int, say: Callable[[str], None]
) -> list[Writes]:
    """What is written for a volume's life: one after the other, and all at once."""
    found = []
    for how, groups in (
        ("one by one", [[number] for number in range(one_by_one)]),
        ("at once", [list(range(at_once))]),
    ):
        scene.rest()
        begun = scene.moment()
        for group in groups:
            names = [f"life-{side}-{how.replace(' ', '')}-{number}" for number in group]
            made.burst(names, side, NOW)
            made.remove(names, NOW)
        scene.rest()
        count = sum(map(len, groups))
        each = per_volume(lasting(scene.writes(begun)), count, without=frozenset({BENCH}))
        found.append(Writes(driver=side, how=how, volumes=count, each=each))
        say(f"writes, {side}, {how}: {sum(each.values()):.2f} for each volume")
    return found


def _turn(number: int) -> tuple[str, str]:
    return (OURS, IDLE) if number % 2 else (IDLE, OURS)


def _ratio(ours: Sequence[float], idle: Sequence[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, idle, strict=True))


def _each(act: Callable[[str], None], names: Sequence[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(act, names))
