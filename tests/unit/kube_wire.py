"""An API server by script: a `Transport` that plays pages and watches, for what a well-behaved one would not do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec

from ullage.errors import ApiError, ApiUnavailableError, UllageError
from ullage.kube.connection import JSON
from ullage.kube.informer import Informer
from ullage.kube.meta import Meta, Resource
from ullage.kube.reader import SILENCE_SECONDS

ENOUGH = 10.0
THINGS = Resource(group="example.org", version="v1", plural="things", kind="Thing")


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Meta
    size: int = 0
    colour: str = ""


def thing(name: str, version: int, **fields: object) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version), "uid": name}, **fields}


def page(version: int, *items: object, then: str = "") -> bytes:
    return msgspec.json.encode({"metadata": {"resourceVersion": str(version), "continue": then}, "items": items})


def event(kind: str, of: object) -> bytes:
    return msgspec.json.encode({"type": kind, "object": of})


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class Silent(UllageError):  # noqa: N818 - no error: a step of a script
    """Nothing comes until the stream is given up."""


class Open(UllageError):  # noqa: N818 - the same
    """Nothing comes until the stream is ended from outside."""


Step = bytes | UllageError | Callable[[], object]


class Wire:
    """A `Transport` that plays what it is told: pages in turn, and watches of lines and failures in turn.

    A watch ends well after its last step. When the script is over, watches stay open and say nothing.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.pages: list[bytes | UllageError] = []
        self.watches: list[list[Step]] = []
        self.asked: list[Mapping[str, str]] = []
        self.ended = threading.Event()
        self._asked = threading.Condition()

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
        del body, content_type, timeout_seconds
        assert (method, path) == ("GET", "/apis/example.org/v1/things")
        answer = self.pages.pop(0) if self.pages else ApiUnavailableError("the script is over")
        self._note(query)
        if isinstance(answer, UllageError):
            raise answer
        return answer

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        assert (path, silence_seconds) == ("/apis/example.org/v1/things", SILENCE_SECONDS)
        steps: list[Step] = self.watches.pop(0) if self.watches else [Open("")]
        self._note(query)
        if steps and isinstance(steps[0], ApiError | ApiUnavailableError):
            raise steps[0]
        yield Lines(self._play(steps), self.ended.set)

    def wait_until_asked(self, times: int) -> None:
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.asked) >= times, ENOUGH), self.asked

    def _play(self, steps: list[Step]) -> Iterator[bytes]:
        for step in steps:
            match step:
                case bytes():
                    yield step
                case Silent():
                    self.now += SILENCE_SECONDS
                    raise ApiUnavailableError("no answer in time")
                case Open():
                    self.ended.wait()
                case UllageError():
                    raise step
                case _:
                    step()

    def _note(self, query: Mapping[str, str]) -> None:
        with self._asked:
            self.asked.append(query)
            self._asked.notify_all()


class Lines:
    def __init__(self, lines: Iterator[bytes], end: Callable[[], None]) -> None:
        self._lines = lines
        self.end = end

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._lines)


def sizes(things: Informer[Thing]) -> dict[str, int]:
    return {each.metadata.name: each.size for each in things.all()}


def wait(things: Informer[Thing], name: str, size: int | None) -> None:
    """Until it has this size, or is gone."""
    found = things.wait(name, lambda each: (each.size if each else None) == size, ENOUGH)
    assert (found.size if found else None) == size
