"""Every object of a kind as it is now, once; whoever has to know how it goes on keeps an informer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from ullage.errors import ApiError
from ullage.kube.api import Api
from ullage.kube.meta import Resource

Found = TypeVar("Found")


class _ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct, frozen=True):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


_PAGES = msgspec.json.Decoder(_Page)


def everything(
    api: Api, resource: Resource, kind: type[Found], *, namespace: str = "", selectors: Mapping[str, str] | None = None
) -> Iterator[Found]:
    """All of them, page by page; raises ApiError, also for one that is not as `kind` says: half a list is none."""
    decoder = msgspec.json.Decoder(kind)
    after = ""
    while True:
        page = _PAGES.decode(api.page(resource, namespace=namespace, selectors=selectors, after=after))
        for item in page.items or ():
            try:
                yield decoder.decode(item)
            except msgspec.DecodeError as error:
                raise ApiError(f"a {resource.kind} that cannot be understood: {error}") from error
        after = page.metadata.continue_
        if not after:
            return
