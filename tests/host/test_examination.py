"""Whether anything was ever written to a volume, over real files: one byte is enough, and so is somebody who has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.faults import until
from tests.host.cluster_rig import Process, ordered, put_class, put_node
from tests.host.file_rig import ran
from tests.unit.kube_doubles import ApiServer
from ullage.errors import MIB, PendingOperationError
from ullage.kube.api import Api
from ullage.kube.logical_volume import ABANDONED
from ullage.kube.meta import LOGICAL_VOLUMES, Condition
from ullage.model import VolumeId

NAME = VolumeId("pvc-a")
SIZE_BYTES = 64 * MIB


@pytest.fixture
def api(root: Path) -> ApiServer:
    api = ApiServer()
    (root / "volumes").mkdir()
    ran("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(root / "volumes"))
    put_class(api, root / "volumes")
    put_node(api)
    return api


@pytest.fixture
def process(api: ApiServer, root: Path) -> Iterator[Process]:
    process = Process(api, root).start().joined()
    ordered(api, NAME, SIZE_BYTES)
    process.until(NAME, lambda each: each.is_ready)
    yield process
    process.stop()


def ask(process: Process, question: str | None) -> None:
    Api(process.api).patch(LOGICAL_VOLUMES, NAME, {"metadata": {"annotations": {ABANDONED: question}}})


def answer(process: Process, question: str = "now") -> Condition:
    ask(process, question)
    found = process.until(NAME, lambda each: each.answer is not None).answer
    assert found is not None
    assert found.message.startswith(f"asked {question}: ")
    return found


def device(process: Process) -> str:
    return process.assembly.agent.get(NAME).device_path


def test_what_nobody_has_written_to_is_unwritten_and_stays_as_it_is(process: Process, root: Path) -> None:
    image = root / "volumes" / f"{NAME}.img"
    blocks = image.stat().st_blocks
    found = answer(process)
    assert (found.status, found.reason) == ("True", "AllZero")
    assert found.observed_generation == process.object(NAME).metadata.generation
    assert process.object(NAME).is_ready
    assert image.stat().st_blocks == blocks


def test_what_has_no_holes_is_read(process: Process, root: Path) -> None:
    image = root / "volumes" / f"{NAME}.img"
    with image.open("r+b") as file:
        file.write(bytes(SIZE_BYTES))
    assert image.stat().st_blocks * 512 >= SIZE_BYTES
    assert answer(process).status == "True"


@pytest.mark.parametrize("offset", [0, 4095, 33 * MIB + 7, SIZE_BYTES - 1])
def test_one_byte_anywhere_is_enough(process: Process, offset: int) -> None:
    with Path(device(process)).open("r+b", buffering=0) as file:
        file.seek(offset)
        file.write(b"x")
    found = answer(process)
    assert (found.status, found.reason) == ("False", "Written")
    assert found.message.endswith(f"byte {offset}")


def test_a_byte_that_is_still_in_the_devices_cache_counts(process: Process) -> None:
    writer = os.open(device(process), os.O_RDWR)
    try:
        os.pwrite(writer, b"x", SIZE_BYTES - 1)
        assert answer(process).status == "False"
    finally:
        os.close(writer)


def test_a_file_system_is_something(process: Process) -> None:
    ran("mkfs.ext4", "-q", device(process))
    assert answer(process).status == "False"


def test_what_is_mounted_is_in_use(process: Process, root: Path) -> None:
    ran("mkfs.ext4", "-q", device(process))
    (root / "place").mkdir()
    ran("mount", device(process), str(root / "place"))
    found = answer(process)
    assert (found.status, found.reason) == ("False", "InUse")


def test_whoever_has_it_exclusively_is_somebody(process: Process) -> None:
    holder = os.open(device(process), os.O_RDONLY | os.O_EXCL)
    try:
        assert answer(process).reason == "InUse"
    finally:
        os.close(holder)


def test_each_question_is_answered_and_without_one_nothing_is_said(process: Process) -> None:
    assert answer(process, "first").status == "True"
    with Path(device(process)).open("r+b", buffering=0) as file:
        file.write(b"x")
    assert answer(process, "second").status == "False"
    ask(process, None)
    process.until(NAME, lambda each: all(said.type != "Unwritten" for said in each.status.conditions))


def test_whoever_wants_the_volume_meanwhile_waits_and_it_may_still_be_deleted(api: ApiServer, root: Path) -> None:
    put_class(api, root / "volumes", copyRate="1Mi")
    process = Process(api, root).start().joined()
    try:
        ordered(api, NAME, SIZE_BYTES)
        process.until(NAME, lambda each: each.is_ready)
        image = root / "volumes" / f"{NAME}.img"
        with image.open("r+b") as file:
            file.write(bytes(SIZE_BYTES))  # no holes: it takes a minute at that rate
        ask(process, "now")
        until(lambda: process.assembly.agent.is_busy(NAME) and is_held(process))
        Api(api).delete(LOGICAL_VOLUMES, NAME)
        until(lambda: api.find(LOGICAL_VOLUMES, NAME) is None)
        assert not image.exists()
    finally:
        process.stop()


def test_a_question_that_is_withdrawn_ends_the_reading(api: ApiServer, root: Path) -> None:
    put_class(api, root / "volumes", copyRate="1Mi")
    process = Process(api, root).start().joined()
    try:
        ordered(api, NAME, SIZE_BYTES)
        process.until(NAME, lambda each: each.is_ready)
        with (root / "volumes" / f"{NAME}.img").open("r+b") as file:
            file.write(bytes(SIZE_BYTES))
        ask(process, "now")
        until(lambda: is_held(process))
        ask(process, None)
        until(lambda: not is_held(process))
        assert process.object(NAME).answer is None
    finally:
        process.stop()


def is_held(process: Process) -> bool:
    """Whether NodeStageVolume would have to wait."""
    try:
        with process.calls.alone(NAME, "NodeStageVolume"):
            return False
    except PendingOperationError:
        return True
