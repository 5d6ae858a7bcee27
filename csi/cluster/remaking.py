"""Carries out what `csi.cluster.recovery` has planned.

The LogicalVolumes first, and each PersistentVolume when the agent has taken its volume over. In that order
external-provisioner never finds a PersistentVolume whose volume seems to be gone already. A run that is cut off is gone
on with by the next one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from csi.cluster.recovery import Cluster, Rebuilt, Refusal
from ullage.errors import ApiExistsError, ConfigError, ConflictError, StillRunningError, UllageError
from ullage.kube.api import Api
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import Claim, PersistentVolume, StorageClass
from ullage.kube.listing import everything
from ullage.kube.logical_volume import READY, LogicalVolume, Phase
from ullage.kube.meta import (
    CLAIMS,
    DEVICE_CLASSES,
    LOGICAL_VOLUMES,
    NODE_STORAGES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
)
from ullage.kube.node_storage import NodeStorage
from ullage.model import DeviceClass, DeviceClassName

POLL_SECONDS = 0.5


def look(api: Api) -> Cluster:
    """What there is now; raises ApiError, ApiUnavailableError."""
    storages = tuple(everything(api, NODE_STORAGES, NodeStorage))
    volumes = tuple(everything(api, LOGICAL_VOLUMES, LogicalVolume))
    named = {
        (each.claim_namespace, each.claim_name)
        for storage in storages
        for each in storage.status.orphans
        if each.claim_name
    } | {(each.spec.claim_ref.namespace, each.spec.claim_ref.name) for each in volumes if each.spec.claim_ref}
    claims = {
        (each.metadata.namespace, each.metadata.name): each
        for each in everything(api, CLAIMS, Claim)
        if (each.metadata.namespace, each.metadata.name) in named
    }
    return Cluster(
        storages=storages,
        volumes=volumes,
        persistent_volumes=tuple(everything(api, PERSISTENT_VOLUMES, PersistentVolume)),
        storage_classes=tuple(everything(api, STORAGE_CLASSES, StorageClass)),
        classes=_classes(api),
        claims=claims,
        now=datetime.now(UTC),
    )


def remake(
    api: Api,
    rebuilt: Sequence[Rebuilt],
    *,
    timeout_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[Refusal]:
    """Make them; the answer is what could not be made, and why."""
    refusals: list[Refusal] = []
    made: list[Rebuilt] = []
    for each in rebuilt:
        try:
            if each.logical_volume is not None:
                api.create(LOGICAL_VOLUMES, each.logical_volume)
            made.append(each)
        except UllageError as failure:
            refusals.append(_refusal(each, failure))
    deadline = clock() + timeout_seconds
    for each in made:
        try:
            while not _is_taken_over(api, each):
                if clock() >= deadline:
                    raise StillRunningError(f"the agent of node {each.node} has not taken it over yet; run this again")
                sleep(POLL_SECONDS)
            if each.persistent_volume is not None:
                with suppress(ApiExistsError):  # another run was faster
                    api.create(PERSISTENT_VOLUMES, each.persistent_volume.body)
        except UllageError as failure:
            refusals.append(_refusal(each, failure))
    return refusals


def _is_taken_over(api: Api, rebuilt: Rebuilt) -> bool:
    """Whether its agent says that the volume is there; raises ConflictError when it says that it is not."""
    found = msgspec.json.decode(api.get(LOGICAL_VOLUMES, rebuilt.volume_id), type=LogicalVolume)
    problem = found.problem(READY)
    if found.status.phase is Phase.FAILED:
        raise ConflictError(
            f"the agent of node {found.node} refuses it: {problem.message if problem else 'no word why'}"
        )
    return found.is_ready and problem is None


def _classes(api: Api) -> dict[DeviceClassName, DeviceClass]:
    """Those that can be read; of the others no volume is made anew."""
    classes = {}
    for each in everything(api, DEVICE_CLASSES, DeviceClassObject):
        with suppress(ConfigError):
            classes[each.device_class.name] = each.device_class
    return classes


def _refusal(rebuilt: Rebuilt, failure: UllageError) -> Refusal:
    return Refusal(name=rebuilt.volume_id, node=rebuilt.node, sentence=str(failure))
