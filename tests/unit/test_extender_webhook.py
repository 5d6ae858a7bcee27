"""The webhook: which Pods get the mark, that it can be applied, and that no Pod is ever kept from being made."""

from __future__ import annotations

import base64
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_extender.feeds import load
from scheduler_extender.view import View
from scheduler_extender.webhook import RESOURCE, Webhook
from tests.unit.extender_scene import Json, claim, storage_class
from ullage.errors import InvalidRequestError

MARK = {RESOURCE: "1"}
FOREIGN = storage_class("foreign", provisioner="someone.else")
CLUSTER = (storage_class("fast"), FOREIGN, claim("ours"), claim("theirs", of="foreign"), claim("static", of=""))


def known(folder: Path, *objects: Json) -> View:
    file = folder / "objects.json"
    file.write_bytes(msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": objects}))
    view = View()
    load(view, str(file))
    return view


@pytest.fixture
def webhook(tmp_path: Path) -> Webhook:
    return Webhook(known(tmp_path, *CLUSTER))


def using(*names: str) -> list[Json]:
    return [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in names]


def ephemeral(**spec: object) -> list[Json]:
    template = {"metadata": {"creationTimestamp": None}, "spec": {"accessModes": ["ReadWriteOnce"], **spec}}
    return [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]


def pod(volumes: list[Json] | None, **container: object) -> Json:
    spec: Json = {"containers": [{"name": "db", "image": "db", **container}, {"name": "beside", "image": "b"}]}
    if volumes is not None:
        spec["volumes"] = volumes
    return {"metadata": {"generateName": "db-", "creationTimestamp": None}, "spec": spec, "status": {}}


def review(of: object, namespace: str = "default") -> bytes:
    request = {
        "uid": "r-1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": namespace,
        "object": of,
        "oldObject": None,
        "options": {},
    }
    return msgspec.json.encode({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request})


def answered(webhook: Webhook, body: bytes) -> Json:
    answer: Json = msgspec.json.decode(webhook.answer(body))
    assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Json = answer["response"]
    assert (response["uid"], response["allowed"]) == ("r-1", True)
    assert set(response) in ({"uid", "allowed"}, {"uid", "allowed", "patchType", "patch"})
    return response


def mutated(webhook: Webhook, of: Json, namespace: str = "default") -> Json:
    """The Pod as it is made in the end."""
    response = answered(webhook, review(of, namespace))
    if "patch" not in response:
        return of
    assert response["patchType"] == "JSONPatch"
    patched: Json = jsonpatch.apply_patch(deepcopy(of), base64.b64decode(response["patch"]).decode())
    return patched


MARKED = [
    pytest.param(using("ours"), id="a claim of ours"),
    pytest.param(using("theirs", "ours"), id="one of ours among others"),
    pytest.param(using("later"), id="a claim that is not known yet"),
    pytest.param(ephemeral(storageClassName="fast"), id="a generic ephemeral volume of ours"),
    pytest.param(ephemeral(storageClassName="later"), id="one of a class that is not known yet"),
    pytest.param(ephemeral(), id="one without a class where no default is known"),
]
NOT_MARKED = [
    pytest.param(None, id="no volumes"),
    pytest.param([], id="an empty list of volumes"),
    pytest.param(using("theirs"), id="a claim of another driver"),
    pytest.param(using("static"), id="a claim that asks for no class"),
    pytest.param(ephemeral(storageClassName="foreign"), id="a generic ephemeral volume of another driver"),
    pytest.param([{"name": "c", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}}], id="no claims"),
]


@pytest.mark.parametrize("volumes", MARKED)
def test_a_pod_that_may_have_a_volume_of_ours_is_marked(webhook: Webhook, volumes: list[Json]) -> None:
    made = mutated(webhook, pod(volumes))
    assert made["spec"]["containers"][0]["resources"] == {"requests": MARK, "limits": MARK}
    assert "resources" not in made["spec"]["containers"][1]


@pytest.mark.parametrize("volumes", NOT_MARKED)
def test_a_pod_that_has_none_is_left_as_it_is(webhook: Webhook, volumes: list[Json] | None) -> None:
    assert "patch" not in answered(webhook, review(pod(volumes)))


def test_a_claim_is_that_of_the_requests_namespace(webhook: Webhook) -> None:
    assert mutated(webhook, pod(using("theirs"), resources={}), "elsewhere") != pod(using("theirs"), resources={})


def test_the_clusters_default_class_counts_where_none_is_named(tmp_path: Path) -> None:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    foreign = storage_class("foreign", provisioner="someone.else")
    foreign["metadata"]["annotations"] = default
    assert "patch" not in answered(Webhook(known(tmp_path, foreign)), review(pod(ephemeral())))


@pytest.mark.parametrize(
    ("resources", "after"),
    [
        ({}, {"requests": MARK, "limits": MARK}),
        (None, {"requests": MARK, "limits": MARK}),
        ({"requests": {}}, {"requests": MARK, "limits": MARK}),
        ({"requests": None, "limits": {}}, {"requests": MARK, "limits": MARK}),
        (
            {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
            {"requests": {"cpu": "100m", **MARK}, "limits": {"memory": "1Gi", **MARK}},
        ),
        (
            {"limits": {"cpu": 1}, "claims": [{"name": "gpu"}]},
            {"requests": MARK, "limits": {"cpu": 1, **MARK}, "claims": [{"name": "gpu"}]},
        ),
    ],
)
def test_what_a_container_asks_for_already_stays(webhook: Webhook, resources: Json | None, after: Json) -> None:
    made = mutated(webhook, pod(using("ours"), resources=resources))
    assert made["spec"]["containers"][0]["resources"] == after


def test_a_pod_that_is_marked_is_not_marked_again(webhook: Webhook) -> None:
    once = mutated(webhook, pod(using("ours")))
    assert "patch" not in answered(webhook, review(once))


@pytest.mark.parametrize("part", ["requests", "limits"])
def test_a_mark_on_any_container_counts(webhook: Webhook, part: str) -> None:
    by_hand = pod(using("ours"))
    by_hand["spec"]["initContainers"] = [{"name": "first", "resources": {part: {RESOURCE: 1}}}]
    assert "patch" not in answered(webhook, review(by_hand))


def test_a_pod_that_has_its_node_already_is_left_as_it_is(webhook: Webhook) -> None:
    placed = pod(using("ours"))
    placed["spec"]["nodeName"] = "n-1"
    assert "patch" not in answered(webhook, review(placed))


@pytest.mark.parametrize(
    "of",
    [None, 7, "pod", [], {}, {"spec": None}, {"spec": {"containers": {}}}, {"spec": {"containers": [], "volumes": []}}],
)
def test_what_is_not_understood_is_let_pass(webhook: Webhook, of: object, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "scheduler_extender.webhook"):
        assert "patch" not in answered(webhook, review(of))
    is_no_pod = not (isinstance(of, dict) and of.get("spec"))
    assert bool(caplog.records) is (is_no_pod or of == {"spec": {"containers": {}}})


@pytest.mark.parametrize("body", [b"", b"{}", b'{"request": null}', b'{"request": {}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_review_is_told_so_since_no_pod_waits_for_it(webhook: Webhook, body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="the body cannot be read"):
        webhook.answer(body)


quantities = st.dictionaries(st.sampled_from(["cpu", "memory", RESOURCE]), st.sampled_from(["1", 1]), max_size=3)
resources = st.none() | st.fixed_dictionaries(
    {}, optional={"requests": st.none() | quantities, "limits": st.none() | quantities}
)
containers = st.fixed_dictionaries({"name": st.just("c")}, optional={"resources": resources})
volumes = st.sampled_from([*using("ours", "theirs", "later"), *ephemeral(storageClassName="fast")])


@settings(max_examples=200, deadline=None)
@given(
    spec=st.fixed_dictionaries(
        {"containers": st.lists(containers, min_size=1, max_size=2)},
        optional={"initContainers": st.lists(containers, max_size=2), "volumes": st.lists(volumes, max_size=2)},
    )
)
def test_every_patch_applies_and_adds_the_mark_and_nothing_else(spec: Json) -> None:
    before: Json = {"spec": spec}
    after = mutated(Webhook(View()), before)
    first: Any = after["spec"]["containers"][0].get("resources") or {}
    if after != before:
        assert first["requests"][RESOURCE] == first["limits"][RESOURCE] == "1"
        for part in ("requests", "limits"):
            kept = {key: value for key, value in first[part].items() if key != RESOURCE}
            assert kept == ((before["spec"]["containers"][0].get("resources") or {}).get(part) or {})
    assert mutated(Webhook(View()), after) == after
