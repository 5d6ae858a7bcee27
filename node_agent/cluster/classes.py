"""The device classes that are for this node, from their objects; and from a file, for as long as nobody can be asked.

A class is for this node when the Node has every label of its `nodeSelector`. One that cannot be read, or contradicts an
older one about what they share, is left out and told of; the others are served. What is served is kept in a file beside
the agent's socket: an agent that starts while the API server is gone serves what its predecessor did.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from node_agent.cluster.telling import Events
from ullage.errors import ConfigError, UllageError
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Node, ObjectReference
from ullage.kube.informer import Informer
from ullage.kube.meta import API_VERSION, DEVICE_CLASSES, Meta
from ullage.model import DeviceClass, NodeName
from ullage.names import patterns_overlap

QUIET_SECONDS = 0.1
"""A change waits for others this long: each look at everything serves all of them."""
PAUSE_SECONDS = 5.0
JOIN_SECONDS = 5.0

log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """A class in the file: its object's name and spec."""

    name: str
    spec: msgspec.Raw


_ALL_KEPT = msgspec.json.Decoder(list[_Kept])


class Classes:
    """One thread that configures the agent; `heard` may be called from any."""

    def __init__(  # noqa: PLR0913 - what it stands between
        self,
        *,
        node: NodeName,
        objects: Informer[DeviceClassObject],
        nodes: Informer[Node],
        configure: Callable[[Sequence[DeviceClass]], None],
        kept: Path,
        events: Events,
    ) -> None:
        """`kept` is the file. `nodes` has this node only."""
        self._node = node
        self._objects = objects
        self._nodes = nodes
        self._configure = configure
        self._kept = kept
        self._events = events
        self._served: tuple[DeviceClass, ...] | None = None
        self._told: dict[str, str] = {}
        self._is_wished = threading.Event()
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-classes", daemon=True)

    def start(self) -> None:
        """Follow the objects from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End after a look at the storage that is under way, if that does not take long."""
        self._is_stopping.set()
        self._is_wished.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)

    def heard(self) -> None:
        """A class or the node has changed."""
        self._is_wished.set()

    def last_known(self) -> tuple[DeviceClass, ...]:
        """What an earlier process on this node served; nothing when it left nothing, or nothing that can be read."""
        try:
            content = self._kept.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            log.warning("kept classes not read", extra={"path": str(self._kept), "why": str(error)})
            return ()
        try:
            kept = _ALL_KEPT.decode(content)
        except msgspec.DecodeError as error:
            log.warning("kept classes not read", extra={"path": str(self._kept), "why": str(error)})
            return ()
        objects = [DeviceClassObject(metadata=Meta(name=each.name), spec=each.spec) for each in kept]
        return tuple(self._readable(objects, None).values())

    def apply(self) -> bool:
        """Serve what the objects say now; False when that is what is served. Raises UllageError."""
        node = self._nodes.get(self._node)
        labels = node.metadata.labels if node is not None else {}
        objects = sorted(self._objects.all(), key=lambda each: (each.metadata.creation_timestamp, each.metadata.name))
        mine = self._readable(objects, labels)
        served = tuple(mine.values())
        if served == self._served:
            return False
        self._keep([each for each in objects if each.metadata.name in mine])
        self._configure(served)
        self._served = served
        log.info("device classes taken", extra={"device_classes": len(served), "left_out": len(objects) - len(mine)})
        return True

    def _readable(
        self, objects: Iterable[DeviceClassObject], labels: Mapping[str, str] | None
    ) -> dict[str, DeviceClass]:
        """Those that a node of these labels (None: any) can serve together; what two contradict in is the first's."""
        found: dict[str, DeviceClass] = {}
        for each in objects:
            name = each.metadata.name
            try:
                wanted = each.device_class
                if labels is not None and any(labels.get(key) != value for key, value in wanted.node_selector):
                    continue
                _check_together(wanted, found.values())
            except ConfigError as error:
                self._tell(each, str(error))
            else:
                found[name] = wanted
                self._told.pop(name, None)
        return found

    def _tell(self, unreadable: DeviceClassObject, why: str) -> None:
        """Once for each sentence. Events are all: an agent may not write classes."""
        meta = unreadable.metadata
        if self._told.get(meta.name) == why:
            return
        self._told[meta.name] = why
        log.error("device class not served", extra={"device_class": meta.name, "why": why})
        about = ObjectReference(api_version=API_VERSION, kind=DEVICE_CLASSES.kind, name=meta.name, uid=meta.uid)
        self._events.tell(about, reason=ConfigError.reason, message=f"{self._node}: {why}", is_warning=True)

    def _keep(self, objects: Sequence[DeviceClassObject]) -> None:
        """Replace the file whole; without it a start needs the API server, nothing else."""
        aside = self._kept.with_name(f"{self._kept.name}.tmp")
        content = msgspec.json.encode([_Kept(name=each.metadata.name, spec=each.spec) for each in objects])
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._kept)
        except OSError as error:
            log.warning("classes not kept", extra={"path": str(self._kept), "why": str(error)})

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            self._is_wished.wait()
            if self._is_stopping.wait(QUIET_SECONDS):
                return
            self._is_wished.clear()
            try:
                self.apply()
            except UllageError as error:
                log.warning("device classes not taken", extra={"reason": error.reason, "why": str(error)})
                self._is_stopping.wait(PAUSE_SECONDS)
                self._is_wished.set()
            except Exception:  # the thread's top
                log.exception("device classes not taken")
                self._is_stopping.wait(PAUSE_SECONDS)
                self._is_wished.set()


def _check_together(one: DeviceClass, others: Iterable[DeviceClass]) -> None:
    """Raise ConfigError when a class says something else than another of what they share; as the file's rules do."""
    for other in others:
        if one.directory and one.directory == other.directory and one.is_sparse is not other.is_sparse:
            raise ConfigError(
                f"{DEVICE_CLASSES.kind} {one.name}: spec.sparse: differs from that of {other.name}, and both have the "
                f"directory {one.directory}; make them alike"
            )
        mine, its = one.thin_pool, other.thin_pool
        can_be_one = any(patterns_overlap(a, b) for a in one.volume_groups for b in other.volume_groups)
        if mine is not None and its is not None and mine.name == its.name and can_be_one and mine != its:
            raise ConfigError(
                f"{DEVICE_CLASSES.kind} {one.name}: spec.thinPool: differs from that of {other.name}, and both can "
                f"mean the thin pool {mine.name}; make them alike"
            )
