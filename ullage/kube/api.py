"""Calls on Kubernetes objects: get, create, patch, delete, a page of a list, a watch. Bytes come back; Structs go in.

Nothing is repeated here: a caller knows whether a second try may do harm. Raises what `connection.Transport` raises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from enum import StrEnum

import msgspec

from ullage.kube.connection import Transport
from ullage.kube.meta import Resource

REQUEST_SECONDS = 30.0
PAGE_OBJECTS = 500


class PatchKind(StrEnum):
    """How a patch is read; the values are their content types."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"
    """JSON is YAML."""


class Api:
    """Thread-safe."""

    def __init__(self, transport: Transport, *, request_seconds: float = REQUEST_SECONDS) -> None:
        """`connection.connect` makes a transport."""
        self._transport = transport
        self._request_seconds = request_seconds

    def within(self, request_seconds: float) -> Api:
        """The same for a caller with less patience; a request may take this long to answer, besides connecting."""
        return Api(self._transport, request_seconds=request_seconds)

    def get(self, resource: Resource, name: str, *, namespace: str = "") -> bytes:
        """One object; raises ApiNotFoundError."""
        return self._call("GET", resource.path(name, namespace=namespace))

    def create(self, resource: Resource, body: object, *, namespace: str = "") -> bytes:
        """The object as it was made; raises ApiExistsError, ApiInvalidError."""
        return self._call("POST", resource.path(namespace=namespace), body=body)

    def patch(  # noqa: PLR0913 - as a patch has parts
        self,
        resource: Resource,
        name: str,
        body: object,
        *,
        namespace: str = "",
        subresource: str = "",
        kind: PatchKind = PatchKind.MERGE,
    ) -> bytes:
        """The object as it is now; raises ApiNotFoundError, ApiInvalidError.

        With `metadata.resourceVersion` in the body, ApiConflictError when the object has changed since.
        """
        path = resource.path(name, namespace=namespace, subresource=subresource)
        return self._call("PATCH", path, body=body, content_type=kind)

    def apply(self, resource: Resource, name: str, body: object, *, manager: str) -> bytes:
        """The object with the fields of the body, made if it is not there; raises ApiInvalidError.

        The fields are the manager's from then on, also those that were somebody else's; what was the manager's and is
        not in the body is taken off. What others have set besides stays.
        """
        query = {"fieldManager": manager, "force": "true"}
        return self._call("PATCH", resource.path(name), query, body=body, content_type=PatchKind.APPLY)

    def replace(self, resource: Resource, name: str, body: object, *, namespace: str = "") -> bytes:
        """The object as it is now; raises ApiNotFoundError, ApiConflictError (changed since), ApiInvalidError."""
        return self._call("PUT", resource.path(name, namespace=namespace), body=body)

    def delete(
        self, resource: Resource, name: str, *, namespace: str = "", uid: str = "", resource_version: str = ""
    ) -> None:
        """Ask that it go; with a finalizer it is there until that is taken off.

        Raises ApiNotFoundError, and ApiConflictError: with `uid` when this is another one of the same name, with
        `resource_version` when it has changed since it was read.
        """
        conditions = {"uid": uid, "resourceVersion": resource_version}
        conditions = {key: value for key, value in conditions.items() if value}
        body = {"preconditions": conditions} if conditions else None
        self._call("DELETE", resource.path(name, namespace=namespace), body=body)

    def page(
        self,
        resource: Resource,
        *,
        namespace: str = "",
        selectors: Mapping[str, str] | None = None,
        after: str = "",
    ) -> bytes:
        """Up to PAGE_OBJECTS objects; `after` is the last page's `metadata.continue`.

        `selectors` are the query's `fieldSelector` and `labelSelector`. Raises ApiGoneError when the continuation is
        too old.
        """
        query = {**(selectors or {}), "limit": str(PAGE_OBJECTS), **({"continue": after} if after else {})}
        return self._call("GET", resource.path(namespace=namespace), query)

    def watch(  # noqa: PLR0913 - as a watch has parts
        self,
        resource: Resource,
        *,
        namespace: str = "",
        selectors: Mapping[str, str] | None = None,
        since: str,
        seconds: int,
        silence_seconds: float,
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Events after the resource version `since`, bookmarks among them, one a line, for at most `seconds`.

        Raises ApiGoneError (at once, or as an event of type ERROR) when `since` is too old.
        """
        query = {
            **(selectors or {}),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(seconds),
        }
        return self._transport.lines(resource.path(namespace=namespace), query, silence_seconds=silence_seconds)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: object = None,
        content_type: str = "application/json",
    ) -> bytes:
        return self._transport.request(
            method,
            path,
            query or {},
            None if body is None else msgspec.json.encode(body),
            content_type=content_type,
            timeout_seconds=self._request_seconds,
        )
