"""The API server in memory keeps to the rules of the real one that the product relies on."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.kube_doubles import ApiServer
from ullage.errors import (
    ApiConflictError,
    ApiExistsError,
    ApiGoneError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnavailableError,
)
from ullage.kube.api import Api, PatchKind
from ullage.kube.logical_volume import FINALIZER, LogicalVolume, Phase, order
from ullage.kube.meta import LOGICAL_VOLUMES
from ullage.model import CreateVolume, DeviceClassName, NodeName, VolumeId


def volume(name: str = "v", node: str = "n1") -> LogicalVolume:
    request = CreateVolume(volume_id=VolumeId(name), device_class=DeviceClassName("fast"), size_bytes=1 << 30)
    return order(request, NodeName(node))


def decoded(text: bytes) -> LogicalVolume:
    return msgspec.json.decode(text, type=LogicalVolume)


def test_a_status_is_written_by_its_subresource_alone_and_moves_no_generation() -> None:
    api = Api(ApiServer())
    made = decoded(api.create(LOGICAL_VOLUMES, volume()))
    body = {"status": {"phase": "Ready"}, "spec": {"sizeBytes": 7}}
    shown = decoded(api.patch(LOGICAL_VOLUMES, "v", body, subresource="status"))
    assert (shown.status.phase, shown.spec.size_bytes, shown.metadata.generation) == (Phase.READY, 1 << 30, 1)
    grown = decoded(api.patch(LOGICAL_VOLUMES, "v", {"status": {"phase": "Failed"}, "spec": {"sizeBytes": 7}}))
    assert (grown.status.phase, grown.spec.size_bytes, grown.metadata.generation) == (Phase.READY, 7, 2)
    assert int(grown.metadata.resource_version) > int(made.metadata.resource_version)


def test_one_with_a_finalizer_goes_when_that_is_taken_off() -> None:
    server = ApiServer()
    api = Api(server)
    made = decoded(api.create(LOGICAL_VOLUMES, volume()))
    with pytest.raises(ApiConflictError):
        api.delete(LOGICAL_VOLUMES, "v", uid="another")
    api.delete(LOGICAL_VOLUMES, "v", uid=made.metadata.uid)
    condemned = decoded(api.get(LOGICAL_VOLUMES, "v"))
    assert (condemned.is_condemned, condemned.metadata.generation) == (True, 2)
    with pytest.raises(ApiExistsError):
        api.create(LOGICAL_VOLUMES, volume())
    steps = [{"op": "test", "path": "/metadata/finalizers/0", "value": FINALIZER}]
    steps.append({"op": "remove", "path": "/metadata/finalizers/0"})
    api.patch(LOGICAL_VOLUMES, "v", steps, kind=PatchKind.JSON)
    with pytest.raises(ApiNotFoundError):
        api.get(LOGICAL_VOLUMES, "v")


def test_what_has_changed_since_is_not_written_over() -> None:
    api = Api(ApiServer())
    made = decoded(api.create(LOGICAL_VOLUMES, volume()))
    body = {"metadata": {"resourceVersion": made.metadata.resource_version}, "spec": {"sizeBytes": 7}}
    api.patch(LOGICAL_VOLUMES, "v", body)
    with pytest.raises(ApiConflictError):
        api.patch(LOGICAL_VOLUMES, "v", body)


def test_a_watch_tells_of_its_own_from_a_moment_on_and_of_nothing_that_is_forgotten() -> None:
    server = ApiServer()
    api = Api(server)
    page = msgspec.json.decode(api.page(LOGICAL_VOLUMES))
    api.create(LOGICAL_VOLUMES, volume("a", "n1"))
    api.create(LOGICAL_VOLUMES, volume("b", "n2"))
    since = page["metadata"]["resourceVersion"]
    selectors = {"fieldSelector": "spec.nodeName=n2"}

    def watch() -> list[str]:
        with api.watch(LOGICAL_VOLUMES, selectors=selectors, since=since, seconds=0, silence_seconds=9) as lines:
            events = [msgspec.json.decode(each) for each in lines]
        return [f"{each['type']} {each['object']['metadata']['name']}" for each in events]

    assert watch() == ["ADDED b"]
    server.remove(LOGICAL_VOLUMES, "b")
    assert watch() == ["ADDED b", "DELETED b"]
    server.compact()
    with pytest.raises(ApiGoneError):
        watch()


def test_pages_are_of_one_moment() -> None:
    server = ApiServer()
    api = Api(server)
    for number in range(501):
        server.put(LOGICAL_VOLUMES, volume(f"v{number:03}"))
    first = msgspec.json.decode(api.page(LOGICAL_VOLUMES))
    server.remove(LOGICAL_VOLUMES, "v500")
    rest = msgspec.json.decode(api.page(LOGICAL_VOLUMES, after=first["metadata"]["continue"]))
    assert [each["metadata"]["name"] for each in rest["items"]] == ["v500"]
    assert rest["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


def test_one_that_is_down_answers_nobody_and_rules_refuse() -> None:
    server = ApiServer()
    api = Api(server)

    def refuse(_before: object, _after: object) -> None:
        raise ApiInvalidError("no")

    server.admit = refuse
    with pytest.raises(ApiInvalidError):
        api.create(LOGICAL_VOLUMES, volume())
    server.go_down()
    with pytest.raises(ApiUnavailableError):
        api.page(LOGICAL_VOLUMES)
