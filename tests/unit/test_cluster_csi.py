"""A cluster's volumes through CSI: what Kubernetes takes for final is said only when nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc
import pytest

from csi import parameters
from csi.calls import Calls
from csi.controller import Controller
from tests.unit.controller_doubles import FAST, A, B, Scene, V, put_class
from tests.unit.csi_doubles import RefusedError, caller, mounted
from tests.unit.test_status import KINDS
from ullage import storage_classes
from ullage.errors import GIB, UllageError, UnknownDeviceClassError
from ullage.kube.meta import DEVICE_CLASSES, LOGICAL_VOLUMES
from ullage.model import NodeName, Problem
from ullage.pb.csi.v1 import csi_pb2 as pb

Code = grpc.StatusCode
ASKED_AGAIN = {Code.ABORTED, Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}
"""To external-provisioner: perhaps in progress. All else is final, and a volume that is there would be nobody's."""


@pytest.fixture(name="scene")
def scene_fixture() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.stop()


@pytest.fixture(name="controller")
def controller_fixture(scene: Scene) -> Controller:
    return Controller(Calls(), scene.controller)


def creation(
    *nodes: NodeName, size_bytes: int = GIB, device_class: str = FAST, wipe: str = ""
) -> pb.CreateVolumeRequest:
    topologies = [parameters.topology(each) for each in nodes]
    return pb.CreateVolumeRequest(
        name=V,
        capacity_range=pb.CapacityRange(required_bytes=size_bytes),
        volume_capabilities=[mounted("ext4")],
        parameters={storage_classes.CLASS_KEY: device_class},
        mutable_parameters={"wipe": wipe} if wipe else {},
        accessibility_requirements=pb.TopologyRequirement(requisite=topologies, preferred=topologies),
    )


def code(call: Callable[[], object]) -> grpc.StatusCode:
    try:
        call()
    except RefusedError as refusal:
        return refusal.code
    return Code.OK


def test_a_volume_is_answered_with_its_true_node_also_when_another_is_named(
    scene: Scene, controller: Controller
) -> None:
    assert controller.CreateVolume(creation(A), caller(9)).volume.accessible_topology == [parameters.topology(A)]
    again = controller.CreateVolume(creation(B), caller(9)).volume
    assert list(again.accessible_topology) == [parameters.topology(A)]
    assert scene.b.kept == {}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_final_is_said_while_an_order_is_left(
    scene: Scene, controller: Controller, kind: type[UllageError]
) -> None:
    """Whatever its agent refuses it with."""
    scene.a.refuse = lambda _volume: Problem(reason=kind.reason, message="because")
    answer = code(lambda: controller.CreateVolume(creation(A), caller(9)))
    assert answer is not Code.OK
    assert answer in ASKED_AGAIN or V not in scene.server.all(LOGICAL_VOLUMES)


@pytest.mark.parametrize("reason", ["InvalidRequest", "Precondition"])
def test_a_refusal_is_not_told_before_its_order_is_taken_back(
    scene: Scene, controller: Controller, reason: str
) -> None:
    scene.a.refuse = lambda _volume: Problem(reason=reason, message="because")

    def keep_it(method: str, _path: str) -> None:
        if method == "DELETE":
            scene.a.sleep()

    scene.server.before = keep_it
    assert code(lambda: controller.CreateVolume(creation(A), caller(0.5))) is Code.DEADLINE_EXCEEDED
    assert V in scene.server.all(LOGICAL_VOLUMES)


def test_no_room_sends_the_pod_to_another_node_and_time_that_is_up_does_not(
    scene: Scene, controller: Controller
) -> None:
    assert code(lambda: controller.CreateVolume(creation(A, size_bytes=11 * GIB), caller(9))) is Code.RESOURCE_EXHAUSTED
    scene.a.sleep()
    assert code(lambda: controller.CreateVolume(creation(A), caller(0.5))) is Code.DEADLINE_EXCEEDED
    threading.Timer(0.1, scene.a.wake).start()
    assert code(lambda: controller.CreateVolume(creation(B), caller(9))) is Code.OK


def test_a_class_that_goes_while_its_volume_is_made_is_no_reason_to_give_it_up(
    scene: Scene, controller: Controller
) -> None:
    put_class(scene.server, "other")
    scene.a.sleep()
    assert code(lambda: controller.CreateVolume(creation(A), caller(0.5))) is Code.DEADLINE_EXCEEDED
    scene.server.remove(DEVICE_CLASSES, FAST)
    scene.seen(lambda _: scene.views[0].classes.get(FAST) is None)
    assert code(lambda: controller.CreateVolume(creation(A), caller(0.5))) is Code.DEADLINE_EXCEEDED
    scene.a.wake()
    assert code(lambda: controller.CreateVolume(creation(A), caller(9))) is Code.OK
    with pytest.raises(UnknownDeviceClassError):
        scene.controller.device_class(FAST)


def test_a_volume_that_is_there_with_another_policy_is_no_final_refusal(scene: Scene, controller: Controller) -> None:
    assert code(lambda: controller.CreateVolume(creation(A), caller(9))) is Code.OK
    scene.a.refuse = lambda _volume: Problem(reason="Precondition", message="not today")
    assert code(lambda: controller.CreateVolume(creation(A, wipe="zero"), caller(9))) is Code.ABORTED
    scene.a.refuse = lambda _volume: None
    assert code(lambda: controller.CreateVolume(creation(A, wipe="zero"), caller(9))) is Code.OK


def test_a_volume_in_use_is_not_deleted_and_one_that_is_nowhere_is_gone(scene: Scene, controller: Controller) -> None:
    deletion = pb.DeleteVolumeRequest(volume_id=V)
    controller.CreateVolume(creation(A), caller(9))
    scene.a.in_use.add(V)
    assert code(lambda: controller.DeleteVolume(deletion, caller(9))) is Code.FAILED_PRECONDITION
    scene.a.in_use.clear()
    scene.a.look()
    scene.seen(lambda _: scene.views[0].volumes.get(V) is None)
    assert code(lambda: controller.DeleteVolume(deletion, caller(9))) is Code.OK
    scene.a.orphans = (V,)
    scene.a.report()
    scene.seen(lambda _: any(each.strays for each in scene.views[0].storages.all()))
    assert code(lambda: controller.DeleteVolume(deletion, caller(9))) is Code.FAILED_PRECONDITION


def test_room_is_told_of_a_node_and_of_all(scene: Scene, controller: Controller) -> None:
    asked = pb.GetCapacityRequest(parameters={storage_classes.CLASS_KEY: FAST})
    assert controller.GetCapacity(asked, caller(9)).available_capacity == 20 * GIB
    asked.accessible_topology.CopyFrom(parameters.topology(A))
    scene.create(V, A)
    assert controller.GetCapacity(asked, caller(9)).available_capacity == 9 * GIB
