"""kubelet's plugin registration: the wire, the socket's life, and what kubelet says of it."""

from __future__ import annotations

import logging
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from prometheus_client import CollectorRegistry

from csi import registration
from csi.registration import Registration, describe_registration
from tests.unit.registration_doubles import Kubelet
from ullage.pb.pluginregistration.v1 import registration_pb2 as pb

LONG_SECONDS = 60.0


class Scene:
    """A driver's two sockets in kubelet's folders."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "plugins_registry"
        self.csi_socket = folder / "csi.sock"
        self.csi_socket.touch()
        self.lost = threading.Event()
        self.registration = Registration(self.directory, self.csi_socket, self.lost.set)
        self.kubelet = Kubelet(self.registration.path)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(registration, "LOOK_SECONDS", 0.01)
    scene = Scene(tmp_path)
    scene.registration.start()
    yield scene
    scene.registration.stop()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_our_messages_are_kubelets_number_by_number() -> None:
    proto = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(proto)
    fields = {
        f"{message.name}.{field.name}": (field.number, FieldDescriptorProto.Type.Name(field.type), field.label)
        for message in proto.message_type
        for field in message.field
    }
    one, many = 1, 3
    assert proto.package == "pluginregistration"
    assert fields == {
        "PluginInfo.type": (1, "TYPE_STRING", one),
        "PluginInfo.name": (2, "TYPE_STRING", one),
        "PluginInfo.endpoint": (3, "TYPE_STRING", one),
        "PluginInfo.supported_versions": (4, "TYPE_STRING", many),
        "RegistrationStatus.plugin_registered": (1, "TYPE_BOOL", one),
        "RegistrationStatus.error": (2, "TYPE_STRING", one),
    }
    (service,) = proto.service
    assert service.name == "Registration"
    assert [(call.name, call.input_type, call.output_type) for call in service.method] == [
        ("GetInfo", ".pluginregistration.InfoRequest", ".pluginregistration.PluginInfo"),
        (
            "NotifyRegistrationStatus",
            ".pluginregistration.RegistrationStatus",
            ".pluginregistration.RegistrationStatusResponse",
        ),
    ]


def test_kubelet_is_told_the_drivers_name_and_where_its_csi_socket_is(scene: Scene) -> None:
    found = scene.kubelet.asked()
    assert found == pb.PluginInfo(
        type="CSIPlugin", name="ullage.io", endpoint=str(scene.csi_socket), supported_versions=["1.0.0"]
    )
    assert scene.registration.path == scene.directory / "ullage.io-reg.sock"


def test_nobody_else_may_connect(scene: Scene) -> None:
    assert stat.S_IMODE(scene.registration.path.stat().st_mode) == 0o600


def test_the_driver_is_registered_once_kubelet_says_so(scene: Scene) -> None:
    found = scene.registration.problem()
    assert found is not None
    assert found.reason == "NotRegistered"
    scene.kubelet.tells(is_registered=True)
    assert scene.registration.problem() is None


def test_a_refusal_is_an_error_in_the_log_and_a_problem_until_kubelet_takes_it_back(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.kubelet.tells(is_registered=False, error="topology value collision")
    found = scene.registration.problem()
    assert found is not None
    assert (found.reason, found.message) == ("RefusedByKubelet", "topology value collision")
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["why"] == "topology value collision"
    scene.kubelet.tells(is_registered=True)
    assert scene.registration.problem() is None


def test_the_metric_says_whether_kubelet_knows_the_driver(scene: Scene) -> None:
    registry = CollectorRegistry()
    describe_registration(registry, scene.registration.problem)
    assert registry.get_sample_value("ullage_registered") == 0
    scene.kubelet.tells(is_registered=True)
    assert registry.get_sample_value("ullage_registered") == 1


def test_a_socket_that_vanished_is_made_again_and_kubelet_has_to_ask_again(scene: Scene) -> None:
    scene.kubelet.tells(is_registered=True)
    scene.registration.path.unlink()
    until(lambda: scene.registration.problem() is not None and scene.registration.path.exists())
    assert scene.kubelet.asked().name == "ullage.io"
    scene.kubelet.tells(is_registered=True)
    assert scene.registration.problem() is None


def test_a_folder_that_was_wiped_is_made_again_with_its_socket(scene: Scene) -> None:
    shutil.rmtree(scene.directory)
    until(scene.registration.path.exists)
    assert scene.kubelet.asked().name == "ullage.io"


def test_what_a_dead_process_left_is_replaced(tmp_path: Path, scene: Scene) -> None:
    scene.registration.stop()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(scene.registration.path))
    after = Registration(scene.directory, tmp_path / "csi.sock", lambda: None)
    after.start()
    assert scene.kubelet.asked().name == "ullage.io"
    after.stop()


def test_a_socket_on_which_another_process_answers_is_left_alone_until_it_is_gone(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    other = scene.directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(other))
        living.listen()
        other.rename(scene.registration.path)
        before = scene.registration.path.stat().st_ino
        until(lambda: "another process" in str(scene.registration.problem()))
        time.sleep(0.1)  # several looks
        assert scene.registration.path.stat().st_ino == before
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    until(lambda: "another process" not in str(scene.registration.problem()))
    assert scene.kubelet.asked().name == "ullage.io"


def test_the_end_does_not_take_another_processes_socket_along(scene: Scene) -> None:
    other = scene.directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(other))
        living.listen()
        other.rename(scene.registration.path)
        scene.registration.stop()
        assert scene.registration.path.exists()


def test_at_the_end_the_socket_is_gone(scene: Scene) -> None:
    scene.registration.stop()
    assert not scene.registration.path.exists()


def test_a_folder_in_which_nothing_can_be_made_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "csi.sock").touch()
    kept = Registration(tmp_path / "file", tmp_path / "csi.sock", lambda: None)
    kept.start()
    kept.stop()
    assert "cannot find the driver" in caplog.text
    found = kept.problem()
    assert found is not None
    assert found.reason == "NotRegistered"


def test_a_csi_socket_that_is_gone_is_told_for_nobody_can_serve_on_it_again(scene: Scene) -> None:
    scene.kubelet.tells(is_registered=True)
    scene.csi_socket.unlink()
    assert scene.lost.wait(LONG_SECONDS)
    found = scene.registration.problem()
    assert found is not None
    assert found.reason == "SocketRemoved"
