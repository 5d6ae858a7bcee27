"""Random and hostile requests: the driver stays up, foresees each of them, and no volume appears or goes unasked.

Three kinds of calls in any order: right ones, right ones with one field made hostile, and any message at all; some as
bytes that are no message. Paths stay below the test's own folder, since a driver does as it is told with the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.contract.faults import until
from tests.contract.sites import CLASS, Site
from tests.csi.drivers import NODE, Driver, can_grow_ext4
from tests.csi.kubelet import LONG_SECONDS, MIB, RWOP, Kubelet, block, creation, mounted, of_snapshot, of_volume
from ullage.model import VolumeId
from ullage.names import group_id, member_id, snapshot_id
from ullage.pb.csi.v1 import csi_pb2 as pb

USES = {"pvc-a": mounted(), "pvc-b": block(), "pvc-c": mounted("ext4", "noatime", mode=RWOP)}
"""What each volume is for, so that right calls go on from one another."""
SNAPSHOT, OLDER, GROUP = snapshot_id("nightly"), snapshot_id("weekly"), group_id("both")
MEMBERS = tuple(member_id(GROUP, VolumeId(name)) for name in USES)
SNAPSHOTS = (SNAPSHOT, OLDER, *MEMBERS)
SOURCES = (None, None, None, of_snapshot(SNAPSHOT), of_volume("pvc-a"))
SECRET = "open-sesame"  # noqa: S105 - it is to be found in no log
METHODS = tuple(
    f"/csi.v1.{service.name}/{method.name}"
    for service in pb.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
HOSTILE = (
    "",
    " ",
    "\0",
    "a\0b",
    "a\nb",
    "../../etc/passwd",
    "..",
    ".",
    "/",
    "-rf",
    "--help",
    "pvc-a/../pvc-b",
    "vgcontract/pvc-a",
    "ullage.io/device-class",
    "pvc-a_rimage_0",
    "snapshot1",
    "$(reboot)",
    "%s%n{}",
    "\x1b[2J",
    "\u202epvc-a",
    "\U0010ffff",
    "é" * 64,
    "x" * 128,
    "x" * 129,
    "x" * 100_000,
)
NUMBERS = (0, 1, -1, 4096, 8 * MIB, 32 * MIB + 1, (1 << 31) - 1, 1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63))
ENUMS = (-(1 << 31), -1, *range(10), 99, (1 << 31) - 1)
NOT_MESSAGES = (
    b"\xff" * 20,
    b"\x0a\xff\xff\xff\xff\x0f",  # a string longer than the message
    b"\x0a\x02\xff\xfe",  # a string that is no UTF-8
    b"\x0b" * 10_000,  # groups in groups
    b"\x0a\x05pvc-a" * 10_000,
    b"\x2a\x00" * 100_000,
)
EXPECTED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """One call; without a `request` its bytes are no message."""

    method: str
    request: Message | None
    content: bytes

    def __repr__(self) -> str:
        return f"{self.method} {str(self.request)[:400] if self.request else repr(self.content[:40])}"


@st.composite
def calls(draw: st.DrawFn, folder: Path) -> Call:
    """Any call."""
    kind = draw(st.sampled_from(["right"] * 10 + ["nearly"] * 4 + ["any"] * 4 + ["bytes"]))
    if kind == "bytes":
        return Call(draw(st.sampled_from(METHODS)), None, draw(st.sampled_from(NOT_MESSAGES)))
    if kind == "any":
        path = draw(st.sampled_from(METHODS))
        request = _any(draw, _method(path).input_type, folder)
    else:
        path, request = _right(draw, folder)
        if kind == "nearly":
            fields = list(_method(path).input_type.fields)
            field = draw(st.sampled_from(fields))
            request.ClearField(field.name)
            _fill(draw, request, field, folder)
    return Call(path, request, request.SerializeToString())


def _right(draw: st.DrawFn, folder: Path) -> tuple[str, Message]:
    """A call as the sidecars and kubelet make it."""
    name = draw(st.sampled_from(tuple(USES)))
    size = draw(st.sampled_from([8 * MIB, 16 * MIB, 24 * MIB]))
    staging, target = (f"{folder}/{name}/{each}" for each in ("staging", draw(st.sampled_from(["one", "two"]))))
    Path(staging).mkdir(parents=True, exist_ok=True)
    asks: dict[str, Message] = {
        "Controller/CreateVolume": creation(
            name, size, mutable={"wipe": "discard"}, source=draw(st.sampled_from(SOURCES))
        ),
        "Controller/CreateSnapshot": pb.CreateSnapshotRequest(
            name=draw(st.sampled_from(["nightly", "weekly"])), source_volume_id=name
        ),
        "Controller/DeleteSnapshot": pb.DeleteSnapshotRequest(snapshot_id=draw(st.sampled_from(SNAPSHOTS))),
        "Controller/ListSnapshots": pb.ListSnapshotsRequest(source_volume_id=name),
        "Controller/GetSnapshot": pb.GetSnapshotRequest(snapshot_id=SNAPSHOT),
        "GroupController/CreateVolumeGroupSnapshot": pb.CreateVolumeGroupSnapshotRequest(
            name="both", source_volume_ids=["pvc-a", "pvc-b"]
        ),
        "GroupController/GetVolumeGroupSnapshot": pb.GetVolumeGroupSnapshotRequest(
            group_snapshot_id=GROUP, snapshot_ids=MEMBERS[:2]
        ),
        "GroupController/DeleteVolumeGroupSnapshot": pb.DeleteVolumeGroupSnapshotRequest(
            group_snapshot_id=GROUP, snapshot_ids=MEMBERS[:2]
        ),
        "SnapshotMetadata/GetMetadataAllocated": pb.GetMetadataAllocatedRequest(snapshot_id=SNAPSHOT),
        "SnapshotMetadata/GetMetadataDelta": pb.GetMetadataDeltaRequest(
            base_snapshot_id=OLDER, target_snapshot_id=SNAPSHOT
        ),
        "Controller/DeleteVolume": pb.DeleteVolumeRequest(volume_id=name),
        "Controller/ControllerExpandVolume": pb.ControllerExpandVolumeRequest(
            volume_id=name, capacity_range=pb.CapacityRange(required_bytes=size)
        ),
        "Controller/GetCapacity": pb.GetCapacityRequest(parameters={"ullage.io/device-class": CLASS}),
        "Node/NodeStageVolume": pb.NodeStageVolumeRequest(
            volume_id=name, staging_target_path=staging, volume_capability=USES[name]
        ),
        "Node/NodePublishVolume": pb.NodePublishVolumeRequest(
            volume_id=name, staging_target_path=staging, target_path=target, volume_capability=USES[name]
        ),
        "Node/NodeGetVolumeStats": pb.NodeGetVolumeStatsRequest(volume_id=name, volume_path=target),
        "Node/NodeExpandVolume": pb.NodeExpandVolumeRequest(volume_id=name, volume_path=target),
        "Node/NodeUnpublishVolume": pb.NodeUnpublishVolumeRequest(volume_id=name, target_path=target),
        "Node/NodeUnstageVolume": pb.NodeUnstageVolumeRequest(volume_id=name, staging_target_path=staging),
    }
    often = ["Controller/CreateVolume", "Node/NodeStageVolume", "Node/NodePublishVolume"]
    of_volumes = [each for each in asks if "Snapshot" not in each]
    of_snapshots = [each for each in asks if "Snapshot" in each]
    method = draw(st.sampled_from(draw(st.sampled_from([[*of_volumes, *often]] * 4 + [of_snapshots]))))
    return f"/csi.v1.{method}", asks[method]


def _any(draw: st.DrawFn, descriptor: Descriptor, folder: Path) -> Message:
    made = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if draw(st.booleans()):
            _fill(draw, made, field, folder)
    return made


def _fill(draw: st.DrawFn, into: Message, field: FieldDescriptor, folder: Path) -> None:
    there = getattr(into, field.name)
    if field.name == "secrets":
        there["key"] = SECRET
    elif field.message_type is not None and field.message_type.GetOptions().map_entry:
        for _ in range(draw(st.sampled_from([0, 1, 2, 500]))):
            there[draw(st.sampled_from((*HOSTILE, "wipe")))] = draw(st.sampled_from((*HOSTILE, "zero", NODE)))
    elif field.is_repeated:
        there.extend(_value(draw, field, folder) for _ in range(draw(st.sampled_from([0, 1, 2, 40]))))
    elif field.message_type is not None:
        there.CopyFrom(_any(draw, field.message_type, folder))
    else:
        setattr(into, field.name, _value(draw, field, folder))


def _value(draw: st.DrawFn, field: FieldDescriptor, folder: Path) -> object:
    if field.message_type is not None:
        return _any(draw, field.message_type, folder)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return draw(st.binary(max_size=20))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return draw(_text(field.name, folder))
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return draw(st.sampled_from(ENUMS))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return draw(st.booleans())
    most = 31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 63
    return draw(st.sampled_from([each for each in NUMBERS if -(1 << most) <= each < 1 << most]))


def _text(name: str, folder: Path) -> st.SearchStrategy[str]:
    if name.endswith("_path"):
        below = [str(folder / each) for each in ("staging", "target", "a/b/c", "x" * 300, f"../{folder.name}/target")]
        return st.sampled_from([*below, *(each for each in HOSTILE if each != "/")])
    if name in {"name", "volume_id", "source_volume_id", "source_volume_ids"}:
        return st.sampled_from((*USES, *HOSTILE, SNAPSHOT))
    if "snapshot_id" in name:
        return st.sampled_from((*SNAPSHOTS, *HOSTILE, GROUP, "pvc-a"))
    return st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))


def _method(path: str) -> MethodDescriptor:
    service, method = path.removeprefix("/csi.v1.").split("/")
    return pb.DESCRIPTOR.services_by_name[service].methods_by_name[method]


@dataclass
class Model:
    """The volumes and snapshots that should be there."""

    channel: grpc.Channel
    tally: Counter[str]
    ids: set[str]
    snapshots: dict[str, str]
    """Each with its group, if it has one."""

    def send(self, call: Call) -> bytes:
        """Its answer; of a stream, all of them one after the other."""
        if _method(call.method).server_streaming:
            answers: Callable[..., Iterable[bytes]] = self.channel.unary_stream(call.method)
            return b"".join(answers(call.content, timeout=LONG_SECONDS))
        answer: Callable[..., bytes] = self.channel.unary_unary(call.method)
        return answer(call.content, timeout=LONG_SECONDS)

    def ask(self, call: Call) -> None:
        try:
            answer, code, said = self.send(call), grpc.StatusCode.OK, ""
        except grpc.RpcError as refused:
            answer, code, said = b"", refused.code(), str(refused.details())
            assert SECRET not in said, call
            assert len(said) < 4000, call
        self.tally[f"{call.method.rpartition('/')[2]} {code.name}"] += 1
        # What is no message is refused by gRPC itself, before the driver sees it.
        is_foreseen = code in EXPECTED or (call.request is None and code is grpc.StatusCode.INTERNAL)
        assert is_foreseen or ("resize2fs" in said and not can_grow_ext4()), (call, code, said)
        if code is grpc.StatusCode.OK:
            self.note(call, answer)

    def note(self, call: Call, answer: bytes) -> None:
        """What is there after a call that was answered."""
        match call.method.rpartition("/")[2]:
            case "CreateVolume":
                self.ids.add(pb.CreateVolumeResponse.FromString(answer).volume.volume_id)
            case "DeleteVolume":
                self.ids.discard(pb.DeleteVolumeRequest.FromString(call.content).volume_id)
            case "CreateSnapshot":
                self.snapshots[pb.CreateSnapshotResponse.FromString(answer).snapshot.snapshot_id] = ""
            case "DeleteSnapshot":
                self.snapshots.pop(pb.DeleteSnapshotRequest.FromString(call.content).snapshot_id, None)
            case "CreateVolumeGroupSnapshot":
                members = pb.CreateVolumeGroupSnapshotResponse.FromString(answer).group_snapshot.snapshots
                self.snapshots |= {each.snapshot_id: each.group_snapshot_id for each in members}
            case "DeleteVolumeGroupSnapshot":
                group = pb.DeleteVolumeGroupSnapshotRequest.FromString(call.content).group_snapshot_id
                self.snapshots = {each: its for each, its in self.snapshots.items() if its != group}


@pytest.mark.only_on("file")
def test_hostile_calls_crash_nothing_leave_nothing_and_are_all_foreseen(
    site: Site, driver: Driver, kubelet: Kubelet, folder: Path
) -> None:
    root = kubelet.root
    tally: Counter[str] = Counter()
    before = kubelet.client.capacity()
    with grpc.insecure_channel(driver.address) as channel:

        @settings(
            max_examples=60,
            # An example costs mounts: none are spent on shrinking.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(calls(root), min_size=20, max_size=30))
        def hostile(sequence: list[Call]) -> None:
            model = Model(channel, tally, set(), {})
            for call in sequence:
                model.ask(call)
                assert driver.is_alive(), call
            assert set(kubelet.client.ids()) == model.ids
            assert {each.snapshot_id for each in kubelet.client.snapshots()} == set(model.snapshots)
            assert model.ids | set(model.snapshots) == set(site.truth().sizes)
            kubelet.clean()
            for group in set(model.snapshots.values()) - {""}:
                kubelet.client.delete_group(group, *(each for each, its in model.snapshots.items() if its == group))
            for each in (each for each, its in model.snapshots.items() if not its):
                kubelet.client.delete_snapshot(each)
            for volume_id in model.ids:
                kubelet.client.delete(volume_id)
            assert (site.truth().sizes, site.leftovers()) == ({}, [])

        hostile()
    assert kubelet.client.is_ready()
    until(lambda: kubelet.client.capacity() == before)
    said = driver.log.read_text()
    assert "rpc failed" not in said
    assert {json.loads(line)["logger"] for line in said.splitlines() if "Traceback" in line} <= {"grpc._common"}, (
        "gRPC itself logs what is no message"
    )
    assert SECRET not in said
    assert {path.name for path in folder.iterdir()} <= {
        "config.yaml",
        "driver.log",
        "csi.sock",
        "agent.sock",
        "agent.debts",
        "kubelet",
    }
    for method in ("CreateVolume", "DeleteVolume", "NodeStageVolume", "NodePublishVolume", "NodeUnstageVolume"):
        assert tally[f"{method} OK"] > 0, tally
    seen = {key.partition(" ")[2] for key in tally}
    assert {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"} <= seen, tally
