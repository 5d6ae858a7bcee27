"""`ullage controller` and one `ullage node` among many nodes and volumes: start, memory, the choice of a node.

A start is from the program's beginning until it says that it is ready. The agent is a real one, with as many volumes of
its own as each node has. In the measurements of a choice this process is the agent of all nodes: it says Ready as soon
as it hears of an order, and "chosen" is when it hears.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from bench import cluster_crowd as crowd
from bench.cluster_scene import NODES, Scene, cpu_seconds, device_class, memory, peak_bytes, seconds_to_ready
from bench.driver import CALL_SECONDS
from bench.lvm_rig import BenchError, Memory
from tests.rigs.cluster import nodes
from tests.rigs.cluster.ours import Ours
from ullage.errors import GIB, MIB
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import LogicalVolume
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import DeviceClassName, NodeName, VolumeId
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.pb.csi.v1.csi_pb2_grpc import ControllerStub
from ullage.storage_classes import CLASS_KEY, NODE_KEY

CALM_SECONDS = 60.0
"""After a start: what is to be written has been written by then."""
CARVE_SECONDS = 120.0
TOO_LARGE_BYTES = crowd.DISKS * crowd.DISK_BYTES * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Of one program."""

    program: str
    nodes: int
    volumes: int
    seconds: float
    cpu_seconds: float
    """Of processors; both are medians of so many starts."""
    starts: int
    ready: Memory
    calm: Memory
    """CALM_SECONDS later."""
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Of CreateVolume; medians, in seconds."""

    how: str
    calls: int
    chosen_seconds: float
    answered_seconds: float
    cpu_seconds: float
    """Of processors, for one call in the mean."""


def started(program: Ours, name: str, *, of: tuple[int, int], starts: int, say: Callable[[str], None]) -> Start:
    """Start it so many times; the last one goes on."""
    seconds, of_processors = [], []
    for number in range(starts):
        if number:
            program.process.stop()
        seconds.append(seconds_to_ready(program))
        of_processors.append(cpu_seconds(program))
    ready = memory(program)
    say(f"{name}: ready after {statistics.median(seconds):.2f} s")
    time.sleep(CALM_SECONDS)
    calm = memory(program)
    say(f"{name}: {calm.rss_bytes / 1e6:.0f} MB")
    return Start(
        program=name,
        nodes=of[0],
        volumes=of[1],
        seconds=statistics.median(seconds),
        cpu_seconds=statistics.median(of_processors),
        starts=starts,
        ready=ready,
        calm=calm,
        peak_bytes=peak_bytes(program),
    )


def settle_agent(scene: Scene, volumes: int) -> Ours:
    """An agent on a node of its own, that has carved so many volumes, and is stopped."""
    node = NodeName(NODES[0])
    nodes.add(scene.rig, node)
    program = scene.agent_of(node)
    for number in range(volumes):
        volume_id = VolumeId(f"pvc-ffffffff-0000-4000-8000-{number:012x}")
        made = crowd.ordered(volume_id, node, DeviceClassName(device_class(node)), 16 * MIB)
        scene.kube.create(LOGICAL_VOLUMES, made)
    program.process.start()
    deadline = time.monotonic() + CARVE_SECONDS
    path = f"{LOGICAL_VOLUMES.path()}?fieldSelector=spec.nodeName={node}"
    while any(each.get("status", {}).get("phase") != "Ready" for each in scene.rig.items(path)):
        if time.monotonic() > deadline:
            raise BenchError(f"the agent does not carve:\n{program.process.tail()}")
        time.sleep(0.5)
    program.process.stop()
    return program


class Choices:
    """Asks a controller for volumes, and says Ready for every node."""

    def __init__(self, scene: Scene, controller: Ours) -> None:
        """`choices` makes one."""
        self._scene = scene
        self._controller = controller
        self.seen = Informer(scene.kube, LOGICAL_VOLUMES, LogicalVolume)
        self.seen.on_change(self._ordered)
        self._heard: dict[str, float] = {}
        self._count = 0

    def made(self, how: str, *, node: NodeName | None, calls: int) -> Choice:
        """Volumes for any node, or for one that has been chosen."""
        chosen, answered, before = [], [], cpu_seconds(self._controller)
        with grpc.insecure_channel(self._controller.csi_endpoint) as channel:
            for _ in range(calls + 1):
                name = self._name()
                begun = time.monotonic()
                ControllerStub(channel).CreateVolume(_request(name, GIB, node), timeout=CALL_SECONDS)
                answered.append(time.monotonic() - begun)
                chosen.append(self._heard[name] - begun)
        return Choice(
            how=how,
            calls=calls,
            chosen_seconds=statistics.median(chosen[1:]),
            answered_seconds=statistics.median(answered[1:]),
            cpu_seconds=(cpu_seconds(self._controller) - before) / len(answered),
        )

    def refused(self, *, calls: int) -> Choice:
        """A volume that no node has room for: every node has been looked at when the answer comes."""
        answered, before = [], cpu_seconds(self._controller)
        with grpc.insecure_channel(self._controller.csi_endpoint) as channel:
            for _ in range(calls + 1):
                begun = time.monotonic()
                try:
                    ControllerStub(channel).CreateVolume(
                        _request(self._name(), TOO_LARGE_BYTES, None), timeout=CALL_SECONDS
                    )
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                answered.append(time.monotonic() - begun)
        median = statistics.median(answered[1:])
        return Choice(
            how="too large for any",
            calls=calls,
            chosen_seconds=median,
            answered_seconds=median,
            cpu_seconds=(cpu_seconds(self._controller) - before) / len(answered),
        )

    def _name(self) -> str:
        self._count += 1
        return f"pvc-eeeeeeee-0000-4000-8000-{self._count:012x}"

    def _ordered(self, before: LogicalVolume | None, after: LogicalVolume | None) -> None:
        if before is None and after is not None and after.id.startswith("pvc-eeeeeeee-"):
            self._heard[after.id] = time.monotonic()
            body = crowd.carved(after, after.metadata.generation)
            self._scene.kube.patch(LOGICAL_VOLUMES, after.id, body, subresource="status")


@contextmanager
def choices(scene: Scene, controller: Ours) -> Iterator[Choices]:
    """One that has heard of all there is."""
    made = Choices(scene, controller)
    made.seen.start()
    try:
        if not made.seen.wait_until_synced(CARVE_SECONDS):
            raise BenchError("the API server does not tell its volumes")
        yield made
    finally:
        made.seen.stop()


def _request(name: str, size_bytes: int, node: NodeName | None) -> pb.CreateVolumeRequest:
    """As external-provisioner makes it."""
    there = pb.Topology(segments={NODE_KEY: node}) if node else None
    access = pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_WRITER)
    mount = pb.VolumeCapability.MountVolume(fs_type="ext4")
    return pb.CreateVolumeRequest(
        name=name,
        capacity_range=pb.CapacityRange(required_bytes=size_bytes),
        volume_capabilities=[pb.VolumeCapability(mount=mount, access_mode=access)],
        parameters={
            CLASS_KEY: crowd.CLASS,
            "csi.storage.k8s.io/pv/name": name,
            "csi.storage.k8s.io/pvc/name": f"data-{name}",
            "csi.storage.k8s.io/pvc/namespace": crowd.NAMESPACE,
        },
        accessibility_requirements=pb.TopologyRequirement(requisite=[there], preferred=[there]) if there else None,
    )
