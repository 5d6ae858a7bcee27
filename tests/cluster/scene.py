"""A whole cluster for the tests: the real control plane and sidecars, our controllers, our agents on three nodes or so.

with cluster(folder, logs) as scene:
    scene.claim("data", pod=True)
    scene.wait_bound("data")
    scene.audit()
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.cluster import audit as audits
from tests.cluster import things
from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES, Kubelet
from tests.cluster.machine import CLASSES, Host, Machine, machines
from tests.cluster.things import EVENTS, LOGICAL_VOLUMES, NODE_STORAGES, USERS, is_bound
from tests.csi import kubelet as driver
from tests.rigs.cluster import api as rest
from tests.rigs.cluster import nodes, ours
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import install_snapshot_crds
from tests.rigs.cluster.manifests import CONTROLLER_ALONE, install
from tests.rigs.cluster.ours import Ours
from tests.rigs.cluster.sidecars import NAMES, PROVISIONER, Sidecars
from tests.rigs.host import RigError
from ullage.kube.api import Api
from ullage.kube.connection import connect

HOSTS = (Host(name="n1"), Host(name="n2"), Host(name="n3"))
WAIT_SECONDS = 90.0
POLL_SECONDS = 0.15
LEADING = ("--leader-election", f"--leader-election-namespace={ours.NAMESPACE}")
"""For sidecars that there are several of."""
WITHOUT_LVM = ("--lvm-prefix", "there-is-no-lvm-here")
"""It would read the loop devices of all nodes at each look of each agent: they are one machine's."""
SWEEP = "--snapshot-orphan-sweep-interval=2s"
"""A snapshot is held for a claim that is gone before it was bound, until this sweep comes by (every five minutes)."""

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node. Its agent's process can be killed and started; what it has mounted stays."""

    name: str
    machine: Machine
    agent: Ours
    kubelet: Kubelet


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a test does, and looks at. `objects` is `api` for people: JSON, and waiting until something is so."""

    plane: ControlPlane
    api: Api
    objects: rest.Api
    nodes: Mapping[str, Node]
    controllers: Sequence[Ours]
    sidecars: Sequence[Sidecars]
    """One set beside each controller, on its socket."""

    def claim(  # noqa: PLR0913 - what a claim can say
        self,
        name: str,
        size: str = "64Mi",
        storage_class: str = "fast",
        *,
        pod: bool = False,
        node: str = "",
        is_block: bool = False,
        source: Mapping[str, str] | None = None,
        attributes: str = "",
        labels: Mapping[str, str] | None = None,
        selected_node: str = "",
    ) -> str:
        """Make a claim: its path. With `pod`, or the `node` where that is to be, a Pod of its name that uses it."""
        content = things.claim(
            name,
            size,
            storage_class,
            is_block=is_block,
            source=source,
            attributes=attributes,
            labels=labels,
            selected_node=selected_node,
        )
        self.objects.create(CLAIMS, content)
        if pod or node:
            self.pod(name, [name], node=node, is_block=is_block)
        return f"{CLAIMS}/{name}"

    def pod(self, name: str, claims: Sequence[str], *, node: str = "", is_block: bool = False) -> None:
        """Make a Pod that uses these claims."""
        self.objects.create(PODS, things.pod(name, claims, node=node, is_block=is_block))

    def wait_bound(self, *claims: str, seconds: float = WAIT_SECONDS) -> list[Json]:
        """The PersistentVolumes that the claims are bound to, in the end; RigError says why one is not."""
        bound = []
        for claim in claims:
            try:
                found = self.objects.until(f"{CLAIMS}/{claim}", is_bound, seconds)
            except RigError as late:
                raise RigError(f"{late}\n" + "\n".join(self.events(claim))) from late
            bound.append(self.objects.get(f"{VOLUMES}/{found['spec']['volumeName']}"))
        return bound

    def order(self, claim: str) -> Json:
        """The LogicalVolume of a bound claim."""
        (volume,) = self.wait_bound(claim)
        return self.objects.get(f"{LOGICAL_VOLUMES}/{volume['spec']['csi']['volumeHandle']}")

    def node_of(self, claim: str) -> Node:
        """Where a bound claim's volume is."""
        return self.node_with(self.order(claim)["metadata"]["name"])

    def node_with(self, volume_id: str) -> Node:
        """Where a volume or snapshot is."""
        return self.nodes[self.objects.get(f"{LOGICAL_VOLUMES}/{volume_id}")["spec"]["nodeName"]]

    def place_of(self, pod: str, seconds: float = WAIT_SECONDS) -> Node:
        """Where the scheduler puts a Pod, in the end."""
        found = self.objects.until(f"{PODS}/{pod}", lambda it: it["spec"].get("nodeName"), seconds)
        return self.nodes[found["spec"]["nodeName"]]

    def run(self, pod: str) -> dict[str, Path]:
        """What kubelet does once the Pod is scheduled: where its claims are mounted."""
        return self.place_of(pod).kubelet.run(pod)

    def end(self, *pods: str) -> None:
        """The same for a Pod that ran and is deleted."""
        for pod in pods:
            self.place_of(pod).kubelet.end(pod)

    def events(self, about: str) -> list[str]:
        """What was told of an object of this name: `Reason: message`."""
        told = self.objects.items(f"{EVENTS}?fieldSelector=involvedObject.name={about}")
        return [f"{each['reason']}: {each['message']}" for each in told]

    def wait_told(self, about: str, *words: str, seconds: float = WAIT_SECONDS) -> str:
        """The first event about an object that has all these words in it."""

        def told() -> str:
            return next((each for each in self.events(about) if all(word in each for word in words)), "")

        return until(told, lambda: f"{words} in {self.events(about)}", seconds)

    def free_bytes(self, device_class: str) -> dict[str, int]:
        """By node, what its NodeStorage says is free in the class's pool."""
        return {
            storage["metadata"]["name"]: pool["freeBytes"]
            for storage in self.objects.items(NODE_STORAGES)
            for pool in storage["status"]["pools"]
            if device_class in pool["classes"]
        }

    def delete(self, *paths: str) -> None:
        """Ask for the deletion of objects."""
        for path in paths:
            self.objects.delete(path)

    def audit(self, *, is_empty: bool = False, seconds: float = audits.SETTLE_SECONDS) -> None:
        """Wait until objects and disks agree, and with `is_empty` nothing is left; AssertionError says what not."""
        audits.audit(self.objects, self.machines, is_empty=is_empty, seconds=seconds)

    def clear(self) -> None:
        """Delete all that users have made, used or not."""
        for path in USERS:
            self.objects.delete(f"{path}?gracePeriodSeconds=0")
            if path == PODS:
                for node in self.nodes.values():
                    node.kubelet.calls.clean()

    @property
    def machines(self) -> list[Machine]:
        """The nodes' disks."""
        return [node.machine for node in self.nodes.values()]


@contextmanager
def cluster(  # noqa: PLR0913 - what differs from test to test
    folder: Path,
    logs: Path,
    *,
    controllers: int = 1,
    electing: Sequence[str] = NAMES,
    hosts: Sequence[Host] = HOSTS,
    more: Sequence[str] = (),
) -> Iterator[Cluster]:
    """All of it, for a while. `folder` has a short path, for sockets; `more` are further words for the controllers.

    Raises RigError. With several controllers each has its own sidecars; of those that elect one of each leads.
    """
    with ExitStack() as ends:
        flags = dict.fromkeys(electing if controllers > 1 else (), LEADING)
        flags[PROVISIONER] = (*flags.get(PROVISIONER, ()), SWEEP)
        ends.callback(_keep_logs, folder, logs)
        made = ends.enter_context(machines(folder, hosts))
        plane = ends.enter_context(ControlPlane(logs))
        objects = plane.api()
        _prepare(objects, hosts, made)
        agents = {name: _agent(folder, plane, each) for name, each in made.items()}
        ours_all = [_controller(folder, plane, f"c{number}", more) for number in range(controllers)]
        for each in (*agents.values(), *ours_all):
            ends.callback(each.process.kill)
        with ThreadPoolExecutor() as together:
            list(together.map(lambda each: each.process.start(), (*agents.values(), *ours_all)))
        account = plane.kubeconfig_for(ours.NAMESPACE, "ullage-controller")
        sidecars = [
            Sidecars(
                _made(logs / each.process.name), each.csi_socket, plane.kubeconfig, objects, flags, account=account
            )
            for each in ours_all
        ]
        for beside in sidecars:
            ends.enter_context(beside)
        there = {}
        for name, machine in made.items():
            client = driver.Client(agents[name].csi_endpoint)
            calls = driver.Kubelet(machine.kubelet_root, client)
            ends.callback(calls.clean)
            ends.callback(client.close)
            there[name] = Node(
                name=name, machine=machine, agent=agents[name], kubelet=Kubelet(api=objects, node=name, calls=calls)
            )
        for agent in agents.values():
            _wait_reported(objects, agent)
        yield Cluster(
            plane=plane,
            api=Api(connect(plane.kubeconfig)),
            objects=objects,
            nodes=there,
            controllers=ours_all,
            sidecars=sidecars,
        )


def _prepare(objects: rest.Api, hosts: Sequence[Host], made: Mapping[str, Machine]) -> None:
    """What an administrator installs, and kubelets with the driver register."""
    install(objects)
    install_snapshot_crds(objects)
    for path in things.ALL:  # of a new definition the server says for a moment that it is not there yet
        until(partial(_is_listed, objects, path), lambda: "its kind is not served")
    things.make_snapshot_classes(objects)
    for host in hosts:
        nodes.add(objects, host.name, labels=host.labels, room=host.room)
    directories = next(iter(made.values())).directories
    things.make_classes(objects, {name: str(path) for name, path in directories.items()})


def _wait_reported(objects: rest.Api, agent: Ours) -> None:
    try:
        objects.until(
            f"{NODE_STORAGES}/{agent.process.name}",
            lambda it: len(it.get("status", {}).get("pools", ())) == len(CLASSES),
        )
    except RigError as late:
        agent.process.signal(signal.SIGABRT)
        time.sleep(1)
        raise RigError(f"{late}\n{agent.process.log.read_text(encoding='utf-8')}") from late


def _keep_logs(folder: Path, logs: Path) -> None:
    """Our programs' logs, from beside their sockets."""
    for log in folder.glob("*.log"):
        shutil.copy(log, logs)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _is_listed(objects: rest.Api, path: str) -> bool:
    try:
        return objects.items(path) == []
    except rest.Refusal:
        return False


def _agent(folder: Path, plane: ControlPlane, machine: Machine) -> Ours:
    kubeconfig = plane.kubeconfig_for(ours.NAMESPACE, "ullage-node", machine.name)
    return ours.node_agent(folder, machine.name, kubeconfig, WITHOUT_LVM, machine.container)


def _controller(folder: Path, plane: ControlPlane, name: str, more: Sequence[str]) -> Ours:
    return ours.controller(folder, name, plane.kubeconfig_for(ours.NAMESPACE, CONTROLLER_ALONE), more)


def until(look: Callable[[], Found], seen: Callable[[], object], seconds: float = WAIT_SECONDS) -> Found:
    """What `look` finds, once that is something; raises RigError with what is `seen` instead."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise RigError(f"not so after {seconds:.0f} s: {seen()}")
        time.sleep(POLL_SECONDS)
    return found
