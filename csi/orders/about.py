"""The least of orders: a volume and nothing else, or nothing in particular."""

from __future__ import annotations

from dataclasses import dataclass

from ullage.model import VolumeId

NONE = VolumeId("")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """A volume, and nothing else; or, empty, none."""

    volume_id: VolumeId = NONE


def nothing(_: object) -> About:
    """What asks for nothing in particular."""
    return About()
