"""`ullage crds` and `ullage unused`: what the chart's Jobs say and change, and how they end."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import yaml

from tests.unit.kube_doubles import ApiServer
from tests.unit.loop_doubles import persistent, volume
from ullage.cli import crds, unused
from ullage.errors import ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.crds import definitions, manifest
from ullage.kube.meta import DEFINITIONS, LOGICAL_VOLUMES, PERSISTENT_VOLUMES

ESTABLISHED = {"conditions": [{"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]}
NAMES = [manifest(each)["metadata"]["name"] for each in definitions()]


def cluster_with(*, status: dict[str, Any]) -> ApiServer:
    """One with definitions of an older version."""
    server = ApiServer()
    for each in definitions():
        old = manifest(each)
        old["metadata"]["labels"]["example.org/by"] = "somebody"
        old["spec"]["versions"][0]["additionalPrinterColumns"] = []
        server.put(DEFINITIONS, {**old, "status": status})
    return server


def test_without_apply_they_are_printed_and_no_cluster_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    crds.describe(parser)
    assert crds.run(parser.parse_args([])) == 0
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == [manifest(each) for each in definitions()]


def test_older_definitions_become_ours_and_keep_what_others_have_put_on_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = cluster_with(status=ESTABLISHED)
    crds.apply(Api(server))
    assert capsys.readouterr().out.splitlines() == [f"{name}: changed" for name in NAMES]
    for each in definitions():
        after = server.all(DEFINITIONS)[manifest(each)["metadata"]["name"]]
        assert after["spec"] == manifest(each)["spec"]
        assert after["metadata"]["labels"]["example.org/by"] == "somebody"


def test_definitions_that_are_not_there_are_made() -> None:
    server = ApiServer()

    def serve(_seconds: float) -> None:
        for name, each in server.all(DEFINITIONS).items():
            if "status" not in each:
                server.put(DEFINITIONS, {**each, "metadata": {"name": name}, "status": ESTABLISHED})

    crds.apply(Api(server), pause=serve)
    assert sorted(server.all(DEFINITIONS)) == sorted(NAMES)


def test_a_definition_that_is_never_served_is_an_error() -> None:
    with pytest.raises(ApiUnavailableError, match="is written, and not served after 30 s"):
        crds.apply(Api(cluster_with(status={})), pause=lambda _seconds: None)


def test_a_cluster_without_volumes_is_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    server = ApiServer()
    server.put(PERSISTENT_VOLUMES, {"metadata": {"name": "pv-1"}, "spec": {"csi": {"driver": "someone.else"}}})
    server.put(PERSISTENT_VOLUMES, {"metadata": {"name": "pv-2"}, "spec": {"hostPath": {"path": "/srv"}}})
    assert unused.answer(Api(server)) == 0
    assert "no volumes of ullage.io" in capsys.readouterr().out
    assert server.writes == []


def test_volumes_are_named_once_with_whose_they_are_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    server = ApiServer()
    server.put(LOGICAL_VOLUMES, volume("pvc-1"))
    server.put(PERSISTENT_VOLUMES, persistent("pv-1", "pvc-1"))
    server.put(PERSISTENT_VOLUMES, persistent("pv-2", "pvc-2"))
    assert unused.answer(Api(server)) == 1
    heading, first, second, *advice = capsys.readouterr().out.splitlines()
    assert heading == "There are 2 volumes and snapshots of ullage.io in this cluster:"
    assert first == "  pvc-1: volume of db/data on n1, 1.0 GiB"
    assert second == "  pvc-2: PersistentVolume pv-2 of db/data, without a LogicalVolume"
    assert "helm uninstall --no-hooks" in " ".join(advice)


def test_of_many_volumes_ten_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    server = ApiServer()
    for number in range(14):
        server.put(LOGICAL_VOLUMES, volume(f"pvc-{number:02}"))
    assert unused.answer(Api(server)) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(lines) == unused.NAMED + 1
    assert lines[-1].startswith("  and 4 more")
