"""`ullage simulate` and `ullage explain`: what the extender would do is told, and nothing is promised by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import extender_scene as scene
from ullage.cli import main
from ullage.errors import GIB

Json = dict[str, Any]  # as JSON is


def cluster(folder: Path, *more: Json, free_gib: tuple[int, ...] = (10, 10, 10)) -> str:
    objects: list[Json] = [scene.device_class(), scene.storage_class()]
    for number, free in enumerate(free_gib, start=1):
        labels = {"topology.kubernetes.io/zone": f"z{number}"}
        objects += [
            scene.node(f"n{number}", **labels),
            scene.node_storage(f"n{number}", scene.pool(free_bytes=free * GIB)),
        ]
    return written(folder / "cluster.json", {"kind": "List", "apiVersion": "v1", "items": [*objects, *more]})


def written(path: Path, content: Json) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def stateful_set(replicas: int, size: str = "6Gi") -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db"},
        "spec": {
            "replicas": replicas,
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}},
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": size}}},
                }
            ],
        },
    }


def items(capsys: pytest.CaptureFixture[str]) -> list[Json]:
    found: list[Json] = json.loads(capsys.readouterr().out)["items"]
    return found


def test_a_set_is_placed_one_by_one_and_the_first_that_does_not_fit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = written(tmp_path / "plan.json", stateful_set(4))
    there = cluster(tmp_path)
    assert main(["simulate", plan, "--objects", there]) == 1
    told = capsys.readouterr().out
    assert "3 of 4 Pods have a node, on 3 nodes." in told
    first = "1 x fast: needs 6.0 GiB, 3.6 GiB free, 6.0 GiB promised to default/data-db-0"
    assert f"The first without one is default/db-3: {first}" in told
    assert main(["simulate", plan, "--objects", there, "-o", "json"]) == 1
    found = items(capsys)
    assert [each["name"] for each in found] == ["db-0", "db-1", "db-2", "db-3"]
    assert {each["node"] for each in found[:3]} == {"n1", "n2", "n3"}
    assert found[3]["node"] == ""
    assert sum(each["nodes"] for each in found[3]["whyNot"]) == 3


def test_what_is_placed_takes_its_room_from_what_comes_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = written(tmp_path / "plan.json", stateful_set(3, size="5Gi"))
    assert main(["simulate", plan, "--objects", cluster(tmp_path, free_gib=(10, 4)), "-o", "json"]) == 1
    assert [each["node"] for each in items(capsys)] == ["n1", "n1", ""]


def test_pods_and_claims_in_several_documents_are_read_and_other_kinds_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pod, claim = scene.pod("one", "c"), scene.claim("c", size="3Gi")
    plan = tmp_path / "plan.yaml"
    other = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    plan.write_text(yaml.safe_dump_all([pod, other, claim]), encoding="utf-8")
    assert main(["simulate", str(plan), "--objects", cluster(tmp_path, free_gib=(2, 9)), "-o", "json"]) == 0
    assert [(each["name"], each["node"]) for each in items(capsys)] == [("one", "n2")]


def test_a_generic_ephemeral_volume_takes_room_though_its_claim_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"storageClassName": "fast", "resources": {"requests": {"storage": "7Gi"}}}
    volume = {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
    pods = [{**scene.pod(name), "spec": {"volumes": [volume]}} for name in ("a", "b")]
    plan = written(tmp_path / "plan.json", {"kind": "List", "apiVersion": "v1", "items": pods})
    assert main(["simulate", plan, "--objects", cluster(tmp_path, free_gib=(10,)), "-o", "json"]) == 1
    assert [each["node"] for each in items(capsys)] == ["n1", ""]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}, "no Pod and no StatefulSet"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": 7}}, "Expected `str`"),
    ],
)
def test_a_plan_that_says_nothing_sensible_is_a_wrong_question(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: Json, words: str
) -> None:
    plan = written(tmp_path / "plan.json", content)
    assert main(["simulate", plan, "--objects", cluster(tmp_path)]) == 2
    assert words in capsys.readouterr().err


def test_an_explanation_says_of_each_node_what_it_has_and_why_it_does_not_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"volume.kubernetes.io/selected-node": "n2"}
    there = cluster(
        tmp_path,
        scene.pod("db", "c"),
        scene.claim("c", size="8Gi"),
        scene.claim("other", size="5Gi", **chosen),
        free_gib=(9, 10, 4),
    )
    assert main(["explain", "pod", "db", "--objects", there]) == 0
    told = capsys.readouterr().out
    assert "c: 8.0 GiB of fast" in told
    assert "1 of 3 nodes fit." in told
    assert main(["explain", "pod", "db", "--objects", there, "-o", "json"]) == 0
    (found,) = items(capsys)
    nodes = {each["node"]: each for each in found["nodes"]}
    assert [each["node"] for each in found["nodes"]] == ["n1", "n2", "n3"]
    assert {name: each["fits"] for name, each in nodes.items()} == {"n1": True, "n2": False, "n3": False}
    assert nodes["n2"]["pools"][0]["promisedBytes"] == 5 * GIB
    assert "promised to default/other" in nodes["n2"]["whyNot"]


def test_where_no_node_does_the_exit_code_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = cluster(tmp_path, scene.pod("db", "c"), scene.claim("c", size="50Gi"))
    assert main(["explain", "pod", "db", "--objects", there]) == 1
    assert "0 of 3 nodes fit." in capsys.readouterr().out


def test_a_pod_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "pod", "nobody", "--objects", cluster(tmp_path)]) == 1
    assert "no Pod default/nobody" in capsys.readouterr().err
