"""kube-scheduler's configuration: the rig's own part, and what a test or a file that we ship adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

DEFAULT_NAME = "default-scheduler"
"""The `schedulerName` of Pods that name none."""
QPS = 200
"""Its own limit, of 50 requests a second, would be what a test with many Pods waits for."""
SHIPPED = Path(__file__).parents[3] / "deploy/scheduler"
EVERY_POD, MARKED_PODS = "every-pod.yaml", "marked-pods.yaml"
"""Which Pods the extender is asked about. While it is away the first go anywhere, and the second wait."""
OF_RIG = ("clientConnection", "leaderElection")
"""What a configuration that is made for a cluster says of itself and not of Pods."""


def configuration(kubeconfig: Path, more: Mapping[str, Any], name: str = DEFAULT_NAME) -> str:
    """Of a scheduler that takes the Pods which name it; `more` are further fields of KubeSchedulerConfiguration."""
    content = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": QPS, "burst": 2 * QPS},
        "leaderElection": {"leaderElect": False},
        **more,
        "profiles": [{**each, "schedulerName": name} for each in more.get("profiles", [{}])],
    }
    return yaml.safe_dump(content, sort_keys=False)


def shipped(name: str, address: str) -> dict[str, Any]:
    """The fields of a configuration that we ship, of an extender that is at HOST:PORT and not where it should be."""
    content: dict[str, Any] = yaml.safe_load((SHIPPED / name).read_text(encoding="utf-8"))
    for extender in content["extenders"]:
        extender["urlPrefix"] = urlsplit(extender["urlPrefix"])._replace(netloc=address).geturl()
    return {key: value for key, value in content.items() if key not in OF_RIG}
