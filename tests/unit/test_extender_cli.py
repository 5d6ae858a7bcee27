"""`ullage extender` as a process that kube-scheduler asks, for a saved cluster; and what it is told wrongly."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from scheduler_extender.decisions import Decisions
from scheduler_extender.feeds import load
from scheduler_extender.metrics import OTHER, reason_of
from scheduler_extender.view import View
from scheduler_extender.wire import Pod
from tests.unit.extender_scene import (
    Json,
    claim,
    device_class,
    logical_volume,
    node,
    node_storage,
    pod,
    pool,
    storage_class,
)
from ullage.cli import USAGE_ERROR, main
from ullage.errors import GIB

SELECTED = {"volume.kubernetes.io/selected-node": "n-promised"}
CLUSTER = (
    device_class("fast"),
    storage_class("fast"),
    node("n-roomy"),
    node("n-full"),
    node("n-promised"),
    node("n-other"),
    node("n-ill"),
    node_storage("n-roomy", pool(free_bytes=50 * GIB)),
    node_storage("n-full", pool(free_bytes=5 * GIB)),
    node_storage("n-promised", pool(free_bytes=50 * GIB)),
    node_storage("n-other", pool(free_bytes=50 * GIB, classes=("slow",))),
    node_storage("n-ill", pool(free_bytes=50 * GIB), ready=False),
    claim("data", size="40Gi"),
    claim("of-another", size="40Gi", **SELECTED),
    claim("settled", volume="pvc-settled"),
    logical_volume("pvc-settled", "n-full", claim="settled"),
)
NODES = ["n-roomy", "n-full", "n-promised", "n-other", "n-ill", "n-without"]


def saved(folder: Path) -> Path:
    file = folder / "objects.json"
    file.write_bytes(msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": CLUSTER}))
    return file


@contextmanager
def running(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and where it listens."""
    arguments = ("extender", "--http", "127.0.0.1:0", "--log-format", "json", *words)
    with subprocess.Popen(
        (sys.executable, "-m", "ullage.cli", *arguments), stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            told = (json.loads(line) for line in process.stdout)
            yield process, next(line["address"] for line in told if line["message"] == "serving")
        finally:
            process.kill()


def test_kube_scheduler_is_answered_for_a_saved_cluster(tmp_path: Path) -> None:
    with running("--objects", str(saved(tmp_path)), "--webhook") as (process, address):
        with closing(http.client.HTTPConnection(address, timeout=60)) as client:

            def ask(path: str, body: Json | None = None) -> bytes:
                client.request(
                    "GET" if body is None else "POST", path, None if body is None else msgspec.json.encode(body)
                )
                reply = client.getresponse()
                assert reply.status == 200
                return reply.read()

            asked: Json = {"Pod": pod("db-0", "data"), "Nodes": None, "NodeNames": NODES}
            assert ask("/readyz") == b"ok\n"
            said = json.loads(ask("/filter", asked))
            assert said["NodeNames"] == ["n-roomy"]
            assert said["FailedAndUnresolvableNodes"]["n-full"] == "fast: needs 40.0 GiB, 4.0 GiB free"
            (scored,) = json.loads(ask("/prioritize", {**asked, "NodeNames": ["n-roomy"]}))
            assert scored["Host"] == "n-roomy"
            victims = {"Pods": [{"UID": "v"}], "NumPDBViolations": 0}
            evicting = {**asked, "NodeNameToMetaVictims": {"n-roomy": victims, "n-full": victims}}
            assert json.loads(ask("/preempt", evicting)) == {"NodeNameToMetaVictims": {"n-roomy": victims}}
            review = {"request": {"uid": "r", "namespace": "default", "object": pod("db-0", "data")}}
            assert json.loads(ask("/mutate", review))["response"]["allowed"] is True
            metrics = ask("/metrics").decode()
            assert 'ullage_extender_refusals_total{reason="no_agent"} 1.0' in metrics
            assert 'ullage_extender_promises{kind="definite"} 2.0' in metrics, (
                "of-another, and data which fits one node"
            )
            assert "ullage_extender_nodes 5.0" in metrics
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_every_sentence_that_refuses_a_node_has_its_word(tmp_path: Path) -> None:
    view = View()
    load(view, str(saved(tmp_path)))
    decisions = Decisions(view, patience_seconds=0)

    def words(of: Json) -> dict[str, str]:
        refused = decisions.filter(msgspec.convert(of, Pod), NODES).refused
        return {each: reason_of(sentence) for each, sentence in refused.items()}

    assert words(pod("db-0", "data")) == {
        "n-full": "no_room",
        "n-promised": "promised",
        "n-other": "no_pool",
        "n-ill": "agent_not_ready",
        "n-without": "no_agent",
    }
    assert set(words(pod("db-1", "settled")).values()) == {"elsewhere"}
    assert set(words(pod("db-2", "never-made")).values()) == {"not_there_yet"}
    assert reason_of("rack r1 has 2 of 5 of default/pg, at most 2 (quorum)") == "spread"
    assert reason_of("it has no label rack, by which default/pg is spread (quorum)") == "spread"
    assert reason_of("what is left may go to Pods that are being placed") == "being_placed"
    assert reason_of("fast: 2 volumes need 3.0 GiB together, which share too little room") == "no_room"
    assert reason_of("something new") == OTHER


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "--http says where kube-scheduler is answered"),
        (("--http", "127.0.0.1:0", "--tls-cert", "a.crt"), "--tls-cert and --tls-key go together"),
        (("--http", "127.0.0.1:0", "--tls-key", "a.key"), "--tls-cert and --tls-key go together"),
        (("--http", "127.0.0.1:0", "--client-ca", "ca.crt"), "--client-ca is of no use without"),
        (("--http", "127.0.0.1"), "no address to listen on"),
        (("--http", "127.0.0.1:0", "--objects", "/nowhere.json"), "/nowhere.json: cannot be read"),
        (("--http", "127.0.0.1:0", "--tls-cert", "/no.crt", "--tls-key", "/no.key"), "no TLS with the certificate"),
    ],
)
def test_what_cannot_be_served_ends_with_2_and_one_line(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    source = () if "--objects" in words else ("--objects", str(saved(tmp_path)))
    done = subprocess.run(
        (sys.executable, "-m", "ullage.cli", "extender", *source, *words),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == USAGE_ERROR
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_one_cluster_is_served_not_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(("extender", "--objects", "a", "--kubeconfig", "b"))
    assert ended.value.code == USAGE_ERROR
    assert "not allowed with argument" in capsys.readouterr().err
