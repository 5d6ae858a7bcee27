"""The webhook that we ship, called by the real API server: Pods with claims are marked, and none is kept from being."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import things
from tests.cluster.extender.crowd import MARK, SECOND, VOLUME_BYTES, Crowd
from tests.cluster.kubelet import PODS
from tests.cluster.scene import until
from tests.rigs.cluster import ours
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.manifests import MANIFESTS, apply_object, read
from tests.rigs.cluster.ours import Extender
from tests.rigs.cluster.scheduler import DEFAULT_NAME

KIND = "MutatingWebhookConfiguration"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"


@pytest.fixture(name="webhook")
def called_for_pods_of_the_second_scheduler(crowd: Crowd, tmp_path: Path) -> Iterator[Extender]:
    """It is configured as we ship it, but for where it is and for the scheduler that is meant."""
    plane = crowd.scene.plane
    kubeconfig = plane.kubeconfig_for(ours.NAMESPACE, "ullage-extender")
    webhook = ours.webhook(tmp_path, kubeconfig, plane.certificate, plane.key)
    (configuration,) = (each for each in read(MANIFESTS / "optional" / "webhook.yaml") if each["kind"] == KIND)
    (called,) = configuration["webhooks"]
    called["clientConfig"] = {
        "url": f"https://{webhook.http}{called['clientConfig']['service']['path']}",
        "caBundle": base64.b64encode(plane.certificate.read_bytes()).decode(),
    }
    for each in called["matchConditions"]:
        each["expression"] = each["expression"].replace(DEFAULT_NAME, SECOND)
    try:
        webhook.process.start()
        apply_object(crowd.scene.objects, configuration)
        yield webhook
    finally:
        crowd.scene.delete(f"{CONFIGURATIONS}/{configuration['metadata']['name']}")
        webhook.process.kill()


def made(crowd: Crowd, name: str) -> Json:
    """A Pod with a claim, as the API server has made it."""
    crowd.scene.claim(name, str(VOLUME_BYTES))
    pod = things.pod(name, [name])
    pod["spec"]["schedulerName"] = SECOND
    return crowd.scene.objects.create(PODS, pod)


def marked(crowd: Crowd, name: str) -> str:
    """The name, if that Pod is; of a new webhook the API server hears a little later."""
    return name if is_marked(made(crowd, name)) else ""


def is_marked(pod: Json) -> bool:
    return MARK in pod["spec"]["containers"][0].get("resources", {}).get("requests", {})


def test_a_pod_with_a_claim_is_marked_and_placed_and_is_made_although_nobody_answers_for_the_webhook(
    crowd: Crowd, webhook: Extender
) -> None:
    names = (f"marked-{number}" for number in range(100))
    name = until(lambda: marked(crowd, next(names)), lambda: "no mark")
    crowd.scene.place_of(name)
    crowd.scene.wait_bound(name)
    webhook.process.kill()
    assert not is_marked(made(crowd, "without"))
    crowd.scene.place_of("without")
    crowd.scene.wait_bound("without")
