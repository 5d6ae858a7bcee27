"""A node's storage and its people, for the tests of what an agent does about objects."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from ullage.errors import MIB, NotFoundError, UllageError, UnavailableError
from ullage.kube.foreign import ObjectReference
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Done,
    Examine,
    Examined,
    ExpandVolume,
    ModifyVolume,
    Owner,
    Pool,
    PoolName,
    StoreName,
    TakeGroup,
    TakeSnapshot,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.names import member_id

FAST = DeviceClassName("fast")
POOL = PoolName("vg0")
TAKEN_AT = 1_800_000_000


def eventually(holds: Callable[[], bool]) -> None:
    """Poll what tells nobody when it changes."""
    pause = threading.Event()
    for _ in range(2000):
        if holds():
            return
        pause.wait(0.005)
    raise AssertionError("it has not come to hold")


@dataclass
class Heard:
    """Events as they were told: (kind of object, name, reason)."""

    told: list[tuple[str, str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    def tell(
        self, about: ObjectReference, *, reason: str, message: str, is_warning: bool = False, action: str = ""
    ) -> None:
        del is_warning, action
        self.told.append((about.kind, about.name, reason))
        self.sentences.append(message)

    def start(self) -> None:
        """Nothing to begin."""

    def stop(self) -> None:
        """Nothing to end."""


def volume(name: str, size_bytes: int = 8 * MIB) -> Volume:
    return Volume(
        id=VolumeId(name),
        pool=POOL,
        store=StoreName("vg0"),
        type=DeviceType.THICK,
        device_class=FAST,
        size_bytes=size_bytes,
        device_size_bytes=size_bytes,
        state=VolumeState.READY,
        wipe=Wipe.DISCARD,
        owner=Owner(claim_namespace="default", claim_name="web-0", claim_uid="u-1"),
        device_path=f"/dev/vg0/{name}",
    )


@dataclass
class Disks:
    """An agent whose volumes are in memory; it does as it is told, unless `failing` says otherwise for a verb."""

    there: dict[VolumeId, Volume] = field(default_factory=dict)
    failing: dict[str, UllageError] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Every verb that changes something, as it was asked for."""
    classes_known: tuple[DeviceClassName, ...] = (FAST,)
    is_blind: bool = False
    busy: set[VolumeId] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    examining: Callable[[], None] = lambda: None
    """Called while a volume is read."""
    version: int = 1
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def has(self, *volumes: Volume) -> None:
        """Something happens on the disks."""
        with self._changed:
            self.there |= {each.id: each for each in volumes}
            self.version += 1
            self._changed.notify_all()

    def loses(self, name: str) -> None:
        with self._changed:
            del self.there[VolumeId(name)]
            self.version += 1
            self._changed.notify_all()

    def create(self, request: CreateVolume, *, patience_seconds: float) -> Done:
        del patience_seconds
        with self._asked("create", request.volume_id):
            is_new = request.volume_id not in self.there
            if is_new:
                made = volume(request.volume_id, request.size_bytes)
                self.has(
                    replace(
                        made,
                        device_class=request.device_class,
                        source=request.source,
                        wipe=request.wipe or made.wipe,
                        owner=request.owner,
                    )
                )
        return Done(volume=self.there[request.volume_id], is_new=is_new)

    def expand(self, request: ExpandVolume, *, patience_seconds: float) -> Done:
        del patience_seconds
        with self._asked("expand", request.volume_id):
            grown = replace(self.there[request.volume_id], size_bytes=request.size_bytes)
            self.has(grown)
        return Done(volume=grown, is_new=True)

    def modify(self, request: ModifyVolume, *, patience_seconds: float) -> Done:
        del patience_seconds
        with self._asked("modify", request.volume_id):
            changed = replace(self.there[request.volume_id], wipe=request.wipe)
            self.has(changed)
        return Done(volume=changed, is_new=True)

    def delete(self, request: DeleteVolume, *, patience_seconds: float) -> Done:
        del patience_seconds
        with self._asked("delete", request.volume_id):
            if request.volume_id not in self.there and self.is_blind:
                raise UnavailableError(f"{request.volume_id} cannot be told to be gone")
            if request.volume_id in self.there:
                self.loses(request.volume_id)
        return Done(volume=None, is_new=True)

    def snapshot(self, request: TakeSnapshot, *, patience_seconds: float) -> Done:
        del patience_seconds
        with self._asked("snapshot", request.snapshot_id):
            self.has(self._snapshot(request.snapshot_id, request.source))
        return Done(volume=self.there[request.snapshot_id], is_new=True)

    def snapshot_group(self, request: TakeGroup, *, patience_seconds: float) -> tuple[Volume, ...]:
        del patience_seconds
        with self._asked("group", VolumeId(request.group_id)):
            taken = [
                replace(self._snapshot(member_id(request.group_id, each), each), group=request.group_id)
                for each in request.sources
            ]
            self.has(*taken)
        return tuple(taken)

    def examine(
        self,
        request: Examine,
        *,
        alone: Callable[[], AbstractContextManager[None]],
        is_wanted: Callable[[], bool],
        patience_seconds: float,
    ) -> Examined:
        del patience_seconds
        with self._asked("examine", request.volume_id), alone():
            self.examining()
            if not is_wanted():
                raise UnavailableError("the examination was stopped")
        is_written = request.volume_id in self.written
        reason, message = ("Written", "byte 7") if is_written else ("AllZero", "all zero")
        return Examined(is_unwritten=not is_written, reason=reason, message=message)

    def is_busy(self, key: VolumeId) -> bool:
        return key in self.busy

    def find(self, volume_id: VolumeId) -> Volume | None:
        return self.there.get(volume_id)

    def seek(self, volume_id: VolumeId, pool: PoolName | None) -> Volume:
        del pool
        if volume_id in self.there:
            return self.there[volume_id]
        self.asked.append(f"look for {volume_id}")
        if self.is_blind:
            raise UnavailableError(f"{volume_id} cannot be told to be missing")
        raise NotFoundError(f"{volume_id} is on none of this node's stores")

    def volumes(self) -> tuple[Volume, ...]:
        return tuple(self.there.values())

    def pools(self) -> tuple[Pool, ...]:
        return ()

    def classes(self) -> tuple[DeviceClass, ...]:
        return tuple(DeviceClass(name=name, type=DeviceType.THICK) for name in self.classes_known)

    def wait_for_change(self, version: int, timeout_seconds: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self.version != version, timeout_seconds)
            return self.version

    def _snapshot(self, snapshot_id: VolumeId, source: VolumeId) -> Volume:
        of = self.there[source]
        return replace(of, id=snapshot_id, kind=VolumeKind.SNAPSHOT, source=source, taken_at=TAKEN_AT)

    @contextmanager
    def _asked(self, verb: str, volume_id: VolumeId) -> Iterator[None]:
        self.asked.append(f"{verb} {volume_id}")
        if verb in self.failing:
            raise self.failing[verb]
        yield
