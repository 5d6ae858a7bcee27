"""What the loops ask of `ullage.kube.events.Events`."""

from __future__ import annotations

from typing import Protocol

from ullage.kube.foreign import ObjectReference
from ullage.kube.meta import KubeObject, Resource


class Telling(Protocol):
    """Has events written; never raises, never waits."""

    def tell(
        self, about: ObjectReference, *, reason: str, message: str, is_warning: bool = False, action: str = ""
    ) -> None:
        """Have one written."""


def reference(resource: Resource, about: KubeObject) -> ObjectReference:
    """The object, as an event names it."""
    meta = about.metadata
    return ObjectReference(
        api_version=resource.api_version, kind=resource.kind, namespace=meta.namespace, name=meta.name, uid=meta.uid
    )
