"""Pods of every shape, through the real decisions and a real socket: there is an answer, and it is about every node."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from scheduler_extender.decisions import Decisions
from scheduler_extender.feeds import load
from scheduler_extender.metrics import RequestMetrics
from scheduler_extender.view import View
from scheduler_extender.web import application
from tests.unit.test_extender_cli import NODES, saved
from ullage.serve import HttpServer

Anything: TypeAlias = st.SearchStrategy[Any]  # of each its own shape

names = st.sampled_from(["data", "of-another", "settled", "never-made", "", "a/b", "é"])
texts = st.sampled_from(["", "fast", "slow", "10Gi", "-1", "1e400", "1Ki", "quorum", "hard", "0", "n-full", "Block"])
quantities = st.dictionaries(st.sampled_from(["storage", "cpu"]), texts, max_size=2)
wishes: Anything = st.dictionaries(
    st.sampled_from([f"spread.ullage.io/{each}" for each in ("group", "key", "cap", "mode", "replicas")]),
    texts,
    max_size=3,
)
sources = st.fixed_dictionaries(
    {"kind": st.sampled_from(["PersistentVolumeClaim", "VolumeSnapshot", "Other"]), "name": names},
    optional={"apiGroup": st.sampled_from([None, "", "snapshot.storage.k8s.io"]), "namespace": st.none() | texts},
)
specs: Anything = st.fixed_dictionaries(
    {},
    optional={
        "storageClassName": st.none() | texts,
        "volumeName": texts,
        "volumeMode": texts,
        "resources": st.fixed_dictionaries({}, optional={"requests": quantities}),
        "dataSource": st.none() | sources,
        "dataSourceRef": st.none() | sources,
    },
)
metas: Anything = st.fixed_dictionaries({}, optional={"annotations": wishes})
templates: Anything = st.fixed_dictionaries({"spec": specs}, optional={"metadata": metas})
volumes = st.fixed_dictionaries({"name": names, "persistentVolumeClaim": st.fixed_dictionaries({"claimName": names})})
ephemeral = st.fixed_dictionaries(
    {"name": names, "ephemeral": st.fixed_dictionaries({"volumeClaimTemplate": st.none() | templates})}
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.fixed_dictionaries(
            {"name": st.sampled_from(["db-0", "db-1", ""]), "namespace": st.sampled_from(["default", "", "shop"])},
            optional={"uid": texts},
        ),
        "spec": st.fixed_dictionaries({"volumes": st.lists(volumes | ephemeral, max_size=4)}),
    }
)
nodes = st.lists(st.sampled_from([*NODES, "", "n/1", "ß"]), max_size=6)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    view = View()
    load(view, str(saved(tmp_path_factory.mktemp("fuzz"))))
    decisions = Decisions(view, patience_seconds=0)
    app = application(decisions, RequestMetrics(CollectorRegistry()), problem=lambda: None)
    with (
        HttpServer("127.0.0.1:0", app) as server,
        closing(http.client.HTTPConnection(server.address, timeout=60)) as connection,
    ):
        yield connection


@settings(max_examples=200, deadline=None)
@given(pod=pods, asked=nodes)
def test_every_node_that_was_asked_about_is_in_the_answer_once(
    client: http.client.HTTPConnection, pod: dict[str, object], asked: list[str]
) -> None:
    def ask(path: str, **more: object) -> bytes:
        client.request("POST", path, msgspec.json.encode({"Pod": pod, "Nodes": None, **more}))
        reply = client.getresponse()
        content = reply.read()
        assert reply.status == 200, content
        return content

    said = msgspec.json.decode(ask("/filter", NodeNames=asked))
    assert {*said["NodeNames"], *said["FailedAndUnresolvableNodes"]} == set(asked)
    assert not set(said["NodeNames"]).intersection(said["FailedAndUnresolvableNodes"])
    assert all(said["FailedAndUnresolvableNodes"].values()), "a refusal without a reason"
    scores = msgspec.json.decode(ask("/prioritize", NodeNames=said["NodeNames"]))
    assert [each["Host"] for each in scores] == said["NodeNames"]
    assert all(0 <= each["Score"] <= 10 for each in scores)
    victims = {node: {"Pods": [{"UID": "v"}], "NumPDBViolations": 0} for node in asked}
    kept = msgspec.json.decode(ask("/preempt", NodeNameToMetaVictims=victims))["NodeNameToMetaVictims"]
    assert all(victims[node] == each for node, each in kept.items())
