"""What each message to the controller becomes, and why it is refused."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from csi.orders import controller as orders
from csi.orders import node
from csi.parameters import topology
from tests.unit.csi_doubles import ROX, block, mounted, snapshot_source, volume_source
from ullage.errors import (
    GIB,
    MIB,
    TIB,
    InvalidRequestError,
    InvalidTokenError,
    NotFoundError,
    OutOfRangeError,
    UllageError,
    UnsupportedError,
)
from ullage.model import DeviceClassName, NodeName, Owner, VolumeId, Wipe
from ullage.names import check_volume_id, frozen_id, snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb

CLASS = "ullage.io/device-class"
SIDECAR = "csi.storage.k8s.io"
NODE = NodeName("node-1")
EXBIBYTE = 1 << 60
SNAPSHOT, FROZEN = snapshot_id("nightly"), frozen_id(VolumeId("pvc-1"))


def between(required: int, limit: int = 0) -> pb.CapacityRange:
    return pb.CapacityRange(required_bytes=required, limit_bytes=limit)


def create(**fields: object) -> orders.Create:
    """A creation that is right, but for these fields."""
    right: dict[str, object] = {"name": "pvc-1", "volume_capabilities": [mounted()]}
    return orders.create(pb.CreateVolumeRequest(**{**right, **fields}))  # type: ignore[arg-type] # what is under test


def test_a_creation_that_says_the_least_leaves_the_rest_to_us() -> None:
    assert create() == orders.Create(
        volume_id=VolumeId("pvc-1"),
        device_class=None,
        source=None,
        size_bytes=GIB,
        limit_bytes=0,
        wipe=None,
        owner=Owner(),
        nodes=(),
    )


def test_a_creation_as_external_provisioner_sends_it() -> None:
    order = create(
        capacity_range=between(5 * GIB, 6 * GIB),
        volume_capabilities=[mounted("xfs", "noatime"), mounted("xfs")],
        parameters={
            CLASS: "fast",
            f"{SIDECAR}/pv/name": "pvc-1",
            f"{SIDECAR}/pvc/name": "data",
            f"{SIDECAR}/pvc/namespace": "db",
            f"{SIDECAR}/fstype": "xfs",
        },
        mutable_parameters={"wipe": "zero"},
        accessibility_requirements=pb.TopologyRequirement(requisite=[topology(NODE)], preferred=[topology(NODE)]),
        secrets={"key": "nobody reads it"},
    )
    assert order == orders.Create(
        volume_id=VolumeId("pvc-1"),
        device_class=DeviceClassName("fast"),
        source=None,
        size_bytes=5 * GIB,
        limit_bytes=6 * GIB,
        wipe=Wipe.ZERO,
        owner=Owner(pv_name="pvc-1", claim_namespace="db", claim_name="data"),
        nodes=(NODE,),
    )


@pytest.mark.parametrize("name", ["x" * 128, "é" * 64, "a\nb", "a\0b", "../../etc/passwd", "-rf"])
def test_any_name_within_the_limit_makes_an_id_that_is_safe_everywhere(name: str) -> None:
    order = create(name=name)
    assert check_volume_id(order.volume_id) == order.volume_id == create(name=name).volume_id


@pytest.mark.parametrize(
    ("use", "required", "limit", "size_bytes"),
    [
        (mounted(), 0, 0, GIB),
        (mounted(), 0, 5 * GIB, GIB),
        (mounted(), 0, 100 * MIB, 100 * MIB),
        (mounted(), 10 * MIB, 20 * MIB, 10 * MIB),
        (mounted(), 10 * MIB, 10 * MIB, 10 * MIB),
        (mounted(), 1, 0, 8 * MIB),
        (mounted("xfs"), 1, 0, 300 * MIB),
        (mounted("xfs"), 1, 300 * MIB, 300 * MIB),
        (block(), 1, 0, 1),
        (block(), 0, 1, 1),
        (block(), EXBIBYTE, 0, EXBIBYTE),
    ],
)
def test_a_size_is_what_is_required_or_fits_the_limit_or_what_the_file_system_needs(
    use: pb.VolumeCapability, required: int, limit: int, size_bytes: int
) -> None:
    order = create(volume_capabilities=[use], capacity_range=between(required, limit))
    assert (order.size_bytes, order.limit_bytes) == (size_bytes, limit)


@pytest.mark.parametrize(
    ("use", "required", "limit", "sentence"),
    [
        (mounted("xfs"), 0, 300 * MIB - 1, "The file system needs 314572800 bytes at least, the limit is 314572799"),
        (mounted(), 1, 1, "The file system needs 8388608 bytes at least, the limit is 1"),
        (block(), EXBIBYTE + 1, 0, "1152921504606846977 bytes are wanted; 1152921504606846976 are the most"),
        (block(), (1 << 63) - 1, 0, "are the most"),
    ],
)
def test_a_size_that_can_never_be_is_out_of_range(
    use: pb.VolumeCapability, required: int, limit: int, sentence: str
) -> None:
    with pytest.raises(OutOfRangeError, match=sentence):
        create(volume_capabilities=[use], capacity_range=between(required, limit))


@pytest.mark.parametrize(
    ("capacity", "sentence"),
    [
        (between(-1), "A capacity of -1 to 0 bytes is impossible"),
        (between(0, -1), "A capacity of 0 to -1 bytes is impossible"),
        (between(-(1 << 63), -(1 << 63)), "is impossible"),
        (between(2, 1), "The limit of 1 bytes is below the 2 bytes required"),
        (between(EXBIBYTE + 1, 1), "is below"),
    ],
)
def test_a_range_that_nothing_is_in_is_refused_wherever_a_size_is_asked_for(
    capacity: pb.CapacityRange, sentence: str
) -> None:
    asks: list[Callable[[], object]] = [
        lambda: create(capacity_range=capacity),
        lambda: orders.expand(pb.ControllerExpandVolumeRequest(volume_id="pvc-1", capacity_range=capacity)),
        lambda: node.grow(pb.NodeExpandVolumeRequest(volume_id="pvc-1", volume_path="/t", capacity_range=capacity)),
    ]
    for ask in asks:
        with pytest.raises(InvalidRequestError, match=sentence):
            ask()


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"name": ""}, InvalidRequestError, "name is missing"),
        ({"name": "x" * 129}, InvalidRequestError, "name has 129 bytes, 128 are the most"),
        ({"volume_capabilities": []}, InvalidRequestError, "volume_capabilities is missing"),
        ({"volume_capabilities": [mounted(), pb.VolumeCapability()]}, InvalidRequestError, "no access mode"),
        ({"volume_capabilities": [mounted(), block()]}, InvalidRequestError, "cannot be ext4 and a device"),
        ({"volume_capabilities": [mounted("xfs"), mounted()]}, InvalidRequestError, "cannot be xfs and ext4"),
        ({"volume_capabilities": [mounted("ntfs")]}, InvalidRequestError, "File system 'ntfs' is none of ext4, xfs"),
        ({"volume_capabilities": [mounted(mode=ROX)]}, UnsupportedError, "MULTI_NODE_READER_ONLY is not possible"),
        ({"parameters": {"device-class": "fast"}}, InvalidRequestError, "'device-class' is no parameter"),
        ({"parameters": {CLASS: "Fast!"}}, InvalidRequestError, "'Fast!' cannot be a class name"),
        ({"parameters": {CLASS: ""}}, InvalidRequestError, "'' cannot be a class name"),
        ({"parameters": {f"{SIDECAR}/x": "y" * 5000}}, InvalidRequestError, "parameters has 5020 bytes, 4096 are"),
        ({"parameters": {f"{SIDECAR}/pvc/name": "a b"}}, InvalidRequestError, "The owner's claim name: 'a b'"),
        ({"mutable_parameters": {CLASS: "fast"}}, InvalidRequestError, "is no mutable parameter; there are: wipe"),
        ({"mutable_parameters": {"wipe": "twice"}}, InvalidRequestError, "'twice' is no wipe policy"),
        (
            {"accessibility_requirements": pb.TopologyRequirement(requisite=[pb.Topology(segments={"zone": "a"})])},
            InvalidRequestError,
            "A topology without the key ullage.io/node",
        ),
        ({"volume_content_source": pb.VolumeContentSource()}, InvalidRequestError, "neither a snapshot nor a volume"),
        ({"volume_content_source": snapshot_source("")}, InvalidRequestError, "source.snapshot.snapshot_id is missing"),
        ({"volume_content_source": volume_source("")}, InvalidRequestError, "source.volume.volume_id is missing"),
        ({"volume_content_source": snapshot_source("x" * 129)}, InvalidRequestError, "has 129 bytes"),
        ({"volume_content_source": snapshot_source("pvc-0")}, NotFoundError, "No snapshot has the id 'pvc-0'"),
        ({"volume_content_source": snapshot_source("s-x")}, NotFoundError, "No snapshot has the id 's-x'"),
        ({"volume_content_source": snapshot_source(FROZEN)}, NotFoundError, "No snapshot has the id"),
        ({"volume_content_source": volume_source("a b")}, NotFoundError, "No volume has the id 'a b'"),
        ({"volume_content_source": volume_source(SNAPSHOT)}, NotFoundError, "it is a snapshot's"),
        ({"volume_content_source": volume_source(FROZEN)}, NotFoundError, "it is a frozen's"),
    ],
)
def test_a_creation_is_refused_with_what_is_wrong_with_it(
    fields: dict[str, object], error: type[UllageError], sentence: str
) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        create(**fields)


@pytest.mark.parametrize(
    ("source", "id_of_it"), [(snapshot_source(SNAPSHOT), SNAPSHOT), (volume_source("pvc-0"), VolumeId("pvc-0"))]
)
def test_what_begins_as_another_is_as_large_as_that_unless_a_size_is_named(
    source: pb.VolumeContentSource, id_of_it: VolumeId
) -> None:
    unsized = create(volume_content_source=source)
    assert (unsized.source, unsized.size_bytes, unsized.limit_bytes) == (id_of_it, 0, 0)
    limited = create(volume_content_source=source, capacity_range=between(0, GIB))
    assert (limited.size_bytes, limited.limit_bytes) == (0, GIB)
    for use, required, size_bytes in ((mounted(), 1, 8 * MIB), (mounted(), GIB, GIB), (block(), 1, 1)):
        sized = create(volume_content_source=source, volume_capabilities=[use], capacity_range=between(required))
        assert (sized.source, sized.size_bytes) == (id_of_it, size_bytes)


def test_what_is_impossible_is_told_before_what_is_too_large() -> None:
    """OUT_OF_RANGE would be taken for the only fault."""
    with pytest.raises(InvalidRequestError):
        create(parameters={"typo": "x"}, capacity_range=between(EXBIBYTE + 1))


@pytest.mark.parametrize(
    ("capacity", "size_bytes", "limit_bytes"),
    [(between(0), 1, 0), (between(TIB), TIB, 0), (between(GIB, TIB), GIB, TIB), (between(0, GIB), 1, GIB)],
)
def test_growth_is_to_what_is_required_and_never_asks_for_nothing(
    capacity: pb.CapacityRange, size_bytes: int, limit_bytes: int
) -> None:
    for use, is_block in ((None, False), (mounted(), False), (block(), True)):
        request = pb.ControllerExpandVolumeRequest(volume_id="pvc-1", capacity_range=capacity, volume_capability=use)
        assert orders.expand(request) == orders.Expand(
            volume_id=VolumeId("pvc-1"), size_bytes=size_bytes, limit_bytes=limit_bytes, is_block=is_block
        )


@pytest.mark.parametrize(("mutable", "wipe"), [({}, None), *(({"wipe": policy.value}, policy) for policy in Wipe)])
def test_a_modification_is_the_policy_that_is_named_or_none(mutable: dict[str, str], wipe: Wipe | None) -> None:
    request = pb.ControllerModifyVolumeRequest(volume_id="pvc-1", mutable_parameters=mutable)
    assert orders.modify(request) == orders.Modify(volume_id=VolumeId("pvc-1"), wipe=wipe)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"volume_capabilities": [mounted(), mounted("ntfs")]}, "File system 'ntfs'"),
        ({"volume_capabilities": [mounted(mode=ROX)]}, "MULTI_NODE_READER_ONLY is not possible"),
        ({"volume_capabilities": [mounted(), block()]}, "One volume cannot be ext4 and a device"),
        ({"parameters": {"typo": "x"}}, "'typo' is no parameter"),
        ({"parameters": {CLASS: "Fast!"}}, "'Fast!' cannot be a class name"),
        ({"mutable_parameters": {"wipe": "twice"}}, "'twice' is no wipe policy"),
    ],
)
def test_what_a_volume_cannot_be_used_for_is_an_answer_and_no_error(fields: dict[str, object], refusal: str) -> None:
    right: dict[str, object] = {"volume_id": "pvc-1", "volume_capabilities": [mounted()]}
    request = pb.ValidateVolumeCapabilitiesRequest(**{**right, **fields})  # type: ignore[arg-type] # what is under test
    assert refusal in orders.validate(request).refusal


def test_what_can_be_confirmed_is_repeated_word_for_word() -> None:
    words = pb.ValidateVolumeCapabilitiesResponse.Confirmed(
        volume_context={"a": "b"},
        volume_capabilities=[mounted("xfs", "noatime"), mounted("xfs")],
        parameters={CLASS: "fast"},
        mutable_parameters={"wipe": "none"},
    )
    request = pb.ValidateVolumeCapabilitiesRequest(
        volume_id="pvc-1",
        volume_context=words.volume_context,
        volume_capabilities=words.volume_capabilities,
        parameters=words.parameters,
        mutable_parameters=words.mutable_parameters,
    )
    assert orders.validate(request) == orders.Validate(
        volume_id=VolumeId("pvc-1"), refusal="", device_class=DeviceClassName("fast"), asked=words
    )


@pytest.mark.parametrize(
    ("token", "most", "order"),
    [
        ("", 0, orders.Page(after="", most=orders.MOST_ENTRIES)),
        ("", 3, orders.Page(after="", most=3)),
        ("", (1 << 31) - 1, orders.Page(after="", most=orders.MOST_ENTRIES)),
        (orders.token(VolumeId("pvc-1")), 3, orders.Page(after="pvc-1", most=3)),
        (orders.token(VolumeId("after:")), 3, orders.Page(after="after:", most=3)),
    ],
)
def test_a_page_begins_where_the_token_says_and_has_an_end(token: str, most: int, order: orders.Page) -> None:
    for request in (pb.ListVolumesRequest, pb.ControllerListVolumeHealthRequest, pb.ListSnapshotsRequest):
        assert orders.page(request(starting_token=token, max_entries=most)) == order


def test_a_page_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="max_entries is -1"):
        orders.page(pb.ListVolumesRequest(max_entries=-1))
    with pytest.raises(InvalidTokenError, match="'pvc-1' is no token of ours; begin without one"):
        orders.page(pb.ListVolumesRequest(starting_token="pvc-1"))  # noqa: S106 - a page's


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (None, None, True)),
        ({"parameters": {CLASS: "fast"}}, ("fast", None, True)),
        ({"parameters": {CLASS: "Fast!"}}, (None, None, False)),
        ({"parameters": {f"{SIDECAR}/fstype": "xfs", "of-another-driver": "x"}}, (None, None, True)),
        ({"volume_capabilities": [mounted(mode=ROX)]}, (None, None, False)),
        ({"volume_capabilities": [mounted("ntfs")]}, (None, None, False)),
        ({"volume_capabilities": [mounted(), mounted()]}, (None, None, True)),
        ({"volume_capabilities": [mounted(), block()]}, (None, None, False)),
        ({"accessible_topology": topology(NODE)}, (None, NODE, True)),
        ({"accessible_topology": pb.Topology(segments={"zone": "a"})}, (None, "", True)),
        ({"accessible_topology": pb.Topology()}, (None, "", True)),
    ],
)
def test_asking_for_room_is_never_an_error_it_would_only_be_asked_again(
    fields: dict[str, object], expected: tuple[str | None, str | None, bool]
) -> None:
    order = orders.room(pb.GetCapacityRequest(**fields))  # type: ignore[arg-type] # what is under test
    assert (order.device_class, order.node, order.is_possible) == expected
