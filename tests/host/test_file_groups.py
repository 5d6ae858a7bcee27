"""Group snapshots of files, where the file system shares blocks: of one moment, whoever writes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.agent import Agent
from node_agent.assembly import Assembly, assemble
from node_agent.backends.file.backend import FileBackend
from node_agent.debts import Debts
from node_agent.holds import Hold, Holds
from tests.contract.group_scene import READ_ONLY, Writer, are_of_one_moment, is_frozen, records, volume_of
from tests.contract.sites import CLASS, wanted
from tests.host.file_rig import cleaned, ran
from ullage.errors import GIB, MIB, PreconditionError
from ullage.model import DeviceClass, DeviceType, TakeGroup, TakeSnapshot, Volume, VolumeId, VolumeState
from ullage.names import group_id, snapshot_id
from ullage.run import Subprocesses

A, B, C = VolumeId("pvc-a"), VolumeId("pvc-b"), VolumeId("pvc-c")
KINDS = {A: "ext4", B: "xfs"}
SIZES = {A: 64 * MIB, B: 304 * MIB, C: 8 * MIB}
GROUPS = int(os.environ.get("ULLAGE_GROUPS", "15"))
"""So many are taken beside a writer; a change here is worth 50."""
BATCH = 10


@dataclass(frozen=True)
class Scene:
    root: Path

    def place(self, volume_id: VolumeId) -> Path:
        return self.root / volume_id

    def begun(self) -> Assembly:
        assembly = assemble((FileBackend(Subprocesses()),), debts=Debts(self.root / "debts"))
        directory = str(self.root / "volumes")
        assembly.agent.configure([DeviceClass(name=CLASS, type=DeviceType.FILE, directory=directory)])
        assembly.agent.recover()
        return assembly

    def image(self, volume: Volume) -> Path:
        return self.root / "volumes" / f"{volume.id}.img"

    @contextmanager
    def looked_into(self, snapshot: Volume) -> Iterator[Path]:
        (place := self.root / "looked-into").mkdir(exist_ok=True)
        options = f"loop,{READ_ONLY[KINDS[VolumeId(str(snapshot.source))]]}"
        ran("mount", "-o", options, str(self.image(snapshot)), str(place))
        try:
            yield place
        finally:
            ran("umount", str(place))

    def held(self, snapshot: Volume) -> list[int]:
        """The records in it."""
        with self.looked_into(snapshot) as place:
            file = place / "records"
            return records(file) if file.exists() else []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    if os.geteuid() != 0:
        pytest.skip("loop devices need root")
    scene = Scene(tmp_path)
    image = tmp_path / "below"
    image.touch()
    os.truncate(image, 4 * GIB)
    ran("mkfs.xfs", "-q", str(image))
    (tmp_path / "volumes").mkdir()
    ran("mount", "-o", "loop", str(image), str(tmp_path / "volumes"))
    try:
        agent = scene.begun().agent
        for volume_id, size_bytes in SIZES.items():
            device = volume_of(agent.create(wanted(volume_id, size_bytes)).volume).device_path
            if volume_id in KINDS:
                ran(f"mkfs.{KINDS[volume_id]}", "-q", device)
                scene.place(volume_id).mkdir()
                ran("mount", device, str(scene.place(volume_id)))
        yield scene
    finally:
        cleaned(tmp_path)


def test_no_group_ever_shows_a_later_record_without_the_one_before(scene: Scene) -> None:
    shown = _taken_beside_a_writer(scene, scene.begun().agent, GROUPS)
    assert all(are_of_one_moment(*each) for each in shown)
    lengths = [sum(map(len, each)) for each in shown]
    assert lengths == sorted(set(lengths)), "the writer got on between any two"
    assert not any(is_frozen(scene.place(volume_id)) for volume_id in KINDS)
    assert list((scene.root / "debts").iterdir()) == []


def test_without_a_hold_of_all_it_does(scene: Scene) -> None:
    """The test above can tell: the same, with each file system at rest only for its own snapshot."""
    agent = scene.begun().agent
    is_wrong, number = False, 0
    writer = Writer(scene.place(A) / "records", scene.place(B) / "records")
    writer.start()
    try:
        while not is_wrong and number < GROUPS:
            ids = {volume_id: snapshot_id(f"{number}/{volume_id}") for volume_id in KINDS}
            taken = [
                volume_of(agent.snapshot(TakeSnapshot(snapshot_id=ids[each], source=each)).volume) for each in KINDS
            ]
            is_wrong = not are_of_one_moment(*map(scene.held, taken))
            number += 1
    finally:
        writer.end()
    assert is_wrong


def test_a_single_snapshot_is_of_a_file_system_at_rest(scene: Scene) -> None:
    """Nothing has to be replayed: what was written and not synced is there, and the journal is empty."""
    (scene.place(A) / "file").write_bytes(b"x" * MIB)
    agent = scene.begun().agent
    taken = volume_of(agent.snapshot(TakeSnapshot(snapshot_id=snapshot_id("s"), source=A)).volume)
    assert taken.state is VolumeState.READY
    assert "needs_recovery" not in ran("dumpe2fs", "-h", str(scene.image(taken)))
    with scene.looked_into(taken) as place:
        assert (place / "file").read_bytes() == b"x" * MIB
    assert not is_frozen(scene.place(A))


class Broken(Holds):
    """Holds that somebody else undoes."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene

    @contextmanager
    def still(self, volumes: Sequence[Volume], limit_seconds: float) -> Iterator[Hold]:
        with super().still(volumes, limit_seconds) as hold:
            for volume in volumes:
                ran("fsfreeze", "--unfreeze", str(self._scene.place(volume.id)))
            yield hold


def test_a_snapshot_whose_hold_was_broken_is_no_snapshot(scene: Scene) -> None:
    assembly = scene.begun()
    real, assembly.agent._ground.holds = assembly.agent._ground.holds, Broken(scene)
    with pytest.raises(PreconditionError, match="thawed by somebody else"):
        assembly.agent.snapshot_group(TakeGroup(group_id=group_id("g"), sources=(A, B)))
    assert [each.id for each in assembly.agent.volumes()] == [A, B, C]
    single = TakeSnapshot(snapshot_id=snapshot_id("s"), source=A)
    with pytest.raises(PreconditionError, match="thawed by somebody else"):
        assembly.agent.snapshot(single)
    assert all(each.state is not VolumeState.READY for each in assembly.agent.volumes() if each.source is not None)
    assembly.agent._ground.holds = real
    assert len(assembly.agent.snapshot_group(TakeGroup(group_id=group_id("g"), sources=(A, B, C)))) == 3
    assert assembly.agent.snapshot(single).is_new


def _taken_beside_a_writer(scene: Scene, agent: Agent, number: int) -> list[tuple[list[int], list[int]]]:
    shown: list[tuple[list[int], list[int]]] = []
    writer = Writer(scene.place(A) / "records", scene.place(B) / "records")
    writer.start()
    try:
        while len(shown) < number:
            groups = [group_id(f"{len(shown)}/{n}") for n in range(BATCH)]
            taken = [agent.snapshot_group(TakeGroup(group_id=group, sources=(A, B))) for group in groups]
            for members in taken:
                held = {member.source: scene.held(member) for member in members}
                shown.append((held[A], held[B]))
            for group in groups:
                agent.delete_group(group, [])
    finally:
        writer.end()
    return shown
