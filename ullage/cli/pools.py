"""List this node's pools: what is there, what is free, and the largest volume that fits.

  ullage pools
  ullage pools -o wide
  ullage pools -o json | jq '.items[] | select(.problem)'
  ullage pools --watch

FREE is after the reserve. LARGEST is one linear volume. An agent answers from memory: no LVM command runs.
"""

from __future__ import annotations

import argparse

from ullage.cli.output import Column, add_agent_option, add_output_option, show
from ullage.errors import human_bytes

COLUMNS = (
    Column(heading="NAME"),
    Column(heading="TYPE"),
    Column(heading="CLASSES"),
    Column(heading="TOTAL"),
    Column(heading="FREE"),
    Column(heading="LARGEST"),
    Column(heading="RESERVE", is_wide=True),
    Column(heading="EXTENT", is_wide=True),
    Column(heading="DATA%", is_wide=True),
    Column(heading="META%", is_wide=True),
    Column(heading="DEVICES", is_wide=True),
    Column(heading="STATUS"),
)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_agent_option(parser)
    parser.add_argument("-w", "--watch", action="store_true", help="print again whenever something changes")
    add_output_option(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the agent and print."""
    from ullage.agent_client import TIMEOUT_SECONDS, agent_at  # noqa: PLC0415 - grpc is for those who ask
    from ullage.pb.agent.v1 import agent_pb2 as pb  # noqa: PLC0415

    def row(pool: pb.Pool) -> list[str]:
        has_thin = pool.HasField("thin")
        return [
            pool.name,
            pool.type,
            ",".join(pool.device_classes),
            human_bytes(pool.total_bytes),
            human_bytes(pool.free_bytes),
            human_bytes(pool.largest_volume_bytes),
            human_bytes(pool.reserve_bytes),
            human_bytes(pool.extent_bytes),
            f"{pool.thin.data_percent:.1f}" if has_thin else "-",
            f"{pool.thin.metadata_percent:.1f}" if has_thin else "-",
            ",".join(each.name for each in pool.physical_volumes) or "-",
            pool.problem.reason if pool.HasField("problem") else "Ready" if pool.exists else "MadeOnDemand",
        ]

    with agent_at(options.agent) as agent:
        if not options.watch:
            pools = agent.ListPools(pb.ListPoolsRequest(), timeout=TIMEOUT_SECONDS).pools
            show(options.output, COLUMNS, [row(pool) for pool in pools], pools)
            return 0
        for response in agent.WatchPools(pb.WatchPoolsRequest()):
            show(options.output, COLUMNS, [row(pool) for pool in response.pools], response.pools)
    return 0
