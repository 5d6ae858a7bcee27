"""Every message names its volume: what is missing comes before what is unknown, and taking away asks neither."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csi.orders import controller, node
from csi.orders.about import NONE, About, nothing
from tests.unit.csi_doubles import mounted
from ullage.errors import InvalidRequestError, NotFoundError
from ullage.pb.csi.v1 import csi_pb2 as pb

IMPOSSIBLE = ("../pvc-1", "a\nb", "a\0b", "pvc_1", "PVC-1", "snapshot-1", "-rf", "x" * 64)
"""Short enough for CSI, and nothing that a volume here can be called."""

NAMING: dict[str, Callable[[str], object]] = {
    "delete": lambda name: controller.delete(pb.DeleteVolumeRequest(volume_id=name)),
    "get": lambda name: controller.get(pb.ControllerGetVolumeRequest(volume_id=name)),
    "get health": lambda name: controller.get(pb.ControllerGetVolumeHealthRequest(volume_id=name)),
    "expand": lambda name: controller.expand(
        pb.ControllerExpandVolumeRequest(volume_id=name, capacity_range=pb.CapacityRange(required_bytes=1))
    ),
    "modify": lambda name: controller.modify(pb.ControllerModifyVolumeRequest(volume_id=name)),
    "validate": lambda name: controller.validate(
        pb.ValidateVolumeCapabilitiesRequest(volume_id=name, volume_capabilities=[mounted()])
    ),
    "stage": lambda name: node.stage(
        pb.NodeStageVolumeRequest(volume_id=name, staging_target_path="/s", volume_capability=mounted())
    ),
    "unstage": lambda name: node.unstage(pb.NodeUnstageVolumeRequest(volume_id=name, staging_target_path="/s")),
    "publish": lambda name: node.publish(
        pb.NodePublishVolumeRequest(volume_id=name, target_path="/t", volume_capability=mounted())
    ),
    "unpublish": lambda name: node.unpublish(pb.NodeUnpublishVolumeRequest(volume_id=name, target_path="/t")),
    "stats": lambda name: node.at(pb.NodeGetVolumeStatsRequest(volume_id=name, volume_path="/t")),
    "grow": lambda name: node.grow(pb.NodeExpandVolumeRequest(volume_id=name, volume_path="/t")),
    "health": lambda name: node.health(pb.NodeGetVolumeHealthRequest(volume_id=name)),
}
TAKING_AWAY = ("delete", "unstage", "unpublish")


@pytest.mark.parametrize("message", NAMING)
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("", "volume_id is missing"),
        ("x" * 129, "volume_id has 129 bytes, 128 are the most"),
        ("é" * 65, "volume_id has 130 bytes, 128 are the most"),
    ],
)
def test_a_volume_is_named_and_in_no_more_bytes_than_csi_allows(message: str, name: str, sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{sentence}$"):
        NAMING[message](name)


@pytest.mark.parametrize("message", sorted(NAMING.keys() - set(TAKING_AWAY)))
@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_name_that_no_volume_can_have_is_a_volume_that_is_not_there(message: str, name: str) -> None:
    with pytest.raises(NotFoundError, match=r"^No volume has the id '"):
        NAMING[message](name)


@pytest.mark.parametrize("message", TAKING_AWAY)
@pytest.mark.parametrize("name", ["pvc-1", *IMPOSSIBLE])
def test_what_takes_away_does_so_whatever_the_volume_is_called(message: str, name: str) -> None:
    order = NAMING[message](name)
    assert isinstance(order, About | node.At)
    assert order.volume_id == name


@pytest.mark.parametrize(
    "ask",
    [
        lambda: controller.expand(pb.ControllerExpandVolumeRequest(volume_id="../x")),
        lambda: controller.modify(pb.ControllerModifyVolumeRequest(volume_id="../x", mutable_parameters={"a": "b"})),
        lambda: controller.validate(pb.ValidateVolumeCapabilitiesRequest(volume_id="../x")),
        lambda: node.stage(pb.NodeStageVolumeRequest(volume_id="../x", volume_capability=mounted())),
        lambda: node.stage(pb.NodeStageVolumeRequest(volume_id="../x", staging_target_path="/s")),
        lambda: node.publish(pb.NodePublishVolumeRequest(volume_id="../x", target_path="/t")),
        lambda: node.publish(pb.NodePublishVolumeRequest(volume_id="../x", volume_capability=mounted())),
        lambda: node.at(pb.NodeGetVolumeStatsRequest(volume_id="../x")),
        lambda: node.grow(pb.NodeExpandVolumeRequest(volume_id="../x")),
    ],
)
def test_what_is_missing_is_told_before_the_volume_is_looked_for(ask: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequestError):
        ask()


def test_what_asks_for_nothing_is_about_no_volume() -> None:
    assert nothing(pb.ProbeRequest()) == About(volume_id=NONE)
