"""A cluster in memory for the tests of what the extender decides: what is put into its view, in few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from msgspec.structs import replace as altered

from scheduler_extender import wire
from scheduler_extender.decisions import Decisions
from scheduler_extender.objects import SELECTED_NODE, Claim
from scheduler_extender.view import View
from scheduler_extender.wire import ClaimSource, ClaimSpec, Pod, PodSpec, PodVolume, Requests
from ullage.errors import GIB, MIB
from ullage.kube.foreign import StorageClass
from ullage.kube.logical_volume import ClaimRef, LogicalVolume, Phase, Spec, Status
from ullage.kube.meta import Meta, timestamp
from ullage.kube.node_storage import NodeStorage, StorageStatus, pool_status
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Disk,
    Layout,
    LayoutKind,
    PhysicalVolume,
    Pool,
    PoolName,
    StoreName,
)
from ullage.storage_classes import BINDS_LATE, CLASS_KEY, DRIVER

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EXTENT = 4 * MIB
FAST, SAFE, BULK, WHOLE = (DeviceClassName(each) for each in ("fast", "safe", "bulk", "whole"))
CLASSES = {
    FAST: DeviceClass(name=FAST, type=DeviceType.THICK),
    SAFE: DeviceClass(name=SAFE, type=DeviceType.THICK, layout=Layout(kind=LayoutKind.RAID1, mirrors=1)),
    BULK: DeviceClass(name=BULK, type=DeviceType.FILE),
    WHOLE: DeviceClass(name=WHOLE, type=DeviceType.DISK),
}


def thick(name: str, *gib: int, classes: tuple[DeviceClassName, ...] = (FAST, SAFE)) -> Pool:
    """A volume group with so much free on each of its physical volumes."""
    return Pool(
        name=PoolName(name),
        store=StoreName(name),
        type=DeviceType.THICK,
        classes=classes,
        total_bytes=sum(gib) * GIB,
        free_bytes=sum(gib) * GIB,
        extent_bytes=EXTENT,
        physical_volumes=tuple(
            PhysicalVolume(name=f"/dev/{name}{number}", free_bytes=each * GIB) for number, each in enumerate(gib)
        ),
    )


def files(name: str, gib: int) -> Pool:
    return replace(thick(name, gib, classes=(BULK,)), type=DeviceType.FILE, physical_volumes=(), extent_bytes=MIB)


def disks(name: str, *gib: int) -> Pool:
    found = tuple(Disk(name=f"/dev/{name}{number}", size_bytes=each * GIB) for number, each in enumerate(gib))
    return replace(thick(name, *gib, classes=(WHOLE,)), type=DeviceType.DISK, physical_volumes=(), disks=found)


def pod(name: str, *claims: str, uid: str = "", node: str = "") -> Pod:
    """A Pod that uses these claims."""
    volumes = tuple(PodVolume(name=each, persistent_volume_claim=ClaimSource(claim_name=each)) for each in claims)
    return Pod(
        metadata=wire.Meta(namespace="default", name=name, uid=uid or f"uid-of-{name}"),
        spec=PodSpec(volumes=volumes, node_name=node),
    )


@dataclass
class Clock:
    """Time that passes when it is told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    """The view, and who decides by it. Without `patience_seconds` nothing is waited for."""

    patience_seconds: float = 0.0
    view: View = field(default_factory=lambda: View(clock=lambda: NOW))
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        for name in ("fast", "safe", "bulk", "whole"):
            self.storage_class(name, name)
        self.view.device_classes |= CLASSES
        self.decisions = self.restarted()

    def restarted(self) -> Decisions:
        """Another that knows no more than the view."""
        return Decisions(self.view, clock=self.clock, patience_seconds=self.patience_seconds)

    def storage_class(
        self,
        name: str,
        of: str,
        *,
        binds: str = BINDS_LATE,
        annotations: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self.view.put(
            StorageClass(
                metadata=Meta(name=name, annotations=dict(annotations or {})),
                provisioner=DRIVER,
                parameters={CLASS_KEY: of, **(parameters or {})},
                volume_binding_mode=binds,
            )
        )

    def node(self, name: str, *pools: Pool, revision: int = 10) -> None:
        """A node whose agent reports these pools."""
        status = StorageStatus(
            revision=revision, observed_at=timestamp(NOW), pools=tuple(pool_status(each, 0) for each in pools)
        )
        self.view.put(NodeStorage(metadata=Meta(name=name), status=status))

    def nodes(self, *gib: int) -> list[str]:
        """So many, with one volume group each."""
        names = [f"n{number}" for number in range(1, len(gib) + 1)]
        for name, each in zip(names, gib, strict=True):
            self.node(name, thick("vg0", each))
        return names

    def claim(  # noqa: PLR0913 - what a claim can say
        self,
        name: str,
        size: str = "10Gi",
        storage_class: str | None = "fast",
        *,
        chosen: str = "",
        bound: str = "",
        mode: str = "",
        source: wire.DataSource | None = None,
        uid: str = "",
    ) -> Claim:
        """A claim, new or changed."""
        made = Claim(
            metadata=Meta(
                namespace="default",
                name=name,
                uid=uid or f"uid-of-{name}",
                annotations={SELECTED_NODE: chosen} if chosen else {},
            ),
            spec=ClaimSpec(
                storage_class_name=storage_class,
                volume_name=bound,
                volume_mode=mode,
                resources=Requests(requests={"storage": size} if size else {}),
                data_source=source,
            ),
        )
        self.view.put(made)
        return made

    def pod(self, name: str, *sizes: str, storage_class: str = "fast") -> Pod:
        """A Pod with a claim for each size, `<name>-0` and so on; both are there."""
        claims = [f"{name}-{number}" for number in range(len(sizes))]
        for claim, size in zip(claims, sizes, strict=True):
            self.claim(claim, size, storage_class)
        made = pod(name, *claims)
        self.view.put(made)
        return made

    def choose(self, name: str, node: str) -> None:
        """What kube-scheduler does once it has decided: the claim says where."""
        self._change(name, {SELECTED_NODE: node})

    def unchoose(self, name: str) -> None:
        """What external-provisioner does when there was no room."""
        self._change(name, {})

    def bind(self, name: str) -> None:
        known = self.view.claims["default", name]
        self.view.put(altered(known, spec=altered(known.spec, volume_name=f"pvc-{known.metadata.uid}")))

    def order(  # noqa: PLR0913 - what an order can say
        self,
        claim: str,
        node: str,
        size_bytes: int,
        *,
        phase: Phase = Phase.PENDING,
        revision: int = 0,
        pool: str = "vg0",
        device_class: str = "fast",
    ) -> LogicalVolume:
        """What the controller does with a claim for which a node has been chosen."""
        made = LogicalVolume(
            metadata=Meta(name=f"pvc-uid-of-{claim}"),
            spec=Spec(
                node_name=node,
                device_class=device_class,
                size_bytes=size_bytes,
                claim_ref=ClaimRef(namespace="default", name=claim, uid=f"uid-of-{claim}"),
            ),
            status=Status(
                phase=phase,
                pool=pool if phase is Phase.READY else "",
                size_bytes=size_bytes if phase is Phase.READY else 0,
                revision=revision,
            ),
        )
        self.view.put(made)
        return made

    def fitting(self, of: Pod, nodes: Sequence[str]) -> list[str]:
        return self.decisions.filter(of, nodes).fitting

    def _change(self, name: str, annotations: dict[str, str]) -> None:
        known = self.view.claims["default", name]
        self.view.put(altered(known, metadata=altered(known.metadata, annotations=annotations)))
