"""What the CSI services measure: how long each RPC took and how it ended."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram

CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
"""Seconds. Reads take milliseconds, a stage with mkfs seconds; kubelet gives up after two minutes."""


class CallMetrics:
    """`observe` is for `csi.calls.Calls`. Labels are RPCs' names and gRPC's codes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metric."""
        self._seconds = Histogram(
            "ullage_csi_call_seconds",
            "How long CSI calls took, by how they ended.",
            ["rpc", "code"],
            buckets=CALL_BUCKETS,
            registry=registry,
        )

    def observe(self, rpc: str, code: str, seconds: float) -> None:
        """One call has ended."""
        self._seconds.labels(rpc, code).observe(seconds)


def describe_busy(registry: CollectorRegistry, under_way: Callable[[], int]) -> None:
    """Show how many volumes are being worked on; `under_way` is asked at each scrape."""
    busy = Gauge("ullage_csi_busy_volumes", "Volumes that a CSI call is changing now.", registry=registry)
    busy.set_function(under_way)
