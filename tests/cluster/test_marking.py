"""The webhook as an API server asks it, with the account, the certificate and the configuration of a real cluster."""

from __future__ import annotations

import base64
import copy
import http.client
import itertools
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from tests.rigs.cluster.api import Api
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.manifests import MANIFESTS, apply_object, install, read
from tests.unit.tls_keys import authority, signed

NAMESPACE = "ullage-system"
PATIENCE_SECONDS = 30.0
MARK = {"ullage.io/capacity": "1"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marking:
    """The API server with the webhook, and the process that answers it."""

    api: Api
    process: subprocess.Popen[str]
    address: str
    trusted: Path

    def is_ready(self) -> bool:
        """As a probe asks: without a certificate of its own."""
        context = ssl.create_default_context(cafile=str(self.trusted))
        with closing(http.client.HTTPSConnection(self.address, timeout=30, context=context)) as client:
            client.request("GET", "/readyz")
            return client.getresponse().status == HTTPStatus.OK


@pytest.fixture(scope="module")
def marking(api_only: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marking]:
    folder = tmp_path_factory.mktemp("marking")
    api = api_only.api()
    install(api)
    for namespace in ("default", "kube-system"):
        metadata = {"name": "default", "namespace": namespace}
        apply_object(api, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for each in (storage_class("ours", "ullage.io"), storage_class("theirs", "someone.else")):
        apply_object(api, each)
    ours = authority(folder, "authority")
    pair = signed(folder, "extender", ours)
    words = ("--http", "127.0.0.1:0", "--webhook", "--log-format", "json")
    files = ("--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--client-ca", str(ours.certificate))
    kubeconfig = str(api_only.kubeconfig_for(NAMESPACE, "ullage-extender"))
    with subprocess.Popen(
        (sys.executable, "-m", "ullage.cli", "extender", *words, *files, "--kubeconfig", kubeconfig),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = (json.loads(line) for line in process.stdout)
            address = next(line["address"] for line in told if line["message"] == "serving")
            optional = read(MANIFESTS / "optional" / "webhook.yaml")
            (webhook,) = (each for each in optional if each["kind"] == "MutatingWebhookConfiguration")
            apply_object(api, at_address(webhook, address, ours.certificate))
            yield Marking(api=api, process=process, address=address, trusted=ours.certificate)
        finally:
            process.kill()


def at_address(webhook: Json, address: str, trusted: Path) -> Json:
    """As it is deployed, but for where it is: there are no Services here."""
    found = copy.deepcopy(webhook)
    bundle = base64.b64encode(trusted.read_bytes()).decode()
    found["webhooks"][0]["clientConfig"] = {"url": f"https://{address}/mutate", "caBundle": bundle}
    return found


def storage_class(name: str, provisioner: str) -> Json:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def pod(name: str, of: str = "", **spec: object) -> Json:
    """With a generic ephemeral volume of a StorageClass, or with none."""
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": of, "resources": {"requests": {"storage": "1Gi"}}}
    volumes = [{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}] if of else []
    container = {"name": "c", "image": "c", "resources": {"requests": {"cpu": "10m"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], "volumes": volumes, **spec},
    }


def made(api: Api, of: Json, namespace: str = "default") -> Json:
    """The resources of its container, as the API server keeps them."""
    found = api.create(f"/api/v1/namespaces/{namespace}/pods", of)
    resources: Json = found["spec"]["containers"][0]["resources"]
    return resources


def until(holds: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.1)


def test_the_account_may_read_all_that_is_waited_for(marking: Marking) -> None:
    until(marking.is_ready, "it is never ready")


def test_pods_of_ours_are_marked_and_no_others_and_none_is_ever_refused(marking: Marking) -> None:
    number = itertools.count()
    # The API server hears of a webhook a moment after it is made.
    until(lambda: "limits" in made(marking.api, pod(f"first-{next(number)}", "ours")), "no Pod is ever marked")
    assert made(marking.api, pod("ours", "ours")) == {"requests": {"cpu": "10m", **MARK}, "limits": MARK}
    unmarked = {"requests": {"cpu": "10m"}}
    assert made(marking.api, pod("theirs", "theirs")) == unmarked
    assert made(marking.api, pod("bare")) == unmarked
    assert made(marking.api, pod("system", "ours"), "kube-system") == unmarked
    assert made(marking.api, pod("elsewhere", "ours", schedulerName="another")) == unmarked
    assert made(marking.api, pod("placed", "ours", nodeName="n-1")) == unmarked
    marking.process.kill()
    marking.process.wait()
    assert made(marking.api, pod("while-it-is-down", "ours")) == unmarked
