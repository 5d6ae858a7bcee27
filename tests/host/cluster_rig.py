"""A node of a cluster in this process: the real agent over real files, and an API server in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from csi.calls import Calls
from node_agent.assembly import Assembly, assemble, backends
from node_agent.cluster.link import Link
from tests.contract.faults import until
from tests.unit.cluster_doubles import Heard
from tests.unit.kube_doubles import ApiServer, Fields
from ullage.errors import MIB, ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.connection import JSON, Transport
from ullage.kube.logical_volume import LogicalVolume, order
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, NODES
from ullage.kube.node_storage import NodeStorage
from ullage.model import CreateVolume, DeviceClassName, NodeName, Owner, VolumeId
from ullage.run import Subprocesses

NODE, ELSEWHERE = NodeName("node-1"), NodeName("node-2")
CLASS = DeviceClassName("files")
OWNER = Owner(pv_name="pv-1", claim_namespace="default", claim_name="web-0", claim_uid="u-1")


def put_class(api: ApiServer, directory: Path, name: str = CLASS, **more: object) -> None:
    """An object for a class of files in the directory."""
    spec = {"type": "file", "directory": str(directory), "sparse": True, **more}
    api.put(DEVICE_CLASSES, {"metadata": {"name": name}, "spec": spec})


def put_node(api: ApiServer, name: str = NODE, **labels: str) -> None:
    api.put(NODES, {"metadata": {"name": name, "labels": labels}})


def ordered(api: ApiServer, name: str, size_bytes: int = 8 * MIB, node: NodeName = NODE) -> LogicalVolume:
    """An order as the controller writes it."""
    request = CreateVolume(volume_id=VolumeId(name), device_class=CLASS, size_bytes=size_bytes, owner=OWNER)
    return seen(api.put(LOGICAL_VOLUMES, order(request, node)))


def seen(fields: Fields) -> LogicalVolume:
    return msgspec.convert(fields, LogicalVolume)


@dataclass
class Process:
    """What `ullage node` is, without its sockets; `die` is a kill that leaves the disk and the objects."""

    api: ApiServer
    folder: Path
    way: Transport | None = None
    """Instead of the direct one."""
    heard: Heard = field(default_factory=Heard)
    assembly: Assembly = field(init=False)
    link: Link = field(init=False)
    calls: Calls = field(default_factory=Calls)

    def __post_init__(self) -> None:
        self.assembly = assemble(backends(Subprocesses()))
        self.link = Link(
            node=NODE,
            version="0.0",
            assembly=self.assembly,
            api=Api(self.way or self.api),
            events=self.heard,
            alone=self.calls.alone,
            probe=lambda _: "ext4",
            kept=self.folder / "agent.classes",
        )
        self.assembly.operations.tell(self.link.ended)

    def start(self) -> Process:
        self.assembly.agent.configure(self.link.last_known_classes())
        self.assembly.agent.recover()
        self.assembly.start()
        self.link.start()
        return self

    def joined(self) -> Process:
        until(lambda: self.link.is_joined)
        return self

    def stop(self) -> None:
        self.link.stop()
        self.assembly.stop(10)

    def object(self, name: str) -> LogicalVolume:
        found = self.api.find(LOGICAL_VOLUMES, name)
        assert found is not None, f"{name} has no object"
        return seen(found)

    def storage(self) -> NodeStorage:
        found = self.api.find(NODE_STORAGES, NODE)
        assert found is not None
        return msgspec.convert(found, NodeStorage)

    def until(self, name: str, holds: Callable[[LogicalVolume], bool]) -> LogicalVolume:
        until(lambda: holds(self.object(name)))
        return self.object(name)


class Mortal:
    """The way to the API server of a process that dies at its nth write, before or after it: nothing passes then."""

    def __init__(self, api: ApiServer, write: int, *, is_after: bool) -> None:
        self._api, self._write, self._is_after = api, write, is_after
        self._guard = threading.Lock()
        self._seen = 0
        self.is_dead = False

    def request(  # noqa: PLR0913 - the port's
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        timeout_seconds: float,
    ) -> bytes:
        with self._guard:
            mine = method != "GET" and "/logicalvolumes/" in path and self._seen == self._write
            self._seen += method != "GET" and "/logicalvolumes/" in path
            if self.is_dead or (mine and not self._is_after):
                self.is_dead = True
                raise ApiUnavailableError("dead")
            answer = self._api.request(
                method, path, query, body, content_type=content_type, timeout_seconds=timeout_seconds
            )
            if mine:
                self.is_dead = True
                raise ApiUnavailableError("dead")
            return answer

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        if self.is_dead:
            raise ApiUnavailableError("dead")
        with self._api.lines(path, query, silence_seconds=silence_seconds) as lines:
            yield lines
