"""What every RPC has: its arguments checked first, one call at a time for a volume, a code for each error, a log line.

    @rpc(requests.stage, is_change=True)
    def NodeStageVolume(self, order: Stage, patience_seconds: float) -> NodeStageVolumeResponse: ...

`requests.stage` makes an order of the message, and raises InvalidRequestError before anything is locked or looked up.
A change holds its volume: a second one meanwhile is ABORTED, which the sidecars and kubelet take for "in progress". The
lock goes with the call's thread, not with its caller: when kubelet's two minutes are over, mkfs goes on and keeps it.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc

from csi.status import code_of
from ullage.errors import PendingOperationError, UllageError
from ullage.model import VolumeId
from ullage.rpc import patience, short

if TYPE_CHECKING:
    Context = grpc.ServicerContext

log = logging.getLogger(__name__)


class Order(Protocol):
    """What a message asks for, checked."""

    @property
    def volume_id(self) -> VolumeId:
        """The volume it is about; empty for what is about none."""


Message = TypeVar("Message")
Asked = TypeVar("Asked", bound=Order)
Response = TypeVar("Response")


class Calls:
    """What all RPCs of a process share: who is at work on which volume, and who is told how each call ended."""

    def __init__(self, observe: Callable[[str, str, float], None] = lambda *_: None) -> None:
        """`observe(rpc, code, seconds)` is for metrics."""
        self.observe = observe
        self._guard = threading.Lock()
        self._busy: dict[VolumeId, tuple[str, float]] = {}

    @contextmanager
    def alone(self, volume_id: VolumeId, rpc: str) -> Iterator[None]:
        """Be the only change of this volume; raises PendingOperationError saying what is under way."""
        with self._guard:
            if volume_id in self._busy:
                name, since = self._busy[volume_id]
                raise PendingOperationError(
                    f"{name} of {volume_id} has been under way for {time.monotonic() - since:.0f} s; "
                    f"{rpc} has to wait for it: ask again",
                    volume_id=volume_id,
                )
            self._busy[volume_id] = (rpc, time.monotonic())
        try:
            yield
        finally:
            with self._guard:
                del self._busy[volume_id]

    def under_way(self) -> int:
        """How many volumes are being worked on."""
        with self._guard:
            return len(self._busy)


def not_offered(request: object, context: Context) -> Any:  # noqa: ANN401 - it never answers
    """An RPC of a service that this driver has no use for: the generated base would log a traceback for each call."""
    del request
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "This driver does not offer it; its capabilities say what there is")


class Servicer(Protocol):
    """A service whose methods are RPCs."""

    calls: Calls


@contextmanager
def _told(calls: Calls, name: str, context: Context, level: int) -> Iterator[dict[str, object]]:
    """Observe and log once how a call ends, and answer its error with a code; what is learnt of it is for the line."""
    started = time.monotonic()
    facts: dict[str, object] = {"rpc": name}

    def ended(code: grpc.StatusCode) -> None:
        facts["seconds"] = round(time.monotonic() - started, 3)
        calls.observe(name, code.name, time.monotonic() - started)

    try:
        yield facts
    except UllageError as error:
        code = code_of(error)
        ended(code)
        severity = logging.ERROR if code is grpc.StatusCode.INTERNAL else logging.WARNING
        log.log(severity, "rpc refused", extra={**facts, "reason": error.reason, "why": str(error)})
        context.abort(code, short(str(error)))
    except GeneratorExit:  # of a stream, when its caller has gone: nobody is left to be answered
        ended(grpc.StatusCode.CANCELLED)
        log.log(level, "rpc cancelled", extra=facts)
        raise
    except Exception as error:  # the top of a request: nobody above could log it
        ended(grpc.StatusCode.INTERNAL)
        log.exception("rpc failed", extra=facts)
        context.abort(grpc.StatusCode.INTERNAL, short(f"{type(error).__name__}: {error}"))
    else:
        ended(grpc.StatusCode.OK)
        log.log(level, "rpc served", extra=facts)


def rpc(
    order_of: Callable[[Message], Asked], *, is_change: bool = False
) -> Callable[[Callable[[Any, Asked, float], Response]], Callable[[Any, Message, Context], Response]]:
    """Make an RPC of a method that takes a checked order and the seconds its caller will wait."""

    def decorate(method: Callable[[Any, Asked, float], Response]) -> Callable[[Any, Message, Context], Response]:
        name = method.__name__

        @functools.wraps(method)
        def served(self: Servicer, request: Message, context: Context) -> Response:
            with _told(self.calls, name, context, logging.INFO if is_change else logging.DEBUG) as facts:
                order = order_of(request)
                facts["volume_id"] = order.volume_id
                with self.calls.alone(order.volume_id, name) if is_change else nullcontext():
                    response = method(self, order, patience(context))
            return response

        return served

    return decorate


def stream(
    order_of: Callable[[Message], Asked],
) -> Callable[[Callable[[Any, Asked], Iterator[Response]]], Callable[[Any, Message, Context], Iterator[Response]]]:
    """Make an RPC of a generator that takes a checked order and yields its answers one by one; it changes nothing.

    When its caller goes away, the generator is closed where it stands.
    """

    def decorate(
        method: Callable[[Any, Asked], Iterator[Response]],
    ) -> Callable[[Any, Message, Context], Iterator[Response]]:
        name = method.__name__

        @functools.wraps(method)
        def served(self: Servicer, request: Message, context: Context) -> Iterator[Response]:
            with _told(self.calls, name, context, logging.DEBUG) as facts:
                order = order_of(request)
                facts["volume_id"] = order.volume_id
                yield from method(self, order)

        return served

    return decorate
