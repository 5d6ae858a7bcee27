"""For every tier: hypothesis without clocks, since machines are slow by turns; the same examples each time in CI."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.contract.on_sites"]

settings.register_profile(
    "ullage",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
settings.load_profile("ullage")
