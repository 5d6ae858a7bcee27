"""An extender that is started while nobody tells it anything, and one that nobody tells anything any more."""

from __future__ import annotations

import urllib.error
import urllib.request
from http import HTTPStatus

from tests.cluster.extender.crowd import Crowd
from tests.cluster.scene import until
from tests.rigs.cluster.control_plane import API_SERVER
from tests.rigs.cluster.process import Answers


def status(crowd: Crowd, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{crowd.extender.http}{path}") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code


def test_an_extender_is_not_ready_before_it_knows_the_cluster_and_goes_on_without_the_api_server_once_it_does(
    crowd: Crowd,
) -> None:
    plane, process = crowd.scene.plane, crowd.extender.process
    crowd.make("before")
    crowd.scene.wait_bound("before-fast")
    plane.kill(API_SERVER)
    try:
        assert status(crowd, "/readyz") == HTTPStatus.OK
        process.kill()
        process.begin()
        until(Answers(f"http://{crowd.extender.http}/healthz"), process.tail)
        assert status(crowd, "/readyz") == HTTPStatus.SERVICE_UNAVAILABLE
    finally:
        plane.start(API_SERVER)
    process.wait_until_ready()
    crowd.make("after")
    crowd.scene.wait_bound("after-fast")
