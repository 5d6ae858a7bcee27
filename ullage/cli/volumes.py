"""List this node's volumes: whose they are, where they are, and whether they are well.

  ullage volumes
  ullage volumes -o wide
  ullage volumes -o json | jq '.items[].volumeId'

An agent answers from memory: no LVM command runs.
"""

from __future__ import annotations

import argparse

from ullage.cli.output import Column, add_agent_option, add_output_option, show
from ullage.errors import human_bytes

COLUMNS = (
    Column(heading="ID"),
    Column(heading="CLASS"),
    Column(heading="POOL"),
    Column(heading="SIZE"),
    Column(heading="STATE"),
    Column(heading="CLAIM"),
    Column(heading="KIND", is_wide=True),
    Column(heading="SOURCE", is_wide=True),
    Column(heading="OPEN", is_wide=True),
    Column(heading="PV", is_wide=True),
    Column(heading="DEVICE", is_wide=True),
    Column(heading="PROBLEM"),
)


def describe(parser: argparse.ArgumentParser) -> None:
    """Name the options."""
    add_agent_option(parser)
    add_output_option(parser)


def run(options: argparse.Namespace) -> int:
    """Ask the agent and print."""
    from ullage.agent_client import TIMEOUT_SECONDS, agent_at  # noqa: PLC0415 - grpc is for those who ask
    from ullage.pb.agent.v1 import agent_pb2 as pb  # noqa: PLC0415

    def row(volume: pb.Volume) -> list[str]:
        owner = volume.owner
        return [
            volume.volume_id,
            volume.device_class,
            volume.pool,
            human_bytes(volume.size_bytes),
            pb.VolumeState.Name(volume.state).removeprefix("VOLUME_STATE_").capitalize(),
            f"{owner.claim_namespace}/{owner.claim_name}" if owner.claim_name else "-",
            "snapshot" if volume.is_snapshot else "volume",
            volume.source_volume_id or "-",
            "yes" if volume.is_open else "no",
            owner.pv_name or "-",
            volume.device_path or "-",
            volume.problem.reason if volume.HasField("problem") else "-",
        ]

    with agent_at(options.agent) as agent:
        volumes = agent.ListVolumes(pb.ListVolumesRequest(), timeout=TIMEOUT_SECONDS).volumes
        show(options.output, COLUMNS, [row(volume) for volume in volumes], volumes)
    return 0
