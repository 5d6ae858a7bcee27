"""Serve kube-scheduler's extender: which nodes have room for a Pod's volumes, and which is best.

  ullage extender --http 127.0.0.1:9254
  ullage extender --http 127.0.0.1:9254 --kubeconfig /etc/kubernetes/scheduler.conf
  ullage extender --http 0.0.0.0:9254 --tls-cert tls.crt --tls-key tls.key --client-ca ca.crt --webhook
  ullage extender --http 127.0.0.1:9254 --objects saved.json

kube-scheduler is told of it in its configuration, see docs/scheduler.md. It keeps nothing: after a restart, what was
promised is read from the claims. Without --kubeconfig the Pod's own account is used. With --objects it answers for a
cluster that `kubectl get -o json` has saved, and talks to no API server. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from ullage.cli.process import Signals, add_process_options, begin, seconds
from ullage.errors import ConfigError
from ullage.model import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from scheduler_extender.view import View
    from ullage.connections import TlsFiles

THREADS = 8
"""A request may wait a second for the choice of another Pod; schedulers, probes and the webhook are answered beside."""

log = logging.getLogger(__name__)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="how to reach the API server (as the Pod's own account)"
    )
    source.add_argument(
        "--objects", metavar="FILE", help="a saved cluster instead: what `kubectl get -o json` printed; - for stdin"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate (HTTP)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its key; both may be replaced at any time")
    parser.add_argument(
        "--client-ca",
        type=Path,
        metavar="FILE",
        help="answer kube-scheduler only with a certificate of this authority (anybody)",
    )
    parser.add_argument(
        "--patience",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="for how long a Pod waits at most while another one that may take its room is being placed (1)",
    )
    parser.add_argument(
        "--webhook", action="store_true", help="serve /mutate: mark Pods that may have a volume of ours (no)"
    )
    add_process_options(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    # Only this subcommand pays for these imports.
    from scheduler_extender.ahead import Ahead  # noqa: PLC0415
    from scheduler_extender.decisions import Decisions  # noqa: PLC0415
    from scheduler_extender.metrics import RequestMetrics, StandingCollector  # noqa: PLC0415
    from scheduler_extender.view import View  # noqa: PLC0415
    from scheduler_extender.web import BODY_LIMIT_BYTES, application  # noqa: PLC0415
    from scheduler_extender.webhook import Webhook  # noqa: PLC0415
    from ullage.cli.explanations import Explainer  # noqa: PLC0415
    from ullage.garbage import SparedOf  # noqa: PLC0415
    from ullage.serve import HttpServer, Routes, standard_routes  # noqa: PLC0415

    if not options.http:
        raise ConfigError("--http says where kube-scheduler is answered; without it there is nothing to do")
    tls = _tls(options)
    registry = begin(options, "extender")
    signals = Signals()
    view = View()
    decisions = Decisions(view, patience_seconds=options.patience)
    registry.register(StandingCollector(decisions.promises, lambda: len(list(view.nodes))))
    with ExitStack() as ends:
        problem = _saved(view, options.objects) if options.objects else _followed(view, options, registry, ends)
        ends.enter_context(SparedOf(lambda: problem() is None))
        ends.enter_context(Ahead(decisions, lambda: problem() is None))
        app = application(
            decisions,
            RequestMetrics(registry),
            problem=problem,
            explain=Explainer(view, decisions),
            mutate=Webhook(view).answer if options.webhook else None,
            needs_certificate=options.client_ca is not None,
        )
        server = HttpServer(
            options.http,
            Routes(standard_routes(registry, problem), beside=app),
            threads=THREADS,
            body_limit_bytes=BODY_LIMIT_BYTES,
            tls=tls,
        )
        ends.enter_context(server)
        log.info("serving", extra={"component": "extender", "address": server.address})
        for _ in signals.hangups():
            log.info("nothing to read again", extra={"why": "objects are followed, and certificates looked at"})
        log.info("stopping")
    return 0


def _saved(view: View, file: str) -> Callable[[], Problem | None]:
    """The view of a file; raises ConfigError."""
    from scheduler_extender.feeds import load  # noqa: PLC0415

    loaded = load(view, file)
    log.info("objects read", extra={"taken": dict(loaded.taken), "passed_over": dict(loaded.passed_over)})
    return lambda: None


def _followed(
    view: View, options: argparse.Namespace, registry: CollectorRegistry, ends: ExitStack
) -> Callable[[], Problem | None]:
    """The view of a cluster, and what there is to be waited for; raises ConfigError."""
    from scheduler_extender.feeds import Feeds  # noqa: PLC0415
    from ullage.kube.api import Api  # noqa: PLC0415
    from ullage.kube.connection import connect  # noqa: PLC0415
    from ullage.kube.metrics import InformerCollector  # noqa: PLC0415

    feeds = Feeds(view, Api(connect(options.kubeconfig)))
    registry.register(InformerCollector(feeds.readers))
    feeds.start()
    ends.callback(feeds.stop)

    def problem() -> Problem | None:
        missing = feeds.missing
        if not missing:
            return None
        return Problem(reason="Starting", message=f"the API server has not told us yet of all {', '.join(missing)}")

    return problem


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    """Where the certificates are; raises ConfigError."""
    from ullage.connections import TlsFiles  # noqa: PLC0415

    if options.tls_cert is None and options.tls_key is None:
        if options.client_ca is not None:
            raise ConfigError("--client-ca is of no use without --tls-cert and --tls-key")
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise ConfigError("--tls-cert and --tls-key go together")
    return TlsFiles(certificate=options.tls_cert, key=options.tls_key, client_authority=options.client_ca)
