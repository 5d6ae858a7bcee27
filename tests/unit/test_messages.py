"""Between nouns and messages nothing is lost and nothing made up."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from node_agent.messages import (
    STATES,
    create_request,
    delete_request,
    expand_request,
    pool_message,
    snapshot_request,
    volume_message,
)
from ullage.capacity import largest_volume_bytes
from ullage.errors import GIB, MIB
from ullage.model import (
    CreateVolume,
    DeleteVolume,
    DeviceClassName,
    DeviceType,
    Disk,
    ExpandVolume,
    GroupId,
    Layout,
    Owner,
    PhysicalVolume,
    Pool,
    PoolName,
    Problem,
    StoreName,
    TakeSnapshot,
    ThinUsage,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.pb.agent.v1 import agent_pb2 as pb

words = st.text(max_size=12)
sizes = st.integers(min_value=0, max_value=1 << 60)
problems = st.none() | st.builds(Problem, reason=words, message=words)
volumes = st.builds(
    Volume,
    id=words.map(VolumeId),
    pool=words.map(PoolName),
    store=words.map(StoreName),
    type=st.sampled_from(DeviceType),
    device_class=words.map(DeviceClassName),
    size_bytes=sizes,
    device_size_bytes=sizes,
    state=st.sampled_from(VolumeState),
    wipe=st.sampled_from(Wipe),
    owner=st.builds(Owner, pv_name=words, claim_namespace=words, claim_name=words, claim_uid=words),
    device_path=words,
    device_major=st.integers(min_value=-1, max_value=4095),
    device_minor=st.integers(min_value=-1, max_value=(1 << 20) - 1),
    is_active=st.booleans(),
    is_open=st.booleans(),
    problem=problems,
)
ratios = st.decimals(min_value=0, max_value=1000, places=6).map(Fraction)
percents = st.floats(min_value=0, max_value=100)
thins = st.builds(
    ThinUsage,
    virtual_bytes=sizes,
    data_percent=percents,
    metadata_percent=percents,
    overprovision_ratio=ratios,
    data_guard_percent=st.just(90),
    metadata_guard_percent=st.just(80),
)
pools = st.builds(
    Pool,
    name=words.map(PoolName),
    store=words.map(StoreName),
    type=st.sampled_from(DeviceType),
    classes=st.lists(words.map(DeviceClassName), max_size=3).map(tuple),
    total_bytes=sizes,
    free_bytes=sizes,
    reserve_bytes=sizes,
    extent_bytes=st.sampled_from([1 * MIB, 4 * MIB]),
    physical_volumes=st.lists(st.builds(PhysicalVolume, name=words, free_bytes=sizes), max_size=3).map(tuple),
    thin=st.none() | thins,
    disks=st.lists(st.builds(Disk, name=words, size_bytes=sizes), max_size=3).map(tuple),
    exists=st.booleans(),
    problem=problems,
)


def sent(message: Message) -> Message:
    """As it arrives."""
    return type(message).FromString(message.SerializeToString())


def problem_of(message: pb.Volume | pb.Pool) -> Problem | None:
    if not message.HasField("problem"):
        return None
    return Problem(reason=message.problem.reason, message=message.problem.message)


@given(volumes)
def test_every_field_of_a_volume_survives(volume: Volume) -> None:
    message = volume_message(volume)
    assert sent(message) == message
    owner = message.owner
    assert (message.volume_id, message.device_class, message.pool) == (volume.id, volume.device_class, volume.pool)
    assert (message.size_bytes, message.state) == (volume.size_bytes, STATES[volume.state])
    assert (message.device_path, message.device_major) == (volume.device_path, volume.device_major)
    assert (message.device_minor, message.is_open) == (volume.device_minor, volume.is_open)
    assert volume.owner == Owner(
        pv_name=owner.pv_name,
        claim_namespace=owner.claim_namespace,
        claim_name=owner.claim_name,
        claim_uid=owner.claim_uid,
    )
    assert problem_of(message) == volume.problem


@given(pools)
def test_every_field_of_a_pool_survives(pool: Pool) -> None:
    message = pool_message(pool)
    assert sent(message) == message
    assert (message.name, message.type, tuple(message.device_classes)) == (pool.name, pool.type, pool.classes)
    assert (message.total_bytes, message.free_bytes) == (pool.total_bytes, pool.free_bytes)
    assert (message.reserve_bytes, message.extent_bytes) == (pool.reserve_bytes, pool.extent_bytes)
    assert message.largest_volume_bytes == largest_volume_bytes(pool, Layout())
    assert message.exists == pool.exists
    assert problem_of(message) == pool.problem
    assert pool.physical_volumes == tuple(
        PhysicalVolume(name=each.name, free_bytes=each.free_bytes, scattered_bytes=each.scattered_bytes)
        for each in message.physical_volumes
    )
    assert pool.disks == tuple(Disk(name=each.name, size_bytes=each.size_bytes) for each in message.disks)
    assert message.HasField("thin") == (pool.thin is not None)
    if pool.thin is not None:
        assert message.thin.virtual_bytes == pool.thin.virtual_bytes
        assert message.thin.data_percent == pool.thin.data_percent
        assert message.thin.metadata_percent == pool.thin.metadata_percent
        assert Fraction(message.thin.overprovision_ratio) == pool.thin.overprovision_ratio


VOLUME = Volume(
    id=VolumeId("pvc-1"),
    kind=VolumeKind.SNAPSHOT,
    source=VolumeId("pvc-0"),
    taken_at=1_800_000_000,
    group=GroupId("g-one"),
    filled_bytes=MIB,
    pool=PoolName("vg0"),
    store=StoreName("vg0"),
    type=DeviceType.THICK,
    device_class=DeviceClassName("fast"),
    size_bytes=GIB,
    device_size_bytes=GIB,
    state=VolumeState.READY,
    wipe=Wipe.DISCARD,
    owner=Owner(pv_name="pvc-1", claim_namespace="shop", claim_name="db-0", claim_uid="4d1c"),
    device_path="/dev/vg0/pvc-1",
    device_major=253,
    device_minor=7,
    is_open=True,
    problem=Problem(reason="Partial", message="LVM calls it 'partial'"),
)
POOL = Pool(
    name=PoolName("vg0/pool0"),
    store=StoreName("vg0"),
    type=DeviceType.THIN,
    classes=(DeviceClassName("cheap"),),
    total_bytes=GIB,
    free_bytes=GIB,
    reserve_bytes=4 * MIB,
    extent_bytes=4 * MIB,
    physical_volumes=(PhysicalVolume(name="/dev/vda", free_bytes=GIB, scattered_bytes=MIB),),
    thin=ThinUsage(
        virtual_bytes=GIB,
        data_percent=1.5,
        metadata_percent=2.5,
        overprovision_ratio=Fraction(3, 2),
        data_guard_percent=90,
        metadata_guard_percent=80,
    ),
    disks=(Disk(name="/dev/sda", size_bytes=GIB),),
)


def empty_fields(message: Message) -> set[str]:
    """Those without a value, in what it holds too."""
    filled = {field.name for field, _ in message.ListFields()}
    empty = {field.name for field in message.DESCRIPTOR.fields} - filled
    for field, value in message.ListFields():
        if field.message_type is not None:
            each = [value] if isinstance(value, Message) else list(value)
            empty |= {f"{field.name}.{name}" for one in each for name in empty_fields(one)}
    return empty


def test_no_field_of_the_proto_is_forgotten() -> None:
    assert empty_fields(volume_message(VOLUME)) == set()
    assert empty_fields(pool_message(POOL)) == {"problem"}
    assert pool_message(POOL).largest_volume_bytes == GIB


@pytest.mark.parametrize("state", VolumeState)
def test_every_state_has_its_value_on_the_wire(state: VolumeState) -> None:
    assert pb.VolumeState.Name(STATES[state]) == f"VOLUME_STATE_{state.name}"
    assert len(set(STATES.values())) == len(VolumeState)


@pytest.mark.parametrize("text", ["1", "1.5", "10", "0.1", "1.05", "100", "2.25", "0.000001", "3.14159"])
def test_a_ratio_is_told_as_it_was_written(text: str) -> None:
    assert POOL.thin is not None
    pool = Pool(
        name=POOL.name,
        store=POOL.store,
        type=POOL.type,
        classes=(),
        total_bytes=GIB,
        free_bytes=0,
        extent_bytes=MIB,
        thin=ThinUsage(
            virtual_bytes=0,
            data_percent=0,
            metadata_percent=0,
            overprovision_ratio=Fraction(Decimal(text)),
            data_guard_percent=90,
            metadata_guard_percent=80,
        ),
    )
    assert pool_message(pool).thin.overprovision_ratio == text


def test_a_create_request_arrives_as_it_was_asked() -> None:
    message = pb.CreateVolumeRequest(
        volume_id="pvc-1",
        device_class="fast",
        size_bytes=GIB,
        limit_bytes=2 * GIB,
        pool="vg0",
        owner=pb.Owner(pv_name="pvc-1", claim_namespace="shop", claim_name="db-0", claim_uid="4d1c"),
        source_volume_id="s-1",
    )
    assert empty_fields(message) == set()
    assert create_request(message) == CreateVolume(
        volume_id=VolumeId("pvc-1"),
        device_class=DeviceClassName("fast"),
        size_bytes=GIB,
        limit_bytes=2 * GIB,
        pool=PoolName("vg0"),
        owner=VOLUME.owner,
        source=VolumeId("s-1"),
    )


def test_a_snapshot_request_arrives_as_it_was_asked() -> None:
    message = pb.CreateSnapshotRequest(snapshot_id="s-1", source_volume_id="a")
    assert snapshot_request(message) == TakeSnapshot(snapshot_id=VolumeId("s-1"), source=VolumeId("a"))


def test_an_empty_pool_in_a_request_is_any_pool() -> None:
    assert create_request(pb.CreateVolumeRequest(volume_id="a")).pool is None
    assert delete_request(pb.DeleteVolumeRequest(volume_id="a")) == DeleteVolume(volume_id=VolumeId("a"))
    assert delete_request(pb.DeleteVolumeRequest(volume_id="a", pool="vg0")).pool == "vg0"


def test_an_expand_request_arrives_as_it_was_asked() -> None:
    message = pb.ExpandVolumeRequest(volume_id="a", size_bytes=GIB, limit_bytes=2 * GIB)
    assert expand_request(message) == ExpandVolume(volume_id=VolumeId("a"), size_bytes=GIB, limit_bytes=2 * GIB)
