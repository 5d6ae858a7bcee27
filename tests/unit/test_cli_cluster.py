"""`ullage orphans` and `ullage recover`: what they print, what they change, and how they end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from csi.cluster.orphans import KNOWN
from tests.unit.kube_doubles import ApiServer
from tests.unit.loop_doubles import persistent, storage, storage_class, stray, volume
from ullage.cli import cluster, main, orphans, recover
from ullage.errors import ConfigError, InvalidRequestError, NotFoundError
from ullage.kube.api import Api
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES, NODE_STORAGES, PERSISTENT_VOLUMES, STORAGE_CLASSES
from ullage.kube.node_storage import ACKNOWLEDGED

COMMANDS = {"orphans": (orphans.describe, orphans.answer), "recover": (recover.describe, recover.answer)}


@pytest.fixture
def server() -> ApiServer:
    server = ApiServer()
    server.put(STORAGE_CLASSES, storage_class())
    server.put(
        DEVICE_CLASSES, {"metadata": {"name": "fast"}, "spec": {"type": "file", "directory": "/srv", "sparse": True}}
    )
    server.put(NODE_STORAGES, storage("n1", orphans=(stray("pvc-1"),)))
    return server


def asked(server: ApiServer, command: str, *words: str) -> int:
    describe, answer = COMMANDS[command]
    parser = argparse.ArgumentParser()
    describe(parser)
    return answer(Api(server), parser.parse_args(words))


def test_orphans_are_a_table_and_an_exit_code(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(server, "orphans") == 1
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "KIND", "NODE", "CLASS", "SIZE", "CLAIM"]
    assert row.split() == ["pvc-1", "volume_without_object", "n1", "fast", "1.0", "GiB", "db/data"]
    assert asked(server, "orphans", "-o", "json") == 1
    (item,) = json.loads(capsys.readouterr().out)["items"]
    assert (item["name"], item["sizeBytes"], item["isAcknowledged"]) == ("pvc-1", 1 << 30, False)


def test_no_orphans_are_exit_code_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(ApiServer(), "orphans") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_is_acknowledged_is_listed_with_all_only(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.put(LOGICAL_VOLUMES, volume("pvc-2"))
    server.put(PERSISTENT_VOLUMES, persistent("pv-3", "pvc-3"))
    assert asked(server, "orphans", "--acknowledge", "pvc-1", "pvc-2", "pv-3") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert asked(server, "orphans", "--all") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    labels = [
        server.all(resource)[name]["metadata"]["labels"]
        for resource, name in ((NODE_STORAGES, "n1"), (LOGICAL_VOLUMES, "pvc-2"), (PERSISTENT_VOLUMES, "pv-3"))
    ]
    assert labels == [{f"{ACKNOWLEDGED}pvc-1": ""}, {KNOWN: ""}, {KNOWN: ""}]


def test_a_name_that_is_no_orphans_acknowledges_nothing(server: ApiServer) -> None:
    with pytest.raises(NotFoundError, match="nothing was acknowledged"):
        asked(server, "orphans", "--acknowledge", "pvc-1", "pvc-9")
    assert server.writes == []


def test_a_name_that_no_label_can_have_acknowledges_nothing(server: ApiServer) -> None:
    server.put(NODE_STORAGES, storage("n1", orphans=(stray("pvc-1"), stray("not a label"))))
    with pytest.raises(InvalidRequestError, match="cannot be a label's key"):
        asked(server, "orphans", "--acknowledge", "pvc-1", "not a label")
    assert server.writes == []


def test_recover_makes_nothing_until_it_is_told_to(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(server, "recover") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split() == [
        "pvc-1",
        "volume",
        "n1",
        "new",
        "pvc-1",
        "db/data",
        "fast",
        "Filesystem",
    ]
    assert "--yes makes it" in told.err
    assert server.writes == []


def test_recover_shows_the_objects_as_they_would_be_made(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(server, "recover", "-o", "json") == 0
    kinds = [each["kind"] for each in json.loads(capsys.readouterr().out)["items"]]
    assert kinds == ["LogicalVolume", "PersistentVolume"]


def test_recover_makes_the_rest_when_one_is_refused(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.put(NODE_STORAGES, storage("n1", orphans=(stray("pvc-1"), stray("pvc-2", content=""))))
    assert asked(server, "recover", "--yes", "--timeout", "0") == 1
    told = capsys.readouterr().err
    assert "pvc-2 on node n1: whether it is Block or Filesystem is not known" in told
    assert server.all(LOGICAL_VOLUMES).keys() == {"pvc-1"}


def test_a_choice_that_is_none_is_asked_wrongly(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--volume-mode", "pvc-1=Blok"], ["--storage-class", "fast"]):
        with pytest.raises(SystemExit) as ended:
            main(["recover", *words])
        assert ended.value.code == 2
    assert "is no volume mode" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--node-loss-delay", "-1"], ["--node-loss-delay", "inf"], ["--orphan-scan", "0"]])
def test_a_time_that_is_none_is_asked_wrongly(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["controller", "--namespace", "ullage", *words])
    assert ended.value.code == 2
    assert "seconds" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "words", "{", "[1]", "clusters: 1", "current-context: a\ncontexts: [{name: a}]"])
def test_a_kubeconfig_that_is_none_is_refused_with_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    assert main(["orphans", "--kubeconfig", str(path)]) == 2
    assert f"ullage: {path}: " in capsys.readouterr().err


def test_the_cluster_is_where_kubectl_would_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    parser = argparse.ArgumentParser()
    cluster.add_cluster_option(parser)
    with pytest.raises(ConfigError, match="no --kubeconfig, and this is no Pod"):
        cluster.cluster(parser.parse_args([]))
    for path in (tmp_path / ".kube" / "config", tmp_path / "named"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("apiVersion: v1\nkind: Config\n")
        with pytest.raises(ConfigError, match=str(path)):
            cluster.cluster(parser.parse_args([]))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "named"))
