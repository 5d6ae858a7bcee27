"""What a Pod asks of its node: the volumes that are still to be made for it, and where those that there are hold it.

Only claims of ours count. One of another driver, a static one, or one that is bound as soon as it is made, asks for
nothing here and refuses nothing: kube-scheduler and its driver see to those. Pure: Pod and view in, demand out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from scheduler_extender.objects import Claim
from scheduler_extender.view import View
from scheduler_extender.wire import ClaimSpec, ClaimTemplate, DataSource, Pod
from ullage.capacity import cow_step_bytes
from ullage.errors import InvalidRequestError
from ullage.kube.logical_volume import LogicalVolume, Phase
from ullage.kube.meta import Key, Meta
from ullage.model import DeviceClass, DeviceClassName, DeviceType, Layout, PoolName, VolumeKind
from ullage.quantity import parse_bytes
from ullage.stock import COPIED_WITHIN
from ullage.storage_classes import BINDS_LATE, least_bytes

IS_DEFAULT = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
"""Annotations of the StorageClass that a claim without one has."""
SNAPSHOT_GROUP = "snapshot.storage.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """One volume that is to be made; `pool` is the only one that it may be in, where there is such a one."""

    claim: Key
    device_class: DeviceClassName
    size_bytes: int
    layout: Layout = field(default_factory=Layout)
    pool: PoolName | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The one node that a Pod can go to, and why."""

    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """All that a Pod asks for. With a `problem` no node is right; `unseen` are claims that are not known (yet)."""

    wants: tuple[Want, ...] = ()
    pins: tuple[Pin, ...] = ()
    problem: str = ""
    unseen: tuple[str, ...] = ()
    chosen: frozenset[Key] = frozenset()
    """Those claims of `wants` for which a node has been chosen."""

    @property
    def is_nothing(self) -> bool:
        """Whether every node will do."""
        return not (self.wants or self.pins or self.problem or self.unseen)


def needs_of(pod: Pod, view: View) -> Needs:
    """What the Pod asks for; the caller holds the view's lock."""
    found = [_needs(pod, name, template, view) for name, template in pod.claims]
    if len(found) == 1:
        return found[0]
    return Needs(
        wants=tuple(want for each in found for want in each.wants),
        pins=tuple(dict.fromkeys(pin for each in found for pin in each.pins)),
        problem=next((each.problem for each in found if each.problem), ""),
        unseen=tuple(name for each in found for name in each.unseen),
        chosen=frozenset(key for each in found for key in each.chosen),
    )


def claim_of(pod: Pod, name: str, template: ClaimTemplate | None, view: View) -> Claim | None:
    """A claim of the Pod as it is, or as it will be made for it."""
    found = view.claims.get((pod.metadata.namespace, name))
    if found is not None or template is None:
        return found
    said = template.metadata
    meta = Meta(namespace=pod.metadata.namespace, name=name, labels=said.labels, annotations=said.annotations)
    return Claim(metadata=meta, spec=template.spec)


def wants_of(claim: Claim, view: View) -> tuple[Want, ...]:
    """What a claim takes of the node that its volume is to be made on; nothing of one that is not ours, or nonsense."""
    try:
        return _new(claim, view).wants
    except InvalidRequestError:
        return ()


def is_late(spec: ClaimSpec, view: View) -> bool:
    """Whether its volume is made by us, and where its first Pod goes."""
    found = view.storage_classes.get(storage_class_of(spec, view))
    return found is not None and view.is_ours(found.metadata.name) and found.volume_binding_mode == BINDS_LATE


def storage_class_of(spec: ClaimSpec, view: View) -> str:
    """The class of a claim, or else the default one; of two of these the newer, as kube-apiserver does it; "": none."""
    if spec.storage_class_name is not None:
        return spec.storage_class_name
    metas = (each.metadata for each in view.storage_classes.values())
    newest = max(_defaults(metas), key=lambda meta: (meta.creation_timestamp, meta.name), default=None)
    return "" if newest is None else newest.name


def _needs(pod: Pod, name: str, template: ClaimTemplate | None, view: View) -> Needs:
    key = (pod.metadata.namespace, name)
    claim = claim_of(pod, name, template, view)
    if claim is None:
        return Needs(unseen=(name,))
    order = view.order_of(claim)
    if claim.spec.volume_name or not is_late(claim.spec, view):
        return _held(claim, order) if claim.spec.volume_name and order is not None else Needs()
    chosen = claim.selected_node
    if chosen and order is not None and not order.is_condemned and order.status.phase is not Phase.FAILED:
        return _held(claim, order)
    try:
        needs = _new(claim, view)
    except InvalidRequestError as nonsense:
        return Needs(problem=f"claim {name}: {nonsense}")
    if not chosen:
        return needs
    pin = Pin(node=chosen, why=f"its claim {name} is to be made on {chosen}")
    return replace(needs, pins=(pin, *needs.pins), chosen=frozenset((key,)))


def _held(claim: Claim, order: LogicalVolume) -> Needs:
    node = order.spec.node_name
    return Needs(pins=(Pin(node=node, why=f"its claim {claim.metadata.name} is on {node}"),))


def _new(claim: Claim, view: View) -> Needs:
    """What a volume that is to be made asks for; raises InvalidRequestError (a size that is none)."""
    storage_class = storage_class_of(claim.spec, view)
    if not view.is_ours(storage_class):
        return Needs()
    name = claim.metadata.name
    device_class = view.device_class(storage_class)
    if device_class is None:
        return Needs(problem=f"claim {name}: StorageClass {storage_class} names no DeviceClass that there is")
    is_block = claim.spec.volume_mode == "Block"
    least = least_bytes(view.storage_classes[storage_class].parameters, is_block=is_block)
    source = _source(claim)
    if source is None:
        return Needs(wants=(_want(claim, device_class, max(least, _size_bytes(claim))),))
    origin = _origin(source, claim, view)
    if origin is None:
        return Needs(problem=f"claim {name}: its source, {source.kind} {source.name}, is not there yet")
    size_bytes = max(least, _size_bytes(claim, origin.status.size_bytes), origin.status.size_bytes)
    pin = Pin(node=origin.spec.node_name, why=f"{source.kind} {source.name} is on {origin.spec.node_name}")
    wants = tuple(_copies(_want(claim, device_class, size_bytes), device_class, origin, view))
    return Needs(wants=wants, pins=(pin,))


def _want(claim: Claim, device_class: DeviceClass, size_bytes: int) -> Want:
    return Want(
        claim=(claim.metadata.namespace, claim.metadata.name),
        device_class=device_class.name,
        size_bytes=size_bytes,
        layout=device_class.layout,
    )


def _copies(want: Want, device_class: DeviceClass, origin: LogicalVolume, view: View) -> Iterator[Want]:
    """A volume that begins as another: in the same pool, or with a snapshot beside it while it is filled."""
    pool = view.candidate(origin.spec.node_name).pools.get(origin.pool or PoolName(""))
    if pool is None:
        yield want
    elif pool.type in COPIED_WITHIN:
        yield replace(want, pool=pool.name)
    else:
        yield want
        if pool.type is DeviceType.THICK and origin.spec.kind is VolumeKind.VOLUME:
            aside = cow_step_bytes(device_class.snapshots, pool.extent_bytes, origin.status.size_bytes)
            yield replace(want, size_bytes=aside, layout=Layout(), pool=pool.name)


def _size_bytes(claim: Claim, otherwise_bytes: int = 0) -> int:
    said = claim.spec.resources.requests.get("storage", "")
    size_bytes = parse_bytes(said) if said else 0
    if size_bytes < 0 or not (size_bytes or otherwise_bytes):
        raise InvalidRequestError(f"{said or 'no size'} is asked for: it must be more than nothing")
    return size_bytes or otherwise_bytes


def _defaults(metas: Iterable[Meta]) -> Iterator[Meta]:
    return (meta for meta in metas if any(meta.annotations.get(each) == "true" for each in IS_DEFAULT))


def _source(claim: Claim) -> DataSource | None:
    """What it begins as, if that is a claim or a snapshot; whatever else there is to begin as is another's work."""
    found = claim.spec.data_source_ref or claim.spec.data_source
    if found is None:
        return None
    is_claim = not found.api_group and found.kind == "PersistentVolumeClaim"
    is_snapshot = found.api_group == SNAPSHOT_GROUP and found.kind == "VolumeSnapshot"
    return found if is_claim or is_snapshot else None


def _origin(source: DataSource, claim: Claim, view: View) -> LogicalVolume | None:
    key = (source.namespace or claim.metadata.namespace, source.name)
    if source.api_group == SNAPSHOT_GROUP:
        return view.snapshot(key)
    found = view.claims.get(key)
    return None if found is None else view.order_of(found)
