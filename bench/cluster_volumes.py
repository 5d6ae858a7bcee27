"""LogicalVolume created → Ready, as the controller sees it; the carve itself taken off. And who hears of it besides.

This process is the controller: it writes the object and waits on its watch. The carve is what the agent's own metric
(`ullage_operation_seconds`) says.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from bench.cluster_claims import AT_ONCE, BENCH
from bench.cluster_scene import NODES, Scene, carved, device_class, metrics_of
from bench.counting import lasting, per_volume, total
from bench.driver import client_of
from bench.lvm_rig import BenchError
from ullage.errors import MIB, ApiNotFoundError
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import LogicalVolume, order
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import CreateVolume, DeviceClassName, NodeName, Owner, VolumeId

SIZE_BYTES = 64 * MIB
READY_SECONDS = 120.0
NODE = NodeName(NODES[0])
CLASS = DeviceClassName(device_class(NODE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Of one volume at a time; seconds."""

    what: str
    volumes: int
    whole_seconds: float
    carve_seconds: float
    beside_seconds: float
    """The median of the whole without the carve."""
    p90_seconds: float
    """Of the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Many at once."""

    volumes: int
    last_seconds: float
    carve_seconds: float
    """Of one, in the mean; several are carved at a time."""
    each: dict[str, float]
    """Writes for each volume's whole life, without those of this process."""
    heard: dict[str, float]
    """Events about LogicalVolumes that came to each agent."""


class Volumes:
    """Makes LogicalVolume objects, waits for them, and takes them away."""

    def __init__(self, scene: Scene) -> None:
        """`volumes` makes one."""
        self._scene = scene
        self.seen = Informer(scene.kube, LOGICAL_VOLUMES, LogicalVolume)

    def one(self, volume_id: VolumeId) -> float:
        """Seconds from its creation to Ready."""
        begun = time.monotonic()
        self._make(volume_id)
        self._wait(volume_id)
        return time.monotonic() - begun

    def burst(self, ids: Sequence[VolumeId]) -> float:
        """Seconds from the first one's creation until the last is Ready."""
        begun = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(self._make, ids))
        for each in ids:
            self._wait(each)
        return time.monotonic() - begun

    def remove(self, ids: Sequence[VolumeId]) -> None:
        """Delete them and wait until they are gone."""
        for each in ids:
            self._scene.kube.delete(LOGICAL_VOLUMES, each)
        for each in ids:
            if self.seen.wait(each, lambda found: found is None, READY_SECONDS) is not None:
                raise BenchError(f"{each} does not go")

    def _make(self, volume_id: VolumeId) -> None:
        claim = Owner(pv_name=volume_id, claim_namespace="default", claim_name=f"data-{volume_id}")
        request = CreateVolume(volume_id=volume_id, device_class=CLASS, size_bytes=SIZE_BYTES, owner=claim)
        self.seen.learn(self._scene.kube.create(LOGICAL_VOLUMES, order(request, NODE)))

    def _wait(self, volume_id: VolumeId) -> None:
        found = self.seen.wait(volume_id, lambda seen: seen is not None and seen.is_answered, READY_SECONDS)
        if found is None or not found.is_ready:
            raise BenchError(f"{volume_id} does not become Ready: {found}")


@contextmanager
def volumes(scene: Scene) -> Iterator[Volumes]:
    """One that has heard of all there is."""
    made = Volumes(scene)
    made.seen.start()
    try:
        if not made.seen.wait_until_synced(READY_SECONDS):
            raise BenchError("the API server does not tell its volumes")
        yield made
    finally:
        made.seen.stop()


def ready(scene: Scene, made: Volumes, *, rounds: int, say: Callable[[str], None]) -> Delay:
    """LogicalVolumes, one at a time."""
    return _measured("LogicalVolume → Ready", scene, made.one, lambda name: made.remove([name]), rounds, say)


def called(scene: Scene, made: Volumes, endpoint: str, *, rounds: int, say: Callable[[str], None]) -> Delay:
    """CreateVolume calls to the real controller, one at a time, as external-provisioner makes them."""
    with client_of(endpoint) as client:

        def create(name: VolumeId) -> float:
            begun = time.monotonic()
            client.create(name, CLASS, SIZE_BYTES)
            return time.monotonic() - begun

        def remove(name: VolumeId) -> None:
            try:
                scene.kube.get(LOGICAL_VOLUMES, name)
            except ApiNotFoundError as missing:
                raise BenchError(f"the controller's volume {name} has another name: {missing}") from missing
            made.remove([name])

        return _measured("CreateVolume", scene, create, remove, rounds, say)


def burst(scene: Scene, made: Volumes, *, count: int, say: Callable[[str], None]) -> Burst:
    """Many LogicalVolumes at once, with what is written and who hears of it."""
    scene.rest()
    begun, before, heard = scene.moment(), carved(scene), _heard(scene)
    ids = [VolumeId(f"pvc-{number:08d}-0000-4000-8000-00000000b000") for number in range(count)]
    last = made.burst(ids)
    after = carved(scene)
    made.remove(ids)
    scene.rest()
    say(f"{count} LogicalVolumes: the last after {last:.2f} s")
    return Burst(
        volumes=count,
        last_seconds=last,
        carve_seconds=(after.seconds - before.seconds) / count,
        each=per_volume(lasting(scene.writes(begun)), count, without=frozenset({BENCH})),
        heard={node: now - heard[node] for node, now in _heard(scene).items()},
    )


def _measured(  # noqa: PLR0913, PLR0917 - what there is to measure
    what: str,
    scene: Scene,
    create: Callable[[VolumeId], float],
    remove: Callable[[VolumeId], None],
    rounds: int,
    say: Callable[[str], None],
) -> Delay:
    wholes, carves = [], []
    for number in range(-2, rounds):
        before = carved(scene)
        name = VolumeId(f"pvc-{number + 2:08d}-0000-4000-8000-{len(what):012d}")
        whole = create(name)
        after = carved(scene)
        remove(name)
        if after.count == before.count:
            raise BenchError(f"the agent knows of no carve of {name}")
        if number >= 0:
            wholes.append(whole)
            carves.append(after.seconds - before.seconds)
    beside = sorted(whole - carve for whole, carve in zip(wholes, carves, strict=True))
    say(f"{what}: {statistics.median(beside):.4f} s beside the carve")
    return Delay(
        what=what,
        volumes=rounds,
        whole_seconds=statistics.median(wholes),
        carve_seconds=statistics.median(carves),
        beside_seconds=statistics.median(beside),
        p90_seconds=beside[len(beside) * 9 // 10],
    )


def _heard(scene: Scene) -> dict[str, float]:
    name = "ullage_informer_events_total"
    return {
        node: total(metrics_of(agent), name, resource=LOGICAL_VOLUMES.plural) for node, agent in scene.agents.items()
    }
