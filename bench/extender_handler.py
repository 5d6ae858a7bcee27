"""The extender without its server, in this process: bytes in, bytes out, beside the threads that read its objects."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from bench.extender_client import Order, Took, timed
from bench.extender_program import Cluster
from bench.extender_series import PATHS
from bench.lvm_rig import BenchError
from scheduler_extender.decisions import Decisions
from scheduler_extender.feeds import Feeds
from scheduler_extender.metrics import RequestMetrics
from scheduler_extender.view import View
from scheduler_extender.web import Verbs
from ullage.garbage import SparedOf
from ullage.kube.api import Api
from ullage.kube.connection import connect

SYNC_SECONDS = 300.0


class Handler:
    """Knows all of a cluster within its context; raises BenchError when it does not come to that."""

    def __init__(self, cluster: Cluster) -> None:
        """Wired as `ullage extender` does it."""
        self._ends = ExitStack()
        view = View()
        self._feeds = Feeds(view, Api(connect(cluster.kubeconfig)))
        self._spared = SparedOf(lambda: self._feeds.is_synced)
        verbs = Verbs(Decisions(view), RequestMetrics(CollectorRegistry()))
        self._by_path: dict[str, Callable[[bytes], bytes]] = dict(
            zip(PATHS, (verbs.filter, verbs.prioritize), strict=True)
        )

    def ask(self, order: Order) -> Took:
        """Answer all of it; its address does not matter."""
        return timed(order, lambda path, body: (self._by_path[path], body), lambda request: request[0](request[1]))

    def __enter__(self) -> Self:
        self._feeds.start()
        self._ends.callback(self._feeds.stop)
        self._ends.enter_context(self._spared)
        if not self._feeds.wait_until_synced(SYNC_SECONDS):
            raise BenchError(f"not listed after {SYNC_SECONDS:.0f} s: {', '.join(self._feeds.missing)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
