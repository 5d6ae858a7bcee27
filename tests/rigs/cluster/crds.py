"""Custom resource definitions: installed, and served when the call is over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.rigs.cluster.api import Api, Json
from tests.rigs.gotools import programs
from tests.rigs.host import RigError

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SNAPSHOT_CLIENT = "github.com/kubernetes-csi/external-snapshotter/client/v8"


def install_snapshot_crds(api: Api) -> None:
    """Install those of external-snapshotter, from its own module; nothing when they are there. Raises RigError."""
    folder = programs.source("snapshotter", SNAPSHOT_CLIENT) / "config" / "crd"
    install_crds(api, sorted(folder.glob("*snapshot*.yaml")))


def install_crds(api: Api, files: Sequence[Path]) -> None:
    """Install custom resource definitions and wait until they are served; nothing when they are there."""
    names = []
    for file in files:
        for definition in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if definition is None:
                continue
            names.append(definition["metadata"]["name"])
            if api.find(f"{CRDS}/{names[-1]}") is None:
                api.create(CRDS, definition)
    if not names:
        raise RigError(f"no custom resource definition in {', '.join(map(str, files)) or 'no files'}")
    for name in names:
        api.until(f"{CRDS}/{name}", _is_established)


def _is_established(definition: Json) -> bool:
    conditions = definition.get("status", {}).get("conditions") or []
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
