"""What is deployed for the extender, and what is written about it, says what the code says."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from scheduler_extender.feeds import KINDS
from scheduler_extender.metrics import OTHER, REASONS, VERBS, RequestMetrics
from scheduler_extender.view import View
from scheduler_extender.web import BODY_LIMIT_BYTES, LARGE_BODY_BYTES, application
from scheduler_extender.webhook import RESOURCE, Webhook
from scheduler_extender.wire import MOST_SCORE
from tests.unit.test_extender_web import Decider, explain
from ullage.cli import extender
from ullage.errors import MIB

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "scheduler.md").read_text(encoding="utf-8")
MANIFESTS = ROOT / "deploy" / "manifests"
CONFIGURATIONS = sorted((ROOT / "deploy" / "scheduler").glob("*.yaml"))


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    extender.describe(parser)
    return parser


def of_file(path: Path) -> Any:  # noqa: ANN401 - YAML
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def paths() -> set[str]:
    app = application(
        Decider(),
        RequestMetrics(CollectorRegistry()),
        problem=lambda: None,
        explain=explain,
        mutate=Webhook(View()).answer,
    )
    return {rule.rule for rule in app.url_map.iter_rules()}


def test_every_flag_is_documented_and_no_other() -> None:
    flags = {word for action in options()._actions for word in action.option_strings if word not in {"-h", "--help"}}
    section = DOCUMENT.partition("\n## Flags\n")[2].partition("\n## ")[0]
    rows = [line.partition("|")[2].partition("|")[0] for line in section.splitlines() if line.startswith("| `--")]
    assert {flag for row in rows for flag in re.findall(r"--[a-z][a-z-]+", row)} == flags
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCUMENT)) - flags <= {"--config"}


def test_every_path_is_documented_and_measured() -> None:
    assert {path.removeprefix("/") for path in paths()} == set(VERBS)
    section = DOCUMENT.partition("\n## What it answers\n")[2]
    assert all(path in section for path in paths())


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_kube_schedulers_configuration_asks_for_what_is_served(path: Path) -> None:
    configuration = of_file(path)
    assert configuration["apiVersion"] == "kubescheduler.config.k8s.io/v1"
    (found,) = configuration["extenders"]
    assert {f"/{found[key]}" for key in ("filterVerb", "prioritizeVerb", "preemptVerb")} <= paths()
    assert found["nodeCacheCapable"] is True
    assert found["weight"] > 0
    assert float(found["httpTimeout"].removesuffix("s")) > options().get_default("patience") + 1
    assert found["ignorable"] is ("managedResources" not in found), "or nothing is scheduled, not even the extender"
    for each in found.get("managedResources", ()):
        assert each == {"name": RESOURCE, "ignoredByScheduler": True}


def test_each_distribution_is_told_of_a_file_that_its_kube_scheduler_can_read() -> None:
    folder = ROOT / "deploy" / "scheduler"
    command, mount, volume = of_file(folder / "kubeadm" / "kube-scheduler+json.yaml")
    assert command["value"] == f"--config={mount['value']['mountPath']}/scheduler.yaml"
    assert volume["value"]["hostPath"]["path"] == mount["value"]["mountPath"]
    assert volume["value"]["name"] == mount["value"]["name"]
    for name in ("k3s", "rke2"):
        path = f"/etc/rancher/{name}/ullage"
        assert of_file(folder / name / "config.yaml")["kube-scheduler-arg+"] == [f"config={path}/scheduler.yaml"]
    (mounted,) = of_file(folder / "rke2" / "config.yaml")["kube-scheduler-extra-mount+"]
    assert mounted == f"{path}:{path}:ro"


def test_the_webhook_never_keeps_a_pod_from_being_made() -> None:
    _, configuration = yaml.safe_load_all((MANIFESTS / "optional" / "webhook.yaml").read_text(encoding="utf-8"))
    (webhook,) = configuration["webhooks"]
    assert (webhook["failurePolicy"], webhook["timeoutSeconds"], webhook["sideEffects"]) == ("Ignore", 2, "None")
    assert webhook["clientConfig"]["service"]["path"] in paths()
    left_out = webhook["namespaceSelector"]["matchExpressions"][0]["values"]
    assert {"kube-system", "ullage-system"} <= set(left_out)


def test_the_account_may_read_what_is_read_and_may_write_nothing() -> None:
    objects = yaml.safe_load_all((MANIFESTS / "5-extender.yaml").read_text(encoding="utf-8"))
    (role,) = (each for each in objects if each["kind"] == "ClusterRole")
    granted = {(group, kind) for rule in role["rules"] for group in rule["apiGroups"] for kind in rule["resources"]}
    assert granted == {(each.resource.group, each.resource.plural) for each in KINDS}
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}


def test_the_numbers_in_the_document_are_those_of_the_code() -> None:
    assert f"above {BODY_LIMIT_BYTES // MIB} MiB" in DOCUMENT
    assert f"more than {LARGE_BODY_BYTES // MIB} MiB" in DOCUMENT
    assert f"({options().get_default('patience'):g})" in DOCUMENT
    assert MOST_SCORE == 10, "which kube-scheduler multiplies by 10"


def test_every_reason_is_in_the_table_of_metrics() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| `ullage_extender_refusals_total`"))
    assert {word for word, _ in REASONS} | {OTHER} <= set(re.findall(r"`(\w+)`", row))
