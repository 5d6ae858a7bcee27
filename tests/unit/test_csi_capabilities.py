"""What the driver says it can do, with and without the alpha switch; and what a caller may want to do with a volume."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from typing import cast

import grpc
import pytest
from google.protobuf.descriptor import EnumDescriptor

from csi import controller, node
from csi.calls import Calls
from csi.capabilities import MODES, MOST_FLAG_BYTES, Capability, Mode, capability, together
from csi.controller import Controller
from csi.fs.volumes import FileSystems
from csi.group import GroupController
from csi.identity import Identity
from csi.node import Node
from tests.unit.csi_doubles import RefusedError, block, caller, mounted
from ullage.cli import standalone
from ullage.errors import InvalidRequestError, UllageError, UnsupportedError
from ullage.model import NodeName
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.ports import NodeVolumes, Provisioner

ControllerKind = pb.ControllerServiceCapability.RPC
NodeKind = pb.NodeServiceCapability.RPC


def controller_of(*, has_health: bool) -> Controller:
    """Without volumes: what is offered is told without a look at them."""
    return Controller(Calls(), cast("Provisioner", None), has_health=has_health)


def node_of(*, has_health: bool) -> Node:
    volumes, file_systems = cast("NodeVolumes", None), cast("FileSystems", None)
    return Node(Calls(), volumes, file_systems, NodeName("node-1"), has_health=has_health)


def offered_by_controller(service: Controller) -> list[str]:
    answer = service.ControllerGetCapabilities(pb.ControllerGetCapabilitiesRequest(), caller())
    return [ControllerKind.Type.Name(each.rpc.type) for each in answer.capabilities]


def offered_by_node(service: Node) -> list[str]:
    answer = service.NodeGetCapabilities(pb.NodeGetCapabilitiesRequest(), caller())
    return [NodeKind.Type.Name(each.rpc.type) for each in answer.capabilities]


CONTROLLER = [
    "CREATE_DELETE_VOLUME",
    "LIST_VOLUMES",
    "GET_CAPACITY",
    "CREATE_DELETE_SNAPSHOT",
    "LIST_SNAPSHOTS",
    "CLONE_VOLUME",
    "EXPAND_VOLUME",
    "GET_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
    "MODIFY_VOLUME",
    "GET_SNAPSHOT",
]
NODE = ["STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME", "SINGLE_NODE_MULTI_WRITER"]


def test_without_the_switch_no_health_is_offered() -> None:
    assert offered_by_controller(controller_of(has_health=False)) == CONTROLLER
    assert offered_by_node(node_of(has_health=False)) == NODE


def test_with_the_switch_health_is_offered_beside_all_the_rest() -> None:
    assert offered_by_controller(controller_of(has_health=True)) == [
        *CONTROLLER,
        "GET_VOLUME_HEALTH",
        "LIST_VOLUME_HEALTH",
    ]
    assert offered_by_node(node_of(has_health=True)) == [*NODE, "GET_VOLUME_HEALTH", "GET_STORAGE_HEALTH"]


def test_whoever_does_not_ask_for_alpha_gets_none() -> None:
    parser = argparse.ArgumentParser()
    standalone.describe(parser)
    assert parser.parse_args(["--config", "x"]).alpha == []
    assert parser.parse_args(["--config", "x", "--alpha", "volume-health"]).alpha == ["volume-health"]
    calls = Calls()
    assert offered_by_controller(Controller(calls, cast("Provisioner", None))) == CONTROLLER
    plain = Node(calls, cast("NodeVolumes", None), cast("FileSystems", None), NodeName("node-1"))
    assert offered_by_node(plain) == NODE


HEALTH_CALLS: dict[str, Callable[[bool], object]] = {
    "ControllerGetVolumeHealth": lambda on: controller_of(has_health=on).ControllerGetVolumeHealth(
        pb.ControllerGetVolumeHealthRequest(volume_id="pvc-1"), caller()
    ),
    "ControllerListVolumeHealth": lambda on: controller_of(has_health=on).ControllerListVolumeHealth(
        pb.ControllerListVolumeHealthRequest(), caller()
    ),
    "NodeGetVolumeHealth": lambda on: node_of(has_health=on).NodeGetVolumeHealth(
        pb.NodeGetVolumeHealthRequest(volume_id="pvc-1"), caller()
    ),
    "NodeGetStorageHealth": lambda on: node_of(has_health=on).NodeGetStorageHealth(
        pb.NodeGetStorageHealthRequest(), caller()
    ),
}


@pytest.mark.parametrize("call", HEALTH_CALLS)
def test_what_is_switched_off_is_unimplemented_and_looks_at_nothing(call: str) -> None:
    with pytest.raises(RefusedError, match="start with --alpha volume-health") as refused:
        HEALTH_CALLS[call](False)  # noqa: FBT003 - on or off
    assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED


def alpha(kinds: Iterable[int], enum: EnumDescriptor) -> set[str]:
    """Those of the kinds that the interface itself marks as alpha."""
    values = [enum.values_by_number[kind] for kind in kinds]
    return {
        value.name
        for value in values
        if any(option.name == "alpha_enum_value" and is_set for option, is_set in value.GetOptions().ListFields())
    }


def test_what_the_interface_calls_alpha_is_behind_the_switch_but_for_what_others_rely_on() -> None:
    """Without SINGLE_NODE_MULTI_WRITER nobody is told of ReadWriteOncePod; the two GETs read what the lists do."""
    controllers, nodes = ControllerKind.Type.DESCRIPTOR, NodeKind.Type.DESCRIPTOR
    assert alpha(controller.OFFERED, controllers) == {"GET_VOLUME", "SINGLE_NODE_MULTI_WRITER", "GET_SNAPSHOT"}
    assert alpha(node.OFFERED, nodes) == {"SINGLE_NODE_MULTI_WRITER"}
    assert alpha(controller.HEALTH, controllers) == {"GET_VOLUME_HEALTH", "LIST_VOLUME_HEALTH"}
    assert alpha(node.HEALTH, nodes) == {"GET_VOLUME_HEALTH", "GET_STORAGE_HEALTH"}


def test_groups_are_offered_with_all_there_is_of_them() -> None:
    service = GroupController(Calls(), cast("Provisioner", None))
    answer = service.GroupControllerGetCapabilities(pb.GroupControllerGetCapabilitiesRequest(), caller())
    kind = pb.GroupControllerServiceCapability.RPC.Type
    assert [kind.Name(each.rpc.type) for each in answer.capabilities] == ["CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"]


@pytest.mark.parametrize("is_ready", [True, False])
def test_identity_is_who_it_is_what_it_can_and_whether_it_is_ready(*, is_ready: bool) -> None:
    identity = Identity(Calls(), "1.2.3", lambda: is_ready)
    assert identity.GetPluginInfo(pb.GetPluginInfoRequest(), caller()) == pb.GetPluginInfoResponse(
        name="ullage.io", vendor_version="1.2.3"
    )
    assert identity.Probe(pb.ProbeRequest(), caller()).ready.value is is_ready
    told = identity.GetPluginCapabilities(pb.GetPluginCapabilitiesRequest(), caller()).capabilities
    assert [pb.PluginCapability.Service.Type.Name(each.service.type) for each in told if each.HasField("service")] == [
        "CONTROLLER_SERVICE",
        "VOLUME_ACCESSIBILITY_CONSTRAINTS",
        "GROUP_CONTROLLER_SERVICE",
        "SNAPSHOT_METADATA_SERVICE",
    ]
    assert [each.volume_expansion.type for each in told if each.HasField("volume_expansion")] == [
        pb.PluginCapability.VolumeExpansion.ONLINE
    ]


@pytest.mark.parametrize(
    ("message", "read"),
    [
        (mounted(), Capability(is_block=False, fs_type="ext4")),
        (mounted("ext4"), Capability(is_block=False, fs_type="ext4")),
        (mounted("xfs", "noatime"), Capability(is_block=False, fs_type="xfs", mount_flags=("noatime",))),
        (mounted("btrfs"), Capability(is_block=False, fs_type="btrfs")),
        (block(), Capability(is_block=True)),
    ],
)
def test_a_volume_is_a_file_system_or_a_device(message: pb.VolumeCapability, read: Capability) -> None:
    assert capability(message) == read


@pytest.mark.parametrize(
    ("mode", "is_read_only", "is_shared"),
    [
        (Mode.SINGLE_NODE_WRITER, False, True),
        (Mode.SINGLE_NODE_READER_ONLY, True, True),
        (Mode.SINGLE_NODE_SINGLE_WRITER, False, False),
        (Mode.SINGLE_NODE_MULTI_WRITER, False, True),
    ],
)
def test_a_mode_says_who_may_write_and_at_how_many_places(
    mode: pb.VolumeCapability.AccessMode.Mode,
    is_read_only: bool,  # noqa: FBT001 - a table
    is_shared: bool,  # noqa: FBT001
) -> None:
    for message in (mounted(mode=mode), block(mode)):
        read = capability(message)
        assert (read.is_read_only, read.is_shared) == (is_read_only, is_shared)


def refused_modes() -> list[tuple[int, str]]:
    known = [(number, name) for name, number in Mode.Mode.items() if number not in MODES and number != Mode.UNKNOWN]
    return [*known, (99, "99"), (-1, "-1")]


@pytest.mark.parametrize(("mode", "name"), refused_modes())
def test_a_mode_of_several_nodes_or_of_a_later_interface_is_refused_by_name(mode: int, name: str) -> None:
    message = block()
    message.access_mode.mode = cast("pb.VolumeCapability.AccessMode.Mode", mode)
    sentence = f"Access mode {name} is not possible with a volume of one node; possible: SINGLE_NODE_WRITER, "
    with pytest.raises(UnsupportedError, match=f"^{re.escape(sentence)}"):
        capability(message)


def test_there_are_modes_of_several_nodes() -> None:
    assert {"MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER", "MULTI_NODE_MULTI_WRITER"} <= {
        name for _, name in refused_modes()
    }


@pytest.mark.parametrize(
    ("message", "error", "sentence"),
    [
        (pb.VolumeCapability(), InvalidRequestError, "has no access mode"),
        (mounted(mode=Mode.UNKNOWN), InvalidRequestError, "has no access mode"),
        (pb.VolumeCapability(access_mode=Mode(mode=MODES[0])), InvalidRequestError, "it is 'mount' or 'block'"),
        (mounted("EXT4"), InvalidRequestError, "File system 'EXT4' is none of ext4, xfs, btrfs"),
        (mounted("ext4\n"), InvalidRequestError, r"File system 'ext4\n' is none of"),
        (mounted("ext4\0"), InvalidRequestError, r"File system 'ext4\x00' is none of"),
        (mounted("x" * 5000), InvalidRequestError, "(5000 characters) is none of"),
        (mounted("", ""), InvalidRequestError, "'' is no mount flag"),
        (mounted("", "noatime", "a\0b"), InvalidRequestError, r"'a\x00b' is no mount flag"),
        (mounted("", "a\nb"), InvalidRequestError, r"'a\nb' is no mount flag"),
        (mounted("", "a\x1b[2J"), InvalidRequestError, "is no mount flag"),
        (mounted("", "x" * 4097), InvalidRequestError, "The mount flags have 4097 bytes, 4096 are the most"),
        (mounted("", *["é" * 32] * 65), InvalidRequestError, "The mount flags have 4160 bytes"),
        (
            pb.VolumeCapability(
                mount=pb.VolumeCapability.MountVolume(volume_mount_group="1000"), access_mode=Mode(mode=MODES[0])
            ),
            UnsupportedError,
            "volume_mount_group",
        ),
    ],
)
def test_a_way_of_use_is_refused_with_what_is_wrong_with_it(
    message: pb.VolumeCapability, error: type[UllageError], sentence: str
) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        capability(message)


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ([mounted(), block()], "One volume cannot be ext4 and a device"),
        ([block(), mounted("xfs"), mounted()], "One volume cannot be a device and xfs and ext4"),
        ([mounted("xfs"), mounted("ext4"), mounted("xfs")], "One volume cannot be xfs and ext4"),
        ([mounted("xfs"), mounted()], "One volume cannot be xfs and ext4"),
    ],
)
def test_ways_of_use_that_no_one_volume_has_are_refused(messages: list[pb.VolumeCapability], sentence: str) -> None:
    """CSI: a volume satisfies all of them, or the request fails."""
    with pytest.raises(InvalidRequestError, match=f"^{sentence}$"):
        together(messages)


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [mounted(), mounted("ext4")],
        [mounted("xfs", "noatime"), mounted("xfs", mode=Mode.SINGLE_NODE_READER_ONLY)],
        [block(), block(Mode.SINGLE_NODE_SINGLE_WRITER)],
    ],
)
def test_ways_of_use_of_one_kind_are_read_one_by_one(messages: list[pb.VolumeCapability]) -> None:
    """Sidecars send one for each access mode of a claim."""
    assert together(messages) == tuple(capability(each) for each in messages)


def test_as_many_flags_as_csi_allows_reach_mount_as_they_came() -> None:
    flags = ('context="a:b:c:s0:c1,c2"', "x" * (MOST_FLAG_BYTES - 24))
    assert capability(mounted("", *flags)).mount_flags == flags
