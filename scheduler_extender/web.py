"""The extender on HTTP: kube-scheduler's verbs, and the page that explains.

Here bytes become Structs and failures become statuses, in one table each way. kube-scheduler takes only 200 for an
answer: anything else is a failed attempt for the Pod that is tried again, and a wrong answer would be one for good. So
nothing is answered 200 that was not decided.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from http import HTTPStatus
from typing import Protocol

import msgspec
from flask import Flask, Response, current_app, request
from werkzeug.exceptions import HTTPException, LengthRequired, MethodNotAllowed, NotFound

from scheduler_extender.metrics import RequestMetrics
from scheduler_extender.wire import (
    ExtenderArgs,
    FilterResult,
    HostPriority,
    NodeHead,
    NodeList,
    Pod,
    PreemptionArgs,
    PreemptionResult,
    decoded,
)
from ullage.errors import MIB, InvalidRequestError, NotFoundError, UllageError, UnavailableError
from ullage.model import Problem
from ullage.serve import TEXT

JSON = "application/json"
BODY_LIMIT_BYTES = 128 * MIB
"""5,000 whole Node objects are 71 MB, and all 15,000 names of a large cluster with their Pod 2 MB at most."""
LARGE_BODY_BYTES = 8 * MIB
"""Beyond this, bodies are taken one after the other: whatever is sent, memory for one of them is enough."""
VERIFIED = "SUCCESS"

log = logging.getLogger(__name__)


class Verdict(Protocol):
    """What filter comes to."""

    @property
    def fitting(self) -> list[str]:
        """The nodes that have room, in the order in which they were asked about."""

    @property
    def refused(self) -> Mapping[str, str]:
        """Of each other node, why not."""


class Deciding(Protocol):
    """Who knows; `Decisions` is the real one. All may be called from several threads."""

    def filter(self, pod: Pod, nodes: Sequence[str]) -> Verdict:
        """Which of the nodes have room, and why the others have not; may wait a moment."""

    def prioritize(self, pod: Pod, nodes: Sequence[str]) -> list[int]:
        """How good each node is, 0 to `MOST_SCORE`."""

    def preempt(self, pod: Pod, nodes: Iterable[str]) -> set[str]:
        """The nodes where eviction can help."""


class Explaining(Protocol):
    """Says of a Pod what was decided and why, node by node."""

    def __call__(self, namespace: str, name: str, *, as_json: bool) -> str:
        """The whole answer; raises NotFoundError when there is no such Pod."""


class NotSyncedError(UnavailableError):
    """Not everything is known yet: an answer would be a guess."""

    reason = "Starting"


class CertificateMissingError(UllageError):
    """Only who shows a certificate of the right authority is answered, and this client has shown none."""

    reason = "CertificateMissing"


Answer = Callable[[bytes], bytes]
"""What a verb says to a body; raises what the table below knows."""


class Verbs:
    """Each verb as a function from body to body."""

    def __init__(self, deciding: Deciding, metrics: RequestMetrics) -> None:
        """Decoders know their types once and for all."""
        self._deciding = deciding
        self._metrics = metrics
        self._asked = msgspec.json.Decoder(ExtenderArgs)
        self._evicting = msgspec.json.Decoder(PreemptionArgs)
        self._head = msgspec.json.Decoder(NodeHead)
        self._encode = msgspec.json.Encoder().encode

    def filter(self, body: bytes) -> bytes:
        """Names are answered by names, whole Nodes by whole Nodes, as they came."""
        asked = decoded(self._asked, body)
        if asked.node_names is not None:
            verdict = self._verdict(asked.pod, asked.node_names)
            result = FilterResult(node_names=verdict.fitting, failed_and_unresolvable_nodes=dict(verdict.refused))
        else:
            nodes = self._by_name(asked)
            verdict = self._verdict(asked.pod, list(nodes))
            kept = NodeList(items=[nodes[name] for name in verdict.fitting])
            result = FilterResult(nodes=kept, failed_and_unresolvable_nodes=dict(verdict.refused))
        return self._encode(result)

    def prioritize(self, body: bytes) -> bytes:
        """A score for every node that was named."""
        asked = decoded(self._asked, body)
        names = asked.node_names if asked.node_names is not None else list(self._by_name(asked))
        self._metrics.asked("prioritize", len(names))
        scores = self._deciding.prioritize(asked.pod, names)
        return self._encode([HostPriority(host=name, score=score) for name, score in zip(names, scores, strict=True)])

    def preempt(self, body: bytes) -> bytes:
        """The nodes where eviction helps, with their victims as they came."""
        asked = decoded(self._evicting, body)
        victims = asked.victims
        self._metrics.asked("preempt", len(victims))
        kept = self._deciding.preempt(asked.pod, victims)
        return self._encode(
            PreemptionResult(node_name_to_meta_victims={node: each for node, each in victims.items() if node in kept})
        )

    def _verdict(self, pod: Pod, names: list[str]) -> Verdict:
        self._metrics.asked("filter", len(names))
        verdict = self._deciding.filter(pod, names)
        self._metrics.decided(verdict.refused, is_unplaced=not verdict.fitting)
        return verdict

    def _by_name(self, asked: ExtenderArgs) -> dict[str, msgspec.Raw]:
        if asked.nodes is None:
            raise InvalidRequestError("neither NodeNames nor Nodes: which nodes are meant is not said")
        return {decoded(self._head, each).metadata.name: each for each in asked.nodes.items or ()}


def application(  # noqa: PLR0913 - what this wires together
    deciding: Deciding,
    metrics: RequestMetrics,
    *,
    problem: Callable[[], Problem | None],
    explain: Explaining | None = None,
    mutate: Answer | None = None,
    needs_certificate: bool = False,
) -> Flask:
    """The verbs as a WSGI application; 503 while there is a `problem`. The webhook, `mutate`, answers then, too.

    With `needs_certificate` the rest answers only clients whose certificate was verified. The API server shows none to
    a webhook, and is told nothing there that it does not know.
    """
    app = Flask(__name__, static_folder=None)
    verbs = Verbs(deciding, metrics)
    large = threading.Lock()

    def route(verb: str, method: str, respond: Callable[[], Response], *, is_open: bool = False) -> None:
        def view() -> Response:
            started = time.perf_counter()
            try:
                if not is_open:
                    _admit(needs_certificate=needs_certificate, found=problem())
                reply = respond()
            except Exception as failure:  # noqa: BLE001 - the edge: each becomes a status, in one place
                reply = refusal(failure)
            metrics.answered(verb, reply.status_code, time.perf_counter() - started)
            return reply

        app.add_url_rule(f"/{verb}", verb, view, methods=[method], provide_automatic_options=False)

    def route_body(verb: str, answer: Answer, *, is_open: bool = False) -> None:
        def respond() -> Response:
            length_bytes = _length_bytes()
            with large if length_bytes > LARGE_BODY_BYTES else nullcontext():
                body = request.environ["wsgi.input"].read(length_bytes) if length_bytes else b""
                return Response(answer(body), content_type=JSON)

        route(verb, "POST", respond, is_open=is_open)

    route_body("filter", verbs.filter)
    route_body("prioritize", verbs.prioritize)
    route_body("preempt", verbs.preempt)
    if mutate is not None:
        route_body("mutate", mutate, is_open=True)
    if explain is not None:
        route("explain", "GET", partial(_explanation, explain))
    app.register_error_handler(Exception, refusal)
    return app


def refusal(failure: Exception) -> Response:
    """Everything that is not an answer, as a status and a sentence."""
    headers: dict[str, str] = {}
    why = str(failure)
    match failure:
        case MethodNotAllowed():
            allowed = ", ".join(sorted(failure.valid_methods or ()))
            status, why = HTTPStatus.METHOD_NOT_ALLOWED, f"only {allowed}"
            headers["Allow"] = allowed
        case NotFound():
            paths = ", ".join(sorted(rule.rule for rule in current_app.url_map.iter_rules()))
            status, why = HTTPStatus.NOT_FOUND, f"nothing here; there is {paths}"
        case HTTPException():
            status, why = HTTPStatus(failure.code or HTTPStatus.BAD_REQUEST), failure.description or failure.name
        case InvalidRequestError():
            status = HTTPStatus.BAD_REQUEST
        case CertificateMissingError():
            status = HTTPStatus.FORBIDDEN
        case NotFoundError():
            status = HTTPStatus.NOT_FOUND
        case TimeoutError():
            status, why = HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time"
        case UnavailableError():
            status = HTTPStatus.SERVICE_UNAVAILABLE
        case _:
            log.error("request failed", extra={"path": request.path}, exc_info=failure)
            status, why = HTTPStatus.INTERNAL_SERVER_ERROR, "failed; the reason is in the log"
    log.debug("request refused", extra={"path": request.path, "status": status.value, "why": why})
    return Response(f"{why}\n", status=status.value, headers=headers, content_type=TEXT)


def _admit(*, needs_certificate: bool, found: Problem | None) -> None:
    if needs_certificate and request.environ.get("SSL_CLIENT_VERIFY") != VERIFIED:
        raise CertificateMissingError("this is answered only to clients with a certificate of the authority in use")
    if found is not None:
        raise NotSyncedError(f"{found.reason}: {found.message}")


def _length_bytes() -> int:
    found = request.content_length
    if found is None:
        raise LengthRequired("the body needs a Content-Length: it is taken whole, and its size is limited")
    return found


def _explanation(explain: Explaining) -> Response:
    namespace, slash, name = request.args.get("pod", "").partition("/")
    if not slash or not namespace or not name:
        raise InvalidRequestError("which Pod? Ask for /explain?pod=NAMESPACE/NAME, with &output=json for a program")
    as_json = request.args.get("output") == "json"
    return Response(explain(namespace, name, as_json=as_json), content_type=JSON if as_json else TEXT)
