"""The controller's answers: sizes that are true, lists that are whole, codes that the sidecars act on rightly."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from tests.contract.faults import until
from tests.contract.sites import CLASS, Site
from tests.csi.drivers import NODE, SMALL_BYTES, Driver, HereServed
from tests.csi.kubelet import MIB, Client, Kubelet, block, code_of, creation, mounted, of_snapshot, refusal_of
from ullage.pb.csi.v1 import csi_pb2 as pb

ANYWHERE = pytest.mark.only_on("file", "thick", "thin")
pytestmark = pytest.mark.only_on("file")
ON_LVM_TOO = pytest.mark.only_on("file", "thick")
KEY = "ullage.io/device-class"


@ANYWHERE
def test_the_capacity_that_is_told_can_be_had_and_one_step_more_cannot(site: Site, services: HereServed) -> None:
    client, step = services.client, site.step_bytes
    before = client.capacity(**{KEY: CLASS, "csi.storage.k8s.io/fstype": "xfs"})
    assert before == client.capacity() == client.capacity(**{KEY: CLASS})
    client.create("pvc-a", SMALL_BYTES)
    after = client.capacity()
    assert after.available_capacity == before.available_capacity - SMALL_BYTES
    largest = after.maximum_volume_size.value
    assert largest % step == 0
    assert SMALL_BYTES < largest <= after.available_capacity
    assert code_of(lambda: client.create("pvc-b", largest + step)) is StatusCode.RESOURCE_EXHAUSTED
    assert site.truth().sizes == {"pvc-a": SMALL_BYTES}
    assert client.capacity() == after
    assert client.create("pvc-b", largest).capacity_bytes == largest
    assert site.truth().sizes["pvc-b"] == largest
    assert code_of(lambda: client.create("pvc-c", client.capacity().maximum_volume_size.value + step)) is (
        StatusCode.RESOURCE_EXHAUSTED
    )
    client.delete("pvc-a")
    client.delete("pvc-b")
    until(lambda: client.capacity() == before)  # what is given back is seen with the next look


def test_there_is_no_room_where_there_is_nothing(services: HereServed) -> None:
    """An error would be asked again, item by item, with back-off."""
    node = pb.Topology(segments={"ullage.io/node": NODE})
    other = pb.Topology(segments={"ullage.io/node": "elsewhere"})
    neither = pb.Topology(segments={"topology.kubernetes.io/zone": "a"})
    multi = pb.VolumeCapability(mount={}, access_mode={"mode": "MULTI_NODE_MULTI_WRITER"})
    nowhere = [
        pb.GetCapacityRequest(accessible_topology=other),
        pb.GetCapacityRequest(accessible_topology=neither),
        pb.GetCapacityRequest(parameters={KEY: "unknown"}),
        pb.GetCapacityRequest(parameters={KEY: "No/Class at all"}),
        pb.GetCapacityRequest(volume_capabilities=[multi]),
    ]
    for request in nowhere:
        answer = services.client.controller.GetCapacity(request)
        assert (answer.available_capacity, answer.maximum_volume_size.value) == (0, 0), request
        assert answer.HasField("maximum_volume_size")
    here = services.client.controller.GetCapacity(pb.GetCapacityRequest(accessible_topology=node))
    assert here == services.client.capacity()


def test_every_volume_is_on_some_page_though_others_come_and_go_meanwhile(services: HereServed) -> None:
    client, step = services.client, 8 * MIB
    first = [f"pvc-{number:02}" for number in range(0, 20, 2)]
    for name in reversed(first):
        client.create(name, step)
    seen: list[str] = []
    token, come_and_go = "", iter([("pvc-05", "pvc-00"), ("pvc-01", "pvc-16"), ("pvc-19", "pvc-06"), ("", "")])
    while True:
        page = client.controller.ListVolumes(pb.ListVolumesRequest(max_entries=3, starting_token=token))
        assert 0 < len(page.entries) <= 3
        seen += [entry.volume.volume_id for entry in page.entries]
        token = page.next_token
        if not token:
            break
        new, gone = next(come_and_go, ("", ""))
        if new:
            client.create(new, step)
            client.delete(gone)
    assert seen == sorted(set(seen))
    stayed = set(first) - {"pvc-00", "pvc-16", "pvc-06"}
    assert stayed <= set(seen)
    assert set(client.ids()) == (stayed | {"pvc-05", "pvc-01", "pvc-19"})
    assert len(client.ids()) == 10
    exact = client.controller.ListVolumes(pb.ListVolumesRequest(max_entries=10))
    assert (len(exact.entries), exact.next_token) == (10, "")
    for bad, code in (("no token", StatusCode.ABORTED), ("5", StatusCode.ABORTED)):
        request = pb.ListVolumesRequest(starting_token=bad)
        assert code_of(lambda request=request: client.controller.ListVolumes(request)) is code  # type: ignore[misc]
    negative = pb.ListVolumesRequest(max_entries=-1)
    assert code_of(lambda: client.controller.ListVolumes(negative)) is StatusCode.INVALID_ARGUMENT


@ON_LVM_TOO
def test_a_name_is_one_volume_and_what_differs_is_refused(site: Site, services: HereServed) -> None:
    client, conflict, bad = services.client, StatusCode.ALREADY_EXISTS, StatusCode.INVALID_ARGUMENT
    first = client.create("pvc-a", SMALL_BYTES, limit_bytes=2 * SMALL_BYTES)
    assert client.create("pvc-a", SMALL_BYTES, limit_bytes=2 * SMALL_BYTES) == first
    assert client.create("pvc-a", SMALL_BYTES // 2) == first
    assert client.create("pvc-a", SMALL_BYTES, nodes=(NODE, "elsewhere")) == first
    refused = {
        "larger": creation("pvc-a", 2 * SMALL_BYTES),
        "below a limit": creation("pvc-a", 0, SMALL_BYTES // 2),
        "elsewhere": creation("pvc-a", SMALL_BYTES, nodes=("elsewhere",)),
    }
    for what, request in refused.items():
        assert code_of(lambda request=request: client.controller.CreateVolume(request)) is conflict, what  # type: ignore[misc]
    answers = {
        "unknown class": (creation("pvc-b", SMALL_BYTES, device_class="other"), bad),
        "unknown parameter": (_with(creation("pvc-b", SMALL_BYTES), "clas", "main"), bad),
        "unknown attribute": (creation("pvc-b", SMALL_BYTES, mutable={"wipes": "zero"}), bad),
        "unknown wipe": (creation("pvc-b", SMALL_BYTES, mutable={"wipe": "never"}), bad),
        "unknown file system": (creation("pvc-b", SMALL_BYTES, fs_type="ntfs"), bad),
        "limit below size": (creation("pvc-b", 2 * SMALL_BYTES, SMALL_BYTES), bad),
        "limit below xfs": (creation("pvc-b", 0, SMALL_BYTES, fs_type="xfs"), StatusCode.OUT_OF_RANGE),
        "limit below ext4": (creation("pvc-b", MIB, MIB), StatusCode.OUT_OF_RANGE),
        "above an exbibyte": (creation("pvc-b", (1 << 63) - 1), StatusCode.OUT_OF_RANGE),
        "negative": (creation("pvc-b", -1), bad),
        "elsewhere": (creation("pvc-b", SMALL_BYTES, nodes=("elsewhere",)), StatusCode.RESOURCE_EXHAUSTED),
        "both wrong": (creation("pvc-b", 0, SMALL_BYTES, fs_type="xfs", mutable={"wipe": "never"}), bad),
        "no snapshot's id": (creation("pvc-b", SMALL_BYTES, source=of_snapshot("pvc-a")), StatusCode.NOT_FOUND),
    }
    for what, (request, code) in answers.items():
        assert code_of(lambda request=request: client.controller.CreateVolume(request)) is code, what  # type: ignore[misc]
    assert site.truth().sizes == {"pvc-a": SMALL_BYTES}
    assert client.ids() == ["pvc-a"]


def test_a_size_that_a_file_system_needs_is_given_unasked(services: HereServed) -> None:
    made = services.client.create("pvc-a", 0, 400 * MIB, fs_type="xfs")
    assert 300 * MIB <= made.capacity_bytes <= 400 * MIB
    assert services.client.create("pvc-b", MIB).capacity_bytes == 8 * MIB


@ON_LVM_TOO
def test_growth_is_as_the_resizer_reads_it(site: Site, services: HereServed) -> None:
    client = services.client
    client.create("pvc-a", SMALL_BYTES)
    assert client.expand("pvc-a", SMALL_BYTES // 2).capacity_bytes == SMALL_BYTES
    assert code_of(lambda: client.expand("pvc-a", -1)) is StatusCode.INVALID_ARGUMENT
    assert code_of(lambda: client.expand("pvc-a", 1 << 62)) is StatusCode.OUT_OF_RANGE
    assert code_of(lambda: client.expand("pvc-x", SMALL_BYTES)) is StatusCode.NOT_FOUND
    largest = client.capacity().maximum_volume_size.value
    too_large = SMALL_BYTES + largest + site.step_bytes
    assert code_of(lambda: client.expand("pvc-a", too_large)) is StatusCode.OUT_OF_RANGE
    missing = pb.ControllerExpandVolumeRequest(volume_id="pvc-a")
    assert code_of(lambda: client.controller.ControllerExpandVolume(missing)) is StatusCode.INVALID_ARGUMENT
    as_block = pb.ControllerExpandVolumeRequest(
        volume_id="pvc-a", capacity_range=pb.CapacityRange(required_bytes=2 * SMALL_BYTES), volume_capability=block()
    )
    answer = client.controller.ControllerExpandVolume(as_block)
    assert (answer.capacity_bytes, answer.node_expansion_required) == (2 * SMALL_BYTES, False)
    assert site.truth().sizes == {"pvc-a": 2 * SMALL_BYTES}


def test_what_is_confirmed_is_what_was_asked(services: HereServed) -> None:
    client = services.client
    client.create("pvc-a", SMALL_BYTES)
    asked = {
        "volume_capabilities": [mounted("xfs", "noatime"), mounted("xfs")],
        "parameters": {KEY: CLASS},
        "mutable_parameters": {"wipe": "zero"},
    }
    confirmed = client.controller.ValidateVolumeCapabilities(
        pb.ValidateVolumeCapabilitiesRequest(volume_id="pvc-a", **asked)  # type: ignore[arg-type]
    ).confirmed
    assert list(confirmed.volume_capabilities) == asked["volume_capabilities"]
    assert (dict(confirmed.parameters), dict(confirmed.mutable_parameters)) == ({KEY: CLASS}, {"wipe": "zero"})
    multi = pb.VolumeCapability(mount={}, access_mode={"mode": "MULTI_NODE_MULTI_WRITER"})
    both = {"volume_capabilities": [mounted(), block()]}
    for more in ({"volume_capabilities": [multi]}, both, {**asked, "parameters": {KEY: "other"}}):
        refused = client.controller.ValidateVolumeCapabilities(
            pb.ValidateVolumeCapabilitiesRequest(volume_id="pvc-a", **more)
        )
        assert not refused.HasField("confirmed")
        assert refused.message


@ON_LVM_TOO
def test_a_lost_store_is_no_missing_volume(site: Site, driver: Driver, kubelet: Kubelet) -> None:
    """A directory that is not mounted says nothing of what is on it: NOT_FOUND would leak, OK would lose."""
    kubelet.client.create("pvc-a", SMALL_BYTES)
    with site.lose_store():
        for ask in (
            lambda: kubelet.client.delete("pvc-a"),
            lambda: kubelet.client.delete("pvc-b"),
            lambda: kubelet.client.expand("pvc-a", 2 * SMALL_BYTES),
        ):
            code, sentence = refusal_of(ask)
            assert code is StatusCode.UNAVAILABLE, sentence
    driver.end()
    driver.start()
    kubelet.client.delete("pvc-a")
    assert site.truth().sizes == {}


def test_what_is_not_offered_is_unimplemented(services: HereServed) -> None:
    client: Client = services.client
    unimplemented = StatusCode.UNIMPLEMENTED
    asks = (
        lambda: client.controller.ControllerPublishVolume(pb.ControllerPublishVolumeRequest()),
        lambda: client.controller.ControllerListVolumeHealth(pb.ControllerListVolumeHealthRequest()),
        lambda: client.node.NodeGetStorageHealth(pb.NodeGetStorageHealthRequest()),
    )
    assert [code_of(ask) for ask in asks] == [unimplemented] * len(asks)


def _with(request: pb.CreateVolumeRequest, key: str, value: str) -> pb.CreateVolumeRequest:
    request.parameters[key] = value
    return request
