"""The images that nodes have from the beginning, as archives by reference."""

from __future__ import annotations

from pathlib import Path

from tests.rigs import images

PAUSE = images.reference("pause")
OURS = images.reference("ullage")
WORKLOAD = images.reference("workload")


def archives() -> dict[str, Path]:
    """All of them, built if they are not there; raises RigError."""
    return {images.reference(name): images.get(name) for name in images.NAMES}
